"""The only reader of time.

Everything that needs the time of day or a duration takes a ``Clock``, so that tests decide what time it is.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Source of time."""

    def now(self) -> datetime:
        """Return the time of day, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds since some fixed moment; only differences mean something."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """Return the time of day, UTC."""
        return datetime.now(UTC)  # noqa: TID251 - the one place

    def monotonic_s(self) -> float:
        """Return seconds since some fixed moment; only differences mean something."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)  # noqa: TID251 - the one place


class FakeClock:
    """A clock that moves only when told, for tests.

    Args:
        start: The first time of day it shows, UTC.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        """Return the time of day, UTC."""
        return datetime.fromtimestamp(self._start.timestamp() + self._elapsed_s, UTC)

    def monotonic_s(self) -> float:
        """Return the seconds by which the clock was moved."""
        return self._elapsed_s

    def sleep(self, seconds: float) -> None:
        """Move the clock instead of waiting."""
        self._elapsed_s += seconds


SYSTEM_CLOCK = SystemClock()
