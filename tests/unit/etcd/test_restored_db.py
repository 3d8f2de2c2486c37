"""A full grows by events, and only the last write makes them count."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backupagent.errors import (
    BackupAgentError,
    ChecksumMismatch,
    ConfigError,
    ConflictingDeltas,
    MalformedContent,
    NoSpace,
    TruncatedObject,
)
from backupagent.etcd.boltfile.reader import BoltReader
from backupagent.etcd.boltfile.tree import bucket, check_file, root_bucket
from backupagent.etcd.mvcc.keyvalue import encode_event
from backupagent.etcd.mvcc.lease import Lease, encode_lease_key
from backupagent.etcd.mvcc.meta import (
    CONF_STATE,
    FINISHED_COMPACT,
    SCHEDULED_COMPACT,
    STORAGE_VERSION,
    encode_number,
    read_state,
)
from backupagent.etcd.mvcc.revision import RevisionKey
from backupagent.etcd.overlap import Overlap
from backupagent.etcd.raftfiles import parse_initial_cluster
from backupagent.etcd.restored_db import RestoredDb
from backupagent.failpoints import arm
from backupagent.model.event import DELETE, Change, Event, KeyValue

MakeDb = Callable[..., Path]
CLUSTER = parse_initial_cluster("m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380,m3=http://10.0.0.3:2380")
TTL_S = 1800


def put(revision: int, key: bytes = b"k", *, size: int = 1, lease: int = 0) -> Event:
    return Event(Change(kv=KeyValue(key, revision, revision, 1, b"v" * size, lease)))


def delete(revision: int, key: bytes = b"k") -> Event:
    return Event(Change(type=DELETE, kv=KeyValue(key, mod_revision=revision)))


def stored(events: list[Event]) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    last = sub = 0
    for event in events:
        main = event.etcdEvent.kv.mod_revision
        last, sub = main, sub + 1 if main == last else 0
        key = RevisionKey(main, sub, event.etcdEvent.type == DELETE)
        found.append((key.encode(), encode_event(event)))
    return found


def append(db: RestoredDb, events: list[Event], *, key: str = "Incr-1") -> None:
    db.begin_delta(key)
    db.append(events)
    db.end_delta()


def bucket_of(path: Path, name: bytes) -> dict[bytes, bytes]:
    with BoltReader(path) as reader:
        element = root_bucket(reader).get(name)
        assert element is not None
        return {item.key: item.value for item in bucket(reader, element.value).items()}


@pytest.mark.parametrize("page_size", [1024, 4096, 16384])
@pytest.mark.parametrize("base", [0, 1, 3, 60, 4000])
@pytest.mark.parametrize("new", [0, 1, 5000])
def test_the_file_holds_base_and_events(make_etcd_db: MakeDb, page_size: int, base: int, new: int) -> None:
    rng = random.Random(7)
    old = [put(revision, size=rng.randrange(300)) for revision in range(2, 2 + base)]
    events = [put(revision, b"%d" % revision, size=rng.randrange(600)) for revision in range(2 + base, 2 + base + new)]
    path = make_etcd_db(stored(old), page_size=page_size)
    with RestoredDb.open(path) as db:
        append(db, events[: new // 2])
        append(db, events[new // 2 :])
        db.finish(CLUSTER, leases={})
        proof = db.prove()
        assert (db.revision, db.events, db.size) == (1 + base + new, new, path.stat().st_size)

    assert list(bucket_of(path, b"key").items()) == stored(old + events)
    assert (proof.revision, proof.elements) == (1 + base + new, base + new)
    with BoltReader(path) as reader:
        check_file(reader)


def test_small_buckets_are_those_of_a_new_cluster(make_etcd_db: MakeDb) -> None:
    meta = [
        (b"consistent_index", encode_number(1234)), (b"term", encode_number(9)), (CONF_STATE, b'{"voters":[1]}'),
        (STORAGE_VERSION, b"3.6.0"),
    ]  # fmt: skip
    path = make_etcd_db([], meta=meta)
    with RestoredDb.open(path) as db:
        db.finish(CLUSTER, leases={})

    assert bucket_of(path, b"members") == {member.hex_id.encode(): member.encode() for member in CLUSTER.members}
    assert bucket_of(path, b"members_removed") == {}
    with BoltReader(path) as reader:
        state = read_state(reader)
    assert (state.consistent_index, state.term, state.storage_version) == (3, 1, "3.6.0")
    assert bucket_of(path, b"meta")[CONF_STATE] == CLUSTER.encode_conf_state()


def test_a_base_without_raft_configuration_gets_none(make_etcd_db: MakeDb) -> None:
    path = make_etcd_db([])
    with RestoredDb.open(path) as db:
        db.finish(CLUSTER, leases={})

    assert set(bucket_of(path, b"meta")) == {b"consistent_index", b"term"}


def test_auth_is_seen_and_kept(make_bolt: MakeDb) -> None:
    path = make_bolt({b"auth": [(b"authEnabled", b"\1")], b"key": [], b"meta": [], b"cluster": [(b"a", b"b")]})
    with RestoredDb.open(path) as db:
        assert db.base.auth_enabled
        db.finish(CLUSTER, leases={})

    assert bucket_of(path, b"auth") == {b"authEnabled": b"\1"}
    assert bucket_of(path, b"cluster") == {b"a": b"b"}


def test_leases_of_events_are_added_and_those_of_the_base_stay(make_etcd_db: MakeDb) -> None:
    old = [(encode_lease_key(id_), Lease(id_, 60).encode()) for id_ in range(1, 500)]
    path = make_etcd_db([], lease=old)
    with RestoredDb.open(path) as db:
        append(db, [put(2, b"a", lease=7), put(3, b"b", lease=900), put(4, b"c", lease=-5), put(5, b"d", lease=901)])
        append(db, [put(6, b"d"), put(7, b"e", lease=902), delete(8, b"e")])
        assert db.attached_leases() == {7, 900, -5}
        assert db.missing_leases() == [-5, 900]
        db.finish(CLUSTER, leases={7: TTL_S, 900: TTL_S, -5: TTL_S})
        db.prove()

    added = [(encode_lease_key(id_), Lease(id_, TTL_S).encode()) for id_ in (900, -5)]
    assert list(bucket_of(path, b"lease").items()) == sorted(old + added)


def test_stripped_leases(make_etcd_db: MakeDb) -> None:
    path = make_etcd_db([])
    with RestoredDb.open(path, strip_leases=True) as db:
        append(db, [put(2, lease=7)])
        overlap = Overlap(db, "Incr-2")
        overlap.compare([put(2, lease=7)])
        overlap.finish()
        assert (overlap.compared, db.missing_leases()) == (1, [])
        db.finish(CLUSTER, leases={})

    assert list(bucket_of(path, b"key").items()) == stored([put(2)])


def test_raising_and_compacting_the_revision(make_etcd_db: MakeDb) -> None:
    path = make_etcd_db(stored([put(2)]))
    with RestoredDb.open(path) as db:
        append(db, [put(3, b"b")])
        db.finish(CLUSTER, leases={}, bump_revision=1_000_000, mark_compacted=True)
        proof = db.prove()
        assert db.revision == proof.revision == proof.compact_revision == 1_000_003

    raised = RevisionKey(1_000_003, 0, is_tombstone=False).encode()
    assert list(bucket_of(path, b"key").items()) == [*stored([put(2), put(3, b"b")]), (raised, b"")]
    assert bucket_of(path, b"meta")[SCHEDULED_COMPACT] == raised


@pytest.mark.parametrize(("leases", "bump"), [({1: 0}, 0), ({}, -1)])
def test_impossible_wishes_are_refused(make_etcd_db: MakeDb, leases: dict[int, int], bump: int) -> None:
    with RestoredDb.open(make_etcd_db([])) as db, pytest.raises(ConfigError):
        db.finish(CLUSTER, leases=leases, bump_revision=bump)


def test_bytes_behind_the_last_page_are_cut_off(make_etcd_db: MakeDb) -> None:
    path = make_etcd_db(stored([put(2)]))
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(bytes(4096) + b"a trailer of 32 bytes of sha256 ")
    RestoredDb.open(path).close()

    assert path.stat().st_size == size


def test_pages_are_safe_on_disk_before_the_metas_name_them(
    make_etcd_db: MakeDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_etcd_db([])
    calls: list[str] = []

    def record(name: str) -> None:
        real = getattr(os, name)

        def called(*args: object) -> object:
            calls.append(name)
            return real(*args)

        monkeypatch.setattr(os, name, called)

    for name in ("pwritev", "pwrite", "fsync"):
        record(name)
    with RestoredDb.open(path) as db:
        append(db, [put(2)])
        db.finish(CLUSTER, leases={})

    assert calls == ["pwritev", "pwritev", "fsync", "pwrite", "pwrite", "fsync"]


def test_until_the_end_the_file_is_the_base(make_etcd_db: MakeDb) -> None:
    path = make_etcd_db(stored([put(2)]))
    before = path.read_bytes()
    with RestoredDb.open(path) as db:
        append(db, [put(revision, size=500) for revision in range(3, 500)])
        assert path.read_bytes()[: len(before)] == before

        arm("restore.finish=nospace")
        with pytest.raises(NoSpace, match="No space left"):
            db.finish(CLUSTER, leases={})
    assert path.read_bytes()[: len(before)] == before


def test_killed_while_finishing_the_file_is_the_base(make_etcd_db: MakeDb) -> None:
    path = make_etcd_db(stored([put(2)]))
    script = (
        "import sys; from pathlib import Path\n"
        "from backupagent.etcd.restored_db import RestoredDb\n"
        "from backupagent.etcd.raftfiles import parse_initial_cluster\n"
        "from backupagent.model.event import Change, Event, KeyValue\n"
        "db = RestoredDb.open(Path(sys.argv[1])); db.begin_delta('d')\n"
        "db.append([Event(Change(kv=KeyValue(b'k', 3, 3, 1, b'v')))]); db.end_delta()\n"
        "db.finish(parse_initial_cluster('a=http://h:1'), leases={})\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, path],
        env={**os.environ, "BACKUPAGENT_FAILPOINTS": "restore.finish=sigkill"},
        check=False,
        timeout=60,
    )

    assert ended.returncode == -9
    with BoltReader(path) as reader:
        assert read_state(reader).revision == 2


def test_what_the_disk_lost_is_noticed(make_etcd_db: MakeDb) -> None:
    path = make_etcd_db(stored([put(2)]))
    with RestoredDb.open(path) as db:
        append(db, [put(3, b"here", size=100)])
        db.finish(CLUSTER, leases={})
        data = path.read_bytes()
        with path.open("r+b") as file:
            file.seek(data.index(b"here"))
            file.write(b"her3")
        with pytest.raises(ChecksumMismatch, match="others were written"):
            db.prove()


def test_events_at(make_etcd_db: MakeDb) -> None:
    old = [put(2), put(3, b"x"), delete(3, b"y")]
    new = [put(4), put(5, size=9000), put(5, b"b"), delete(6, b"k"), put(7)]
    with RestoredDb.open(make_etcd_db(stored(old))) as db:
        everything = [(RevisionKey.decode(key, "x"), value) for key, value in stored(old + new)]
        assert list(db.events_at(1, 99)) == everything[:3]
        append(db, new[:3])
        db.begin_delta("Incr-2")
        db.append(new[3:])
        for first in range(9):
            for last in range(9):
                assert list(db.events_at(first, last)) == [item for item in everything if first <= item[0].main <= last]


def overlapping(db: RestoredDb, events: list[Event], batch: int) -> int:
    overlap = Overlap(db, "Incr-2")
    db.begin_delta("Incr-2")
    for at in range(0, len(events), batch):
        overlap.compare(events[at : at + batch])
        db.append(events[at : at + batch])
    overlap.finish()
    db.end_delta()
    return overlap.compared


OLD = [put(2), put(3)]
NEW = [put(4), put(5, b"a"), put(5, b"b", size=5000), delete(6, b"a"), put(7)]


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_overlapping_deltas_that_agree(make_etcd_db: MakeDb, batch: int) -> None:
    path = make_etcd_db(stored(OLD))
    with RestoredDb.open(path) as db:
        append(db, NEW)
        assert overlapping(db, OLD + NEW, batch) == len(OLD + NEW)
        assert overlapping(db, [*NEW[1:], put(8)], batch) == 4
        assert overlapping(db, [put(9)], batch) == 0
        db.finish(CLUSTER, leases={})
        db.prove()

    assert list(bucket_of(path, b"key").items()) == stored([*OLD, *NEW, put(8), put(9)])


@pytest.mark.parametrize(
    ("events", "revision"),
    [
        ([put(5, b"a"), put(5, b"b", size=4999), delete(6, b"a")], 5),
        ([put(5, b"b", size=5000), put(5, b"a")], 5),
        ([put(5, b"a"), delete(6, b"a")], 6),
        ([put(5, b"a")], 5),
        ([put(5, b"a"), put(5, b"b", size=5000), put(5, b"c"), delete(6, b"a")], 5),
        ([put(6, b"a")], 6),
        ([delete(6, b"b"), put(7)], 6),
        ([put(3, lease=3)], 3),
        ([put(7), put(7, b"b"), put(8)], 7),
    ],
)
@pytest.mark.parametrize("batch", [1, 100])
def test_overlapping_deltas_that_differ(make_etcd_db: MakeDb, events: list[Event], revision: int, batch: int) -> None:
    with RestoredDb.open(make_etcd_db(stored(OLD))) as db:
        append(db, NEW)
        with pytest.raises(ConflictingDeltas, match=f"revision {revision} differs") as caught:
            overlapping(db, events, batch)
        assert caught.value.key == "Incr-2"


def test_what_was_compacted_away_is_not_compared(make_etcd_db: MakeDb) -> None:
    meta = [(FINISHED_COMPACT, RevisionKey(3, 0, is_tombstone=False).encode())]
    with RestoredDb.open(make_etcd_db(stored([put(3), put(4)]), meta=meta)) as db:
        assert overlapping(db, [put(2), put(3), put(4), put(5)], 2) == 1


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", MalformedContent), (bytes(99_999), MalformedContent), (None, TruncatedObject)],
)
def test_a_bad_base_is_refused(
    make_etcd_db: MakeDb, tmp_path: Path, content: bytes | None, error: type[BackupAgentError]
) -> None:
    path = tmp_path / "db"
    path.write_bytes(make_etcd_db([]).read_bytes()[:-1] if content is None else content)

    with pytest.raises(error, match="Full-1"):
        RestoredDb.open(path, name="Full-1")


def test_a_missing_base_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackupAgentError, match="No such file"):
        RestoredDb.open(tmp_path / "absent")
