"""``etcdbrctl``: the peer's command line over our operations, so that druid's Pods run ours unchanged.

Exit status 0 is success and every other one is a failure, as with the peer; ours say which (``docs/errors.md``).
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backupagent import __version__
from backupagent.cancel import Cancel
from backupagent.cli.display import showing
from backupagent.cli.etcdbrctl_flags import COMMANDS, OTHER_COMMANDS
from backupagent.cli.etcdbrctl_settings import (
    ON_MISSING_FINAL,
    Environment,
    copy_settings,
    restore_settings,
    server_settings,
)
from backupagent.cli.failure import describe
from backupagent.cli.pflag import HELP, Flag, Given, UsageError, Use, read_flags
from backupagent.cli.signals import stopping_by_signal
from backupagent.clock import SYSTEM_CLOCK
from backupagent.errors import ConfigError, FinalSnapshotMissing
from backupagent.operations.report import Report
from backupagent.progress import Progress
from backupagent.settings import ProgressStyle

TERMINATION_LOG = Path("/dev/termination-log")
"""Where Kubernetes reads a container's last words; made by the kubelet. ``TERMINATION_LOG`` names another place."""

MAX_TERMINATION_SIZE = 4096
"""Bytes that the kubelet takes of them.

Source: https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
"""

CUTS = (300, 100, 30)
"""Characters that are left of each text, tried in order, where last words are too long otherwise."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit status.
    """
    os.umask(0o077)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments, os.environ)
    except UsageError as error:  # said as the peer says it
        command = arguments[0] if arguments and arguments[0] in COMMANDS else ""
        sys.stderr.write(f"Error: {error}\n{usage(command)}hint: {error.hint}\n")
        failure = describe(error)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the border of the program: all are reported
        failure = describe(error)
        sys.stderr.write(failure.to_text())
    _last_words({"error": failure.to_json()})
    return failure.exit_code


def usage(command: str) -> str:
    """Return the usage of a command, or of the program."""
    if not command:
        return f"Usage:\n  etcdbrctl [command]\n\nAvailable Commands:\n  {'  '.join(COMMANDS)}\n"
    rows = (_usage_row(flag) for flag in COMMANDS[command])
    return f"Usage:\n  etcdbrctl {command} [flags]\n\nFlags:\n" + "".join(rows)


def _usage_row(flag: Flag) -> str:
    letter = f"-{flag.short}, " if flag.short else "    "
    remark = "" if flag.use is Use.HONOURED else f"; {flag.use.value}: {flag.note}"
    return f"  {letter}--{flag.name} {flag.kind.value} (default {flag.default!r}{remark})\n"


def _run(arguments: Sequence[str], environment: Environment) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else (HELP.name, ())
    if command in {"--version", "-v"}:
        sys.stdout.write(f"etcdbrctl Version: backupagent {__version__}\n")
        return 0
    if command in {HELP.name, f"--{HELP.name}", f"-{HELP.short}"}:
        sys.stdout.write(usage(rest[0] if rest and rest[0] in COMMANDS else ""))
        return 0
    if command in OTHER_COMMANDS:
        raise ConfigError(f'command "{command}" is not in this version', hint=OTHER_COMMANDS[command])
    if command.startswith("-"):
        raise UsageError(f"unknown flag: {command}")
    if command not in COMMANDS:
        raise UsageError(f'unknown command "{command}" for "etcdbrctl"')
    given = read_flags(COMMANDS[command], rest)
    if given.flag(HELP.name):
        sys.stdout.write(usage(command))
        return 0
    return _RUNNERS[command](given, environment)


def _copy(given: Given, environment: Environment) -> int:
    from backupagent import wiring  # noqa: PLC0415 - stores and codecs, which a help page does not need

    settings = copy_settings(given, environment)
    if given.number("max-backups-to-copy") == 0:
        _tell("nothing is copied, as --max-backups-to-copy=0 asks")
        _last_words({"copied": 0})
        return 0
    try:
        return _report(lambda progress, cancel: wiring.run_copy(settings, progress, cancel))
    except FinalSnapshotMissing as error:
        hint = f"check that the source took it; {ON_MISSING_FINAL}=copy in the environment goes on with less"
        raise FinalSnapshotMissing(error.message, hint=hint) from error


def _restore(given: Given, environment: Environment) -> int:
    from backupagent import wiring  # noqa: PLC0415 - stores and codecs, which a help page does not need

    settings = restore_settings(given, environment)
    return _report(lambda progress, cancel: wiring.run_restore(settings, progress, cancel))


def _server(given: Given, environment: Environment) -> int:
    from backupagent.server.run import run_server  # noqa: PLC0415 - aiohttp and Kubernetes

    settings = server_settings(given, environment)
    with stopping_by_signal() as cancel:
        return run_server(settings, cancel)


_RUNNERS: Mapping[str, Callable[[Given, Environment], int]] = {
    "server": _server,
    "copy": _copy,
    "restore": _restore,
}


def _report(work: Callable[[Progress, Cancel], Report]) -> int:
    """Run an operation with log lines, and tell its report to the log and to Kubernetes."""
    progress = Progress()
    with stopping_by_signal() as cancel, showing(progress, ProgressStyle.PLAIN):
        report = work(progress, cancel).to_json()
    _tell(f"done {json.dumps(report)}")
    _last_words(report)
    return 0


def _last_words(document: Mapping[str, Any]) -> None:
    """Write a document where Kubernetes finds it, when there is such a place."""
    named = os.environ.get("TERMINATION_LOG")
    path = Path(named or TERMINATION_LOG)
    try:
        if named or path.is_file():
            path.write_text(last_words(document))
    except OSError as error:
        _tell(f"the report is not at {path}: {error}")


def _tell(text: str) -> None:
    """Write a line of the log, as ``LogView`` does."""
    sys.stderr.write(f"{SYSTEM_CLOCK.now():%Y-%m-%dT%H:%M:%SZ} {text}\n")


def last_words(document: Mapping[str, Any]) -> str:
    """Return a document as JSON of at most ``MAX_TERMINATION_SIZE`` bytes; lists and long texts are cut for it."""
    text = json.dumps(document)  # ASCII: its length is its size
    for length in CUTS:
        if len(text) > MAX_TERMINATION_SIZE:
            text = json.dumps(_cut(document, length))
    return text


def _cut(value: Any, length: int) -> Any:  # noqa: ANN401 - a JSON document
    if isinstance(value, Mapping):
        return {name: _cut(part, length) for name, part in value.items() if not isinstance(part, list | tuple)}
    return f"{value[:length]}..." if isinstance(value, str) and len(value) > length else value


if __name__ == "__main__":
    sys.exit(main())
