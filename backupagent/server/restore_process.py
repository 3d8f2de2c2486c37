"""A restore as a child process: its memory comes back, its crash stays there, heartbeats go on."""

import json
import logging
import subprocess
import sys
import threading
from typing import IO

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.errors import DataDirInvalid
from backupagent.model.event import format_time
from backupagent.model.restored import Restored
from backupagent.server.etcd_config import MemberConfig
from backupagent.settings import ServerSettings

LOOK_S = 0.1
"""How often it is looked whether the work was cancelled."""

STOP_S = 30.0
"""How long a child gets to remove what it has half made."""

MAX_REPORT_SIZE = 1024 * 1024

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
            "backupagent",
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
            self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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
        self._cancel.raise_if_set()
        return self._restored(child.returncode, "".join(collected))

    def _restored(self, code: int, output: str) -> Restored:
        try:
            report = json.loads(output)
            if code == 0:
                return Restored(
                    revision=report["revision"],
                    hash_kv=report["hash_kv"],
                    compact_revision=report["compact_revision"],
                    full=report["full"],
                    deltas=report["deltas"],
                    matches_manifest=report["matches_manifest"],
                    seconds=round(report["seconds"], 3),
                    at=format_time(self._clock.now()),
                )
            told = report["error"]
            raise DataDirInvalid(
                f"the restore failed: {told['reason']}: {told['message']}",
                endpoint=str(self._settings.data_dir),
                hint=told["hint"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataDirInvalid(
                f"the restore ended with {code} and no report", endpoint=str(self._settings.data_dir)
            ) from error


def _read(stream: IO[str] | None) -> str:
    assert stream is not None, "stdout is a pipe"  # noqa: S101 - see Popen
    return stream.read(MAX_REPORT_SIZE)


def _log_lines(stream: IO[str] | None) -> None:
    assert stream is not None, "stderr is a pipe"  # noqa: S101 - see Popen
    for line in stream:
        _log.info("%s", line.rstrip())


def _stop(child: "subprocess.Popen[str]") -> None:
    """End a child that still runs: gently first, so that it removes what it has half made."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
