"""Every reason for which a migration must not begin, one row each."""

from collections.abc import Callable
from typing import Any

import pytest
from scripted_kube import NAMESPACE, SHOOT, ScriptedKube, landscape, shoot

from backupagent.controller import preflight
from backupagent.errors import KubeUnavailable, PreflightFailed
from backupagent.kube.resources import SHOOTS
from backupagent.model.gardener import Shoot

Change = Callable[[ScriptedKube], object]


def at(kube: ScriptedKube, plural: str, name: str, namespace: str = "") -> dict[str, Any]:
    return kube.objects[plural, namespace, name]


def gone(plural: str, name: str, namespace: str = "") -> Change:
    return lambda kube: kube.objects.pop((plural, namespace, name))


def changed(plural: str, name: str, part: str, fields: dict[str, Any], namespace: str = "") -> Change:
    return lambda kube: at(kube, plural, name, namespace).setdefault(part, {}).update(fields)


def without_backup(name: str) -> Change:
    return lambda kube: at(kube, "seeds", name)["spec"].pop("backup")


def check(kube: ScriptedKube, destination: str = "seed-b") -> preflight.Facts:
    return preflight.gather(kube, Shoot.read(kube.get(SHOOTS, SHOOT, NAMESPACE)), destination)


def reasons(kube: ScriptedKube, destination: str = "seed-b") -> list[str]:
    found = preflight.refusals(check(kube, destination))
    assert all(refusal.message and refusal.hint for refusal in found)
    return [refusal.reason for refusal in found]


def test_a_shoot_that_may_move() -> None:
    facts = check(landscape())
    assert (preflight.refusals(facts), facts.unchecked) == ((), ())
    preflight.require(facts)


def test_a_shoot_that_is_bound_but_has_not_begun_to_move_may_move() -> None:
    kube = landscape()
    kube.put(SHOOTS, shoot(spec="seed-b"))
    assert reasons(kube) == []


UNREADY = [{"type": "GardenletReady", "status": "Unknown"}, {"type": "SeedSystemComponentsHealthy", "status": "True"}]
DELETED = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
TROUBLE = {"lastError": {"description": "403 from the store"}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (gone("seeds", "seed-a"), "SourceSeedMissing"),
        (gone("seeds", "seed-b"), "DestinationSeedMissing"),
        (without_backup("seed-a"), "SourceSeedWithoutBackup"),
        (without_backup("seed-b"), "DestinationSeedWithoutBackup"),
        (gone("backupbuckets", "seed-a-uid"), "SourceBackupBucketMissing"),
        (gone("backupbuckets", "seed-b-uid"), "DestinationBackupBucketMissing"),
        (changed("backupbuckets", "seed-a-uid", "status", TROUBLE), "SourceBackupBucketUnhealthy"),
        (changed("backupbuckets", "seed-b-uid", "status", TROUBLE), "DestinationBackupBucketUnhealthy"),
        (changed("seeds", "seed-b", "metadata", DELETED), "DestinationSeedInDeletion"),
        (changed("seeds", "seed-b", "status", {"conditions": UNREADY}), "DestinationSeedUnready"),
        (changed("seeds", "seed-b", "status", {"conditions": []}), "DestinationSeedUnready"),
        (changed("seeds", "seed-b", "metadata", {"generation": 2}), "DestinationSeedUnready"),
        (changed("seeds", "seed-b", "status", {"gardener": {"version": "v2"}}), "DestinationSeedUnready"),
        (gone("shootstates", SHOOT, NAMESPACE), "ShootStateMissing"),
        (changed("shootstates", SHOOT, "spec", {"gardener": []}, NAMESPACE), "EncryptionKeyMissing"),
        (changed("shoots", SHOOT, "metadata", DELETED, NAMESPACE), "ShootInDeletion"),
        (changed("shoots", SHOOT, "status", {"technicalID": ""}, NAMESPACE), "ShootWithoutControlPlane"),
        (changed("shoots", SHOOT, "spec", {"hibernation": {"enabled": True}}, NAMESPACE), "HibernationUnderWay"),
        (changed("shoots", SHOOT, "status", {"hibernated": True}, NAMESPACE), "HibernationUnderWay"),
        (changed("shoots", SHOOT, "spec", {"seedName": "seed-c"}, NAMESPACE), "AlreadyMigrating"),
    ],
)
def test_one_thing_that_is_wrong(change: Change, reason: str) -> None:
    kube = landscape()
    change(kube)
    assert reasons(kube) == [reason]


def test_a_hibernated_shoot_may_move() -> None:
    kube = landscape()
    changed("shoots", SHOOT, "spec", {"hibernation": {"enabled": True}}, NAMESPACE)(kube)
    changed("shoots", SHOOT, "status", {"hibernated": True}, NAMESPACE)(kube)
    assert reasons(kube) == []


def test_the_seed_that_it_is_on() -> None:
    assert "SameSeed" in reasons(landscape(), "seed-a")


@pytest.mark.parametrize("operation", ["Migrate Succeeded 100", "Restore Processing 10"])
def test_a_shoot_that_is_still_moving_elsewhere(operation: str) -> None:
    kube = landscape()
    kube.put(SHOOTS, shoot(spec="seed-a", status="seed-a", operation=operation))
    assert "AlreadyMigrating" in reasons(kube)


def test_every_reason_is_told_at_once() -> None:
    kube = landscape()
    gone("shootstates", SHOOT, NAMESPACE)(kube)
    without_backup("seed-b")(kube)
    facts = check(kube)
    with pytest.raises(PreflightFailed) as caught:
        preflight.require(facts)
    assert "DestinationSeedWithoutBackup: Seed seed-b has no spec.backup" in caught.value.message
    assert "ShootStateMissing: ShootState garden-dev/demo does not exist" in caught.value.message
    assert caught.value.hint == preflight.refusals(facts)[0].hint


@pytest.mark.parametrize(
    ("resource", "told"),
    [
        ("seeds", ["Seed seed-a", "Seed seed-b", "BackupBucket of Seed seed-a", "BackupBucket of Seed seed-b"]),
        ("backupbuckets", ["BackupBucket seed-a-uid of Seed seed-a", "BackupBucket seed-b-uid of Seed seed-b"]),
        ("shootstates", ["ShootState garden-dev/demo"]),
    ],
)
def test_what_rbac_hides_could_not_be_checked(resource: str, told: list[str]) -> None:
    kube = landscape()
    kube.refuse("get", resource)
    facts = check(kube)
    assert preflight.refusals(facts) == ()
    assert [line.partition(" could not be checked: ")[0] for line in facts.unchecked] == told


def test_a_cluster_that_does_not_answer_is_not_taken_for_anything() -> None:
    kube = landscape()
    kube.errors["get", "seeds"] = KubeUnavailable("connection refused", what="get seeds")
    with pytest.raises(KubeUnavailable):
        check(kube)
