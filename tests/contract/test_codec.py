"""What every row of the table of compressions promises. A new row is found here by itself."""

import functools
import random
import threading
import tracemalloc
from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backupagent.codecs import CODECS
from backupagent.codecs.base import MAX_PIECE, Buffer, Codec
from backupagent.errors import MalformedContent, TruncatedObject
from backupagent.testing.lzw_writer import compress_lzw
from backupagent.units import KiB, MiB

SEED = 20261123
KEY = "v2/Full-00000000-00000042-1795400591"

WRITERS: dict[str, Callable[[bytes], bytes]] = {"lzw": compress_lzw}
"""Stand in for the encoders of compressions that are only read."""

WITHOUT_END = {"none"}
"""Formats that cannot tell that something is missing or added: a snapshot's sha256 trailer does."""
WITHOUT_CHECK_SUM = {"none", "lzw"}
"""Formats that cannot tell that a byte was changed: a snapshot's sha256 trailer does."""

every_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
every_encoder = pytest.mark.parametrize("codec", [c for c in CODECS.values() if c.encoder], ids=lambda c: c.name)
every_codec_with_end = pytest.mark.parametrize(
    "codec", [c for c in CODECS.values() if c.name not in WITHOUT_END], ids=lambda c: c.name
)
every_codec_with_check_sum = pytest.mark.parametrize(
    "codec", [c for c in CODECS.values() if c.name not in WITHOUT_CHECK_SUM], ids=lambda c: c.name
)


