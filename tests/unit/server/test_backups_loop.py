"""When backups are taken while etcd runs, and what failures do to that."""

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sidecar_fakes import NOON, NOON_S, FakeSnapshots, chain, listing, report, run, status, until

from backupagent.clock import SYSTEM_CLOCK
from backupagent.errors import EtcdUnavailable, StoreUnavailable
from backupagent.operations.report import ListedChain, ListReport, SnapshotReport
from backupagent.server import backups as module
from backupagent.server.backups import Backups, why_full
from backupagent.server.metrics import Metrics
from backupagent.server.schedule import Schedule
from backupagent.settings import SnapshotChoice

FULL = f"Full-00000000-00000009-{NOON_S}.gz"
DELTA = f"Incr-00000010-00000012-{NOON_S}.gz"
NO_STORE = StoreUnavailable("503", op="list")
NO_ETCD = EtcdUnavailable("refused", endpoint="e")


class NoonClock:
    """The machine's clock, set to noon when it is made; its time of day can be set again."""

    def __init__(self) -> None:
        self.ahead = NOON - SYSTEM_CLOCK.now()

    def now(self) -> datetime:
        return SYSTEM_CLOCK.now() + self.ahead

    def monotonic_s(self) -> float:
        return SYSTEM_CLOCK.monotonic_s()

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


class Place:
    """A sidecar's backups with everything around them made up."""

    def __init__(self, *answers: Any, delta_period_s: float = 0.0, newest: ListedChain | None = None) -> None:
        self.take = FakeSnapshots(*(answers or (report(FULL),)))
        self.newest = newest
        self.trouble: list[Exception] = []
        self.probes: list[Exception | None] = []
        self.probed = 0
        self.told: list[SnapshotReport] = []
        self.metrics = Metrics()
        self.clock = NoonClock()
        self.backups = Backups(
            take=lambda kind, final: self.take(kind, final),  # noqa: PLW0108 - tests put another in its place
            listing=self._listing,
            probe=self._probe,
            taken=self.told.append,
            schedule=Schedule("0 * * * *"),
            delta_period_s=delta_period_s,
            metrics=self.metrics,
            clock=self.clock,
        )

    def _listing(self) -> ListReport | None:
        if self.trouble:
            raise self.trouble.pop(0)
        return None if self.newest is None else listing(self.newest)

    def _probe(self) -> Any:
        self.probed += 1
        error = self.probes.pop(0) if self.probes else None
        if error is not None:
            raise error
        return status()

    def begun(self) -> bool:
        return self.backups.active and self.backups._next_full != module.NEVER

    def metric(self, name: str) -> float:
        lines = [line for line in self.metrics.text().decode().splitlines() if line.startswith(f"{name} ")]
        return float(lines[0].rpartition(" ")[2])

    def run(self, condition: Callable[[], object]) -> None:
        """Run the loop until something is so, and stop it."""

        async def go() -> None:
            loop = asyncio.create_task(self.backups.run())
            await until(condition)
            await self.backups.stop()
            await loop

        run(go())


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(module, "PROBE_S", 0.001)


# ---- the start


@pytest.mark.parametrize(
    ("newest", "reason"),
    [
        (None, "the store has none"),
        (chain(f"{FULL}.final", DELTA), "the newest one is final"),
        (chain(f"Full-00000000-00000008-{NOON_S}.gz.final"), "the newest one is final"),
        (chain(f"{FULL}.final"), ""),
        (chain(f"Full-00000000-00000009-{NOON_S - 3600}.gz"), "the last one was missed"),
        (chain("Full-00000000-00000009-999999999999"), "the newest one does not say when it was taken"),
        (chain(FULL, DELTA), ""),
    ],
)
def test_why_a_full(newest: ListedChain | None, reason: str) -> None:
    assert why_full(newest, Schedule("0 * * * *"), NOON + timedelta(minutes=30), revision=9) == reason


def test_an_empty_store_gets_a_full_first() -> None:
    place = Place()
    place.run(place.begun)
    assert place.take.asked[0] == ("full", False)


