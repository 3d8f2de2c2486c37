"""What every compression can do, as streams in bounded memory.

Encoders and decoders are fed pieces and give pieces; whoever drives them decides where bytes come from and go.
Neither is thread-safe; what they give is valid until the next call.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

MAX_PIECE = 1024 * 1024
"""Bytes at most in one piece that a decoder gives, however much a hostile input would inflate to."""


class Encoder(Protocol):
    """Compresses one stream."""

    def feed(self, data: Buffer) -> Iterator[Buffer]:
        """Take the next piece; give what is ready. ``data`` is not kept after the iterator is exhausted."""
        ...

    def finish(self) -> Iterator[Buffer]:
        """Give the rest; the encoder is not used afterwards."""
        ...

    def close(self) -> None:
        """Give threads back, also when the stream was given up; harmless when repeated."""
        ...


class Decoder(Protocol):
    """Decompresses one stream."""

    def feed(self, data: Buffer) -> Iterator[Buffer]:
        """Take the next piece; give what it decodes to, in pieces of at most ``MAX_PIECE`` bytes.

        The iterator must be exhausted before the next call; ``data`` is not kept afterwards.

        Raises:
            MalformedContent: not a stream of this compression, or its check sum is wrong.
        """
        ...

    def finish(self) -> None:
        """Say that the input has ended.

        Raises:
            TruncatedObject: the stream goes on.
        """
        ...


@dataclass(frozen=True)
class Codec:
    """One row of the table of compressions.

    Attributes:
        name: As on the command line, e.g. ``gzip``.
        suffix: Of snapshot names, with its dot; empty for none.
        encoder: Makes an encoder, or None when the compression is only read. Takes the number of threads.
        decoder: Makes a decoder. Takes the key of the object, for messages.
        peer_reads: Whether etcd-backup-restore can read it.
        slow: Whether decoding is too slow to be done beside a copy.
    """

    name: str
    suffix: str
    encoder: Callable[[int], Encoder] | None
    decoder: Callable[[str], Decoder]
    peer_reads: bool = True
    slow: bool = False
