"""What a sidecar tells about the restore that it made: one annotation on its member's Lease."""

import msgspec

from backupagent.errors import MalformedContent

ANNOTATION = "backupagent.io/restored"
"""Key of the annotation; its value is a ``Restored`` as JSON."""

MAX_SIZE = 4096
"""Longest value that is read, bytes: it comes from a cluster that others write to."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """A data directory that was restored, as its restore reported it.

    Attributes:
        revision: Its last revision.
        hash_kv: HashKV at that revision.
        compact_revision: The compact revision that ``hash_kv`` belongs to; -1 when never compacted.
        full: Name of the full snapshot that it was made from.
        deltas: How many deltas followed.
        matches_manifest: Whether the full's recorded HashKV was found again; None when none is recorded.
        seconds: How long the restore took.
        at: When it had ended, RFC 3339, UTC.
    """

    revision: int
    hash_kv: int
    compact_revision: int
    full: str
    deltas: int
    matches_manifest: bool | None
    seconds: float
    at: str


_decoder = msgspec.json.Decoder(Restored)


def encode_restored(restored: Restored) -> str:
    """Write the annotation's value."""
    return msgspec.json.encode(restored).decode()


def decode_restored(text: str, where: str) -> Restored:
    """Read the annotation's value; fields that this version does not know are ignored.

    Args:
        text: The value.
        where: The Lease, for messages.

    Raises:
        MalformedContent: it is none.
    """
    try:
        if len(text) > MAX_SIZE:
            raise msgspec.ValidationError(f"{len(text)} characters")
        return _decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise MalformedContent(
            f"its annotation {ANNOTATION} cannot be read: {error}",
            key=where,
            hint="another program wrote it; remove the annotation and restart the sidecar",
        ) from error
