"""One connection of a client through the scripted proxy: heads and bodies as they pass, and what happens to them."""

import contextlib
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from wire_faults import Answer, Fault, Seen

PIECE = 256 * 1024
MAX_HEAD = 64 * 1024
TIMEOUT_S = 60
"""Longest silence on either side."""


class Cut(Exception):
    """A connection ends here."""


class Hub(Protocol):
    """What a passage needs of its proxy."""

    def connect(self) -> socket.socket: ...
    def let_go(self, connection: socket.socket) -> None: ...
    def count(self, size: int) -> None: ...
    def see(self, method: str, target: str, body: int) -> Seen: ...
    def hit(self, fault: Fault) -> None: ...


@dataclass
class _Head:
    """The first line and the headers of a message.

    Attributes:
        line: The first line.
        headers: In order, as they came.
    """

    line: str
    headers: list[tuple[str, str]]

    def get(self, name: str, default: str = "") -> str:
        return next((value for each, value in self.headers if each.lower() == name), default)

    @property
    def length(self) -> int | None:
        text = self.get("content-length")
        return int(text) if text else None

    @property
    def chunked(self) -> bool:
        return "chunked" in self.get("transfer-encoding").lower()

    def replace(self, name: str, value: str | None) -> None:
        """Give a header another value; None takes it away."""
        kept = [(each, old) for each, old in self.headers if each.lower() != name]
        self.headers = kept if value is None else [*kept, (name, value)]

    def encode(self) -> bytes:
        lines = [self.line, *(f"{name}:{value}" for name, value in self.headers), "", ""]
        return "\r\n".join(lines).encode("latin-1")