def compressible(size: int) -> bytes:
    """Text with about the redundancy of Kubernetes objects."""
    rng = random.Random(SEED)
    line = b'{"kind":"Pod","name":"app-%010d","namespace":"shoot--%03d","phase":"Running"}'
    lines = b"".join(line % (rng.randrange(10**10), rng.randrange(100)) for _ in range(size // 60 + 1))
    return lines[:size]


def incompressible(size: int) -> bytes:
    return random.Random(SEED).randbytes(size)


CONTENTS: dict[str, Callable[[], bytes]] = {
    "empty": bytes,
    "one-byte": lambda: b"x",
    "below-piece": lambda: compressible(MAX_PIECE - 1),
    "one-piece": lambda: compressible(MAX_PIECE),
    "above-piece": lambda: compressible(MAX_PIECE + 1),
    "large": lambda: compressible(5 * MiB + 7),
    "random": lambda: incompressible(3 * MiB + 11),
    "zeros": lambda: bytes(4 * MiB),
}
SMALL = b"Full-00000000-00000042 " + bytes(range(40)) + b"Full-00000000-00000042 " * 4


def encoded(codec: Codec, parts: Iterable[Buffer], threads: int = 1) -> bytes:
    """Compress what is fed part by part, from a buffer that is reused for the next part."""
    if codec.encoder is None:
        return WRITERS[codec.name](b"".join(parts))
    encoder = codec.encoder(threads)
    stream = bytearray()
    for part in parts:
        lent = bytearray(part)
        for piece in encoder.feed(lent):
            stream += piece
        lent[:] = bytes(len(lent))
    for piece in encoder.finish():
        stream += piece
    encoder.close()
    return bytes(stream)


def decoded(codec: Codec, parts: Iterable[Buffer]) -> bytes:
    """Decode what is fed part by part, from a buffer that is reused for the next part."""
    decoder = codec.decoder(KEY)
    content = bytearray()
    for part in parts:
        lent = bytearray(part)
        for piece in decoder.feed(lent):
            assert 0 < len(piece) <= MAX_PIECE
            content += piece
        lent[:] = bytes(len(lent))
    decoder.finish()
    return bytes(content)


@functools.cache
def stream(name: str, content: str) -> bytes:
    return encoded(CODECS[name], [CONTENTS[content]()])


def cut(data: bytes, positions: Iterable[int]) -> list[bytes]:
    """Cut at these positions, taken modulo the size; equal positions give empty parts."""
    edges = [0, *sorted(position % (len(data) + 1) for position in positions), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


positions = st.lists(st.integers(0, 10**9), max_size=12)


@every_codec
@pytest.mark.parametrize("content", CONTENTS)
def test_decodes_to_what_was_encoded(codec: Codec, content: str) -> None:
    assert decoded(codec, [stream(codec.name, content)]) == CONTENTS[content]()


@every_codec
@pytest.mark.parametrize("size", [1, 3, 4093])
def test_pieces_of_any_size_decode_the_same(codec: Codec, size: int) -> None:
    content = compressible(40 * KiB)
    whole = encoded(codec, [content])
    assert decoded(codec, [whole[at : at + size] for at in range(0, len(whole), size)]) == content


@every_codec
@given(fed=positions, read=positions)
@settings(max_examples=25)
def test_slicing_does_not_change_the_content(codec: Codec, fed: list[int], read: list[int]) -> None:
    content = CONTENTS["above-piece"]() if codec.encoder else compressible(100 * KiB)
    assert decoded(codec, cut(encoded(codec, cut(content, fed)), read)) == content


@every_encoder
@pytest.mark.parametrize("content", ["empty", "one-byte", "large", "random"])
def test_the_number_of_threads_does_not_change_the_content(codec: Codec, content: str) -> None:
    data = CONTENTS[content]()
    parts = [data[at : at + 300_007] for at in range(0, len(data), 300_007)]
    assert decoded(codec, [encoded(codec, parts, threads=3)]) == data


@every_codec
def test_a_bomb_comes_out_in_bounded_pieces_and_memory(codec: Codec) -> None:
    # What the writers that stand in for encoders take a second for.
    size = 64 * MiB if codec.encoder else 8 * MiB
    bomb = encoded(codec, (bytes(MiB) for _ in range(size // MiB)))
    decoder = codec.decoder(KEY)
    given = 0
    tracemalloc.start()
    try:
        for piece in decoder.feed(bomb):
            assert len(piece) <= MAX_PIECE
            given += len(piece)
        decoder.finish()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert given == size
    assert peak < 24 * MiB


@every_codec_with_end
def test_every_truncation_is_noticed(codec: Codec) -> None:
    whole = encoded(codec, [SMALL])
    for end in range(len(whole)):
        with pytest.raises(TruncatedObject, match=KEY):
            decoded(codec, [whole[:end]])


@every_codec_with_end
@pytest.mark.parametrize("tail", [b"\0", bytes(512), b"garbage that follows"])
def test_what_follows_the_end_is_noticed(codec: Codec, tail: bytes) -> None:
    whole = encoded(codec, [SMALL])
    for parts in ([whole + tail], [whole, tail]):
        with pytest.raises((MalformedContent, TruncatedObject), match=KEY):
            decoded(codec, parts)


@every_codec_with_check_sum
def test_every_changed_byte_is_noticed_or_insignificant(codec: Codec) -> None:
    whole = encoded(codec, [SMALL])
    noticed = 0
    for at in range(len(whole)):
        for change in range(1, 256):
            changed = bytearray(whole)
            changed[at] ^= change
            try:
                content = decoded(codec, [changed])
            except (MalformedContent, TruncatedObject):
                noticed += 1
            else:
                assert content == SMALL, f"byte {at} changed by {change:#x}: other content without an error"
    assert noticed > 0.8 * 255 * len(whole)


@every_codec_with_end
def test_garbage_is_refused(codec: Codec) -> None:
    rng = random.Random(SEED)
    for _ in range(50):
        with pytest.raises((MalformedContent, TruncatedObject), match=KEY):
            decoded(codec, [rng.randbytes(64 * KiB)])


@every_codec
@given(data=st.binary(max_size=200))
def test_garbage_raises_nothing_but_typed_errors(codec: Codec, data: bytes) -> None:
    try:
        decoded(codec, [data])
    except (MalformedContent, TruncatedObject) as error:
        assert error.key == KEY  # noqa: PT017 - an error is allowed, not required


@every_encoder
@pytest.mark.parametrize("threads", [1, 3])
def test_a_stream_that_is_given_up_gives_its_threads_back(codec: Codec, threads: int) -> None:
    before = threading.active_count()
    assert codec.encoder is not None
    encoder = codec.encoder(threads)
    pieces = encoder.feed(incompressible(16 * MiB))
    assert next(pieces)
    encoder.close()
    encoder.close()
    assert threading.active_count() == before
