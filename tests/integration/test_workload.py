"""What the generators write is what a real etcd then holds."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backupagent.codecs import CODECS
from backupagent.etcd.client import EtcdClient
from backupagent.etcd.connection import EtcdAccess
from backupagent.model.event import decode_events
from backupagent.model.snapshot import Snapshot, SnapshotKind
from backupagent.model.trailer import TRAILER_SIZE, TrailerCheck
from backupagent.testing.builders import Deltas, Full, build_deltas, build_full
from backupagent.testing.history import RandomHistory, Restart, Take, apply
from backupagent.testing.keyspace import Delete, Put, StoredKey, commit, compare, read_everything
from backupagent.testing.servers import EtcdServer
from backupagent.testing.workload import KubernetesLikeWriter

FindBinary = Callable[[str], Path]


def connect(server: EtcdServer) -> EtcdClient:
    return EtcdClient.open(EtcdAccess(endpoints=(server.endpoint,)))


@pytest.fixture
def client(server_binary: FindBinary) -> Iterator[EtcdClient]:
    with EtcdServer(server_binary("etcd-3.5")) as server, connect(server) as client:
        yield client


def test_everything_is_read_page_by_page_at_one_revision(client: EtcdClient) -> None:
    commit(client, [Put(bytes([number]), b"") for number in range(10)])
    revision = commit(client, [Put(b"\0", b"again"), Delete(b"\3", b"\7")])

    found = read_everything(client, page_keys=2)

    assert found == read_everything(client)
    assert found[0] == StoredKey(b"\0", b"again", revision - 1, revision, 2, 0)
    assert [each.key for each in found] == [bytes([number]) for number in (0, 1, 2, 7, 8, 9)]


def test_a_transaction_is_one_revision(client: EtcdClient) -> None:
    before = client.revision()

    assert commit(client, [Put(b"a", b"1"), Put(b"b", b"2"), Delete(b"c")]) == before + 1
    assert commit(client, [Delete(b"c")]) == before + 1


def test_the_writer_makes_as_many_objects_and_revisions_as_it_says(client: EtcdClient) -> None:
    before = client.revision()
    writer = KubernetesLikeWriter(client, seed=1)

    writer.create(500)

    objects = read_everything(client)
    sizes = sorted(len(each.value) for each in objects)
    assert len(objects) == 500
    assert all(each.key.startswith(b"/registry/") for each in objects)
    assert any(each.lease for each in objects)
    assert 512 <= sizes[len(sizes) // 2] <= 4096 + 200
    writer.churn(200)
    assert (writer.revisions, writer.last_revision) == (client.revision() - before, client.revision())
    assert len(read_everything(client)) != 500


def test_the_seed_alone_decides_what_is_written(server_binary: FindBinary) -> None:
    keyspaces = []
    for _ in range(2):
        with EtcdServer(server_binary("etcd-3.5")) as server, connect(server) as client:
            writer = KubernetesLikeWriter(client, seed=5)
            writer.create(100)
            writer.churn(100)
            keyspaces.append([each._replace(create_revision=0, mod_revision=0) for each in read_everything(client)])

    assert keyspaces[0]
    assert compare(*keyspaces) is None


def test_the_writer_goes_on_until_the_end_of_the_block(client: EtcdClient) -> None:
    writer = KubernetesLikeWriter(client, seed=2)

    with writer.running(per_second=1000):
        while writer.revisions < 20:
            client.revision()

    assert not [thread for thread in threading.enumerate() if thread.name == "writer"]
    assert writer.last_revision == client.revision()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_history_can_be_carried_out(server_binary: FindBinary, seed: int) -> None:
    with EtcdServer(server_binary("etcd-3.5")) as server, connect(server) as client:
        for step in RandomHistory(seed, steps=40).plan():
            if isinstance(step, Restart):
                server.restart()
            elif not isinstance(step, Take):
                apply(client, step)

        assert client.revision() > 20
        assert read_everything(client)


def test_synthetic_deltas_say_of_every_revision_what_etcd_says(client: EtcdClient, tmp_path: Path) -> None:
    build_deltas(tmp_path, client.revision(), Deltas(count=2, per_delta=10, value_size=20, keys=6))

    for path in sorted((tmp_path / "v2").iterdir()):
        for events in decode_events([path.read_bytes()[:-TRAILER_SIZE]], path.name):
            for event in events:
                kv = event.etcdEvent.kv
                assert commit(client, [Put(kv.key, kv.value)]) == kv.mod_revision
                held = next(each for each in read_everything(client) if each.key == kv.key)
                assert held == StoredKey(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)


@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_a_full_is_what_an_etcd_streamed(server_binary: FindBinary, tmp_path: Path, codec: str) -> None:
    server_binary("etcd-3.5")

    revision = build_full(tmp_path, Full(values=300, value_size=1000, codec=codec))

    (path,) = (tmp_path / "v2").iterdir()
    check = TrailerCheck(SnapshotKind.FULL, path.name)
    for piece in CODECS[codec].decoder(path.name).feed(path.read_bytes()):
        check.update(piece)
    assert check.finish().size % 512 == TRAILER_SIZE
    assert Snapshot.parse(path.name).last == revision == 1 + 3
