"""What must never pass for success, and how a failure is left again."""

from collections.abc import Iterator
from typing import Any

import pytest
from garden_kube import GardenFlow, Looker
from migration_flow import COMPACTED, FINAL, HASH, NAMESPACE

from backupagent.controller.verdict import PROOF_WITHIN
from backupagent.kube.resources import BACKUP_ENTRIES, SHOOT_STATES
from backupagent.model.migration import MigrationReport, Phase
from backupagent.operations.arrival import Backups
from backupagent.snapstore import Listing


@pytest.fixture
def controller(flow: GardenFlow) -> Iterator[Looker]:
    with flow.controller() as looker:
        yield looker


def play(
    flow: GardenFlow, controller: Looker, *, after: str = "", until: str = "", leave_out: str = ""
) -> list[MigrationReport]:
    """Return the report after each step."""
    reports = []
    for _name in flow.play(after=after, until=until, leave_out=leave_out):
        controller.look()
        reports.append(flow.report)
    return reports


def warnings(flow: GardenFlow) -> list[str]:
    return [reason for kind, reason in flow.events if kind == "Warning"]


# ---- the final snapshot


def test_no_final_snapshot(flow: GardenFlow, controller: Looker) -> None:
    reports = play(flow, controller, leave_out="take_final tell_restored")
    assert [report.phase for report in reports[:5]] == [Phase.REQUESTED, *[Phase.PREPARING] * 3, Phase.FAILED]
    assert {report.phase for report in reports[4:]} == {Phase.FAILED}
    assert flow.report.reason == "FinalSnapshotMissing"
    assert flow.report.hint
    assert warnings(flow)[0] == "FinalSnapshotMissing"


def test_an_empty_source(flow: GardenFlow, controller: Looker) -> None:
    flow.empty("seed-a")
    play(flow, controller, until="end_migrate", leave_out="take_final")
    assert (flow.report.phase, flow.report.reason) == (Phase.FAILED, "EmptySource")
    assert warnings(flow) == ["EmptySource"]


def test_a_damaged_final_snapshot(flow: GardenFlow, controller: Looker) -> None:
    play(flow, controller, until="stop_api_server")
    flow.take_final()
    change(flow, "seed-a", ".final")
    flow.end_migrate()
    controller.look()
    assert (flow.report.phase, flow.report.reason) == (Phase.FAILED, "ChecksumMismatch")
    assert ".final" in flow.report.message


def test_a_final_snapshot_that_appears_late_ends_the_failure(flow: GardenFlow, controller: Looker) -> None:
    play(flow, controller, until="end_migrate", leave_out="take_final")
    flow.take_final()
    controller.look()
    assert (flow.report.phase, flow.report.reason, flow.report.message) == (
        Phase.RELEASED,
        "",
        "the source has let go; waiting for the destination to begin",
    )
    assert [step.name for step in flow.report.steps[-3:]] == [
        "FinalSnapshotMissing",
        "FinalSnapshotVerified",
        "FailureOver",
    ]


def test_the_final_snapshot_of_an_earlier_attempt_does_not_count(flow: GardenFlow, controller: Looker) -> None:
    flow.take_final()
    flow.clock.sleep(3600)
    play(flow, controller, until="end_migrate", leave_out="take_final")
    assert flow.report.reason == "FinalSnapshotMissing"


def test_a_final_snapshot_is_described_before_it_is_taken_for_known(flow: GardenFlow, controller: Looker) -> None:
    """The manifest comes after the object: HashKV takes its time."""
    play(flow, controller, until="take_final", leave_out="take_final")
    flow.take_final()
    manifest = next((flow.home / "bucket-seed-a").rglob("*.final.json"))
    content = manifest.read_bytes()
    manifest.unlink()
    controller.look()
    assert (flow.report.phase, flow.report.final) == (Phase.PREPARING, None)
    manifest.write_bytes(content)
    controller.look()
    assert flow.report.final is not None
    assert flow.report.final.hash_kv == HASH


