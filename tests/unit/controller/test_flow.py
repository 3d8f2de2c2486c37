"""The controller beside a whole migration: what it says after every step, and that it needs no memory of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest
from garden_kube import GardenFlow
from migration_flow import COMPACTED, FINAL, HASH, NAMESPACE, PHASES, SHOOT, STEPS

from backupagent.controller.decide import HISTORY_UNKNOWN
from backupagent.controller.timeline import ALREADY_GONE
from backupagent.kube.resources import SHOOTS
from backupagent.model.migration import Phase, RestoredEtcd


@pytest.mark.parametrize("released_seed", ["seed-b", ""], ids=["as the code does", "as the documents say"])
def test_every_step_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, released_seed: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    flow = GardenFlow(tmp_path, released_seed=released_seed)
    with flow.controller() as controller:
        for name in flow.play():
            controller.look()
            assert (name, flow.report.phase) == (name, PHASES[name])
        assert controller.look() is None
    report = flow.report
    assert [(step.name, step.who) for step in report.steps] == STEPS
    assert (report.source, report.destination, report.reason, report.notes) == ("seed-a", "seed-b", "", ())
    assert report.final is not None
    assert (report.final.revision, report.final.hash_kv, report.final.compact_revision) == (FINAL, HASH, COMPACTED)
    assert report.copy is not None
    assert (report.copy.complete, report.copy.expected, report.copy.missing) == (True, 4, ())
    assert report.restored == RestoredEtcd(revision=FINAL, hash_kv=HASH, compact_revision=COMPACTED)
    assert report.equal is True
    assert report.first_backup is not None
    assert report.first_backup.startswith("Incr-00000031-")
    assert report.downtime_s == 120.0
    assert flow.events == [("Normal", name) for name, _who in STEPS]


def test_looking_again_changes_nothing(flow: GardenFlow) -> None:
    with flow.controller() as controller:
        for _name in flow.play():
            controller.look()
            version, told = flow.kube.version, flow.report
            controller.look()
            assert (flow.kube.version, flow.report) == (version, told)


def test_a_controller_that_is_killed_between_any_two_steps_ends_the_same(flow: GardenFlow) -> None:
    for _name in flow.play():
        with flow.controller() as controller:
            controller.look()
    assert [(step.name, step.who) for step in flow.report.steps] == STEPS
    assert (flow.report.phase, flow.report.equal, flow.report.downtime_s) == (Phase.SUCCEEDED, True, 120.0)
    assert flow.events == [("Normal", name) for name, _who in STEPS]


@pytest.mark.parametrize("lost_after", list(PHASES))
def test_a_controller_goes_on_from_nothing(flow: GardenFlow, lost_after: str) -> None:
    """ConfigMap and process are lost at once; what can no longer be known is said."""
    for name in flow.play():
        with flow.controller() as controller:
            controller.look()
            if name == lost_after:
                flow.forget()
        if name == lost_after:
            with flow.controller() as controller:
                controller.look()
                assert (name, flow.report.phase) == (name, PHASES[name])
    report = flow.report
    assert (report.phase, report.equal, report.reason) == (Phase.SUCCEEDED, True, "")
    source_gone = list(PHASES).index(lost_after) >= list(PHASES).index("delete_source")
    assert (HISTORY_UNKNOWN in report.notes) is source_gone
    assert report.source == ("" if source_gone else "seed-a")
    assert report.copy is not None
    assert report.copy.expected == (1 if source_gone else 4)


def test_downtime_that_began_unseen_is_said_to_be_longer(flow: GardenFlow) -> None:
    with flow.controller() as controller:
        for name in flow.play():
            if name not in {"bind", "start_migrate", "stop_api_server"}:
                controller.look()
    assert ALREADY_GONE in flow.report.notes
    # From lastOperation, which was written 20 s before the first look, and 10 s before the API server stopped.
    assert flow.report.downtime_s == 130.0


def test_what_the_source_held_is_kept_while_it_is_there(flow: GardenFlow) -> None:
    with flow.controller() as controller:
        for name in flow.play():
            controller.look()
            if name == "take_final":
                held = flow.data["source-objects"]
    names = {line.split()[0] for line in held.splitlines()}
    assert names == {stored.name for stored in flow.destination.list().snapshots if stored.snapshot.last <= FINAL}
    assert flow.data["source-objects"] == held


def test_the_next_migration_begins_a_new_report(flow: GardenFlow) -> None:
    with flow.controller() as controller:
        for _name in flow.play():
            controller.look()
        flow.change(SHOOTS, SHOOT, NAMESPACE, spec={"seedName": "seed-a"})
        controller.look()
    assert (flow.report.phase, flow.report.source, flow.report.destination) == (Phase.REQUESTED, "seed-b", "seed-a")
    assert flow.report.final is None
    assert "source-objects" not in flow.data


def test_a_shoot_that_is_in_no_migration_is_left_alone(flow: GardenFlow) -> None:
    with flow.controller() as controller:
        assert controller.look() is None
    assert ("configmaps", NAMESPACE, "demo.backupagent-migration") not in flow.kube.objects
    assert flow.events == []


def test_a_restore_of_long_ago_that_nobody_reported_on_is_left_alone(flow: GardenFlow) -> None:
    for _name in flow.play():
        pass
    flow.clock.sleep(3600)
    with flow.controller() as controller:
        assert controller.look() is None
    assert flow.events == []


def test_events_are_told_once_even_when_the_controller_dies_before_it_tells_them(flow: GardenFlow) -> None:
    flow.kube.refuse("create", "events")
    flow.bind()
    with flow.controller() as controller, pytest.raises(Exception, match="forbidden"):
        controller.look()
    flow.kube.errors.clear()
    flow.clock.sleep(5)
    for _restart in range(2):
        with flow.controller() as controller:
            controller.look()
    assert flow.events == [("Normal", "MigrationRequested"), ("Normal", "PreflightPassed")]


def test_neither_report_nor_event_nor_log_holds_a_credential(
    flow: GardenFlow, caplog: pytest.LogCaptureFixture, shown: Callable[[GardenFlow], str]
) -> None:
    flow.kube.objects["secrets", "garden", "generated-bucket-seed-a"]["data"]["secretAccessKey"] = "aHVudGVyMg=="
    with flow.controller() as controller:
        for _name in flow.play():
            controller.look()
    everything = shown(flow) + caplog.text
    assert "hunter2" not in everything
    assert "aHVudGVyMg" not in everything


@pytest.fixture
def shown() -> Callable[[GardenFlow], str]:
    """Return everything that others can read."""

    def show(flow: GardenFlow) -> str:
        readable = {"configmaps", "events"}
        return repr([document for (plural, *_rest), document in flow.kube.objects.items() if plural in readable])

    return show
