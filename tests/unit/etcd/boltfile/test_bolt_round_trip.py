"""What the writer wrote, the reader reads: trees of all shapes, page sizes and value sizes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent.errors import EtcdError, NoSpace
from backupagent.etcd.boltfile.layout import LEAF_PAGE, PAGE_SIZES
from backupagent.etcd.boltfile.reader import BoltReader, Child, Element
from backupagent.etcd.boltfile.tree import Tree, bucket, check_file, root_bucket
from backupagent.etcd.boltfile.writer import BranchBuilder, PageAppender, append_leaf
from backupagent.failpoints import arm

MakeBolt = Callable[..., Path]

BUCKETS = st.dictionaries(
    st.binary(min_size=1, max_size=20),
    st.dictionaries(st.binary(min_size=1, max_size=40), st.binary(max_size=1500), max_size=60),
    max_size=6,
)


def read_all(reader: BoltReader) -> dict[bytes, list[tuple[bytes, bytes]]]:
    return {
        element.key: [(item.key, item.value) for item in bucket(reader, element.value).items()]
        for element in root_bucket(reader).items()
    }


@given(buckets=BUCKETS, page_size=st.sampled_from(PAGE_SIZES))
def test_buckets_of_any_size(make_bolt: MakeBolt, buckets: dict[bytes, dict[bytes, bytes]], page_size: int) -> None:
    wanted = {name: sorted(items.items()) for name, items in buckets.items()}

    with BoltReader(make_bolt(wanted, page_size=page_size)) as reader:
        assert reader.page_size == page_size
        assert read_all(reader) == wanted
        assert check_file(reader) == reader.high_water


@pytest.mark.parametrize("count", [*range(6), *range(70, 82), *range(146, 156), 5000])
def test_no_branch_page_has_a_single_child(make_bolt: MakeBolt, count: int) -> None:
    # bbolt asserts two children when it merges leaves, so a single one would stop etcd at a later deletion.
    items = [(b"%08d" % number, bytes(400)) for number in range(count)]
    with BoltReader(make_bolt({b"big": items}, page_size=1024)) as reader:
        tree = bucket(reader, next(root_bucket(reader).items()).value)
        pending = [tree.root] if tree.root else []
        while pending:
            page = reader.page(pending.pop())
            if page.flags != LEAF_PAGE:
                children = [child.pgid for child in reader.children(page)]
                assert len(children) >= 2
                pending += children
        assert [item.key for item in tree.items()] == [key for key, _ in items]


@pytest.mark.parametrize("start", [b"", b"00000000", b"00000499", b"000005", b"99999999"])
def test_starting_at_a_key(make_bolt: MakeBolt, start: bytes) -> None:
    keys = [b"%08d" % number for number in range(1000)]
    with BoltReader(make_bolt({b"b": [(key, bytes(200)) for key in keys]})) as reader:
        tree = bucket(reader, next(root_bucket(reader).items()).value)

        assert [item.key for item in tree.items(start)] == [key for key in keys if key >= start]
        assert len(list(tree.leaves(start))) <= 1 + len(list(tree.leaves())) * sum(k >= start for k in keys) // 1000 + 1


def test_areas_are_the_keys_and_values_in_both_directions(make_bolt: MakeBolt) -> None:
    items = [(b"%08d" % number, bytes([number % 251]) * (number * 30)) for number in range(300)]
    with BoltReader(make_bolt({b"b": items})) as reader:
        tree = bucket(reader, next(root_bucket(reader).items()).value)
        forward, backward = list(tree.areas()), list(tree.areas(reverse=True))

    assert b"".join(area.data for area in forward) == b"".join(key + value for key, value in items)
    assert backward == forward[::-1]
    assert [key for area in forward for key, _, _ in area.spans()] == [key for key, _ in items]
    assert any(area.pages > 1 for area in forward)


@pytest.mark.parametrize("old", [1, 2, 3, 40, 3000])
@pytest.mark.parametrize("new", [0, 1, 2, 50, 3000])
def test_appending_at_the_right_edge(make_bolt: MakeBolt, old: int, new: int) -> None:
    path = make_bolt({b"b": [(b"a%08d" % number, bytes(300)) for number in range(old)]}, page_size=1024)
    fd = os.open(path, os.O_RDWR)
    try:
        reader = BoltReader(fd)
        tree = bucket(reader, next(root_bucket(reader).items()).value)
        spine = tree.spine()
        appender = PageAppender(fd, 1024, reader.high_water, name="x")
        branches = BranchBuilder(appender)
        if spine.branches:
            branches.preload(spine.branches)
        else:
            elements = list(reader.elements(spine.last_leaf))
            branches.add(elements[0].key, tree.root or append_leaf(appender, elements))
        wanted = [item.key for item in tree.items()]
        for number in range(new):
            key = b"b%08d" % number
            branches.add(key, append_leaf(appender, [Element(0, key, bytes(500))]))
            wanted.append(key)
        appender.flush()
        reader.high_water = appender.next_page
        assert [item.key for item in Tree(reader, branches.entries()).items()] == wanted
        root = branches.finish()
        appender.flush()
        reader.high_water = appender.next_page
        assert [item.key for item in Tree(reader, [Child(b"", root)]).items()] == wanted
    finally:
        os.close(fd)


def test_get(make_bolt: MakeBolt) -> None:
    with BoltReader(make_bolt({b"b": [(b"a", b"1"), (b"c", b"2")]})) as reader:
        tree = bucket(reader, next(root_bucket(reader).items()).value)

        assert [tree.get(key) for key in (b"", b"a", b"b", b"c", b"d")] == [
            None, Element(0, b"a", b"1"), None, Element(0, b"c", b"2"), None,
        ]  # fmt: skip


def test_a_full_disk_is_no_space(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "db", os.O_RDWR | os.O_CREAT)
    try:
        appender = PageAppender(fd, 4096, 2, name="the file")
        append_leaf(appender, [Element(0, b"k", b"v")])
        arm("restore.delta=nospace")
        with pytest.raises(NoSpace, match="the file"):
            appender.flush()
    finally:
        os.close(fd)


def test_a_file_that_cannot_be_written_is_an_etcd_error(tmp_path: Path) -> None:
    (tmp_path / "db").touch()
    fd = os.open(tmp_path / "db", os.O_RDONLY)
    try:
        appender = PageAppender(fd, 4096, 2, name="the file")
        append_leaf(appender, [Element(0, b"k", b"v")])
        with pytest.raises(EtcdError, match="the file"):
            appender.flush()
    finally:
        os.close(fd)


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.open(tmp_path / "db", os.O_RDWR | os.O_CREAT)
    real = os.pwritev

    def short(fd: int, buffers: list[bytes], offset: int) -> int:
        return real(fd, [b"".join(buffers)[:1000]], offset)

    try:
        monkeypatch.setattr(os, "pwritev", short)
        appender = PageAppender(fd, 1024, 0, name="x")
        pgid = append_leaf(appender, [Element(0, b"k", b"v" * 5000)])
        appender.flush()
        assert pgid == 0
        page = os.pread(fd, 6144, 0)
        assert (len(page), page[32:]) == (5120, b"k" + b"v" * 5000 + bytes(5120 - 32 - 5001))
    finally:
        os.close(fd)
