"""HTTP to one API server: a request with its answer, or a stream of changes; errors are translated here.

lightkube finds the way (kubeconfig, TLS, credentials); paths and documents are plain, so that every kind and every
subresource is reached the same way. Importing this module loads both libraries.
"""

import contextlib
import ipaddress
import json
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPMethod
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
from lightkube import ConfigError as LightkubeConfigError
from lightkube.config.client_adapter import Client, ConnectionParams

from backupagent.cancel import Cancel
from backupagent.errors import ConfigError, KubeError
from backupagent.kube.call import Call
from backupagent.kube.errors import kube_error
from backupagent.kube.kubeconfig import find_config
from backupagent.kube.resources import Document

CONNECT_S = 5.0
ANSWER_S = 30.0
"""How long an answer may be silent: a page of a large listing takes seconds."""

SILENCE_S = 90.0
"""How long a watch may be silent before its connection counts as dead: bookmarks come about once a minute.

Source:
    ``defaultBookmarkFrequency`` of k8s.io/apiserver v0.36.3, pkg/storage/cacher/cacher.go.
"""

BREAK_POLL_S = 1.0

CONNECTION_BROKEN = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError)
TROUBLE = (httpx2.HTTPError, LightkubeConfigError, OSError, ValueError, LookupError)
"""All that a request raises; the last three come out of lightkube's authentication (token files, plugins)."""


class Connection:
    """Connections to one API server. Thread-safe.

    Args:
        http: Its client, with address, TLS and credentials.
        where: The API server, for people.
    """

    def __init__(self, http: httpx2.Client, where: str) -> None:
        self._http = http
        self.where = where

    @classmethod
    def open(cls, kubeconfig: Path | None) -> Self:
        """Find the way to an API server; nothing is sent.

        Raises:
            ConfigError: there is none, or it cannot be used.
        """
        config = find_config(kubeconfig)
        server = config.cluster.server
        timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
        try:
            http = Client(config, ConnectionParams(timeout=timeout, trust_env=not _is_local(server)))
        except (LightkubeConfigError, OSError, ValueError, httpx2.InvalidURL) as error:
            message = f"the kubeconfig for {server} cannot be used: {error}"
            # The frames of its traceback hold lightkube's temporary files with keys: let them go now.
            raise ConfigError(message, hint="check certificates, address and user in it") from error.with_traceback(
                None
            )
        http.headers["User-Agent"] = "backupagent"
        return cls(http, server)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(
        self,
        method: HTTPMethod,
        call: Call,
        *,
        parameters: Mapping[str, str] | None = None,
        body: Document | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Make a request and return the document that is answered.

        A GET whose connection breaks is made once more at once: the server may have closed a connection that was
        kept. Nothing else is repeated.

        Raises:
            KubeError: it failed.
            ConfigError: the credentials cannot be had.
        """
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = {"Content-Type": content_type} if body is not None else {}
        request = self._request(method, call, parameters, content, headers)
        try:
            response = self._send(request)
        except TROUBLE as error:
            raise kube_error(error, call) from _cause(error)
        if not response.is_success:
            raise kube_error(_status(response.status_code, response.content), call)
        return _document(response.content, call)

    def changes(self, call: Call, parameters: Mapping[str, str], cancel: Cancel) -> Iterator[tuple[str, Document]]:
        """Open a watch and give what it tells, until the server closes it or the token is set.

        While nothing is told the token is seen within moments; while the connection is being opened, within its time
        limits.

        Yields:
            The type, such as ``ADDED`` or ``BOOKMARK``, and the object.

        Raises:
            KubeError: it failed, or was too silent; the server's own ``ERROR`` is raised too.
            ConfigError: the credentials cannot be had.
        """
        request = self._request(HTTPMethod.GET, call, parameters, None, {})
        try:
            response = self._http.send(request, stream=True)
        except TROUBLE as error:
            raise kube_error(error, call) from _cause(error)
        with contextlib.closing(response):
            try:
                if not response.is_success:
                    raise kube_error(_status(response.status_code, response.read()), call)
                # The time limits of a request are looked at anew for its body.
                request.extensions["timeout"]["read"] = SILENCE_S
                with _broken_by(cancel, response):
                    for line in _lines(response.iter_bytes()):
                        yield _change(line, call)
            except TROUBLE as error:
                if not cancel.is_set:
                    raise kube_error(error, call) from error

    def _request(
        self,
        method: HTTPMethod,
        call: Call,
        parameters: Mapping[str, str] | None,
        content: bytes | None,
        headers: Mapping[str, str],
    ) -> httpx2.Request:
        return self._http.build_request(method, call.path, params=parameters, content=content, headers=headers)

    def _send(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return self._http.send(request)
        except CONNECTION_BROKEN:
            if request.method != HTTPMethod.GET:
                raise
            return self._http.send(request)


def _cause(error: Exception) -> Exception | None:
    """Return what to chain: not an error whose text quotes the credentials."""
    return None if isinstance(error, httpx2.LocalProtocolError) else error


def _is_local(server: str) -> bool:
    """Whether an address is on this machine, where no proxy leads to.

    Source:
        Go's ``ProxyFromEnvironment``, which kubectl uses: "As a special case, if req.URL.Host is "localhost" or a
        loopback address (with or without a port number), then a nil URL and nil error will be returned."
    """
    host = urlsplit(server).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _status(code: int, content: bytes) -> Mapping[str, Any]:
    """Return the Status document of a refusal; one is made when a proxy or a missing path answered."""
    try:
        status = json.loads(content)
    except ValueError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        return {**status, "code": code}
    return {"code": code, "message": content[:200].decode(errors="replace").strip() or f"answered {code}"}


def _document(content: bytes, call: Call) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise KubeError("the answer is not JSON: is this an API server?", what=call.what) from error
    if not isinstance(document, dict):
        raise KubeError("the answer is not an object: is this an API server?", what=call.what)
    return document


def _change(line: bytes, call: Call) -> tuple[str, Document]:
    change = _document(line, call)
    kind, told = change.get("type"), change.get("object")
    if not isinstance(kind, str) or not isinstance(told, dict):
        raise KubeError("a line of a watch is not a change", what=call.what)
    if kind == "ERROR":
        raise kube_error(told, call)
    return kind, told


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Cut a stream at newlines, and at nothing else that Unicode takes for the end of a line."""
    rest: list[bytes] = []
    for piece in pieces:
        *ended, last = piece.split(b"\n")
        for line in ended:
            yield b"".join([*rest, line])
            rest.clear()
        rest.append(last)


@contextlib.contextmanager
def _broken_by(cancel: Cancel, response: httpx2.Response) -> Iterator[None]:
    """Break a stream's connection when the token is set, so that a silent one ends too."""
    stream = response.extensions.get("network_stream")
    wire = stream.get_extra_info("socket") if stream is not None else None
    over = threading.Event()
    in_use = threading.Lock()

    def break_it() -> None:
        while not cancel.wait(BREAK_POLL_S):
            if over.is_set():
                return
        with in_use, contextlib.suppress(OSError):
            if not over.is_set() and wire is not None:
                # Closing would not wake its reader, and an SSL socket's own shutdown would unwrap it under the reader.
                socket.socket.shutdown(wire, socket.SHUT_RDWR)

    threading.Thread(target=break_it, name="watch-breaker", daemon=True).start()
    try:
        yield
    finally:
        with in_use:
            over.set()
