"""A store with hooks, gates to hold threads at, and inspectors that remember: no test here waits for the clock."""

import hashlib
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from backupagent.cancel import Cancel
from backupagent.errors import ChecksumMismatch, StoreUnavailable
from backupagent.progress import Progress
from backupagent.settings import TransferSettings
from backupagent.stores.base import (
    NO_METADATA,
    Buffer,
    Copies,
    CopySource,
    ObjectInfo,
    PartTag,
    StoreLimits,
    Upload,
)
from backupagent.stores.memory import MemoryStore
from backupagent.transfer.buffers import BufferPool
from backupagent.transfer.context import Transfer
from backupagent.transfer.items import ByStore, CopyItem
from backupagent.transfer.journal import UploadJournal

POOLS: list[BufferPool] = []
"""Every pool of buffers that the test has made, through ``conftest``."""


def peak_size() -> int:
    """Most bytes that the last transfer held at once."""
    return POOLS[-1].peak


LIMIT_S = 30
"""A gate that nobody opens fails the test instead of hanging it."""

JOURNAL = "journal/"


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def transfer(workers: int = 3, window: int = 2, part_size: int = 4, cancel: Cancel | None = None) -> Transfer:
    settings = TransferSettings(workers=workers, window=window, part_size=part_size)
    return Transfer(settings, cancel or Cancel(), Progress())


def unavailable(op: str = "test") -> StoreUnavailable:
    return StoreUnavailable("planned", op=op)


