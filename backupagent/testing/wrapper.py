"""etcd-wrapper's side of the initialization, and the etcd that it runs: the container ``etcd`` of an etcd Pod.

A script that does what the documented one does (etcd-wrapper 0d41e79, internal/bootstrap, internal/brclient and
internal/app): asks the sidecar to initialize, takes its configuration, runs etcd, says whether it is ready, and leaves
word of how it was ended. Run it as ``python -m backupagent.testing.wrapper start-etcd ...``.

Like the real one it gives up a request as soon as the header has come: a body that is not there then is lost, and the
request is made again after a pause.
"""

import argparse
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

from backupagent.clock import SYSTEM_CLOCK
from backupagent.errors import BackupAgentError
from backupagent.testing.server_binaries import require
from backupagent.testing.server_process import http_get

DATA = Path("/var/etcd/data")
"""Where the volume is mounted; the real one has it hard-coded."""

PAUSE_S = 1.0
REQUEST_TIMEOUT_S = 60.0
CONFIG_ATTEMPTS = 5
ENOUGH = 4096
"""Bytes that are looked at: an answer that is longer does not arrive with its header."""

ENDED_GENTLY = ("terminated", "interrupt")


class BodyLost(BackupAgentError):
    """An answer's body did not come together with its header."""

    default_hint = "the sidecar must write header and body at once"


def ask(host: str, port: int, path: str) -> str:
    """Make one request and return its body, as far as it came with the header.

    Raises:
        BodyLost: not all of it did.
        OSError: there is no answer.
    """
    with socket.create_connection((host, port), REQUEST_TIMEOUT_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = connection.recv(ENOUGH)
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if len(body) != int(fields.get("content-length", "-1")):
        message = f"{path}: {len(body)} of {fields.get('content-length')} bytes came with the header"
        raise BodyLost(message)
    status = int(lines[0].split()[1])
    if status not in {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED}:
        message = f"{path}: {lines[0]}"
        raise ConnectionError(message)
    return body.decode()


class Wrapper:
    """One etcd container.

    Args:
        sidecar: ``host:port`` of the sidecar.
        client_port: Of its etcd.
        port: Where it says whether etcd is ready.
        data: The volume.
    """

    def __init__(self, sidecar: str, client_port: int, port: int, data: Path = DATA) -> None:
        host, _, text = sidecar.rpartition(":")
        self._sidecar = (host, int(text))
        self._client_port = client_port
        self._port = port
        self._exit_code = data / "exit_code"
        self._stopped = threading.Event()
        self._stopped_by = ""
        self._etcd: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Initialize, run etcd until it ends or a signal comes, and return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._serve()
        config = self._initialized()
        if config is None:
            return 0
        etcd = Path(os.environ["ETCD_BINARY"]) if "ETCD_BINARY" in os.environ else require("etcd")
        self._etcd = subprocess.Popen([etcd, f"--config-file={config}"])
        self._exit_code.unlink(missing_ok=True)
        while self._etcd.poll() is None:
            if self._stopped.wait(0.1):
                self._exit_code.write_text(self._stopped_by)
                self._etcd.terminate()
                self._etcd.wait()
                return 0
        return self._etcd.returncode

    # ---- initialization

    def _initialized(self) -> Path | None:
        """Drive the sidecar until the data directory is ready; return etcd's configuration, None when stopped."""
        while not self._stopped.is_set():
            try:
                status = ask(*self._sidecar, "/initialization/status")
                if status == "Successful":
                    return self._configuration()
                if status == "New":
                    ask(*self._sidecar, f"/initialization/start?mode={self._mode()}")
            except (OSError, BackupAgentError) as error:
                _say(f"initialization: {error}")
            self._stopped.wait(_pause_s())
        return None

    def _mode(self) -> str:
        """A volume that was left in order needs no deep look."""
        try:
            text = self._exit_code.read_text()
        except OSError:
            return "full"
        return "sanity" if any(word in text for word in ENDED_GENTLY) else "full"

    def _configuration(self) -> Path:
        for _attempt in range(CONFIG_ATTEMPTS):
            try:
                text = ask(*self._sidecar, "/config")
            except (OSError, BackupAgentError) as error:
                _say(f"configuration: {error}")
                self._stopped.wait(_pause_s())
            else:
                path = Path(os.environ["HOME"]) / "etcd.conf.yaml"
                path.touch(mode=0o600)
                path.write_text(text)
                return path
        raise BodyLost(f"no configuration after {CONFIG_ATTEMPTS} attempts")

    # ---- its own port

    def _serve(self) -> None:
        wrapper = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                ready = self.path == "/readyz" and wrapper.is_ready()
                self.send_response(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_POST(self) -> None:
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Length", "0")
                self.end_headers()
                wrapper.stop("terminated")

            def log_message(self, *_arguments: object) -> None:
                """Say nothing: the kubelet asks every second."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def is_ready(self) -> bool:
        """Whether etcd serves."""
        return self._etcd is not None and http_get("127.0.0.1", self._client_port, "/health")[0] == HTTPStatus.OK

    def stop(self, how: str) -> None:
        """End etcd and leave word of how."""
        self._stopped_by = how
        self._stopped.set()

    def _stop(self, number: int, _frame: object) -> None:
        self.stop("terminated" if number == signal.SIGTERM else "interrupt")


def _pause_s() -> float:
    return float(os.environ.get("WRAPPER_PAUSE_S", PAUSE_S))


def _say(line: str) -> None:
    sys.stderr.write(f"{SYSTEM_CLOCK.now():%Y-%m-%dT%H:%M:%S.%fZ} {line}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="etcd-wrapper")
    parser.add_argument("command", choices=["start-etcd"])
    parser.add_argument("--backup-restore-host-port", required=True)
    parser.add_argument("--etcd-server-name", default="")
    parser.add_argument("--backup-restore-tls-enabled", default="false", choices=["false"])
    parser.add_argument("--etcd-client-port", type=int, default=2379)
    parser.add_argument("--etcd-wrapper-port", type=int, default=9095)
    given = parser.parse_args(arguments)
    return Wrapper(given.backup_restore_host_port, given.etcd_client_port, given.etcd_wrapper_port).run()


if __name__ == "__main__":
    sys.exit(main())
