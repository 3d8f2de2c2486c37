"""Decoding of DEFLATE in its two wrappers: gzip (RFC 1952) and zlib (RFC 1950).

isal checks header, CRC-32 and length, or Adler-32, of every stream. It is twice as fast as the standard
library's zlib and, like it, works without the GIL.

The rules for what follows the end of a stream:

- gzip: another member or the end of the object, as in Go's reader. Anything else, padding with zeros included, is
  malformed.
- zlib: the end of the object. Go's reader ignores what follows; an object that goes on after its end was not written
  by any known tool, and to ignore half of it would be silent loss.

An object cut exactly between two gzip members is valid gzip. Only the sha256 trailer, which is then missing, shows it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from isal import isal_zlib

from backupagent.codecs.base import MAX_PIECE, Buffer
from backupagent.codecs.slicing import slices
from backupagent.errors import MalformedContent, TruncatedObject
from backupagent.units import KiB

GZIP_WBITS = 31
"""zlib's way to say: a gzip wrapper around a window of 32 KiB."""
ZLIB_WBITS = 15
"""zlib's way to say: a zlib wrapper around a window of 32 KiB."""

_SLICE = 128 * KiB
"""Input given to isal at once. It copies what it did not use each time that ``MAX_PIECE`` bytes are full, or a member
ends: larger slices make that quadratic, smaller ones cost more calls (32 KiB to 1 MiB were equally fast, 2026-11)."""

# The stub of isal declares an instance where the module holds a class.
_ISAL_ERROR = cast("type[Exception]", isal_zlib.error)


_MAX_HEADER = 128 * KiB
"""Bytes of a header at most. Go's reader takes 65,535 of extra field and 511 each of name and comment."""

_GZIP_MAGIC = b"\x1f\x8b\x08"
_GZIP_FIXED = 10
_GZIP_FLAGS = 3
_FHCRC, _FEXTRA, _FNAME, _FCOMMENT = 2, 4, 8, 16

_ZLIB_FLAGS = 1
_FDICT = 32


def _gzip_header_size(data: Buffer) -> int | None:
    """Return the size of the header at the start of ``data``, or None when it is not there as a whole.

    Source: RFC 1952, 2.3.
    """
    if len(data) < _GZIP_FIXED:
        return None
    flags, size = data[_GZIP_FLAGS], _GZIP_FIXED
    if flags & _FEXTRA:
        size += 2 + int.from_bytes(data[size : size + 2], "little")
    for text in (_FNAME, _FCOMMENT):
        if flags & text:
            end = bytes(data[:_MAX_HEADER]).find(b"\0", size)
            if end < 0:
                return None
            size = end + 1
    if flags & _FHCRC:
        size += 2
    return size if size <= len(data) else None


def _zlib_header_size(data: Buffer) -> int | None:
    """Return the size of the header at the start of ``data``, or None when it is not there as a whole.

    Source: RFC 1950, 2.2.
    """
    size = 6 if len(data) > _ZLIB_FLAGS and data[_ZLIB_FLAGS] & _FDICT else 2
    return size if size <= len(data) else None


@dataclass(frozen=True)
class _Wrapper:
    """What surrounds a DEFLATE stream.

    Attributes:
        wbits: isal's number for it.
        magic: Its first bytes, as far as they never vary.
        header_size: Tells the size of a header, or None when it is cut.
        several: Whether more than one stream may follow one another.
    """

    wbits: int
    magic: bytes
    header_size: Callable[[Buffer], int | None]
    several: bool


_GZIP = _Wrapper(GZIP_WBITS, _GZIP_MAGIC, _gzip_header_size, several=True)
_ZLIB = _Wrapper(ZLIB_WBITS, b"", _zlib_header_size, several=False)


class _InflateDecoder:
    """Decodes streams in one kind of wrapper.

    Args:
        key: Key of the object, for messages.
        wrapper: The kind.
    """

    def __init__(self, key: str, wrapper: _Wrapper) -> None:
        self._key = key
        self._wrapper = wrapper
        self._stream: isal_zlib.Decompress | None = None
        self._begun = False
        self._header = b""

    def feed(self, data: Buffer) -> Iterator[Buffer]:
        """Take the next piece; give what it decodes to, in pieces of at most ``MAX_PIECE`` bytes.

        Raises:
            MalformedContent: not such a stream, a wrong check sum or length, or data after the end.
        """
        for part in slices(data, _SLICE):
            yield from self._inflate(part)

    def finish(self) -> None:
        """Say that the input has ended.

        Raises:
            TruncatedObject: inside a stream, or before the first.
        """
        if self._stream is not None or self._header or not self._begun:
            raise TruncatedObject("ends before its compressed stream does", key=self._key)

    def _inflate(self, part: memoryview) -> Iterator[bytes]:
        rest: Buffer = part
        more = False  # a full piece: isal may hold more, although it has taken all input
        while more or rest:
            if self._stream is None:
                rest = self._header + rest
                self._stream = self._begin(rest)
                if self._stream is None:
                    return
            stream = self._stream
            try:
                piece = stream.decompress(rest, MAX_PIECE)
            except _ISAL_ERROR as error:
                raise MalformedContent(f"cannot be decompressed: {error}", key=self._key) from error
            if stream.eof:
                self._stream = None
                more, rest = False, stream.unused_data
            else:
                more, rest = len(piece) == MAX_PIECE, stream.unconsumed_tail
            if piece:
                yield piece

    def _begin(self, data: Buffer) -> "isal_zlib.Decompress | None":
        """Begin a stream once its header is there as a whole; until then keep what there is of it.

        isal reads a header that it is given in two pieces with flags from uninitialized memory
        (https://github.com/intel/isa-l/issues/224).
        """
        if self._begun and not self._wrapper.several:
            raise MalformedContent("goes on after the end of its compressed stream", key=self._key)
        magic = self._wrapper.magic[: len(data)]
        if data[: len(magic)] != magic:
            where = "after the end of its compressed stream" if self._begun else "at its start"
            raise MalformedContent(f"cannot be decompressed: no header {where}", key=self._key)
        if self._wrapper.header_size(data) is None:
            if len(data) > _MAX_HEADER:
                raise MalformedContent(f"cannot be decompressed: header above {_MAX_HEADER} bytes", key=self._key)
            self._header = bytes(data)
            return None
        self._begun, self._header = True, b""
        return isal_zlib.decompressobj(self._wrapper.wbits)


class GzipDecoder(_InflateDecoder):
    """Decodes gzip of any number of members.

    Args:
        key: Key of the object, for messages.
    """

    def __init__(self, key: str) -> None:
        super().__init__(key, _GZIP)


class ZlibDecoder(_InflateDecoder):
    """Decodes one zlib stream.

    Args:
        key: Key of the object, for messages.
    """

    def __init__(self, key: str) -> None:
        super().__init__(key, _ZLIB)
