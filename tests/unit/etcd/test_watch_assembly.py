"""Responses of watchers become complete revisions in order, or an error; nothing in between."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent.errors import EtcdError
from backupagent.etcd.assembly import RevisionMerge, SliceAssembler
from backupagent.model.event import Change, Event, KeyValue

FIRST = 7


def event(revision: int, sub: int = 0) -> Event:
    return Event(Change(0, KeyValue(key=b"k%d" % sub, mod_revision=revision)))


def history(sizes: list[int], first: int = FIRST) -> list[Event]:
    """One revision of so many events for each size."""
    return [event(first + index, sub) for index, size in enumerate(sizes) for sub in range(size)]


def revisions(events: list[Event]) -> list[int]:
    return [each.etcdEvent.kv.mod_revision for each in events]


@st.composite
def responses(draw: st.DrawFn, sizes: list[int]) -> list[tuple[list[Event], bool]]:
    """Cut a history as etcd does: batches end at a revision's end, fragments anywhere between two events."""
    ends = sorted({*draw(st.sets(st.integers(1, len(sizes)))), len(sizes)})
    cut, start = [], 0
    for end in ends:
        batch = history(sizes[start:end], FIRST + start)
        inner = sorted(draw(st.sets(st.integers(1, len(batch) - 1)))) if len(batch) > 1 else []
        bounds = [0, *inner, len(batch)]
        pieces = [batch[low:high] for low, high in itertools.pairwise(bounds)]
        cut += [(piece, piece is not pieces[-1]) for piece in pieces]
        start = end
    return cut


revision_sizes = st.lists(st.integers(1, 4), min_size=1, max_size=12)


@given(st.data(), revision_sizes)
def test_slice_has_every_event_once_whatever_the_cuts(data: st.DataObject, sizes: list[int]) -> None:
    slice_ = SliceAssembler((FIRST, FIRST + len(sizes) - 1))
    got: list[Event] = []
    for piece, fragment in data.draw(responses(sizes)):
        got += slice_.add(piece, fragment=fragment)
        # Never a part of a revision.
        assert got == history(sizes[: slice_.next - FIRST])
    assert slice_.is_complete
    assert got == history(sizes)


@given(st.data(), revision_sizes, st.integers(0, 3), st.integers(0, 3))
def test_slice_ignores_what_lies_around_it(data: st.DataObject, sizes: list[int], before: int, behind: int) -> None:
    before = min(before, 1, len(sizes) - 1)
    behind = min(behind, len(sizes) - 1 - before)
    slice_ = SliceAssembler((FIRST + before, FIRST + len(sizes) - 1 - behind))
    got = [each for piece, fragment in data.draw(responses(sizes)) for each in slice_.add(piece, fragment=fragment)]
    assert got == history(sizes)[sum(sizes[:before]) : sum(sizes) - sum(sizes[len(sizes) - behind :])]


@given(st.data(), st.lists(st.integers(1, 4), min_size=2, max_size=12))
def test_slice_refuses_a_missing_revision(data: st.DataObject, sizes: list[int]) -> None:
    lost = data.draw(st.integers(0, len(sizes) - 2))
    slice_ = SliceAssembler((FIRST, FIRST + len(sizes) - 1), "etcd:2379")
    cut = data.draw(responses(sizes))
    got: list[Event] = []

    def feed() -> None:
        for piece, fragment in cut:
            kept = [each for each in piece if each.etcdEvent.kv.mod_revision != FIRST + lost]
            got.extend(slice_.add(kept, fragment=fragment))

    with pytest.raises(
        EtcdError, match=rf"^etcd etcd:2379: revision {FIRST + lost} is missing: the watch sent revision"
    ):
        feed()
    assert all(revision < FIRST + lost for revision in revisions(got))


def test_slice_refuses_revisions_that_go_backwards() -> None:
    slice_ = SliceAssembler((FIRST, FIRST + 9))
    slice_.add(history([1, 1, 1]), fragment=False)
    with pytest.raises(
        EtcdError, match=f"revision {FIRST + 3} is followed by an older one: the watch sent .* {FIRST + 1}"
    ):
        slice_.add([event(FIRST + 1)], fragment=False)


