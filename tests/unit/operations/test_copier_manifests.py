"""What the target is told about a copy."""

import pytest
from copying import copy, manifest, stored
from snapshot_fakes import (
    add_chain,
    add_full,
    names,
    read,
    store,
)

from backupagent.errors import (
    NameMismatch,
)
from backupagent.model.manifest import FORMAT, Manifest, SourceObject
from backupagent.snapstore import SnapStore
from backupagent.stores.base import ObjectInfo
from backupagent.stores.memory import MemoryStore

DAY_S = 24 * 3600


def test_the_mark_of_a_final_snapshot_is_dropped_and_remembered() -> None:
    source, target = store(), store()
    name = add_full(source, 5, final=True)
    report = copy(source, target)
    plain = name.removesuffix(".final")
    assert (names(target), report.newest_chain.full) == ([plain], plain)
    known = manifest(target, plain)
    assert (known.name, known.final, known.final_at_source) == (plain, False, True)
    again = store()
    copy(target, again)
    assert manifest(again, plain).final_at_source


def test_a_manifest_says_what_was_seen_and_where_it_came_from() -> None:
    source, target = store(), store()
    name = add_full(source, 5, codec="gzip")
    copy(source, target)
    here, known = stored(source, name), manifest(target, name)
    assert known.source == SourceObject(here.size, here.etag)
    assert (known.stored_bytes, known.bytes) == (here.size, 4096)
    assert known.sha256 is not None
    assert known.stored_sha256 is not None


def test_a_manifest_keeps_what_the_source_knows() -> None:
    source, target = store(), store()
    name = add_full(source, 5)
    source.save_manifest(
        Manifest(format=FORMAT, name=name, kind="Full", revision=5, hash_kv=7, hash_kv_revision=5, leases={"1": 60})
    )
    copy(source, target)
    known = manifest(target, name)
    assert (known.revision, known.hash_kv, known.hash_kv_revision, known.leases) == (5, 7, 5, {"1": 60})


def test_a_small_delta_carries_its_manifest_and_needs_no_other_object() -> None:
    source, target = store(), store()
    full, delta = add_chain(source, 5, 7)
    copy(source, target)
    assert target.list().manifests == {full}
    assert manifest(target, delta).start_revision == 6


def test_deltas_bring_their_manifests_and_nobody_asks_for_them() -> None:
    source, middle, target = store(), store(), store()
    full, *deltas = add_chain(source, 5, 7, 9, 12)
    copy(source, middle)
    asked: list[str] = []

    class Listening(MemoryStore):
        def stat(self, key: str) -> ObjectInfo:
            asked.append(key)
            return super().stat(key)

    listening = SnapStore(Listening(), "p")
    for info in list(middle.store.list_objects("")):
        data, metadata = read(middle, info.key), middle.store.stat(info.key).metadata
        listening.store.put(info.key, data, metadata=metadata)
    copy(listening, target)
    assert asked == [listening.layout.manifest(full)]
    for delta in deltas:
        assert manifest(target, delta).stored_sha256 == manifest(middle, delta).stored_sha256


def test_a_manifest_that_comes_with_a_delta_and_is_another_ones_fails_it_alone() -> None:
    source, target = store(), store()
    full, delta, *_rest = add_chain(source, 5, 7, 9)
    wrong = Manifest(format=FORMAT, name="Incr-00000001-00000002-1795400591", kind="Incr")
    key = source.layout.snapshot(delta)
    source.store.put(key, read(source, key), metadata=source.metadata_for(wrong))
    with pytest.raises(NameMismatch, match="its manifest is that of"):
        copy(source, target)
    assert names(target) == [full, _rest[0]]


def test_a_delta_in_parts_gets_a_manifest_of_its_own() -> None:
    source, target = store(), store()
    full, delta = add_chain(source, 5, 40)
    report = copy(source, target, part_size=1000, workers=3)
    assert target.list().manifests == {full, delta}
    assert read(target, target.layout.snapshot(delta)) == read(source, source.layout.snapshot(delta))
    assert report.bytes == sum(found.size for found in source.list().snapshots)
    assert copy(source, target).skipped == 2


def test_what_a_killed_writer_left_is_removed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = store(), store()
    add_full(source, 5)
    removed: list[bool] = []
    monkeypatch.setattr(target, "remove_leftovers", lambda: removed.append(names(target) == []))
    copy(source, target)
    assert removed == [True]
