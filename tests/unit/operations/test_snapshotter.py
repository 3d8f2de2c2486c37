"""Which snapshot is taken, under which name, and what its manifest says; the etcd is made up."""

import hashlib
from collections.abc import Callable, Iterator

import pytest
from snapshot_fakes import (
    NOW_S,
    RecordingStore,
    add_chain,
    add_delta,
    add_full,
    names,
    put_event,
    read,
    store,
    transfer,
)

from backupagent import failpoints
from backupagent.cancel import Cancel
from backupagent.codecs import CODECS
from backupagent.errors import ChecksumMismatch, ConfigError, EtcdError, NoSpace, RevisionCompacted
from backupagent.etcd.client import HashKV, Status
from backupagent.model.event import Event
from backupagent.model.manifest import Manifest
from backupagent.operations import snapshotter
from backupagent.operations.report import SnapshotReport
from backupagent.operations.snapshotter import Snapshotter
from backupagent.settings import SnapshotChoice, SnapshotSettings
from backupagent.snapstore import SnapStore
from backupagent.stores.memory import MemoryStore
from backupagent.testing.faulty import FaultyStore

DATABASE = bytes(range(256)) * 32


class FakeEtcd:
    """What a snapshot asks an etcd for.

    Args:
        revision: Its revision; one more for each look after ``moves``.
    """

    endpoint = "etcd:2379"

    def __init__(self, revision: int) -> None:
        self.revisions = [revision]
        self.content = DATABASE
        self.digest = hashlib.sha256(DATABASE).digest()
        self.hash_error: Exception | None = None
        self.leases_asked: list[list[int]] = []
        self.hashes_asked: list[int] = []
        self.hashed = revision
        self.cluster_id = 0xABC

    def status(self) -> Status:
        return Status("3.5.35", 1, 1, self.revisions[0], 1, 1, self.cluster_id, 1, is_learner=False, errors=())

    def revision(self) -> int:
        return self.revisions.pop(0) if len(self.revisions) > 1 else self.revisions[0]

    def snapshot_stream(self, _cancel: Cancel) -> Iterator[bytes]:
        for start in range(0, len(self.content), 1000):
            yield self.content[start : start + 1000]
        yield self.digest

    def hash_kv(self, revision: int = 0) -> HashKV:
        self.hashes_asked.append(revision)
        if self.hash_error is not None:
            raise self.hash_error
        return HashKV(hash=99, compact_revision=3, revision=revision or self.hashed)

    def lease_ttls(self, ids: list[int]) -> dict[int, int]:
        self.leases_asked.append(ids)
        return {lease: 60 for lease in ids if lease > 0}


@pytest.fixture
def etcd() -> FakeEtcd:
    return FakeEtcd(9)


def take(
    etcd: FakeEtcd,
    where: SnapStore,
    *,
    kind: SnapshotChoice = SnapshotChoice.FULL,
    final: bool = False,
    compression: str = "none",
    hash_kv: bool = True,
    part_size: int = 64 * 1024,
) -> SnapshotReport:
    settings = SnapshotSettings(store="memory://m/p", kind=kind, final=final, hash_kv=hash_kv)
    return Snapshotter(etcd, where, CODECS[compression], settings, transfer(part_size=part_size)).run()


def manifest(where: SnapStore, name: str) -> Manifest:
    listing = where.list()
    found = where.manifest(next(stored for stored in listing.snapshots if stored.name == name), listing)
    assert found is not None
    return found


def watching(monkeypatch: pytest.MonkeyPatch, *batches: list[Event], error: Exception | None = None) -> list[object]:
    """Let the watch give these batches; return the list of ranges that were asked for."""
    asked: list[object] = []

    def events(_client: object, first: int, last: int, **_options: object) -> Iterator[list[Event]]:
        asked.append((first, last))
        yield from batches
        if error is not None:
            raise error

    monkeypatch.setattr(snapshotter, "watch_events", events)
    return asked


# ---- full


@pytest.mark.parametrize("part_size", [64 * 1024, 700])
def test_a_full_and_its_manifest(part_size: int, etcd: FakeEtcd) -> None:
    where = store()
    report = take(etcd, where, part_size=part_size)
    name = f"Full-00000000-00000009-{NOW_S}"
    data = read(where, where.layout.snapshot(name))
    assert data == DATABASE + etcd.digest
    known = manifest(where, name)
    assert (known.revision_before, known.revision_after, known.revision) == (9, 9, 9)
    assert (known.hash_kv, known.hash_kv_revision, known.compact_revision) == (99, 9, 3)
    assert (known.bytes, known.stored_bytes) == (len(DATABASE), len(data))
    assert (known.sha256, known.stored_sha256) == (etcd.digest.hex(), hashlib.sha256(data).hexdigest())
    assert (known.etcd_version, known.cluster_id, known.created) == ("3.5.35", "abc", "2026-01-01T00:00:00Z")
    assert (report.name, report.names, report.kind, report.start_revision, report.events) == (
        name,
        (name,),
        "Full",
        0,
        0,
    )
    assert report.to_json()["sha256"] == known.sha256


