"""The sha256 at the end of every snapshot, checked while the content streams by.

A full is the database and then 32 bytes of its sha256; a delta is a JSON array and then the same. Compression
goes around both. Source: etcd-backup-restore, pkg/etcdutil/etcdutil.go and
pkg/snapshot/snapshotter/snapshotter.go at debd95b; etcd, server/etcdserver/api/v3rpc/maintenance.go.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from backupagent.errors import ChecksumMismatch, TrailerMissing, TruncatedObject
from backupagent.model.snapshot import SnapshotKind

TRAILER_SIZE = 32
"""Bytes of a sha256 digest."""

_SECTOR = 512
"""A bbolt file is a whole number of these; etcdutl tells by it whether a db carries its digest."""


@dataclass(frozen=True)
class ContentDigest:
    """Digests of a whole content.

    Attributes:
        sha256: Of the content without its trailer, hex: what the trailer says.
        sha256_with_trailer: Of everything, hex.
        size: Bytes, trailer included.
    """

    sha256: str
    sha256_with_trailer: str
    size: int


class TrailerCheck:
    """Hashes a snapshot's content as it passes and compares it with its last 32 bytes.

    Args:
        kind: Full or delta: how to tell a truncated content from a changed one.
        key: The object, for messages.
    """

    def __init__(self, kind: SnapshotKind, key: str) -> None:
        self._kind = kind
        self._key = key
        self._sha = hashlib.sha256()
        self._tail = b""
        self._first = b""
        self._last_hashed = b""
        self._size = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Hash the next piece."""
        for _piece in self.split(data):
            pass

    def split(self, data: bytes | bytearray | memoryview) -> Iterator[memoryview]:
        """Hash the next piece, and give what is certainly not trailer to the caller.

        Yields:
            Content in order, without the trailer; up to two views, valid until the next call.
        """
        view = memoryview(data)
        if not self._first and view:
            self._first = bytes(view[:1])
        self._size += len(view)
        if len(view) >= TRAILER_SIZE:
            ready = [memoryview(self._tail), view[: len(view) - TRAILER_SIZE]]
            self._tail = bytes(view[len(view) - TRAILER_SIZE :])
        else:
            joined = self._tail + view
            cut = max(0, len(joined) - TRAILER_SIZE)
            ready = [memoryview(joined)[:cut]]
            self._tail = joined[cut:]
        for piece in ready:
            if len(piece):
                self._sha.update(piece)
                self._last_hashed = bytes(piece[-1:])
                yield piece

    def finish(self) -> ContentDigest:
        """Compare.

        Raises:
            TruncatedObject: the content ends too early.
            TrailerMissing: the content is whole but carries no digest.
            ChecksumMismatch: content and trailer differ.
        """
        if self._size <= TRAILER_SIZE:
            message = f"only {self._size} bytes of content, a snapshot has more than its {TRAILER_SIZE} byte trailer"
            raise TruncatedObject(message, key=self._key)
        actual = self._sha.hexdigest()
        if self._sha.digest() != self._tail:
            self._raise_mismatch(actual)
        self._sha.update(self._tail)
        return ContentDigest(actual, self._sha.hexdigest(), self._size)

    def _raise_mismatch(self, actual: str) -> None:
        if self._kind is SnapshotKind.FULL:
            missing = self._size % _SECTOR == 0
            truncated = self._size % _SECTOR != TRAILER_SIZE
        else:
            missing = self._first == b"[" and self._tail.endswith(b"}]")
            truncated = self._last_hashed != b"]"
        if missing:
            message = "the content does not end with its sha256"
            raise TrailerMissing(message, key=self._key)
        if truncated:
            message = f"the content ends in the middle, after {self._size} bytes"
            raise TruncatedObject(message, key=self._key)
        message = f"sha256 of the content is {actual}, its trailer says {self._tail.hex()}"
        raise ChecksumMismatch(message, key=self._key)
