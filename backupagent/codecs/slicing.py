"""Cuts and joins what passes, so that no codec meets or gives more at once than its memory allows."""

from collections.abc import Iterable, Iterator

from backupagent.codecs.base import MAX_PIECE, Buffer
from backupagent.units import KiB

_WORTH_GIVING = 256 * KiB
"""Bytes from which on a piece is given: its way through digests and queues costs as much for one byte."""


def slices(data: Buffer, size: int) -> Iterator[memoryview]:
    """Give ``data`` in views of at most ``size`` bytes, in order and without copying."""
    view = memoryview(data)
    for start in range(0, len(view), size):
        yield view[start : start + size]


def pieces(parts: Iterable[bytes]) -> Iterator[memoryview]:
    """Join parts that are small and cut those that are large: no piece has more than ``MAX_PIECE`` bytes."""
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= _WORTH_GIVING:
            joined = b"".join(waiting)
            waiting, size = [], 0
            yield from slices(joined, MAX_PIECE)
    yield from slices(b"".join(waiting), MAX_PIECE)
