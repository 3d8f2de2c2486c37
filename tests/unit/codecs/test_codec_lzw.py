"""Corners of the format that Go's writer never or rarely reaches, and its writer's own bytes."""

import random
import tracemalloc
from collections.abc import Iterable

import pytest

from backupagent.codecs.base import MAX_PIECE
from backupagent.codecs.lzw import LzwDecoder
from backupagent.errors import MalformedContent, TruncatedObject
from backupagent.testing.lzw_writer import compress_lzw
from backupagent.units import MiB

SEED = 11
KEY = "v2/Incr-00000007-00000011-1795400640.Z"
CLEAR, END = 256, 257

WRITTEN_BY_GO = {
    b"": "000302",
    b"a": "00c30404",
    b"TOBEORNOTTOBEORTOBEORNOT": "00a93c1152e48914274fa80824687061c183090302",
}
"""compress/lzw of Go 1.26, least significant bit first, literals of 8 bits."""


def packed(codes: Iterable[int]) -> bytes:
    """Pack codes, each as wide as a reader expects it."""
    bits = length = 0
    added = 257
    for code in codes:
        width = min(max(added.bit_length(), 9), 12)
        bits |= code << length
        length += width
        added = 257 if code == CLEAR else min(added + 1, 4096)
    return bits.to_bytes((length + 7) // 8, "little")


def decoded(parts: Iterable[bytes]) -> bytes:
    decoder = LzwDecoder(KEY)
    content = b"".join(bytes(piece) for part in parts for piece in decoder.feed(part))
    decoder.finish()
    return content


@pytest.mark.parametrize("content", WRITTEN_BY_GO)
def test_what_go_writes_is_read_and_the_tests_writer_writes_the_same(content: bytes) -> None:
    stream = bytes.fromhex(WRITTEN_BY_GO[content])
    assert decoded([stream]) == content
    assert compress_lzw(content) == stream


def test_a_stream_need_not_begin_with_an_emptied_table() -> None:
    assert decoded([packed([*b"abc", END])]) == b"abc"


def test_a_code_may_name_the_entry_that_it_adds() -> None:
    assert decoded([packed([CLEAR, ord("a"), 258, 259, 260, END])]) == b"a" * 10


def test_a_full_table_stays_as_it_is() -> None:
    literals = random.Random(SEED).randbytes(5000)
    entry_4095 = literals[3837:3839]
    stream = packed([*literals, 4095, 258, 4095, CLEAR, *b"xy", 258, END])
    assert decoded([stream]) == literals + entry_4095 + literals[:2] + entry_4095 + b"xyxy"
    assert decoded(stream[at : at + 1] for at in range(len(stream))) == decoded([stream])


@pytest.mark.parametrize("before", [[], [CLEAR], [CLEAR, 1, 2, CLEAR], [CLEAR, *range(200), CLEAR, CLEAR]])
def test_a_first_code_must_be_a_literal(before: list[int]) -> None:
    with pytest.raises(MalformedContent, match=f"{KEY}: cannot be decompressed: code 258"):
        decoded([packed([*before, 258, END])])


@pytest.mark.parametrize(("literals", "code"), [(1, 259), (2, 260), (2, 511), (300, 558), (3000, 4095)])
def test_a_code_that_names_no_entry_is_malformed(literals: int, code: int) -> None:
    codes = [CLEAR, *(number % 251 for number in range(literals))]
    with pytest.raises(MalformedContent, match=f"code {code}"):
        decoded([packed([*codes, code, END])])
    assert decoded([packed([*codes, 257 + literals, END])])


@pytest.mark.parametrize("cut", [255, 256, 257, 766, 767, 768, 1790, 1791, 3837, 3838, 3839, 3840])
def test_codes_grow_exactly_where_the_table_does(cut: int) -> None:
    literals = random.Random(SEED).randbytes(cut)
    assert decoded([packed([CLEAR, *literals, END])]) == literals
    assert decoded([packed([CLEAR, *literals, CLEAR, *literals, END])]) == literals * 2


def test_bits_after_the_end_are_padding_and_bytes_are_not() -> None:
    stream = packed([CLEAR, ord("a"), END])  # 27 bits
    padded = stream[:-1] + bytes((stream[-1] | 0xF8,))
    assert decoded([padded]) == b"a"
    for parts in ([stream + b"\0"], [stream, b"\0"]):
        with pytest.raises(MalformedContent, match="goes on after the end"):
            decoded(parts)


def test_the_code_of_the_end_must_come() -> None:
    with pytest.raises(TruncatedObject, match=KEY):
        decoded([packed([CLEAR, *b"content"])])


def test_the_longest_entries_keep_memory_bounded() -> None:
    # Each code adds the longest entry possible; then that of 3,839 bytes is repeated: 2,500 times the input's size.
    codes = [ord("a"), *range(258, 4096), *[4095] * 20_000, END]
    stream = packed(codes)
    decoder = LzwDecoder(KEY)
    size = 0
    tracemalloc.start()
    try:
        for piece in decoder.feed(stream):
            assert len(piece) <= MAX_PIECE
            size += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    decoder.finish()
    assert size == sum(range(1, 3840)) + 20_000 * 3839
    assert peak < 20 * MiB
