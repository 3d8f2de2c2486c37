"""What is copied, in which order, what is skipped, and what the target is told about it."""

import pytest
from copying import copy, manifest, stored
from snapshot_fakes import (
    NOW_S,
    RecordingStore,
    add_chain,
    add_delta,
    add_full,
    damage,
    golden,
    names,
    read,
    store,
)

from backupagent.errors import (
    BackupAgentError,
    ChecksumMismatch,
    ConfigError,
    EmptySource,
    MalformedContent,
    NameMismatch,
    ObjectLocked,
    PartialFailure,
    RevisionGap,
    TruncatedObject,
)
from backupagent.model.manifest import FORMAT, Manifest
from backupagent.settings import VerifyMode
from backupagent.snapstore import SnapStore
from backupagent.testing.faulty import Fault, FaultyStore

DAY_S = 24 * 3600


# ---- what and in which order


def test_the_newest_chain_comes_first_then_older_ones() -> None:
    source, recording = store(), RecordingStore()
    old, middle, new = add_chain(source, 5, 7), add_chain(source, 7, 8, 9), add_chain(source, 9, 12)
    target = store(recording)
    report = copy(source, target)
    assert recording.snapshots_written() == [*new, *middle, *old]
    assert (report.copied, report.newest_chain.full, report.newest_chain.last_revision) == (7, new[0], 12)


def test_only_the_newest_chain() -> None:
    source, target = store(), store()
    add_chain(source, 5, 7)
    new = add_chain(source, 9, 12)
    copy(source, target, newest_chain_only=True)
    assert names(target) == new


def test_the_shares_together_are_everything_and_each_may_run_twice() -> None:
    source, target = store(), store()
    for last in (10, 20, 30):
        add_chain(source, last)
    reports = [copy(source, target, shard=f"{index}/3") for index in (0, 1, 2)]
    assert names(target) == names(source)
    assert sum(report.copied for report in reports) == len(names(source))
    assert [copy(source, target, shard=f"{index}/3").copied for index in (0, 1, 2)] == [0, 0, 0]


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="--shard: '3/3' is not a share"):
        copy(store(), store(), shard="3/3")


def test_a_number_of_backups() -> None:
    source, target = store(), store()
    chains = [add_chain(source, last, last + 1) for last in (5, 10, 15)]
    copy(source, target, max_backups=2)
    assert sorted(names(target)) == sorted([*chains[1], *chains[2]])


def test_backups_up_to_an_age_but_always_the_newest() -> None:
    source, target = store(), store()
    add_full(source, 5, age_s=4 * DAY_S)
    kept = [add_full(source, 10, age_s=3 * DAY_S), add_full(source, 15, age_s=2 * DAY_S)]
    copy(source, target, max_backup_age=3 * DAY_S)
    assert names(target) == kept
    empty = store()
    copy(source, empty, max_backup_age=DAY_S)
    assert names(empty) == kept[1:]


def test_a_gap_in_the_newest_chain_is_refused_before_anything_is_written() -> None:
    source, recording = store(), RecordingStore()
    add_chain(source, 5, 7)
    late = add_delta(source, 10, 12)
    with pytest.raises(RevisionGap, match=rf"v2/{late}: revisions 8 to 9 are missing"):
        copy(source, store(recording))
    assert recording.written == []


def test_a_gap_in_an_older_chain_is_copied_as_it_is() -> None:
    source, target = store(), store()
    add_full(source, 5)
    add_delta(source, 8, 9)
    add_full(source, 20)
    copy(source, target)
    assert names(target) == names(source)


def test_a_snapshot_of_the_first_layout_is_copied_into_the_second() -> None:
    source, target = golden("none"), store()
    for name in names(source):
        key = source.layout.snapshot(name)
        source.store.put(f"{source.layout.legacy}Backup-1795400000/{name}", read(source, key))
        source.store.delete(key)
    expected = [stored.name for stored in source.list().snapshots]
    copy(source, target)
    assert sorted(found.key for found in target.list().snapshots) == sorted(target.layout.snapshot(n) for n in expected)


def test_an_empty_source() -> None:
    with pytest.raises(EmptySource, match="there is no snapshot"):
        copy(store(), store())


# ---- what is skipped


def test_what_was_copied_is_skipped() -> None:
    source, recording = store(), RecordingStore()
    add_chain(source, 5, 7, 9)
    assert copy(source, store(recording)).copied == 3
    recording.written.clear()
    report = copy(source, store(recording))
    assert (report.copied, report.skipped, report.bytes) == (0, 3, 0)
    assert recording.written == []


def test_a_copy_of_a_copy_is_skipped_by_its_digest_whatever_its_etag_is() -> None:
    peer, first, second = store(), store(), store()
    add_chain(peer, 5, 7)
    copy(peer, first)
    copy(first, second)
    for name in names(first):
        key = first.layout.snapshot(name)
        first.store.put(key, read(first, key), metadata=first.store.stat(key).metadata)
    assert copy(first, second).skipped == 2


@pytest.mark.parametrize("change", ["no manifest", "bad manifest", "other size", "source replaced"])
def test_what_is_not_proven_the_same_is_copied_again(change: str) -> None:
    source, target = store(), store()
    name = add_full(source, 5)
    copy(source, target)
    key = target.layout.snapshot(name)
    if change == "no manifest":
        target.store.delete(target.layout.manifest(name))
    elif change == "bad manifest":
        target.store.put(target.layout.manifest(name), b'{"format":"\xff"}')
    elif change == "other size":
        target.store.put(key, b"short")
    else:
        source.store.put(key, read(source, key))
    report = copy(source, target)
    assert (report.copied, report.skipped) == (1, 0)
    assert read(target, key) == read(source, key)
    assert copy(source, target).skipped == 1


