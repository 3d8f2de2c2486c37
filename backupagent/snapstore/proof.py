"""Whether a snapshot's bytes are whole, found out while they pass."""

import hashlib

import msgspec

from backupagent.codecs import codec_for_suffix
from backupagent.codecs.base import Decoder
from backupagent.errors import ChecksumMismatch, TruncatedObject
from backupagent.model.manifest import Manifest, SourceObject
from backupagent.model.snapshot import StoredSnapshot
from backupagent.model.trailer import ContentDigest, TrailerCheck


class SnapshotProof:
    """Looks at the stored bytes of one snapshot in order.

    With a manifest the stored bytes are compared with its digest: they are then the very bytes that the writer
    made, whose trailer it had checked. Without one the content is decompressed and compared with its own
    trailer. ADR 0006 gives the reasons and the cost.

    Args:
        stored: The snapshot.
        manifest: What is known about it, if anything.
        trailer: Whether to check the content at all; otherwise the bytes are only hashed.

    Raises:
        MalformedContent: no codec reads the snapshot.
    """

    def __init__(self, stored: StoredSnapshot, manifest: Manifest | None, *, trailer: bool = True) -> None:
        self._stored = stored
        self._manifest = manifest
        self._size = 0
        self._trailer: TrailerCheck | None = None
        self._decoder: Decoder | None = None
        self.content: ContentDigest | None = None
        self.stored_sha256 = ""
        known = manifest is not None and manifest.stored_sha256 is not None
        if trailer and not known:
            codec = codec_for_suffix(stored.snapshot.suffix, stored.key)
            if not codec.slow:
                self._trailer = TrailerCheck(stored.snapshot.kind, stored.key)
                self._decoder = codec.decoder(stored.key) if codec.suffix else None
        # Uncompressed content gives both digests in one pass.
        plain = self._trailer is not None and self._decoder is None
        self._sha = None if plain else hashlib.sha256()
        self.checked = trailer and (known or self._trailer is not None)

    def update(self, data: memoryview) -> None:
        """Look at the next stored bytes.

        Raises:
            MalformedContent: they do not decompress.
        """
        self._size += len(data)
        if self._sha is not None:
            self._sha.update(data)
        if self._trailer is None:
            return
        if self._decoder is None:
            self._trailer.update(data)
            return
        for piece in self._decoder.feed(data):
            self._trailer.update(piece)

    def finish(self) -> None:
        """Compare; sets ``stored_sha256``, and ``content`` when the content was looked at.

        Raises:
            TruncatedObject: bytes are missing.
            ChecksumMismatch: a byte was changed.
            TrailerMissing: the content carries no digest.
            MalformedContent: it does not decompress.
        """
        if not self._size:
            raise TruncatedObject("it is empty", key=self._stored.key)
        if self._manifest is not None:
            check_stored_size(self._stored, self._manifest, self._size)
        if self._trailer is not None:
            if self._decoder is not None:
                self._decoder.finish()
            self.content = self._trailer.finish()
        self.stored_sha256 = self._sha.hexdigest() if self._sha is not None else self._whole_digest()
        if self._manifest is not None:
            check_stored_digest(self._stored, self._manifest, self.stored_sha256)

    def _whole_digest(self) -> str:
        assert self.content is not None, "without a hash of its own the trailer check gives it"  # noqa: S101
        return self.content.sha256_with_trailer


def check_stored_size(stored: StoredSnapshot, manifest: Manifest, size: int) -> None:
    """Compare the size of an object with what its manifest says, if it says any.

    Raises:
        TruncatedObject: it is smaller.
        ChecksumMismatch: it is larger.
    """
    recorded = manifest.stored_bytes
    if recorded is not None and recorded != size:
        error = TruncatedObject if size < recorded else ChecksumMismatch
        raise error(f"it has {size} bytes, its manifest says {recorded}", key=stored.key)


def check_stored_digest(stored: StoredSnapshot, manifest: Manifest, sha256: str) -> None:
    """Compare the digest of an object with what its manifest says, if it says any.

    Raises:
        ChecksumMismatch: it has another one.
    """
    if manifest.stored_sha256 not in {None, sha256}:
        message = f"sha256 of the object is {sha256}, its manifest says {manifest.stored_sha256}"
        raise ChecksumMismatch(message, key=stored.key)


def proves_copy(known: Manifest | None, there: StoredSnapshot, of: SourceObject, sha256: str | None) -> bool:
    """Whether a store is known to hold a copy of an object: by size, and a digest or the source's etag.

    Args:
        known: Manifest of the copy.
        there: The copy.
        of: The object that it must be a copy of; its etag is empty where its store has none.
        sha256: Of that object, hex; where it is not known of both, the etag has to do.
    """
    if known is None or there.size != of.size or known.stored_bytes != of.size:
        return False
    if sha256 is not None and known.stored_sha256 is not None:
        return known.stored_sha256 == sha256
    return bool(of.etag) and known.source == of


def renewed_manifest(known: Manifest, of_copy: Manifest) -> Manifest | None:
    """Bring the manifest of a copy up to date with what its source says now.

    Args:
        known: Manifest of the source.
        of_copy: Manifest of its copy, which was made when less was known.

    Returns:
        The new one; None when the old one says as much.
    """
    news = {
        name: value
        for name in known.__struct_fields__
        if (value := getattr(known, name)) is not None and getattr(of_copy, name) is None
    }
    if known.leases and not of_copy.leases:
        news["leases"] = known.leases
    return msgspec.structs.replace(of_copy, **news) if news else None
