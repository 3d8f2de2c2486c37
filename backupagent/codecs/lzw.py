"""LZW as Go's compress/lzw writes it, which the peer's ``.Z`` objects hold. It is only read, never written.

Codes are packed from the least significant bit on and are 9 to 12 bits wide. 0 to 255 stand for themselves, 256 empties
the table, 257 ends the stream. The first code after an empty table adds no entry; each later one adds the previous
code's bytes followed by the first byte of its own, so that a code may name the entry that it is about to add. Codes
grow by a bit as soon as the entry to be added needs it. A full table is kept as it is. Unlike Unix ``compress`` there
is no magic number.

The format has no check sum: a changed byte may decode to other content. Only a snapshot's sha256 trailer shows it.

Source: Go 1.26, src/compress/lzw/reader.go, with least significant bit first and literals of 8 bits. Go's reader
ignores what follows the code 257; here it is malformed, for the reason given in ``inflate``.

Measured: 18 MB of content a second on Kubernetes objects in JSON (2026-11); a loop that takes code by code from the
bits reaches 5.
"""

import struct
from collections.abc import Iterator, Sequence

from backupagent.codecs.base import Buffer
from backupagent.codecs.slicing import pieces, slices
from backupagent.errors import MalformedContent, TruncatedObject
from backupagent.units import KiB

_CLEAR = 256
_END = 257
_MIN_WIDTH = 9
_MAX_WIDTH = 12
_FULL = 1 << _MAX_WIDTH

_BATCH = 1024
"""Codes unpacked at once, a multiple of 8. The longest entry has 3,839 bytes: a batch decodes to less than 4 MiB."""

_SLICE = 64 * KiB

_EMPTY_TABLE = (*(bytes((literal,)) for literal in range(256)), b"")
"""Entries 0 to 256. The first code of a table adds 257, which no code can name, so that it needs no rule of its own."""


def _spreading_steps(width: int) -> list[tuple[int, int, int]]:
    """Return (bits that stay, bits that move, by how many places) for each step of ``_unpack``."""
    steps = []
    for codes, lane in ((8, 128), (4, 64), (2, 32)):
        half = codes // 2 * width
        low = (1 << half) - 1
        every_lane = sum(1 << start for start in range(0, 16 * _BATCH, lane))
        steps.append((low * every_lane, (low << half) * every_lane, lane // 2 - half))
    return steps


_SPREADING = {width: _spreading_steps(width) for width in range(_MIN_WIDTH, _MAX_WIDTH + 1)}


def _unpack(packed: bytes, bit: int, width: int, count: int) -> bytes:
    """Return ``count`` codes that begin at ``bit``, each in 16 bits, little endian.

    Arithmetic on one huge integer serves all codes at a time: every 8 codes, which are ``width`` bytes, are laid into
    a lane of 16 bytes, which is then split into halves three times.
    """
    first, last = bit // 8, (bit + count * width + 7) // 8
    bits = int.from_bytes(packed[first:last], "little") >> bit % 8
    bits &= (1 << count * width) - 1
    lanes = (count + 7) // 8
    dense = bits.to_bytes(lanes * width, "little")
    wide = bytearray(lanes * 16)
    for column in range(width):
        wide[column::16] = dense[column::width]
    codes = int.from_bytes(wide, "little")
    for stay, move, places in _SPREADING[width]:
        codes = codes & stay | (codes & move) << places
    return codes.to_bytes(lanes * 16, "little")[: 2 * count]


def _first_special(codes: bytes) -> int:
    """Return the index of the first ``_CLEAR`` or ``_END`` among codes of 16 bits, or the number of codes."""
    # Codes end below the surrogates, so they are text in UTF-16, which is searched 10 times as fast as a list.
    text = codes.decode("utf-16-le")
    found = (text.find(chr(special)) for special in (_CLEAR, _END))
    return min((index for index in found if index >= 0), default=len(text))


class LzwDecoder:
    """Decodes one stream; holds at most 20 MiB, whatever it is fed.

    Args:
        key: Key of the object, for messages.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._packed = b""
        self._bit = 0
        self._ended = False
        self._table = list(_EMPTY_TABLE)
        self._previous = b""

    def feed(self, data: Buffer) -> Iterator[Buffer]:
        """Take the next piece; give what it decodes to, in pieces of at most ``MAX_PIECE`` bytes.

        Raises:
            MalformedContent: a code that names no entry, or data after the end.
        """
        for part in slices(data, _SLICE):
            self._packed = self._packed[self._bit // 8 :] + part
            self._bit %= 8
            yield from pieces(self._batches())
            if self._ended and len(self._packed) > (self._bit + 7) // 8:
                raise MalformedContent("goes on after the end of its compressed stream", key=self._key)

    def finish(self) -> None:
        """Say that the input has ended.

        Raises:
            TruncatedObject: the code that ends the stream is missing.
        """
        if not self._ended:
            raise TruncatedObject("ends before its compressed stream does", key=self._key)

    def _batches(self) -> Iterator[bytes]:
        """Decode, batch by batch of codes of one width, as much as there is."""
        while not self._ended:
            added = len(self._table)
            width = min(max(_MIN_WIDTH, added.bit_length()), _MAX_WIDTH)
            same_width = (1 << width) - added if added < _FULL else _BATCH
            count = min(_BATCH, same_width, (8 * len(self._packed) - self._bit) // width)
            if count < 1:
                return
            codes = _unpack(self._packed, self._bit, width, count)
            plain = _first_special(codes)
            yield self._expand(struct.unpack_from(f"<{plain}H", codes))
            self._bit += min(plain + 1, count) * width
            if plain < count:
                self._ended = struct.unpack_from("<H", codes, 2 * plain) == (_END,)
                self._table, self._previous = list(_EMPTY_TABLE), b""

    def _expand(self, codes: Sequence[int]) -> bytes:
        """Return the bytes that codes stand for, and add the entries that they make."""
        table = self._table
        if len(table) < _FULL:
            previous = self._previous
            for code in codes:
                try:
                    entry = table[code]
                except IndexError:
                    if code > len(table):
                        raise MalformedContent(
                            f"cannot be decompressed: code {code} of {len(table)}", key=self._key
                        ) from None
                    entry = previous + previous[:1]
                table.append(previous + entry[:1])
                previous = entry
            self._previous = previous
        return b"".join(map(table.__getitem__, codes))
