"""Snapshots and their names.

Source of the grammar: etcd-backup-restore, pkg/snapstore/snapshot.go and pkg/types/snapstore.go at debd95b.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

Revision = NewType("Revision", int)
"""An etcd MVCC revision. Ranges of revisions include both ends."""


class SnapshotKind(StrEnum):
    """Full: a whole database. Delta: the events of a range of revisions. The values are those in names."""

    FULL = "Full"
    DELTA = "Incr"


FINAL_SUFFIX = ".final"

# 18 digits keep every number inside an int64; [0-9], not \d, which takes digits of other scripts.
_NAME = re.compile(
    r"(?P<kind>Full|Incr)-(?P<start>[0-9]{8,18})-(?P<last>[0-9]{8,18})-(?P<created>[0-9]{1,12})"
    r"(?P<suffix>\.(?!final\b)[A-Za-z0-9]+)?(?P<final>\.final)?"
)


@dataclass(frozen=True, order=True)
class Snapshot:
    """What a snapshot's name says.

    Attributes:
        last: Last revision that is certainly in it.
        start: First revision of a delta; 0 for a full.
        created_s: When the name was made, seconds since 1970, UTC.
        kind: Full or delta.
        suffix: Suffix of the compression with its dot, e.g. ``.gz``; empty when not compressed.
        final: Whether it is the last snapshot of an etcd that was stopped afterwards.
    """

    last: Revision
    start: Revision
    created_s: int
    kind: SnapshotKind
    suffix: str = ""
    final: bool = False

    @property
    def is_full(self) -> bool:
        """Whether it holds a whole database."""
        return self.kind is SnapshotKind.FULL

    @property
    def name(self) -> str:
        """Name for a new object. An existing object keeps the key that it has."""
        stem = f"{self.kind.value}-{self.start:08d}-{self.last:08d}-{self.created_s}"
        return f"{stem}{self.suffix}{FINAL_SUFFIX if self.final else ''}"

    @classmethod
    def parse(cls, name: str) -> "Snapshot":
        """Read a name without its directory.

        Raises:
            ValueError: the name does not follow the grammar, or its range of revisions runs backwards.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            message = f"{name!r} is not a snapshot name"
            raise ValueError(message)
        start, last = int(match["start"]), int(match["last"])
        if start > last:
            message = f"{name!r} starts after its last revision"
            raise ValueError(message)
        return cls(
            last=Revision(last),
            start=Revision(start),
            created_s=int(match["created"]),
            kind=SnapshotKind(match["kind"]),
            suffix=match["suffix"] or "",
            final=match["final"] is not None,
        )


def without_final(name: str) -> str:
    """Return the name that a copy has at its target: the peer's copier drops the mark too."""
    return name.removesuffix(FINAL_SUFFIX)


@dataclass(frozen=True)
class StoredSnapshot:
    """A snapshot that lies in a store.

    Attributes:
        snapshot: What its name says.
        key: Its key, byte for byte.
        size: Stored size, bytes.
        etag: The store's mark of this very content; empty where the store has none.
    """

    snapshot: Snapshot
    key: str
    size: int
    etag: str

    @property
    def name(self) -> str:
        """Last element of the key."""
        return self.key.rpartition("/")[2]
