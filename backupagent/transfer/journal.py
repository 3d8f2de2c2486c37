"""Open uploads, remembered in the target so that the next run finds them.

A store cannot tell which source an open upload belongs to, so it is written down before the first part and
forgotten after the object is complete: one small JSON object for each upload. The entry is there before the upload
is begun, without its name, which only the store can give: so whoever is killed in between leaves a sign that an upload
may be open. Losing an entry costs an abandoned upload, never data.
"""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

import msgspec

from backupagent.errors import IntegrityError, MalformedContent, ObjectLocked, ObjectNotFound, TruncatedObject
from backupagent.stores.base import ObjectStore, Upload
from backupagent.stores.keys import fault_of_key

MAX_ENTRY_SIZE = 64 * 1024
"""Bytes; an entry has a few hundred."""

MAX_PID = 2**22
"""Largest process id. Source: PID_MAX_LIMIT in include/linux/threads.h of Linux 6.12."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One open upload.

    Attributes:
        key: The object that it becomes.
        upload: The store's name of the upload; empty as long as it is being begun.
        part_size: Bytes of every part but the last.
        began_s: When it was begun, seconds since 1970.
        host: Name of the machine that works on it.
        pid: Process that works on it.
        in_order: Whether its parts are taken in order only.
        copied: Whether the store copies its parts by itself.
    """

    key: str
    upload: str
    part_size: Annotated[int, msgspec.Meta(ge=1)]
    began_s: float
    host: str
    pid: Annotated[int, msgspec.Meta(ge=1, le=MAX_PID)]
    in_order: bool = False
    copied: bool = False


@dataclass(frozen=True)
class JournalFile:
    """An entry as it lies in the store.

    Attributes:
        key: Its key.
        modified_s: When it was written, seconds since 1970.
        entry: What it says; None when it makes no sense.
    """

    key: str
    modified_s: float
    entry: Entry | None

    @property
    def upload(self) -> Upload | None:
        """The upload that it is about; None where it does not name one, or one that was only about to begin."""
        entry = self.entry
        if entry is None or not entry.upload:
            return None
        return Upload(entry.key, entry.upload, entry.part_size, in_order=entry.in_order)

    @property
    def is_alive(self) -> bool:
        """Whether its process runs on this machine; of another machine's process nobody here knows."""
        return self.entry is not None and self.entry.host == socket.gethostname() and _alive(self.entry.pid)


class UploadJournal:
    """Entries under one prefix of a store. Thread-safe.

    Args:
        store: The target.
        prefix: Where the entries lie, ending with ``/``.
    """

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def remember(self, name: str, upload: Upload, *, now_s: float) -> None:
        """Write an upload down, unless the bucket keeps an earlier entry of that name: then nobody finds the upload.

        Args:
            name: Name of the entry, unique to what is uploaded.
            upload: The upload.
            now_s: Time of day, seconds since 1970.
        """
        where = socket.gethostname(), os.getpid()
        entry = Entry(upload.key, upload.id, upload.part_size, now_s, *where, upload.in_order, upload.copied)
        with suppress(ObjectLocked):
            self._store.put(self._key(name), msgspec.json.encode(entry))

    def recall(self, name: str) -> Upload | None:
        """Find an upload that an earlier run began; None when there is none, or the entry makes no sense.

        Its id is empty when that run was about to begin it.
        """
        try:
            size = self._store.stat(self._key(name)).size
            entry = self._read(self._key(name), size)
        except (ObjectNotFound, IntegrityError):
            return None
        return Upload(entry.key, entry.upload, entry.part_size, in_order=entry.in_order, copied=entry.copied)

    def forget(self, name: str) -> None:
        """Remove an entry; a missing one is fine, and so is one that the bucket keeps."""
        self._remove(self._key(name))

    def close(self, name: str) -> None:
        """Throw away what is left of an upload whose object is complete, and forget it.

        For a run that was killed after it had made the object visible.
        """
        upload = self.recall(name)
        if upload is not None and upload.id:
            self._store.abort_upload(upload)
        self.forget(name)

    def uploads(self) -> set[tuple[str, str]]:
        """Return key and id of every upload that is remembered."""
        return {(file.entry.key, file.entry.upload) for file in self.files() if file.entry is not None}

    def files(self) -> list[JournalFile]:
        """Read all entries; what was removed meanwhile is left out."""
        found: list[JournalFile] = []
        for info in list(self._store.list_objects(self._prefix)):
            entry: Entry | None = None
            try:
                entry = self._read(info.key, info.size)
            except ObjectNotFound:
                continue
            except IntegrityError:  # damaged, or written anew since it was listed
                pass
            found.append(JournalFile(info.key, info.modified_s, entry))
        return found

    def abort_abandoned(self, *, now_s: float, older_than_s: float, stream_marker: str) -> int:
        """Throw away streamed uploads whose process is gone.

        Args:
            now_s: Time of day, seconds since 1970.
            older_than_s: An entry counts as abandoned at this age even when its process may live: nobody can ask
                another machine, and a process id may belong to somebody else by now.
            stream_marker: Only entries whose name starts with it: an upload that was fed by a stream cannot be
                taken up again, one that copies an object can.

        Returns:
            How many were thrown away.
        """
        aborted = 0
        for info in list(self._store.list_objects(self._prefix + stream_marker)):
            try:
                entry = self._read(info.key, info.size)
            except MalformedContent:
                self._remove(info.key)
                continue
            except (ObjectNotFound, TruncatedObject):  # its owner removed it, or wrote it anew
                continue
            if _abandoned(entry, now_s, older_than_s):
                self._store.abort_upload(Upload(entry.key, entry.upload, entry.part_size))
                self._remove(info.key)
                aborted += 1
        return aborted

    def _remove(self, key: str) -> None:
        with suppress(ObjectLocked):  # it says of an upload that is gone, which harms nobody
            self._store.delete(key)

    def _key(self, name: str) -> str:
        return f"{self._prefix}{name}.json"

    def _read(self, key: str, size: int) -> Entry:
        if not 0 < size <= MAX_ENTRY_SIZE:
            message = f"an upload journal entry of {size} bytes"
            raise MalformedContent(message, key=key)
        buffer = bytearray(size)
        self._store.read_into(key, memoryview(buffer))
        try:
            entry = msgspec.json.decode(buffer, type=Entry)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:  # it passes the last two on
            message = f"not an upload journal entry: {error}"
            raise MalformedContent(message, key=key) from error
        fault = fault_of_key(entry.key)
        if fault:
            raise MalformedContent(f"an upload journal entry for {entry.key!r}: {fault}", key=key)
        return entry


def _abandoned(entry: Entry, now_s: float, older_than_s: float) -> bool:
    dead = entry.host == socket.gethostname() and not _alive(entry.pid)
    return dead or now_s - entry.began_s > older_than_s


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # there is one, of another user
        return True
    return True
