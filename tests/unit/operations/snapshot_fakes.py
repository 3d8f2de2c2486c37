"""Stores of snapshots in memory: small made-up chains, and the golden buckets."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from backupagent.cancel import Cancel
from backupagent.clock import FakeClock
from backupagent.codecs import CODECS
from backupagent.model.event import Change, Event, KeyValue, encode_events
from backupagent.model.snapshot import Revision, Snapshot, SnapshotKind
from backupagent.progress import Progress
from backupagent.settings import TransferSettings
from backupagent.snapstore import SnapStore
from backupagent.stores.base import NO_METADATA, Buffer, Copies, ObjectInfo, ObjectStore
from backupagent.stores.memory import MemoryStore
from backupagent.transfer.context import Transfer

GOLDEN = Path(__file__).parents[2] / "golden"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOW_S = int(NOW.timestamp())


class WaitingCancel(Cancel):
    """A token whose waits move a clock, and may do something each time.

    Args:
        clock: Is moved.
    """

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock
        self.waits: list[float] = []

    def wait(self, timeout_s: float) -> bool:
        self.waits.append(timeout_s)
        self._clock.sleep(timeout_s)
        self.waited()
        return self.is_set

    def waited(self) -> None:
        """Do what a test wants."""


def transfer(*, workers: int = 2, part_size: int = 64 * 1024, cancel: Cancel | None = None) -> Transfer:
    clock = FakeClock(NOW)
    settings = TransferSettings(workers=workers, window=2, part_size=part_size)
    return Transfer(settings, cancel or WaitingCancel(clock), Progress(clock), clock)


class RecordingStore(MemoryStore):
    """A memory store that remembers what was written, in order."""

    def __init__(self, name: str = "recording", copies: Copies | None = None) -> None:
        super().__init__(name, copies=copies)
        self.written: list[str] = []

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = False, metadata: Mapping[str, str] = NO_METADATA
    ) -> ObjectInfo:
        self.written.append(key)
        return super().put(key, data, if_absent=if_absent, metadata=metadata)

    def snapshots_written(self) -> list[str]:
        return [key.rpartition("/")[2] for key in self.written if "/v2/" in key]


def store(inner: ObjectStore | None = None) -> SnapStore:
    return SnapStore(inner or RecordingStore(), "p")


def compressed(content: bytes, codec: str) -> bytes:
    make = CODECS[codec].encoder
    assert make is not None
    encoder = make(1)
    data = b"".join(bytes(piece) for half in (encoder.feed(content), encoder.finish()) for piece in half)
    encoder.close()
    return data


def with_trailer(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def put_event(revision: int, *, lease: int = 0) -> Event:
    kv = KeyValue(b"k%d" % revision, revision, revision, 1, b"v%d" % revision, lease)
    return Event(Change(kv=kv), "2026-01-01T00:00:00Z")


def delta_content(*revisions: int) -> bytes:
    return b"[" + encode_events([put_event(revision) for revision in revisions]) + b"]"


def add_full(
    where: SnapStore, last: int, *, final: bool = False, age_s: int = 0, codec: str = "none", pages: int = 1
) -> str:
    """Put a full with a valid trailer, which only an etcd would find fault with; return its name."""
    suffix = CODECS[codec].suffix
    name = Snapshot(Revision(last), Revision(0), NOW_S - age_s, SnapshotKind.FULL, suffix, final).name
    content = with_trailer(b"%04d" % last + bytes(4092) * pages + bytes(4 * (pages - 1)))
    where.store.put(where.layout.snapshot(name), compressed(content, codec))
    return name


def add_delta(where: SnapStore, start: int, last: int, *, age_s: int = 0) -> str:
    """Put a delta of one put per revision; return its name."""
    name = Snapshot(Revision(last), Revision(start), NOW_S - age_s, SnapshotKind.DELTA).name
    where.store.put(where.layout.snapshot(name), with_trailer(delta_content(*range(start, last + 1))))
    return name


def add_chain(where: SnapStore, full: int, *ends: int, age_s: int = 0) -> list[str]:
    """Put a full and deltas that end at these revisions."""
    names = [add_full(where, full, age_s=age_s)]
    for start, last in zip([full, *ends], ends, strict=False):
        names.append(add_delta(where, start + 1, last, age_s=age_s))
    return names


def golden(compression: str, where: SnapStore | None = None) -> SnapStore:
    """Load a golden bucket."""
    snapstore = where or store()
    for path in sorted((GOLDEN / compression / "v2").iterdir()):
        snapstore.store.put(snapstore.layout.snapshot(path.name), path.read_bytes())
    return snapstore


def read(snapstore: SnapStore, key: str) -> bytes:
    data = bytearray(snapstore.store.stat(key).size)
    snapstore.store.read_into(key, memoryview(data))
    return bytes(data)


def damage(snapstore: SnapStore, name: str) -> None:
    """Change one byte of a snapshot; its metadata stays."""
    key = snapstore.layout.snapshot(name)
    data = bytearray(read(snapstore, key))
    data[len(data) // 2] ^= 1
    snapstore.store.put(key, data, metadata=snapstore.store.stat(key).metadata)


def names(snapstore: SnapStore) -> list[str]:
    return [stored.name for stored in snapstore.list().snapshots]
