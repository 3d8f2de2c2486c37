"""The subresource ``shoots/binding`` for an API server that knows Shoots as CRDs only.

A reverse proxy: everything passes through as it is, watches too. A PUT or PATCH of ``shoots/NAME/binding`` passes
through as well, so that the real server authenticates the caller and asks RBAC; only its 404 - allowed, but there is no
such subresource - makes the proxy carry the binding out itself, by the rules of ``shoot_binding.py``.

Not emulated: a status write with ``lastOperation`` Migrate/Succeeded or Aborted bumps ``metadata.generation`` in
Gardener. A CRD's generation grows by spec changes alone, and an invented spec change would be a worse lie than a
missing bump; nothing here waits for it. (The binding itself changes the spec, so that it does bump.)
"""

import asyncio
import json
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from pathlib import Path
from typing import Self, TypeAlias

import aiohttp
from aiohttp import web
from yarl import URL

from backupagent.errors import BackupAgentError, KubeError
from backupagent.kube.client import Kube
from backupagent.kube.resources import SHOOTS, Document
from backupagent.testing.shoot_binding import Refused, bind, merged

BINDING = re.compile(rf"/apis/{re.escape(SHOOTS.api_version)}/namespaces/([^/]+)/shoots/([^/]+)/binding")
MERGE_PATCH = "application/merge-patch+json"
MAX_BODY = 3 << 20
"""Largest body of a binding, bytes: the API server's own limit."""

HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
    "upgrade", "host",
})  # fmt: skip
"""Headers that belong to one connection (RFC 9110, 7.6.1), and Host."""

_Answer: TypeAlias = AbstractAsyncContextManager[aiohttp.ClientResponse]

START_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 10.0
DRAIN_S = 0.5


class BindingProxy:
    """The proxy, on a loopback address, in a thread of its own; a context manager that starts and stops it.

    Clients reach it by plain http and show a bearer token; client certificates do not pass through it.

    Args:
        api_url: The API server behind it.
        admin: Carries bindings out: may get Shoots and Seeds and patch Shoots.
        ca_file: PEM of the authority that signed the API server's certificate; None for an http server.
        host: Loopback address to listen on.
        port: Port; 0 for any free one.
    """

    def __init__(
        self, api_url: str, admin: Kube, *, ca_file: Path | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._api_url = api_url.rstrip("/")
        self._admin = admin
        self._ca_file = ca_file
        self._host = host
        self._port = port
        self._ready = threading.Event()
        self._failure: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="binding proxy", daemon=True)

    @property
    def url(self) -> str:
        """Where clients find it, once it is started."""
        return f"http://{self._host}:{self._port}"

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop it."""
        self.stop()

    def start(self) -> None:
        """Start it; return when it listens.

        Raises:
            BackupAgentError: it could not listen.
        """
        self._thread.start()
        self._ready.wait(START_TIMEOUT_S)
        if self._failure is not None or not self._ready.is_set():
            raise BackupAgentError(f"the binding proxy did not start: {self._failure}") from self._failure

    def stop(self) -> None:
        """Stop it; open watches end."""
        if self._loop is not None and self._stopping is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except (OSError, ValueError) as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        context = ssl.create_default_context(cafile=self._ca_file) if self._ca_file else False
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            auto_decompress=False,
        ) as session:
            application = web.Application(client_max_size=MAX_BODY)
            application.router.add_route("*", "/{path:.*}", _Handler(self._api_url, self._admin, session).handle)
            runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=DRAIN_S)
            await runner.setup()
            try:
                await web.TCPSite(runner, self._host, self._port).start()
                self._port = runner.addresses[0][1]
                self._ready.set()
                await self._stopping.wait()
            finally:
                await runner.cleanup()


class _Handler:
    def __init__(self, api_url: str, admin: Kube, session: aiohttp.ClientSession) -> None:
        self._api_url = api_url
        self._admin = admin
        self._session = session

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        binding = BINDING.fullmatch(request.path)
        try:
            if binding and request.method in {"PUT", "PATCH"}:
                return await self._bind(request, *binding.groups())
            return await self._pass(request)
        except aiohttp.ClientConnectorError as error:
            refused = Refused(HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable", str(error), name="")
            return web.json_response(refused.status(), status=refused.code)

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        """Pass a request and its answer on, piece by piece."""
        async with self._forwarded(request, request.content if request.can_read_body else None) as answer:
            response = web.StreamResponse(
                status=answer.status, reason=answer.reason, headers=_end_to_end(answer.headers)
            )
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    async def _bind(self, request: web.Request, namespace: str, name: str) -> web.Response:
        body = await request.read()
        async with self._forwarded(request, body) as answer:
            if answer.status != HTTPStatus.NOT_FOUND:
                return web.Response(status=answer.status, body=await answer.read(), headers=_end_to_end(answer.headers))
        try:
            change = _change(request, body, name)
            shoot = await asyncio.to_thread(bind, self._admin, namespace, name, change)
        except Refused as refused:
            return web.json_response(refused.status(), status=refused.code)
        except KubeError as error:
            passed_on = Refused(
                HTTPStatus(error.http_status), error.reason.removeprefix("Kube"), error.cause, name=name
            )
            return web.json_response(passed_on.status(), status=passed_on.code)
        return web.json_response(shoot)

    def _forwarded(self, request: web.Request, body: bytes | aiohttp.StreamReader | None) -> _Answer:
        return self._session.request(
            request.method,
            URL(self._api_url + request.raw_path, encoded=True),
            headers=_end_to_end(request.headers),
            data=body,
            allow_redirects=False,
        )


def _end_to_end(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP]


def _change(request: web.Request, body: bytes, name: str) -> Callable[[Document], Document]:
    """Return what a request wants to make of the Shoot that is there.

    Raises:
        Refused: it is not understood.
    """
    if "dryRun" in request.query:
        raise Refused(HTTPStatus.BAD_REQUEST, "BadRequest", "dryRun of a binding is not emulated", name=name)
    if request.method == "PATCH" and request.content_type != MERGE_PATCH:
        message = f"the body of the request was in an unknown format - accepted media types include: {MERGE_PATCH}"
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message, name=name)
    try:
        wanted = json.loads(body)
    except ValueError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, "BadRequest", f"the body is not JSON: {error}", name=name) from error
    if not isinstance(wanted, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "BadRequest", "the body is not a Shoot", name=name)

    def changed(shoot: Document) -> Document:
        new: Document = wanted if request.method == "PUT" else merged(shoot, wanted)
        _check_version(shoot, new, name)
        return new

    return changed


def _check_version(shoot: Document, new: Document, name: str) -> None:
    """Check that an update is of the Shoot as it is; Shoots cannot be updated unconditionally."""
    version = new.get("metadata", {}).get("resourceVersion")
    where = f'{SHOOTS.plural}.{SHOOTS.group} "{name}"'
    if not version:
        message = f"{where} is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", message, name=name)
    if version != shoot["metadata"]["resourceVersion"]:
        message = (
            f"Operation cannot be fulfilled on {where}: the object has been modified; please apply your changes to the "
            "latest version and try again"
        )
        raise Refused(HTTPStatus.CONFLICT, "Conflict", message, name=name)
