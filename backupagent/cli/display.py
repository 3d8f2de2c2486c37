"""Running work, shown on stderr: a display on a terminal, log lines elsewhere.

One thread looks at the ``Progress`` a few times a second; the work itself never waits for it.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Protocol, TextIO

from backupagent.cli.document import printable
from backupagent.cli.text import rate_text
from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.progress import Milestone, Progress, ProgressView
from backupagent.settings import ProgressStyle
from backupagent.units import format_duration, format_size

LOOK_EVERY_S = 0.2
LOG_EVERY_S = 5.0

LOG_WAITING_EVERY_S = 30.0
"""The same for work that moves no bytes itself: it waits for others, perhaps for an hour."""

PATIENCE_S = 0.4
"""How long work runs before a display is drawn: shorter work need not pay for importing rich."""


class View(Protocol):
    """Something that shows progress. Used by one thread."""

    def look(self, view: ProgressView) -> None:
        """Show where the work is."""
        ...

    def close(self) -> None:
        """Leave nothing behind on a terminal."""
        ...


def describe(view: ProgressView) -> str:
    """Say how far a phase is: ``1.2 GiB of 3.0 GiB, 310.0 MiB/s, 6.00 s left``."""
    done = f"{format_size(view.done)} of {format_size(view.total)}" if view.total else format_size(view.done)
    parts = [done if view.done or view.total else "", rate_text(view.done, view.seconds)]
    if view.eta_s is not None:
        parts.append(f"{format_duration(max(0.0, view.eta_s))} left")
    return ", ".join(part for part in parts if part)


def milestone_words(milestone: Milestone) -> tuple[str, ...]:
    """Return what happened and its detail, each made printable; no detail is no word."""
    return tuple(printable(text) for text in (milestone.what, milestone.detail) if text)


class LogView:
    """A line for every milestone, when a phase begins, when it ends, and now and then in between.

    Args:
        out: Where lines go.
        clock: Source of time.
    """

    def __init__(self, out: TextIO, clock: Clock) -> None:
        self._out = out
        self._clock = clock
        self._phase = ""
        self._finished = 0
        self._told = 0
        self._logged_s = 0.0

    def look(self, view: ProgressView) -> None:
        """Write the lines that are due."""
        for milestone in view.news(self._told):
            self._line(" ".join((milestone.who, *milestone_words(milestone))), milestone.at)
        self._told = view.told
        for phase in view.finished[self._finished :]:
            size = f", {format_size(phase.bytes)}, {rate_text(phase.bytes, phase.seconds)}" if phase.bytes else ""
            self._line(f"{phase.name} took {format_duration(phase.seconds)}{size}")
            self._phase = ""
        self._finished = len(view.finished)
        if view.phase != self._phase:
            self._phase = view.phase
            self._line(f"{view.phase} begins")
        pause_s = LOG_EVERY_S if view.done or view.total else LOG_WAITING_EVERY_S
        if view.phase and not view.resting and self._clock.monotonic_s() - self._logged_s >= pause_s:
            self._line(" ".join(part for part in (view.phase, describe(view), printable(view.detail)) if part))

    def close(self) -> None:
        """Nothing is left behind."""

    def _line(self, text: str, at: datetime | None = None) -> None:
        self._logged_s = self._clock.monotonic_s()
        self._out.write(f"{at or self._clock.now():%Y-%m-%dT%H:%M:%SZ} {text}\n")
        self._out.flush()


def _log_view() -> View:
    return LogView(sys.stderr, SYSTEM_CLOCK)


def _terminal_view() -> View:
    from backupagent.cli.terminal import TerminalView  # noqa: PLC0415 - rich; only a terminal pays for it

    return TerminalView()


def _show(progress: Progress, make_view: Callable[[], View], stop: threading.Event) -> None:
    view = make_view()
    try:
        while not stop.wait(LOOK_EVERY_S):
            view.look(progress.view())
        view.look(progress.view())
    finally:
        view.close()


def _show_after_patience(progress: Progress, stop: threading.Event) -> None:
    # A milestone is told even when the work was shorter.
    if not stop.wait(PATIENCE_S) or progress.view().milestones:
        _show(progress, _terminal_view, stop)


def _show_until_stderr_is_gone(show: Callable[[], None]) -> None:
    try:
        show()
    except OSError:
        # Nobody reads stderr any more, so there is nobody to tell; the work goes on.
        return


@contextmanager
def showing(progress: Progress, style: ProgressStyle) -> Iterator[None]:
    """Show progress on stderr while the block runs.

    Args:
        progress: What the work counts in.
        style: How; ``auto`` asks whether stderr is a terminal that can move its cursor.
    """
    if style is ProgressStyle.NONE:
        yield
        return
    stop = threading.Event()
    movable = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if style is ProgressStyle.AUTO and movable:
        show = partial(_show_after_patience, progress, stop)
    else:
        show = partial(_show, progress, _log_view, stop)
    thread = threading.Thread(target=_show_until_stderr_is_gone, args=(show,), name="display", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
