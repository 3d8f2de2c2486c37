"""A set of 64-bit hashes that stays small in memory however large it grows."""

from array import array
from bisect import bisect_left
from collections.abc import Sequence

_RECENT = 1 << 17
"""Hashes in the fast part: 6 to 12 MiB."""

_SHARD_BITS = 12
_SHARDS = 1 << _SHARD_BITS
_SHIFT = 64 - _SHARD_BITS


class HashSet:
    """Signed 64-bit hashes, as ``hash`` gives them for bytes.

    A ``set`` takes about 75 bytes for each. Here only the newest ones are in one, the others in sorted arrays of
    eight bytes each, chosen by their highest bits; a look-up there costs about half a microsecond.
    """

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._sorted: list[array[int]] = []

    def __contains__(self, mark: int) -> bool:
        if mark in self._recent:
            return True
        if not self._sorted:
            return False
        shard = self._sorted[mark >> _SHIFT]
        index = bisect_left(shard, mark)
        return index < len(shard) and shard[index] == mark

    def is_disjoint(self, marks: Sequence[int]) -> bool:
        """Return whether none of the hashes is in the set."""
        return self._recent.isdisjoint(marks) and not (self._sorted and any(mark in self for mark in marks))

    def add(self, mark: int) -> None:
        """Add a hash that is not in the set."""
        if len(self._recent) == _RECENT:
            self._settle()
        self._recent.add(mark)

    def _settle(self) -> None:
        if not self._sorted:
            self._sorted = [array("q") for _ in range(_SHARDS)]
        for mark in self._recent:
            # The shift keeps the sign: negative hashes are in the shards that a negative index names.
            self._sorted[mark >> _SHIFT].append(mark)
        self._sorted = [array("q", sorted(shard)) for shard in self._sorted]
        self._recent = set()
