"""One snapshot on its way from store to store: what is known about it, and the proof that grows while it passes."""

from collections.abc import Iterable
from typing import Any

import msgspec

from backupagent.errors import IntegrityError
from backupagent.model.manifest import FORMAT, Manifest, SourceObject
from backupagent.model.snapshot import StoredSnapshot
from backupagent.model.trailer import TRAILER_SIZE
from backupagent.snapstore import SnapshotProof
from backupagent.snapstore.proof import check_stored_size
from backupagent.transfer.items import ByStore


class Passage:
    """Inspects a snapshot while it is copied. It is begun when its manifest, or that there is none, is known.

    Args:
        stored: The snapshot in the source.
        target_name: Its name in the target.
        trailer: Whether to check the content; see ``SnapshotProof``.

    Attributes:
        replaces: Whether the target has another object of that name.
        by_store: How the target copies it by itself; None when its bytes go through here.
    """

    def __init__(self, stored: StoredSnapshot, target_name: str, *, trailer: bool) -> None:
        self.stored = stored
        self.target_name = target_name
        self._trailer = trailer
        self._known: Manifest | None = None
        self._proof: SnapshotProof | None = None
        self.replaces = False
        self._agreed: bool | None = None
        self.by_store: ByStore | None = None

    @property
    def begun(self) -> bool:
        """Whether it is known what the source says."""
        return self._proof is not None

    def begin(self, known: Manifest | None) -> None:
        """Take what the source says.

        Raises:
            MalformedContent: no codec reads the snapshot.
        """
        self._known = known
        self._proof = SnapshotProof(self.stored, known, trailer=self._trailer)

    def pass_unseen(self) -> None:
        """Compare what can be compared without seeing a byte.

        Raises:
            TruncatedObject: it is smaller than its manifest says.
            ChecksumMismatch: it is larger.
        """
        if self._known is not None:
            check_stored_size(self.stored, self._known, self.stored.size)

    def copied_by_store(self, *, agreed: bool) -> None:
        """Take note that the store copied it, and whether its digests of source and copy are the same."""
        self._agreed = agreed

    def read_back(self, pieces: Iterable[memoryview]) -> IntegrityError | None:
        """Look at all that the target holds of a snapshot that passed unseen; return what is wrong with it."""
        fault: IntegrityError | None = None
        for piece in pieces:
            try:
                if fault is None:
                    self.update(piece)
            except IntegrityError as error:
                fault = error
        try:
            if fault is None:
                self.finish()
        except IntegrityError as error:
            fault = error
        self._agreed = None
        return fault

    def update(self, data: memoryview) -> None:
        """Look at the next stored bytes; see ``SnapshotProof``."""
        self._begun.update(data)

    def finish(self) -> None:
        """Compare; see ``SnapshotProof``."""
        self._begun.finish()

    @property
    def unseen(self) -> bool:
        """Whether the store copied it, and nobody has read it since."""
        return self._agreed is not None

    @property
    def checked(self) -> bool:
        """Whether more than the transfer of the bytes was checked."""
        return self._begun.checked if self._agreed is None else self._agreed and self._trailer

    @property
    def stored_sha256(self) -> str:
        """Digest of the stored bytes that passed, hex."""
        return self._begun.stored_sha256

    def manifest(self) -> Manifest:
        """Describe the copy: what the source's manifest says, what was seen, and where it came from."""
        stored = self.stored
        known = self._known or _from_name(stored)
        changes: dict[str, Any] = {
            "name": self.target_name,
            "final": False,
            "final_at_source": stored.snapshot.final or known.final_at_source,
            "source": SourceObject(stored.size, stored.etag),
            "stored_bytes": stored.size,
            "stored_sha256": (known.stored_sha256 if self._agreed else None) if self.unseen else self.stored_sha256,
        }
        content = self._begun.content
        if content is not None:
            changes |= {"sha256": content.sha256, "bytes": content.size - TRAILER_SIZE}
        return msgspec.structs.replace(known, **changes)

    @property
    def _begun(self) -> SnapshotProof:
        assert self._proof is not None, "bytes come after what the source says of them"  # noqa: S101 - own invariant
        return self._proof


def _from_name(stored: StoredSnapshot) -> Manifest:
    snapshot = stored.snapshot
    return Manifest(
        format=FORMAT, name=stored.name, kind=snapshot.kind.value, final=snapshot.final, start_revision=snapshot.start
    )
