"""SIGTERM and SIGKILL in every phase of a snapshot, a copy and a restore, and the run after it, which succeeds.

A failpoint sends the signal at its n-th hit. Copies have one worker, so that what was done before the signal is known
to the byte. A new place where a signal may come is one row of a table; ``{}`` stands for the signal, which has a count
since a second one would end the process at once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from buckets import COMPACT_REVISION, Bucket, golden, source_hash
from command import Ended, backupagent
from place import Place
from targets import DirectoryTarget, MinioTarget, Target, digests

from backupagent.errors import Cancelled
from backupagent.etcd.client import EtcdClient
from backupagent.etcd.connection import EtcdAccess
from backupagent.testing.builders import Deltas, RandomFull, build_chain
from backupagent.testing.keyspace import Put, commit
from backupagent.testing.servers import EtcdServer
from backupagent.units import MiB

SIGNALS = {"sigterm": Cancelled.exit_code, "sigkill": -9}
"""Every signal, and the exit status of a process that it ends."""

PART_SIZE = 5 * MiB
PARTS = 6
FULL_SIZE = 26 * MiB + 32
"""Five parts of 5 MiB and a shorter one; 32 bytes are the trailer."""
OBJECTS = 4
"""The full and its deltas, copied in this order."""


@dataclass(frozen=True)
class After:
    """What a copy that was ended leaves.

    Attributes:
        visible: Objects at the target.
        held: Parts of the full that the next run does not upload again.
        again: How many of the visible objects the next run uploads again.
    """

    visible: int = 0
    held: int = 0
    again: int = 0


NOTHING = After()


@dataclass(frozen=True)
class Copying:
    """A failpoint of a copy.

    Attributes:
        armed: It, and the hit at which it acts.
        after: What is left, by signal.
        only: The kind of target that passes it; empty for all.
    """

    armed: str
    after: dict[str, After]
    only: str = ""


COPIES = [
    Copying("copy.discover={}*1", {"sigterm": NOTHING, "sigkill": NOTHING}),
    Copying("transfer.part={}*1", {"sigterm": After(held=1), "sigkill": NOTHING}),
    # The store has begun an upload whose name only the process knows that is killed.
    Copying("transfer.begun={}*1", {"sigterm": After(held=1), "sigkill": NOTHING}),
    Copying("transfer.part={}*5", {"sigterm": After(held=5), "sigkill": After(held=4)}),
    Copying("transfer.part={}*8", {"sigterm": After(visible=3), "sigkill": After(visible=2)}),
    Copying("transfer.complete={}*1", {"sigterm": After(visible=1), "sigkill": After(held=PARTS)}),
    # The full's manifest is there before it.
    Copying("copy.publish={}*1", {"sigterm": After(visible=1), "sigkill": After(visible=1)}),
    # Without its manifest nothing proves that an object in one part, as a delta, is the same.
    Copying("copy.publish={}*2", {"sigterm": After(visible=2), "sigkill": After(visible=2, again=1)}, "directory"),
    # What is written: the journal's entry without the upload's name, and with it, the first part.
    Copying("local.write={}*1", {"sigterm": After(held=1), "sigkill": NOTHING}, "directory"),
    Copying("local.write={}*2", {"sigterm": After(held=1), "sigkill": NOTHING}, "directory"),
    Copying("local.write={}*3", {"sigterm": After(held=1), "sigkill": NOTHING}, "directory"),
    # What is renamed: the journal's entry twice, the full's manifest, the full, its manifest again.
    Copying("local.rename={}*1", {"sigterm": After(held=1), "sigkill": NOTHING}, "directory"),
    Copying("local.rename={}*2", {"sigterm": After(held=1), "sigkill": NOTHING}, "directory"),
    Copying("local.rename={}*3", {"sigterm": After(visible=1), "sigkill": After(held=PARTS)}, "directory"),
    Copying("local.rename={}*4", {"sigterm": After(visible=1), "sigkill": After(held=PARTS)}, "directory"),
    Copying("local.rename={}*5", {"sigterm": After(visible=1), "sigkill": After(visible=1)}, "directory"),
]


@dataclass(frozen=True)
class Snapshotting:
    """A failpoint of a snapshot.

    Attributes:
        armed: It, and the hit at which it acts.
        choice: Which snapshot is taken.
        visible: Snapshots that are there afterwards.
        uploads: Whether SIGKILL leaves an open upload.
        late: Whether the snapshot is there already: then SIGTERM lets the rest be done.
        only: The kind of target that passes it; empty for all.
    """

    armed: str
    choice: str = "full"
    visible: int = 0
    uploads: bool = False
    late: bool = False
    only: str = ""


SNAPSHOTS = [
    Snapshotting("snapshot.stream={}*100"),
    Snapshotting("transfer.part={}*2", uploads=True),
    Snapshotting("snapshot.publish={}*1", uploads=True),
    Snapshotting("snapshot.manifest={}*1", visible=1, late=True),
    Snapshotting("snapshot.delta={}*1", "delta", visible=1),
]

RESTORES = [
    "restore.base={}*1",
    "restore.delta={}*3",
    "restore.finish={}*1",
    "restore.raft={}*1",
    "restore.publish={}*1",
]


def for_each_target(rows: Sequence[Copying] | Sequence[Snapshotting]) -> pytest.MarkDecorator:
    """Multiply rows with signals and kinds of target."""
    cases = [
        pytest.param(row, signal, kind, id=f"{row.armed.format(signal)}-{kind}")
        for row in rows
        for kind in ("directory", "minio")
        if row.only in {"", kind}
        for signal in SIGNALS
    ]
    return pytest.mark.parametrize(("row", "signal", "kind"), cases)


def make_target(kind: str, request: pytest.FixtureRequest) -> Target:
    if kind == "directory":
        return DirectoryTarget(request.getfixturevalue("tmp_path") / "target")
    minio = request.getfixturevalue("minio")
    return MinioTarget(minio, minio.make(), frozenset(minio.open_uploads()))


def assert_ended_by(signal: str, ended: Ended) -> None:
    assert ended.code == SIGNALS[signal], ended.stderr
    if signal == "sigterm":
        error = ended.document["error"]
        assert (error["reason"], error["exit_code"]) == ("Cancelled", 130)
        assert "SIGTERM" in error["message"]
        assert error["hint"]


# ---- copy


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    """A full in six parts and three small deltas."""
    bucket = Bucket(tmp_path_factory.mktemp("history"))
    build_chain(bucket.root, RandomFull(FULL_SIZE - 32), Deltas(count=OBJECTS - 1, per_delta=40, value_size=1000))
    assert bucket.full.stat().st_size == FULL_SIZE
    return bucket


@for_each_target(COPIES)
def test_a_copy_goes_on_where_it_was_ended(
    row: Copying, signal: str, kind: str, history: Bucket, request: pytest.FixtureRequest
) -> None:
    target, left, objects = make_target(kind, request), row.after[signal], digests(history.objects())
    options = ("--source", history.uri, "--target", target.uri, "--part-size", "5MiB", "--workers", "1")

    assert_ended_by(signal, backupagent("copy", *options, armed=row.armed.format(signal)))
    assert target.objects() == dict(list(objects.items())[: left.visible])
    if left.held:
        assert len(target.unfinished()) > 1, "an upload, and its entry in the journal"
    elif signal == "sigterm":
        assert target.unfinished() == []

    report = backupagent("copy", *options).report()
    reread = min(left.held * PART_SIZE, FULL_SIZE)
    sizes = [size for size, _sha256 in objects.values()]
    proven = sum(sizes[: left.visible - left.again])
    assert (report["copied"], report["skipped"]) == (OBJECTS - left.visible + left.again, left.visible - left.again)
    assert report["bytes_reread"] == reread
    assert report["bytes"] == sum(sizes) - proven - reread
    assert target.objects() == objects
    assert target.unfinished() == []
    assert backupagent("copy", *options).report()["skipped"] == OBJECTS


# ---- snapshot


@pytest.fixture(scope="module")
def etcd(server_binary: Callable[[str], Path]) -> Iterator[EtcdServer]:
    with EtcdServer(binary=server_binary("etcd")) as server, open_client(server) as client:
        for number in range(12):
            commit(client, [Put(b"/key/%d" % number, bytes([number]) * MiB)])
        yield server


def open_client(server: EtcdServer) -> EtcdClient:
    return EtcdClient.open(EtcdAccess(endpoints=(server.url,)))


@for_each_target(SNAPSHOTS)
def test_a_snapshot_that_was_ended_is_taken_anew(
    row: Snapshotting, signal: str, kind: str, etcd: EtcdServer, request: pytest.FixtureRequest
) -> None:
    target = make_target(kind, request)
    options = ("--endpoints", etcd.url, "--store", target.uri, "--compression", "none", "--part-size", "5MiB")
    if row.choice == "delta":
        backupagent("snapshot", *options).report()
        with open_client(etcd) as client:
            commit(client, [Put(b"/later", b"value")])

    ended = backupagent("snapshot", *options, "--kind", row.choice, armed=row.armed.format(signal))
    if signal == "sigterm" and row.late:
        ended.report()
    else:
        assert_ended_by(signal, ended)
    before = target.objects()
    assert len(before) == row.visible
    assert bool(target.unfinished()) == (row.uploads and signal == "sigkill")

    report = backupagent("snapshot", *options, "--kind", row.choice).report()
    assert target.objects().keys() == before.keys() | {report["name"]}
    assert target.unfinished() == []
    assert backupagent("verify", "--store", target.uri).report()["checked"] == len(before.keys() | {report["name"]})
    newest = backupagent("list", "--store", target.uri).report()["chains"][0]
    assert report["name"] in {each["name"] for each in [newest["full"], *newest["deltas"]]}
    with open_client(etcd) as client:
        assert newest["last_revision"] == client.revision()


# ---- restore


@pytest.mark.parametrize("armed", RESTORES)
@pytest.mark.parametrize("signal", SIGNALS)
def test_a_restore_that_was_ended_is_made_anew(signal: str, armed: str, place: Place) -> None:
    golden("gzip", place.source)
    unfinished = place.data_dir.with_name(f"{place.data_dir.name}.part")

    assert_ended_by(signal, place.restore(armed=armed.format(signal)))
    assert not place.data_dir.exists()
    assert unfinished.exists() == (signal == "sigkill")

    report = place.restore("--hash-compact-revision", str(COMPACT_REVISION)).report()
    assert report["hash_kv"] == source_hash("gzip")
    assert not unfinished.exists()
