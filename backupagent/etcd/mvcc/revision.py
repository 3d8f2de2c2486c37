"""Keys of the ``key`` bucket: a revision, and a mark when it is a deletion.

Source: etcd, server/storage/mvcc/revision.go at v3.7.1; the same since v3.0.
"""

import struct
from typing import NamedTuple

from backupagent.errors import MalformedContent

KEY_BUCKET = b"key"
TOMBSTONE = b"t"
"""Behind the revision of a deletion."""

_FORMAT = struct.Struct(">QBQ")
_SEPARATOR = ord("_")
_MAX_INT64 = (1 << 63) - 1

PUT_SIZE = _FORMAT.size
"""Bytes of the key of a put."""

TOMBSTONE_SIZE = _FORMAT.size + len(TOMBSTONE)
"""Bytes of the key of a deletion."""

MAIN_SIZE = 8
"""Bytes of the main revision, big-endian, at the start: they compare like the revisions."""


def pack_revision(main: int, sub: int) -> bytes:
    """Write the key of a put."""
    return _FORMAT.pack(main, _SEPARATOR, sub)


class RevisionKey(NamedTuple):
    """A change of one key.

    Attributes:
        main: The revision.
        sub: Number of the change within its revision, from 0.
        is_tombstone: Whether it is a deletion.
    """

    main: int
    sub: int
    is_tombstone: bool

    def encode(self) -> bytes:
        """Write it as a key of the bucket."""
        return _FORMAT.pack(self.main, _SEPARATOR, self.sub) + (TOMBSTONE if self.is_tombstone else b"")

    @classmethod
    def decode(cls, key: bytes, where: str) -> "RevisionKey":
        """Read a key of the bucket.

        Args:
            key: The key.
            where: The object, for the message.

        Raises:
            MalformedContent: it is not one.
        """
        if len(key) == PUT_SIZE or (len(key) == TOMBSTONE_SIZE and key.endswith(TOMBSTONE)):
            main, separator, sub = _FORMAT.unpack_from(key)
            if separator == _SEPARATOR and main <= _MAX_INT64 and sub <= _MAX_INT64:
                return cls(main, sub, len(key) == TOMBSTONE_SIZE)
        message = f"{key[:TOMBSTONE_SIZE].hex()} is not the key of a revision"
        raise MalformedContent(message, key=where)


def encode_main(main: int) -> bytes:
    """Return the start of every key of a revision."""
    return main.to_bytes(MAIN_SIZE, "big")
