"""``etcdbrctl``: the peer's command line over our operations, so that druid's Pods run ours unchanged.

Exit status 0 is success and every other one is a failure, as with the peer; ours say which (``docs/errors.md``).
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from backupagent import __version__
from backupagent.cancel import Cancel
from backupagent.cli.display import showing
from backupagent.cli.etcdbrctl_flags import COMMANDS, Flag, Given, UsageError, read_flags
from backupagent.cli.failure import describe
from backupagent.cli.signals import stopping_by_signal
from backupagent.errors import ConfigError
from backupagent.operations.report import Report
from backupagent.progress import Progress
from backupagent.settings import (
    ApiAuth,
    CopySettings,
    OnMissingFinal,
    ProgressStyle,
    RestoreSettings,
    ServerSettings,
)
from backupagent.stores.peer import CREDENTIALS_VARIABLES, SCHEMES, peer_uri

FOREVER_S = 10 * 365 * 24 * 3600.0
"""Wait for a final snapshot without a limit: the peer's 0."""

DAY_S = 24 * 3600.0

ON_MISSING_FINAL = "BACKUPAGENT_ON_MISSING_FINAL"
"""Druid's arguments are fixed, so the way back to the peer's behaviour is a variable."""

TERMINATION_LOG = Path("/dev/termination-log")
"""Where Kubernetes reads a container's last words; made by the kubelet."""

MAX_TERMINATION_SIZE = 4096

Environment = Mapping[str, str]


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
    except UsageError as error:
        command = arguments[0] if arguments and arguments[0] in COMMANDS else ""
        sys.stderr.write(f"Error: {error}\n{usage(command)}")
        return error.exit_code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the border of the program: all are reported
        failure = describe(error)
        sys.stderr.write(failure.to_text())
        _last_words({"error": failure.to_json()}, os.environ)
        return failure.exit_code


def usage(command: str) -> str:
    """Return the usage of a command, or of the program."""
    if not command:
        return f"Usage:\n  etcdbrctl [command]\n\nAvailable Commands:\n  {'  '.join(COMMANDS)}\n"
    rows = (_usage_row(flag) for flag in COMMANDS[command])
    return f"Usage:\n  etcdbrctl {command} [flags]\n\nFlags:\n" + "".join(rows)


def _usage_row(flag: Flag) -> str:
    letter = f"-{flag.short}, " if flag.short else "    "
    remark = "" if flag.use.name == "HONOURED" else f"; {flag.use.value}: {flag.note}"
    return f"  {letter}--{flag.name} {flag.kind.value} (default {flag.default!r}{remark})\n"


def _run(arguments: Sequence[str], environment: Environment) -> int:
    if not arguments:
        sys.stdout.write(usage(""))
        return 0
    command, rest = arguments[0], arguments[1:]
    if command in {"--version", "-v"}:
        sys.stdout.write(f"etcdbrctl Version: backupagent {__version__}\n")
        return 0
    if command in {"help", "--help", "-h"}:
        sys.stdout.write(usage(""))
        return 0
    if command not in COMMANDS:
        kind = "flag" if command.startswith("-") else "command"
        message = f"unknown {kind}: {command}" if kind == "flag" else f'unknown command "{command}" for "etcdbrctl"'
        raise UsageError(message)
    if any(word in {"--help", "-h"} for word in rest):
        sys.stdout.write(usage(command))
        return 0
    return _RUNNERS[command](read_flags(COMMANDS[command], rest), environment)


def store_of(given: Given, environment: Environment, *, source: bool = False) -> str:
    """Return the URI of the store that flags and variables name; empty when no provider is named.

    A copy's source takes provider and prefix of the target where it names none of its own, but not the container.

    Raises:
        ConfigError: the provider is not supported, or no container is named.
    """
    prefix = "source-" if source else ""
    variables = "SOURCE_" if source else ""
    provider = given.text(f"{prefix}storage-provider") or given.text("storage-provider")
    if not provider:
        return ""
    container = given.text(f"{prefix}store-container") or environment.get(f"{variables}STORAGE_CONTAINER", "")
    place = given.text(f"{prefix}store-prefix") or given.text("store-prefix")
    return peer_uri(
        provider,
        container,
        place,
        endpoint=given.text(f"{prefix}store-endpoint-override"),
        credentials=_credentials(provider, variables, environment),
        home=environment.get("HOME", "/"),
    )


def _credentials(provider: str, prefix: str, environment: Environment) -> str:
    """Return the file or directory of credentials that the peer's variables name."""
    names = CREDENTIALS_VARIABLES.get(SCHEMES.get(provider.lower(), ""), "")
    candidates = (f"{prefix}{names}_APPLICATION_CREDENTIALS{ending}" for ending in ("_JSON", ""))
    return next((environment[name] for name in candidates if names and environment.get(name)), "")