@pytest.mark.parametrize("compression", ["gzip", "zlib", "zstd"])
def test_a_full_is_compressed_as_its_name_says(compression: str, etcd: FakeEtcd) -> None:
    where = store()
    report = take(etcd, where, compression=compression)
    assert report.name is not None
    assert report.name.endswith(CODECS[compression].suffix)
    decoder = CODECS[compression].decoder("key")
    data = read(where, where.layout.snapshot(report.name))
    assert b"".join(bytes(piece) for piece in decoder.feed(data)) == DATABASE + etcd.digest


def test_an_etcd_that_went_on_has_no_certain_revision(etcd: FakeEtcd) -> None:
    etcd.revisions = [9, 12]
    where = store()
    report = take(etcd, where, final=True)
    assert report.name == f"Full-00000000-00000009-{NOW_S}.final"
    known = manifest(where, report.name)
    assert (known.revision_before, known.revision_after, known.revision) == (9, 12, None)
    assert (known.final, known.final_at_source) == (True, True)
    assert report.note == "the etcd was written to while its final snapshot was taken (9 to 12)"


def test_a_hash_is_asked_for_by_revision_only_when_something_was_written(etcd: FakeEtcd) -> None:
    first, second, third = store(), store(), store()
    known = manifest(first, take(etcd, first).names[0])
    assert (etcd.hashes_asked, known.hash_kv, known.hash_kv_revision) == ([0], 99, 9)
    etcd.hashed = 10
    known = manifest(second, take(etcd, second).names[0])
    assert (etcd.hashes_asked, known.hash_kv_revision) == ([0, 0, 9], 9)
    etcd.revisions = [9, 12]
    known = manifest(third, take(etcd, third).names[0])
    assert (etcd.hashes_asked, known.hash_kv_revision) == ([0, 0, 9, 9], 9)


def test_a_hash_that_is_not_wanted_or_was_compacted_away_is_left_out(etcd: FakeEtcd) -> None:
    first, second = store(), store()
    report = take(etcd, first, hash_kv=False)
    assert manifest(first, report.names[0]).hash_kv is None
    etcd.hash_error = RevisionCompacted("compacted", endpoint="e")
    report = take(etcd, second)
    assert manifest(second, report.names[0]).hash_kv is None


@pytest.mark.parametrize("part_size", [64 * 1024, 700])
def test_a_stream_that_does_not_end_with_its_digest_leaves_nothing(part_size: int, etcd: FakeEtcd) -> None:
    where = store()
    etcd.digest = bytes(32)
    with pytest.raises(ChecksumMismatch, match="Full-00000000-00000009"):
        take(etcd, where, part_size=part_size)
    assert list(where.store.list_objects("")) == []
    assert where.store.list_uploads("") == []


def test_another_etcd_is_refused(etcd: FakeEtcd) -> None:
    where = store()
    add_chain(where, 5, 12)
    for kind in SnapshotChoice:
        with pytest.raises(EtcdError, match="is at revision 9, but memory://recording holds revision 12") as raised:
            take(etcd, where, kind=kind)
        assert "a prefix of its own" in raised.value.hint


