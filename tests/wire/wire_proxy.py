"""An HTTP/1.1 reverse proxy that breaks chosen requests as planned, and counts what reaches the server.

::

    with WireProxy(minio.endpoint) as proxy:
        proxy.plan(Fault("GET", "/v2/Full-", nth=2, flip_answered=1000))
        ...  # proxy.endpoint instead of minio.endpoint
        proxy.assert_all_hit()

It makes what a proxy of TCP cannot: chosen answers, wrong lengths, flipped bytes, requests that are cut in their
middle. Everything else passes through as it came, the Host header too, so that signatures hold; bodies pass in pieces.
A fault that is never met proves nothing, so a test asserts at its end that every planned fault was hit.
"""

import contextlib
import re
import socket
import threading
from typing import Self

from wire_faults import HARMLESS, Answer, Fault, Seen
from wire_passage import TIMEOUT_S, Cut, Passage

from backupagent.clock import SYSTEM_CLOCK

__all__ = ["Answer", "Fault", "Seen", "WireProxy"]


class WireProxy:
    """The proxy, on a loopback address: a thread for each connection, and a connection to the server for each.

    Args:
        upstream: ``host:port`` of the server.
        host: Loopback address to listen on.

    Attributes:
        requests: Every request, in the order of their heads.
        sent: Bytes that were passed on to the server, heads included.
    """

    def __init__(self, upstream: str, *, host: str = "127.0.0.1") -> None:
        name, _, port = upstream.rpartition(":")
        self._upstream = (name, int(port))
        self._listener = socket.create_server((host, 0), backlog=256)
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self.requests: list[Seen] = []
        self.sent = 0

    @property
    def endpoint(self) -> str:
        """``host:port`` to use instead of the server's."""
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop; connections that are open end."""
        with self._lock:
            self._closed = True
            connections = [self._listener, *self._open]  # those to the server too
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def plan(self, *faults: Fault) -> None:
        """Add faults, which count requests from now; the first one that fits a request and is due counts."""
        with self._lock:
            self._faults.extend(faults)

    def heal(self) -> None:
        """Plan nothing any more."""
        with self._lock:
            self._faults.clear()

    def assert_all_hit(self) -> None:
        """Fail when a planned fault was met by fewer requests than planned, or when there is none."""
        assert self._faults, "no fault was planned"
        missed = [fault for fault in self._faults if fault.hits < (fault.times or 1)]
        made = "\n".join(f"{seen.method} {seen.path}?{seen.query}: {seen.status}" for seen in self.requests)
        assert not missed, f"planned faults that no request met: {missed}; requests:\n{made}"

    def bodies(self, path: str = "") -> int:
        """Return how many bytes of bodies were passed on to the server, of requests to such a path."""
        return sum(seen.sent for seen in self.requests if re.search(path, seen.path))

    # ---- threads

    def _begin(self, work, *arguments) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closed:
                    connection.close()
                    return
                self._open.add(connection)
            self._begin(self._serve, connection)

    def _serve(self, client: socket.socket) -> None:
        passage = Passage(self, client)
        try:
            while passage.pass_request():
                pass
        except (Cut, OSError):
            pass
        finally:
            passage.close()

    # ---- called by passages

    def connect(self) -> socket.socket:
        """Connect to the server."""
        connection = socket.create_connection(self._upstream, timeout=TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open.add(connection)
        return connection

    def let_go(self, connection: socket.socket) -> None:
        """Close a connection."""
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def count(self, size: int) -> None:
        with self._lock:
            self.sent += size

    def see(self, method: str, target: str, body: int) -> Seen:
        """Write a request down, with what shall happen to it."""
        path, _, query = target.partition("?")
        with self._lock:
            seen = Seen(method, path, query, SYSTEM_CLOCK.monotonic_s())
            self.requests.append(seen)
            for fault in self._faults:
                if fault.fits(method, path, query, body):
                    fault.met += 1
                    if seen.fault is HARMLESS and fault.is_due:
                        seen.fault = fault
        return seen

    def hit(self, fault: Fault) -> None:
        with self._lock:
            fault.hits += 1
