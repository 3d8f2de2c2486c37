"""Reading pages of a bbolt file of which nothing is trusted."""

import errno
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from backupagent.errors import EtcdError, MalformedContent, TruncatedObject
from backupagent.etcd.boltfile.layout import (
    BRANCH_ELEMENT,
    BRANCH_PAGE,
    FIRST_DATA_PAGE,
    LEAF_ELEMENT,
    LEAF_PAGE,
    MAX_RUN_SIZE,
    META_PAGE_SIZE,
    PAGE_HEADER,
    PAGE_SIZES,
    Meta,
)

_unpack_header = PAGE_HEADER.unpack_from
_HEADER_SIZE, _ELEMENT_SIZE = PAGE_HEADER.size, LEAF_ELEMENT.size


class Page(NamedTuple):
    """A branch or leaf page whose header was checked; its elements were not.

    Attributes:
        pgid: Page id; 0 for a page inside a bucket's value.
        flags: ``BRANCH_PAGE`` or ``LEAF_PAGE``.
        element_count: Number of elements.
        data: The page from its header on, overflow and padding included.
    """

    pgid: int
    flags: int
    element_count: int
    data: bytes


class Element(NamedTuple):
    """A key and a value of a leaf page; ``flags`` is ``BUCKET_FLAG`` when the value is a bucket."""

    flags: int
    key: bytes
    value: bytes


class Child(NamedTuple):
    """A subtree: its first key as the branch page states it, and its page id."""

    key: bytes
    pgid: int


