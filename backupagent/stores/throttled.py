"""A store that is used gently: so many bytes and so many requests a second, over all threads."""

import threading
from collections.abc import Iterator, Mapping, Sequence

from backupagent.cancel import Cancel
from backupagent.clock import Clock
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

BURST_S = 0.25
"""How much of a rate may be used at once after a pause, seconds of it: enough that no thread idles at its pace."""

PAGE = 1000
"""Objects that one request lists, at most: what S3, Azure and GCS give."""


class Pace:
    """So many units a second. Thread-safe; whoever comes first goes first.

    A unit is waited for after it was asked for, not before: one taker of a large amount goes at once, and the next
    one waits until it is paid for. So over any time the rate is kept within one amount and ``BURST_S``.

    Args:
        rate: Units a second; 0 is no limit.
        clock: Measures.
        cancel: Ends a wait.
    """

    def __init__(self, rate: float, clock: Clock, cancel: Cancel) -> None:
        self._rate = rate
        self._clock = clock
        self._cancel = cancel
        self._lock = threading.Lock()
        self._paid_until_s = clock.monotonic_s()

    def take(self, amount: int) -> None:
        """Wait until it is somebody's turn.

        Raises:
            Cancelled: the token was set.
        """
        if not self._rate or not amount:
            return
        with self._lock:
            now_s = self._clock.monotonic_s()
            turn_s = max(self._paid_until_s, now_s - BURST_S)
            self._paid_until_s = turn_s + amount / self._rate
        if turn_s > now_s:
            self._cancel.wait(turn_s - now_s)
        self._cancel.raise_if_set()


class ThrottledStore:
    """A store within a pace of bytes and of requests. Thread-safe.

    Args:
        inner: The store.
        bandwidth: Bytes a second of content, read and written together; what the store copies by itself is none.
        requests: Requests a second.
    """

    def __init__(self, inner: ObjectStore, *, bandwidth: Pace, requests: Pace) -> None:
        self._inner = inner
        self._bandwidth = bandwidth
        self._requests = requests

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
        """List objects, one request a page."""
        self._requests.take(1)
        for number, info in enumerate(self._inner.list_objects(prefix), start=1):
            if number % PAGE == 0:
                self._requests.take(1)
            yield info

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object."""
        self._requests.take(1)
        return self._inner.stat(key)

    def read_into(self, key: str, buffer: memoryview, *, offset: int = 0, etag: str = "") -> Mapping[str, str]:
        """Read exactly ``len(buffer)`` bytes from ``offset``."""
        self._take(len(buffer))
        return self._inner.read_into(key, buffer, offset=offset, etag=etag)

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = False, metadata: Mapping[str, str] = NO_METADATA
    ) -> ObjectInfo:
        """Write a whole object."""
        self._take(memoryview(data).nbytes)
        return self._inner.put(key, data, if_absent=if_absent, metadata=metadata)

    def begin_upload(
        self, key: str, *, part_size: int, metadata: Mapping[str, str] = NO_METADATA, copied: bool = False
    ) -> Upload:
        """Begin an object that arrives in parts."""
        self._requests.take(1)
        return self._inner.begin_upload(key, part_size=part_size, metadata=metadata, copied=copied)

    def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
        """Write one part."""
        self._take(memoryview(data).nbytes)
        return self._inner.upload_part(upload, number, data)

    def list_parts(self, upload: Upload) -> Sequence[PartTag]:
        """List the parts that the store holds."""
        self._requests.take(1)
        return self._inner.list_parts(upload)

    def complete_upload(self, upload: Upload, parts: Sequence[PartTag], *, if_absent: bool = False) -> ObjectInfo:
        """Make the object visible."""
        self._requests.take(1)
        return self._inner.complete_upload(upload, parts, if_absent=if_absent)

    def abort_upload(self, upload: Upload) -> None:
        """Throw an upload and its parts away."""
        self._requests.take(1)
        self._inner.abort_upload(upload)

    def list_uploads(self, prefix: str) -> Sequence[Upload]:
        """List open uploads."""
        self._requests.take(1)
        return self._inner.list_uploads(prefix)

    def copy_source(self, key: str, *, etag: str = "") -> CopySource:
        """Describe an object for a store that is to copy it."""
        self._requests.take(1)
        return self._inner.copy_source(key, etag=etag)

    def copy_object(self, source: CopySource, key: str) -> ObjectInfo:
        """Copy an object whole."""
        self._requests.take(1)
        return self._inner.copy_object(source, key)

    def copy_part(self, upload: Upload, number: int, source: CopySource, *, offset: int, size: int) -> PartTag:
        """Copy a range of an object as one part."""
        self._requests.take(1)
        return self._inner.copy_part(upload, number, source, offset=offset, size=size)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._requests.take(1)
        self._inner.delete(key)

    def facts(self) -> StoreFacts:
        """Ask the store about itself."""
        self._requests.take(1)
        return facts_of(self._inner)

    def close(self) -> None:
        """Close the store."""
        self._inner.close()

    def _take(self, size: int) -> None:
        self._requests.take(1)
        self._bandwidth.take(size)
