"""Gardener's rules for ``shoots/binding``, one by one."""

from http import HTTPStatus

import pytest

from backupagent.testing.shoot_binding import Refused, check, is_migrating, merged, seed_labels

BACKUP = {"provider": "S3"}
SEEDS = {
    "seed-a": {"metadata": {}, "spec": {"backup": BACKUP}},
    "seed-b": {"metadata": {}, "spec": {"backup": BACKUP}},
    "without-backup": {"metadata": {}, "spec": {}},
    "leaving": {"metadata": {"deletionTimestamp": "2026-11-23T20:41:07Z"}, "spec": {"backup": BACKUP}},
    "missing": None,
}


def shoot(seed: str | None = "seed-a", *, labels=None, status=None, **spec) -> dict:
    named = {"seedName": seed} if seed else {}
    return {"metadata": {"name": "demo", "labels": labels or {}}, "spec": named | spec, "status": status or {}}


def operation(kind: str, state: str, seed: str | None = "seed-a") -> dict:
    return {"seedName": seed, "lastOperation": {"type": kind, "state": state}}


def refusal(old: dict, new: dict) -> Refused:
    with pytest.raises(Refused) as caught:
        check(old, new, SEEDS)
    return caught.value


def test_another_seed_is_fine() -> None:
    check(shoot(), shoot("seed-b"), SEEDS)
    check(shoot(status=operation("Restore", "Succeeded")), shoot("seed-b"), SEEDS)
    check(shoot(None), shoot("without-backup"), SEEDS)  # the first Seed: there are no backups to move


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (shoot(), {"metadata": {}, "spec": {}}, "cannot be set to nil"),
        (shoot(), shoot("seed-b", purpose="evaluation"), "only spec.seedName can be changed"),
        (shoot(), shoot("leaving"), "on seed 'leaving' that is already marked for deletion"),
        (shoot(), shoot("without-backup"), 'not configured for seed "without-backup"'),
        (shoot("without-backup"), shoot("seed-b"), 'not configured for old seed "without-backup"'),
        (shoot("seed-b", status={"seedName": "seed-a"}), shoot("seed-a"), "has been rescheduled to a new seed"),
        (shoot(status=operation("Restore", "Processing")), shoot("seed-b"), "has been rescheduled to a new seed"),
    ],
)
def test_the_admission_forbids(old: dict, new: dict, says: str) -> None:
    refused = refusal(old, new)
    assert refused.status()["code"] == HTTPStatus.FORBIDDEN
    assert refused.status()["reason"] == "Forbidden"
    assert refused.status()["message"].startswith('shoots.core.gardener.cloud "demo" is forbidden: ')
    assert says in refused.status()["message"]


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (shoot("seed-a"), "already assigned to the same seed"),
        (shoot("missing"), 'could not find referenced seed "missing"'),
    ],
)
def test_what_gardener_answers_with_an_internal_error(new: dict, says: str) -> None:
    refused = refusal(shoot(), new)
    assert refused.status()["code"] == HTTPStatus.INTERNAL_SERVER_ERROR
    assert says in refused.status()["message"]


def test_a_migration_lasts_until_its_restore_succeeded() -> None:
    assert not is_migrating(shoot(status=operation("Reconcile", "Succeeded")))
    assert is_migrating(shoot("seed-b", status=operation("Reconcile", "Succeeded", "seed-a")))
    assert is_migrating(shoot("seed-b", status=operation("Migrate", "Succeeded", None)))
    assert is_migrating(shoot("seed-b", status=operation("Restore", "Error", "seed-b")))
    assert not is_migrating(shoot("seed-b", status=operation("Restore", "Succeeded", "seed-b")))


def test_labels_name_the_seeds_of_spec_and_status_and_no_other() -> None:
    prefix = "name.seed.gardener.cloud/"
    labels = {f"{prefix}seed-a": "true", f"{prefix}former": "true", "other": "kept"}
    changes = seed_labels(shoot(labels=labels, status={"seedName": "seed-a"}), "seed-b")
    assert changes == {f"{prefix}seed-a": "true", f"{prefix}seed-b": "true", f"{prefix}former": None}


def test_a_merge_patch_changes_and_removes() -> None:
    document = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert merged(document, {"a": {"b": None, "e": {"f": 3}}, "d": [2]}) == {"a": {"c": 2, "e": {"f": 3}}, "d": [2]}
    assert merged({"a": 1}, {"a": {"b": 2}}) == {"a": {"b": 2}}
    assert document == {"a": {"b": 1, "c": 2}, "d": [1]}
