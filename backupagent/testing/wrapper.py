"""etcd-wrapper's side of a member's Pod: asks the sidecar for a data directory and a configuration, then runs etcd.

``python -m backupagent.testing.wrapper start-etcd --backup-restore-host-port=127.0.0.1:8080 ...`` makes the requests
of the real one, in its order and with its pauses, and treats the answers as it does; see ``Sidecar`` for its most
demanding habit. It runs the etcd named by ETCD_BINARY, or the newest one that is found. What is not emulated: TLS, and
the readiness question is etcd's own ``/health`` (a linearizable read) instead of a read of the key ``foo``.

Source: etcd-wrapper 0d41e79, internal/{app,bootstrap,brclient}; the behaviour was observed on the running program.
"""

import argparse
import http.client
import io
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import cast

from backupagent.cancel import Cancel
from backupagent.errors import BackupAgentError
from backupagent.logs import log_to
from backupagent.testing.server_binaries import require
from backupagent.testing.server_process import http_get

BINARY_VARIABLE = "ETCD_BINARY"
PAUSE_VARIABLE = "ETCD_WRAPPER_PAUSE_S"
PAUSE_S = 1.0
"""Between two requests to the sidecar; the real one's."""

REQUEST_TIMEOUT_S = 60.0
CONFIG_ATTEMPTS = 5
HEALTH_TIMEOUT_S = 5.0
HEALTH_PAUSES = 2
"""Pauses between two questions whether etcd is ready."""

WINDOW = 4096
"""Bytes that Go's HTTP transport has read of an answer when the header is parsed (the default size of bufio.Reader)."""

ACCEPTED = (HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED)
SIGNAL_NAMES = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupt"}
"""Go's names of signals; they stand in ``exit_code``."""

DATA_FOLDER = Path("/var/etcd/data")
"""Where the volume is; the real one has it hard-coded too."""

_log = logging.getLogger(__name__)


class SidecarFailed(BackupAgentError):
    """The sidecar did not answer as the wrapper needs it."""

    default_hint = "the sidecar's log tells more"


@dataclass(frozen=True)
class Sidecar:
    """The sidecar's HTTP interface as the wrapper sees it.

    The real client cancels its request as soon as it has the header and reads the body afterwards: it gets only what
    arrived together with the header. So an answer is what one read of the socket brings, and one that is not whole
    by then has failed.

    Attributes:
        host: Its address.
        port: Its port.
    """

    host: str
    port: int

    def get(self, path: str) -> bytes:
        """Return the body of an answer.

        Raises:
            SidecarFailed: nobody answers, the status is no success, or the body did not come with the header.
        """
        try:
            status, body = _parsed(self._window(path))
        except http.client.IncompleteRead as error:
            raise SidecarFailed(f"GET {path}: context canceled: the body did not come with the header") from error
        except (OSError, http.client.HTTPException) as error:
            raise SidecarFailed(f"GET {path}: {error!r}") from error
        if status not in ACCEPTED:
            raise SidecarFailed(f"GET {path}: {status} {body.decode(errors='replace').strip()}")
        return body

    def _window(self, path: str) -> bytes:
        request = f"GET {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nUser-Agent: Go-http-client/1.1\r\n\r\n"
        with socket.create_connection((self.host, self.port), REQUEST_TIMEOUT_S) as connection:
            connection.sendall(request.encode())
            return connection.recv(WINDOW)


def _parsed(window: bytes) -> tuple[int, bytes]:
    """Return status and body.

    Raises:
        IncompleteRead: the answer goes on, or does not tell where it ends.
        HTTPException: it is none.
    """
    answer = http.client.HTTPResponse(cast("socket.socket", _Arrived(window)))
    answer.begin()
    if "Content-Length" not in answer.headers and not answer.chunked:
        raise http.client.IncompleteRead(window)
    return answer.status, answer.read()


