"""The routes: status codes and bodies that etcd-wrapper, etcd-druid and gardenlet count on."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from sidecar_fakes import NOON_S, FakeSnapshots, chain, listing, report, run, status, until

from backupagent.clock import SYSTEM_CLOCK
from backupagent.errors import StoreUnavailable
from backupagent.operations.initializer import Action, Initialization
from backupagent.operations.report import ListReport
from backupagent.server.app import Parts, Routes, _secure_transport
from backupagent.server.backups import Backups
from backupagent.server.initialization import InitializationState
from backupagent.server.metrics import Metrics
from backupagent.server.schedule import Schedule

FULL = f"Full-00000000-00000009-{NOON_S}.gz"
FINAL = f"{FULL}.final"
DELTA = f"Incr-00000010-00000012-{NOON_S}.gz"
AGENTS = {"/initialization/start", "/snapshot/full", "/snapshot/delta"}
"""Routes that do something."""


class Place:
    """The routes over parts that are made up."""

    def __init__(self, *answers: Any, store: bool = True, active: bool = True, deltas: bool = True) -> None:
        self.take = FakeSnapshots(*(answers or (report(FULL),)))
        self.modes: list[bool] = []
        self.listed: Callable[[], ListReport | None] = lambda: None
        self.config = "name: main-0\n"
        self.token_file: Path | None = None
        self.initialization = InitializationState(self._initialize, lambda _result: None)
        self.backups = Backups(
            take=self.take,
            listing=lambda: None,
            probe=status,
            taken=lambda _report: None,
            schedule=Schedule("@hourly"),
            delta_period_s=20.0 if deltas else 0.0,
            metrics=Metrics(),
            clock=SYSTEM_CLOCK,
        )
        self.backups.active = active
        self.store = store

    def _initialize(self, *, deep: bool) -> Initialization[Any]:
        self.modes.append(deep)
        return Initialization(Action.NOTHING, "")

    def application(self) -> web.Application:
        async def listed() -> ListReport | None:
            return self.listed()

        parts = Parts(
            initialization=self.initialization,
            config=lambda: self.config,
            backups=self.backups if self.store else None,
            listing=listed,
            prefix="be/etcd-main/v2",
            metrics=Metrics(),
            token_file=self.token_file,
        )
        return Routes(parts).application()

    def talk(self, conversation: Callable[[Any], Awaitable[None]]) -> None:
        async def go() -> None:
            async with TestClient(TestServer(self.application())) as client:
                await conversation(client)

        run(go())

    def get(self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, str]:
        answers: list[tuple[int, str]] = []

        async def once(client: Any) -> None:
            async with client.request(method, path, headers=headers) as answer:
                answers.append((answer.status, await answer.text()))

        self.talk(once)
        return answers[0]

    def get_json(self, path: str) -> Any:
        code, text = self.get(path)
        assert code == 200, text
        return json.loads(text)


# ---- initialization


def test_the_protocol_of_the_wrapper() -> None:
    place = Place()

    async def wrapper(client: Any) -> None:
        async def text(path: str) -> str:
            async with client.get(path) as answer:
                assert answer.status == 200
                return str(await answer.text())

        assert await text("/initialization/status") == "New"
        assert await text("/initialization/start?mode=sanity") == ""
        await place.initialization.finish()
        assert await text("/initialization/status") == "Successful"
        assert await text("/initialization/status") == "New"
        assert await text("/config") == "name: main-0\n"

    place.talk(wrapper)


@pytest.mark.parametrize(
    ("query", "deep"), [("", True), ("?mode=full", True), ("?mode=other", True), ("?mode=sanity", False)]
)
def test_modes(query: str, *, deep: bool) -> None:
    place = Place()

    async def start(client: Any) -> None:
        await client.get(f"/initialization/start{query}")
        await place.initialization.finish()

    place.talk(start)
    assert place.modes == [deep]


@pytest.mark.parametrize("path", ["/initialization/status", "/config", "/healthz", "/snapshot/full"])
def test_header_and_body_leave_in_one_write(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrapper gives up a request as soon as it has the header, and a lost ``Successful`` is lost for good."""
    place, written = Place(), []
    place.config = "x" * 3000
    made = asyncio.selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
    for name in ("write", "writelines"):
        before = getattr(made, name)

        def note(self: Any, data: Any, before: Any = before) -> None:
            written.append(bytes(data) if isinstance(data, bytes | bytearray | memoryview) else b"".join(data))
            before(self, data)

        monkeypatch.setattr(made, name, note)
    code, body = place.get(path)
    assert code == 200
    sent = [piece for piece in written if b"HTTP/1.1 200" in piece or body.encode() in piece]
    assert len(sent) == 1
    assert sent[0].startswith(b"HTTP/1.1 200")
    assert sent[0].endswith(body.encode())