def copy_settings(given: Given, environment: Environment) -> CopySettings:
    """Return what ``copy`` shall do."""
    wait_s = 0.0
    if given.flag("wait-for-final-snapshot"):
        wait_s = given.seconds("wait-for-final-snapshot-timeout") or FOREVER_S
    try:
        on_missing = OnMissingFinal(environment.get(ON_MISSING_FINAL) or OnMissingFinal.ERROR.value)
    except ValueError as error:
        raise ConfigError(f"{ON_MISSING_FINAL}: {error}", hint="it is error or copy") from error
    return CopySettings(
        source=_needed(store_of(given, environment, source=True), "--source-storage-provider"),
        target=_needed(store_of(given, environment), "--storage-provider"),
        max_backups=max(0, given.number("max-backups-to-copy")),
        max_backup_age=max(0, given.number("max-backup-age")) * DAY_S,
        wait_for_final=wait_s,
        on_missing_final=on_missing,
    )


def restore_settings(given: Given, environment: Environment) -> RestoreSettings:
    """Return what ``restore`` shall do."""
    return RestoreSettings(
        store=_needed(store_of(given, environment), "--storage-provider"),
        data_dir=Path(given.text("data-dir")),
        name=given.text("name"),
        initial_cluster=given.text("initial-cluster"),
        initial_cluster_token=given.text("initial-cluster-token"),
        initial_advertise_peer_urls=",".join(given.list("initial-advertise-peer-urls")),
    )


def server_settings(given: Given, environment: Environment) -> ServerSettings:
    """Return what ``server`` shall do; its callers send no certificate and no token."""
    return ServerSettings(
        endpoints=given.list("endpoints"),
        cacert=_path(given.text("cacert")),
        cert=_path(given.text("cert")),
        key=_path(given.text("key")),
        user=given.text("etcd-username"),
        connect_timeout=given.seconds("etcd-connection-timeout"),
        store=store_of(given, environment),
        data_dir=Path(given.text("data-dir")),
        port=given.number("server-port"),
        server_cert=_path(given.text("server-cert")),
        server_key=_path(given.text("server-key")),
        api_auth=ApiAuth.OFF,
        schedule=given.text("schedule"),
        delta_period=given.seconds("delta-snapshot-period"),
        compression=given.text("compression-policy") if given.flag("compress-snapshots") else "none",
        snapshot_leases=given.flag("enable-snapshot-lease-renewal"),
        full_lease=given.text("full-snapshot-lease-name"),
        delta_lease=given.text("delta-snapshot-lease-name"),
        member_lease=given.flag("enable-member-lease-renewal"),
        heartbeat=given.seconds("k8s-heartbeat-duration"),
    )


def _needed(uri: str, flag: str) -> str:
    if not uri:
        raise ConfigError(f"{flag} is missing", hint="the peer takes none for Local; say --storage-provider=Local")
    return uri


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _copy(given: Given, environment: Environment) -> int:
    from backupagent import wiring  # noqa: PLC0415 - stores and codecs, which a help page does not need

    settings = copy_settings(given, environment)
    if given.number("max-backups-to-copy") == 0:
        sys.stderr.write("--max-backups-to-copy=0: nothing is copied, as asked\n")
        return 0
    _report(lambda progress, cancel: wiring.run_copy(settings, progress, cancel), environment)
    return 0


def _restore(given: Given, environment: Environment) -> int:
    from backupagent import wiring  # noqa: PLC0415 - stores and codecs, which a help page does not need

    settings = restore_settings(given, environment)
    _report(lambda progress, cancel: wiring.run_restore(settings, progress, cancel), environment)
    return 0


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


def _report(work: Callable[[Progress, Cancel], Report], environment: Environment) -> None:
    """Run an operation with log lines, and tell its report to the log and to Kubernetes."""
    progress = Progress()
    with stopping_by_signal() as cancel, showing(progress, ProgressStyle.PLAIN):
        report = work(progress, cancel).to_json()
    sys.stderr.write(json.dumps(report) + "\n")
    _last_words(report, environment)


def _last_words(document: Mapping[str, object], environment: Environment) -> None:
    """Write the report where Kubernetes finds it; details go first when it is too long."""
    path = Path(environment.get("TERMINATION_LOG") or TERMINATION_LOG)
    text = json.dumps(document)
    if len(text.encode()) > MAX_TERMINATION_SIZE:
        text = json.dumps({name: value for name, value in document.items() if not isinstance(value, list | dict)})
    try:
        if path.is_file():
            path.write_text(text.encode()[:MAX_TERMINATION_SIZE].decode(errors="ignore"))
    except OSError as error:
        sys.stderr.write(f"the report is not at {path}: {error}\n")


if __name__ == "__main__":
    sys.exit(main())
