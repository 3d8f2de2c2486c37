"""What checks of stores find, and the small ones."""

from dataclasses import dataclass

from backupagent.errors import BackupAgentError, ChecksumMismatch, StoreError
from backupagent.operations.report_care import CheckStatus
from backupagent.snapstore.unfinished import Unfinished
from backupagent.stores.base import ObjectStore
from backupagent.units import format_duration, format_size


@dataclass(frozen=True)
class Finding:
    """What a check came to; see ``Check``."""

    status: CheckStatus
    detail: str
    hint: str = ""
    reason: str = ""


def ok(detail: str) -> Finding:
    """Say that it is as it should be."""
    return Finding(CheckStatus.OK, detail)


def warning(detail: str, hint: str) -> Finding:
    """Say what to look at."""
    return Finding(CheckStatus.WARNING, detail, hint)


def untested(detail: str, hint: str = "") -> Finding:
    """Say why it could not be tested."""
    return Finding(CheckStatus.UNTESTED, detail, hint)


def failed(error: BackupAgentError) -> Finding:
    """Say what is wrong."""
    return Finding(CheckStatus.FAILED, str(error), error.hint, error.reason)


@dataclass(frozen=True)
class Measured:
    """How fast a store was.

    Attributes:
        size: Bytes that were moved.
        seconds: How long that took.
        round_trip_s: How long a small request took.
    """

    size: int
    seconds: float
    round_trip_s: float

    @property
    def rate(self) -> float:
        """Bytes a second; 0 when it was too fast to tell."""
        return self.size / self.seconds if self.seconds > 0 else 0.0

    @property
    def words(self) -> str:
        """``64.0 MiB at 90.1 MiB/s``."""
        return f"{format_size(self.size)} at {format_size(self.rate)}/s" if self.rate else format_size(self.size)


def read_back(store: ObjectStore, key: str, content: bytes) -> Finding:
    """Read the probe, and find it in a listing."""
    buffer = bytearray(len(content))
    store.read_into(key, memoryview(buffer))
    if buffer != content:
        raise ChecksumMismatch("it came back with other bytes", key=key)
    if all(info.key != key for info in store.list_objects(key)):
        raise StoreError("the probe is not listed", op="list", key=key, store=store.display)
    return ok("the probe came back as it was written, and is listed")


def delete(store: ObjectStore, key: str) -> Finding:
    """Remove the probe."""
    store.delete(key)
    return ok("the probe was removed")


def aged(each: Unfinished, now_s: float) -> str:
    """Name something unfinished, with its age."""
    age_s = max(0.0, now_s - (each.alive_s or 0.0))
    return f"{each.key} ({each.kind.value}, {format_duration(age_s)} old)"
