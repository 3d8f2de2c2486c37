"""Writes LZW as Go's compress/lzw does, byte for byte: the product only reads it, its tests need any content.

Source: Go 1.26, src/compress/lzw/writer.go, with least significant bit first and literals of 8 bits.
"""

_CLEAR = 256
_END = 257
_FULL = 4095
"""Number of the entry that is never made: the table is emptied instead."""


def compress_lzw(content: bytes) -> bytes:
    """Return ``content`` compressed."""
    packed = _CodeWriter()
    packed.write(_CLEAR)
    table: dict[tuple[int, int], int] = {}
    code: int | None = None
    for byte in content:
        if code is None:
            code = byte
            continue
        known = table.get((code, byte))
        if known is not None:
            code = known
            continue
        packed.write(code)
        if packed.count():
            table[code, byte] = packed.added
        else:
            table.clear()
        code = byte
    if code is not None:
        packed.write(code)
        packed.count()
    packed.write(_END)
    return packed.finished()


class _CodeWriter:
    """Packs codes, and knows how wide they are."""

    def __init__(self) -> None:
        self.added = _END
        self._width = 9
        self._bits = 0
        self._bit_count = 0
        self._packed = bytearray()

    def write(self, code: int) -> None:
        self._bits |= code << self._bit_count
        self._bit_count += self._width
        while self._bit_count >= 8:  # noqa: PLR2004 - bits of a byte
            self._packed.append(self._bits & 0xFF)
            self._bits >>= 8
            self._bit_count -= 8

    def count(self) -> bool:
        """Count the entry that a code makes; False when that empties the table."""
        self.added += 1
        if self.added == 1 << self._width:
            self._width += 1
        if self.added < _FULL:
            return True
        self.write(_CLEAR)
        self.added, self._width = _END, 9
        return False

    def finished(self) -> bytes:
        return bytes(self._packed) + (bytes((self._bits,)) if self._bit_count else b"")
