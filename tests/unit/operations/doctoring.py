"""Stores far away that are made up, and a doctor for them."""

from collections.abc import Iterator
from contextlib import contextmanager

from snapshot_fakes import NOW, NOW_S, WaitingCancel, store

from backupagent.clock import FakeClock
from backupagent.errors import AccessDenied
from backupagent.operations.doctor import Doctor
from backupagent.operations.report_care import Check, DoctorReport
from backupagent.progress import Progress
from backupagent.settings import DoctorSettings, TransferSettings
from backupagent.snapstore import SnapStore
from backupagent.stores.base import Buffer, Copies, ObjectInfo, PartTag, StoreFacts, StoreFeatures, StoreLimits, Upload
from backupagent.stores.memory import MemoryStore
from backupagent.testing.faulty import FaultyStore
from backupagent.transfer.context import Transfer
from backupagent.units import MiB


class Remote(MemoryStore):
    """A store far away that answers in half a second, moves 8 MiB a second, and tells about itself."""

    def __init__(self, name: str, clock: FakeClock, **given) -> None:
        super().__init__(name, clock=clock, **given)
        self.clock = clock
        self.told: StoreFacts | None = StoreFacts(time_s=float(NOW_S), versioning=False, retention="")
        self.lasting = False

    @property
    def features(self) -> StoreFeatures:
        return StoreFeatures(reads_tell_metadata=True, lasting_parts=self.lasting, copies=self._copies)

    def facts(self) -> StoreFacts:
        if self.told is None:
            raise AccessDenied("not for you", op="ask for the bucket")
        return self.told

    def stat(self, key: str) -> ObjectInfo:
        self.clock.sleep(0.5)
        return super().stat(key)

    def read_into(self, key, buffer, *, offset=0, etag=""):
        self.clock.sleep(buffer.nbytes / (8 * MiB))
        return super().read_into(key, buffer, offset=offset, etag=etag)

    def begin_upload(self, key: str, **given) -> Upload:
        self.clock.sleep(0.5)
        return super().begin_upload(key, **given)

    def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
        self.clock.sleep(len(data) / (4 * MiB))
        return super().upload_part(upload, number, data)


class World:
    def __init__(self, limits: StoreLimits | None = None, copies: Copies | None = None) -> None:
        self.clock = FakeClock(NOW)
        self.cancel = WaitingCancel(self.clock)
        self.near = Remote("near", self.clock, copies=copies)
        self.far = Remote("far", self.clock, limits=limits, copies=copies)
        self.source_faults, self.target_faults = FaultyStore(self.near), FaultyStore(self.far)
        self.source, self.target = store(self.source_faults), store(self.target_faults)

    def examine(self, source: SnapStore | None, target: SnapStore | None, *, sample: int = 64 * MiB) -> DoctorReport:
        settings = DoctorSettings(source="s", target="t", sample=sample)
        transfer = Transfer(TransferSettings(), self.cancel, Progress(self.clock), self.clock)
        openers = [None if where is None else (lambda where=where: opened(where)) for where in (source, target)]
        return Doctor(openers[0], openers[1], settings, transfer).run()


@contextmanager
def opened(where: SnapStore) -> Iterator[SnapStore]:
    yield where


def check(report: DoctorReport, name: str, side: str) -> Check:
    (found,) = (one for one in report.checks if (one.name, one.side) == (name, side))
    return found


def statuses(report: DoctorReport) -> dict[tuple[str, str], str]:
    return {(one.side, one.name): one.status.value for one in report.checks}
