"""A restore as a child process: its memory comes back, its crash stays there, heartbeats go on."""

import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import IO

import msgspec

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.errors import DataDirInvalid
from backupagent.failpoints import VARIABLE as FAILPOINTS
from backupagent.model.event import format_time
from backupagent.model.restored import Restored
from backupagent.server.etcd_config import MemberConfig
from backupagent.settings import ServerSettings

LOOK_S = 0.1
"""How often it is looked whether the work was cancelled."""

STOP_S = 30.0
"""How long a child gets to remove what it has half made."""

MAX_REPORT_SIZE = 1024 * 1024

OPTIONS = "BACKUPAGENT_"
"""Begins the variables that stand for options: those of the sidecar are not meant for the restore."""

_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")
"""Begins the child's lines; ours have a time already."""

_log = logging.getLogger(__name__)


class RestoreProcess:
    """Makes the data directory of one member by ``backupagent restore``.

    Args:
        settings: The store and the data directory.
        config: The member and its cluster.
        cancel: Ends the child.
        clock: Source of time.
    """

    def __init__(
        self, settings: ServerSettings, config: MemberConfig, cancel: Cancel, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._settings = settings
        self._config = config
        self._cancel = cancel
        self._clock = clock

    def command(self) -> list[str]:
        """Return the child's command line; it holds no secret."""
        config = self._config
        return [
            sys.executable,
            "-m",
            "backupagent.server.restore_child",
            "restore",
            f"--store={self._settings.store}",
            f"--data-dir={self._settings.data_dir}",
            f"--name={config.name}",
            f"--initial-cluster={config.initial_cluster}",
            f"--initial-cluster-token={config.initial_cluster_token}",
            f"--initial-advertise-peer-urls={','.join(config.peer_urls)}",
            "--output=json",
            "--progress=plain",
        ]

    def run(self) -> Restored:
        """Restore; what the child says on stderr becomes log lines.

        Raises:
            Cancelled: the token was set; nothing half-made is left.
            DataDirInvalid: the restore failed, with the child's reason.
        """
        child = subprocess.Popen(  # noqa: S603 - our own program
            self.command(),
            stdin=subprocess.PIPE,  # see restore_child
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(os.environ),
            encoding="utf-8",
            errors="replace",
        )
        collected: list[str] = []
        readers = [
            threading.Thread(target=_log_lines, args=(child.stderr,), daemon=True),
            threading.Thread(target=lambda: collected.append(_read(child.stdout)), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            while child.poll() is None and not self._cancel.wait(LOOK_S):
                pass
        finally:
            _stop(child)
            for reader in readers:
                reader.join()
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()
        self._cancel.raise_if_set()
        return self._restored(child.returncode, "".join(collected))

    def _restored(self, code: int, output: str) -> Restored:
        try:
            report = json.loads(output)
            if code == 0:
                fields = {name: report[name] for name in Restored.__struct_fields__ if name != "at"}
                fields |= {"seconds": round(report["seconds"], 3), "at": format_time(self._clock.now())}
                return msgspec.convert(fields, Restored)
            told = report["error"]
            raise DataDirInvalid(
                f"the restore failed: {told['reason']}: {told['message']}",
                endpoint=str(self._settings.data_dir),
                hint=told["hint"],
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:  # what msgspec raises is a ValueError
            raise DataDirInvalid(
                f"the restore ended with {code} and no report",
                endpoint=str(self._settings.data_dir),
                hint="its last lines in the log tell more; -9 is the kernel's when memory has run out",
            ) from error


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the child sees: credentials and all, but no options."""
    return {name: text for name, text in environment.items() if not name.startswith(OPTIONS) or name == FAILPOINTS}


def _read(stream: IO[str] | None) -> str:
    """Return what comes, up to a limit, and read on to the end: a child whose output nobody reads hangs."""
    assert stream is not None, "stdout is a pipe"  # noqa: S101 - see Popen
    kept = stream.read(MAX_REPORT_SIZE)
    while stream.read(MAX_REPORT_SIZE):
        pass
    return kept


def _log_lines(stream: IO[str] | None) -> None:
    assert stream is not None, "stderr is a pipe"  # noqa: S101 - see Popen
    for line in stream:
        _log.info("%s", _TIME.sub("", line.rstrip()))


def _stop(child: "subprocess.Popen[str]") -> None:
    """End a child that still runs: gently first, so that it removes what it has half made."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