def test_what_killed_writers_left_is_removed(etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    where = store()
    removed: list[bool] = []
    monkeypatch.setattr(where, "remove_leftovers", lambda: removed.append(True))
    take(etcd, where)
    assert removed == [True]


def test_settings_that_make_no_sense(etcd: FakeEtcd) -> None:
    with pytest.raises(ConfigError, match="only a full snapshot can be final"):
        take(etcd, store(), kind=SnapshotChoice.DELTA, final=True)
    with pytest.raises(ConfigError, match="lzw can only be read"):
        take(etcd, store(), compression="lzw")


def test_a_final_snapshot_asked_for_again_is_the_same_one(etcd: FakeEtcd) -> None:
    recording = RecordingStore()
    where = store(recording)
    first = take(etcd, where, final=True)
    again = take(etcd, store(recording), final=True)  # as after a restart: nothing is remembered but in the store
    assert (again.name, again.manifest) == (first.name, first.manifest)
    assert (again.last_revision, again.final, again.start_revision, again.events) == (9, True, 0, 0)
    assert again.note == "nothing was written since the final snapshot was taken, so it is the same one"
    assert names(where) == [first.name]


def test_a_full_that_nobody_calls_final_is_taken_anew(etcd: FakeEtcd) -> None:
    where = store()
    add_full(where, 9, age_s=60)
    take(etcd, where, final=True)
    assert take(etcd, where).note == ""
    assert len(names(where)) == 3


def wrote_once_more(etcd: FakeEtcd, _where: SnapStore, _name: str) -> None:
    etcd.revisions = [10]
    etcd.hashed = 10


def has_lost_its_manifest(_etcd: FakeEtcd, where: SnapStore, name: str) -> None:
    where.store.delete(where.layout.manifest(name))


def went_on_in_a_delta(etcd: FakeEtcd, where: SnapStore, _name: str) -> None:
    wrote_once_more(etcd, where, _name)
    add_delta(where, 10, 10)


def is_of_another_etcd(etcd: FakeEtcd, _where: SnapStore, _name: str) -> None:
    etcd.cluster_id = 0xDEF


@pytest.mark.parametrize(
    "change", [wrote_once_more, has_lost_its_manifest, went_on_in_a_delta, is_of_another_etcd], ids=lambda f: f.__name__
)
def test_a_final_snapshot_that_is_not_the_last_word_is_taken_anew(
    change: Callable[[FakeEtcd, SnapStore, str], None], etcd: FakeEtcd
) -> None:
    where = store()
    name = take(etcd, where, final=True).names[0]
    key = where.layout.snapshot(name)
    later = name.replace(str(NOW_S), str(NOW_S - 5))  # a new one gets a name of its own
    where.store.put(where.layout.snapshot(later), read(where, key))
    where.store.put(
        where.layout.manifest(later), read(where, where.layout.manifest(name)).replace(name.encode(), later.encode())
    )
    where.store.delete(key)
    where.store.delete(where.layout.manifest(name))
    assert take(etcd, where, final=True).names == (later,)
    change(etcd, where, later)
    anew = take(etcd, where, final=True)
    assert anew.names[0].endswith(f"{etcd.revisions[0]:08d}-{NOW_S}.final")
    assert anew.note == ""


def test_a_final_snapshot_during_which_something_was_written_is_taken_anew(etcd: FakeEtcd) -> None:
    where = store()
    etcd.revisions = [9, 10]
    first = take(etcd, where, final=True)
    assert first.manifest["revision"] is None
    etcd.hashed = 10
    assert take(etcd, where, final=True).last_revision == 10


# ---- delta


def test_a_delta_holds_everything_since_the_newest_snapshot(etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    where = store()
    add_chain(where, 5, 7)
    asked = watching(monkeypatch, [put_event(8, lease=-4), put_event(9, lease=4)])
    report = take(etcd, where, kind=SnapshotChoice.DELTA)
    assert asked == [(8, 9)]
    name = f"Incr-00000008-00000009-{NOW_S}"
    assert (report.name, report.events, report.start_revision, report.last_revision) == (name, 2, 8, 9)
    known = manifest(where, name)
    assert (known.start_revision, known.revision, known.leases) == (8, 9, {"4": 60})
    assert etcd.leases_asked == [[-4, 4]]
    assert where.list().manifests == frozenset()


def test_a_delta_where_objects_have_no_metadata(etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = RecordingStore()
    where = store(recording)
    add_chain(where, 5, 7)
    watching(monkeypatch, [put_event(8), put_event(9)])
    monkeypatch.setattr(where, "metadata_for", lambda _manifest: {})
    report = take(etcd, where, kind=SnapshotChoice.DELTA)
    assert report.name is not None
    assert recording.written[-2:] == [where.layout.manifest(report.name), where.layout.snapshot(report.name)]
    assert etcd.leases_asked == []


def test_much_history_becomes_several_deltas_cut_between_revisions(
    etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = store()
    add_full(where, 5)
    monkeypatch.setattr(snapshotter, "DELTA_SIZE", 100)
    monkeypatch.setattr(snapshotter, "RUN_SIZE", 1)
    watching(monkeypatch, [put_event(6), put_event(6), put_event(7)], [put_event(8), put_event(9)])
    report = take(etcd, where, kind=SnapshotChoice.DELTA)
    ranges = [name[5:22] for name in report.names]
    assert ranges == ["00000006-00000006", "00000007-00000007", "00000008-00000008", "00000009-00000009"]
    assert (report.start_revision, report.last_revision, report.events) == (6, 9, 5)
    assert names(where)[1:] == list(report.names)


def test_nothing_new_writes_nothing(etcd: FakeEtcd) -> None:
    where = store()
    chain = add_chain(where, 5, 9)
    report = take(etcd, where, kind=SnapshotChoice.DELTA)
    assert (report.name, report.names, report.events, report.start_revision) == (None, (), 0, 10)
    assert names(where) == chain


def test_a_full_is_taken_where_a_delta_has_no_base(etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    empty, gap, compacted = store(), store(), store()
    report = take(etcd, empty, kind=SnapshotChoice.DELTA)
    assert (report.kind, report.note) == ("Full", "the store has no full snapshot yet, so one was taken")
    add_full(gap, 2)
    add_delta(gap, 5, 6)
    report = take(etcd, gap, kind=SnapshotChoice.DELTA)
    assert (report.kind, report.note) == ("Full", "the newest chain has a gap, so a full snapshot was taken")
    add_full(compacted, 2)
    watching(monkeypatch, error=RevisionCompacted("revision 3 was compacted", endpoint="e"))
    report = take(etcd, compacted, kind=SnapshotChoice.DELTA)
    assert (report.kind, report.note) == ("Full", "revision 3 was compacted, so a full snapshot was taken")


def test_a_delta_that_cannot_be_written(etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = FaultyStore(MemoryStore())
    where = store(faulty)
    chain = add_chain(where, 5, 7)
    watching(monkeypatch, [put_event(8), put_event(9)])
    failpoints.arm("snapshot.delta=nospace")
    with pytest.raises((OSError, NoSpace)):
        take(etcd, where, kind=SnapshotChoice.DELTA)
    assert names(where) == chain
