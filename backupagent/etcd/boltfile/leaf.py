"""The inside of a leaf page as a whole, where looking at each element alone would be too slow."""

import functools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from backupagent.etcd.boltfile.layout import LEAF_ELEMENT, LEAF_PAGE, PAGE_HEADER
from backupagent.etcd.boltfile.reader import BoltReader, Page

_MANY = 512
"""Elements up to which a compiled format is kept; 64 KiB pages hold more, of tiny keys only."""


_new_tuple = tuple.__new__  # half the time of the NamedTuple's own constructor, which is Python
_pack_element = LEAF_ELEMENT.pack
_HEADER_SIZE, _ELEMENT_SIZE = PAGE_HEADER.size, LEAF_ELEMENT.size


class LeafArea(NamedTuple):
    """The keys and values of a leaf page that is not empty, one behind the other.

    Attributes:
        pgid: Page id.
        pages: Number of pages, overflow included.
        data: Key, value, key, value ...: the bytes that etcd's HashKV sums.
        table: Flags, position, key size and value size of each element, flat.
        first_key: The first key.
        last_key: The last key.
    """

    pgid: int
    pages: int
    data: bytes
    table: tuple[int, ...]
    first_key: bytes
    last_key: bytes

    @property
    def element_count(self) -> int:
        """Number of elements."""
        return len(self.table) // 4

    def has_key_size(self, size: int) -> bool:
        """Return whether a key has that many bytes."""
        return size in self.table[2::4]

    def spans(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield each key with the start and the end of its value in ``data``."""
        position = 0
        for key_size, value_size in zip(self.table[2::4], self.table[3::4], strict=True):
            key_end = position + key_size
            key = self.data[position:key_end]
            position = key_end + value_size
            yield key, key_end, position


@functools.lru_cache(maxsize=_MANY)
def _table(count: int) -> struct.Struct:
    return struct.Struct(f"<{4 * count}I")


def pack_table(sizes: list[tuple[int, int]]) -> bytes:
    """Write the list of elements of a leaf page without sub-buckets.

    Args:
        sizes: Key size and value size of each, in the order of the keys.
    """
    position = len(sizes) * LEAF_ELEMENT.size
    table: list[bytes] = []
    for key_size, value_size in sizes:
        table.append(_pack_element(0, position, key_size, value_size))
        position += key_size + value_size - LEAF_ELEMENT.size
    return b"".join(table)


def read_area(reader: BoltReader, pgid: int) -> LeafArea | None:
    """Read the keys and values of a leaf page as they lie behind the list of elements.

    bbolt writes them without gaps and in order; a page that does not look so was not written by it.

    Returns:
        None when the page is empty.

    Raises:
        MalformedContent: not a leaf page, or its elements are buckets, lie outside the page or leave gaps.
        TruncatedObject: the file ends before the page does.
    """
    flags, count, data = reader.read(pgid)
    if flags != LEAF_PAGE:
        raise reader.malformed(f"page {pgid} should be a leaf page")
    return _area(reader, pgid, count, data)


def inline_area(reader: BoltReader, page: Page) -> LeafArea | None:
    """Do the same for a page that was read."""
    return _area(reader, page.pgid, page.element_count, page.data)


def _area(reader: BoltReader, pgid: int, count: int, data: bytes) -> LeafArea | None:
    if not count:
        return None
    table = _table(count).unpack_from(data, _HEADER_SIZE)
    position = list_size = count * _ELEMENT_SIZE
    key_size = value_size = 0
    fields = iter(table)
    for element_flags, stated, key_size, value_size in zip(fields, fields, fields, fields, strict=True):
        if stated != position or element_flags:
            raise reader.malformed(f"the elements of page {pgid} are buckets or not contiguous")
        position += key_size + value_size - _ELEMENT_SIZE
    start = _HEADER_SIZE + list_size
    end = start + position
    if end > len(data):
        raise reader.malformed(f"an element of page {pgid} lies outside the page")
    last_key_end = end - value_size
    first_key, last_key = data[start : start + table[2]], data[last_key_end - key_size : last_key_end]
    pages = len(data) // reader.meta.page_size
    return _new_tuple(LeafArea, (pgid, pages, data[start:end], table, first_key, last_key))