class CancelAtLook(Cancel):
    """A token that is set just before it is looked at for the n-th time."""

    def __init__(self, nth: int) -> None:
        super().__init__()
        self._nth = self._left = nth
        self._lock = threading.Lock()

    def raise_if_set(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self.set(f"look {self._nth}")
        super().raise_if_set()


class Gate:
    """Holds threads until it is opened, and tells when they have come."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = False
        self._come = 0

    def hold(self) -> None:
        with self._changed:
            self._come += 1
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._open, LIMIT_S), "nobody opened the gate"

    def wait_for(self, come: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._come >= come, LIMIT_S), f"{self._come} of {come} came"

    def open(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()


def open_at_close(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open a gate when the crew is told to stop: workers that it holds can end then, and not before."""
    close = BufferPool.close

    def close_and_open(pool: BufferPool) -> None:
        close(pool)
        gate.open()

    monkeypatch.setattr(BufferPool, "close", close_and_open)


class Log:
    """What happened, in order; a test can wait until enough has happened."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.seen: list[object] = []

    def add(self, what: object) -> None:
        with self._changed:
            self.seen.append(what)
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen) >= count, LIMIT_S), f"only {self.seen}"


class HookedStore(MemoryStore):
    """A memory store that calls the test before it reads, and before and after it writes a part.

    Attributes:
        on_read: Called with key and offset.
        on_part: Called with the part's number.
        after_part: Called with the part's number when the store has it.
        buffers: Every buffer that was ever filled or uploaded from, once.
        parts: Numbers of the uploaded parts, in the order in which they began.
        copied: Numbers of the parts that the store was told to copy, 0 for a whole object.
        reads: How many reads there were.
    """

    def __init__(self, *, limits: StoreLimits | None = None, copies: Copies | None = None) -> None:
        super().__init__("hooked", limits=limits, copies=copies)
        self.on_read: Callable[[str, int], None] = lambda _key, _offset: None
        self.on_part: Callable[[int], None] = lambda _number: None
        self.after_part: Callable[[int], None] = lambda _number: None
        self.buffers: dict[int, bytearray] = {}
        self.parts: list[int] = []
        self.copied: list[int] = []
        self.reads = 0

    def copy_object(self, source: CopySource, key: str) -> ObjectInfo:
        self.copied.append(0)
        return super().copy_object(source, key)

    def copy_part(self, upload: Upload, number: int, source: CopySource, *, offset: int, size: int) -> PartTag:
        self.copied.append(number)
        self.on_part(number)
        tag = super().copy_part(upload, number, source, offset=offset, size=size)
        self.after_part(number)
        return tag

    def read_into(self, key: str, buffer: memoryview, *, offset: int = 0, etag: str = "") -> Mapping[str, str]:
        self._remember(buffer)
        self.reads += 1
        self.on_read(key, offset)
        return super().read_into(key, buffer, offset=offset, etag=etag)

    def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
        self._remember(data)
        self.parts.append(number)
        self.on_part(number)
        tag = super().upload_part(upload, number, data)
        self.after_part(number)
        return tag

    def _remember(self, data: Buffer) -> None:
        if isinstance(data, memoryview) and isinstance(data.obj, bytearray):
            self.buffers.setdefault(id(data.obj), data.obj)

    # ---- what tests ask

    def get(self, key: str) -> bytes:
        buffer = bytearray(self.stat(key).size)
        super().read_into(key, memoryview(buffer))
        return bytes(buffer)

    def names(self, prefix: str = "") -> list[str]:
        return [info.key for info in self.list_objects(prefix)]

    def open_uploads(self) -> list[str]:
        return [upload.key for upload in self.list_uploads("")]


class OrderedStore(HookedStore):
    """A store that takes the parts of an upload in order only, one at a time, as a session of Google's does.

    It tells no CRC-32 of its parts, and takes one again that it has, without its bytes.

    Attributes:
        taken: Numbers of the parts whose bytes it took, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[int] = []
        self._busy = threading.Lock()

    def begin_upload(
        self, key: str, *, part_size: int, metadata: Mapping[str, str] = NO_METADATA, copied: bool = False
    ) -> Upload:
        return replace(super().begin_upload(key, part_size=part_size, metadata=metadata, copied=copied), in_order=True)

    def list_parts(self, upload: Upload) -> list[PartTag]:
        return [replace(tag, crc32=None) for tag in super().list_parts(upload)]

    def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
        assert self._busy.acquire(blocking=False), "two parts at once"
        try:
            held = super().list_parts(upload)
            assert number <= len(held) + 1, f"part {number} came before part {len(held) + 1}"
            if number <= len(held):
                return held[number - 1]
            tag = super().upload_part(upload, number, data)
            self.taken.append(number)
            return tag
        finally:
            self._busy.release()


class Digest:
    """An inspector that keeps what it saw, and can refuse.

    Args:
        bad_at: Refuse the update in which that many bytes are reached.
        bad_end: Refuse at the end.
        bad_unseen: Refuse to let the object pass unseen.
    """

    def __init__(self, *, bad_at: int | None = None, bad_end: bool = False, bad_unseen: bool = False) -> None:
        self.sha256 = hashlib.sha256()
        self.size = 0
        self.finished = 0
        self._bad_at = bad_at
        self._bad_end = bad_end
        self._bad_unseen = bad_unseen
        self.unseen = 0

    def pass_unseen(self) -> None:
        self.unseen += 1
        if self._bad_unseen:
            raise ChecksumMismatch("planned unseen", key="inspected")

    def update(self, data: memoryview) -> None:
        assert not self.finished, "bytes after the end"
        self.sha256.update(data)
        self.size += len(data)
        if self._bad_at is not None and self.size >= self._bad_at:
            raise ChecksumMismatch("planned", key="inspected")

    def finish(self) -> None:
        self.finished += 1
        if self._bad_end:
            raise ChecksumMismatch("planned end", key="inspected")

    def saw(self, data: bytes) -> bool:
        return self.finished == 1 and self.sha256.digest() == hashlib.sha256(data).digest()


def copy_item(
    source: MemoryStore,
    key: str,
    inspector: Digest | None = None,
    metadata: Callable[[], Mapping[str, str]] = lambda: NO_METADATA,
    ready: Callable[[], None] = lambda: None,
    by_store: ByStore | None = None,
) -> CopyItem:
    info = source.stat(key)
    return CopyItem(
        source_key=key,
        size=info.size,
        etag=info.etag,
        target_key=f"copy/{key}",
        inspector=inspector or Digest(),
        metadata=metadata,
        journal_name=f"name-{key}",
        ready=ready,
        by_store=by_store,
    )


def fill(store: MemoryStore, sizes: Sequence[int]) -> dict[str, bytes]:
    """Put objects ``0``, ``1`` ... of these sizes."""
    objects = {str(index): content(size, seed=index) for index, size in enumerate(sizes)}
    for key, data in objects.items():
        store.put(key, data)
    return objects


def journal_of(store: MemoryStore) -> UploadJournal:
    return UploadJournal(store, JOURNAL)
