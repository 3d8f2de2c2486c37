"""The migration controller as a child process."""

import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.testing.server_process import LocalServer, http_get


class ControllerProcess(LocalServer):
    """``backupagent controller``; may be stopped, killed and started again.

    Args:
        kubeconfig: Of the garden cluster.
        options: Further options of the command, e.g. ``("--poll", "500ms")``.
        log_path: Where its output goes, appended; by default a temporary file.
        host: Loopback address of its health and metrics.
        clock: Source of time.
    """

    def __init__(
        self,
        kubeconfig: Path,
        options: Sequence[str] = (),
        *,
        log_path: Path | None = None,
        host: str = "127.0.0.1",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__("controller", host=host, ports={"http": None}, log_path=log_path, clock=clock)
        self._kubeconfig = kubeconfig
        self._options = tuple(options)

    def is_ready(self) -> bool:
        """Whether it watches Shoots."""
        return http_get(self.host, self.port("http"), "/readyz")[0] == HTTPStatus.OK

    def metrics(self) -> str:
        """Return its metrics."""
        return http_get(self.host, self.port("http"), "/metrics")[1].decode()

    def _command(self) -> list[str | Path]:
        place = [f"--kubeconfig={self._kubeconfig}", f"--host={self.host}", f"--port={self.port('http')}"]
        return [sys.executable, "-m", "backupagent", "controller", *place, *self._options]

    def _environment(self) -> Mapping[str, str]:
        return {}
