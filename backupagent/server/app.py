"""The routes: read the request, call one thing, write the answer.

Source of paths, methods, bodies and status codes: etcd-backup-restore, pkg/server/httpAPI.go at debd95b; any method
is accepted there. Answers are small and written at once with their header: etcd-wrapper cancels its request as soon as
it has the header (observed on etcd-wrapper 0d41e79).
"""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import web

from backupagent.errors import BackupAgentError
from backupagent.logs import without_secrets
from backupagent.model.snapshot import Snapshot
from backupagent.operations.report import ListReport, SnapshotReport
from backupagent.server.backups import Backups
from backupagent.server.initialization import InitializationState
from backupagent.server.metrics import CONTENT_TYPE, Metrics
from backupagent.server.schedule import created
from backupagent.settings import SnapshotChoice

MAX_BODY_SIZE = 64 * 1024
"""No route reads a body."""

MAX_TOKEN_SIZE = 4096

NO_TIME = "0001-01-01T00:00:00Z"
"""Go's time.Time without a value."""


@dataclass(frozen=True)
class Parts:
    """What the routes call.

    Attributes:
        initialization: State of the initialization.
        config: Returns etcd's configuration as YAML.
        backups: Takes snapshots; None without a store.
        listing: Lists the store, in a thread; None when it is empty or there is none.
        prefix: Of snapshots in the store, as listings show it.
        metrics: What ``/metrics`` shows.
        token_file: Holds the bearer token that mutating routes ask for; None when they ask for none.
    """

    initialization: InitializationState
    config: Callable[[], str]
    backups: Backups | None
    listing: Callable[[], Awaitable[ListReport | None]]
    prefix: str
    metrics: Metrics
    token_file: Path | None


class Routes:
    """Every route of the sidecar.

    Args:
        parts: What they call.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._one_listing = asyncio.Lock()

    def application(self) -> web.Application:
        """Return the application."""
        application = web.Application(client_max_size=MAX_BODY_SIZE, middlewares=[_errors_as_text])
        application.on_response_prepare.append(_secure_transport)
        for path, handler in (
            ("/healthz", self._health),
            ("/metrics", self._metrics),
            ("/config", self._config),
            ("/initialization/status", self._status),
            ("/initialization/start", self._guarded(self._start)),
            ("/snapshot/full", self._guarded(self._full)),
            ("/snapshot/delta", self._guarded(self._delta)),
            ("/snapshot/latest", self._latest),
        ):
            application.router.add_route("*", path, handler)
        return application

    # ---- reading

    async def _health(self, _request: web.Request) -> web.Response:
        healthy = self._parts.backups is None or self._parts.backups.active
        status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return _json({"health": healthy}, status)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._parts.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _config(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._parts.config(), content_type="application/x-yaml")

    async def _status(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._parts.initialization.read().value)

    async def _latest(self, _request: web.Request) -> web.Response:
        async with self._one_listing:  # nobody has to say who he is to ask for one
            found = await self._parts.listing()
        if found is None or not found.chains:
            return _json({"fullSnapshot": None, "deltaSnapshots": None})
        newest = found.chains[0]
        full = snapshot_json(newest.full.name, self._parts.prefix)
        deltas = [snapshot_json(delta.name, self._parts.prefix) for delta in newest.deltas]
        return _json({"fullSnapshot": full, "deltaSnapshots": deltas or None})

    # ---- doing

    async def _start(self, request: web.Request) -> web.Response:
        self._parts.initialization.start(deep=request.query.get("mode") != "sanity")
        return web.Response()

    async def _full(self, request: web.Request) -> web.Response:
        text = request.query.get("final", "false").lower()
        if text not in {"true", "false", "1", "0", "t", "f", ""}:
            return web.Response(status=HTTPStatus.BAD_REQUEST, text=f"final={text!r} is neither true nor false\n")
        return await self._take(SnapshotChoice.FULL, final=text in {"true", "1", "t"})

    async def _delta(self, _request: web.Request) -> web.Response:
        if self._parts.backups is not None and not self._parts.backups.takes_deltas:
            return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR, text="deltas are turned off\n")
        return await self._take(SnapshotChoice.DELTA, final=False)

    async def _take(self, kind: SnapshotChoice, *, final: bool) -> web.Response:
        backups = self._parts.backups
        if backups is None:
            return web.Response(status=HTTPStatus.METHOD_NOT_ALLOWED, text="there is no store for backups\n")
        if not backups.active:
            text = "backups are not running: etcd or the store does not answer\n"
            return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR, text=text)
        report = await backups.take(kind, final=final)
        return _json(taken_json(report))

    def _guarded(self, handler: Callable[[web.Request], Awaitable[web.Response]]) -> Any:  # noqa: ANN401 - aiohttp's
        """Ask who calls, where somebody has to."""

        async def guarded(request: web.Request) -> web.Response:
            file = self._parts.token_file
            if file is not None and not _is_bearer(request, file):
                return web.Response(status=HTTPStatus.UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"})
            return await handler(request)

        return guarded


def snapshot_json(name: str, prefix: str) -> dict[str, Any]:
    """Describe a snapshot as the peer does, its misspelt field included."""
    snapshot, moment = Snapshot.parse(name), created(name)
    return {
        "createdOn": NO_TIME if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        "immutabilityExpriyTime": NO_TIME,
        "versionID": None,
        "kind": snapshot.kind.value,
        "snapDir": "",
        "snapName": name,
        "prefix": prefix,
        "compressionSuffix": snapshot.suffix,
        "startRevision": snapshot.start,
        "lastRevision": snapshot.last,
        "isChunk": False,
        "isFinal": snapshot.final,
    }


def taken_json(report: SnapshotReport) -> dict[str, Any] | None:
    """Describe a snapshot that was just taken; None when there was nothing to take."""
    return None if report.name is None else snapshot_json(report.name, "")


def _json(document: object, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(text=json.dumps(document), status=status, content_type="application/json")


def _is_bearer(request: web.Request, file: Path) -> bool:
    scheme, _space, given = request.headers.get("Authorization", "").partition(" ")
    try:
        with file.open(encoding="utf-8") as opened:
            token = opened.read(MAX_TOKEN_SIZE).strip()
    except (OSError, UnicodeDecodeError):
        return False
    sent = given.encode(errors="surrogateescape")  # a header is any bytes
    return scheme.lower() == "bearer" and bool(token) and hmac.compare_digest(sent, token.encode())


@web.middleware
async def _errors_as_text(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except BackupAgentError as error:
        # The peer knows one status for everything that failed, and its callers look for 200 alone.
        text = without_secrets(f"{error.reason}: {error}\n{error.hint}\n")
        return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR, text=text)


async def _secure_transport(request: web.Request, response: web.StreamResponse) -> None:
    """Add what the peer adds over TLS."""
    if request.secure:
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
        response.headers["Content-Security-Policy"] = "default-src 'self'"
