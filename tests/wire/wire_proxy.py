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
import select
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Self

from backupagent.clock import SYSTEM_CLOCK

PIECE = 256 * 1024
MAX_HEAD = 64 * 1024
TIMEOUT_S = 60
"""Longest silence on either side."""


@dataclass(frozen=True)
class Answer:
    """What the proxy answers in place of the server.

    Attributes:
        status: Of HTTP.
        headers: Besides Content-Length.
        body: The body.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(eq=False)
class Fault:
    """What happens to one request, or to several, that fit. Positions count bytes of the body, from 0.

    Attributes:
        method: Method of HTTP; empty for any.
        path: Regular expression that must occur in the path, which is percent-encoded.
        query: The same for the query.
        nth: The fitting request that meets it, from 1.
        times: How many fitting requests from there on meet it.
        answer: The server does not hear of the request; this is the answer.
        lost_answer: The server does what is asked for; the connection ends instead of its answer.
        cut_sent: The connections end when that many bytes of the request's body were passed on.
        cut_answered: The connection ends when that many bytes of the answer's body were passed on.
        flip_sent: A bit of that byte of the request's body is another.
        flip_answered: A bit of that byte of the answer's body is another.
        sent_shorter: The request's body ends so many bytes earlier, as its Content-Length says then.
        shorter: The answer's body ends so many bytes earlier, as its Content-Length says then.
        longer: The answer's body ends so many bytes later, as its Content-Length says then.
        surplus: So many bytes follow the answer, of which its Content-Length says nothing.
        hits: To how many requests it has happened.
        met: How many requests fitted.
    """

    method: str = ""
    path: str = ""
    query: str = ""
    nth: int = 1
    times: int = 1
    answer: Answer | None = None
    lost_answer: bool = False
    cut_sent: int | None = None
    cut_answered: int | None = None
    flip_sent: int | None = None
    flip_answered: int | None = None
    sent_shorter: int = 0
    shorter: int = 0
    longer: int = 0
    surplus: int = 0
    hits: int = field(default=0, init=False)
    met: int = field(default=0, init=False)

    def fits(self, method: str, path: str, query: str) -> bool:
        return (
            self.method in {"", method}
            and re.search(self.path, path) is not None
            and re.search(self.query, query) is not None
        )


HARMLESS = Fault(times=0)


@dataclass
class Seen:
    """A request.

    Attributes:
        method: Of HTTP.
        path: Percent-encoded.
        query: Percent-encoded.
        at_s: When its head had come, on the monotonic clock.
        sent: Bytes of its body that were passed on to the server.
        status: Of the answer that was passed on; 0 when there was none.
        fault: What happened to it.
    """

    method: str
    path: str
    query: str
    at_s: float
    sent: int = 0
    status: int = 0
    fault: Fault = HARMLESS


class _Cut(Exception):
    """A connection ends here."""


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

    def assert_all_hit(self) -> None:
        """Fail when a planned fault was met by fewer requests than planned, or when there is none."""
        assert self._faults, "no fault was planned"
        missed = [fault for fault in self._faults if fault.hits < fault.times]
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
        passage = _Passage(self, client)
        try:
            while passage.pass_request():
                pass
        except (_Cut, OSError):
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

    def see(self, method: str, target: str) -> Seen:
        """Write a request down, with what shall happen to it."""
        path, _, query = target.partition("?")
        with self._lock:
            seen = Seen(method, path, query, SYSTEM_CLOCK.monotonic_s())
            self.requests.append(seen)
            for fault in self._faults:
                if fault.fits(method, path, query):
                    fault.met += 1
                    if seen.fault is HARMLESS and fault.nth <= fault.met < fault.nth + fault.times:
                        seen.fault = fault
        return seen

    def hit(self, fault: Fault) -> None:
        with self._lock:
            fault.hits += 1


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
                raise _Cut
            size -= len(piece)
            yield piece

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\r\n"):
            piece = self._some(1)
            if not piece:
                raise _Cut
            line += piece
        return line[:-2]


class _Passage:
    """One connection of a client and the one to the server that belongs to it."""

    def __init__(self, proxy: WireProxy, client: socket.socket) -> None:
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
        seen = self._proxy.see(method, target)
        if head.get("expect"):
            self._client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            head.replace("expect", None)
        if seen.fault.answer is not None:
            for _ in self._requests.body(head, until_close=False):
                pass
            self._proxy.hit(seen.fault)
            return self._give(seen, seen.fault.answer)
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
            raise _Cut
        if head is None:
            raise _Cut
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
                raise _Cut
            after = None if after is None else after - len(piece)
            yield piece

    def _resized(self, body: Iterator[bytes], head: _Head, more: int, seen: Seen) -> Iterator[bytes]:
        """Let a body end so many bytes later, behind zeros, or earlier; all of it is taken from where it comes."""
        size = (head.length or 0) + more
        head.replace("content-length", str(size))
        self._proxy.hit(seen.fault)
        return _to_size(body, size)


def _framed(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def _to_size(body: Iterator[bytes], size: int) -> Iterator[bytes]:
    for piece in body:
        yield piece[:size]
        size -= min(size, len(piece))
    yield bytes(size)
