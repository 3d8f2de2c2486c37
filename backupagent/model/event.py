"""Events of deltas, and deltas as bytes.

The format is the peer's: a JSON array without white space, field order and omitted zero values as Go's
``encoding/json`` writes etcd's ``mvccpb`` structs, bytes as standard base64. Source: etcd-backup-restore,
pkg/types/restorer.go and pkg/snapshot/snapshotter/snapshotter.go at debd95b; samples in ``tests/golden``.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec

from backupagent.errors import MalformedContent

PUT = 0
DELETE = 1


class KeyValue(msgspec.Struct, omit_defaults=True, gc=False):
    """One key at one revision; the field names are the format's.

    Attributes:
        key: The key.
        create_revision: Revision at which the key came to be; 0 in a deletion.
        mod_revision: Revision of this event.
        version: Number of changes since the key came to be; 0 in a deletion.
        value: The value.
        lease: Id of the attached lease, signed; 0 for none.
    """

    key: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
    value: bytes = b""
    lease: int = 0


class Change(msgspec.Struct, omit_defaults=True, gc=False):
    """What happened to the key.

    Attributes:
        type: ``PUT`` or ``DELETE``.
        kv: The key and its new state.
    """

    type: int = PUT
    kv: KeyValue = msgspec.field(default_factory=KeyValue)


class Event(msgspec.Struct, gc=False):
    """A change, and when the agent saw it.

    Attributes:
        etcdEvent: The change.
        time: RFC 3339 with up to nine digits of a second.
    """

    etcdEvent: Change  # noqa: N815 - the format's name
    time: str = ""


_encoder = msgspec.json.Encoder()
_decode_events = msgspec.json.Decoder(list[Event]).decode

_SEPARATOR = b',{"etcdEvent":'
"""Between two events. Cannot occur inside one: payloads are base64, the time has no quote."""

MAX_EVENT_SIZE = 256 * 1024 * 1024
"""Bytes of JSON without a separator that are accepted; bounds the memory that a hostile delta can take.

etcd refuses requests above 1.5 MiB by default and deltas of peers were seen with 50 MB transactions, which are
many events; a single event is bounded by etcd's largest request.
"""


def encode_event(event: Event) -> bytes:
    """Write one event as the peer does."""
    return _encoder.encode(event)


def encode_events(events: list[Event]) -> bytes:
    """Write events as they stand in a delta: separated by commas, without the brackets of the array."""
    return _encoder.encode(events)[1:-1]


def format_time(moment: datetime) -> str:
    """Write a time of day, UTC, as Go's RFC3339Nano: trailing zeros of the fraction are dropped."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{moment.microsecond:06d}".rstrip("0") if moment.microsecond else ""
    return f"{text}{fraction}Z"


def decode_events(pieces: Iterable[memoryview | bytes], key: str) -> Iterator[list[Event]]:
    """Read the JSON of a delta, without its trailer, in bounded memory.

    Args:
        pieces: The JSON, cut anywhere.
        key: The object, for messages.

    Yields:
        Events in order, about as many at a time as a piece holds.

    Raises:
        MalformedContent: not the JSON of a delta.
    """
    buffer = bytearray()
    searched = 1
    for piece in pieces:
        buffer += piece
        cut = buffer.rfind(_SEPARATOR, max(1, searched - len(_SEPARATOR)))
        searched = len(buffer)
        if cut > 0:
            buffer[cut] = ord("]")
            yield _decode(memoryview(buffer)[: cut + 1], key)
            rest = buffer[cut:]
            rest[0] = ord("[")
            buffer, searched = rest, 1
        elif len(buffer) > MAX_EVENT_SIZE:
            message = f"an event of more than {MAX_EVENT_SIZE} bytes"
            raise MalformedContent(message, key=key)
    yield _decode(buffer, key)


def _decode(text: bytearray | memoryview, key: str) -> list[Event]:
    try:
        return _decode_events(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:  # it passes the last two on
        message = f"not the JSON of a delta: {error}"
        raise MalformedContent(message, key=key) from error