class BoltReader:
    """Reads checked pages by ``pread``: nothing is mapped, nothing is cached.

    Every page id is below the high-water mark, every header names its own page, every element lies inside its
    page; what does not is refused. Usable by several threads at once.

    Args:
        source: Path of the file, or a file descriptor that stays the caller's.
        name: The object for messages; by default the path.

    Attributes:
        name: The object for messages.
        meta: The newest valid meta.
        high_water: Number of pages that may be read: the meta's, until pages are appended.

    Raises:
        MalformedContent: there is no valid meta.
        TruncatedObject: the file is shorter than its meta says.
        EtcdError: the file cannot be opened or read.
    """

    def __init__(self, source: int | Path | str, *, name: str = "") -> None:
        self.name = name or str(source)
        self._owned = not isinstance(source, int)
        try:
            self._fd = source if isinstance(source, int) else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
            self._size = os.fstat(self._fd).st_size
        except OSError as error:
            raise EtcdError(error.strerror or str(error), endpoint=self.name) from error
        try:
            self.meta = self._newest_meta()
            self._check_meta()
        except BaseException:
            self.close()
            raise
        self.high_water = self.meta.high_water

    @property
    def page_size(self) -> int:
        """Bytes of a page."""
        return self.meta.page_size

    def page(self, pgid: int) -> Page:
        """Read a page with its overflow and check its header.

        Raises:
            MalformedContent: the page cannot be part of a tree.
            TruncatedObject: the file ends before the page does.
            EtcdError: the file cannot be read.
        """
        return Page(pgid, *self.read(pgid))

    def read(self, pgid: int) -> tuple[int, int, bytes]:
        """Do what ``page`` does, without making an object: this is the hot path of HashKV.

        Returns:
            Flags, number of elements, data.
        """
        size = self.meta.page_size
        if not FIRST_DATA_PAGE <= pgid < self.high_water:
            raise self.malformed(f"page {pgid} of {self.high_water} is referred to")
        data = self._read(size, pgid)
        stated, flags, count, overflow = _unpack_header(data)
        if stated != pgid or (flags != LEAF_PAGE and flags != BRANCH_PAGE):  # noqa: PLR1714 - faster than a set
            raise self.malformed(f"page {pgid} is not a page of a tree: id {stated}, flags {flags:#x}")
        if overflow:
            data = self._with_overflow(pgid, overflow)
        if _HEADER_SIZE + count * _ELEMENT_SIZE > len(data):
            raise self.malformed(f"page {pgid} has no room for {count} elements")
        return flags, count, data

    def elements(self, page: Page) -> Iterator[Element]:
        """Yield the elements of a leaf page, their bounds checked.

        Raises:
            MalformedContent: an element lies outside its page, or overlaps the list of elements.
        """
        data, first_byte = page.data, PAGE_HEADER.size + page.element_count * LEAF_ELEMENT.size
        for start in range(PAGE_HEADER.size, first_byte, LEAF_ELEMENT.size):
            flags, position, key_size, value_size = LEAF_ELEMENT.unpack_from(data, start)
            key_start = start + position
            key_end = key_start + key_size
            if key_start < first_byte or key_end + value_size > len(data):
                raise self.malformed(f"an element of page {page.pgid} lies outside the page")
            yield Element(flags, data[key_start:key_end], data[key_end : key_end + value_size])

    def children(self, page: Page) -> list[Child]:
        """Return the children of a branch page, in order.

        Raises:
            MalformedContent: there is none, keys are not in order, or an element lies outside the page.
        """
        data, start = page.data, PAGE_HEADER.size
        first_byte = start + page.element_count * BRANCH_ELEMENT.size
        found: list[Child] = []
        for position, key_size, pgid in BRANCH_ELEMENT.iter_unpack(data[start:first_byte]):
            key_start = start + position
            start += BRANCH_ELEMENT.size
            if key_start < first_byte or key_start + key_size > len(data):
                raise self.malformed(f"an element of page {page.pgid} lies outside the page")
            found.append(Child(data[key_start : key_start + key_size], pgid))
        if not found or any(left[0] >= right[0] for left, right in pairwise(found)):
            raise self.malformed(f"page {page.pgid} has no children, or not in the order of their keys")
        return found

    def malformed(self, message: str) -> MalformedContent:
        """Return the error for this file."""
        return MalformedContent(message, key=self.name)

    def close(self) -> None:
        """Close the file, when it was opened here; harmless the second time."""
        if self._owned:
            self._owned = False
            os.close(self._fd)

    def __enter__(self) -> Self:
        """Return the reader."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def _with_overflow(self, pgid: int, overflow: int) -> bytes:
        size = (1 + overflow) * self.meta.page_size
        if pgid + overflow >= self.high_water or size > MAX_RUN_SIZE:
            raise self.malformed(f"page {pgid} states {overflow} overflow pages")
        return self._read(size, pgid)

    def _read(self, size: int, pgid: int) -> bytes:
        try:
            data = os.pread(self._fd, size, pgid * self.meta.page_size)
        except OSError as error:
            raise EtcdError(error.strerror or str(error), endpoint=self.name) from error
        if len(data) < size:
            message = f"the file ends before page {pgid} does"
            raise TruncatedObject(message, key=self.name)
        return data

    def _newest_meta(self) -> Meta:
        first = self._meta_at(0)
        # The page size is in the first meta; when that is torn, the second one proves itself by its own place.
        sizes = (first.page_size,) if first else PAGE_SIZES
        seconds = [meta for size in sizes if (meta := self._meta_at(size)) is not None and meta.page_size == size]
        metas = [*([first] if first else []), *seconds]
        if not metas:
            raise self.malformed("not a bbolt file, or both of its meta pages are damaged")
        return max(metas, key=lambda meta: meta.txid)

    def _meta_at(self, offset: int) -> Meta | None:
        try:
            return Meta.decode_page(os.pread(self._fd, META_PAGE_SIZE, offset))
        except OSError as error:
            if error.errno == errno.EISDIR:
                raise self.malformed("not a bbolt file but a directory") from error
            raise EtcdError(error.strerror or str(error), endpoint=self.name) from error

    def _check_meta(self) -> None:
        meta = self.meta
        if not FIRST_DATA_PAGE <= meta.root < meta.high_water:
            raise self.malformed(f"the meta page names root page {meta.root} of {meta.high_water} pages")
        if self._size < meta.high_water * meta.page_size:
            message = f"{self._size} bytes, its meta page says {meta.high_water * meta.page_size}"
            raise TruncatedObject(message, key=self.name)
