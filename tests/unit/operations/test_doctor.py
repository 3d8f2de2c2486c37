"""What is checked, what is touched, and what is said about it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from doctoring import World, check, opened, statuses
from snapshot_fakes import NOW_S, add_chain, add_delta, add_full, store

from backupagent.errors import AccessDenied, Cancelled, ConfigError, StoreUnavailable
from backupagent.operations.doctor import SERVER_SIDE, TARGET_CHECKS, Doctor
from backupagent.operations.report_care import CheckStatus
from backupagent.progress import Progress
from backupagent.settings import DoctorSettings, TransferSettings
from backupagent.snapstore import SnapStore
from backupagent.stores.base import Copies, ObjectInfo, StoreFacts, StoreLimits
from backupagent.stores.memory import MemoryStore
from backupagent.testing.faulty import METHODS, Fault
from backupagent.transfer.context import Transfer
from backupagent.units import MiB

DENIED = AccessDenied("no", op="any", store="s")
DAY_S = 24 * 3600.0


@pytest.fixture
def world() -> World:
    return World()


def test_all_well(world: World) -> None:
    full, *_ = add_chain(world.source, 5, 7)
    report = world.examine(world.source, world.target)
    assert report.ok
    assert statuses(report) == {
        ("source", "list"): "ok",
        ("source", "chains"): "ok",
        ("source", "read"): "ok",
        ("source", "retention"): "ok",
        ("source", "clock"): "ok",
        ("target", "list"): "ok",
        ("target", "retention"): "ok",
        ("target", "put"): "ok",
        ("target", "read"): "ok",
        ("target", "clock"): "ok",
        ("target", "delete"): "ok",
        ("target", "multipart"): "ok",
        ("target", "unfinished uploads"): "ok",
        ("both", "two places"): "ok",
        ("both", SERVER_SIDE): "ok",
        ("both", "duration"): "ok",
    }
    assert (
        check(report, "chains", "source").detail
        == f"newest: {full} with 1 delta, up to revision 7, contiguous; 0 older"
    )
    assert [one for one in report.checks if one.hint or one.reason] == []


def test_the_source_is_only_listed_and_read(world: World) -> None:
    add_chain(world.source, 5, 7)
    world.source_faults.calls.clear()
    assert world.examine(world.source, None).ok
    assert {method for method in METHODS if world.source_faults.calls[method]} == {"list_objects", "stat", "read_into"}


def test_nothing_stays_in_the_target(world: World) -> None:
    world.examine(None, world.target)
    assert list(world.far.list_objects("")) == []
    assert list(world.far.list_uploads("")) == []


def test_there_must_be_something_to_check(world: World) -> None:
    with pytest.raises(ConfigError, match="--source, --target"):
        world.examine(None, None)


def test_it_can_be_stopped(world: World) -> None:
    add_full(world.source, 5)
    world.cancel.set("SIGTERM")
    with pytest.raises(Cancelled):
        world.examine(world.source, None)


@pytest.mark.parametrize("where", ["open", "list"])
def test_being_stopped_is_no_finding(world: World, where: str) -> None:
    @contextmanager
    def stopped() -> Iterator[SnapStore]:
        if where == "open":
            raise Cancelled("stopped by SIGTERM")
        yield world.source

    world.source_faults.plan(Fault("list_objects", error=Cancelled("stopped by SIGTERM")))
    settings = DoctorSettings(source="s")
    transfer = Transfer(TransferSettings(), world.cancel, Progress(world.clock), world.clock)
    with pytest.raises(Cancelled):
        Doctor(stopped, None, settings, transfer).run()


# ---- copies by the store itself

ONE_SERVICE = Copies("one", smallest=1, whole=MiB, part=0)


def test_the_smallest_snapshot_is_copied_by_the_store_and_removed_again() -> None:
    world = World(copies=ONE_SERVICE)
    add_chain(world.source, 5, 7)
    smallest = min(world.source.list().snapshots, key=lambda stored: stored.size).name
    report = world.examine(world.source, world.target)
    assert check(report, SERVER_SIDE, "both").detail.startswith(f"possible, tried with {smallest}")
    assert world.target_faults.calls["copy_object"] == 1
    assert list(world.far.list_objects("")) == []


def test_a_target_that_may_not_read_the_source_is_a_warning() -> None:
    world = World(copies=ONE_SERVICE)
    add_full(world.source, 5)
    world.target_faults.plan(Fault("copy_object", error=DENIED))
    report = world.examine(world.source, world.target)
    found = check(report, SERVER_SIDE, "both")
    assert (report.ok, found.status) == (True, CheckStatus.WARNING)
    assert "read the source too" in found.hint


def test_where_the_probe_would_stay_it_is_not_tried() -> None:
    world = World(copies=ONE_SERVICE)
    add_full(world.source, 5)
    world.far.told = StoreFacts(time_s=float(NOW_S), versioning=True, retention="")
    found = check(world.examine(world.source, world.target), SERVER_SIDE, "both")
    assert (found.status, found.detail) == (CheckStatus.UNTESTED, "older versions are kept, and the probe would stay")
    assert not world.target_faults.calls["copy_object"]


def test_a_snapshot_that_is_too_large_for_a_probe_is_not_copied() -> None:
    world = World(copies=Copies("one", smallest=1, whole=1, part=1))
    add_full(world.source, 5)
    assert check(world.examine(world.source, world.target), SERVER_SIDE, "both").status is CheckStatus.UNTESTED
    assert not world.target_faults.calls["copy_object"]


def test_a_copy_of_another_size_is_a_failure() -> None:
    world = World(copies=ONE_SERVICE)
    add_full(world.source, 5)
    world.far.copy_object = lambda _source, key: ObjectInfo(key, 3, "", 0.0)
    report = world.examine(world.source, world.target)
    assert (check(report, SERVER_SIDE, "both").reason, report.ok) == ("ChecksumMismatch", False)


# ---- what is wrong with a source


def test_a_source_that_may_not_be_listed(world: World) -> None:
    add_full(world.source, 5)
    world.source_faults.plan(Fault("list_objects", error=DENIED))
    report = world.examine(world.source, None)
    assert not report.ok
    assert (check(report, "list", "source").reason, check(report, "read", "source").status) == (
        "AccessDenied",
        CheckStatus.UNTESTED,
    )
    assert "needs List and Get" in check(report, "list", "source").hint
    assert check(report, "duration", "source").status is CheckStatus.UNTESTED
    assert report.expected_s is None


def test_nobody_is_asked_again_and_again_who_cannot_be_reached(world: World) -> None:
    away = StoreUnavailable("connection refused", op="list")
    world.source_faults.plan(Fault("list_objects", error=away))
    world.target_faults.plan(Fault("list_objects", error=away))
    report = world.examine(world.source, world.target)
    found = statuses(report)
    assert found.pop(("source", "list")) == found.pop(("target", "list")) == "failed"
    assert found.pop(("both", "two places")) == "ok"
    assert set(found.values()) == {"untested"}
    assert world.source_faults.calls.total() == world.target_faults.calls.total() == 1
    assert {name for _side, name in found} >= set(TARGET_CHECKS)


def test_a_source_that_may_not_be_read(world: World) -> None:
    add_full(world.source, 5)
    world.source_faults.plan(Fault("read_into", error=DENIED))
    report = world.examine(world.source, None)
    assert (check(report, "read", "source").status, check(report, "list", "source").status) == ("failed", "ok")


def test_a_source_that_cannot_be_opened(world: World) -> None:
    @contextmanager
    def refusing() -> Iterator[SnapStore]:
        raise ConfigError("credentials cannot be read")
        yield world.source

    settings = DoctorSettings(source="s")
    transfer = Transfer(TransferSettings(), world.cancel, Progress(world.clock), world.clock)
    report = Doctor(refusing, lambda: opened(world.target), settings, transfer).run()
    assert (check(report, "open", "source").reason, report.ok) == ("ConfigError", False)
    assert check(report, "put", "target").status == "ok", "the other side is checked all the same"


def test_an_empty_source_is_wrong_and_an_empty_target_is_not(world: World) -> None:
    report = world.examine(world.source, world.target)
    assert check(report, "list", "source").reason == "EmptySource"
    assert check(report, "list", "target").detail == "no snapshot below 'p/v2/' yet"


def test_a_gap_in_the_newest_chain_is_wrong_and_in_an_older_one_worth_a_look(world: World) -> None:
    old = add_full(world.source, 5)
    add_delta(world.source, 8, 9)
    assert check(world.examine(world.source, None), "chains", "source").reason == "RevisionGap"
    add_full(world.source, 20)
    found = check(world.examine(world.source, None), "chains", "source")
    assert (found.status, f"in 1 older chain, e.g. {old}" in found.detail) == ("warning", True)


def test_names_that_are_none_are_worth_a_look(world: World) -> None:
    add_full(world.source, 5)
    world.near.put("p/v2/readme.txt", b"x")
    found = check(world.examine(world.source, None), "list", "source")
    assert found.status == "warning"
    assert "p/v2/readme.txt" in found.detail


# ---- what is wrong with a target


def test_a_target_that_may_not_be_written(world: World) -> None:
    world.target_faults.plan(Fault("put", error=DENIED), Fault("begin_upload", error=DENIED))
    report = world.examine(None, world.target)
    found = statuses(report)
    assert found["target", "put"] == found["target", "multipart"] == "failed"
    assert found["target", "read"] == found["target", "delete"] == "untested"
    assert found["target", "clock"] == "ok"


@pytest.mark.parametrize(("fault", "reason"), [("flip", "ChecksumMismatch"), ("list", "StoreError")])
def test_a_target_that_changes_or_hides_what_it_got(
    world: World, fault: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "flip":
        world.target_faults.plan(Fault("put", flip=True))
    else:
        listed = world.far.list_objects
        monkeypatch.setattr(world.far, "list_objects", lambda prefix: [] if "probe" in prefix else listed(prefix))
    assert check(world.examine(None, world.target), "read", "target").reason == reason


def test_a_target_that_may_not_be_cleaned(world: World) -> None:
    world.target_faults.plan(Fault("delete", error=DENIED))
    assert check(world.examine(None, world.target), "delete", "target").status == "failed"


@pytest.mark.parametrize("method", ["upload_part", "list_parts", "abort_upload"])
def test_an_upload_that_cannot_be_finished_is_aborted(world: World, method: str) -> None:
    world.target_faults.plan(Fault(method, error=DENIED))
    report = world.examine(None, world.target)
    assert check(report, "multipart", "target").reason == "AccessDenied"
    assert len(world.far.list_uploads("")) == (method == "abort_upload")


def test_an_abort_that_fails_too_does_not_hide_the_reason(world: World) -> None:
    world.target_faults.plan(
        Fault("upload_part", times=4, error=StoreUnavailable("away", op="upload part")),
        Fault("abort_upload", error=DENIED),
    )
    assert check(world.examine(None, world.target), "multipart", "target").reason == "StoreUnavailable"


# ---- what the store keeps


@pytest.mark.parametrize(
    ("facts", "retention", "delete", "detail"),
    [
        (StoreFacts(retention="object lock keeps it", versioning=True), "warning", "untested", "object lock keeps it"),
        (StoreFacts(retention="", versioning=True), "ok", "untested", "older versions are kept"),
        (StoreFacts(untold=("ask for object lock: AccessDenied",)), "untested", "untested", "retention is not known"),
        (StoreFacts(), "untested", "untested", "retention is not known"),
        (None, "untested", "untested", "retention is not known"),
        (StoreFacts(retention="", untold=("versioning: of the account",)), "ok", "ok", "the probe was removed"),
    ],
)
def test_the_probe_is_removed_only_where_nothing_keeps_it(
    facts: StoreFacts | None, retention: str, delete: str, detail: str
) -> None:
    world = World(StoreLimits(min_part=5 * MiB))
    world.far.told = facts
    reports = [world.examine(None, world.target) for _ in range(2)]
    found = check(reports[1], "delete", "target")
    assert (check(reports[1], "retention", "target").status, found.status) == (retention, delete)
    assert found.detail.startswith(detail)
    left = [info.key for info in world.far.list_objects("")]
    assert left == ([] if delete == "ok" else ["p/manifests/doctor-probe"]), "one, however often it is run"
    assert check(reports[1], "multipart", "target").status == "ok"


def test_parts_that_would_stay_are_not_written(world: World) -> None:
    world.far.told = StoreFacts(retention="a retention policy keeps it for 5 s")
    found = check(world.examine(None, world.target), "multipart", "target")
    assert (found.status, "keeps it for 5 s" in found.detail) == ("untested", True)
    assert world.target_faults.calls["begin_upload"] == 0


def test_parts_that_the_service_removes_are_told(world: World) -> None:
    world.far.lasting = True
    assert "removes them within a week" in check(world.examine(None, world.target), "multipart", "target").detail


def test_a_store_on_this_machine_has_no_clock_and_keeps_nothing(world: World) -> None:
    report = world.examine(None, store(MemoryStore()))
    assert check(report, "clock", "target").detail == "the one of this machine"
    assert check(report, "retention", "target").status == check(report, "delete", "target").status == "ok"


@pytest.mark.parametrize(
    ("ahead_s", "status", "words"),
    [
        (59, "ok", "less than"),
        (61, "warning", "1m01s ahead"),
        (-61, "warning", "1m01s behind"),
        (901, "failed", "ahead"),
    ],
)
def test_clocks_that_differ(world: World, ahead_s: float, status: str, words: str) -> None:
    add_full(world.source, 5)
    world.near.told = StoreFacts(time_s=NOW_S + 1 - ahead_s)
    world.near.clock.sleep(0.2)
    found = check(world.examine(world.source, None), "clock", "source")
    assert (found.status, words in found.detail, bool(found.hint)) == (status, True, status != "ok")


def test_without_a_clock_of_its_own_the_time_of_the_probe_counts(world: World) -> None:
    world.far.told = StoreFacts(retention="", versioning=False)
    report = world.examine(None, world.target)
    assert check(report, "clock", "target").status == "ok"
    add_full(world.source, 5)
    world.near.told = StoreFacts()
    assert check(world.examine(world.source, None), "clock", "source").status == "untested"


# ---- uploads


def test_uploads_that_nobody_will_end(world: World) -> None:
    for number in range(5):
        world.far.begin_upload(f"p/v2/Full-{number}", part_size=4)
    young = check(world.examine(None, world.target), "unfinished uploads", "target")
    assert (young.status, young.detail) == ("ok", "5 younger than 24h00m, of a copy that may be at work")
    world.clock.sleep(DAY_S)
    old = check(world.examine(None, world.target), "unfinished uploads", "target")
    assert old.status == "warning"
    assert "5 left by copies that did not end: p/v2/Full-0 (upload, 24h00m old), " in old.detail
    assert old.detail.endswith(", ...")
    assert "gc --incomplete" in old.hint
    world.far.begin_upload("p/v2/Full-9", part_size=4)
    both = check(world.examine(None, world.target), "unfinished uploads", "target")
    assert both.detail.endswith("; 1 younger than 24h00m, of a copy that may be at work")


# ---- both


def test_a_copy_onto_itself_is_refused(world: World) -> None:
    add_full(world.source, 5)
    report = world.examine(world.source, world.source)
    assert check(report, "two places", "both").reason == "ConfigError"
    other = SnapStore(world.near, "other")
    assert check(world.examine(world.source, other), "two places", "both").status == "ok"


def test_the_duration_is_that_of_the_slower_side(world: World) -> None:
    for last in (10, 20):
        add_full(world.source, last, pages=8192)  # 32 MiB each
    report = world.examine(world.source, world.target)
    assert report.expected_s == pytest.approx(16.0, rel=0.01)
    found = check(report, "duration", "both").detail
    assert found.startswith("about 16.0 s for all 64.0 MiB; the newest chain, 32.0 MiB, comes first (by ")
    assert "32.0 MiB at 8.0 MiB/s read from the source, 20.0 MiB at 4.0 MiB/s written to the target" in found


def test_the_sample_is_no_larger_than_asked(world: World) -> None:
    add_full(world.source, 10, pages=8192)
    add_delta(world.source, 11, 12)
    world.source_faults.calls.clear()
    report = world.examine(world.source, None, sample=9 * MiB)
    assert world.source_faults.calls["read_into"] == 3
    assert check(report, "read", "source").detail == "9.0 MiB at 8.0 MiB/s, in 3 requests, 8 at once"
    assert "9.0 MiB at 8.0 MiB/s read from the source)" in check(report, "duration", "source").detail


def test_many_small_objects_are_bound_by_round_trips(world: World) -> None:
    add_chain(world.source, 5, *range(6, 69))
    assert world.examine(world.source, world.target).expected_s == pytest.approx(64 * (0.5 + 0.5) / 32)


def test_what_is_too_fast_to_be_measured_gives_no_duration(world: World) -> None:
    add_full(memory := store(MemoryStore()), 5)
    report = world.examine(memory, store(MemoryStore("other")))
    assert report.expected_s is None
    assert check(report, "duration", "both").status == "untested"
