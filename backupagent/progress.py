"""What long work tells about itself while it runs: phase, bytes, totals, and what happened.

Workers call ``add``; whoever shows it reads ``snapshot``. No thread, no output here: the command line draws a
``Progress`` on a terminal or writes log lines, a server exports it as metrics.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from backupagent.clock import SYSTEM_CLOCK, Clock

MAX_MILESTONES = 500
"""Milestones that are kept: work may go on for months. Whoever shows them looks several times a second."""


@dataclass(frozen=True)
class PhaseReport:
    """One finished phase.

    Attributes:
        name: As in the JSON reports.
        seconds: How long it took.
        bytes: How many bytes of content it handled.
    """

    name: str
    seconds: float
    bytes: int


@dataclass(frozen=True)
class Milestone:
    """Something that happened and is worth a line of its own.

    Attributes:
        at: When, UTC.
        who: Who did it.
        what: What it was, one word.
        detail: More about it, one line; may be empty.
        bad: Whether it is trouble.
    """

    at: datetime
    who: str
    what: str
    detail: str = ""
    bad: bool = False


@dataclass(frozen=True)
class ProgressView:
    """One look at running work.

    Attributes:
        phase: Name of the running phase, empty when none runs.
        seconds: Since the phase began.
        done: Bytes handled in this phase.
        total: Bytes that this phase will handle, 0 when not known.
        detail: What is being worked on, e.g. a snapshot's name.
        finished: The phases that have ended before.
        milestones: What has happened, in the order in which it was told; the newest ``MAX_MILESTONES``.
        forgotten: How many milestones came before those.
        resting: Whether nothing is under way: the work waits for news that may take long.
    """

    phase: str
    seconds: float
    done: int
    total: int
    detail: str
    finished: tuple[PhaseReport, ...] = ()
    milestones: tuple[Milestone, ...] = ()
    forgotten: int = 0
    resting: bool = False

    def news(self, told: int) -> tuple[Milestone, ...]:
        """Return the milestones after so many that were seen before."""
        return self.milestones[max(0, told - self.forgotten) :]

    @property
    def told(self) -> int:
        """How many milestones there have been in all."""
        return self.forgotten + len(self.milestones)

    @property
    def rate(self) -> float:
        """Bytes per second since the phase began."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds until the phase ends at this rate, or None when that cannot be told."""
        return (self.total - self.done) / self.rate if self.total and self.done and self.rate else None


class Progress:
    """Counts what is done. Thread-safe.

    Args:
        clock: Source of time.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._phase = ""
        self._began_s = clock.monotonic_s()
        self._started_s = self._began_s
        self._done = 0
        self._total = 0
        self._detail = ""
        self._resting = False
        self._milestones: deque[Milestone] = deque(maxlen=MAX_MILESTONES)
        self._told = 0
        self.phases: list[PhaseReport] = []

    @contextmanager
    def phase(self, name: str, total: int = 0) -> Iterator[None]:
        """Run a block as a named phase and keep its figures in ``phases``.

        Inside another phase it is a step of that one: only its total is added.

        Args:
            name: As in the JSON reports.
            total: Bytes that the phase will handle, 0 when not known.
        """
        with self._lock:
            outer = self._phase
            if outer:
                self._total += total
            else:
                self._phase, self._began_s, self._done, self._total = name, self._clock.monotonic_s(), 0, total
                self._detail, self._resting = "", False
        if outer:
            yield
            return
        try:
            yield
        finally:
            view = self.view()
            with self._lock:
                self.phases.append(PhaseReport(name, view.seconds, view.done))
                self._phase = ""

    def add(self, size: int) -> None:
        """Count handled bytes; negative when work is thrown away and done again."""
        with self._lock:
            self._done += size

    def expect(self, total: int) -> None:
        """Set how many bytes the running phase will handle."""
        with self._lock:
            self._total = total

    def note(self, detail: str, *, resting: bool = False) -> None:
        """Say what is being worked on, or what is waited for.

        Args:
            detail: It.
            resting: Nothing is under way; see ``ProgressView``.
        """
        with self._lock:
            self._detail, self._resting = detail, resting

    def tell(self, milestone: Milestone) -> None:
        """Say that something happened."""
        with self._lock:
            self._milestones.append(milestone)
            self._told += 1

    def view(self) -> ProgressView:
        """Look at the running phase and those before it, at one moment."""
        with self._lock:
            seconds = self._clock.monotonic_s() - self._began_s
            return ProgressView(
                self._phase,
                seconds,
                self._done,
                self._total,
                self._detail,
                tuple(self.phases),
                tuple(self._milestones),
                self._told - len(self._milestones),
                self._resting,
            )

    @property
    def elapsed_s(self) -> float:
        """Seconds since this object was made."""
        return self._clock.monotonic_s() - self._started_s
