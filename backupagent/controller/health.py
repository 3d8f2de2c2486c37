"""/healthz, /readyz and /metrics, by the standard library's server: a few small answers a minute."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from backupagent.errors import ConfigError

Answer = Callable[[], tuple[HTTPStatus, bytes]]

TIMEOUT_S = 10.0
"""How long a client may take for its request, seconds."""


@contextmanager
def serving(host: str, port: int, answers: Mapping[str, Answer]) -> Iterator[int]:
    """Serve answers by path while the block runs.

    Args:
        host: Address to serve on; empty is all.
        port: Port to serve on; 0 is any free one.
        answers: What a GET of a path is answered with.

    Yields:
        The port.

    Raises:
        ConfigError: the address cannot be served on.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout: ClassVar[float | None] = TIMEOUT_S

        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            status, body = answer() if answer is not None else (HTTPStatus.NOT_FOUND, b"not found\n")
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing: probes come every few seconds."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"cannot serve on {host or 'all addresses'} port {port}: {reason}") from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
