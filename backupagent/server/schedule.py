"""When the next full snapshot is due. Pure."""

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from backupagent.errors import ConfigError

WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""Source: robfig/cron, ParseStandard, which the peer uses."""


class Schedule:
    """Moments by a cron expression of five fields, UTC.

    Args:
        expression: E.g. ``0 */1 * * *`` or ``@hourly``.

    Raises:
        ConfigError: it is none.
    """

    def __init__(self, expression: str) -> None:
        self._expression = WORDS.get(expression.strip(), expression.strip())
        try:
            self.after(datetime(2026, 1, 1, tzinfo=UTC))
        except (CronSimError, StopIteration) as error:
            reason = str(error) or "it never comes"
            raise ConfigError(f"schedule {expression!r}: {reason}", hint="five fields, e.g. '0 */1 * * *'") from error

    def after(self, moment: datetime) -> datetime:
        """Return the first moment after one."""
        return next(CronSim(self._expression, moment.astimezone(UTC)))

    def missed(self, last: datetime, now: datetime) -> bool:
        """Whether a moment has passed since the last full snapshot was taken."""
        return self.after(last) <= now
