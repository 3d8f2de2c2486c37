import tracemalloc

import pytest
import zstandard

from backupagent.codecs.base import MAX_PIECE
from backupagent.codecs.zstd import MAX_WINDOW, ZstdDecoder, ZstdEncoder
from backupagent.errors import MalformedContent, TruncatedObject
from backupagent.units import KiB, MiB

KEY = "v2/Full-00000000-00000042-1795400591.zst"
SKIPPABLE_FRAME = bytes.fromhex("502a4d18") + (5).to_bytes(4, "little") + b"notes"


def decoded(stream: bytes) -> bytes:
    decoder = ZstdDecoder(KEY)
    content = b"".join(bytes(piece) for piece in decoder.feed(stream))
    decoder.finish()
    return content


def frame_with_window(log: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=log)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(b"content") + compressor.flush()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_frame_has_a_check_sum(threads: int) -> None:
    encoder = ZstdEncoder(threads)
    stream = b"".join([*map(bytes, encoder.feed(b"content")), *map(bytes, encoder.finish())])
    encoder.close()
    assert zstandard.get_frame_parameters(stream).has_checksum
    assert decoded(stream) == b"content"


def test_a_closed_encoder_says_so() -> None:
    encoder = ZstdEncoder(2)
    encoder.close()
    with pytest.raises(ValueError, match="closed"):
        list(encoder.feed(b"content"))


def test_frames_follow_one_another() -> None:
    first, second = zstandard.compress(b"first"), zstandard.compress(b"second")
    assert decoded(first + SKIPPABLE_FRAME + second) == b"firstsecond"
    with pytest.raises(TruncatedObject, match=KEY):
        decoded(first + second[:-1])


def test_a_window_beyond_the_limit_is_refused() -> None:
    limit = MAX_WINDOW.bit_length() - 1
    assert decoded(frame_with_window(limit)) == b"content"
    with pytest.raises(MalformedContent, match=f"{KEY}: cannot be decompressed"):
        decoded(frame_with_window(limit + 1))


def test_the_densest_blocks_keep_memory_bounded() -> None:
    # By hand: no check sum, a window of 8 MiB, then 2,000 blocks of one repeated byte, 4 bytes for 128 KiB each.
    header = bytes.fromhex("28b52ffd") + b"\x00" + bytes(((23 - 10) << 3,))
    size = 128 * KiB
    block = (size << 3 | 1 << 1).to_bytes(3, "little") + b"a"
    last = (size << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"a"
    stream = header + block * 1999 + last
    decoder = ZstdDecoder(KEY)
    given = 0
    tracemalloc.start()
    try:
        for piece in decoder.feed(stream):
            assert len(piece) <= MAX_PIECE
            given += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    decoder.finish()
    assert given == 2000 * size
    assert peak < 32 * MiB
