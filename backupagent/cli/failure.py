"""Errors as an operator or a script gets them: exit code, three lines of text, or one JSON object."""

import errno
import os
import re
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from backupagent import errors
from backupagent.cli.document import printable
from backupagent.errors import BackupAgentError, Cancelled, NoSpace, PartialFailure

MAX_LISTED = 20
"""Errors of a partial failure that are printed; the JSON document holds them all."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_ENVIRONMENT = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EMFILE, errno.EIO}
)
"""Errors of the operating system that are no bug of this program."""

# What signed URLs and configuration carry; an SDK may quote them in a message.
_SECRET = re.compile(
    r"(?i)((?:[\w-]*(?:signature|token|secret|password|credential)[\w-]*|\bsig)\s*[=:]\s*)[^\s&'\",;]+"
)


@dataclass(frozen=True)
class Failure:
    """How a command ended when it failed.

    Attributes:
        reason: Name of the error's class.
        message: What happened to what.
        hint: What to do; may be empty.
        exit_code: Exit status.
        parts: The errors of a partial failure.
        trace: For a bug: its traceback.
    """

    reason: str
    message: str
    hint: str
    exit_code: int
    parts: tuple["Failure", ...] = ()
    trace: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``error`` in the JSON document."""
        fields: dict[str, Any] = {
            "reason": self.reason,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }
        return fields | ({"errors": [part.to_json() for part in self.parts]} if self.parts else {})

    def to_text(self) -> str:
        """Return the lines for stderr."""
        lines = [f"error: {printable(self.message)}"]
        lines += [f"  {part.reason}: {printable(part.message)}" for part in self.parts[:MAX_LISTED]]
        if len(self.parts) > MAX_LISTED:
            lines.append(f"  and {len(self.parts) - MAX_LISTED} more; --output json lists them all")
        lines.append(f"reason: {self.reason} (exit code {self.exit_code})")
        if self.hint:
            lines.append(f"hint: {printable(self.hint)}")
        return "\n".join(lines) + "\n" + self.trace


def describe(error: BaseException) -> Failure:
    """Turn what a command raised into what it reports."""
    if isinstance(error, PartialFailure):
        parts = tuple(describe(part) for part in error.errors)
        return Failure(error.reason, error.summary, error.hint, error.exit_code, parts)
    if isinstance(error, BackupAgentError):
        return Failure(error.reason, error.message, error.hint, error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return describe(Cancelled("stopped by SIGINT"))
    if isinstance(error, OSError) and error.errno in _FULL:
        return describe(NoSpace(_os_message(error)))
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT:
        return Failure(type(error).__name__, _os_message(error), "check the path, its permissions and its disk", 1)
    return _bug(error)


def _os_message(error: OSError) -> str:
    reason = os.strerror(error.errno or 0).lower()
    return f"{error.filename}: {reason}" if error.filename else reason


def _bug(error: BaseException) -> Failure:
    lines = traceback.format_exception(error)  # shows no values of variables
    return Failure(
        type(error).__name__,
        _without_secrets(f"unexpected {type(error).__name__}: {error}"),
        "this is a bug, please report it with the traceback on stderr",
        1,
        trace=_without_secrets("".join(lines)),
    )


def _without_secrets(text: str) -> str:
    return _SECRET.sub(r"\1***", text)


@cache
def error_classes() -> Sequence[type[BackupAgentError]]:
    """Return the classes of ``backupagent.errors``, the base first, every other one after its parent."""

    def walk(parent: type[BackupAgentError]) -> list[type[BackupAgentError]]:
        children = (child for child in parent.__subclasses__() if child.__module__.startswith(f"{errors.__name__}."))
        return [parent, *(found for child in children for found in walk(child))]

    return tuple(walk(BackupAgentError))


def exit_code_of(reasons: Iterable[str]) -> int:
    """Return the exit code for problems: that of their class, or of ``PartialFailure`` when they differ.

    Args:
        reasons: Names of error classes; one that is none counts as a class of its own.
    """
    codes = {error.__name__: error.exit_code for error in error_classes()}
    found = {codes.get(reason, PartialFailure.exit_code) for reason in reasons}
    return found.pop() if len(found) == 1 else PartialFailure.exit_code
