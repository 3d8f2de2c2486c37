"""Connections of HTTP/1.1 to one server, kept open between requests, for the hot requests of all providers.

The standard library's client and not urllib3, because it receives into the caller's buffer (ADR 0003). CAs and proxies
are found where the SDKs find them.
"""

import base64
import contextlib
import os
import select
import socket
import ssl
import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection, IncompleteRead
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi

from backupagent.errors import ConfigError
from backupagent.stores.base import Buffer

MAX_IDLE = 64
"""Idle connections kept open; as many threads can work without opening new ones."""

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
"""Longest silence, not the longest request."""

_TIMEVAL = struct.Struct("@ll")
"""Seconds and microseconds, as the kernel takes them."""

MAX_SURPLUS = 64 * 1024
"""Bytes of an answer that are read to keep its connection; beyond that, closing it is cheaper."""


class _Answer(HTTPResponse):
    """An answer whose body comes with few system calls, however small the pieces are in which a link delivers it.

    A socket with a timeout is asked again for each piece, which costs the interpreter's lock each time. Here the kernel
    waits until the buffer is full.
    """

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - the parent's
        super().__init__(sock, *arguments, **options)
        self._sock = sock

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - typeshed's WriteableBuffer, which is no class
        """Fill a buffer as far as the answer goes; less only when the connection ends before."""
        if self.isclosed() or self.chunked or self.length is None or isinstance(self._sock, ssl.SSLSocket):
            return super().readinto(buffer)
        view = memoryview(buffer)[: self.length]
        # What came with the headers, else the first piece; after that nothing is left in the file's own buffer.
        size = self.fp.readinto1(view)
        if 0 < size < len(view):
            size += self._receive(view[size:])
        self.length -= size
        return size

    def _receive(self, view: memoryview) -> int:
        """Receive all of it unless the connection ends; a silence of ``READ_TIMEOUT_S`` is a ``TimeoutError``."""
        size = 0
        self._sock.setblocking(True)  # noqa: FBT003 - else the kernel does not wait for all
        try:
            while size < len(view) and (more := self._sock.recv_into(view[size:], 0, socket.MSG_WAITALL)):
                size += more
        except BlockingIOError as error:
            raise TimeoutError(f"silent for {READ_TIMEOUT_S} s") from error
        finally:
            self._sock.settimeout(READ_TIMEOUT_S)
        return size


class Connections:
    """The connections to one server. Thread-safe.

    Args:
        origin: ``scheme://host[:port]`` of the server.
        trusted: File or directory with the CAs to trust; empty for those of certifi, as the SDKs have it, False to
            trust everybody.

    Raises:
        ConfigError: the CAs cannot be read, or the environment names a proxy that is itself reached over TLS.
    """

    def __init__(self, origin: str, trusted: str | Literal[False]) -> None:
        self._origin = origin
        self._server = urlsplit(origin)
        self._proxy = _find_proxy(self._server)
        self._proxy_headers = _authorization(self._proxy)
        self._tls = _context(trusted) if self._server.scheme == "https" else None
        self._forwarded = bool(self._proxy.netloc) and self._tls is None
        self._idle: deque[HTTPConnection] = deque()

    @contextlib.contextmanager
    def request(
        self, method: str, target: str, headers: Mapping[str, str], body: Buffer | Sequence[Buffer] | None
    ) -> Iterator[HTTPResponse]:
        """Send a request once and give its answer; leaving the context early closes the connection.

        Args:
            method: The method of HTTP.
            target: Path and query, percent-encoded.
            headers: All but Content-Length and Accept-Encoding; with a body in pieces also Content-Length.
            body: Goes out as it is, without a copy.

        Raises:
            OSError: no connection, or it broke.
            http.client.HTTPException: what came back is not HTTP, or not the whole of it.
        """
        if self._forwarded:
            target, headers = f"{self._origin}{target}", {**headers, **self._proxy_headers}
        connection = self._take()
        try:
            # A server that refuses a body may answer and close before it has read all of it.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target, body, headers)
            answer = connection.getresponse()
            with answer:
                yield answer
                answer.read(MAX_SURPLUS)
                reusable = answer.isclosed() and connection.sock is not None
        except BaseException:
            connection.close()
            raise
        if reusable and len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _take(self) -> HTTPConnection:
        """Give the connection used last, which the server has most likely not closed yet, or a new one."""
        with contextlib.suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if _is_alive(connection.sock):
                    return connection
                connection.close()
        connection = self._new()
        try:
            connection.connect()
            connection.sock.settimeout(READ_TIMEOUT_S)
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(READ_TIMEOUT_S, 0))
        except BaseException:
            connection.close()
            raise
        return connection

    def _new(self) -> HTTPConnection:
        through = self._proxy if self._proxy.netloc else self._server
        host = through.hostname or ""
        if self._tls is None:
            plain = HTTPConnection(host, through.port, timeout=CONNECT_TIMEOUT_S)
            plain.response_class = _Answer
            return plain
        connection = HTTPSConnection(host, through.port, timeout=CONNECT_TIMEOUT_S, context=self._tls)
        if self._proxy.netloc:
            connection.set_tunnel(self._server.hostname or "", self._server.port, dict(self._proxy_headers))
        return connection


def ca_bundle_of_requests() -> str:
    """Find the CAs to trust where the SDKs of Azure and Google look, which send with requests; empty for certifi's."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or ""


def fill(view: memoryview, answer: HTTPResponse) -> None:
    """Receive straight into a buffer, all of it.

    Raises:
        http.client.IncompleteRead: the connection ended before.
    """
    while view:
        size = answer.readinto(view)
        if not size:
            raise IncompleteRead(b"", len(view))
        view = view[size:]


def http_time_s(date: str | None) -> float:
    """Read a time of HTTP as seconds since 1970; 0 where there is none that can be read."""
    try:
        return parsedate_to_datetime(date).timestamp() if date else 0.0
    except ValueError:
        return 0.0


def _find_proxy(server: SplitResult) -> SplitResult:
    """Find the proxy that the environment names for a server; without a host where there is none."""
    proxy = "" if proxy_bypass(server.netloc) else getproxies().get(server.scheme, "")
    if proxy.startswith("https:"):
        raise ConfigError("a proxy that is reached over TLS is not supported", hint="name it as http://HOST:PORT")
    if proxy and not proxy.startswith("http:"):
        proxy = f"http://{proxy.removeprefix('//')}"
    return urlsplit(proxy)


def _authorization(proxy: SplitResult) -> Mapping[str, str]:
    if not (proxy.username and proxy.password):
        return {}
    text = f"{unquote(proxy.username)}:{unquote(proxy.password)}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def _context(trusted: str | Literal[False]) -> ssl.SSLContext:
    """Verify certificates and host names, by the given CAs and only these, unless told not to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    if trusted is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    path = Path(trusted or certifi.where())
    try:
        if path.is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except OSError as error:
        raise ConfigError(f"the CAs to trust cannot be read from {str(path)!r}: {error}") from error
    return context


def _is_alive(connection: socket.socket) -> bool:
    """An idle connection has nothing to say but that it was closed."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return not poll.poll(0)
