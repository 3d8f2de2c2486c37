"""Open uploads of stores that keep no record of them: one small object each.

Below ``<prefix>/manifests/parts/`` lie

``<id>.json``
    the record of an upload: its key, part size and metadata, and which session of the store it is, if any;
``<id>/...``
    its parts, where a store has no parts of its own.

They are hidden from every listing but one of that very folder.
"""

import logging
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from backupagent.errors import ConfigError, ObjectLocked, ObjectNotFound, StoreError, TruncatedObject
from backupagent.stores.base import ObjectInfo, ObjectStore, PartTag, Upload
from backupagent.stores.keys import check_key, check_metadata, check_part_size, check_parts

PARTS = "manifests/parts/"

MAX_RECORD_SIZE = 16 * 1024
"""Bytes; a key has 1 KiB and metadata 2 KiB at most, before JSON escapes them."""

_log = logging.getLogger(__name__)

_ID = "[0-9a-f]{32}"
_UPLOAD_ID = re.compile(_ID)
_HIDDEN = re.compile(rf"(?:.*/)?{PARTS}(?P<id>{_ID})(?:\.json|/.+)")
_RECORD = re.compile(rf"(?P<id>{_ID})\.json")


class _Record(msgspec.Struct, frozen=True, omit_defaults=True):
    key: str
    part_size: int
    metadata: dict[str, str]
    session: str = ""


@dataclass
class OpenUpload:
    """An upload that goes on.

    Attributes:
        upload: The upload.
        metadata: Of the object that it becomes.
        tags: Those parts of it that this process has uploaded or listed; of one part the newest.
        attempted: Whether this process tried to make the object visible.
        session: Of an upload whose parts go into one session of the store: which one, sealed; else empty.
    """

    upload: Upload
    metadata: Mapping[str, str]
    tags: dict[int, PartTag] = field(default_factory=dict)
    attempted: bool = False
    session: str = ""

    def replaced(self, parts: Sequence[PartTag]) -> list[int]:
        """Return which of the parts are not the newest that are known."""
        return [part.number for part in parts if self.tags.get(part.number, part).etag != part.etag]


