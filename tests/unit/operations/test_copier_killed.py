"""A copy that was killed around the moment in which a large object becomes visible, and the run after it.

An answer that got lost leaves what a kill leaves: the store has done it, and nothing came after it.
"""

import pytest
from copying import copy, manifest, stored
from snapshot_fakes import RecordingStore, add_full, names, read, store

from backupagent.errors import StoreUnavailable
from backupagent.snapstore import SnapStore
from backupagent.testing.faulty import Fault, FaultyStore

PART = 1000
"""Smaller than a full of ``add_full``, so that it goes in parts."""


def kill(source: SnapStore, inner: RecordingStore, fault: Fault) -> None:
    target = FaultyStore(inner, fault)
    with pytest.raises(StoreUnavailable, match="planned"):
        copy(source, store(target), part_size=PART)
    target.assert_all_hit()


def planned(op: str) -> StoreUnavailable:
    return StoreUnavailable("planned", op=op)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("complete_upload", lost_answer=planned("complete upload")),
        Fault("delete", error=planned("delete")),
        Fault("put", nth=4, error=planned("put")),
    ],
    ids=["visible", "before the entry is forgotten", "before the manifest is renewed"],
)
def test_an_object_that_had_become_visible_is_not_moved_again(fault: Fault) -> None:
    source, inner = store(), RecordingStore()
    name = add_full(source, 5)
    fault.hits = 0
    kill(source, inner, fault)
    target = store(inner)
    assert names(target) == [name]
    written = inner.written.copy()

    report = copy(source, target, part_size=PART)
    assert (report.copied, report.skipped, report.bytes, report.bytes_reread) == (0, 1, 0, 0)
    assert set(inner.written[len(written) :]) <= {target.layout.manifest(name)}
    assert target.list().uploads == frozenset()
    assert inner.list_uploads("") == []
    assert manifest(target, name).stored_bytes == stored(source, name).size


def test_an_object_that_had_not_become_visible_is_completed_from_its_parts() -> None:
    source, inner = store(), RecordingStore()
    name = add_full(source, 5)
    kill(source, inner, Fault("complete_upload", error=planned("complete upload")))
    target = store(inner)
    assert (names(target), target.list().manifests) == ([], {name})
    report = copy(source, target, part_size=PART)
    assert (report.copied, report.bytes) == (1, 0)
    assert read(target, target.layout.snapshot(name)) == read(source, source.layout.snapshot(name))
    assert target.list().uploads == frozenset()


def test_a_manifest_never_comes_before_its_object_where_another_one_has_that_name() -> None:
    """Of the same size, so that only the manifest tells that it is not the one at the source."""
    source, inner = store(), RecordingStore()
    name = add_full(source, 5)
    target = store(inner)
    key = target.layout.snapshot(name)
    inner.put(key, bytes(stored(source, name).size))
    kill(source, inner, Fault("complete_upload", error=planned("complete upload")))
    assert target.list().manifests == frozenset()
    assert copy(source, target, part_size=PART).copied == 1
    assert read(target, key) == read(source, source.layout.snapshot(name))
    assert copy(source, target, part_size=PART).skipped == 1


def test_an_upload_of_another_process_is_not_touched_by_a_copy_that_has_nothing_to_do() -> None:
    source, inner = store(), RecordingStore()
    name = add_full(source, 5)
    target = store(inner)
    copy(source, target, part_size=PART)
    upload = inner.begin_upload(target.layout.snapshot(name), part_size=PART)
    target.journal.remember("of-another-source", upload, now_s=0)
    assert copy(source, target, part_size=PART).skipped == 1
    assert list(inner.list_uploads("")) == [upload]
    assert target.list().uploads == {"of-another-source"}
