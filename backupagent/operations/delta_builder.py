"""One delta in the making: events in, a compressed object out, in the memory of that object."""

import hashlib
from dataclasses import dataclass

from backupagent.codecs.base import Codec
from backupagent.errors import ConfigError
from backupagent.model.event import Event, encode_events


@dataclass(frozen=True)
class BuiltDelta:
    """A finished delta.

    Attributes:
        data: The object.
        first: First revision.
        last: Last revision.
        events: How many events.
        content_size: JSON without its trailer, bytes.
        sha256: Of the JSON, hex.
        stored_sha256: Of the object, hex.
        leases: Ids of the leases that its events name.
    """

    data: bytes
    first: int
    last: int
    events: int
    content_size: int
    sha256: str
    stored_sha256: str
    leases: frozenset[int]


class DeltaBuilder:
    """Encodes, hashes and compresses events as they come.

    Args:
        codec: How to compress.
    """

    def __init__(self, codec: Codec) -> None:
        if codec.encoder is None:
            raise ConfigError(f"{codec.name} can only be read", hint="use --compression gzip")
        self._encoder = codec.encoder(1)
        self._sha = hashlib.sha256()
        self._pieces: list[bytes] = []
        self._first = 0
        self._last = 0
        self._events = 0
        self._leases: set[int] = set()
        self.content_size = 0

    def add(self, events: list[Event]) -> None:
        """Append events.

        Args:
            events: Of whole revisions, in order, at least one.
        """
        if not self._events:
            self._first = events[0].etcdEvent.kv.mod_revision
        self._last = events[-1].etcdEvent.kv.mod_revision
        self._leases.update(event.etcdEvent.kv.lease for event in events)
        text = encode_events(events)
        self._write((b"," if self._events else b"[") + text)
        self._events += len(events)

    def finish(self) -> BuiltDelta:
        """Close the JSON array, append its digest, and return the object."""
        self._write(b"]")
        sha256 = self._sha.hexdigest()
        self._compress(self._sha.digest())
        self._pieces.extend(bytes(piece) for piece in self._encoder.finish())
        self._encoder.close()
        data = b"".join(self._pieces)
        return BuiltDelta(
            data=data,
            first=self._first,
            last=self._last,
            events=self._events,
            content_size=self.content_size,
            sha256=sha256,
            stored_sha256=hashlib.sha256(data).hexdigest(),
            leases=frozenset(self._leases - {0}),
        )

    def _write(self, text: bytes) -> None:
        self._sha.update(text)
        self.content_size += len(text)
        self._compress(text)

    def _compress(self, data: bytes) -> None:
        self._pieces.extend(bytes(piece) for piece in self._encoder.feed(data))
