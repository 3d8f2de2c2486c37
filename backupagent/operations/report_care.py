"""What the operations that look after stores say when they have ended; see ``report``."""

from dataclasses import dataclass
from enum import StrEnum

from backupagent.operations.report import Report


@dataclass(frozen=True)
class Remains:
    """Something that is not whole, and what was done about it.

    Attributes:
        kind: ``upload``, ``leftover`` of a write in one request, or ``journal entry`` alone.
        key: The object that it would have become, or the entry.
        age_s: Seconds since its last sign of life; None when nobody knows.
        bytes: What the store holds of it; None when nobody knows.
        note: Why it was kept, or what to know about its removal; may be empty.
    """

    kind: str
    key: str
    age_s: float | None
    bytes: int | None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class CollectReport(Report):
    """What was left of uploads that did not come to their end was removed.

    Attributes:
        store: Its URI.
        dry_run: Whether nothing was removed: it was only said what would be.
        removed: What was, or would be, removed.
        kept: What stays: it is young, in use, or of unknown age.
        bytes: What the store held of what was removed, as far as it is known.
    """

    store: str
    dry_run: bool
    removed: tuple[Remains, ...]
    kept: tuple[Remains, ...]
    bytes: int


class CheckStatus(StrEnum):
    """What a check came to."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNTESTED = "untested"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: Of the check; the same for each run.
        side: ``source``, ``target``, or ``both``.
        status: What it came to.
        detail: What was found.
        hint: What to do about it; empty when there is nothing to do.
        reason: Name of the error class of one that failed, else empty.
    """

    name: str
    side: str
    status: CheckStatus
    detail: str
    hint: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class DoctorReport(Report):
    """Stores were checked before they are used.

    Attributes:
        ok: Whether no check failed.
        checks: In the order in which they were made.
        expected_s: How long a copy of everything may take, seconds; None when nothing could be measured.
    """

    ok: bool
    checks: tuple[Check, ...]
    expected_s: float | None
