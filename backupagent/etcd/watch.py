"""The history of a live etcd as events, complete and in order, fast also when it is long.

etcd serves a watcher that is behind in passes, each of which reads the *whole* backlog and hands out at most 1000
revisions to each watcher. So the missing range is cut into slices of just below 1000 revisions with a watcher for
each, many on one stream: one pass then delivers all of them. Measured with 200,000 revisions (2026-11-23): 1 watcher
3,700 events a second, 100 watchers 101,600. Passes are a burden for the server, which stops writing meanwhile, so
slices are asked for in waves and not one by one. Source: etcd v3.5.35, server/mvcc/watchable_store.go,
``syncWatchers``; etcd issue 22264.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.errors import EtcdError, EtcdUnavailable, RevisionCompacted
from backupagent.etcd.assembly import Range, RevisionMerge
from backupagent.model.event import Change, Event, KeyValue, format_time
from backupagent.units import MiB

EVENT_OVERHEAD = 400
"""Bytes that an event takes besides its key and value: five objects; 300 measured (2026-11-23), rounded up."""

_PERMANENT = ("permission denied", "user name is empty")
"""Reasons to cancel a watcher that hold for the next one, too. Source: etcd v3.5, api/v3rpc/rpctypes/error.go."""


@dataclass(frozen=True)
class CatchUp:
    """How much is asked of etcd at once.

    Attributes:
        slice_revisions: Revisions of a slice. With the one that is asked for before it (see ``events``) 1000, which is
            what etcd puts into one batch (``watchBatchMaxRevs``).
        max_buffered_bytes: What may wait for an earlier slice. One revision, however big, is always held in full.
        first_watchers: Watchers of the first wave, while nothing is known about the size of a revision.
        max_watchers: Watchers of one wave. etcd serves 512 in one pass (``maxWatchersPerSync``) and queues 128
            batches for a stream (``chanBufLen``); behind that they wait as "victims".
        pauses_s: How long to wait before the stream is opened again, for each failure in a row. As many failures as
            there are pauses are survived; any progress starts the count anew.
    """

    slice_revisions: int = 999
    max_buffered_bytes: int = 64 * MiB
    first_watchers: int = 4
    max_watchers: int = 128
    pauses_s: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0, 20.0)


class WatchStream(Protocol):
    """One Watch call; iterating gives its responses."""

    def create(self, watch_id: int, start_revision: int) -> None:
        """Ask for a watcher of the whole key space, fragments allowed."""
        ...

    def cancel(self, watch_id: int) -> None:
        """Ask that a watcher ends."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Give the responses (``etcdserverpb.WatchResponse``)."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class WatchSource(Protocol):
    """An etcd that can be watched: ``EtcdClient``, or a test's."""

    @property
    def endpoint(self) -> str:
        """``host:port``, for messages."""
        ...

    def open_watch(self, cancel: Cancel) -> WatchStream:
        """Open a Watch call."""
        ...


def events(
    source: WatchSource,
    first: int,
    last: int,
    *,
    cancel: Cancel,
    clock: Clock = SYSTEM_CLOCK,
    limits: CatchUp | None = None,
) -> Iterator[list[Event]]:
    """Read every event of a range of revisions, of all keys.

    A broken stream is opened again after the last complete revision. Each watcher starts one revision early, and that
    one is dropped: etcd lets a watcher start *at* the compact revision, where versions before 3.5.19 have already
    removed deletions; so a range whose first revision may be damaged counts as compacted.

    Args:
        source: Where to read.
        first: First revision; 1 has no events, and is left out.
        last: Last revision. It should exist: the stream fails when nothing comes for long.
        cancel: Ends the reading when it is set.
        clock: The events' time is what it shows when they come.
        limits: How much is asked for at once.

    Yields:
        The events of one or more complete revisions, in order of revision and sub-revision. All lists together have
        every revision of the range once.

    Raises:
        RevisionCompacted: etcd no longer has the first of the revisions that are still missing.
        EtcdUnavailable: it could not be reached, after all pauses.
        EtcdError: a revision is missing or out of order, or etcd refuses.
        Cancelled: the token was set.
    """
    policy = limits or CatchUp()
    window = _Window(policy)
    position, failures = max(first, 2), 0
    while position <= last:
        cancel.raise_if_set()
        merge = RevisionMerge(window.slices(position, last), source.endpoint)
        failure: EtcdUnavailable | None = None
        try:
            with closing(_read_wave(source, merge, cancel, clock)) as responses:
                for ready in responses:
                    while ready:
                        yield ready.pop(0)
                    if merge.buffered > policy.max_buffered_bytes:
                        break
        except EtcdUnavailable as error:
            failure = error
        if failure is None or merge.next > position:
            failures = 0
        if failure is not None:
            if failures == len(policy.pauses_s):
                raise failure
            cancel.wait(policy.pauses_s[failures])
            failures += 1
        window.learn(merge)
        position = merge.next


