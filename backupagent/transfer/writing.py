"""A stream of unknown length into one object, its parts uploaded while it is still coming."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from backupagent import failpoints
from backupagent.errors import BackupAgentError, ConfigError
from backupagent.stores.base import Buffer, ObjectInfo, ObjectStore, PartTag, Upload
from backupagent.transfer.buffers import BufferPool
from backupagent.transfer.context import LOOK_S, Transfer
from backupagent.transfer.crew import crew
from backupagent.transfer.journal import UploadJournal
from backupagent.transfer.plan import fitting_part_size

STREAM_MARKER = "stream-"
"""Journal entries of streams begin with it: they cannot be taken up, only thrown away."""


class ObjectWriter:
    """Takes bytes, cuts them into parts, uploads several at a time. Written to by one thread.

    Make it with ``open_writer``. Nothing is visible before ``complete``.
    """

    def __init__(self, store: ObjectStore, key: str, journal: UploadJournal, transfer: Transfer) -> None:
        self._store = store
        self._key = key
        self._journal = journal
        self._journal_name = ""
        self._transfer = transfer
        settings = transfer.settings
        self._part_size = fitting_part_size(0, part_size=settings.part_size, limits=store.limits)
        self._buffers = BufferPool(settings.buffers_size)
        self._buffer: bytearray | None = None
        self._filled = 0
        self._sha = hashlib.sha256()
        self._upload: Upload | None = None
        self._queued: list[tuple[Upload, int, bytearray, int]] = []
        self._sending = 0
        self._tags: list[PartTag] = []
        self._count = 0
        self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self.size = 0

    def write(self, data: Buffer) -> None:
        """Take the next bytes; they are not kept after the call.

        Raises:
            BackupAgentError: an upload of an earlier part failed.
            Cancelled: the transfer's token was set.
        """
        view = memoryview(data)
        self._sha.update(view)
        self.size += len(view)
        while view:
            if self._buffer is not None and self._filled == self._part_size:  # and more comes: it is not the last
                self._send(self._buffer)
            if self._buffer is None:
                self._buffer = self._acquire()
            taken = min(len(view), self._part_size - self._filled)
            self._buffer[self._filled : self._filled + taken] = view[:taken]
            self._filled += taken
            view = view[taken:]

    def complete(self, failpoint: str) -> ObjectInfo:
        """Make the object visible.

        Args:
            failpoint: Passed when everything is uploaded and nothing visible yet.

        Returns:
            The object.

        Raises:
            BackupAgentError: an upload failed.
            Cancelled: the transfer's token was set.
        """
        self._raise_error()
        if self._ended:
            raise ValueError("complete after the end")
        if self._upload is None:
            failpoints.hit(failpoint)
            self._transfer.cancel.raise_if_set()
            with memoryview(self._buffer or b"") as view:
                info = self._store.put(self._key, view[: self._filled])
            self._transfer.progress.add(self._filled)
        else:
            self._finish_parts()
            failpoints.hit(failpoint)
            self._transfer.cancel.raise_if_set()
            info = self._store.complete_upload(self._upload, sorted(self._tags, key=lambda tag: tag.number))
            self._journal.forget(self._journal_name)
            self._upload = None
        self.end()
        return info

    @property
    def sha256(self) -> str:
        """Digest of what was written so far, hex."""
        return self._sha.hexdigest()

    # ---- the writing thread

    def _acquire(self) -> bytearray:
        while True:
            self._raise_error()
            self._transfer.cancel.raise_if_set()
            if self._ended:
                raise ValueError("write after the end")
            buffer = self._buffers.acquire(self._part_size, timeout_s=LOOK_S)
            if buffer is not None:
                return buffer

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _send(self, buffer: bytearray) -> None:
        """Hand the filled buffer to the workers; begins the upload with the first part."""
        limit = self._store.limits.max_parts
        if self._count == limit:
            message = f"the stream has more than {limit} parts of {self._part_size} bytes"
            raise ConfigError(message, hint="use a larger --part-size")
        upload = self._upload or self._begin()
        self._count += 1
        with self._changed:
            self._queued.append((upload, self._count, buffer, self._filled))
            self._buffer, self._filled = None, 0
            self._changed.notify_all()

    def _begin(self) -> Upload:
        upload = self._store.begin_upload(self._key, part_size=self._part_size)
        # A name of its own: an entry that a killed run left for the same key is not lost.
        identity = f"{self._key}\n{upload.id}"
        self._journal_name = STREAM_MARKER + hashlib.sha256(identity.encode()).hexdigest()
        self._upload = upload
        self._journal.remember(self._journal_name, upload, now_s=self._transfer.clock.now().timestamp())
        return upload

    def _finish_parts(self) -> None:
        """Send the last part and wait until the store has taken all of them."""
        assert self._buffer is not None, "a part is sent only when more bytes have come"  # noqa: S101 - own invariant
        self._send(self._buffer)
        with self._changed:
            while not self._changed.wait_for(lambda: self._error or len(self._tags) == self._count, timeout=LOOK_S):
                self._transfer.cancel.raise_if_set()
        self._raise_error()

    def abort(self) -> None:
        """Throw away what was uploaded; harmless after ``complete``."""
        if self._upload is not None:
            upload, self._upload = self._upload, None
            self._store.abort_upload(upload)
            self._journal.forget(self._journal_name)

    def end(self) -> None:
        """Make the workers return."""
        with self._changed:
            self._ended = True
            self._queued.clear()
            self._buffer, self._filled = None, 0
            self._changed.notify_all()
        self._buffers.close()

    def fail(self, error: BaseException) -> None:
        """Keep the first error, for whoever writes the stream, and begin no more parts."""
        with self._changed:
            self._error = self._error or error
            self._queued.clear()
            self._changed.notify_all()
        self._buffers.close()

    # ---- worker threads

    def work(self) -> None:
        """Upload parts until the end; run by the crew."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._may_send())
                if self._ended:
                    return
                upload, number, buffer, filled = self._queued.pop(0)
                self._sending += 1
            failpoints.hit("transfer.part")
            with memoryview(buffer) as view:
                tag = self._store.upload_part(upload, number, view[:filled])
            self._transfer.progress.add(filled)
            with self._changed:
                self._sending -= 1
                self._tags.append(tag)
                self._changed.notify_all()
            self._buffers.release(buffer)

    def _may_send(self) -> bool:
        """Whether a part waits, and for nothing but a worker."""
        return bool(self._queued) and not (self._sending and self._queued[0][0].in_order)


@contextmanager
def open_writer(store: ObjectStore, key: str, journal: UploadJournal, transfer: Transfer) -> Iterator[ObjectWriter]:
    """Write a stream into an object.

    A stream cannot be taken up again, so an upload that the block does not complete is thrown away.

    Args:
        store: The target.
        key: The object.
        journal: Remembers the upload, so that what a kill leaves open is found.
        transfer: Its progress counts bytes that the target has taken.

    Yields:
        The writer; call its ``complete`` inside the block.
    """
    writer = ObjectWriter(store, key, journal, transfer)
    try:
        with crew(transfer.settings.workers, writer.work, stop=writer.end, fail=writer.fail):
            yield writer
    except BaseException as error:
        try:
            writer.abort()
        except BackupAgentError as second:
            error.add_note(f"the upload stays open until the next run: {second}")
        raise
    writer.abort()
