"""Walking the trees of a bbolt file: the root, buckets, and subtrees that have no common root yet."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backupagent.etcd.boltfile.layout import (
    BUCKET_FLAG,
    BUCKET_HEADER,
    LEAF_ELEMENT,
    LEAF_PAGE,
    MAX_DEPTH,
    PAGE_HEADER,
)
from backupagent.etcd.boltfile.leaf import LeafArea, inline_area, read_area
from backupagent.etcd.boltfile.reader import BoltReader, Child, Element, Page

MAX_SMALL_BUCKET_SIZE = 16 * 1024 * 1024
"""Bytes of a bucket that is read as a whole (root, meta; a few KiB in practice): bounds memory."""


@dataclass(frozen=True)
class Spine:
    """The right edge of a tree.

    Attributes:
        branches: The children of the last branch page of each level, root first; empty when the root is a leaf.
        last_leaf: The last leaf page.
    """

    branches: tuple[tuple[Child, ...], ...]
    last_leaf: Page


class Tree:
    """A B+tree, or several in the order of their keys. Reading never follows a page twice or too deep.

    Args:
        reader: The file.
        entries: The subtrees; one of them for a bucket.
        inline: The leaf page of a bucket that lies in its value, instead of subtrees.
        sequence: The bucket's sequence; kept.
    """

    def __init__(
        self, reader: BoltReader, entries: Sequence[Child], *, inline: Page | None = None, sequence: int = 0
    ) -> None:
        self._reader = reader
        self._entries = tuple(entries)
        self.inline = inline
        self.sequence = sequence

    @property
    def root(self) -> int:
        """Page id of the root; 0 when the tree lies inside a value."""
        return 0 if self.inline else self._entries[0].pgid

    def leaves(self, start: bytes = b"", *, reverse: bool = False, visited: bytearray | None = None) -> Iterator[Page]:
        """Yield the leaf pages in order.

        Args:
            start: Leave out the leaves that end before this key.
            reverse: Last one first.
            visited: One byte for each page of the file, set for those that were met; a page met twice is refused.

        Raises:
            MalformedContent: the pages do not form a tree.
            TruncatedObject: the file ends too early.
        """
        if self.inline:
            yield self.inline
            return
        seen = bytearray(self._reader.high_water) if visited is None else visited
        for pgid in self._leaf_ids(start, reverse=reverse, seen=seen):
            page = self._reader.page(pgid)
            if page.flags != LEAF_PAGE:
                raise self._reader.malformed(f"page {pgid} should be a leaf page")
            self._mark(seen, pgid, len(page.data) // self._reader.page_size)
            yield page

    def areas(
        self, start: bytes = b"", *, reverse: bool = False, visited: bytearray | None = None
    ) -> Iterator[LeafArea]:
        """Yield the keys and values of each leaf page that is not empty; the arguments are those of ``leaves``.

        Raises:
            MalformedContent: the pages do not form a tree, or a page's elements leave gaps, or the keys of two
                pages overlap.
            TruncatedObject: the file ends too early.
        """
        reader = self._reader
        seen = bytearray(reader.high_water) if visited is None else visited
        before: LeafArea | None = None
        if self.inline:
            area = inline_area(reader, self.inline)
            if area is not None:
                yield area
            return
        for pgid in self._leaf_ids(start, reverse=reverse, seen=seen):
            area = read_area(reader, pgid)
            if area is None:
                continue
            if area.pages == 1 and not seen[pgid]:
                seen[pgid] = 1
            else:
                self._mark(seen, pgid, area.pages)
            if before is not None:
                left, right = (area, before) if reverse else (before, area)
                if left.last_key >= right.first_key:
                    raise reader.malformed(f"the keys of pages {left.pgid} and {right.pgid} are not in order")
            before = area
            yield area

    def items(self, start: bytes = b"", *, visited: bytearray | None = None) -> Iterator[Element]:
        """Yield the elements from a key on, in order.

        Raises:
            MalformedContent: the pages do not form a tree, or keys are not in order.
            TruncatedObject: the file ends too early.
        """
        last: bytes | None = None
        for page in self.leaves(start, visited=visited):
            for element in self._reader.elements(page):
                if last is not None and element.key <= last:
                    raise self._reader.malformed(f"the keys of page {page.pgid} are not in order")
                last = element.key
                if last >= start:
                    yield element

    def small(self, *, visited: bytearray | None = None) -> dict[bytes, Element]:
        """Return all elements of a bucket that is expected to be small.

        Raises:
            MalformedContent: it is not small, or malformed.
            TruncatedObject: the file ends too early.
        """
        found: dict[bytes, Element] = {}
        size = 0
        for element in self.items(visited=visited):
            found[element.key] = element
            size += len(element.key) + len(element.value) + LEAF_ELEMENT.size
            if size > MAX_SMALL_BUCKET_SIZE:
                raise self._reader.malformed(
                    f"a bucket of more than {MAX_SMALL_BUCKET_SIZE} bytes where few are expected"
                )
        return found

    def get(self, key: bytes) -> Element | None:
        """Return the element of a key, or None."""
        element = next(self.items(key), None)
        return element if element is not None and element.key == key else None

    def spine(self) -> Spine:
        """Return the right edge.

        Raises:
            MalformedContent: the edge is too deep, or ends in an empty page below a branch page.
            TruncatedObject: the file ends too early.
        """
        if self.inline:
            return Spine((), self.inline)
        branches: list[tuple[Child, ...]] = []
        page = self._reader.page(self._entries[-1].pgid)
        while page.flags != LEAF_PAGE:
            if len(branches) == MAX_DEPTH:
                raise self._reader.malformed(f"the tree is deeper than {MAX_DEPTH} levels")
            branches.append(tuple(self._reader.children(page)))
            page = self._reader.page(branches[-1][-1].pgid)
        if branches and not page.element_count:
            raise self._reader.malformed(f"the last leaf page {page.pgid} of a tree is empty")
        return Spine(tuple(branches), page)

    def _leaf_ids(self, start: bytes, *, reverse: bool, seen: bytearray) -> Iterator[int]:
        reader = self._reader
        stack = [_ordered(self._entries, start, reverse=reverse)]
        while stack:
            child = next(stack[-1], None)
            if child is None:
                stack.pop()
                continue
            page = reader.page(child.pgid)
            if page.flags == LEAF_PAGE:
                yield child.pgid
                continue
            self._mark(seen, child.pgid, len(page.data) // reader.page_size)
            children = list(_ordered(reader.children(page), start, reverse=reverse))
            # All leaves are equally deep, so one look tells about all children.
            if reader.page(children[0].pgid).flags == LEAF_PAGE:
                for leaf in children:
                    yield leaf.pgid
            elif len(stack) == MAX_DEPTH:
                raise reader.malformed(f"the tree is deeper than {MAX_DEPTH} levels")
            else:
                stack.append(iter(children))

    def _mark(self, seen: bytearray, pgid: int, pages: int) -> None:
        if seen.find(1, pgid, pgid + pages) >= 0:
            raise self._reader.malformed(f"page {pgid} is used twice")
        seen[pgid : pgid + pages] = b"\x01" * pages


def root_bucket(reader: BoltReader) -> Tree:
    """Return the tree of the root bucket: the buckets by name."""
    return Tree(reader, [Child(b"", reader.meta.root)], sequence=reader.meta.sequence)


def bucket(reader: BoltReader, value: bytes) -> Tree:
    """Read the value of a bucket: a root page id, or the bucket itself.

    Raises:
        MalformedContent: neither of both.
    """
    if len(value) < BUCKET_HEADER.size:
        raise reader.malformed("the header of a bucket is cut")
    root, sequence = BUCKET_HEADER.unpack_from(value)
    if root:
        return Tree(reader, [Child(b"", root)], sequence=sequence)
    data = value[BUCKET_HEADER.size :]
    if len(data) < PAGE_HEADER.size:
        raise reader.malformed("the page inside a bucket is cut")
    _, flags, count, _ = PAGE_HEADER.unpack_from(data)
    page = Page(0, flags, count, data)
    if flags != LEAF_PAGE or PAGE_HEADER.size * (1 + count) > len(data):
        raise reader.malformed("the page inside a bucket is not a leaf page")
    return Tree(reader, (), inline=page, sequence=sequence)


def check_file(reader: BoltReader) -> int:
    """Walk every bucket, every page and every element.

    Returns:
        Number of pages in use, the two metas included.

    Raises:
        MalformedContent: what is there is not a bbolt file with sorted buckets, or uses a page twice.
        TruncatedObject: the file ends too early.
    """
    visited = bytearray(reader.high_water)
    pending = [(root_bucket(reader), 0)]
    while pending:
        tree, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise reader.malformed(f"buckets are nested deeper than {MAX_DEPTH} levels")
        pending += [
            (bucket(reader, element.value), depth + 1)
            for element in tree.items(visited=visited)
            if element.flags == BUCKET_FLAG
        ]
    return 2 + sum(visited)


def _ordered(children: Sequence[Child], start: bytes, *, reverse: bool) -> Iterator[Child]:
    if start and len(children) > 1:
        children = children[max(0, bisect_right(children, start, key=lambda child: child.key) - 1) :]
    return reversed(children) if reverse else iter(children)