class UploadRecords:
    """The open uploads of one store. Thread-safe.

    Args:
        store: Where the records lie; not used before the first call.
        prefix: The caller's, which stands before the folder of the records.
    """

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self.folder = f"{prefix}/{PARTS}" if prefix else PARTS
        self._open: dict[str, OpenUpload] = {}

    def begin(self, key: str, *, part_size: int, metadata: Mapping[str, str]) -> Upload:
        """Write an upload down.

        Raises:
            ConfigError: key, metadata or part size cannot be used.
        """
        self.check_new(key, part_size, metadata)
        upload = Upload(key, secrets.token_hex(16), part_size)
        self._write(upload, metadata, "")
        self._open[upload.id] = OpenUpload(upload, dict(metadata))
        return upload

    def begin_session(self, key: str, part_size: int, metadata: Mapping[str, str], sealed: str) -> Upload:
        """Remember an upload whose parts go into one session of the store.

        Args:
            key: The object.
            part_size: Bytes of every part but the last.
            metadata: Of the object.
            sealed: Names the session to those who may know it; empty when it must not be written down: then the
                upload is known to this process only.
        """
        upload = Upload(key, secrets.token_hex(16), part_size, in_order=True)
        if sealed:
            self._write(upload, metadata, sealed)
        self._open[upload.id] = OpenUpload(upload, dict(metadata), session=sealed)
        return upload

    def check_new(self, key: str, part_size: int, metadata: Mapping[str, str]) -> None:
        """Refuse to begin what could not be completed.

        Raises:
            ConfigError: key, metadata or part size cannot be used.
        """
        check_key(key)
        check_metadata(metadata)
        check_part_size(part_size, self._store.limits)

    def find(self, upload: Upload, op: str) -> OpenUpload:
        """Return an upload that is open; asks the store about one that this process does not know.

        Raises:
            ObjectNotFound: it was completed or aborted, or never was.
        """
        found = self._open.get(upload.id)
        if found is None and _UPLOAD_ID.fullmatch(upload.id):  # an id may come from a bucket
            found = self._recall(upload.id)
            if found is not None:
                found = self._open.setdefault(upload.id, found)
        if found is None or found.upload != upload:
            raise ObjectNotFound("there is no such upload", op=op, key=upload.key, store=self._store.display)
        return found

    def check(self, opened: OpenUpload, parts: Sequence[PartTag]) -> int:
        """Check that parts make the object, and that none was replaced by another that is known.

        Returns:
            Size of the object, bytes.

        Raises:
            StoreError: they do not.
        """
        size = check_parts(opened.upload, parts)
        replaced = opened.replaced(parts)
        if replaced:
            reason = f"parts were replaced: {replaced}"
            raise StoreError(reason, op="complete upload", key=opened.upload.key, store=self._store.display)
        return size

    def forget(self, upload: Upload) -> None:
        """Remove the record of an upload; a missing one is fine, and so is one that the bucket keeps."""
        if _UPLOAD_ID.fullmatch(upload.id):
            self._open.pop(upload.id, None)
            try:
                self._store.delete(self.name(upload.id))
            except ObjectLocked as error:
                _log.info("the record of a finished upload stays until its retention ends: %s", error)

    def parts_folder(self, upload: Upload) -> str:
        """Return where the parts of an upload lie, with a slash at its end."""
        return f"{self.folder}{upload.id}/"

    def list(self, prefix: str) -> Sequence[Upload]:
        """List open uploads whose key begins with a string, by key.

        What is left of an upload whose record is gone or damaged is listed under the key of its folder, with
        ``part_size`` 0, so that it can be aborted.
        """
        found: dict[str, list[ObjectInfo]] = {}
        for info in self._store.list_objects(self.folder):
            match = _HIDDEN.fullmatch(info.key)
            if match is not None:
                found.setdefault(match["id"], []).append(info)
        uploads = (self._listed(upload_id, infos) for upload_id, infos in found.items())
        return sorted(
            (upload for upload in uploads if upload.key.startswith(prefix)), key=lambda one: (one.key, one.id)
        )

    def _listed(self, upload_id: str, infos: Sequence[ObjectInfo]) -> Upload:
        """Describe an upload by all that lies in its folder; what is newest tells when it lived."""
        record = next((info for info in infos if _RECORD.fullmatch(info.key.removeprefix(self.folder))), None)
        opened = None if record is None else self._recall(upload_id, record)
        upload = Upload(f"{self.folder}{upload_id}", upload_id, 0) if opened is None else opened.upload
        parts = [info.size for info in infos if info is not record]
        alive_s = max(info.modified_s for info in infos)
        return replace(upload, alive_s=alive_s, held=sum(parts) if parts else None)

    def visible(self, prefix: str, listed: Iterable[ObjectInfo]) -> Iterable[ObjectInfo]:
        """Leave records and parts out of a listing, unless it is one of their folder."""
        if prefix.endswith(PARTS) or f"/{PARTS}" in f"/{prefix}":
            return listed
        return (info for info in listed if PARTS not in info.key or not _HIDDEN.fullmatch(info.key))

    def name(self, upload_id: str) -> str:
        """Return the key of an upload's record."""
        return f"{self.folder}{upload_id}.json"

    def _write(self, upload: Upload, metadata: Mapping[str, str], session: str) -> None:
        record = _Record(upload.key, upload.part_size, dict(metadata), session)
        self._store.put(self.name(upload.id), msgspec.json.encode(record))

    def _recall(self, upload_id: str, info: ObjectInfo | None = None) -> OpenUpload | None:
        """Read a record; None where there is none that makes sense."""
        name = self.name(upload_id)
        try:
            info = info or self._store.stat(name)
            if info.size > MAX_RECORD_SIZE:
                return None
            buffer = bytearray(info.size)
            self._store.read_into(name, memoryview(buffer))
            record = msgspec.json.decode(buffer, type=_Record)
            check_key(record.key)
            check_metadata(record.metadata)
            check_part_size(record.part_size, self._store.limits)
        except (ObjectNotFound, TruncatedObject, ConfigError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        upload = Upload(record.key, upload_id, record.part_size, in_order=bool(record.session))
        return OpenUpload(upload, record.metadata, session=record.session)
