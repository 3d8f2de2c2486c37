"""A target that takes parts in order only gets them so, whoever reads them, and nobody waits for a turn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transfer_fakes import (
    JOURNAL,
    Digest,
    Gate,
    HookedStore,
    OrderedStore,
    content,
    copy_item,
    fill,
    journal_of,
    peak_size,
    transfer,
    unavailable,
)

from backupagent.errors import StoreUnavailable, TruncatedObject
from backupagent.transfer.copying import copy_objects
from backupagent.transfer.journal import UploadJournal
from backupagent.transfer.writing import open_writer

SIZES = (23, 4, 0, 9)


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    workers=st.integers(1, 5),
    window=st.integers(1, 3),
    part_size=st.integers(1, 12),
)
def test_the_copies_are_the_same(sizes: list[int], workers: int, window: int, part_size: int) -> None:
    source, target = HookedStore(), OrderedStore()
    objects = fill(source, sizes)
    items = [copy_item(source, key) for key in objects]
    how = transfer(workers, window, part_size)
    outcome = copy_objects(source, target, items, journal_of(target), how)
    assert [copied.item for copied in outcome.copied] == items
    assert {key: target.get(f"copy/{key}") for key in objects} == objects
    assert all(item.inspector.saw(objects[item.source_key]) for item in items)
    assert how.progress.view().done == sum(sizes)
    assert target.open_uploads() == target.names(JOURNAL) == []


def test_parts_that_come_early_wait_without_a_worker_and_within_the_memory() -> None:
    source, target, gate = HookedStore(), OrderedStore(), Gate()
    data = fill(source, [40, 4])
    early: list[int] = []

    def read(key: str, offset: int) -> None:
        if (key, offset) == ("0", 0):
            gate.hold()
        else:
            early.append(offset)
            if len(early) == 5:  # all that the memory has room for beside the first part
                gate.open()

    source.on_read = read
    how = transfer(workers=2, window=4, part_size=4)  # six buffers
    copy_objects(source, target, [copy_item(source, key) for key in data], journal_of(target), how)
    assert early[:5] == [4, 8, 12, 16, 20], "one worker read them all while the other was held"
    assert target.taken == list(range(1, 11))
    assert target.get("copy/0") == data["0"]
    assert peak_size() <= 6 * 4


def test_an_object_whose_first_part_cannot_be_read_fails_alone() -> None:
    source, target, gate = HookedStore(), OrderedStore(), Gate()
    objects = fill(source, [12, 12])
    come: list[int] = []

    def read(key: str, offset: int) -> None:
        if key == "0" and offset:
            come.append(offset)
            if len(come) == 2:
                gate.open()
        elif key == "0":
            gate.hold()
            raise TruncatedObject("planned", key=key)

    source.on_read = read
    items = [copy_item(source, key) for key in objects]
    outcome = copy_objects(source, target, items, journal_of(target), transfer(workers=3, window=3))
    ((item, error),) = outcome.failed
    assert (item, type(error)) == (items[0], TruncatedObject)
    assert target.names() == ["copy/1"]
    assert target.open_uploads() == []


def test_an_object_that_the_inspector_refuses_fails_alone() -> None:
    source, target = HookedStore(), OrderedStore()
    fill(source, [12, 12])
    items = [copy_item(source, "0", Digest(bad_at=8)), copy_item(source, "1")]
    outcome = copy_objects(source, target, items, journal_of(target), transfer())
    assert [item for item, _ in outcome.failed] == items[:1]
    assert target.names() == ["copy/1"]
    assert target.open_uploads() == []


def test_the_next_run_sends_only_what_is_missing() -> None:
    source, target = HookedStore(), OrderedStore()
    (data,) = fill(source, [23]).values()

    def fail(number: int) -> None:
        if number == 4:
            raise unavailable("upload part")

    target.on_part = fail
    with pytest.raises(StoreUnavailable):
        copy_objects(source, target, [copy_item(source, "0")], journal_of(target), transfer())
    assert target.taken == [1, 2, 3]
    target.on_part = lambda _number: None
    (copied,) = copy_objects(source, target, [copy_item(source, "0")], journal_of(target), transfer()).copied
    assert target.taken == [1, 2, 3, 4, 5, 6]
    assert copied.reread == 12
    assert target.get("copy/0") == data
    assert target.open_uploads() == target.names(JOURNAL) == []


@pytest.mark.parametrize("workers", [1, 5])
def test_a_stream_is_sent_in_order(workers: int) -> None:
    store, data = OrderedStore(), content(203)
    with open_writer(store, "key", UploadJournal(store, JOURNAL), transfer(workers, window=3)) as writer:
        for at in range(0, len(data), 7):
            writer.write(data[at : at + 7])
        writer.complete("snapshot.publish")
    assert store.get("key") == data
    assert store.taken == list(range(1, 52))
