"""Random histories of a real etcd: backed up, copied to MinIO, restored, started, and compared with the live source."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from backupagent import wiring
from backupagent.cancel import Cancel
from backupagent.etcd.client import EtcdClient, HashKV
from backupagent.etcd.connection import EtcdAccess
from backupagent.etcd.rpc import rpc_pb2
from backupagent.model.snapshot import SnapshotKind
from backupagent.operations.report import RestoreReport
from backupagent.progress import Progress
from backupagent.settings import CopySettings, RestoreSettings, SnapshotChoice, SnapshotSettings, VerifySettings
from backupagent.testing.history import SURVIVING, RandomHistory, Restart, Take, apply
from backupagent.testing.keyspace import compare, read_everything
from backupagent.testing.servers import EtcdServer, MinioServer

pytestmark = pytest.mark.servers

VERSIONS = ("etcd-3.5", "etcd-3.6", "etcd-3.7", "etcd-3.4")
GUESSED_TTL_S = 1234.0
"""Unlike every granted one, so that a time to live that was not recorded shows."""


@pytest.fixture(scope="module")
def minio(server_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server_binary("minio")
    with MinioServer() as server:
        server.make_bucket("histories")
        credentials = tmp_path_factory.mktemp("credentials")
        (credentials / "accessKeyID").write_text(server.access_key)
        (credentials / "secretAccessKey").write_text(server.secret_key)
        options = f"endpoint={quote(server.endpoint_url, safe='')}&region={server.REGION}&path-style=true"
        yield f"s3://histories/{{prefix}}?{options}&credentials={quote(str(credentials), safe='')}"


def live_history(seed: int, server: EtcdServer, store: str) -> None:
    """Carry the planned steps out, taking snapshots where the plan says so."""
    client = EtcdClient.open(EtcdAccess(endpoints=(server.url,)))
    try:
        for step in RandomHistory(seed).plan():
            match step:
                case Take(kind):
                    choice = SnapshotChoice.FULL if kind is SnapshotKind.FULL else SnapshotChoice.DELTA
                    settings = SnapshotSettings(endpoints=(server.url,), store=store, kind=choice)
                    wiring.run_snapshot(settings, Progress(), Cancel())
                case Restart():
                    client.close()
                    server.restart()
                    client = EtcdClient.open(EtcdAccess(endpoints=(server.url,)))
                case action:
                    apply(client, action)
    finally:
        client.close()


def restore(source_store: str, target_store: str, data_dir: Path, compact_revision: int) -> RestoreReport:
    wiring.run_copy(CopySettings(source=source_store, target=target_store), Progress(), Cancel())
    assert wiring.run_verify(VerifySettings(store=target_store), Progress(), Cancel()).problems == ()
    settings = RestoreSettings(
        store=target_store,
        data_dir=data_dir,
        lease_ttl=GUESSED_TTL_S,
        hash_compact_revision=max(0, compact_revision),
    )
    return wiring.run_restore(settings, Progress(), Cancel())


def keys_at(client: EtcdClient, revision: int) -> list[tuple[bytes, bytes, int, int, int, int]]:
    request = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0", revision=revision)
    answer = client.etcd3.call(client.etcd3.kvstub.Range, request)
    return [(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease) for kv in answer.kvs]


def compacted_hash(client: EtcdClient, compact_revision: int) -> HashKV:
    if client.hash_kv().compact_revision < compact_revision:
        client.compact(compact_revision)
    return client.hash_kv()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", range(20))
def test_restored_history_equals_the_live_one(
    seed: int, minio: str, server_binary: Callable[[str], Path], tmp_path: Path
) -> None:
    binary = server_binary(VERSIONS[seed % len(VERSIONS)])
    (tmp_path / "bucket").mkdir(exist_ok=True)
    store, target = (tmp_path / "bucket").as_uri(), minio.format(prefix=f"seed/{seed}")
    with EtcdServer(binary, data_dir=tmp_path / "source.etcd") as server:
        live_history(seed, server, store)
        with EtcdClient.open(EtcdAccess(endpoints=(server.url,))) as source:
            expected = source.hash_kv()
            report = restore(store, target, tmp_path / "new.etcd", expected.compact_revision)
            assert (expected.hash, expected.revision) == (report.hash_kv, report.revision)
            with (
                EtcdServer(binary, data_dir=tmp_path / "new.etcd") as new,
                EtcdClient.open(EtcdAccess(endpoints=(new.url,))) as restored,
            ):
                compare_live(seed, source, restored, expected)


def compare_live(seed: int, source: EtcdClient, restored: EtcdClient, expected: HashKV) -> None:
    keys = read_everything(source)
    assert compare(keys, read_everything(restored)) is None
    oldest, rng = max(expected.compact_revision, 1), random.Random(seed)
    revisions = {oldest, expected.revision} | {rng.randint(oldest, expected.revision) for _ in range(12)}
    for revision in sorted(revisions):
        assert keys_at(source, revision) == keys_at(restored, revision), f"at revision {revision}"
    attached = {key.lease for key in keys if key.lease in SURVIVING} & set(source.leases()) - {0}
    assert attached <= set(restored.leases())
    assert source.lease_ttls(attached) == restored.lease_ttls(attached)
    assert compacted_hash(restored, expected.compact_revision) == expected
