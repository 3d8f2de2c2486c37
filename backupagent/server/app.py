"""The routes: read the request, call one thing, write the answer.

Source of paths, methods, bodies and status codes: etcd-backup-restore, pkg/server/httpAPI.go at debd95b; any method
is accepted there. Answers are small and written at once with their header: etcd-wrapper cancels its request as soon as
it has the header (observed on etcd-wrapper 0d41e79).
"""

import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import web

from backupagent.errors import BackupAgentError
from backupagent.model.snapshot import Snapshot
from backupagent.operations.report import ListReport, SnapshotReport
from backupagent.server.backups import Backups
from backupagent.server.initialization import InitializationState
from backupagent.server.metrics import CONTENT_TYPE, Metrics
from backupagent.settings import SnapshotChoice

MAX_BODY_SIZE = 64 * 1024
"""No route reads a body."""

MAX_TOKEN_SIZE = 4096


@dataclass(frozen=True)
class Parts:
    """What the routes call.

    Attributes:
        initialization: State of the initialization.
        config: Returns etcd's configuration as YAML.
        backups: Takes snapshots; None without a store.
        listing: Lists the store, in a thread; an empty one has no chains.
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

    def application(self) -> web.Application:
        """Return the application."""
        application = web.Application(client_max_size=MAX_BODY_SIZE, middlewares=[_errors_as_text])
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
        if text not in {"true", "false", "1", "0", "t", "f"}:
            return web.Response(status=HTTPStatus.BAD_REQUEST, text=f"final={text!r} is neither true nor false\n")
        return await self._take(SnapshotChoice.FULL, final=text in {"true", "1", "t"})

    async def _delta(self, _request: web.Request) -> web.Response:
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


def snapshot_json(name: str, prefix: str, created: datetime | None = None) -> dict[str, Any]:
    """Describe a snapshot as the peer does, its misspelt field included."""
    snapshot = Snapshot.parse(name)
    moment = created or datetime.fromtimestamp(snapshot.created_s, UTC)
    return {
        "createdOn": moment.isoformat().replace("+00:00", "Z"),
        "immutabilityExpriyTime": "0001-01-01T00:00:00Z",
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
    return scheme.lower() == "bearer" and bool(token) and hmac.compare_digest(given.encode(), token.encode())


@web.middleware
async def _errors_as_text(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except BackupAgentError as error:
        # The peer knows one status for everything that failed, and its callers look for 200 alone.
        return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR, text=f"{error.reason}: {error}\n{error.hint}\n")
