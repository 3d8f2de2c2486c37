"""Writes ``docs/errors.md``: ``python -m backupagent.cli.errors_page > docs/errors.md``."""

import inspect

from backupagent.cli.failure import error_classes
from backupagent.errors import BackupAgentError

_HEAD = """# Errors and exit codes

Generated from `backupagent/errors/` by `python -m backupagent.cli.errors_page > docs/errors.md`; do not edit.

Every failure ends the program with the exit code of its reason. The codes are stable: a script may rely on them.
On stderr it says what happened, the reason and what to do; with `--output json` stdout holds
`{"error": {"reason", "message", "hint", "exit_code"}}`, for a `PartialFailure` with `errors`, a list of the same.

0 is success, 1 is a bug or trouble of the operating system that none of the reasons below describes, and a second
SIGINT or SIGTERM ends the program at once with 130 or 143.

*Retryable* says that the program itself has tried again, with growing pauses, before it gave up. *HTTP* is the
status by which an HTTP interface reports the reason. *Under* is the class that it is a kind of.

| exit | reason | under | HTTP | retryable | meaning | what to do |
|---:|---|---|---:|---|---|---|
"""


def _meaning(error: type[BackupAgentError]) -> str:
    return inspect.getdoc(error).partition("\n\n")[0].replace("\n", " ")  # type: ignore[union-attr] # all have one


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _row(error: type[BackupAgentError]) -> str:
    parent = error.__mro__[1]
    under = "" if parent is BackupAgentError else f"`{parent.__name__}`"
    hint = error.default_hint or "see the errors that it holds"
    retryable = "yes" if error.retryable else ""
    cells = [str(error.exit_code), f"`{error.__name__}`", under, str(error.http_status), retryable]
    return f"| {' | '.join([*cells, _cell(_meaning(error)), _cell(hint)])} |"


def page() -> str:
    """Return the page, one row per class of errors, by exit code."""
    classes = sorted(error_classes()[1:], key=lambda error: error.exit_code)
    return _HEAD + "".join(f"{_row(error)}\n" for error in classes)


if __name__ == "__main__":
    print(page(), end="")