def test_a_chain_that_can_be_gone_on_from_gets_a_delta_first() -> None:
    place = Place(report(DELTA, last=12), delta_period_s=1000, newest=chain(FULL))
    required: list[float] = []
    answer = place.take

    def take(kind: SnapshotChoice, final: bool) -> SnapshotReport:
        required.append(place.metric('etcdbr_snapshot_required{kind="Incr"}'))
        return answer(kind, final)

    place.take = take  # type: ignore[assignment] # one that looks
    place.run(place.begun)
    assert answer.asked[0] == ("delta", False)
    assert required[0] == 1
    assert place.metric('etcdbr_snapshot_latest_revision{kind="Full"}') == 9
    assert place.metric('etcdbr_snapshot_latest_timestamp{kind="Full"}') == NOON_S
    assert place.metric('etcdbr_snapshot_latest_revision{kind="Incr"}') == 12


@pytest.mark.parametrize(
    ("newest", "delta_period_s"), [(chain(f"{FULL}.final"), 1000.0), (chain(f"{FULL}.final"), 0.0), (chain(FULL), 0.0)]
)
def test_nothing_is_taken_first_where_nothing_is_due(newest: ListedChain, delta_period_s: float) -> None:
    place = Place(newest=newest, delta_period_s=delta_period_s)
    began: list[int] = []
    place.run(lambda: place.begun() and (began.append(len(place.take.asked)) or True))
    assert began == [0]
    assert place.metric('etcdbr_snapshot_required{kind="Incr"}') == 0


def test_an_etcd_that_is_not_there_yet_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    place = Place()
    place.probes = [NO_ETCD, NO_ETCD]
    place.run(place.begun)
    assert caplog.text.count("waiting for etcd") == 1
    assert "backups fail" not in caplog.text


def test_it_can_be_stopped_while_it_waits_for_etcd() -> None:
    place = Place()
    place.probes = [NO_ETCD] * 100_000
    place.run(lambda: place.probed > 1)
    assert place.take.asked == []


# ---- going on


def test_deltas_by_period() -> None:
    place = Place(report(DELTA, last=12), delta_period_s=0.001, newest=chain(FULL))
    place.run(lambda: len(place.take.asked) >= 5)
    assert set(place.take.asked) == {("delta", False)}
    assert [told.last_revision for told in place.told[:2]] == [12, 12]


def test_deltas_go_on_when_the_time_of_day_is_set_back() -> None:
    place = Place(report(DELTA), delta_period_s=0.001, newest=chain(FULL))

    def look() -> bool:
        if len(place.take.asked) == 1:
            place.clock.ahead -= timedelta(hours=5)
        return len(place.take.asked) >= 5

    place.run(look)


def test_a_full_when_its_moment_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    place = Place(newest=chain(FULL))

    def look() -> bool:
        if place.begun() and not place.take.asked:
            place.clock.ahead += timedelta(hours=1)
        return ("full", False) in place.take.asked

    place.run(look)
    assert place.take.asked.count(("full", False)) == 1


def test_an_etcd_that_ends_is_noticed_also_between_backups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 1000)
    place = Place(newest=chain(FULL))

    async def go() -> None:
        loop = asyncio.create_task(place.backups.run())
        await until(place.begun)
        place.probes = [NO_ETCD]
        await until(lambda: not place.backups.active)
        assert place.metric("backupagent_healthy") == 0
        await place.backups.stop()
        await loop

    run(go())


def test_one_at_a_time() -> None:
    place = Place()
    go_on, running, most = threading.Event(), [0], [0]

    def take(_kind: SnapshotChoice, _final: bool) -> SnapshotReport:
        running[0] += 1
        most[0] = max(most[0], running[0])
        go_on.wait()
        running[0] -= 1
        return report(FULL)

    place.take = take  # type: ignore[assignment] # one that waits

    async def go() -> None:
        both = asyncio.gather(*(place.backups.take(SnapshotChoice.FULL) for _ in range(3)))
        await until(lambda: running[0])
        go_on.set()
        await both

    run(go())
    assert most == [1]
    assert len(place.told) == 3


