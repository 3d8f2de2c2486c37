"""Watch responses put together into complete revisions, in order. Pure: no gRPC, no clock, no thread.

Facts about etcd's watch that this relies on (source: etcd v3.5.35, server/mvcc/watchable_store.go and
watcher_group.go, server/etcdserver/api/v3rpc/watch.go; the same in 3.4 to 3.7):

- A watcher sends events in the order of revisions, and inside one in the order of sub-revisions.
- A batch never splits a revision. With ``fragment`` a batch is sent as several responses, cut anywhere between two
  events; all but the last carry the flag.
- Every revision above 1 has at least one event, so a whole-keyspace watch shows each one.
"""

from collections.abc import Iterable, Sequence

from backupagent.errors import EtcdError
from backupagent.model.event import Event

Range = tuple[int, int]
"""First and last revision, both inclusive."""

_HOLE_HINT = "the history that etcd sent cannot be trusted: take a new full snapshot"


class SliceAssembler:
    """Takes the responses of one watcher and hands out the complete revisions of its slice.

    A revision is complete when its last response came without the fragment flag, or when a later revision came. What
    lies behind the slice is ignored, and so is the revision just before it (see ``watch``: watchers start there).

    Args:
        slice_: The revisions wanted.
        endpoint: ``host:port``, for messages.
    """

    def __init__(self, slice_: Range, endpoint: str = "") -> None:
        self.first, self.last = slice_
        self.next = self.first
        """First revision that is not complete."""
        self._open: list[Event] = []  # the events of ``next`` so far
        self._endpoint = endpoint

    @property
    def is_complete(self) -> bool:
        """Whether every revision of the slice was handed out."""
        return self.next > self.last

    def add(self, events: Iterable[Event], *, fragment: bool) -> list[Event]:
        """Take one response.

        Args:
            events: Its events, in order.
            fragment: Whether the batch goes on in the next response.

        Returns:
            The events of all revisions that are complete now and were not before, in order.

        Raises:
            EtcdError: a revision is missing, or revisions go backwards.
        """
        complete: list[Event] = []
        for event in events:
            revision = event.etcdEvent.kv.mod_revision
            if revision > self.next and self._open:
                self._close(complete)
            if self.is_complete:
                return complete
            if revision == self.next:
                self._open.append(event)
            elif revision != self.first - 1 or self.next != self.first or self._open:
                raise self._broken(revision)
        if self._open and not fragment:
            self._close(complete)
        return complete

    def _close(self, complete: list[Event]) -> None:
        complete += self._open
        self._open = []
        self.next += 1

    def _broken(self, revision: int) -> EtcdError:
        what = "is missing" if revision > self.next else "is followed by an older one"
        message = f"revision {self.next} {what}: the watch sent revision {revision}"
        return EtcdError(message, endpoint=self._endpoint, hint=_HOLE_HINT)


class RevisionMerge:
    """Puts adjoining slices, each from its own watcher, into one sequence.

    The events of the first incomplete slice are handed out as they come; those of later ones wait, and are counted.

    Args:
        slices: Adjoining, in order, at least one.
        endpoint: ``host:port``, for messages.
    """

    def __init__(self, slices: Sequence[Range], endpoint: str = "") -> None:
        self.slices = tuple(slices)
        self._assemblers = [SliceAssembler(slice_, endpoint) for slice_ in slices]
        self._waiting: list[list[Event]] = [[] for _ in slices]
        self._held = [0] * len(slices)
        self._head = 0
        self.received = 0
        """Bytes taken so far, whatever became of them."""

    @property
    def buffered(self) -> int:
        """Bytes that wait for an earlier slice."""
        return sum(self._held[self._head + 1 :])

    @property
    def next(self) -> int:
        """First revision that was not handed out."""
        return self._assemblers[min(self._head, len(self.slices) - 1)].next

    @property
    def assembled(self) -> int:
        """Number of revisions that are complete, whether they were handed out or wait."""
        return sum(each.next - each.first for each in self._assemblers)

    @property
    def is_complete(self) -> bool:
        """Whether everything was handed out."""
        return self._head == len(self.slices)

    def wants(self, index: int) -> bool:
        """Whether a slice still lacks revisions."""
        return not self._assemblers[index].is_complete

    def add(self, index: int, events: Iterable[Event], *, fragment: bool, size: int) -> list[list[Event]]:
        """Take one response of one slice's watcher.

        Args:
            index: Which slice.
            events: The response's events, in order.
            fragment: Whether the batch goes on in the next response.
            size: Bytes that the events take.

        Returns:
            What can be handed out now, in order, as lists of whole revisions, none empty. It counts as handed out at
            once.

        Raises:
            EtcdError: a revision is missing, or revisions go backwards.
        """
        self.received += size
        self._held[index] += size
        self._waiting[index] += self._assemblers[index].add(events, fragment=fragment)
        ready: list[list[Event]] = []
        while not self.is_complete:
            if self._waiting[self._head]:
                ready.append(self._waiting[self._head])
                self._waiting[self._head] = []
            if self.wants(self._head):
                break
            self._head += 1
        return ready
