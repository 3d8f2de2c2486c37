"""A store that fails as planned.

A test writes down which call of which method does what, and asserts at its end that every fault was met: a fault
that is never met proves nothing.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from backupagent.errors import BackupAgentError, TruncatedObject
from backupagent.stores.base import (
    NO_METADATA,
    Buffer,
    CopySource,
    ObjectInfo,
    ObjectStore,
    PartTag,
    StoreFacts,
    StoreFeatures,
    StoreLimits,
    Upload,
    facts_of,
)

HANG_LIMIT_S = 60
"""A fault that hangs is over by then, so that a wrong test fails instead of hanging."""

METHODS = (
    "list_objects", "stat", "read_into", "put", "begin_upload", "upload_part", "list_parts", "complete_upload",
    "abort_upload", "list_uploads", "copy_source", "copy_object", "copy_part", "delete",
)  # fmt: skip
READERS = ("read_into",)
WRITERS = ("put", "upload_part")


@dataclass
class Fault:
    """What one call, or several calls in a row, of a method do wrong.

    Attributes:
        method: Name of the method.
        nth: The call that meets it, from 1; calls in different threads count in the order in which they begin.
        times: How many calls from there on meet it.
        error: Raised before the call reaches the store.
        lost_answer: Raised after the call has reached the store: it was done and the caller does not know.
        after_entries: With ``error``, in ``list_objects``: raised after that many entries.
        truncate: ``read_into`` fills half of the buffer and raises ``TruncatedObject``; ``put`` and
            ``upload_part`` store only the first half, without a word.
        flip: One bit in the middle of the content is another, without a word.
        hang: The call waits until that is set, then goes on.
        hits: How many calls met it so far.
    """

    method: str
    nth: int = 1
    times: int = 1
    error: BackupAgentError | None = None
    lost_answer: BackupAgentError | None = None
    after_entries: int = 0
    truncate: bool = False
    flip: bool = False
    hang: threading.Event | None = None
    hits: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"no such method: {self.method}")
        if (self.truncate or self.flip) and self.method not in READERS + WRITERS:
            raise ValueError(f"{self.method} has no content to damage")
        if not (self.error or self.lost_answer or self.truncate or self.flip or self.hang):
            raise ValueError("a fault that does nothing")


_HARMLESS = Fault("stat", times=0, hang=threading.Event())


class FaultyStore:
    """A store with planned faults. Thread-safe.

    Args:
        inner: The store that works.
        faults: What goes wrong; the first fault that fits a call counts.

    Attributes:
        calls: How often each method was called.
    """

    def __init__(self, inner: ObjectStore, *faults: Fault) -> None:
        self._inner = inner
        self._faults = list(faults)
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()

    def plan(self, *faults: Fault) -> None:
        """Add faults; ``nth`` counts from now."""
        with self._lock:
            for fault in faults:
                fault.nth += self.calls[fault.method]
                self._faults.append(fault)

    def assert_all_hit(self) -> None:
        """Fail when a planned fault was met by fewer calls than planned."""
        missed = [fault for fault in self._faults if fault.hits < fault.times]
        assert not missed, f"planned faults that no call met: {missed}; calls: {dict(self.calls)}"

    @property
    def display(self) -> str:
        """The store as shown to users."""
        return self._inner.display

    @property
    def limits(self) -> StoreLimits:
        """Hard limits of an upload in parts."""
        return self._inner.limits

    @property
    def features(self) -> StoreFeatures:
        """Optional abilities."""
        return self._inner.features

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects."""
        fault = self._begin("list_objects")
        for number, info in enumerate(self._inner.list_objects(prefix)):
            if fault.error is not None and number == fault.after_entries:
                raise fault.error
            yield info
        if fault.error is not None:
            raise fault.error
        _end(fault)

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object."""
        fault = self._begin("stat")
        info = self._inner.stat(key)
        _end(fault)
        return info

    def read_into(self, key: str, buffer: memoryview, *, offset: int = 0, etag: str = "") -> Mapping[str, str]:
        """Read, or half of it, or with one bit changed."""
        fault = self._begin("read_into")
        if fault.truncate:
            half = buffer.nbytes // 2
            self._inner.read_into(key, buffer.cast("B")[:half], offset=offset, etag=etag)
            raise TruncatedObject("planned: the answer ends in the middle", key=key)
        metadata = self._inner.read_into(key, buffer, offset=offset, etag=etag)
        if fault.flip and buffer.nbytes:
            buffer.cast("B")[buffer.nbytes // 2] ^= 1
        _end(fault)
        return metadata

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = False, metadata: Mapping[str, str] = NO_METADATA
    ) -> ObjectInfo:
        """Write a whole object, or half of it, or with one bit changed."""
        fault = self._begin("put")
        info = self._inner.put(key, _damaged(fault, data), if_absent=if_absent, metadata=metadata)
        _end(fault)
        return info

    def begin_upload(
        self, key: str, *, part_size: int, metadata: Mapping[str, str] = NO_METADATA, copied: bool = False
    ) -> Upload:
        """Begin an object that arrives in parts."""
        fault = self._begin("begin_upload")
        upload = self._inner.begin_upload(key, part_size=part_size, metadata=metadata, copied=copied)
        _end(fault)
        return upload

    def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
        """Write one part, or half of it, or with one bit changed."""
        fault = self._begin("upload_part")
        tag = self._inner.upload_part(upload, number, _damaged(fault, data))
        _end(fault)
        return tag

    def list_parts(self, upload: Upload) -> Sequence[PartTag]:
        """List the parts that the store holds."""
        fault = self._begin("list_parts")
        parts = self._inner.list_parts(upload)
        _end(fault)
        return parts

    def complete_upload(self, upload: Upload, parts: Sequence[PartTag], *, if_absent: bool = False) -> ObjectInfo:
        """Make the object visible."""
        fault = self._begin("complete_upload")
        info = self._inner.complete_upload(upload, parts, if_absent=if_absent)
        _end(fault)
        return info

    def abort_upload(self, upload: Upload) -> None:
        """Throw an upload and its parts away."""
        fault = self._begin("abort_upload")
        self._inner.abort_upload(upload)
        _end(fault)

    def list_uploads(self, prefix: str) -> Sequence[Upload]:
        """List open uploads."""
        fault = self._begin("list_uploads")
        uploads = self._inner.list_uploads(prefix)
        _end(fault)
        return uploads

    def copy_source(self, key: str, *, etag: str = "") -> CopySource:
        """Describe an object for a store that is to copy it."""
        fault = self._begin("copy_source")
        source = self._inner.copy_source(key, etag=etag)
        _end(fault)
        return source

    def copy_object(self, source: CopySource, key: str) -> ObjectInfo:
        """Copy an object whole."""
        fault = self._begin("copy_object")
        info = self._inner.copy_object(source, key)
        _end(fault)
        return info

    def copy_part(self, upload: Upload, number: int, source: CopySource, *, offset: int, size: int) -> PartTag:
        """Copy a range of an object as one part."""
        fault = self._begin("copy_part")
        tag = self._inner.copy_part(upload, number, source, offset=offset, size=size)
        _end(fault)
        return tag

    def delete(self, key: str) -> None:
        """Remove an object."""
        fault = self._begin("delete")
        self._inner.delete(key)
        _end(fault)

    def facts(self) -> StoreFacts:
        """Ask the store about itself."""
        return facts_of(self._inner)

    def close(self) -> None:
        """Close the store."""
        self._inner.close()

    def _begin(self, method: str) -> Fault:
        """Count a call and find its fault; hang or raise when it says so."""
        with self._lock:
            self.calls[method] += 1
            number = self.calls[method]
            fitting = (
                fault
                for fault in self._faults
                if fault.method == method and fault.nth <= number < fault.nth + fault.times
            )
            fault = next(fitting, None)
            if fault is None:
                return _HARMLESS
            fault.hits += 1
        if fault.hang is not None:
            assert fault.hang.wait(HANG_LIMIT_S), f"nobody ended the planned hang of {method}"
        if fault.error is not None and method != "list_objects":
            raise fault.error
        return fault


def _end(fault: Fault) -> None:
    if fault.lost_answer is not None:
        raise fault.lost_answer


def _damaged(fault: Fault, data: Buffer) -> Buffer:
    if not fault.truncate and not fault.flip:
        return data
    content = bytearray(data)
    if fault.truncate:
        del content[len(content) // 2 :]
    if fault.flip and content:
        content[len(content) // 2] ^= 1
    return content