def test_who_asks_for_a_snapshot_may_wait_for_the_first_one() -> None:
    place, go_on = Place(), threading.Event()
    first = place.take

    def take(kind: SnapshotChoice, final: bool) -> SnapshotReport:
        go_on.wait()
        return first(kind, final)

    place.take = take  # type: ignore[assignment] # one that waits

    async def go() -> None:
        loop = asyncio.create_task(place.backups.run())
        await until(lambda: place.backups.active)
        asked = asyncio.create_task(place.backups.take(SnapshotChoice.FULL, final=True))
        go_on.set()
        await asked
        await place.backups.stop()
        await loop

    run(go())
    assert first.asked == [("full", False), ("full", True), ("delta", False)]


# ---- failures


def test_failures_are_told_and_tried_again_with_growing_pauses(caplog: pytest.LogCaptureFixture) -> None:
    place = Place(NO_STORE, NO_STORE, NO_STORE, report(FULL), report(None))
    place.run(place.begun)
    pauses = [float(record.args[0]) for record in caplog.records if record.msg.startswith("backups fail")]  # type: ignore[index,arg-type]
    assert pauses == [0.001, 0.002, 0.004]
    assert place.take.asked[:4] == [("full", False)] * 4
    assert place.metric('backupagent_snapshot_failures_total{reason="StoreUnavailable"}') == 3
    assert place.metric('etcdbr_snapshot_required{kind="Full"}') == 0


def test_pauses_do_not_grow_for_ever_and_begin_anew_after_a_success(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.003)
    fails, works = NO_STORE, report(FULL)
    place = Place(fails, fails, fails, fails, works, fails, works, delta_period_s=0.001)
    place.run(lambda: len(place.told) >= 2)
    pauses = [float(record.args[0]) for record in caplog.records if record.msg.startswith("backups fail")]  # type: ignore[index,arg-type]
    assert pauses == [0.001, 0.002, 0.003, 0.003, 0.001]


def test_a_store_that_cannot_be_listed_and_a_bug_are_no_end() -> None:
    place = Place()
    place.trouble = [NO_STORE, RuntimeError("a bug")]
    place.run(place.begun)
    assert place.trouble == []


def test_a_snapshot_that_fails_on_request_is_raised_and_counted() -> None:
    place = Place(NO_STORE)

    async def go() -> None:
        with pytest.raises(StoreUnavailable):
            await place.backups.take(SnapshotChoice.FULL, final=True)

    run(go())
    assert place.take.asked == [("full", True)]
    assert place.metric('etcdbr_snapshot_required{kind="Full"}') == 1
    assert place.metric('etcdbr_snapshot_duration_seconds_count{kind="Full",succeeded="false"}') == 1


# ---- the end


def test_the_end_takes_a_last_delta() -> None:
    place = Place(report(FULL), report(DELTA, last=12))
    place.run(place.begun)
    assert place.take.asked == [("full", False), ("delta", False)]
    assert place.told[-1].name == DELTA
    assert not place.backups.active
    assert place.metric("backupagent_healthy") == 0


def test_no_last_delta_of_an_etcd_that_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    place = Place()

    async def go() -> None:
        loop = asyncio.create_task(place.backups.run())
        await until(place.begun)
        place.probes = [NO_ETCD]
        await place.backups.stop()
        await loop

    run(go())
    assert place.take.asked == [("full", False)]
    assert "no last delta: " in caplog.text


def test_a_store_that_hangs_does_not_hold_up_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST_DELTA_S", 0.01)
    place, hang = Place(report(FULL)), threading.Event()

    async def go() -> None:
        loop = asyncio.create_task(place.backups.run())
        await until(place.begun)
        place.take = lambda _kind, _final: hang.wait() and report(None)  # type: ignore[assignment,return-value]
        await place.backups.stop()
        await loop

    run(go())
    hang.set()
    assert "no last delta: no time left" in caplog.text


@pytest.mark.parametrize("error", [NO_STORE, RuntimeError("a bug")])
def test_a_last_delta_that_fails_is_told(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    place = Place(report(FULL))

    def fail(_kind: SnapshotChoice, _final: bool) -> SnapshotReport:
        raise error

    async def go() -> None:
        loop = asyncio.create_task(place.backups.run())
        await until(place.begun)
        place.take = fail  # type: ignore[assignment] # one that fails
        await place.backups.stop()
        await loop

    run(go())
    assert "no last delta" in caplog.text
    assert not place.backups.active