class _Arrived:
    """What was read of a connection, for the parser of answers."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._content)


class Wrapper:
    """One start of etcd, from the first question to the end of the process.

    Args:
        sidecar: Makes data directory and configuration.
        etcd: Host and port at which the etcd will serve clients.
        binary: The etcd.
        folder: Where ``exit_code`` lies.
        home: Where the configuration is written.
        pause_s: Between two requests to the sidecar.

    Attributes:
        ready: Whether etcd answered when it was asked last.
    """

    def __init__(
        self,
        sidecar: Sidecar,
        etcd: tuple[str, int],
        binary: Path,
        *,
        home: Path,
        folder: Path = DATA_FOLDER,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._sidecar = sidecar
        self._etcd = etcd
        self._binary = binary
        self._exit_code = folder / "exit_code"
        self._config = home / "etcd.conf.yaml"
        self._pause_s = pause_s
        self._cancel = Cancel()
        self.ready = False

    def run(self) -> int:
        """Bootstrap, run etcd until it ends or is told to, and return the exit code of the process."""
        self._initialize()
        try:
            config = self._fetch_config()
        except SidecarFailed as error:
            _log.error("no configuration", extra={"fields": {"reason": str(error)}})
            return 1
        return 0 if self._cancel.is_set else self._run_etcd(config)

    def received(self, number: int, _frame: FrameType | None = None) -> None:
        """Take a signal: leave word of it for the next start, and end."""
        name = SIGNAL_NAMES[signal.Signals(number)]
        self._exit_code.write_text(name)
        self.stop(name)

    def stop(self, why: str) -> None:
        """End etcd, and then the process."""
        self._cancel.set(why)

    def _initialize(self) -> None:
        """Ask until the data directory is there; whatever goes wrong is tried again for ever.

        The sidecar forgets ``Successful`` as soon as it was read.
        """
        while not self._cancel.is_set:
            try:
                status = self._sidecar.get("/initialization/status")
                if status == b"Successful":
                    return
                if status == b"New":
                    self._sidecar.get(f"/initialization/start?mode={self._mode()}")
            except SidecarFailed as error:
                _log.warning("initialization", extra={"fields": {"reason": str(error)}})
            self._cancel.wait(self._pause_s)

    def _mode(self) -> str:
        """A volume that was left in order needs no deep look."""
        ended_well = self._exit_code.exists() and self._exit_code.read_text().strip() in SIGNAL_NAMES.values()
        return "sanity" if ended_well else "full"

    def _fetch_config(self) -> Path:
        """Write etcd's configuration.

        Raises:
            SidecarFailed: it could not be had in five attempts.
        """
        for attempt in range(1, CONFIG_ATTEMPTS + 1):
            try:
                body = self._sidecar.get("/config")
                break
            except SidecarFailed as error:
                _log.warning("configuration", extra={"fields": {"attempt": attempt, "reason": str(error)}})
                if attempt == CONFIG_ATTEMPTS or self._cancel.wait(self._pause_s):
                    raise
        self._config.unlink(missing_ok=True)  # an existing file would keep its mode
        self._config.touch(mode=0o600)
        self._config.write_bytes(body)
        return self._config

    def _run_etcd(self, config: Path) -> int:
        etcd = subprocess.Popen([self._binary, f"--config-file={config}"], stdin=subprocess.DEVNULL)
        self._exit_code.unlink(missing_ok=True)
        threading.Thread(target=self._end_with, args=(etcd,), name="etcd", daemon=True).start()
        while not self._cancel.is_set:
            status, _ = http_get(*self._etcd, "/health", timeout_s=HEALTH_TIMEOUT_S)
            self.ready = status == HTTPStatus.OK
            self._cancel.wait(HEALTH_PAUSES * self._pause_s)
        self.ready = False
        etcd.terminate()  # does nothing when it has ended by itself
        return 0 if etcd.wait() in {0, -signal.SIGTERM} else 1

    def _end_with(self, etcd: subprocess.Popen[bytes]) -> None:
        etcd.wait()
        self.stop("the end of etcd")


def serve(wrapper: Wrapper, host: str, port: int) -> ThreadingHTTPServer:
    """Serve ``GET /readyz`` and ``POST /stop`` in a thread; its user shuts it down."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            readiness = HTTPStatus.OK if wrapper.ready else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(readiness if self.path == "/readyz" else HTTPStatus.NOT_FOUND)

        def do_POST(self) -> None:
            if self.path == "/stop":
                wrapper.stop("POST /stop")
            self._answer(HTTPStatus.OK if self.path == "/stop" else HTTPStatus.NOT_FOUND)

        def _answer(self, status: HTTPStatus) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Say nothing: the kubelet asks every few seconds."""

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="readyz", daemon=True).start()
    return server


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the arguments that druid passes."""
    parser = argparse.ArgumentParser("etcd-wrapper", allow_abbrev=False)
    parser.add_argument("command", choices=["start-etcd"])
    parser.add_argument("--backup-restore-host-port", required=True)
    parser.add_argument("--etcd-server-name", required=True)
    parser.add_argument("--backup-restore-tls-enabled", choices=["false"], required=True)
    parser.add_argument("--etcd-client-port", type=int, default=2379)
    parser.add_argument("--etcd-wrapper-port", type=int, default=9095)
    arguments = parser.parse_args(argv)
    log_to()
    host, _, port = arguments.backup_restore_host_port.rpartition(":")
    named = os.environ.get(BINARY_VARIABLE)
    wrapper = Wrapper(
        Sidecar(host, int(port)),
        (arguments.etcd_server_name, arguments.etcd_client_port),
        Path(named) if named else require("etcd"),
        home=Path.home(),
        pause_s=float(os.environ.get(PAUSE_VARIABLE, PAUSE_S)),
    )
    for number in SIGNAL_NAMES:
        signal.signal(number, wrapper.received)
    server = serve(wrapper, arguments.etcd_server_name, arguments.etcd_wrapper_port)
    try:
        return wrapper.run()
    finally:
        server.shutdown()


if __name__ == "__main__":
    sys.exit(main())
