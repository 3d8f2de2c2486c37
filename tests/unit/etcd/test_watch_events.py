"""Catching up from an etcd that fragments, reorders, breaks, compacts and refuses."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent.cancel import Cancel
from backupagent.clock import FakeClock
from backupagent.errors import Cancelled, EtcdError, EtcdUnavailable, RevisionCompacted
from backupagent.etcd.watch import EVENT_OVERHEAD, CatchUp, events
from backupagent.model.event import DELETE, PUT, Event

Raw = SimpleNamespace


def raw_event(revision: int, sub: int, value: bytes = b"v") -> Raw:
    kind = DELETE if (revision + sub) % 3 == 0 else PUT
    kv = Raw(
        key=b"%d/%d" % (revision, sub), create_revision=1, mod_revision=revision, version=2, value=value, lease=-sub
    )
    return Raw(type=kind, kv=kv)


def response(watch_id: int, received: list[Raw] | None = None, **fields: Any) -> Raw:
    plain = {"fragment": False, "canceled": False, "compact_revision": 0, "cancel_reason": ""}
    return Raw(watch_id=watch_id, events=received or [], **(plain | fields))


class FakeEtcd:
    """Serves a history as etcd does: in batches of whole revisions, fragmented, in any order of watchers."""

    endpoint = "etcd:2379"

    def __init__(self, sizes: list[int], *, batch: int = 1000, fragment: int = 1000, seed: int = 0) -> None:
        self.history = dict(enumerate(sizes, start=2))
        self.last = len(sizes) + 1
        self.batch = batch
        self.fragment = fragment
        self.rng = random.Random(seed)
        self.value = b"v"
        self.breaks: list[int] = []
        """For each stream in turn: after how many responses it breaks."""
        self.opened: list[FakeStream] = []
        self.order: Callable[[list[int]], int] = self.rng.choice

    def open_watch(self, cancel: Cancel) -> "FakeStream":
        self.opened.append(FakeStream(self, cancel, self.breaks.pop(0) if self.breaks else None))
        return self.opened[-1]

    def responses(self, watch_id: int, start: int) -> Iterator[Raw]:
        yield response(watch_id)  # created
        for low in range(start, self.last + 1, self.batch):
            batch = [
                raw_event(revision, sub, self.value)
                for revision in range(low, min(low + self.batch, self.last + 1))
                for sub in range(self.history.get(revision, 0))
            ]
            for cut in range(0, len(batch), self.fragment):
                rest = cut + self.fragment < len(batch)
                yield response(watch_id, batch[cut : cut + self.fragment], fragment=rest)

    def expected(self, first: int, last: int) -> list[tuple[int, bytes]]:
        return [
            (revision, b"%d/%d" % (revision, sub))
            for revision in range(first, last + 1)
            for sub in range(self.history[revision])
        ]


class FakeStream:
    def __init__(self, etcd: FakeEtcd, cancel: Cancel, breaks_after: int | None) -> None:
        self.etcd = etcd
        self.token = cancel
        self.breaks_after = breaks_after
        self.starts: dict[int, int] = {}
        self.cancelled: set[int] = set()
        self.closed = False
        self.served: set[int] = set()
        self._open: dict[int, Iterator[Raw]] = {}

    def create(self, watch_id: int, start_revision: int) -> None:
        self.starts[watch_id] = start_revision
        self._open[watch_id] = self.etcd.responses(watch_id, start_revision)

    def cancel(self, watch_id: int) -> None:
        self.cancelled.add(watch_id)

    def __iter__(self) -> Iterator[Raw]:
        while self._open:
            self.token.raise_if_set()
            if self.breaks_after == 0:
                raise EtcdUnavailable("reset", endpoint=self.etcd.endpoint)
            if self.breaks_after is not None:
                self.breaks_after -= 1
            watch_id = self.etcd.order(list(self._open))
            try:
                answer = next(self._open[watch_id])
            except StopIteration:
                del self._open[watch_id]
                continue
            if answer.events:
                self.served.add(watch_id)
            yield answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.closed = True


def read_until_error(reading: Iterator[list[Event]], kind: type[EtcdError]) -> tuple[list[list[Event]], EtcdError]:
    got: list[list[Event]] = []
    try:
        for batch in reading:
            got.append(batch)  # noqa: PERF402 - what came before the error is wanted, too
    except kind as error:
        return got, error
    raise AssertionError(f"no {kind.__name__}")


def read(etcd: FakeEtcd, first: int, last: int, **options: Any) -> list[list[Event]]:
    options = {"cancel": Cancel(), "clock": FakeClock()} | options
    return list(events(etcd, first, last, **options))


def flat(batches: list[list[Event]]) -> list[tuple[int, bytes]]:
    return [(each.etcdEvent.kv.mod_revision, each.etcdEvent.kv.key) for batch in batches for each in batch]


def limits(**fields: Any) -> CatchUp:
    return CatchUp(**({"pauses_s": (0.0,) * 3} | fields))


policies = st.builds(
    limits,
    slice_revisions=st.integers(1, 6),
    first_watchers=st.integers(1, 4),
    max_watchers=st.just(8),
    max_buffered_bytes=st.integers(1, 8000),
)
etcds = st.builds(
    FakeEtcd,
    st.lists(st.integers(1, 4), min_size=1, max_size=25),
    batch=st.integers(1, 7),
    fragment=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)


@given(etcds, policies, st.lists(st.integers(0, 9), max_size=3), st.data())
def test_every_event_once_and_in_order(etcd: FakeEtcd, policy: CatchUp, breaks: list[int], data: st.DataObject) -> None:
    etcd.breaks = breaks
    first = data.draw(st.integers(1, etcd.last))
    last = data.draw(st.integers(first, etcd.last))
    batches = read(etcd, first, last, limits=policy)
    assert flat(batches) == etcd.expected(max(first, 2), last)
    # Whole revisions in each list, and none empty.
    tails = [batch[-1].etcdEvent.kv.mod_revision for batch in batches]
    heads = [batch[0].etcdEvent.kv.mod_revision for batch in batches]
    assert all(tail < head for tail, head in zip(tails[:-1], heads[1:], strict=True))
    assert all(stream.closed for stream in etcd.opened)


@given(sizes=st.lists(st.integers(1, 3), min_size=4, max_size=20), seed=st.integers(0, 2**16), data=st.data())
def test_lost_revision_is_an_error(sizes: list[int], seed: int, data: st.DataObject) -> None:
    etcd = FakeEtcd(sizes, batch=data.draw(st.integers(1, 7)), seed=seed)
    lost = data.draw(st.integers(2, etcd.last - 1))
    del etcd.history[lost]
    policy = limits(slice_revisions=3, first_watchers=9)
    # The watcher of a slice that ends with the lost revision sees it by the next one.
    got, error = read_until_error(events(etcd, 2, etcd.last, cancel=Cancel(), limits=policy), EtcdError)
    assert type(error) is EtcdError
    assert f"revision {lost} is missing" in str(error)
    assert all(revision < lost for revision, _ in flat(got))
    assert len(etcd.opened) == 1, "a hole is not tried again"


def test_events_carry_all_fields_and_the_time_of_their_response() -> None:
    class Ticking(FakeClock):
        def now(self) -> datetime:
            self.sleep(1.5)
            return super().now()

    etcd = FakeEtcd([2, 1], fragment=2)
    clock = Ticking(datetime(2026, 1, 1, tzinfo=UTC))
    batches = read(etcd, 2, 3, clock=clock)
    got = [each for batch in batches for each in batch]
    assert [each.time for each in got] == ["2026-01-01T00:00:01.5Z"] * 2 + ["2026-01-01T00:00:03Z"]
    change = got[1].etcdEvent
    assert (change.type, change.kv.key, change.kv.value) == (DELETE, b"2/1", b"v")
    assert (change.kv.create_revision, change.kv.mod_revision, change.kv.version, change.kv.lease) == (1, 2, 2, -1)


def test_small_range_takes_one_watcher_and_one_stream() -> None:
    etcd = FakeEtcd([1] * 1200)
    assert flat(read(etcd, 150, 1100)) == etcd.expected(150, 1100)
    assert [stream.starts for stream in etcd.opened] == [{1: 149}]


def test_long_range_is_sliced_in_growing_waves() -> None:
    etcd = FakeEtcd([1] * 399, batch=10)
    policy = limits(slice_revisions=9, first_watchers=2, max_watchers=20)
    assert flat(read(etcd, 2, 400, limits=policy)) == etcd.expected(2, 400)
    assert [len(stream.starts) for stream in etcd.opened] == [2, 8, 20, 15]
    assert etcd.opened[1].starts == {number + 1: 19 + 9 * number for number in range(8)}  # each one revision early


def test_complete_watchers_are_cancelled_and_their_further_events_dropped() -> None:
    etcd = FakeEtcd([1] * 30, batch=5)
    etcd.order = max  # the last watcher sends all it has before any other
    batches = read(etcd, 2, 31, limits=limits(slice_revisions=10, first_watchers=3))
    assert flat(batches) == etcd.expected(2, 31)
    assert etcd.opened[0].cancelled == {2, 3}


def test_wave_over_budget_is_dropped_and_made_smaller() -> None:
    etcd = FakeEtcd([1] * 80, batch=10)
    etcd.value = bytes(10_000)
    etcd.order = max  # nothing can be handed out before everything has come
    budget = 15 * (10_000 + EVENT_OVERHEAD)
    policy = limits(slice_revisions=9, first_watchers=8, max_buffered_bytes=budget)
    assert flat(read(etcd, 2, 81, limits=policy)) == etcd.expected(2, 81)
    waves = [len(stream.starts) for stream in etcd.opened]
    assert etcd.opened[0].served == {7, 8}, "with the second slice the budget is spent"
    assert waves[:2] == [8, 1]
    assert all(count == 1 for count in waves[1:])


def test_compacted_start() -> None:
    etcd = FakeEtcd([1] * 10)
    etcd.responses = lambda watch_id, start: iter([response(watch_id, compact_revision=7, canceled=True)])
    with pytest.raises(RevisionCompacted, match=r"^etcd etcd:2379: revisions before 7 are compacted$"):
        read(etcd, 3, 9, limits=limits())
    assert len(etcd.opened) == 1


def test_compacted_in_the_middle_keeps_what_came_before() -> None:
    etcd = FakeEtcd([1] * 10, batch=2)
    etcd.order = min
    whole = etcd.responses

    def cut(watch_id: int, start: int) -> Iterator[Raw]:
        if start >= 5:
            yield response(watch_id, compact_revision=9, canceled=True)
        yield from whole(watch_id, start)

    etcd.responses = cut
    reading = events(etcd, 2, 11, cancel=Cancel(), limits=limits(slice_revisions=4))
    got, _ = read_until_error(reading, RevisionCompacted)
    assert flat(got) == etcd.expected(2, 5)


@pytest.mark.parametrize(
    "reason",
    [
        "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
        "rpc error: code = InvalidArgument desc = etcdserver: user name is empty",
    ],
)
def test_refused_watch_is_not_tried_again(reason: str) -> None:
    etcd = FakeEtcd([1] * 10)
    etcd.responses = lambda _, __: iter([response(-1, canceled=True, cancel_reason=reason)])
    with pytest.raises(
        EtcdError, match=f"^etcd etcd:2379: cancelled the watch: {reason.rpartition(': ')[2]}$"
    ) as caught:
        read(etcd, 3, 9, limits=limits())
    assert type(caught.value) is EtcdError
    assert len(etcd.opened) == 1


def test_cancelled_watch_is_tried_again_a_bounded_number_of_times() -> None:
    etcd = FakeEtcd([1] * 10)
    reason = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"
    etcd.responses = lambda watch_id, _: iter([response(watch_id, canceled=True, cancel_reason=reason)])
    with pytest.raises(EtcdUnavailable, match="invalid auth token"):
        read(etcd, 3, 9, limits=limits())
    assert len(etcd.opened) == 1 + 3


def test_stream_that_ends_early_is_opened_again() -> None:
    etcd = FakeEtcd([1] * 10, batch=3)
    whole = etcd.responses
    etcd.responses = lambda watch_id, start: iter(list(whole(watch_id, start))[:2])  # a batch, then the end
    assert flat(read(etcd, 2, 11, limits=limits(slice_revisions=100))) == etcd.expected(2, 11)
    assert len(etcd.opened) > 3 + 1, "progress starts the count of failures anew"


def test_pauses_grow_and_a_cancel_ends_them() -> None:
    class Recording(Cancel):
        def __init__(self) -> None:
            super().__init__()
            self.pauses: list[float] = []

        def wait(self, timeout_s: float) -> bool:
            self.pauses.append(timeout_s)
            if len(self.pauses) == 3:
                self.set("SIGTERM")
            return self.is_set

    etcd, cancel = FakeEtcd([1] * 10), Recording()
    etcd.breaks = [0] * 9
    with pytest.raises(Cancelled, match="SIGTERM"):
        read(etcd, 2, 11, cancel=cancel)
    assert cancel.pauses == [0.1, 0.3, 1.0]
    assert len(etcd.opened) == 3


def test_cancel_between_batches() -> None:
    etcd, cancel = FakeEtcd([1] * 10, batch=2), Cancel()
    reading = events(etcd, 2, 11, cancel=cancel, limits=limits())
    assert flat([next(reading)]) == etcd.expected(2, 2)  # the first batch begins one revision early
    cancel.set("SIGTERM")
    with pytest.raises(Cancelled):
        next(reading)
    assert etcd.opened[0].closed


def test_closing_the_iterator_closes_the_stream() -> None:
    etcd = FakeEtcd([1] * 10, batch=2)
    reading = events(etcd, 2, 11, cancel=Cancel())
    next(reading)
    reading.close()
    assert etcd.opened[0].closed


def test_nothing_is_asked_for_an_empty_range() -> None:
    etcd = FakeEtcd([1] * 10)
    assert read(etcd, 5, 4) == []
    assert read(etcd, 1, 1) == []
    assert etcd.opened == []
