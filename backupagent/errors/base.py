"""The base of all errors, and those that are about no part of the outside."""

from collections.abc import Sequence
from typing import ClassVar


class BackupAgentError(Exception):
    """Base of all errors raised on purpose.

    Attributes:
        exit_code: Exit status of the command line, stable, documented in ``docs/errors.md``.
        http_status: Status of an HTTP answer that reports this error.
        retryable: Whether the same call may succeed when it is made again.
        hint: What the operator can do about it.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint

    @property
    def reason(self) -> str:
        """Name of the class: also the reason in a report or a Kubernetes condition."""
        return type(self).__name__


class ConfigError(BackupAgentError):
    """An option, a URI or a file of settings is wrong; nothing was attempted."""

    exit_code = 2
    http_status = 400
    default_hint = "see `backupagent COMMAND --help`"


class Cancelled(BackupAgentError):
    """Stopped by SIGTERM, SIGINT or a caller; whatever was half made is undone."""

    exit_code = 130
    http_status = 499
    default_hint = "run the same command again: finished work is not repeated"


class DataDirNotEmpty(BackupAgentError):
    """A restore never writes into an existing data directory."""

    exit_code = 34
    http_status = 409
    default_hint = "name a directory that does not exist, or move the old one away"


class NoSpace(BackupAgentError):
    """The file system is full."""

    exit_code = 35
    http_status = 507
    default_hint = "free space on the file system that holds the path, then run the command again"


class PartialFailure(BackupAgentError):
    """Some objects were handled and some were not.

    Args:
        message: What was attempted and how much of it failed.
        errors: Every error, in the order in which they occurred, at least one.
        hint: What the operator can do; by default the hint of the first error.

    Attributes:
        summary: The message without those of the errors.
    """

    exit_code = 40

    def __init__(self, message: str, errors: Sequence[BackupAgentError], *, hint: str | None = None) -> None:
        super().__init__(
            "; ".join([message, *(str(error) for error in errors)]), hint=errors[0].hint if hint is None else hint
        )
        self.summary = message
        self.errors = tuple(errors)


class FinalSnapshotMissing(BackupAgentError):
    """No final snapshot appeared in time."""

    exit_code = 41
    http_status = 404
    default_hint = "check that the source took it; --on-missing-final=copy goes on with less"


class NotEqual(BackupAgentError):
    """Two sides that had to be equal are not."""

    exit_code = 42
    http_status = 409
    default_hint = "do not use the copy; verify both sides to see which one is wrong"


class PreflightFailed(BackupAgentError):
    """A migration must not begin: something that it needs is missing or unhealthy.

    Args:
        message: Every reason, in one line.
        hint: What the operator can do about the first one.
    """

    exit_code = 43
    http_status = 409
    default_hint = "mend what is named, then ask for the migration again"


class MigrationFailed(BackupAgentError):
    """A migration ended with less than everything, or cannot be shown to have arrived whole."""

    exit_code = 44
    default_hint = "keep the source's backups; `backupagent migrations` shows what is known"
