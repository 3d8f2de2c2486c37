"""When fulls are due."""

from datetime import UTC, datetime

import pytest

from backupagent.errors import ConfigError
from backupagent.server.schedule import Schedule, created

NOW = datetime(2026, 1, 1, 3, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 */1 * * *", "2026-01-01T04:00"),
        ("0 */24 * * *", "2026-01-02T00:00"),
        ("23 5/24 * * *", "2026-01-01T05:23"),
        (" 0 0 ? * ? ", "2026-01-02T00:00"),
        ("0 0 * * SUN", "2026-01-04T00:00"),
        ("@hourly", "2026-01-01T04:00"),
        ("@weekly", "2026-01-04T00:00"),
        ("@yearly", "2027-01-01T00:00"),
    ],
)
def test_the_next_moment(expression: str, expected: str) -> None:
    assert Schedule(expression).after(NOW) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize("expression", ["", "@sometimes", "0 25 * * *", "0 0 30 2 *", "* * * * * *", "0 * * *"])
def test_what_is_no_schedule(expression: str) -> None:
    with pytest.raises(ConfigError, match="schedule") as raised:
        Schedule(expression)
    assert "five fields" in raised.value.hint


def test_a_moment_is_missed_when_it_lies_between_the_last_full_and_now() -> None:
    schedule = Schedule("0 * * * *")
    assert not schedule.missed(NOW.replace(minute=1), NOW)
    assert schedule.missed(NOW.replace(hour=2, minute=59), NOW)
    assert schedule.missed(NOW.replace(hour=3, minute=0), NOW.replace(hour=4, minute=0))


def test_when_a_snapshot_was_taken() -> None:
    assert created("Full-00000000-00000009-1767268800.gz") == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert created("Full-00000000-00000009-999999999999") is None
    assert created("something else") is None
