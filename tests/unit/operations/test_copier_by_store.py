"""Snapshots that the store copies by itself: what is proven, what the target is told, what the report says."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from copying import copy, manifest, stored
from snapshot_fakes import RecordingStore, add_chain, add_full, damage, names, read, store

from backupagent.errors import AccessDenied, ChecksumMismatch, PartialFailure, TruncatedObject
from backupagent.model.manifest import FORMAT, Manifest, SourceObject
from backupagent.settings import VerifyMode
from backupagent.snapstore import SnapStore
from backupagent.stores.base import Copies, CopySource
from backupagent.testing.faulty import Fault, FaultyStore

COPIES = Copies("here", smallest=1, whole=8000, part=5000)


class Metered(RecordingStore):
    """Knows how many bytes of snapshots went through us."""

    def __init__(self) -> None:
        super().__init__(copies=COPIES)
        self.read = 0

    def read_into(self, key: str, buffer: memoryview, *, offset: int = 0, etag: str = "") -> Mapping[str, str]:
        if "/v2/" in key:
            self.read += buffer.nbytes
        return super().read_into(key, buffer, offset=offset, etag=etag)


class Silent(Metered):
    """Tells no digests."""

    def copy_source(self, key: str, *, etag: str = "") -> CopySource:
        source = super().copy_source(key, etag=etag)
        return replace(source, info=replace(source.info, digests={}))


def place(kind: type[Metered] = Metered) -> tuple[SnapStore, Metered]:
    inner = kind()
    return store(inner), inner


def with_manifests(kind: type[Metered] = Metered, *ends: int, pages: int = 1) -> tuple[SnapStore, Metered, list[str]]:
    """Make a source that we wrote ourselves: with manifests."""
    peer, (source, metered) = store(), place(kind)
    add_full(peer, 5, pages=pages)
    if ends:
        peer = store()
        add_chain(peer, 5, *ends)
    copy(peer, source, server_side_copy=False)
    metered.written.clear()
    return source, metered, names(source)


def test_nothing_of_a_chain_passes_through_us() -> None:
    source, metered, chain = with_manifests(Metered, 7, 9)
    target, there = place()
    report = copy(source, target)
    size = sum(found.size for found in source.list().snapshots)
    assert (report.copied, report.bytes, report.server_side_bytes, report.bytes_reread) == (3, 0, size, 0)
    assert (report.trailers_unchecked, report.server_side_refused, metered.read, there.read) == (0, None, 0, 0)
    assert there.snapshots_written() == []
    for name in chain:
        assert read(target, target.layout.snapshot(name)) == read(source, source.layout.snapshot(name))
        assert manifest(target, name).stored_sha256 == manifest(source, name).stored_sha256 is not None
        here = stored(source, name)
        assert manifest(target, name).source == SourceObject(here.size, here.etag)
    again = copy(source, target)
    assert (again.copied, again.skipped, again.server_side_bytes) == (0, 3, 0)


def test_large_ones_go_in_parts() -> None:
    source, _metered, [name] = with_manifests(pages=4)
    target, _there = place()
    report = copy(source, target)
    assert report.server_side_bytes == stored(source, name).size > 3 * COPIES.part
    assert read(target, target.layout.snapshot(name)) == read(source, source.layout.snapshot(name))


def test_a_delta_does_not_carry_the_manifest_of_its_source() -> None:
    source, _metered, chain = with_manifests(Metered, 7)
    target, there = place()
    copy(source, target)
    assert target.list().manifests == set(chain)
    assert there.stat(target.layout.snapshot(chain[1])).metadata == {}


def test_the_mark_of_a_final_snapshot_is_dropped() -> None:
    (source, _), (target, _) = place(), place()
    name = add_full(source, 5, final=True)
    copy(source, target)
    known = manifest(target, name.removesuffix(".final"))
    assert (known.final, known.final_at_source) == (False, True)


def test_a_snapshot_of_the_peer_is_proven_by_the_digests_of_the_store() -> None:
    (source, metered), (target, _) = place(), place()
    name = add_full(source, 5)
    report = copy(source, target)
    assert (report.server_side_bytes, report.trailers_unchecked, metered.read) == (4128, 0, 0)
    assert (manifest(target, name).stored_sha256, manifest(target, name).stored_bytes) == (None, 4128)
    assert copy(source, target).skipped == 1


@pytest.mark.parametrize("known", [True, False])
def test_without_digests_nothing_is_claimed(known: bool) -> None:
    source = with_manifests(Silent)[0] if known else place(Silent)[0]
    if not known:
        add_full(source, 5)
    target, _there = place()
    report = copy(source, target)
    assert (report.server_side_bytes, report.trailers_unchecked) == (4128, 1)
    assert manifest(target, names(target)[0]).stored_sha256 is None
    assert copy(source, target).skipped == 1


def test_without_the_trailer_check_nothing_is_claimed_either() -> None:
    (source, _), (target, _) = place(), place()
    add_full(source, 5)
    assert copy(source, target, verify=VerifyMode.TRANSFER).trailers_unchecked == 1


@pytest.mark.parametrize(("recorded", "error"), [(5000, TruncatedObject), (4000, ChecksumMismatch)])
def test_a_snapshot_of_another_size_than_its_manifest_says_is_refused(recorded: int, error: type[Exception]) -> None:
    (source, _), (target, _) = place(), place()
    good, bad = add_full(source, 5), add_full(source, 9)
    source.save_manifest(Manifest(format=FORMAT, name=bad, kind="Full", stored_bytes=recorded))
    with pytest.raises(error, match=bad):
        copy(source, target)
    assert names(target) == [good]


def test_it_can_be_switched_off() -> None:
    (source, metered), (target, there) = place(), place()
    name = add_full(source, 5)
    report = copy(source, target, server_side_copy=False)
    assert (report.bytes, report.server_side_bytes, metered.read) == (4128, 0, 4128)
    assert there.snapshots_written() == [name]


def test_a_refusal_is_reported_and_the_rest_goes_through_us() -> None:
    (source, metered), (target, there) = place(), place()
    chain = add_chain(source, 5, 7)
    faulty = FaultyStore(there, Fault("copy_object", error=AccessDenied("planned", op="copy", key="x")))
    report = copy(source, store(faulty))
    assert report.server_side_refused is not None
    assert "planned" in report.server_side_refused
    size = sum(found.size for found in source.list().snapshots)
    assert (report.copied, report.bytes, report.server_side_bytes, metered.read) == (2, size, 0, size)
    assert sorted(names(target)) == sorted(chain)
    assert all(manifest(target, name).stored_sha256 for name in chain)


def test_a_refusal_holds_for_the_history_that_moves_after_the_newest_chain() -> None:
    (source, _), (_, there) = place(), place()
    add_full(source, 5)
    add_full(source, 9)
    faulty = FaultyStore(there, Fault("copy_object", error=AccessDenied("planned", op="copy", key="x")))
    report = copy(source, store(faulty), verify=VerifyMode.READ_BACK)
    assert (report.copied, report.server_side_bytes, faulty.calls["copy_object"]) == (2, 0, 1)
    assert report.server_side_refused is not None


def test_a_source_that_cannot_be_named_is_reported() -> None:
    source, target = (
        store(FaultyStore(Metered(), Fault("copy_source", error=AccessDenied("no key", op="copy", key="x")))),
        place()[0],
    )
    add_full(source, 5)
    report = copy(source, target)
    assert report.server_side_refused is not None
    assert (report.copied, report.bytes) == (1, 4128)


# ---- reading back


def test_reading_back_gives_the_digest_that_nobody_had() -> None:
    (source, _), (target, there) = place(), place()
    name = add_full(source, 5)
    report = copy(source, target, verify=VerifyMode.READ_BACK)
    assert (report.server_side_bytes, report.trailers_unchecked, there.read) == (4128, 0, 4128)
    known = manifest(target, name)
    assert known.stored_sha256 is not None
    assert (known.bytes, known.sha256 is None) == (4096, False)


@pytest.mark.parametrize("known", [True, False])
def test_reading_back_finds_what_a_silent_store_changed(known: bool) -> None:
    class Liar(Metered):
        def copy_object(self, source: CopySource, key: str):
            info = super().copy_object(source, key)
            data = bytearray(read(store(self), key))
            data[len(data) // 2] ^= 1
            changed = self.put(key, bytes(data))
            return replace(changed, digests={}) if info.size else info

    source = with_manifests(Metered, 7)[0] if known else place()[0]
    if not known:
        add_chain(source, 5, 7)
    target, _there = place(Liar)
    chain = names(source)
    with pytest.raises(PartialFailure, match=rf"{chain[0]}: copied by the store and read back: .*sha256") as raised:
        copy(source, target, verify=VerifyMode.READ_BACK)
    assert all("check the target" in error.hint for error in raised.value.errors)
    assert (names(target), target.list().manifests) == ([], frozenset())


def test_a_change_that_the_digests_tell_is_repaired_the_ordinary_way() -> None:
    class Liar(Metered):
        def copy_object(self, source: CopySource, key: str):
            super().copy_object(source, key)
            damage(store(self), key.rpartition("/")[2])
            return self.copy_source(key).info

    source, _metered, chain = with_manifests(Metered, 7)
    target, _there = place(Liar)
    report = copy(source, target)
    assert "another digest" in str(report.server_side_refused)
    assert (report.copied, report.server_side_bytes, report.trailers_unchecked) == (2, 0, 0)
    for name in chain:
        assert read(target, target.layout.snapshot(name)) == read(source, source.layout.snapshot(name))
