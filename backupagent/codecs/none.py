"""No compression: what is fed is given on as views, never copied.

The format knows neither an end nor a check sum: only a snapshot's sha256 trailer shows that it was cut or changed.
"""

from collections.abc import Iterator

from backupagent.codecs.base import MAX_PIECE, Buffer
from backupagent.codecs.slicing import slices


class PlainEncoder:
    """Gives on what it is fed.

    Args:
        threads: Not used.
    """

    def __init__(self, threads: int) -> None:
        del threads

    def feed(self, data: Buffer) -> Iterator[Buffer]:
        """Give ``data`` on, in pieces of at most ``MAX_PIECE`` bytes that are views of it."""
        yield from slices(data, MAX_PIECE)

    def finish(self) -> Iterator[Buffer]:
        """Give nothing: nothing is held back."""
        yield from ()

    def close(self) -> None:
        """Do nothing: there is no thread."""


class PlainDecoder:
    """Gives on what it is fed.

    Args:
        key: Not used: nothing can be wrong.
    """

    def __init__(self, key: str) -> None:
        del key

    def feed(self, data: Buffer) -> Iterator[Buffer]:
        """Give ``data`` on, in pieces of at most ``MAX_PIECE`` bytes that are views of it."""
        yield from slices(data, MAX_PIECE)

    def finish(self) -> None:
        """Accept the end, wherever it is."""
