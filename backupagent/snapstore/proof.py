"""Whether a snapshot's bytes are whole, found out while they pass."""

import hashlib

from backupagent.codecs import codec_for_suffix
from backupagent.errors import ChecksumMismatch, TruncatedObject
from backupagent.model.manifest import Manifest
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
        even_slow: Also decompress what cannot be decompressed beside a copy (LZW).
    """

    def __init__(
        self, stored: StoredSnapshot, manifest: Manifest | None, *, trailer: bool = True, even_slow: bool = False
    ) -> None:
        self._stored = stored
        self._manifest = manifest
        self._size = 0
        known = manifest is not None and manifest.stored_sha256 is not None
        codec = codec_for_suffix(stored.snapshot.suffix, stored.key)
        decode = trailer and not known and (even_slow or not codec.slow)
        self._trailer = TrailerCheck(stored.snapshot.kind, stored.key) if decode else None
        # Uncompressed content gives both digests in one pass.
        self._decoder = codec.decoder(stored.key) if decode and codec.suffix else None
        self._sha = hashlib.sha256() if not decode or codec.suffix else None
        self.content: ContentDigest | None = None
        self.stored_sha256 = ""
        self.checked = decode or (trailer and known)

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
        key = self._stored.key
        expected = self._manifest
        if expected is not None and expected.stored_bytes is not None and expected.stored_bytes != self._size:
            message = f"{self._size} bytes, its manifest says {expected.stored_bytes}"
            raise TruncatedObject(message, key=key)
        if self._trailer is not None:
            if self._decoder is not None:
                self._decoder.finish()
            self.content = self._trailer.finish()
        self.stored_sha256 = self._sha.hexdigest() if self._sha is not None else self._whole_digest()
        if expected is not None and expected.stored_sha256 not in {None, self.stored_sha256}:
            message = f"sha256 of the object is {self.stored_sha256}, its manifest says {expected.stored_sha256}"
            raise ChecksumMismatch(message, key=key)

    def _whole_digest(self) -> str:
        assert self.content is not None, "without a hash of its own the trailer check gives it"  # noqa: S101
        return self.content.sha256_with_trailer
