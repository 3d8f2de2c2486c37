"""A slow link for benchmarks: a TCP proxy that delays answers and limits the rate of each connection.

Toxiproxy shapes and breaks links in tests, but passes pieces of 32 KiB through a channel: 4.1 CPU seconds for one GiB
through two of its links, where the copy that is measured needs 3 (2026-11-29). Here the kernel paces the sending
sockets, so that a thread moves large pieces: 1.3 CPU seconds (ADR 0015). What a client sees is the same:
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
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.testing.server_process import LocalServer

_SO_MAX_PACING_RATE = 47
"""Source: include/uapi/asm-generic/socket.h of Linux; Python has no name for it."""

PIECE = 256 * 1024
"""Bytes that are moved at once."""

STACK = 256 * 1024
"""Bytes of stack for each thread: there are three for each connection."""


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


class _DelayLine:
    """Pieces that wait until they are due, as many as are on their way at that rate. For two threads."""

    def __init__(self, delay_s: float, rate: int, clock: Clock) -> None:
        self._delay_s = delay_s
        self._capacity = int(delay_s * rate) + 2 * PIECE
        self._clock = clock
        self._held = 0
        self._ended = False
        self._pieces: deque[tuple[float, bytearray, int]] = deque()
        self._free: list[bytearray] = []
        self._changed = threading.Condition()

    def receive(self, source: socket.socket) -> None:
        """Take in what a socket receives until it ends."""
        with contextlib.suppress(OSError):
            while piece := self._empty_piece():
                size = source.recv_into(piece)
                if not size:
                    break
                with self._changed:
                    self._pieces.append((self._clock.monotonic_s() + self._delay_s, piece, size))
                    self._held += size
                    self._changed.notify_all()
        self.end()

    def send(self, target: socket.socket) -> None:
        """Send each piece when it is due, until the end."""
        with contextlib.suppress(OSError):
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._pieces or self._ended)
                    if not self._pieces:
                        break
                    due_s, piece, size = self._pieces.popleft()
                wait_s = due_s - self._clock.monotonic_s()
                if wait_s > 0:
                    self._clock.sleep(wait_s)
                with memoryview(piece) as view:
                    target.sendall(view[:size])
                with self._changed:
                    self._held -= size
                    self._free.append(piece)
                    self._changed.notify_all()
        self.end()
        _end_of_stream(target)

    def end(self) -> None:
        """Let nothing more in; what is in still comes out."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _empty_piece(self) -> bytearray | None:
        with self._changed:
            self._changed.wait_for(lambda: self._held < self._capacity or self._ended)
            if self._ended:
                return None
            return self._free.pop() if self._free else bytearray(PIECE)


def _forward(source: socket.socket, target: socket.socket) -> None:
    """Pass everything on at once; the pace is the kernel's."""
    piece = memoryview(bytearray(PIECE))
    with contextlib.suppress(OSError):
        while size := source.recv_into(piece):
            target.sendall(piece[:size])
    _end_of_stream(target)


def _end_of_stream(target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _serve(client: socket.socket, upstream: tuple[str, int], delay_s: float, rate: int) -> None:
    """Be the link of one connection until both directions have ended."""
    with client, contextlib.suppress(OSError), socket.create_connection(upstream) as server:
        for end in (client, server):
            end.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, rate)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line = _DelayLine(delay_s, rate, SYSTEM_CLOCK)
        others = [
            threading.Thread(target=_forward, args=(client, server), daemon=True),
            threading.Thread(target=line.send, args=(client,), daemon=True),
        ]
        for thread in others:
            thread.start()
        line.receive(server)
        for thread in others:
            thread.join()


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
