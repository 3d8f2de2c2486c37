"""One object that arrives in parts, begun when its first part comes and taken up again after a kill."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from isal import isal_zlib

from backupagent import failpoints
from backupagent.clock import Clock
from backupagent.errors import AccessDenied, BackupAgentError, ObjectNotFound
from backupagent.stores.base import CopySource, ObjectInfo, ObjectStore, PartTag, Upload
from backupagent.transfer.journal import UploadJournal
from backupagent.transfer.plan import Part

ALIVE_EVERY_S = 3600.0
"""How often an upload that goes on is written down again: ``gc`` takes one without a sign of life for dead."""


@dataclass(frozen=True)
class PartedObject:
    """An object that is written in parts.

    Attributes:
        key: Its key.
        part_size: Bytes of every part but the last.
        journal_name: Name of its entry in the journal.
        copied: Whether the store copies the parts by itself.
    """

    key: str
    part_size: int
    journal_name: str
    copied: bool = False


class PartTarget:
    """Writes parts of one object, several threads at a time.

    Args:
        store: The target.
        parted: The object.
        journal: Where the upload is remembered.
        clock: For the journal.
        trouble: Counts the requests that had to be made again: one of them may have begun an upload whose name got
            lost with the answer.

    Attributes:
        reread: Bytes of parts that the target held from an earlier run.
    """

    def __init__(
        self,
        store: ObjectStore,
        parted: PartedObject,
        journal: UploadJournal,
        clock: Clock,
        *,
        trouble: Callable[[], int] = lambda: 0,
    ) -> None:
        self._store = store
        self._parted = parted
        self._journal = journal
        self._clock = clock
        self._trouble = trouble
        self._lock = threading.Lock()
        self._upload: Upload | None = None
        self._failure: BaseException | None = None
        self._held: dict[int, PartTag] = {}
        self._tags: dict[int, PartTag] = {}
        self._remembered_s = 0.0
        self.reread = 0

    def in_order(self) -> bool:
        """Whether the parts must be written one after the other, from the first to the last."""
        return self._begin().in_order

    def write(self, number: int, data: memoryview) -> None:
        """Write a part, unless the target holds the very same bytes from an earlier run.

        Args:
            number: From 1.
            data: Its bytes.
        """
        upload = self._begin()
        held = self._held.get(number)
        if held is not None and held.size != len(data):
            held = None
        if held is not None and held.crc32 == isal_zlib.crc32(data):
            tag, reread = held, held.size
        else:
            tag = self._store.upload_part(upload, number, data)
            reread = held.size if held is not None and upload.in_order else 0  # the store did not send it again
        with self._lock:
            self._tags[number] = tag
            self.reread += reread
            if self._clock.monotonic_s() - self._remembered_s >= ALIVE_EVERY_S:
                self._remember(upload)

    def copy(self, part: Part, source: CopySource) -> int:
        """Let the store copy a part, unless it holds one of that size from an earlier run.

        Such a part is of the same source object: the journal's entry is named by it. The digest of the whole is
        compared in the end.

        Returns:
            Bytes that were copied now.
        """
        upload = self._begin()
        held = self._held.get(part.number)
        if held is not None and held.size == part.size:
            tag, copied = held, 0
        else:
            tag = self._store.copy_part(upload, part.number, source, offset=part.offset, size=part.size)
            copied = part.size
        with self._lock:
            self._tags[part.number] = tag
        return copied

    def complete(self) -> ObjectInfo:
        """Make the object visible and forget the upload; called when every part was written."""
        info = self._store.complete_upload(self._begin(), [self._tags[number] for number in sorted(self._tags)])
        self._journal.forget(self._parted.journal_name)
        return info

    def abandon(self, *, earlier: bool = True) -> None:
        """Throw away what this run or an earlier one uploaded: the object must not come to be.

        Called when no part is on its way any more: a store may keep one that lands after its upload was aborted.

        Args:
            earlier: Also what an earlier run uploaded, and this one did not take up.
        """
        upload = self._upload or (self._recall() if earlier else None)
        if upload is not None:
            if upload.id:
                self._store.abort_upload(upload)
            else:
                self._abort_unknown()
            self._journal.forget(self._parted.journal_name)

    def _begin(self) -> Upload:
        """Return the open upload, taken up or begun by whoever comes first."""
        with self._lock:
            if self._failure is not None:  # the others who wait here do not try, and retry, one after the other
                raise self._failure
            if self._upload is None:
                try:
                    self._upload = self._take_up() or self._begin_anew()
                except BaseException as error:
                    self._failure = error
                    raise
            return self._upload

    def _recall(self) -> Upload | None:
        upload = self._journal.recall(self._parted.journal_name)
        return upload if upload is not None and upload.key == self._parted.key else None

    def _take_up(self) -> Upload | None:
        upload = self._recall()
        if upload is None:
            return None
        if not upload.id:
            self._abort_unknown()
            return None
        if (upload.part_size, upload.copied) != (self._parted.part_size, self._parted.copied):
            self._store.abort_upload(upload)
            return None
        try:
            self._held = {tag.number: tag for tag in self._store.list_parts(upload)}
        except ObjectNotFound:
            return None
        self._remember(upload)
        return upload

    def _remember(self, upload: Upload) -> None:
        self._remembered_s = self._clock.monotonic_s()
        self._journal.remember(self._parted.journal_name, upload, now_s=self._clock.now().timestamp())

    def _begin_anew(self) -> Upload:
        parted = self._parted
        self._remember(Upload(parted.key, "", parted.part_size, copied=parted.copied))
        troubles = self._trouble()
        try:
            upload = self._store.begin_upload(parted.key, part_size=parted.part_size, copied=parted.copied)
        except BackupAgentError as error:
            if not error.retryable:  # else it may have been begun all the same
                with contextlib.suppress(BackupAgentError):
                    self._journal.forget(self._parted.journal_name)
            raise
        try:
            failpoints.hit("transfer.begun")
            self._remember(upload)
            if self._trouble() != troubles:
                self._abort_unknown()
        except BaseException as error:
            try:
                self._store.abort_upload(upload)  # nobody would find it again
            except BackupAgentError as second:
                error.add_note(f"an upload of {upload.key} stays open: {second}")
            raise
        return upload

    def _abort_unknown(self) -> None:
        """Throw away uploads of this object that no entry names: one that was begun, and whose name got lost.

        Where the uploads may not be listed, a lifecycle rule of the bucket has to remove them.
        """
        with contextlib.suppress(AccessDenied):
            uploads = self._store.list_uploads(self._parted.key)
            remembered = self._journal.uploads()  # afterwards: somebody else may just have begun one
            for upload in uploads:
                if upload.key == self._parted.key and (upload.key, upload.id) not in remembered:
                    self._store.abort_upload(upload)