def test_a_final_snapshot_of_the_peer_has_no_manifest_and_counts_when_it_was_answered(
    flow: GardenFlow, controller: Looker
) -> None:
    for name in flow.play():
        if name == "take_final":
            next((flow.home / "bucket-seed-a").rglob("*.final.json")).unlink()
        if name == "tell_restored":
            flow.tell_restored(matches_manifest=None)
        controller.look()
        if name == "take_final":
            assert flow.report.final is None
        if name == "migrate_entry":
            assert flow.report.final is not None
    assert (flow.report.phase, flow.report.equal) == (Phase.SUCCEEDED, None)
    assert "no recorded HashKV" in flow.report.notes[0]


# ---- the copy


def change(flow: GardenFlow, bucket: str, ending: str) -> str:
    """Change one byte of the object whose name ends so; size and time stay."""
    path = next((flow.home / f"bucket-{bucket}").rglob(f"v2/*{ending}"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path.name


def test_a_copy_that_says_success_without_having_copied(flow: GardenFlow, controller: Looker) -> None:
    play(flow, controller, until="tell_copied", leave_out="copy")
    assert (flow.report.phase, flow.report.reason) == (Phase.FAILED, "MigrationFailed")
    assert "0 of 4 snapshots arrived" in flow.report.message
    assert warnings(flow) == ["MigrationFailed"]


@pytest.mark.parametrize("kind", ["Full-00000000-00000030", "Full-00000000-00000010", "Incr-00000011"])
@pytest.mark.parametrize("harm", ["missing", "truncated", "changed"])
def test_a_copy_that_left_something_out(flow: GardenFlow, controller: Looker, kind: str, harm: str) -> None:
    play(flow, controller, until="copy")
    path = next((flow.home / "bucket-seed-b").rglob(f"v2/{kind}*"))
    if harm == "missing":
        path.unlink()
    elif harm == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        change(flow, "seed-b", path.name)
    play(flow, controller, after="copy")  # gardenlet takes the task's word
    assert (flow.report.phase, flow.report.reason) == (Phase.FAILED, "MigrationFailed")
    assert path.name in flow.report.message
    assert flow.report.copy is not None
    assert flow.report.copy.missing == (path.name,)


def test_copying_what_was_missing_ends_the_failure(flow: GardenFlow, controller: Looker) -> None:
    play(flow, controller, until="tell_copied", leave_out="copy")
    flow.copy()
    controller.look()
    assert (flow.report.phase, flow.report.reason) == (Phase.COPIED, "")
    assert flow.report.steps[-1].name == "FailureOver"


def test_while_the_copy_runs_nothing_is_missing(flow: GardenFlow, controller: Looker) -> None:
    play(flow, controller, until="create_copy_task")
    assert (flow.report.phase, flow.report.message) == (Phase.COPYING, "0 of 4 snapshots have arrived")
    flow.copy()
    controller.look()
    assert (flow.report.phase, flow.report.message) == (Phase.COPYING, "4 of 4 snapshots have arrived")


def test_a_source_that_is_being_deleted_is_not_taken_for_all_there_was(
    flow: GardenFlow, controller: Looker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gardenlet begins to delete the prefix between our look at the BackupEntry and our listing."""
    play(flow, controller, until="create_copy_task")
    listing = Backups.list

    def list_while_it_goes(backups: Backups) -> Listing:
        flow.kube.delete(BACKUP_ENTRIES, "source-shoot--dev--demo--u1", NAMESPACE)
        for path in (flow.home / "bucket-seed-a").rglob("v2/Incr-*"):
            path.unlink()
        return listing(backups)

    monkeypatch.setattr(Backups, "list", list_while_it_goes)
    flow.tell_copied()
    controller.look()
    assert flow.report.copy is not None
    assert flow.report.copy.expected == 4
    assert len(flow.data["source-objects"].splitlines()) == 4


def test_a_source_whose_deletion_was_asked_for_is_not_listed_any_more(flow: GardenFlow, controller: Looker) -> None:
    play(flow, controller, until="create_copy_task")
    then = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    flow.change(BACKUP_ENTRIES, "source-shoot--dev--demo--u1", NAMESPACE, metadata=then)
    for path in (flow.home / "bucket-seed-a").rglob("v2/Incr-*"):
        path.unlink()
    controller.look()
    assert flow.report.copy is not None
    assert flow.report.copy.expected == 4
    assert len(flow.data["source-objects"].splitlines()) == 4


def test_a_source_that_is_emptied_before_the_copy_is_a_failure_at_once(flow: GardenFlow, controller: Looker) -> None:
    play(flow, controller, until="create_copy_task")
    flow.empty("seed-a")
    controller.look()
    assert (flow.report.phase, flow.report.reason) == (Phase.FAILED, "EmptySource")
    assert len(flow.data["source-objects"].splitlines()) == 4
    controller.look()
    assert warnings(flow) == ["EmptySource"]
    play(flow, controller, after="create_copy_task", leave_out="copy")  # gardenlet goes on all the same
    assert flow.report.phase is Phase.FAILED


def test_a_snapshot_that_vanishes_before_the_copy_is_a_failure_until_it_is_back(
    flow: GardenFlow, controller: Looker
) -> None:
    play(flow, controller, until="create_copy_task")
    path = next((flow.home / "bucket-seed-a").rglob("v2/Full-00000000-00000010*"))
    content = path.read_bytes()
    path.unlink()
    controller.look()
    assert (flow.report.phase, flow.report.reason) == (Phase.FAILED, "MigrationFailed")
    assert path.name in flow.report.message
    path.write_bytes(content)
    controller.look()
    assert (flow.report.phase, flow.report.reason) == (Phase.COPYING, "")


def test_what_vanishes_from_the_source_after_it_was_copied_is_no_loss(flow: GardenFlow, controller: Looker) -> None:
    play(flow, controller, until="copy")
    next((flow.home / "bucket-seed-a").rglob("v2/Full-00000000-00000010*")).unlink()
    play(flow, controller, after="copy")
    assert flow.report.phase is Phase.SUCCEEDED


# ---- the restore


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hash_kv": HASH + 1}, f"HashKV {HASH + 1}"),
        ({"compact_revision": COMPACTED + 1}, "compacted at 6"),
        ({"revision": FINAL - 1}, "ends at revision 29"),
        ({"full": "Full-00000000-00000010-1760000000"}, "made from Full-00000000-00000010"),
        ({"revision": FINAL + 2, "matches_manifest": False}, "revision 32"),
        ({"revision": FINAL + 2, "matches_manifest": None}, "revision 32"),
    ],
)
def test_a_restored_etcd_that_is_not_the_old_one(
    flow: GardenFlow, controller: Looker, changes: dict[str, Any], told: str
) -> None:
    for name in flow.play():
        if name == "tell_restored":
            flow.tell_restored(**changes)
        controller.look()
    assert (flow.report.phase, flow.report.reason, flow.report.equal) == (Phase.FAILED, "NotEqual", False)
    assert told in flow.report.message
    assert warnings(flow) == ["NotEqual"]


def test_revisions_after_the_final_snapshot_are_fine_when_its_hash_was_found_again(
    flow: GardenFlow, controller: Looker
) -> None:
    for name in flow.play():
        if name == "tell_restored":
            flow.tell_restored(revision=FINAL + 2, hash_kv=1, compact_revision=9, deltas=1)
        controller.look()
    assert (flow.report.phase, flow.report.equal) == (Phase.SUCCEEDED, True)
    assert flow.report.notes == ("the new etcd has 2 revisions more than the final snapshot",)


def test_a_restore_that_nobody_tells_of(flow: GardenFlow, controller: Looker) -> None:
    reports = play(flow, controller, leave_out="tell_restored")
    assert reports[-1].phase is Phase.COPIED
    flow.clock.sleep(PROOF_WITHIN.total_seconds())
    controller.look()
    assert (flow.report.phase, flow.report.reason) == (Phase.FAILED, "MigrationFailed")
    assert "did not tell what it restored" in flow.report.message
    flow.tell_restored()
    flow.clock.sleep(1)
    flow.back_up()
    controller.look()
    assert (flow.report.phase, flow.report.reason, flow.report.equal) == (Phase.SUCCEEDED, "", True)


def test_what_a_stranger_wrote_on_the_lease_is_no_proof(flow: GardenFlow, controller: Looker) -> None:
    play(flow, controller, until="deploy_etcd")
    flow.annotate('{"revision": "30"}')
    flow.end_restore()
    controller.look()
    assert flow.report.phase is Phase.COPIED
    flow.clock.sleep(PROOF_WITHIN.total_seconds())
    controller.look()
    assert "cannot be read" in flow.report.message


def test_without_a_new_backup_there_is_no_success(flow: GardenFlow, controller: Looker) -> None:
    play(flow, controller, leave_out="back_up")
    assert (flow.report.phase, flow.report.message) == (
        Phase.RESTORED,
        "waiting for the first backup of the new etcd",
    )


def test_a_backup_before_gardenlet_has_finished_is_not_the_end(flow: GardenFlow, controller: Looker) -> None:
    play(flow, controller, until="delete_source")
    flow.back_up()
    controller.look()
    assert (flow.report.phase, flow.report.message) == (Phase.RESTORED, "waiting for gardenlet to finish")
    flow.end_restore()
    controller.look()
    assert flow.report.phase is Phase.SUCCEEDED


# ---- preflight, gardenlet, buckets


def test_a_preflight_that_fails_and_is_mended(flow: GardenFlow, controller: Looker) -> None:
    state = flow.kube.objects.pop((SHOOT_STATES.plural, NAMESPACE, "demo"))
    flow.kube.objects["seeds", "", "seed-b"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    play(flow, controller, until="bind")
    assert (flow.report.phase, flow.report.reason) == (Phase.FAILED, "PreflightFailed")
    assert "ShootStateMissing: " in flow.report.message
    assert "DestinationSeedInDeletion: " in flow.report.message
    assert warnings(flow) == ["PreflightFailed"]
    (event,) = [e for e in flow.kube.created if e.get("reason") == "PreflightFailed"]
    assert "ShootStateMissing" in event["message"]
    flow.kube.put(SHOOT_STATES, state)
    del flow.kube.objects["seeds", "", "seed-b"]["metadata"]["deletionTimestamp"]
    controller.look()
    assert (flow.report.phase, flow.report.reason, flow.report.hint) == (Phase.REQUESTED, "", "")
    assert [step.name for step in flow.report.steps[-2:]] == ["PreflightPassed", "FailureOver"]


def test_a_migration_that_begins_although_the_preflight_failed_is_followed_with_a_note(
    flow: GardenFlow, controller: Looker
) -> None:
    flow.kube.objects.pop((SHOOT_STATES.plural, NAMESPACE, "demo"))
    play(flow, controller)
    assert flow.report.phase is Phase.SUCCEEDED
    (note,) = flow.report.notes
    assert note.startswith("it was begun although the preflight had failed: ShootStateMissing")


def test_a_gardenlet_that_gives_up(flow: GardenFlow, controller: Looker) -> None:
    play(flow, controller, until="stop_api_server")
    flow.operation("Migrate", "Error", 40, "infrastructure is stuck")
    controller.look()
    assert flow.report.phase is Phase.PREPARING
    assert "gardenlet tries again: infrastructure is stuck" in flow.report.message
    flow.operation("Migrate", "Failed", 40, "infrastructure is stuck")
    controller.look()
    assert (flow.report.phase, flow.report.reason) == (Phase.FAILED, "MigrationFailed")
    assert "gardenlet gave up: infrastructure is stuck" in flow.report.message
    flow.operation("Migrate", "Processing", 40)
    controller.look()
    assert flow.report.phase is Phase.PREPARING


def test_a_bucket_that_cannot_be_looked_at_is_no_verdict(flow: GardenFlow, controller: Looker) -> None:
    secret = flow.kube.objects.pop(("secrets", "garden", "generated-bucket-seed-a"))
    play(flow, controller, until="end_migrate")
    assert (flow.report.phase, flow.report.final) == (Phase.RELEASED, None)
    assert "a bucket cannot be looked at: get secrets" in flow.report.message
    flow.kube.objects["secrets", "garden", "generated-bucket-seed-a"] = secret
    controller.look()
    assert flow.report.final is not None