def test_another_digest_at_the_source_is_not_the_same() -> None:
    source, target = store(), store()
    name = add_full(source, 5)
    copy(source, target)
    source.save_manifest(Manifest(format=FORMAT, name=name, kind="Full", stored_sha256="0" * 64))
    with pytest.raises(ChecksumMismatch, match="its manifest says 000"):
        copy(source, target)


# ---- bad snapshots


def test_a_bad_snapshot_fails_alone() -> None:
    source, target = store(), store()
    first = add_chain(source, 5, 7)
    second = add_chain(source, 9, 11)
    damage(source, second[1])
    with pytest.raises(ChecksumMismatch, match=second[1]):
        copy(source, target)
    assert sorted(names(target)) == sorted([*first, second[0]])


def test_several_bad_snapshots_are_all_told() -> None:
    source, target = store(), store()
    old, delta = add_chain(source, 5, 7)
    good = add_full(source, 9)
    damage(source, old)
    source.store.put(source.layout.snapshot(delta), b"")
    with pytest.raises(PartialFailure, match="2 of 3 snapshots were not copied") as raised:
        copy(source, target)
    assert {type(error) for error in raised.value.errors} == {ChecksumMismatch, TruncatedObject}
    assert names(target) == [good]


def unreadable_manifest(source: SnapStore, name: str) -> None:
    source.store.put(source.layout.manifest(name), b"{}")


def manifest_of_another(source: SnapStore, name: str) -> None:
    text = Manifest(format=FORMAT, name="Full-00000000-00000099-1", kind="Full")
    source.save_manifest(text)
    key = source.layout.manifest(name)
    source.store.put(key, read(source, source.layout.manifest(text.name)))


def unknown_suffix(source: SnapStore, name: str) -> None:
    key = source.layout.snapshot(name)
    source.store.put(f"{key}.br", read(source, key))
    source.store.delete(key)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [(unreadable_manifest, MalformedContent), (manifest_of_another, NameMismatch), (unknown_suffix, MalformedContent)],
)
def test_a_snapshot_that_cannot_even_be_begun_fails_alone(spoil, error: type[BackupAgentError]) -> None:
    source, target = store(), store()
    old, *new = add_full(source, 5), *add_chain(source, 9, 11)
    spoil(source, old)
    with pytest.raises(error, match=old):
        copy(source, target)
    assert sorted(names(target)) == sorted(new)


def test_a_suffix_that_nobody_knows_is_copied_when_its_manifest_has_the_digest() -> None:
    source, target = store(), store()
    add_full(source, 5)
    copy(source, target)
    (name,) = names(target)
    known = manifest(target, name)
    unknown_suffix(target, name)
    strange = f"{name}.br"
    fields = {field: getattr(known, field) for field in known.__struct_fields__}
    target.save_manifest(Manifest(**(fields | {"name": strange})))
    far = store()
    assert copy(target, far).trailers_unchecked == 0
    assert names(far) == [strange]


# ---- how far it is checked


def test_trailers_that_were_not_checked_are_counted() -> None:
    assert copy(golden("lzw-final"), store()).trailers_unchecked == 8
    assert copy(golden("zlib-final"), store()).trailers_unchecked == 0
    assert copy(golden("zlib-final"), store(), verify=VerifyMode.TRANSFER).trailers_unchecked == 8


def test_a_copy_without_the_trailer_check_takes_what_it_gets() -> None:
    source, target = store(), store()
    name = add_full(source, 5)
    damage(source, name)
    copy(source, target, verify=VerifyMode.TRANSFER)
    assert read(target, target.layout.snapshot(name)) == read(source, source.layout.snapshot(name))


def test_a_manifest_proves_a_trailer_without_decompressing() -> None:
    first, second = store(), store()
    copy(golden("lzw-final"), first)
    assert copy(first, second).trailers_unchecked == 0


def test_reading_back_finds_a_store_that_changes_bytes() -> None:
    source = store()
    chain = add_chain(source, 5, 7)
    faulty = FaultyStore(RecordingStore(), Fault("put", nth=1, flip=True), Fault("put", nth=3, flip=True))
    target = store(faulty)
    with pytest.raises(PartialFailure, match=rf"{chain[0]}: read back with sha256 .*, sent with") as raised:
        copy(source, target, verify=VerifyMode.READ_BACK)
    assert [type(error) for error in raised.value.errors] == [ChecksumMismatch, ChecksumMismatch]
    faulty.assert_all_hit()
    assert "check the target" in raised.value.hint
    assert names(target) == []
    assert target.list().manifests == frozenset()


def test_what_retention_keeps_of_a_store_that_changes_bytes_is_said() -> None:
    source = store()
    chain = add_chain(source, 5)
    locked = ObjectLocked("held for a day", op="delete", key=chain[0])
    faulty = FaultyStore(RecordingStore(), Fault("put", nth=1, flip=True), Fault("delete", error=locked))
    with pytest.raises(ChecksumMismatch, match="read back") as raised:
        copy(source, store(faulty), verify=VerifyMode.READ_BACK)
    faulty.assert_all_hit()
    assert "held for a day" in raised.value.hint


def test_reading_back_leaves_a_store_alone_that_keeps_its_bytes() -> None:
    source, target = store(), store()
    add_chain(source, 5, 7)
    report = copy(source, target, verify=VerifyMode.READ_BACK)
    assert [phase.name for phase in report.phases] == ["discover", "plan", "transfer", "verify"]
    assert report.phases[-1].bytes == report.bytes
    assert names(target) == names(source)
    assert stored(target, names(source)[0]).snapshot.created_s == NOW_S
