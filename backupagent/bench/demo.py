"""The main job on this machine: a real etcd is backed up, its bucket copied, restored, and proven equal."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from backupagent import wiring
from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK
from backupagent.etcd.client import EtcdClient, HashKV
from backupagent.etcd.connection import EtcdAccess
from backupagent.progress import Progress
from backupagent.settings import CopySettings, RestoreSettings, SnapshotChoice, SnapshotSettings
from backupagent.testing.keyspace import compare, read_everything
from backupagent.testing.servers import EtcdServer, MinioServer, binary_version, clean_environment, require
from backupagent.testing.workload import KubernetesLikeWriter
from backupagent.units import format_duration, format_size

SEED = 20261123
WRITES_PER_SECOND = 200.0
"""Pace of the writer that goes on while the first full snapshot is taken."""


@dataclass(frozen=True)
class Step:
    """One line of the table.

    Attributes:
        name: What was done.
        seconds: How long it took.
        bytes: How many bytes it moved, 0 where that means nothing.
        detail: What came out.
    """

    name: str
    seconds: float
    bytes: int
    detail: str


@dataclass
class _Run:
    """What the demo carries from step to step."""

    cancel: Cancel
    source_store: str
    target_store: str
    data_dir: Path
    steps: list[Step] = field(default_factory=list)

    def did(self, name: str, seconds: float, size: int, detail: str) -> None:
        self.cancel.raise_if_set()
        step = Step(name, seconds, size, detail)
        self.steps.append(step)
        print(_line(step), flush=True)  # noqa: T201 - the demo talks to whoever watches


def run_demo(*, store: str, objects: int, keep: Path | None, cancel: Cancel) -> int:
    """Play the whole job and print a table.

    Args:
        store: ``dir`` for two directories, ``minio`` for two MinIO servers.
        objects: Keys that are written before the first snapshot.
        keep: Keeps buckets and data directories there; None removes them.
        cancel: Looked at between the steps.

    Returns:
        0 when the new etcd equals the old one, else 1.

    Raises:
        BackupAgentError: a step failed.
    """
    with ExitStack() as stack:
        stack.enter_context(clean_environment())
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backupagent-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        binary = require("etcd")
        version = ".".join(map(str, binary_version(binary)))
        print(f"etcd {version}, buckets: {store}, files in {folder}\n", flush=True)  # noqa: T201
        source_store, target_store = _stores(store, folder, stack)
        run = _Run(cancel, source_store, target_store, folder / "restored.etcd")
        source = stack.enter_context(EtcdServer(binary, data_dir=folder / "source.etcd"))
        with _client(source) as client:
            _back_up(run, source, client, objects)
            _move(run)
            return _prove(run, client, binary)


def _stores(store: str, folder: Path, stack: ExitStack) -> tuple[str, str]:
    """Make two empty buckets and return their URIs."""
    if store == "dir":
        return (folder / "seed-a").as_uri(), (folder / "seed-b").as_uri()
    uris = []
    for name in ("seed-a", "seed-b"):
        minio = stack.enter_context(MinioServer(data_dir=folder / f"minio-{name}"))
        minio.make_bucket(name)
        credentials = folder / f"credentials-{name}"
        credentials.mkdir(mode=0o700)
        for file, text in (("accessKeyID", minio.access_key), ("secretAccessKey", minio.secret_key)):
            (credentials / file).touch(mode=0o600)
            (credentials / file).write_text(text)
        options = f"endpoint={quote(minio.endpoint_url, safe='')}&region={minio.REGION}&path-style=true"
        uris.append(f"s3://{name}/shoot--demo/etcd-main?{options}&credentials={quote(str(credentials), safe='')}")
    return uris[0], uris[1]


@contextmanager
def _client(server: EtcdServer) -> Iterator[EtcdClient]:
    with EtcdClient.open(EtcdAccess(endpoints=(server.url,))) as client:
        yield client


def _back_up(run: _Run, source: EtcdServer, client: EtcdClient, objects: int) -> None:
    clock = SYSTEM_CLOCK
    began_s = clock.monotonic_s()
    writer = KubernetesLikeWriter(client, seed=SEED)
    writer.create(objects)
    size = client.status().db_size
    run.did("write", clock.monotonic_s() - began_s, size, f"{objects} objects, revision {client.revision()}")
    with writer.running(WRITES_PER_SECOND):
        _snapshot(run, source, SnapshotChoice.FULL, "a writer goes on meanwhile")
    writer.churn(objects // 25)
    _snapshot(run, source, SnapshotChoice.DELTA)
    client.compact(client.revision() - objects // 50)
    writer.churn(objects // 50)
    _snapshot(run, source, SnapshotChoice.DELTA)
    _snapshot(run, source, SnapshotChoice.FULL, "the writer has stopped", final=True)


def _snapshot(run: _Run, source: EtcdServer, kind: SnapshotChoice, remark: str = "", *, final: bool = False) -> None:
    settings = SnapshotSettings(endpoints=(source.url,), store=run.source_store, kind=kind, final=final)
    report = wiring.run_snapshot(settings, Progress(), run.cancel)
    size = sum(phase.bytes for phase in report.phases)
    detail = "; ".join(filter(None, (f"to revision {report.last_revision}", remark, report.note)))
    name = "final full snapshot" if final else f"{kind.value} snapshot"
    run.did(name, report.seconds, size, detail)


def _move(run: _Run) -> None:
    copied = wiring.run_copy(CopySettings(source=run.source_store, target=run.target_store), Progress(), run.cancel)
    run.did("copy", copied.seconds, copied.bytes, f"{copied.copied} snapshots to the second bucket")
    settings = RestoreSettings(store=run.target_store, data_dir=run.data_dir)
    restored = wiring.run_restore(settings, Progress(), run.cancel)
    size = (run.data_dir / "member" / "snap" / "db").stat().st_size
    matches = {True: "equals", False: "differs from", None: "has no"}[restored.matches_manifest]
    run.did("restore", restored.seconds, size, f"revision {restored.revision}, HashKV {matches} the manifest's")


def _prove(run: _Run, source: EtcdClient, binary: Path) -> int:
    clock = SYSTEM_CLOCK
    began_s = clock.monotonic_s()
    with EtcdServer(binary, data_dir=run.data_dir) as server, _client(server) as restored:
        run.did("start the new etcd", clock.monotonic_s() - began_s, 0, server.url)
        began_s = clock.monotonic_s()
        old, new = source.hash_kv(), _hash_as_compacted(restored, source.hash_kv().compact_revision)
        difference = compare(read_everything(source), read_everything(restored))
        old_leases, new_leases = sorted(source.leases()), sorted(restored.leases())
        if difference is None and old_leases != new_leases:
            difference = f"{len(old_leases)} leases, the new etcd has {len(new_leases)}"
        run.did("compare", clock.monotonic_s() - began_s, 0, f"every key and lease: {difference or 'the same'}")
    equal = old == new and difference is None
    _print_table(run.steps, old, new)
    print("\nEQUAL" if equal else "\nDIFFERENT", flush=True)  # noqa: T201
    return 0 if equal else 1


def _hash_as_compacted(client: EtcdClient, compact_revision: int) -> HashKV:
    """HashKV depends on the compact revision, so the new etcd is brought to the old one's first."""
    if client.hash_kv().compact_revision < compact_revision:
        client.compact(compact_revision)
    return client.hash_kv()


def _line(step: Step) -> str:
    size = format_size(step.bytes) if step.bytes else ""
    rate = f"{format_size(step.bytes / step.seconds)}/s" if step.bytes and step.seconds else ""
    return f"{step.name:<20} {format_duration(step.seconds):>8} {size:>10} {rate:>12}   {step.detail}"


def _print_table(steps: list[Step], old: HashKV, new: HashKV) -> None:
    lines = ["", f"{'phase':<20} {'seconds':>8} {'bytes':>10} {'rate':>12}", *map(_line, steps), ""]
    lines.append(f"{'':<14}{'revision':>12}{'HashKV':>14}{'compact revision':>20}")
    for name, side in (("source etcd", old), ("new etcd", new)):
        lines.append(f"{name:<14}{side.revision:>12}{side.hash:>14}{side.compact_revision:>20}")
    print("\n".join(lines), flush=True)  # noqa: T201
