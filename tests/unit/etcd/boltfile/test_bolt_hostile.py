"""No bytes whatsoever make the reader fail in an undeclared way, loop, or take memory without bound."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from backupagent.errors import EtcdError, MalformedContent, TruncatedObject
from backupagent.etcd.boltfile.layout import BRANCH_PAGE, LEAF_PAGE, META_PAGE_SIZE, PAGE_HEADER, Meta
from backupagent.etcd.boltfile.reader import BoltReader
from backupagent.etcd.boltfile.tree import bucket, check_file, root_bucket
from backupagent.etcd.mvcc.hashkv import hash_kv
from backupagent.etcd.mvcc.meta import read_state

MakeBolt = Callable[..., Path]
MUTATIONS = 3000
SEED = 20261123
GOLDEN = Path(__file__).parents[3] / "golden" / "none" / "v2" / "Full-00000000-00000006-1795400607"


def content_of(path: Path) -> list[tuple[bytes, list[tuple[bytes, bytes]]]]:
    with BoltReader(path) as reader:
        check_file(reader)
        return [
            (element.key, [(item.key, item.value) for item in bucket(reader, element.value).items()])
            for element in root_bucket(reader).items()
        ]


def structure_of(path: Path) -> list[int]:
    """Offsets of the bytes that are neither key nor value nor padding: headers, lists of elements, metas."""
    data = path.read_bytes()
    offsets = [page * 4096 + at for page in (0, 1) for at in range(META_PAGE_SIZE)]
    with BoltReader(path) as reader:
        for pgid in range(2, reader.high_water):
            stated, flags, count, _ = PAGE_HEADER.unpack_from(data, pgid * 4096)
            if stated == pgid and flags in {LEAF_PAGE, BRANCH_PAGE}:
                offsets += range(pgid * 4096, pgid * 4096 + 16 + 16 * count)
    return offsets


@pytest.fixture(scope="module")
def many_leaves(make_bolt: MakeBolt) -> Path:
    items = [(b"key-%06d" % number, b"value of %d" % number) for number in range(2000)]
    return make_bolt({b"a": items[:3], b"b": items, b"c": [(b"long", bytes(9000))]})


@pytest.mark.parametrize("source", ["golden", "many_leaves"])
def test_a_changed_bit_of_structure_is_refused_or_loses_no_element(
    source: str, tmp_path: Path, many_leaves: Path
) -> None:
    original = tmp_path / "original"
    original.write_bytes(GOLDEN.read_bytes()[:-32] if source == "golden" else many_leaves.read_bytes())
    wanted, data, offsets = content_of(original), original.read_bytes(), structure_of(original)
    rng = random.Random(SEED)
    refused = 0
    mutant = tmp_path / "mutant"
    for _ in range(MUTATIONS // 10):
        changed = bytearray(data)
        offset = rng.choice(offsets)
        changed[offset] ^= 1 << rng.randrange(8)
        mutant.write_bytes(changed)
        try:
            found = content_of(mutant)
        except (MalformedContent, TruncatedObject):
            refused += 1
            continue
        # Nothing else states the sizes of a page's last key and value: only they can change unseen.
        assert [(name, len(items)) for name, items in found[:-1]] == [
            (name, len(items)) for name, items in wanted[:-1]
        ], f"seed {SEED}, offset {offset}"
    assert refused > MUTATIONS // 200  # most pages of a small etcd are free


def test_any_damage_ends_in_content_or_in_a_declared_error(tmp_path: Path) -> None:
    data = GOLDEN.read_bytes()[:-32]
    rng = random.Random(SEED)
    mutant = tmp_path / "mutant"
    outcomes = {"read": 0, "refused": 0}
    for _ in range(MUTATIONS):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 2, 8, 64))):
            changed[rng.randrange(len(changed))] = rng.choice((0, 1, 2, 0x7F, 0xFF, rng.randrange(256)))
        if rng.random() < 0.2:
            del changed[rng.randrange(len(changed)) :]
        mutant.write_bytes(changed)
        try:
            content_of(mutant)
            with BoltReader(mutant) as reader:
                read_state(reader)
                hash_kv(reader)
                hash_kv(reader, compact_revision=3)
            outcomes["read"] += 1
        except (MalformedContent, TruncatedObject):
            outcomes["refused"] += 1
    assert min(outcomes.values()) > MUTATIONS // 20, f"seed {SEED}: {outcomes}"


def patched(path: Path, tmp_path: Path, offset: int, content: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    changed = tmp_path / "changed"
    changed.write_bytes(data)
    return changed


def root_branch(path: Path) -> int:
    """Page id of the root of the bucket ``b``."""
    with BoltReader(path) as reader:
        element = root_bucket(reader).get(b"b")
        assert element
        return bucket(reader, element.value).root


def test_a_page_that_is_its_own_child_is_refused(tmp_path: Path, many_leaves: Path) -> None:
    root = root_branch(many_leaves)
    changed = patched(many_leaves, tmp_path, root * 4096 + 16 + 8, struct.pack("<Q", root))

    with pytest.raises(MalformedContent, match=r"used twice|deeper"):
        content_of(changed)


def test_a_leaf_that_two_branches_name_is_refused(tmp_path: Path, many_leaves: Path) -> None:
    root = root_branch(many_leaves)
    offset = root * 4096 + 16
    data = many_leaves.read_bytes()
    changed = patched(many_leaves, tmp_path, offset + 16 + 8, data[offset + 8 : offset + 16])

    with pytest.raises(MalformedContent, match="used twice"):
        content_of(changed)


@pytest.mark.parametrize("pgid", [0, 1, 2**40, 2**64 - 1])
def test_a_page_id_outside_the_file_is_refused(tmp_path: Path, many_leaves: Path, pgid: int) -> None:
    root = root_branch(many_leaves)
    changed = patched(many_leaves, tmp_path, root * 4096 + 16 + 8, struct.pack("<Q", pgid))

    with pytest.raises(MalformedContent, match=f"page {pgid} of"):
        content_of(changed)


def test_overflow_beyond_the_file_is_refused(tmp_path: Path, many_leaves: Path) -> None:
    changed = patched(many_leaves, tmp_path, root_branch(many_leaves) * 4096 + 12, b"\xff\xff\xff\xff")

    with pytest.raises(MalformedContent, match="overflow"):
        content_of(changed)


def first_leaf(path: Path) -> int:
    data, root = path.read_bytes(), root_branch(path)
    return int(struct.unpack_from("<Q", data, root * 4096 + 16 + 8)[0])


def areas_of(path: Path) -> int:
    with BoltReader(path) as reader:
        element = root_bucket(reader).get(b"b")
        assert element
        return len(list(bucket(reader, element.value).areas()))


def test_a_run_of_pages_too_large_for_memory_is_refused(
    tmp_path: Path, many_leaves: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = patched(many_leaves, tmp_path, first_leaf(many_leaves) * 4096 + 12, struct.pack("<I", 3))
    monkeypatch.setattr("backupagent.etcd.boltfile.reader.MAX_RUN_SIZE", 3 * 4096)

    with pytest.raises(MalformedContent, match="states 3 overflow pages"):
        content_of(changed)


def test_a_page_with_the_id_of_another_is_refused(tmp_path: Path, many_leaves: Path) -> None:
    pgid = first_leaf(many_leaves)
    changed = patched(many_leaves, tmp_path, pgid * 4096, struct.pack("<Q", pgid + 1))

    with pytest.raises(MalformedContent, match=f"page {pgid} is not a page of a tree: id {pgid + 1}"):
        content_of(changed)


def test_a_value_that_reaches_beyond_its_page_is_refused(tmp_path: Path, many_leaves: Path) -> None:
    offset = first_leaf(many_leaves) * 4096
    _, _, count, _ = PAGE_HEADER.unpack_from(many_leaves.read_bytes(), offset)
    changed = patched(many_leaves, tmp_path, offset + 16 * count + 12, struct.pack("<I", 4096))

    for read in (content_of, areas_of):
        with pytest.raises(MalformedContent, match="outside the page"):
            read(changed)


def test_elements_that_leave_a_gap_are_no_area(tmp_path: Path, many_leaves: Path) -> None:
    offset = first_leaf(many_leaves) * 4096
    changed = patched(many_leaves, tmp_path, offset + 16 + 12, struct.pack("<I", 1))

    with pytest.raises(MalformedContent, match="not contiguous"):
        areas_of(changed)


def test_leaves_out_of_order_are_refused(tmp_path: Path, many_leaves: Path) -> None:
    root = root_branch(many_leaves) * 4096
    data = many_leaves.read_bytes()
    swapped = bytearray(data[root + 16 : root + 16 + 2 * 16])
    swapped[8:16], swapped[24:32] = swapped[24:32], swapped[8:16]
    changed = patched(many_leaves, tmp_path, root + 16, bytes(swapped))

    for read in (content_of, areas_of):
        with pytest.raises(MalformedContent, match="not in order"):
            read(changed)


def test_a_tree_deeper_than_any_real_one_is_refused(tmp_path: Path) -> None:
    depth = 40
    pages = [
        PAGE_HEADER.pack(pgid, BRANCH_PAGE, 1, 0) + struct.pack("<IIQ", 16, 1, pgid + 1) + b"k"
        for pgid in range(2, 2 + depth)
    ]
    pages.append(PAGE_HEADER.pack(2 + depth, LEAF_PAGE, 0, 0))
    metas = [Meta(1024, 0, 2, 0, 3 + depth, txid).encode_page() for txid in (2, 1)]
    path = tmp_path / "db"
    path.write_bytes(b"".join(page.ljust(1024, b"\0") for page in (*metas, *pages)))

    with BoltReader(path) as reader:
        for read in (lambda tree: list(tree.items()), lambda tree: tree.spine()):
            with pytest.raises(MalformedContent, match="deeper than"):
                read(root_bucket(reader))


def test_a_file_shorter_than_its_meta_says_is_truncated(tmp_path: Path, many_leaves: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(many_leaves.read_bytes()[:-1])

    with pytest.raises(TruncatedObject, match="short"):
        BoltReader(short)


@pytest.mark.parametrize("content", [b"", b"x", bytes(100_000), b"\xff" * 100_000])
def test_what_is_no_bbolt_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "db"
    path.write_bytes(content)

    with pytest.raises(MalformedContent, match="not a bbolt file"):
        BoltReader(path, name="Full-1")


def test_errors_name_the_object(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.touch()

    with pytest.raises(MalformedContent) as caught:
        BoltReader(path, name="Full-1")
    assert caught.value.key == "Full-1"
    with pytest.raises(EtcdError, match="absent"):
        BoltReader(tmp_path / "absent")
    with pytest.raises(MalformedContent, match="directory"):
        BoltReader(tmp_path)


@pytest.mark.parametrize("page_size", [1024, 4096, 65536])
@pytest.mark.parametrize("torn", [0, 1])
def test_a_torn_meta_leaves_the_other_one(make_bolt: MakeBolt, tmp_path: Path, page_size: int, torn: int) -> None:
    path = make_bolt({b"b": [(b"k", b"v")]}, page_size=page_size)
    changed = patched(path, tmp_path, torn * page_size + 40, b"\xaa" * 16)

    with BoltReader(changed) as reader:
        assert (reader.page_size, reader.meta.txid) == (page_size, 1 if torn == 0 else 2)
        assert [element.key for element in root_bucket(reader).items()] == [b"b"]


def test_the_newer_meta_counts(many_leaves: Path, tmp_path: Path) -> None:
    with BoltReader(many_leaves) as reader:
        newest = reader.meta
    newer = Meta(newest.page_size, 0, newest.root, 0, newest.high_water, newest.txid + 1)
    changed = patched(many_leaves, tmp_path, (newer.txid % 2) * 4096, newer.encode_page())

    with BoltReader(changed) as reader:
        assert reader.meta == newer
