"""What the buckets prove about a migration, on real snapshots in memory and in directories."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from snapshot_fakes import (
    NOW_S,
    RecordingStore,
    add_chain,
    add_delta,
    add_full,
    damage,
    delta_content,
    read,
    store,
    transfer,
    with_trailer,
)

from backupagent.errors import IntegrityError, StoreUnavailable
from backupagent.model.manifest import FORMAT, Manifest, SourceObject
from backupagent.operations.arrival import (
    MAX_MISSING,
    Arrival,
    Backups,
    Remembered,
    SourceSnapshot,
    source_snapshots,
)
from backupagent.operations.copier import Copier
from backupagent.settings import CopySettings
from backupagent.snapstore import SnapStore
from backupagent.stores.local import LocalStore
from backupagent.testing.builders import Deltas, RandomFull, build_chain, build_random_full
from backupagent.testing.faulty import Fault, FaultyStore


class CountingStore(RecordingStore):
    """A memory store that remembers what was read."""

    def __init__(self, name: str = "counting") -> None:
        super().__init__(name)
        self.read: list[str] = []

    def read_into(self, key: str, buffer: memoryview, *, offset: int = 0, etag: str = "") -> None:
        self.read.append(key)
        super().read_into(key, buffer, offset=offset, etag=etag)

    def snapshots_read(self) -> set[str]:
        return {key.rpartition("/")[2] for key in self.read if "/v2/" in key}


def copy(source: SnapStore, target: SnapStore) -> None:
    Copier(source, target, CopySettings(source="s", target="t"), transfer()).run()


def backups(where: SnapStore, remembered: Remembered | None = None) -> Backups:
    return Backups(where, transfer(), remembered or Remembered())


def check(source: SnapStore, target: SnapStore, *, settled: bool = True) -> Arrival:
    return backups(target).check_copy(source_snapshots(source.list()), settled=settled)


def reasons(arrival: Arrival) -> list[str]:
    return [problem.reason for problem in arrival.problems]


# ---- the final snapshot


def test_the_final_snapshot_is_read_whole() -> None:
    where = store()
    add_chain(where, 5, 7)
    name = add_full(where, 9, final=True)
    manifest = Manifest(
        format=FORMAT, name=name, kind="Full", revision=10, hash_kv=77, hash_kv_revision=10, compact_revision=3
    )
    where.save_manifest(manifest)
    found = backups(where).find_final(where.list())
    assert found is not None
    final = backups(where).verify_final(found, where.list())
    assert (final.name, final.revision, final.bytes) == (name, 10, found.size)
    assert (final.hash_kv, final.hash_kv_revision, final.compact_revision) == (77, 10, 3)
    assert final.stored_sha256 is not None
    assert len(final.stored_sha256) == 64


def test_a_final_snapshot_of_the_peer_is_known_by_its_name() -> None:
    where = store()
    add_full(where, 9, final=True)
    found = backups(where).find_final(where.list())
    assert found is not None
    final = backups(where).verify_final(found, where.list())
    assert (final.revision, final.hash_kv) == (9, None)


def test_there_is_no_final_snapshot() -> None:
    where = store()
    add_chain(where, 5, 7)
    assert backups(where).find_final(where.list()) is None
    assert backups(store()).find_final(store().list()) is None


def test_an_etcd_may_go_on_for_a_while_after_its_final_snapshot() -> None:
    where = store()
    final = add_full(where, 5, final=True)
    for last in (6, 7, 8):
        add_full(where, last)
    found = backups(where).find_final(where.list())
    assert found is not None
    assert found.name == final
    add_full(where, 9)
    assert backups(where).find_final(where.list()) is None


def test_a_final_snapshot_of_an_earlier_attempt() -> None:
    where = store()
    add_full(where, 5, final=True, age_s=1000)
    assert backups(where).find_final(where.list(), not_before_s=NOW_S - 1001) is not None
    assert backups(where).find_final(where.list(), not_before_s=NOW_S - 999) is None


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_damaged_final_snapshot(with_manifest: bool) -> None:
    where = store()
    name = add_full(where, 9, final=True, codec="gzip")
    if with_manifest:
        where.save_manifest(Manifest(format=FORMAT, name=name, kind="Full", stored_sha256="0" * 64))
    else:
        damage(where, name)
    found = backups(where).find_final(where.list())
    assert found is not None
    with pytest.raises(IntegrityError):
        backups(where).verify_final(found, where.list())


def test_a_final_snapshot_is_known_at_the_destination_by_its_manifest() -> None:
    source, target = store(), store()
    add_chain(source, 5, 7)
    name = add_full(source, 9, final=True)
    copy(source, target)
    add_full(target, 11)
    found = backups(target).find_copy_of_final(target.list())
    assert found is not None
    assert found.name == name.removesuffix(".final")
    assert backups(source).find_copy_of_final(source.list()) is None


# ---- what must arrive


def test_what_must_arrive_is_everything_in_a_chain() -> None:
    where = store()
    add_delta(where, 1, 3)  # no full comes before it: nobody can use it
    names = add_chain(where, 5, 7)
    final = add_full(where, 9, final=True)
    expected = source_snapshots(where.list())
    assert [snapshot.name for snapshot in expected] == [final.removesuffix(".final"), *names]
    assert all(snapshot.size and snapshot.etag for snapshot in expected)


# ---- what has arrived


def test_a_complete_copy_is_proven_and_only_its_newest_chain_is_read() -> None:
    source, inner = store(), CountingStore()
    target = store(inner)
    add_chain(source, 5, 7)
    newest = add_chain(source, 9, 11, 12)
    copy(source, target)
    inner.read.clear()
    arrival = check(source, target)
    assert (arrival.proof.complete, arrival.proof.expected, arrival.proof.present) == (True, 5, 5)
    assert (arrival.proof.missing, arrival.problems) == ((), ())
    assert arrival.proof.bytes == sum(stored.size for stored in source.list().snapshots)
    assert inner.snapshots_read() == set(newest)


def test_a_copy_of_the_peer_has_no_manifests_and_is_read_whole() -> None:
    source, inner = store(), CountingStore()
    target = store(inner)
    names = [*add_chain(source, 5, 7), *add_chain(source, 9, 11)]
    for name in names:
        target.store.put(target.layout.snapshot(name), read(source, source.layout.snapshot(name)))
    assert check(source, target).proof.complete
    assert inner.snapshots_read() == set(names)


def test_while_it_is_copied_nothing_is_read_and_nothing_is_claimed() -> None:
    source, inner = store(), CountingStore()
    target = store(inner)
    names = add_chain(source, 5, 7)
    target.store.put(target.layout.snapshot(names[0]), read(source, source.layout.snapshot(names[0])))
    arrival = check(source, target, settled=False)
    assert (arrival.proof.present, arrival.proof.complete, arrival.problems) == (0, False, ())
    copy(source, target)
    inner.read.clear()
    arrival = check(source, target, settled=False)
    assert (arrival.proof.present, arrival.proof.newest_chain_verified) == (2, False)
    assert inner.snapshots_read() == set()


def test_one_object_is_missing() -> None:
    source, target = store(), store()
    names = add_chain(source, 5, 7, 9)
    copy(source, target)
    target.store.delete(target.layout.snapshot(names[1]))
    arrival = check(source, target)
    assert (arrival.proof.present, arrival.proof.missing) == (2, (names[1],))
    assert not arrival.proof.newest_chain_verified
    assert not arrival.proof.complete


def test_nothing_arrived() -> None:
    source = store()
    add_chain(source, 5, *range(6, 6 + 2 * MAX_MISSING))
    arrival = check(source, store())
    assert (arrival.proof.present, arrival.proof.expected) == (0, 2 * MAX_MISSING + 1)
    assert len(arrival.proof.missing) == MAX_MISSING


def test_an_empty_source_is_never_a_complete_copy() -> None:
    arrival = check(store(), store())
    assert (arrival.proof.expected, arrival.proof.complete) == (0, False)


def truncate(where: SnapStore, name: str) -> None:
    key = where.layout.snapshot(name)
    where.store.put(key, read(where, key)[:-1], metadata=where.store.stat(key).metadata)


def replace(where: SnapStore, name: str) -> None:
    """Put another snapshot of the same size there, whole in itself."""
    key = where.layout.snapshot(name)
    where.store.put(key, with_trailer(read(where, key)[:-33] + b"x"))


@pytest.mark.parametrize(
    ("harm", "which"), [*((truncate, which) for which in range(4)), *((damage, which) for which in (0, 2, 3))]
)
def test_one_object_is_harmed(harm: Callable[[SnapStore, str], None], which: int) -> None:
    source, target = store(), store()
    names = [*add_chain(source, 5, 7), *add_chain(source, 9, 11)]
    copy(source, target)
    harm(target, names[which])
    arrival = check(source, target)
    assert (arrival.proof.present, arrival.proof.missing) == (3, (names[which],))
    assert arrival.proof.newest_chain_verified is (which < 2)
    assert reasons(arrival) == ["TruncatedObject" if harm is truncate else "ChecksumMismatch"]
    assert names[which] in str(arrival.problems[0])


@pytest.mark.parametrize("which", [0, 2])
def test_a_full_is_replaced_by_another_one_of_the_same_size(which: int) -> None:
    source, target = store(), store()
    names = [*add_chain(source, 5, 7), *add_chain(source, 9, 11)]
    copy(source, target)
    replace(target, names[which])
    arrival = check(source, target)
    assert (arrival.proof.missing, reasons(arrival)) == ((names[which],), ["ChecksumMismatch"])


def test_a_delta_that_is_the_copy_of_another_object_of_the_same_size() -> None:
    """Its manifest is part of it, and tells which object it was made from."""
    source, target = store(), store()
    name = add_chain(source, 5, 7)[1]
    copy(source, target)
    listing = target.list()
    stored = next(s for s in listing.snapshots if s.name == name)
    manifest = target.manifest(stored, listing)
    assert manifest is not None
    foreign = msgspec.structs.replace(manifest, source=SourceObject(stored.size, "another"))
    target.store.put(stored.key, read(target, stored.key), metadata=target.metadata_for(foreign))
    arrival = check(source, target)
    assert (arrival.proof.missing, reasons(arrival)) == ((name,), ["ChecksumMismatch"])


def test_the_digest_of_the_final_snapshot_decides_whatever_a_manifest_says() -> None:
    source, target = store(), store()
    name = add_full(source, 9)
    copy(source, target)
    stored = source.list().snapshots[0]
    wanted = SourceSnapshot(name, stored.size, stored.etag, sha256="0" * 64)
    arrival = backups(target).check_copy([wanted], settled=True)
    assert (arrival.proof.present, reasons(arrival)) == (0, ["ChecksumMismatch"])
    target.store.delete(target.layout.manifest(name))
    arrival = backups(target).check_copy([wanted], settled=True)
    assert (arrival.proof.present, reasons(arrival)) == (0, ["ChecksumMismatch"])


def test_a_hole_in_the_newest_chain() -> None:
    source, target = store(), store()
    add_full(source, 5)
    add_delta(source, 8, 9)
    for stored in source.list().snapshots:
        target.store.put(target.layout.snapshot(stored.name), read(source, stored.key))
    arrival = check(source, target)
    assert (arrival.proof.present, arrival.proof.newest_chain_verified) == (2, False)
    assert reasons(arrival) == ["RevisionGap"]


def test_a_hole_inside_a_delta_of_the_newest_chain() -> None:
    source, target = store(), store()
    add_full(source, 5)
    name = add_delta(source, 6, 9)
    source.store.put(source.layout.snapshot(name), with_trailer(delta_content(6, 9)))
    for stored in source.list().snapshots:
        target.store.put(target.layout.snapshot(stored.name), read(source, stored.key))
    arrival = check(source, target)
    assert (arrival.proof.missing, reasons(arrival)) == ((name,), ["RevisionGap"])


def test_what_was_read_once_is_not_read_again_until_it_changes() -> None:
    source, inner = store(), CountingStore()
    target = store(inner)
    newest = add_chain(source, 9, 11)
    copy(source, target)
    looker = backups(target)
    expected = source_snapshots(source.list())
    assert looker.check_copy(expected, settled=True).proof.complete
    inner.read.clear()
    assert looker.check_copy(expected, settled=True).proof.complete
    assert inner.read == []
    damage(target, newest[0])
    assert looker.check_copy(expected, settled=True).proof.missing == (newest[0],)


def test_a_store_that_fails_is_no_verdict() -> None:
    source, inner = store(), RecordingStore()
    add_chain(source, 5, 7)
    copy(source, store(inner))
    faulty = store(FaultyStore(inner, Fault("read_into", error=StoreUnavailable("reset", op="read"))))
    with pytest.raises(StoreUnavailable):
        check(source, faulty)


def test_copies_in_directories(tmp_path: Path) -> None:
    """A directory has no metadata: every manifest is a file of its own."""
    build_chain(tmp_path / "a", RandomFull(64 * 1024, revision=10, codec="gzip"), Deltas(3, 20, 100, codec="gzip"))
    source = SnapStore(LocalStore(tmp_path / "a"), "")
    target = SnapStore(LocalStore(tmp_path / "b", create=True), "")
    copy(source, target)
    assert check(source, target).proof.complete
    other = tmp_path / "other"
    build_random_full(other, RandomFull(64 * 1024, revision=10, seed=9))
    full = next((tmp_path / "b" / "v2").glob("Full*"))
    full.write_bytes(next((other / "v2").iterdir()).read_bytes())
    assert check(source, target).proof.missing == (full.name,)


# ---- what came after


def test_the_first_backup_of_the_new_etcd() -> None:
    source, target = store(), store()
    add_chain(source, 5, 7)
    add_full(source, 9, final=True, age_s=60)
    copy(source, target)
    copied = frozenset(snapshot.name for snapshot in source_snapshots(source.list()))
    assert backups(target).first_new_backup(copied, revision=9, since_s=NOW_S - 30) is None
    second = add_delta(target, 12, 13, age_s=5)
    assert backups(target).first_new_backup(copied, revision=9, since_s=NOW_S - 30) == second
    first = add_delta(target, 10, 11, age_s=10)
    assert backups(target).first_new_backup(copied, revision=9, since_s=NOW_S - 30) == first


def test_copies_are_no_new_backups_even_when_nobody_knows_what_the_source_held() -> None:
    source, target = store(), store()
    add_chain(source, 9, 11)
    copy(source, target)
    assert backups(target).first_new_backup(frozenset(), revision=9, since_s=0) is None


def test_what_is_older_than_the_restore_or_ends_before_the_final_snapshot_is_no_new_backup() -> None:
    target = store()
    add_full(target, 9, age_s=60)
    add_full(target, 8)
    assert backups(target).first_new_backup(frozenset(), revision=9, since_s=NOW_S - 30) is None
