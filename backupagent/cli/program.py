"""The program: understand the command line, run the command, print its report, end with its exit code."""

import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from backupagent.cli.display import showing
from backupagent.cli.document import Document, render_plain, render_terminal
from backupagent.cli.failure import Failure, describe
from backupagent.cli.options import VARIABLE_PREFIX
from backupagent.cli.parser import Invocation, parse
from backupagent.cli.signals import stopping_by_signal
from backupagent.errors import ConfigError
from backupagent.progress import Progress
from backupagent.settings import OutputFormat


def run(arguments: Sequence[str]) -> int:
    """Do what a command line says.

    Args:
        arguments: Without the program's name.

    Returns:
        The exit status: 0, or that of the error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if not arguments:
            parse(["--help"])
            return ConfigError.exit_code
        invocation = parse(arguments)
        return _execute(invocation) if invocation else 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the border of the program: all are reported
        return _fail(describe(error), as_json=_wants_json(arguments, os.environ))


def _execute(invocation: Invocation) -> int:
    command, progress = invocation.command, Progress()
    with stopping_by_signal() as cancel, showing(progress, invocation.reporting.progress):
        outcome = command.run(invocation.settings, progress, cancel)
    if outcome.report is not None and command.show is not None:
        if invocation.reporting.output is OutputFormat.JSON:
            _write(_json_text(outcome.report.to_json()))
        else:
            _write_document(command.show(outcome.report))
    return outcome.exit_code


def _fail(failure: Failure, *, as_json: bool) -> int:
    sys.stderr.write(failure.to_text())
    if as_json:
        _write(_json_text({"error": failure.to_json()}))
    return failure.exit_code


def _wants_json(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Tell from raw arguments, since they may be wrong, whether failures are to be told as JSON."""
    asked = environment.get(f"{VARIABLE_PREFIX}OUTPUT", "")
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument in {"--output", "-o"}:
            asked = following
        elif argument.startswith(("--output=", "-o")):
            asked = argument.removeprefix("--output=").removeprefix("-o")
    return asked == OutputFormat.JSON


def _json_text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def _write_document(document: Document) -> None:
    if sys.stdout.isatty():
        render_terminal(document)
    else:
        _write(render_plain(document))


def _write(text: str) -> None:
    """Write to stdout. A reader that has gone away is no failure: the work is done.

    Raises:
        OSError: it cannot be written, e.g. to a full disk.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # Python flushes stdout once more when it ends; from here on everything goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OSError(error.errno, error.strerror, "standard output") from error