class _Window:
    """How many watchers the next wave has.

    As many as fit into the memory, judged by the size of revisions in the last wave, and at most four times as many
    as in the last wave, in case that one was not typical.
    """

    def __init__(self, policy: CatchUp) -> None:
        self._policy = policy
        self.watchers = policy.first_watchers

    def slices(self, position: int, last: int) -> list[Range]:
        step = self._policy.slice_revisions
        end = min(last, position + self.watchers * step - 1)
        return [(start, min(start + step - 1, end)) for start in range(position, end + 1, step)]

    def learn(self, merge: RevisionMerge) -> None:
        if not merge.received:
            return
        overflowed = merge.buffered > self._policy.max_buffered_bytes
        slice_bytes = merge.received / max(1, merge.assembled) * self._policy.slice_revisions
        fitting = int(self._policy.max_buffered_bytes / slice_bytes)
        ceiling = self.watchers // 2 if overflowed else self.watchers * 4
        self.watchers = max(1, min(fitting, ceiling, self._policy.max_watchers))


def _read_wave(source: WatchSource, merge: RevisionMerge, cancel: Cancel, clock: Clock) -> Generator[list[list[Event]]]:
    """Read until all slices are complete; after each response give what can be handed out, which may be nothing."""
    with source.open_watch(cancel) as stream:
        for index, (start, _) in enumerate(merge.slices):
            stream.create(index + 1, max(1, start - 1))
        for response in stream:
            index = response.watch_id - 1
            if 0 <= index < len(merge.slices) and not merge.wants(index):
                continue  # what a complete watcher sent before it knew that it was cancelled
            _raise_if_refused(response, source.endpoint)
            if not response.events:
                continue  # created, or progress
            received, size = _convert(response.events, format_time(clock.now()))
            yield merge.add(index, received, fragment=response.fragment, size=size)
            if merge.is_complete:
                return
            if not merge.wants(index):
                stream.cancel(response.watch_id)
    raise EtcdUnavailable("closed the watch", endpoint=source.endpoint)


def _raise_if_refused(response: Any, endpoint: str) -> None:  # noqa: ANN401 - a protobuf message
    if response.compact_revision:
        message = f"revisions before {response.compact_revision} are compacted"
        raise RevisionCompacted(message, endpoint=endpoint)
    if response.canceled:
        reason = response.cancel_reason.rpartition("etcdserver: ")[2] or "no reason given"
        kind = EtcdError if any(words in reason for words in _PERMANENT) else EtcdUnavailable
        raise kind(f"cancelled the watch: {reason}", endpoint=endpoint)


def _convert(received: Iterable[Any], time: str) -> tuple[list[Event], int]:
    """Return the events, and the bytes that they take."""
    converted: list[Event] = []
    size = 0
    append: Callable[[Event], None] = converted.append
    for event in received:
        kv = event.kv
        key, value = kv.key, kv.value
        size += len(key) + len(value) + EVENT_OVERHEAD
        state = KeyValue(key, kv.create_revision, kv.mod_revision, kv.version, value, kv.lease)
        append(Event(Change(event.type, state), time))
    return converted, size
