"""The reference implementation: objects in memory, each call immediate and atomic under one lock."""

import itertools
import threading
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.errors import ObjectChanged, ObjectExists, ObjectNotFound, StoreError, TruncatedObject
from backupagent.stores.base import (
    NO_METADATA,
    Buffer,
    Copies,
    CopySource,
    ObjectInfo,
    PartTag,
    StoreFeatures,
    StoreLimits,
    Upload,
)
from backupagent.stores.keys import check_key, check_metadata, check_part, check_part_size, check_parts


@dataclass(frozen=True)
class _Object:
    info: ObjectInfo
    content: bytes


@dataclass
class _OpenUpload:
    upload: Upload
    metadata: Mapping[str, str]
    began_s: float
    parts: dict[int, tuple[PartTag, bytes]] = field(default_factory=dict)

    def listed(self) -> Upload:
        held = sum(tag.size for tag, _content in self.parts.values())
        return replace(self.upload, alive_s=self.began_s, held=held)


class MemoryStore:
    """A bucket in this process. Thread-safe.

    Args:
        name: Shown to users.
        clock: Source of ``modified_s``.
        limits: What uploads must keep to.
        copies: How it copies from the other stores of this process that have the same service; None if it does not.
    """

    def __init__(
        self,
        name: str = "unnamed",
        *,
        clock: Clock = SYSTEM_CLOCK,
        limits: StoreLimits | None = None,
        copies: Copies | None = None,
    ) -> None:
        self._display = f"memory://{name}"
        self._clock = clock
        self._limits = limits or StoreLimits()
        self._lock = threading.Lock()
        self._serial = itertools.count(1)
        self._objects: dict[str, _Object] = {}
        self._uploads: dict[str, _OpenUpload] = {}
        self._copies = copies
        self._container = f"{name}-{next(_containers)}"
        if copies is not None:
            _copying[self._container] = self

    @property
    def display(self) -> str:
        """The store as shown to users."""
        return self._display

    @property
    def limits(self) -> StoreLimits:
        """Hard limits of an upload in parts."""
        return self._limits

    @property
    def features(self) -> StoreFeatures:
        """Optional abilities."""
        return StoreFeatures(remote=False, reads_tell_metadata=True, copies=self._copies)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects in byte order of the keys, as they were when the iteration began."""
        with self._lock:
            found = [entry.info for key, entry in self._objects.items() if key.startswith(prefix)]
        # Code points of Unicode are in the same order as their bytes in UTF-8.
        yield from (replace(info, metadata=NO_METADATA) for info in sorted(found, key=lambda info: info.key))

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object."""
        return self._object("stat", key).info

    def read_into(self, key: str, buffer: memoryview, *, offset: int = 0, etag: str = "") -> Mapping[str, str]:
        """Read exactly ``len(buffer)`` bytes from ``offset``."""
        found = self._object("read", key)
        self._check_etag("read", found.info, etag)
        if offset + buffer.nbytes > found.info.size:
            raise TruncatedObject(f"it ends at byte {found.info.size}, before {offset + buffer.nbytes}", key=key)
        buffer.cast("B")[:] = memoryview(found.content)[offset : offset + buffer.nbytes]
        return found.info.metadata if buffer.nbytes else NO_METADATA

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = False, metadata: Mapping[str, str] = NO_METADATA
    ) -> ObjectInfo:
        """Write a whole object."""
        check_key(key)
        check_metadata(metadata)
        content = bytes(data)
        with self._lock:
            return self._publish("put", key, content, metadata, if_absent=if_absent)

    def begin_upload(
        self, key: str, *, part_size: int, metadata: Mapping[str, str] = NO_METADATA, copied: bool = False
    ) -> Upload:
        """Begin an object that arrives in parts."""
        check_key(key)
        check_metadata(metadata)
        check_part_size(part_size, self._limits)
        with self._lock:
            upload = Upload(key, f"{next(self._serial):x}", part_size, copied=copied)
            self._uploads[upload.id] = _OpenUpload(upload, dict(metadata), self._clock.now().timestamp())
        return upload

    def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
        """Write one part."""
        return self._keep_part("upload part", upload, number, bytes(data))

    def list_parts(self, upload: Upload) -> Sequence[PartTag]:
        """List the parts that the store holds."""
        with self._lock:
            return [tag for _, (tag, _) in sorted(self._open("list parts", upload).parts.items())]

    def complete_upload(self, upload: Upload, parts: Sequence[PartTag], *, if_absent: bool = False) -> ObjectInfo:
        """Make the object visible."""
        with self._lock:
            opened = self._open("complete upload", upload)
            check_parts(upload, parts)
            for part in parts:
                if part.number not in opened.parts or opened.parts[part.number][0].etag != part.etag:
                    raise StoreError(
                        f"part {part.number} is missing or was replaced",
                        op="complete upload",
                        key=upload.key,
                        store=self._display,
                    )
            content = b"".join(opened.parts[part.number][1] for part in parts)
            info = self._publish("complete upload", upload.key, content, opened.metadata, if_absent=if_absent)
            del self._uploads[upload.id]
            return info

    def abort_upload(self, upload: Upload) -> None:
        """Throw an upload away."""
        with self._lock:
            self._uploads.pop(upload.id, None)

    def list_uploads(self, prefix: str) -> Sequence[Upload]:
        """List open uploads."""
        with self._lock:
            found = [opened.listed() for opened in self._uploads.values() if opened.upload.key.startswith(prefix)]
        return sorted(found, key=lambda upload: (upload.key, upload.id))

    def copy_source(self, key: str, *, etag: str = "") -> CopySource:
        """Describe an object for a store that is to copy it."""
        if self._copies is None:
            raise StoreError("this store copies nothing by itself", op="copy", key=key, store=self._display)
        found = self._object("copy", key)
        self._check_etag("copy", found.info, etag)
        return CopySource(self._container, found.info)

    def copy_object(self, source: CopySource, key: str) -> ObjectInfo:
        """Copy an object whole."""
        check_key(key)
        content = self._content_of("copy", key, source)
        with self._lock:
            return self._publish("copy", key, content, NO_METADATA, if_absent=False)

    def copy_part(self, upload: Upload, number: int, source: CopySource, *, offset: int, size: int) -> PartTag:
        """Copy a range of an object as one part."""
        content = self._content_of("copy part", upload.key, source)[offset : offset + size]
        return self._keep_part("copy part", upload, number, content)

    def delete(self, key: str) -> None:
        """Remove an object."""
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)

    def close(self) -> None:
        """Do nothing: the objects stay for the next who opens a store of this name."""

    def _object(self, op: str, key: str) -> _Object:
        check_key(key)
        with self._lock:
            if key not in self._objects:
                raise ObjectNotFound("there is no such object", op=op, key=key, store=self._display)
            return self._objects[key]

    def _check_etag(self, op: str, found: ObjectInfo, wanted: str) -> None:
        if wanted and wanted != found.etag:
            raise ObjectChanged("it was replaced", op=op, key=found.key, store=self._display)

    def _content_of(self, op: str, key: str, source: CopySource) -> bytes:
        """Take the content of an object in a store of the same service."""
        other = _copying.get(source.container)
        if self._copies is None or other is None or other.features.copies != self._copies:
            raise StoreError("that is not on the same service", op=op, key=key, store=self._display)
        content = bytearray(source.info.size)
        MemoryStore.read_into(other, source.info.key, memoryview(content), etag=source.info.etag)
        return bytes(content)

    def _keep_part(self, op: str, upload: Upload, number: int, content: bytes) -> PartTag:
        check_part(upload, number, len(content), self._limits)
        crc32 = zlib.crc32(content)
        tag = PartTag(number, len(content), f"{crc32:08x}", crc32)
        with self._lock:
            self._open(op, upload).parts[number] = tag, content
        return tag

    def _open(self, op: str, upload: Upload) -> _OpenUpload:
        opened = self._uploads.get(upload.id)
        if opened is None or opened.upload.key != upload.key:
            raise ObjectNotFound("there is no such upload", op=op, key=upload.key, store=self._display)
        return opened

    def _publish(
        self, op: str, key: str, content: bytes, metadata: Mapping[str, str], *, if_absent: bool
    ) -> ObjectInfo:
        if if_absent and key in self._objects:
            raise ObjectExists("there is one already", op=op, key=key, store=self._display)
        etag = f"{next(self._serial):x}"
        digests = {"crc32": f"{zlib.crc32(content):08x}"} if self._copies is not None else {}
        info = ObjectInfo(key, len(content), etag, self._clock.now().timestamp(), dict(metadata), digests)
        self._objects[key] = _Object(info, content)
        return info


_containers = itertools.count(1)
_copying: weakref.WeakValueDictionary[str, MemoryStore] = weakref.WeakValueDictionary()
"""The stores that copy, by their container."""

_named: dict[str, MemoryStore] = {}
_named_lock = threading.Lock()


def named_memory_store(name: str, clock: Clock) -> MemoryStore:
    """Return the one store of that name in this process, made at the first call."""
    with _named_lock:
        return _named.setdefault(name, MemoryStore(name, clock=clock))
