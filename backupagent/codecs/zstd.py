"""Zstandard (RFC 8878): an eighth smaller than our gzip at about the same cost, but the peer cannot read it."""

from collections.abc import Iterator

import zstandard

from backupagent.codecs.base import MAX_PIECE, Buffer
from backupagent.codecs.slicing import pieces, slices
from backupagent.errors import MalformedContent, TruncatedObject
from backupagent.units import MiB

LEVEL = 1
"""On etcd databases level 3 takes twice the CPU of 1 and is no smaller (4.84 against 4.87, 314 MB)."""

MAX_WINDOW = 8 * MiB
"""Window that is accepted at most: what RFC 8878 (3.1.1.1.2) asks every decoder for; level 19 needs no more."""

_DECODE_SLICE = 256
"""Input decoded at once, bytes. The library gives all that a piece of input decodes to, and four bytes can stand for a
block of 128 KiB (RFC 8878, 3.1.1.2): this keeps a hostile stream to 8 MiB."""


class ZstdEncoder:
    """Compresses to one frame with a check sum of its content.

    Args:
        threads: Threads that compress; up to 1 means none but the caller's.
    """

    def __init__(self, threads: int) -> None:
        # The library counts its own threads only: 1 would be one beside the caller's, which waits for it.
        workers = threads if threads > 1 else 0
        compressor = zstandard.ZstdCompressor(level=LEVEL, threads=workers, write_checksum=True)
        self._frame: zstandard.ZstdCompressionObj | None = compressor.compressobj()

    def feed(self, data: Buffer) -> Iterator[Buffer]:
        """Take the next piece; give what is ready."""
        frame = self._open_frame()
        for part in slices(data, MAX_PIECE):
            if piece := frame.compress(part):
                yield piece

    def finish(self) -> Iterator[Buffer]:
        """Give the rest."""
        yield self._open_frame().flush()

    def close(self) -> None:
        """End the threads: the library does it as the last reference goes."""
        self._frame = None

    def _open_frame(self) -> "zstandard.ZstdCompressionObj":
        if self._frame is None:
            raise ValueError("the encoder is closed")
        return self._frame


class ZstdDecoder:
    """Decodes any number of frames that follow one another; check sums are verified where a frame has one.

    Args:
        key: Key of the object, for messages.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._begun = False

    def feed(self, data: Buffer) -> Iterator[Buffer]:
        """Take the next piece; give what it decodes to, in pieces of at most ``MAX_PIECE`` bytes.

        Raises:
            MalformedContent: not Zstandard, a wrong check sum, or a window above ``MAX_WINDOW``.
        """
        yield from pieces(self._decoded(data))

    def finish(self) -> None:
        """Say that the input has ended.

        Raises:
            TruncatedObject: inside a frame, or before the first.
        """
        if self._frame is not None or not self._begun:
            raise TruncatedObject("ends before its compressed stream does", key=self._key)

    def _decoded(self, data: Buffer) -> Iterator[bytes]:
        for part in slices(data, _DECODE_SLICE):
            rest: Buffer = part
            while rest:
                frame = self._frame or self._begin()
                try:
                    decoded = frame.decompress(rest)
                except zstandard.ZstdError as error:
                    raise MalformedContent(f"cannot be decompressed: {error}", key=self._key) from error
                rest = b""
                if frame.eof:
                    self._frame, rest = None, frame.unused_data
                yield decoded

    def _begin(self) -> "zstandard.ZstdDecompressionObj":
        self._begun = True
        self._frame = self._decompressor.decompressobj()
        return self._frame
