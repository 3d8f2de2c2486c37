"""A slow link for benchmarks: a TCP proxy that delays answers and limits the rate of each connection.

Toxiproxy shapes and breaks links in tests, but passes pieces of 32 KiB through a channel: 4.1 CPU seconds for one GiB
through two of its links, where the copy that is measured needs 3 (2026-11-29). Here the kernel paces the sending
sockets, so that a thread moves large pieces: 1.2 CPU seconds (ADR 0015). What a client sees is the same:
an answer comes one round trip later, no connection is faster than the rate, and connections are opened at once.

::

    with ShapedLink(minio.endpoint, delay_ms=30, rate=40_000_000) as link:
        ...  # link.endpoint instead of minio.endpoint
"""

import argparse
import contextlib
import secrets
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.testing.server_process import LocalServer

_SO_MAX_PACING_RATE = 47
"""Source: include/uapi/asm-generic/socket.h of Linux; Python has no name for it."""

PIECE = 256 * 1024
"""Bytes that are moved at once."""

STACK = 256 * 1024
"""Bytes of stack for each thread: there are two for each connection."""


class ShapedLink(LocalServer):
    """A link to one server, as a process of its own.

    Args:
        upstream: ``host:port`` of the server.
        delay_ms: How much later everything arrives that the server sends: the round trip.
        rate: Bytes a second of each connection, in each direction.
        host: Loopback address to listen on.
        log_path: Where its output goes, appended; by default a temporary file.
        clock: Source of time.
    """

    def __init__(
        self,
        upstream: str,
        *,
        delay_ms: int,
        rate: int,
        host: str = "127.0.0.1",
        log_path: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__("shaped-link", host=host, ports={"link": None}, log_path=log_path, clock=clock)
        self._upstream = upstream
        self._delay_ms = delay_ms
        self._rate = rate
        self._mark = secrets.token_hex(8)

    @property
    def endpoint(self) -> str:
        """``host:port`` to use instead of the server's."""
        return f"{self.host}:{self.port('link')}"

    def is_ready(self) -> bool:
        """Whether this very process listens."""
        return self._mark in self.log_tail()

    def _command(self) -> list[str | Path]:
        words = [f"--listen={self.endpoint}", f"--to={self._upstream}", f"--mark={self._mark}"]
        shape = [f"--delay-ms={self._delay_ms}", f"--rate={self._rate}"]
        return [sys.executable, "-m", __name__, *words, *shape]

    def _environment(self) -> Mapping[str, str]:
        return {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def _forward(source: socket.socket, target: socket.socket, delay_s: float, clock: Clock) -> None:
    """Pass everything on until the end; the pace is the kernel's.

    Only what comes when nothing was there is held back for the delay. What is there already came meanwhile: it waits in
    the receive buffer of the kernel, as on a line of that length.
    """
    piece = memoryview(bytearray(PIECE))
    with contextlib.suppress(OSError):
        while size := source.recv_into(piece):
            clock.sleep(delay_s)
            while size:
                target.sendall(piece[:size])
                size = _what_is_there(source, piece)
    _end_of_stream(target)


def _what_is_there(source: socket.socket, piece: memoryview) -> int:
    """Receive without waiting; return the number of bytes."""
    try:
        return source.recv_into(piece, 0, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return 0


def _end_of_stream(target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _serve(client: socket.socket, upstream: tuple[str, int], delay_s: float, rate: int) -> None:
    """Be the link of one connection until both directions have ended."""
    with client, contextlib.suppress(OSError), socket.create_connection(upstream) as server:
        for end in (client, server):
            end.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, rate)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        to_server = threading.Thread(target=_forward, args=(client, server, 0.0, SYSTEM_CLOCK), daemon=True)
        to_server.start()
        _forward(server, client, delay_s, SYSTEM_CLOCK)
        to_server.join()


def _address(text: str) -> tuple[str, int]:
    host, _colon, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    """Listen and serve for ever."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in (("listen", _address), ("to", _address), ("delay-ms", int), ("rate", int), ("mark", str)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    wanted = parser.parse_args()
    threading.stack_size(STACK)
    with socket.create_server(wanted.listen, backlog=256) as listener:
        sys.stdout.write(f"{wanted.mark}\n")
        sys.stdout.flush()
        while True:
            client, _peer = listener.accept()
            served = (client, wanted.to, wanted.delay_ms / 1000, wanted.rate)
            threading.Thread(target=_serve, args=served, daemon=True).start()


if __name__ == "__main__":
    main()
