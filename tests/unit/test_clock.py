"""Time, and time for tests."""

from datetime import UTC, datetime, timedelta

from backupagent.clock import SYSTEM_CLOCK, FakeClock


def test_the_system_clock_tells_utc_and_never_runs_backwards() -> None:
    assert SYSTEM_CLOCK.now().tzinfo is UTC
    first = SYSTEM_CLOCK.monotonic_s()
    SYSTEM_CLOCK.sleep(0)
    assert SYSTEM_CLOCK.monotonic_s() >= first


def test_a_fake_clock_moves_only_when_somebody_sleeps() -> None:
    start = datetime(2026, 11, 23, 2, 23, 29, tzinfo=UTC)
    clock = FakeClock(start)
    assert (clock.now(), clock.monotonic_s()) == (start, 0.0)
    clock.sleep(90.5)
    assert (clock.now(), clock.monotonic_s()) == (start + timedelta(seconds=90.5), 90.5)
    assert clock.now() == clock.now()
