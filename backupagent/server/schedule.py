"""When the next full snapshot is due. Pure."""

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from backupagent.errors import ConfigError
from backupagent.model.snapshot import Snapshot

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

FIELDS = 5
"""A sixth one would be seconds, which the peer does not know."""

HINT = "five fields, e.g. '0 */1 * * *'"


class Schedule:
    """Moments by a cron expression of five fields, UTC.

    Args:
        expression: E.g. ``0 */1 * * *`` or ``@hourly``; ``?`` stands for ``*``, as with the peer.

    Raises:
        ConfigError: it is none.
    """

    def __init__(self, expression: str) -> None:
        text = expression.strip()
        self._expression = WORDS.get(text, text).replace("?", "*")
        try:
            self.after(datetime(2026, 1, 1, tzinfo=UTC))
        except (CronSimError, StopIteration) as error:
            reason = str(error) or "it never comes"
            raise ConfigError(f"schedule {expression!r}: {reason}", hint=HINT) from error
        if len(self._expression.split()) != FIELDS:
            raise ConfigError(f"schedule {expression!r}: it has not {FIELDS} fields", hint=HINT)

    def after(self, moment: datetime) -> datetime:
        """Return the first moment after one."""
        return next(CronSim(self._expression, moment.astimezone(UTC)))

    def missed(self, last: datetime, now: datetime) -> bool:
        """Whether a moment has passed since the last full snapshot was taken."""
        return self.after(last) <= now


def created(name: str) -> datetime | None:
    """Return when a snapshot was taken, by its name; None when the name tells no time that a calendar knows."""
    try:
        return datetime.fromtimestamp(Snapshot.parse(name).created_s, UTC)
    except (ValueError, OverflowError, OSError):  # a name in a bucket can say any number
        return None
