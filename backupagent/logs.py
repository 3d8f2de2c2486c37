"""Log lines of the long-running commands: one place that decides how they look and that no secret is in them.

Modules log with ``logging.getLogger(__name__)``, one short sentence, facts as ``extra={"fields": {...}}``.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

SECRETS = re.compile(
    r"(?i)((?:password|passwd|secret\w*|token|authorization|accesskey\w*|access_key\w*)\\?[\"']?\s*[:=]\s*\\?[\"']?"
    r"(?:bearer\s+)?)[^\s,;\"'&\\]+|(://[^/\s:@]*:)[^/\s@]+(?=@)"
)
"""``name=value`` and ``name: value`` of what must not be shown, and passwords in URLs."""


def without_secrets(text: str) -> str:
    """Return the text with the values of what looks like a secret replaced by ``***``."""
    return SECRETS.sub(lambda match: f"{match[1] or match[2]}***", text)


class LineFormatter(logging.Formatter):
    """``2026-11-23T20:41:07.123Z info server.loop: delta saved name=Incr-...``, or the same as one JSON object.

    Args:
        as_json: JSON, one object a line.
    """

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; a traceback is folded into it."""
        fields: dict[str, Any] = getattr(record, "fields", {})
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        name = record.name.removeprefix("backupagent.")
        message = record.getMessage()
        if record.exc_info:
            message += " | " + self.formatException(record.exc_info).replace("\n", " | ")
        if self._as_json:
            line = {"time": at, "level": record.levelname.lower(), "logger": name, "message": message} | fields
            return without_secrets(json.dumps(line, default=str))
        facts = "".join(f" {key}={value}" for key, value in fields.items())
        return without_secrets(f"{at} {record.levelname.lower()} {name}: {message}{facts}".replace("\n", " "))


def log_to(stream: TextIO = sys.stderr, *, level: int = logging.INFO, as_json: bool = False) -> None:
    """Send the log lines of backupagent to a stream; what libraries log is shown from WARNING on.

    Args:
        stream: Where to.
        level: The least level of our own lines that is shown.
        as_json: One JSON object a line.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(as_json=as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("backupagent").setLevel(level)
