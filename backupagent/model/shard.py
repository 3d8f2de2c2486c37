"""One of n shares of the snapshots: the same for everybody who asks, whatever else lies in the bucket."""

import hashlib
import re
from dataclasses import dataclass

from backupagent.model.snapshot import without_final

_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True)
class Shard:
    """A share.

    Attributes:
        index: Which one, from 0.
        count: Of how many, at least 1.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read ``i/n``; the empty text is everything.

        Raises:
            ValueError: it is not of that form, or i is not below n.
        """
        if not text:
            return cls()
        found = _SHARD.fullmatch(text)
        shard = cls(int(found[1]), int(found[2])) if found else None
        if shard is None or shard.index >= shard.count:
            message = f"{text!r} is not a share: write I/N with I from 0 to N-1"
            raise ValueError(message)
        return shard

    def holds(self, name: str) -> bool:
        """Whether a snapshot is in this share; its final mark does not matter, since a copy drops it."""
        digest = hashlib.sha256(without_final(name).encode()).digest()
        return int.from_bytes(digest[:8]) % self.count == self.index
