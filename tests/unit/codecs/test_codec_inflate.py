"""The decoders of gzip and zlib: several members, headers with everything, ends, check sums."""

import gzip
import random
import struct
import zlib
from collections.abc import Iterable

import pytest

from backupagent.codecs.base import MAX_PIECE
from backupagent.codecs.inflate import GzipDecoder, ZlibDecoder
from backupagent.errors import MalformedContent, TruncatedObject

SEED = 7
KEY = "v2/Incr-00000007-00000011-1795400640.gz"


def decoded(decoder: GzipDecoder | ZlibDecoder, parts: Iterable[bytes]) -> bytes:
    content = b"".join(bytes(piece) for part in parts for piece in decoder.feed(part))
    decoder.finish()
    return content


def bytewise(data: bytes) -> Iterable[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


def member(content: bytes, flags: int) -> bytes:
    """A member with any of header check sum (2), extra field (4), name (8) and comment (16), as RFC 1952 allows."""
    header = b"\x1f\x8b\x08" + struct.pack("<BIBB", flags, 1_795_400_640, 2, 3)
    header += struct.pack("<H", 5) + b"extra" if flags & 4 else b""
    header += b"db.snapshot\0" if flags & 8 else b""
    header += b"a comment\0" if flags & 16 else b""
    header += struct.pack("<H", zlib.crc32(header) & 0xFFFF) if flags & 2 else b""
    return header + gzip.compress(content)[10:]


@pytest.mark.parametrize("level", range(10))
def test_every_level_of_zlib_is_read(level: int) -> None:
    content = b"registry/pods/" * 5000
    assert decoded(GzipDecoder(KEY), [gzip.compress(content, level)]) == content
    assert decoded(ZlibDecoder(KEY), [zlib.compress(content, level)]) == content


def test_members_of_any_size_follow_one_another() -> None:
    rng = random.Random(SEED)
    contents = [rng.randbytes(rng.choice([0, 1, 10, 3000])) for _ in range(60)]
    stream = b"".join(map(gzip.compress, contents))
    assert decoded(GzipDecoder(KEY), [stream]) == b"".join(contents)
    assert decoded(GzipDecoder(KEY), bytewise(stream)) == b"".join(contents)


@pytest.mark.parametrize("flags", range(0, 32, 2))
def test_every_header_is_read_wherever_it_is_cut(flags: int) -> None:
    stream = member(b"first", flags) + member(b"second", flags)
    assert decoded(GzipDecoder(KEY), bytewise(stream)) == b"firstsecond"
    for cut in range(len(stream)):
        assert decoded(GzipDecoder(KEY), [stream[:cut], stream[cut:]]) == b"firstsecond"


def test_a_wrong_check_sum_of_the_header_is_noticed() -> None:
    stream = bytearray(member(b"content", flags=2))
    stream[4] ^= 1
    with pytest.raises(MalformedContent, match=KEY):
        decoded(GzipDecoder(KEY), bytewise(bytes(stream)))


def test_a_header_without_end_is_not_gathered_for_ever() -> None:
    decoder = GzipDecoder(KEY)
    list(decoder.feed(member(b"", flags=8)[:10]))
    with pytest.raises(MalformedContent, match="header above 131072 bytes"):
        list(decoder.feed(b"n" * 140_000))


def test_a_zlib_header_is_read_in_two_pieces() -> None:
    stream = zlib.compress(b"content")
    assert decoded(ZlibDecoder(KEY), [stream[:1], stream[1:]]) == b"content"
    with pytest.raises(TruncatedObject, match=KEY):
        decoded(ZlibDecoder(KEY), [stream[:1]])


@pytest.mark.parametrize("size", [MAX_PIECE - 1, MAX_PIECE, 2 * MAX_PIECE, 2 * MAX_PIECE + 1])
def test_a_stream_that_ends_at_the_edge_of_a_piece_is_whole(size: int) -> None:
    assert decoded(GzipDecoder(KEY), [gzip.compress(bytes(size))]) == bytes(size)
    assert decoded(ZlibDecoder(KEY), [zlib.compress(bytes(size))]) == bytes(size)


def test_a_cut_between_members_is_valid_gzip() -> None:
    # The format cannot tell: the sha256 trailer, which lies in the last member, is what is missed.
    first, second = gzip.compress(b"first"), gzip.compress(b"second")
    decoder = GzipDecoder(KEY)
    assert decoded(decoder, [first]) == b"first"
    assert decoded(GzipDecoder(KEY), [first, second]) == b"firstsecond"


def test_every_other_cut_of_two_members_is_noticed() -> None:
    first, second = gzip.compress(b"first"), gzip.compress(b"second")
    stream = first + second
    for end in range(len(stream)):
        if end != len(first):
            with pytest.raises(TruncatedObject, match=KEY):
                decoded(GzipDecoder(KEY), [stream[:end]])


def test_a_wrong_length_is_noticed() -> None:
    stream = bytearray(gzip.compress(b"content"))
    stream[-4:] = struct.pack("<I", 8)
    with pytest.raises(MalformedContent, match=KEY):
        decoded(GzipDecoder(KEY), [bytes(stream)])


@pytest.mark.parametrize("tail", [b"\0", bytes(512), b"\x1f\x8b\x07", b"\x1f\x9d"])
def test_only_a_member_may_follow_a_member(tail: bytes) -> None:
    with pytest.raises(MalformedContent, match="no header after the end"):
        decoded(GzipDecoder(KEY), [gzip.compress(b"content"), tail])
    with pytest.raises(MalformedContent, match="no header at its start"):
        decoded(GzipDecoder(KEY), [tail])


def test_the_error_of_the_library_is_the_cause() -> None:
    with pytest.raises(MalformedContent, match=f"{KEY}: cannot be decompressed") as raised:
        decoded(GzipDecoder(KEY), [gzip.compress(b"content")[:10] + b"\xff" * 10])
    assert raised.value.__cause__ is not None


def test_a_second_zlib_stream_is_not_taken_for_content() -> None:
    with pytest.raises(MalformedContent, match="goes on after the end"):
        decoded(ZlibDecoder(KEY), [zlib.compress(b"first") + zlib.compress(b"second")])


def test_a_zlib_stream_that_wants_a_dictionary_is_refused() -> None:
    compressor = zlib.compressobj(zdict=b"a dictionary that nobody has")
    stream = compressor.compress(b"a dictionary") + compressor.flush()
    with pytest.raises(MalformedContent, match=KEY):
        decoded(ZlibDecoder(KEY), [stream])
