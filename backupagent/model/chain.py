"""Chains: one full and the deltas that go on from it.

What a chain promises here is what the *names* say. Restoring looks inside: the base's true revision may be
later than its name, overlapping deltas must agree.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from backupagent.errors import RevisionGap
from backupagent.model.snapshot import Revision, StoredSnapshot


@dataclass(frozen=True)
class Gap:
    """Missing revisions between two snapshots of a chain.

    Attributes:
        first: First missing revision.
        last: Last missing revision.
        before: Key of the snapshot in front of which they are missing.
    """

    first: Revision
    last: Revision
    before: str


@dataclass(frozen=True)
class Chain:
    """A full and every delta that may matter after it.

    Attributes:
        full: The base.
        deltas: Ordered by first, then last revision; each ends after the full's named revision. They may
            overlap.
    """

    full: StoredSnapshot
    deltas: tuple[StoredSnapshot, ...] = ()

    @property
    def snapshots(self) -> tuple[StoredSnapshot, ...]:
        """The full, then the deltas."""
        return (self.full, *self.deltas)

    @property
    def last(self) -> Revision:
        """Last revision that the names promise, whether or not there is a gap before it."""
        return max(snapshot.snapshot.last for snapshot in self.snapshots)

    @property
    def size(self) -> int:
        """Stored bytes of all its objects."""
        return sum(snapshot.size for snapshot in self.snapshots)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Missing revisions between the snapshots, by their names."""
        found: list[Gap] = []
        reached = self.full.snapshot.last
        for delta in self.deltas:
            if delta.snapshot.start > reached + 1:
                found.append(Gap(Revision(reached + 1), Revision(delta.snapshot.start - 1), delta.key))
            reached = max(reached, delta.snapshot.last)
        return tuple(found)

    def require_contiguous(self) -> None:
        """Refuse a chain with a hole.

        Raises:
            RevisionGap: names the missing range and the snapshot after it.
        """
        for gap in self.gaps:
            message = f"revisions {gap.first} to {gap.last} are missing before this delta"
            raise RevisionGap(message, key=gap.before)


def _delta_order(delta: StoredSnapshot) -> tuple[int, int, int, str]:
    return (delta.snapshot.start, delta.snapshot.last, delta.snapshot.created_s, delta.key)


def _full_order(full: StoredSnapshot) -> tuple[int, int, bool, str]:
    return (full.snapshot.last, full.snapshot.created_s, full.snapshot.final, full.key)


def build_chains(snapshots: Iterable[StoredSnapshot]) -> tuple[Chain, ...]:
    """Give every delta to the newest full that it can go on from.

    A delta goes to the full with the highest last revision below its own; deltas older than every full
    belong to none and are left out (see ``orphans``).

    Returns:
        Chains, newest first: by revision, then by time.
    """
    everything = list(snapshots)
    fulls = sorted((s for s in everything if s.snapshot.is_full), key=_full_order, reverse=True)
    deltas = sorted((s for s in everything if not s.snapshot.is_full), key=_delta_order)
    chains: list[Chain] = []
    for full in fulls:
        mine = tuple(delta for delta in deltas if delta.snapshot.last > full.snapshot.last)
        deltas = [delta for delta in deltas if delta.snapshot.last <= full.snapshot.last]
        chains.append(Chain(full, mine))
    return tuple(chains)


def orphans(snapshots: Iterable[StoredSnapshot]) -> tuple[StoredSnapshot, ...]:
    """Return the deltas that no full in the store can carry, oldest first."""
    everything = list(snapshots)
    held = {snapshot.key for chain in build_chains(everything) for snapshot in chain.snapshots}
    return tuple(sorted((s for s in everything if s.key not in held), key=_delta_order))
