"""One object that arrives in parts, begun when its first part comes and taken up again after a kill."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from isal import isal_zlib

from backupagent.clock import Clock
from backupagent.errors import ObjectNotFound
from backupagent.stores.base import ObjectInfo, ObjectStore, PartTag, Upload
from backupagent.transfer.journal import UploadJournal


@dataclass(frozen=True)
class PartedObject:
    """An object that is written in parts.

    Attributes:
        key: Its key.
        part_size: Bytes of every part but the last.
        metadata: Its metadata.
        journal_name: Name of its entry in the journal.
    """

    key: str
    part_size: int
    metadata: Mapping[str, str]
    journal_name: str


class PartTarget:
    """Writes parts of one object from several threads.

    Args:
        store: The target.
        parted: The object.
        journal: Where the upload is remembered.
        clock: For the journal.
    """

    def __init__(self, store: ObjectStore, parted: PartedObject, journal: UploadJournal, clock: Clock) -> None:
        self._store = store
        self._parted = parted
        self._journal = journal
        self._clock = clock
        self._lock = threading.Lock()
        self._upload: Upload | None = None
        self._abandoned = False
        self._held: dict[int, PartTag] = {}
        self._tags: dict[int, PartTag] = {}
        self.reread = 0

    def write(self, number: int, data: memoryview) -> None:
        """Write a part, unless the target holds the very same bytes from an earlier run.

        Args:
            number: From 1.
            data: Its bytes.
        """
        upload = self._begin()
        if upload is None:
            return
        held = self._held.get(number)
        same = (
            held is not None
            and held.size == len(data)
            and held.crc32 is not None
            and held.crc32 == isal_zlib.crc32(data)
        )
        try:
            tag = held if held is not None and same else self._store.upload_part(upload, number, data)
        except ObjectNotFound:
            if self._abandoned:  # by another thread, while this part was on its way
                return
            raise
        with self._lock:
            self._tags[number] = tag
            if same:
                self.reread += len(data)

    def complete(self) -> ObjectInfo:
        """Make the object visible and forget the upload."""
        upload = self._begin()
        assert upload is not None, "an abandoned object is not completed"  # noqa: S101 - the engine's own invariant
        info = self._store.complete_upload(upload, [self._tags[number] for number in sorted(self._tags)])
        self._journal.forget(self._parted.journal_name)
        return info

    def abandon(self) -> None:
        """Throw away what was uploaded: the object must not come to be."""
        with self._lock:
            self._abandoned = True
            upload, self._upload = self._upload, None
        if upload is not None:
            self._store.abort_upload(upload)
            self._journal.forget(self._parted.journal_name)

    def _begin(self) -> Upload | None:
        """Return the open upload, taken up or begun by whoever comes first; None after it was abandoned."""
        with self._lock:
            if self._upload is None and not self._abandoned:
                self._upload = self._take_up() or self._begin_anew()
            return self._upload

    def _take_up(self) -> Upload | None:
        upload = self._journal.recall(self._parted.journal_name)
        if upload is None:
            return None
        if upload.key != self._parted.key or upload.part_size != self._parted.part_size:
            self._store.abort_upload(upload)
            return None
        try:
            self._held = {tag.number: tag for tag in self._store.list_parts(upload)}
        except ObjectNotFound:
            return None
        return upload

    def _begin_anew(self) -> Upload:
        upload = self._store.begin_upload(
            self._parted.key, part_size=self._parted.part_size, metadata=self._parted.metadata
        )
        self._journal.remember(self._parted.journal_name, upload, now_s=self._clock.now().timestamp())
        return upload