class _Reader:
    """What comes over a connection: heads, and bodies in pieces."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ahead = b""

    def head(self) -> _Head | None:
        """Read a head; None when the connection has ended."""
        while b"\r\n\r\n" not in self._ahead:
            piece = self._connection.recv(PIECE)
            if not piece or len(self._ahead) > MAX_HEAD:
                return None
            self._ahead += piece
        text, _, self._ahead = self._ahead.partition(b"\r\n\r\n")
        line, *lines = text.decode("latin-1").split("\r\n")
        return _Head(line, [(name, value) for name, _, value in (each.partition(":") for each in lines)])

    def body(self, head: _Head, *, until_close: bool) -> Iterator[bytes]:
        """Give a body without what frames it, as the head says now."""
        return self._body(head.chunked, head.length, until_close=until_close)

    def _body(self, chunked: bool, length: int | None, *, until_close: bool) -> Iterator[bytes]:
        if chunked:
            while size := int(self._line().partition(b";")[0], 16):
                yield from self._exactly(size)
                self._line()
            while self._line():
                pass
        elif length is not None:
            yield from self._exactly(length)
        elif until_close:
            while piece := self._some(PIECE):
                yield piece

    def _some(self, limit: int) -> bytes:
        if not self._ahead:
            return self._connection.recv(min(limit, PIECE))
        piece, self._ahead = self._ahead[:limit], self._ahead[limit:]
        return piece

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._some(size)
            if not piece:
                raise Cut
            size -= len(piece)
            yield piece

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\r\n"):
            piece = self._some(1)
            if not piece:
                raise Cut
            line += piece
        return line[:-2]


class Passage:
    """One connection of a client and the one to the server that belongs to it."""

    def __init__(self, proxy: Hub, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        client.settimeout(TIMEOUT_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._requests = _Reader(client)
        self._server: socket.socket | None = None

    def close(self) -> None:
        self._proxy.let_go(self._client)
        if self._server is not None:
            self._proxy.let_go(self._server)

    def pass_request(self) -> bool:
        """Pass one request and its answer; tell whether another one may follow."""
        head = self._requests.head()
        if head is None:
            return False
        method, target, _ = head.line.split(" ", 2)
        seen = self._proxy.see(method, target, head.length or 0)
        if head.get("expect"):
            self._client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            head.replace("expect", None)
        if seen.fault.answer is not None:
            for _ in self._requests.body(head, until_close=False):
                pass
            self._proxy.hit(seen.fault)
            return self._give(seen, seen.fault.answer)
        if seen.fault.first is not None:
            seen.fault.first()
            self._proxy.hit(seen.fault)
        server = self._connect()
        self._send(server, head, seen)
        return self._answer(server, seen)

    def _connect(self) -> socket.socket:
        """Return the connection to the server, a new one when the server has closed it meanwhile."""
        if self._server is not None and select.select([self._server], [], [], 0)[0]:
            self._proxy.let_go(self._server)
            self._server = None
        if self._server is None:
            self._server = self._proxy.connect()
        return self._server

    def _give(self, seen: Seen, answer: Answer) -> bool:
        seen.status = answer.status
        head = _Head(f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}", [*answer.headers.items()])
        head.replace("content-length", str(len(answer.body)))
        self._client.sendall(head.encode() + (b"" if seen.method == "HEAD" else answer.body))
        return True

    def _send(self, server: socket.socket, head: _Head, seen: Seen) -> None:
        """Pass a request on; one that the server refuses before its end is taken from the client to its end."""
        fault, chunked = seen.fault, head.chunked
        body = self._requests.body(head, until_close=False)
        if fault.sent_shorter:
            body = self._resized(body, head, -fault.sent_shorter, seen)
        body = self._cut(self._flipped(body, fault.flip_sent, seen), fault.cut_sent, seen)
        data = head.encode()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            server.sendall(data)
            self._proxy.count(len(data))
            for piece in body:
                framed = _framed(piece) if chunked else piece
                server.sendall(framed)
                self._proxy.count(len(framed))
                seen.sent += len(piece)
            if chunked:
                server.sendall(_framed(b""))
                self._proxy.count(len(_framed(b"")))
        for _ in body:
            pass

    def _answer(self, server: socket.socket, seen: Seen) -> bool:
        answers = _Reader(server)
        head = answers.head()
        while head is not None and head.line.split(" ")[1].startswith("1"):
            head = answers.head()
        if head is not None and seen.fault.lost_answer:
            self._proxy.hit(seen.fault)
            raise Cut
        if head is None:
            raise Cut
        status, fault = int(head.line.split(" ")[1]), seen.fault
        bodiless = seen.method == "HEAD" or status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
        body = iter(()) if bodiless else answers.body(head, until_close=True)
        if fault.shorter or fault.longer:
            body = self._resized(body, head, fault.longer - fault.shorter, seen)
        seen.status = status
        self._client.sendall(head.encode())
        for piece in self._cut(self._flipped(body, fault.flip_answered, seen), fault.cut_answered, seen):
            self._client.sendall(_framed(piece) if head.chunked else piece)
        if head.chunked and not bodiless:
            self._client.sendall(_framed(b""))
        if fault.surplus:
            self._proxy.hit(fault)  # before the client may see it
            self._client.sendall(bytes(fault.surplus))
        lasting = bodiless or head.chunked or head.length is not None
        return lasting and head.get("connection").strip().lower() != "close"

    def _flipped(self, body: Iterator[bytes], at: int | None, seen: Seen) -> Iterator[bytes]:
        for piece in body:
            if at is not None and 0 <= at < len(piece):
                self._proxy.hit(seen.fault)
                yield piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]
            else:
                yield piece
            at = None if at is None else at - len(piece)

    def _cut(self, body: Iterator[bytes], after: int | None, seen: Seen) -> Iterator[bytes]:
        """Give a body up to a byte, where the connection ends."""
        for piece in body:
            if after is not None and after < len(piece):
                yield piece[:after]
                self._proxy.hit(seen.fault)
                raise Cut
            after = None if after is None else after - len(piece)
            yield piece

    def _resized(self, body: Iterator[bytes], head: _Head, more: int, seen: Seen) -> Iterator[bytes]:
        """Let a body end so many bytes later, behind zeros, or earlier; all of it is taken from where it comes."""
        length = head.length
        if length is None:  # in chunks, as listings come
            pieces = list(body)
            length, body = sum(map(len, pieces)), iter(pieces)
            head.replace("transfer-encoding", None)
        head.replace("content-length", str(length + more))
        self._proxy.hit(seen.fault)
        return _to_size(body, length + more)


def _framed(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def _to_size(body: Iterator[bytes], size: int) -> Iterator[bytes]:
    for piece in body:
        yield piece[:size]
        size -= min(size, len(piece))
    yield bytes(size)