# ---- snapshots


def test_a_snapshot_is_described_as_the_peer_does() -> None:
    answer = Place(report(FINAL)).get_json("/snapshot/full?final=true")
    assert answer == {
        "createdOn": "2026-01-01T12:00:00Z",
        "immutabilityExpriyTime": "0001-01-01T00:00:00Z",
        "versionID": None,
        "kind": "Full",
        "snapDir": "",
        "snapName": FINAL,
        "prefix": "",
        "compressionSuffix": ".gz",
        "startRevision": 0,
        "lastRevision": 9,
        "isChunk": False,
        "isFinal": True,
    }


@pytest.mark.parametrize(
    ("query", "final"),
    [
        *(("", False), ("?final=", False), ("?final=false", False), ("?final=0", False), ("?final=F", False)),
        *(("?final=true", True), ("?final=TRUE", True), ("?final=1", True), ("?final=t", True)),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_a_full_may_be_final_by_any_method(method: str, query: str, *, final: bool) -> None:
    place = Place()
    assert place.get(f"/snapshot/full{query}", method=method)[0] == 200
    assert place.take.asked == [("full", final)]


def test_a_full_that_is_neither_final_nor_not() -> None:
    place = Place()
    assert place.get("/snapshot/full?final=maybe")[0] == 400
    assert place.take.asked == []


def test_a_delta_and_one_that_has_nothing_to_hold() -> None:
    assert Place(report(DELTA, last=12)).get_json("/snapshot/delta")["snapName"] == DELTA
    assert Place(report(None)).get("/snapshot/delta") == (200, "null")


@pytest.mark.parametrize("path", ["/snapshot/full?final=true", "/snapshot/delta"])
def test_when_there_is_no_snapshot(path: str) -> None:
    assert Place(store=False).get(path)[0] == 405
    code, text = Place(active=False).get(path)
    assert (code, "backups are not running" in text) == (500, True)
    error = StoreUnavailable("503, password=geheim", op="put", key="v2/x", hint="wait")
    code, text = Place(error).get(path)
    assert code == 500
    assert text.startswith("StoreUnavailable: ")
    assert "wait" in text
    assert "geheim" not in text


def test_deltas_that_are_turned_off() -> None:
    place = Place(deltas=False)
    assert place.get("/snapshot/delta")[0] == 500
    assert place.get("/snapshot/full")[0] == 200
    assert place.take.asked == [("full", False)]


def test_the_newest_chain() -> None:
    place = Place()
    assert place.get_json("/snapshot/latest") == {"fullSnapshot": None, "deltaSnapshots": None}
    place.listed = lambda: listing(chain(FULL, DELTA), chain(f"Full-00000000-00000003-{NOON_S}"))
    answer = place.get_json("/snapshot/latest")
    assert (answer["fullSnapshot"]["snapName"], answer["fullSnapshot"]["prefix"]) == (FULL, "be/etcd-main/v2")
    assert [delta["lastRevision"] for delta in answer["deltaSnapshots"]] == [12]
    place.listed = lambda: listing(chain("Full-00000000-00000009-999999999999"))
    answer = place.get_json("/snapshot/latest")
    assert (answer["fullSnapshot"]["createdOn"], answer["deltaSnapshots"]) == ("0001-01-01T00:00:00Z", None)


def test_a_store_that_cannot_be_listed() -> None:
    place = Place()

    def fail() -> ListReport | None:
        raise StoreUnavailable("503", op="list")

    place.listed = fail
    assert place.get("/snapshot/latest")[0] == 500


def test_one_listing_at_a_time() -> None:
    place, now, most = Place(), [0], [0]

    async def slow() -> ListReport | None:
        now[0] += 1
        most[0] = max(most[0], now[0])
        await asyncio.sleep(0)
        now[0] -= 1
        return None

    async def many(client: Any) -> None:
        await asyncio.gather(*(client.get("/snapshot/latest") for _ in range(5)))

    parts = Parts(place.initialization, lambda: "", None, slow, "", Metrics(), None)
    place.application = lambda: Routes(parts).application()  # type: ignore[method-assign]
    place.talk(many)
    assert most == [1]


# ---- health and metrics


@pytest.mark.parametrize(
    ("place", "code", "body"),
    [
        (Place(), 200, '{"health": true}'),
        (Place(active=False), 503, '{"health": false}'),
        (Place(store=False), 200, '{"health": true}'),
    ],
)
def test_health(place: Place, code: int, body: str) -> None:
    assert place.get("/healthz") == (code, body)


def test_metrics_are_there_from_the_start() -> None:
    code, text = Place().get("/metrics")
    assert code == 200
    for name in ("snapshot_latest_revision", "snapshot_latest_timestamp", "snapshot_required"):
        for kind in ("Full", "Incr"):
            assert f'etcdbr_{name}{{kind="{kind}"}} 0.0' in text
    assert 'etcdbr_snapshot_duration_seconds_count{kind="Incr",succeeded="false"} 0.0' in text
    assert 'etcdbr_restoration_duration_seconds_bucket{le="2.5",restore="single_node",succeeded="true"} 0.0' in text


# ---- who may


@pytest.mark.parametrize("path", sorted(AGENTS))
def test_who_does_something_must_say_who_he_is(path: str, tmp_path: Path) -> None:
    place = Place()
    place.token_file = tmp_path / "token"
    right = {"Authorization": "Bearer first"}
    assert place.get(path, headers=right)[0] == 401, "there is no file"
    place.token_file.write_text("\n")
    assert place.get(path, headers={"Authorization": "Bearer "})[0] == 401, "an empty token is nobody's"
    place.token_file.write_text("first\n")
    for headers in (None, {"Authorization": "Bearer second"}, {"Authorization": "Basic first"}):
        assert place.get(path, headers=headers)[0] == 401
    assert place.take.asked == []
    assert place.modes == []
    assert place.get(path, headers=right)[0] == 200
    assert place.get(path, headers={"Authorization": "bearer first"})[0] == 200
    place.token_file.write_text("second\n")
    assert place.get(path, headers=right)[0] == 401, "the token was changed"


def test_a_token_of_strange_bytes_is_a_wrong_one(tmp_path: Path) -> None:
    place = Place()
    place.token_file = tmp_path / "token"
    place.token_file.write_text("first\n")
    codes: list[bytes] = []

    async def raw(client: Any) -> None:
        reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(b"GET /snapshot/full HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n")
        codes.append((await reader.readline()).split()[1])
        writer.close()
        await writer.wait_closed()

    place.talk(raw)
    assert codes == [b"401"]


def test_who_only_looks_needs_no_token(tmp_path: Path) -> None:
    place = Place()
    place.token_file = tmp_path / "token"
    for path in ("/healthz", "/metrics", "/config", "/initialization/status", "/snapshot/latest"):
        assert place.get(path)[0] == 200


@pytest.mark.parametrize(("secure", "added"), [(True, 2), (False, 0)])
def test_what_is_added_over_tls(added: int, *, secure: bool) -> None:
    place, response = Place(), web.Response()
    assert _secure_transport in place.application().on_response_prepare
    before = len(response.headers)
    request: Any = SimpleNamespace(secure=secure)
    run(_secure_transport(request, response))
    assert len(response.headers) - before == added
    assert (response.headers.get("Strict-Transport-Security") == "max-age=31536000") == secure


def test_nothing_else_is_there_and_a_body_is_not_read() -> None:
    place = Place()
    assert place.get("/debug/pprof/")[0] == 404

    async def post(client: Any) -> None:
        async with client.post("/snapshot/full", data=b"x" * 1_000_000) as answer:
            assert answer.status == 200

    place.talk(post)


def test_a_caller_who_leaves_does_not_end_the_snapshot() -> None:
    place, go_on, done = Place(), threading.Event(), []

    def take(_kind: Any, _final: bool) -> Any:
        done.append("begun")
        go_on.wait()
        done.append("ended")
        return report(FULL)

    place.backups._take = take

    async def leave(client: Any) -> None:
        request = asyncio.create_task(client.get("/snapshot/full?final=true"))
        await until(lambda: done)
        request.cancel()
        await asyncio.wait([request])
        go_on.set()
        await until(lambda: len(done) == 2)

    place.talk(leave)
    assert done == ["begun", "ended"]