def test_slice_refuses_the_revision_before_it_once_it_has_begun() -> None:
    slice_ = SliceAssembler((FIRST, FIRST + 9))
    slice_.add([event(FIRST)], fragment=True)
    with pytest.raises(EtcdError, match="older"):
        slice_.add([event(FIRST - 1)], fragment=False)


def test_fragment_alone_does_not_complete_a_revision() -> None:
    slice_ = SliceAssembler((FIRST, FIRST))
    assert slice_.add([event(FIRST, 0)], fragment=True) == []
    assert not slice_.is_complete
    assert slice_.add([event(FIRST, 1)], fragment=False) == [event(FIRST, 0), event(FIRST, 1)]
    assert slice_.is_complete


def test_later_revision_completes_the_one_before_in_spite_of_the_flag() -> None:
    slice_ = SliceAssembler((FIRST, FIRST + 1))
    assert slice_.add([event(FIRST), event(FIRST + 1)], fragment=True) == [event(FIRST)]
    assert slice_.next == FIRST + 1


def test_revision_behind_the_slice_completes_it_in_spite_of_the_flag() -> None:
    slice_ = SliceAssembler((FIRST, FIRST))
    assert slice_.add([event(FIRST), event(FIRST + 1)], fragment=True) == [event(FIRST)]
    assert slice_.is_complete


@given(st.data(), st.lists(revision_sizes, min_size=1, max_size=5))
def test_merge_is_in_order_whoever_sends_first(data: st.DataObject, slice_sizes: list[list[int]]) -> None:
    sizes = [size for part in slice_sizes for size in part]
    starts = [FIRST + sum(map(len, slice_sizes[:index])) for index in range(len(slice_sizes))]
    merge = RevisionMerge([(start, start + len(part) - 1) for start, part in zip(starts, slice_sizes, strict=True)])
    queues = []
    for start, part in zip(starts, slice_sizes, strict=True):
        own = history(part, start)
        step = data.draw(st.integers(1, len(own)))
        pieces = [own[low : low + step] for low in range(0, len(own), step)]
        queues.append([(piece, piece is not pieces[-1]) for piece in pieces])
    got: list[Event] = []
    while any(queues):
        index = data.draw(st.sampled_from([number for number, queue in enumerate(queues) if queue]))
        piece, fragment = queues[index].pop(0)
        for ready in merge.add(index, piece, fragment=fragment, size=len(piece)):
            assert ready
            got += ready
        assert got == history(sizes[: merge.next - FIRST])
        head = max(number for number, start in enumerate(starts) if start <= max(merge.next, FIRST))
        assert merge.buffered <= sum(map(sum, slice_sizes[head + 1 :]))
    assert merge.is_complete
    assert got == history(sizes)
    assert merge.received == sum(sizes)
    assert merge.assembled == len(sizes)
    assert merge.buffered == 0


def test_merge_counts_what_waits_and_nothing_else() -> None:
    merge = RevisionMerge([(7, 8), (9, 10), (11, 12)])
    assert merge.add(2, [event(11), event(12)], fragment=False, size=200) == []
    assert merge.add(1, [event(9), event(10)], fragment=True, size=30) == []
    assert merge.buffered == 230
    assert merge.add(0, [event(7)], fragment=False, size=4) == [[event(7)]]
    assert merge.buffered == 230
    assert merge.next == 8
    assert merge.add(0, [event(8)], fragment=False, size=4) == [[event(8)], [event(9)]]
    assert merge.buffered == 200  # slice 2 is the head now: what it has left is an open revision
    assert merge.next == 10
    assert merge.add(1, [event(10, 1)], fragment=False, size=1) == [[event(10), event(10, 1)], [event(11), event(12)]]
    assert merge.buffered == 0
    assert merge.is_complete
    assert merge.next == 13
