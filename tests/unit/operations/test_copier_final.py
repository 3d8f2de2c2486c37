"""Waiting for the final snapshot of an etcd that is being stopped."""

import pytest
from snapshot_fakes import NOW, WaitingCancel, add_chain, add_delta, add_full, names, store

from backupagent.clock import FakeClock
from backupagent.errors import Cancelled, EmptySource, FinalSnapshotMissing
from backupagent.operations.copier import Copier
from backupagent.operations.final import NEWEST_FULLS, POLL_S, UNKNOWN_REVISION
from backupagent.operations.report import CopyReport
from backupagent.progress import Progress
from backupagent.settings import CopySettings, OnMissingFinal, TransferSettings
from backupagent.snapstore import SnapStore
from backupagent.transfer.context import Transfer


def copy(
    source: SnapStore,
    target: SnapStore,
    cancel: WaitingCancel,
    clock: FakeClock,
    *,
    on_missing: OnMissingFinal = OnMissingFinal.ERROR,
) -> CopyReport:
    settings = CopySettings(source="s", target="t", wait_for_final=12, on_missing_final=on_missing)
    return Copier(source, target, settings, Transfer(TransferSettings(), cancel, Progress(clock), clock)).run()


class World:
    """A clock, and a token whose waits move it."""

    def __init__(self) -> None:
        self.clock = FakeClock(NOW)
        self.cancel = WaitingCancel(self.clock)
        self.source, self.target = store(), store()

    def copy(self, on_missing: OnMissingFinal = OnMissingFinal.ERROR) -> CopyReport:
        return copy(self.source, self.target, self.cancel, self.clock, on_missing=on_missing)


@pytest.fixture
def world() -> World:
    return World()


def test_one_that_is_there_is_not_waited_for(world: World) -> None:
    add_full(world.source, 5, final=True)
    report = world.copy()
    assert world.cancel.waits == []
    assert report.given_up_revisions is None


def test_one_that_appears_meanwhile_is_copied(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    add_chain(world.source, 5, 7)

    def appear() -> None:
        if len(world.cancel.waits) == 2:
            add_full(world.source, 9, final=True)

    monkeypatch.setattr(world.cancel, "waited", appear)
    assert world.copy().newest_chain.last_revision == 9
    assert world.cancel.waits == [POLL_S, POLL_S]


def test_the_last_look_is_at_the_deadline_and_names_the_newest_snapshot(world: World) -> None:
    full, delta = add_chain(world.source, 5, 7)
    with pytest.raises(FinalSnapshotMissing, match=f"the newest snapshot is {delta}"):
        world.copy()
    assert world.cancel.waits == [5, 5, 2]
    assert names(world.target) == []
    assert full in names(world.source)


def test_going_on_with_less_says_which_revisions_are_given_up(world: World) -> None:
    add_chain(world.source, 5, 7)
    assert world.copy(OnMissingFinal.COPY).given_up_revisions == (8, UNKNOWN_REVISION)
    assert len(names(world.target)) == 2


def test_a_source_that_stays_empty(world: World) -> None:
    with pytest.raises(FinalSnapshotMissing, match="the newest snapshot is none"):
        world.copy()
    with pytest.raises(EmptySource):
        world.copy(OnMissingFinal.COPY)


@pytest.mark.parametrize(("later", "found"), [(NEWEST_FULLS - 1, True), (NEWEST_FULLS, False)])
def test_an_etcd_may_go_on_for_a_while_after_its_final_snapshot(world: World, later: int, found: bool) -> None:
    add_full(world.source, 5, final=True)
    for number in range(later):
        add_full(world.source, 10 + number)
    add_delta(world.source, 10 + later, 20)
    if found:
        world.copy()
        assert world.cancel.waits == []
    else:
        with pytest.raises(FinalSnapshotMissing):
            world.copy()


def test_waiting_ends_when_it_is_cancelled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.cancel, "waited", lambda: world.cancel.set("SIGTERM"))
    with pytest.raises(Cancelled, match="SIGTERM"):
        world.copy()
    assert world.cancel.waits == [POLL_S]
