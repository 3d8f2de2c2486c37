"""The content of snapshots as streams: decompressed, its digest checked, events of deltas decoded."""

import hashlib
from collections.abc import Iterable, Iterator

from backupagent.codecs import codec_for_suffix
from backupagent.errors import IntegrityError, NameMismatch, RevisionGap
from backupagent.model.event import Event, decode_events
from backupagent.model.manifest import Manifest
from backupagent.model.snapshot import StoredSnapshot
from backupagent.model.trailer import ContentDigest, TrailerCheck
from backupagent.snapstore.proof import check_stored_digest, check_stored_size


class ContentReader:
    """Decodes one snapshot.

    Args:
        stored: The snapshot.
        manifest: What is known about it; its digest is compared too.
    """

    def __init__(self, stored: StoredSnapshot, manifest: Manifest | None = None) -> None:
        self._stored = stored
        self._manifest = manifest
        self._stored_sha256: str | None = None
        self.digest: ContentDigest | None = None

    def pieces(self, stored_pieces: Iterable[memoryview]) -> Iterator[memoryview]:
        """Decode.

        Args:
            stored_pieces: The object's bytes in order.

        Yields:
            Content without its trailer, valid until the next piece. Nothing of it is proven before the last.

        Raises:
            TruncatedObject: bytes are missing.
            ChecksumMismatch: a byte was changed; where a manifest knows the object's digest, also when the content
                cannot be decoded any more.
            TrailerMissing: the content carries no digest.
            MalformedContent: it does not decompress.
        """
        if self._manifest is not None:
            check_stored_size(self._stored, self._manifest, self._stored.size)
            stored_pieces = self._hashed(stored_pieces)
        try:
            yield from self._decoded(stored_pieces)
        except IntegrityError:
            if self._manifest is not None:
                drain(stored_pieces)
                self._check_stored()
            raise
        self._check_stored()

    def _decoded(self, stored_pieces: Iterable[memoryview]) -> Iterator[memoryview]:
        key = self._stored.key
        decoder = codec_for_suffix(self._stored.snapshot.suffix, key).decoder(key)
        trailer = TrailerCheck(self._stored.snapshot.kind, key)
        for stored_piece in stored_pieces:
            for decoded in decoder.feed(stored_piece):
                yield from trailer.split(decoded)
        decoder.finish()
        self.digest = trailer.finish()

    def _hashed(self, stored_pieces: Iterable[memoryview]) -> Iterator[memoryview]:
        sha = hashlib.sha256()
        for piece in stored_pieces:
            sha.update(piece)
            yield piece
        self._stored_sha256 = sha.hexdigest()

    def _check_stored(self) -> None:
        """Compare the object with its manifest, if all of it was read."""
        if self._manifest is not None and self._stored_sha256 is not None:
            check_stored_digest(self._stored, self._manifest, self._stored_sha256)


def read_events(
    stored: StoredSnapshot, stored_pieces: Iterable[memoryview], manifest: Manifest | None = None
) -> Iterator[list[Event]]:
    """Decode a delta.

    Args:
        stored: The delta.
        stored_pieces: The object's bytes in order.
        manifest: What is known about it.

    Yields:
        Events in order, some at a time. Nothing of it is proven before the last.

    Raises:
        NameMismatch: the first or the last revision is not the name's.
        IntegrityError: see ``ContentReader.pieces``. When a changed byte makes the JSON or the revisions look
            wrong, the digest speaks first.
    """
    content = ContentReader(stored, manifest).pieces(stored_pieces)
    first = last = None
    try:
        for batch in decode_events(content, stored.key):
            if batch and first is None:
                first = batch[0].etcdEvent.kv.mod_revision
                _check_name(stored, "starts", first, stored.snapshot.start)
            if batch:
                last = batch[-1].etcdEvent.kv.mod_revision
                yield batch
        _check_name(stored, "ends", last, stored.snapshot.last)
    except IntegrityError:
        drain(content)
        raise


def _check_name(stored: StoredSnapshot, verb: str, inside: int | None, named: int) -> None:
    if inside != named:
        found = "holds no event" if inside is None else f"{verb} at revision {inside}"
        message = f"{found}, its name says {named}"
        raise NameMismatch(message, key=stored.key)


def check_snapshot(stored: StoredSnapshot, stored_pieces: Iterable[memoryview], manifest: Manifest | None) -> None:
    """Read a snapshot whole: its digests, and for a delta its name and that no revision is missing inside.

    Args:
        stored: The snapshot.
        stored_pieces: The object's bytes in order.
        manifest: What is known about it.

    Raises:
        IntegrityError: see ``ContentReader.pieces`` and ``read_events``; RevisionGap for a hole.
    """
    if stored.snapshot.is_full:
        drain(ContentReader(stored, manifest).pieces(stored_pieces))
        return
    last = stored.snapshot.start - 1
    events = read_events(stored, stored_pieces, manifest)
    try:
        for batch in events:
            last = check_contiguous(batch, last, stored.key)
    except IntegrityError:
        drain(events)
        raise


def drain(rest: Iterable[object]) -> None:
    """Read on to the end, so that the digest is compared before another error is reported."""
    for _item in rest:
        pass


def check_contiguous(batch: list[Event], after: int, key: str) -> int:
    """Refuse a hole between the revisions of events.

    Args:
        batch: Events in order.
        after: Revision of the event before the first one.
        key: The delta, for messages.

    Returns:
        Revision of the last event.

    Raises:
        RevisionGap: names the missing range.
    """
    for event in batch:
        revision = event.etcdEvent.kv.mod_revision
        if revision not in {after, after + 1}:
            message = f"revisions {after + 1} to {revision - 1} are missing inside"
            raise RevisionGap(message, key=key)
        after = revision
    return after
