"""The format of a bbolt file.

A file is an array of pages. A page starts with a header; pages 0 and 1 hold a *meta* each, of which the valid one
with the higher transaction id counts. All numbers are little-endian. Source: go.etcd.io/bbolt, internal/common
(page.go, inode.go, meta.go, bucket.go) at v1.4.3; file format version 2, the same from v1.3.0 to v1.5.0.
"""

import struct
from dataclasses import dataclass

PAGE_HEADER = struct.Struct("<QHHI")
"""Page id, flags, number of elements, overflow (number of further pages that belong to this one)."""

LEAF_ELEMENT = struct.Struct("<IIII")
"""Flags, position of the key counted from this element, size of the key, size of the value."""

BRANCH_ELEMENT = struct.Struct("<IIQ")
"""Position of the key counted from this element, size of the key, page id of the child."""

BUCKET_HEADER = struct.Struct("<QQ")
"""Value of a bucket: root page id, sequence. A root of 0 means that a leaf page follows inside the value."""

META = struct.Struct("<IIIIQQQQQ")
"""Magic, version, page size, flags, root page id, sequence, freelist page id, high water, transaction id."""

CHECKSUM = struct.Struct("<Q")
"""FNV-1a of the bytes of ``META``, behind it."""

BRANCH_PAGE, LEAF_PAGE, META_PAGE, FREELIST_PAGE = 0x01, 0x02, 0x04, 0x10
BUCKET_FLAG = 0x01
"""Flag of a leaf element whose value is a bucket."""

MAGIC = 0xED0CDAED
VERSION = 2
NO_FREELIST = 0xFFFF_FFFF_FFFF_FFFF
"""Freelist page id that says: not written, rebuild it when opening. etcd on Linux always writes this."""

FIRST_DATA_PAGE = 2
PAGE_SIZES = tuple(1024 << shift for shift in range(7))
"""1 KiB to 64 KiB. bbolt takes the page size of the machine that made the file; 4 KiB nearly everywhere."""

FILL = 0.9
"""Part of a page that is filled. Source: etcd, server/storage/backend/batch_tx.go, UnsafeSeqPut."""

MAX_DEPTH = 32
"""Levels of a tree that are followed: a tree of two children a branch page would hold 2**32 leaves."""

MAX_RUN_SIZE = 512 * 1024 * 1024
"""Bytes of one page with its overflow that are read: bounds the memory that a hostile file can take.

bbolt allows a value of 2 GiB; etcd's requests are 1.5 MiB unless ``--max-request-bytes`` says otherwise.
"""

_FNV_OFFSET, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


@dataclass(frozen=True)
class Meta:
    """What a meta page says.

    Attributes:
        page_size: Bytes of a page.
        flags: Not used by bbolt; kept.
        root: Page id of the root bucket.
        sequence: Sequence of the root bucket; kept.
        high_water: Number of pages in use, from the first; later ones are not part of the file.
        txid: Number of the transaction that wrote it.
    """

    page_size: int
    flags: int
    root: int
    sequence: int
    high_water: int
    txid: int

    def encode_page(self) -> bytes:
        """Write the page header, the meta and its checksum, for page ``txid % 2``; without a freelist."""
        body = META.pack(
            MAGIC,
            VERSION,
            self.page_size,
            self.flags,
            self.root,
            self.sequence,
            NO_FREELIST,
            self.high_water,
            self.txid,
        )
        return PAGE_HEADER.pack(self.txid % 2, META_PAGE, 0, 0) + body + CHECKSUM.pack(fnv1a(body))

    @classmethod
    def decode_page(cls, page: bytes) -> "Meta | None":
        """Read the start of a meta page.

        Returns:
            None when it is not a valid meta; a torn write of the newest one is normal after a crash.
        """
        end = PAGE_HEADER.size + META.size
        if len(page) < end + CHECKSUM.size:
            return None
        body = page[PAGE_HEADER.size : end]
        magic, version, page_size, flags, root, sequence, _, high_water, txid = META.unpack(body)
        (checksum,) = CHECKSUM.unpack_from(page, end)
        if magic != MAGIC or version != VERSION or page_size not in PAGE_SIZES or checksum != fnv1a(body):
            return None
        return cls(page_size, flags, root, sequence, high_water, txid)


META_PAGE_SIZE = PAGE_HEADER.size + META.size + CHECKSUM.size
"""Bytes at the start of a meta page that mean something."""


def fnv1a(data: bytes) -> int:
    """Return the 64-bit FNV-1a hash."""
    value = _FNV_OFFSET
    for byte in data:
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFF_FFFF_FFFF_FFFF
    return value
