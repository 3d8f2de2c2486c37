"""What is stale and what is spared."""

import os
from pathlib import Path

import pytest
from snapshot_fakes import NOW, WaitingCancel, store

from backupagent.clock import FakeClock
from backupagent.errors import AccessDenied, Cancelled, ObjectLocked, StoreUnavailable
from backupagent.operations.collector import IN_USE_AT_MOST_S, Collector
from backupagent.operations.report_care import CollectReport
from backupagent.progress import Progress
from backupagent.settings import GcSettings, TransferSettings
from backupagent.snapstore import SnapStore
from backupagent.stores.base import ObjectInfo, StoreFacts, Upload
from backupagent.stores.local import LocalStore
from backupagent.stores.memory import MemoryStore
from backupagent.testing.faulty import Fault, FaultyStore
from backupagent.transfer.context import Transfer

DAY_S = 24 * 3600.0
KEY = "p/v2/Full-00000000-00000005-1"


class World:
    def __init__(self) -> None:
        self.clock = FakeClock(NOW)
        self.memory = MemoryStore(clock=self.clock)
        self.faulty = FaultyStore(self.memory)
        self.snapstore = store(self.faulty)
        self.cancel = WaitingCancel(self.clock)

    def collect(self, snapstore: SnapStore | None = None, *, dry_run: bool = False) -> CollectReport:
        settings = GcSettings(store="s", incomplete=True, dry_run=dry_run)
        transfer = Transfer(TransferSettings(), self.cancel, Progress(self.clock), self.clock)
        return Collector(snapstore or self.snapstore, settings, transfer).run()

    def begin(self, *, remembered: bool = True) -> Upload:
        upload = self.memory.begin_upload(KEY, part_size=4)
        self.memory.upload_part(upload, 1, b"1234")
        if remembered:
            self.snapstore.journal.remember("entry", upload, now_s=self.clock.now().timestamp())
        return upload


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let entries be those of other machines."""
    monkeypatch.setattr("socket.gethostname", lambda: f"host-{os.urandom(4).hex()}")


@pytest.mark.usefixtures("elsewhere")
def test_a_day_is_the_limit(world: World) -> None:
    world.begin()
    world.clock.sleep(DAY_S - 1)
    assert [each.note for each in world.collect().kept] == ["younger than 24h00m"]
    world.clock.sleep(1)
    assert [each.age_s for each in world.collect().removed] == [DAY_S]


@pytest.mark.usefixtures("elsewhere")
def test_an_entry_that_was_written_anew_is_a_sign_of_life(world: World) -> None:
    upload = world.begin()
    world.clock.sleep(DAY_S)
    world.snapstore.journal.remember("entry", upload, now_s=world.clock.now().timestamp())
    assert world.collect().removed == ()


def test_what_a_process_of_this_machine_works_on_stays(world: World) -> None:
    world.begin()
    world.clock.sleep(DAY_S)
    assert [each.note for each in world.collect().kept] == ["its process runs on this machine"]
    world.clock.sleep(IN_USE_AT_MOST_S - DAY_S)
    assert len(world.collect().removed) == 1


@pytest.mark.usefixtures("elsewhere")
def test_what_is_taken_up_just_now_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = world.begin()
    world.clock.sleep(DAY_S)
    stat = world.memory.stat

    def taken_up(key: str) -> ObjectInfo:
        world.snapstore.journal.remember("entry", upload, now_s=0)
        return stat(key)

    monkeypatch.setattr(world.memory, "stat", taken_up)
    report = world.collect()
    assert (report.removed, [each.note for each in report.kept]) == ((), ["a copy has just taken it up"])
    assert len(world.memory.list_uploads("")) == 1


@pytest.mark.usefixtures("elsewhere")
def test_what_ends_just_now_is_no_trouble(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = world.begin()
    world.clock.sleep(DAY_S)
    stat = world.memory.stat

    def completed(key: str) -> ObjectInfo:
        world.memory.complete_upload(upload, world.memory.list_parts(upload))
        world.snapstore.journal.forget("entry")
        return stat(key)

    monkeypatch.setattr(world.memory, "stat", completed)
    assert len(world.collect().removed) == 1
    assert [info.key for info in world.memory.list_objects("")] == [KEY]


def test_what_nobody_knows_the_age_of_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.memory, "list_uploads", lambda prefix: [Upload(KEY, "1", 0)] if "v2" in prefix else [])
    assert [each.note for each in world.collect().kept] == ["the store does not tell how old it is"]


def test_the_clock_of_the_store_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.begin(remembered=False)
    now_s = world.clock.now().timestamp()
    monkeypatch.setattr(MemoryStore, "facts", lambda _self: StoreFacts(time_s=now_s + DAY_S), raising=False)
    assert len(world.collect(dry_run=True).removed) == 1
    world.clock.sleep(10 * DAY_S)
    monkeypatch.setattr(MemoryStore, "facts", lambda _self: StoreFacts(time_s=now_s), raising=False)
    assert world.collect().removed == ()


@pytest.mark.parametrize("error", [AccessDenied("no", op="ask"), StoreUnavailable("away", op="ask")])
def test_a_store_that_does_not_tell_its_clock(
    error: AccessDenied | StoreUnavailable, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: MemoryStore) -> StoreFacts:
        raise error

    world.begin(remembered=False)
    world.clock.sleep(DAY_S)
    monkeypatch.setattr(MemoryStore, "facts", refuse, raising=False)
    if error.retryable:
        with pytest.raises(StoreUnavailable):
            world.collect()
    else:
        assert len(world.collect().removed) == 1


@pytest.mark.usefixtures("elsewhere")
def test_what_retention_keeps_does_not_keep_the_rest(world: World) -> None:
    world.begin()
    world.begin(remembered=False)
    world.clock.sleep(DAY_S)
    world.faulty.plan(Fault("delete", error=ObjectLocked("until Friday", op="delete")))
    report = world.collect()
    assert {each.note for each in report.removed} == {"", "some of it stays until its retention ends: until Friday"}
    assert world.memory.list_uploads("") == []


@pytest.mark.usefixtures("elsewhere")
def test_a_refusal_is_an_error(world: World) -> None:
    world.begin()
    world.clock.sleep(DAY_S)
    world.faulty.plan(Fault("abort_upload", error=AccessDenied("no", op="abort upload")))
    with pytest.raises(AccessDenied):
        world.collect()


def test_it_can_be_stopped(world: World) -> None:
    world.begin()
    world.cancel.set("SIGTERM")
    with pytest.raises(Cancelled):
        world.collect()


def test_what_a_killed_write_in_one_request_leaves(tmp_path: Path, world: World) -> None:
    """Only a directory has that."""
    left = tmp_path / "v2" / "Full-00000000-00000005-1.0123456789abcdef.part"
    log = left.with_name(f"{left.name}.log")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    os.utime(left, (world.clock.now().timestamp() - DAY_S,) * 2)
    snapstore = SnapStore(LocalStore(tmp_path), "")
    (removed,) = world.collect(snapstore).removed
    assert (removed.kind, removed.key, removed.bytes) == ("leftover", "v2/Full-00000000-00000005-1", 4)
    assert list(left.parent.iterdir()) == []
    log.write_bytes(b'{"part_size": 5}')
    os.utime(log, (world.clock.now().timestamp() - DAY_S,) * 2)
    (removed,) = world.collect(snapstore).removed
    assert (removed.kind, removed.bytes) == ("upload", None)
    assert list(left.parent.iterdir()) == []
