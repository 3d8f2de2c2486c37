"""Views over Gardener's objects: what is there is read, what is odd is empty, nothing raises."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent.model.gardener import (
    BackupBucket,
    BackupEntry,
    CopyTask,
    LastOperation,
    SecretRef,
    Seed,
    Shoot,
    annotation,
    created_at,
    holds_encryption_key,
    name_of,
)

SHOOT = {
    "metadata": {"namespace": "garden-dev", "name": "demo", "uid": "m1", "deletionTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"seedName": "seed-b", "hibernation": {"enabled": True}},
    "status": {
        "technicalID": "shoot--dev--demo",
        "uid": "u1",
        "seedName": "seed-a",
        "hibernated": True,
        "lastOperation": {
            "type": "Migrate",
            "state": "Processing",
            "progress": 42,
            "description": "Creating ETCD Snapshot",
            "lastUpdateTime": "2026-01-01T00:00:00Z",
        },
    },
}


def test_a_shoot() -> None:
    shoot = Shoot.read(SHOOT)
    assert (shoot.key, shoot.technical_id, shoot.spec_seed, shoot.status_seed) == (
        "garden-dev/demo",
        "shoot--dev--demo",
        "seed-b",
        "seed-a",
    )
    assert (shoot.must_migrate, shoot.deleting, shoot.hibernated, shoot.hibernation_wanted) == (True, True, True, True)
    assert str(shoot.operation) == "Migrate Processing 42%"
    assert shoot.backup_entry_name == "shoot--dev--demo--u1"
    assert shoot.snapshots_prefix == "shoot--dev--demo--u1/etcd-main"


def test_the_name_of_the_backup_entry_falls_back_to_the_uid_of_the_object() -> None:
    known = {"metadata": {"uid": "m1"}, "status": {"technicalID": "t"}}
    assert Shoot.read(known).backup_entry_name == "t--m1"
    assert Shoot.read({"metadata": {"uid": "m1"}}).backup_entry_name == ""


def test_a_shoot_that_nobody_owns_need_not_migrate() -> None:
    assert Shoot.read({"spec": {"seedName": "seed-b"}, "status": {"seedName": None}}).must_migrate is False


def test_a_seed() -> None:
    seed = Seed.read(
        {
            "metadata": {"name": "seed-b", "uid": "u", "generation": 3},
            "spec": {"backup": {"provider": "aws"}},
            "status": {
                "observedGeneration": 2,
                "gardener": {"version": "v1.150.0"},
                "conditions": [{"type": "GardenletReady", "status": "True"}],
            },
        }
    )
    assert (seed.name, seed.uid, seed.backup_provider, seed.deleting) == ("seed-b", "u", "aws", False)
    assert (seed.generation, seed.observed_generation, seed.gardener_version) == (3, 2, "v1.150.0")
    assert seed.conditions == {"GardenletReady": "True"}


GENERATED = {"generatedSecretRef": {"namespace": "garden", "name": "generated"}}
GIVEN = {"kind": "Secret", "namespace": "garden", "name": "given"}


@pytest.mark.parametrize(
    ("status", "reference", "found"),
    [
        (GENERATED, GIVEN, SecretRef(namespace="garden", name="generated")),
        ({}, GIVEN, SecretRef(namespace="garden", name="given")),
        ({}, GIVEN | {"kind": "WorkloadIdentity"}, None),
        (GENERATED, GIVEN | {"kind": "WorkloadIdentity"}, SecretRef(namespace="garden", name="generated")),
        ({}, {"kind": "Secret", "name": "given"}, None),
        ({}, None, None),
    ],
)
def test_where_the_credentials_of_a_bucket_are(status: Any, reference: Any, found: SecretRef | None) -> None:
    assert BackupBucket.read({"spec": {"credentialsRef": reference}, "status": status}).secret == found


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        ({}, ""),
        ({"lastOperation": {"type": "Reconcile", "state": "Succeeded"}}, ""),
        ({"lastOperation": {"type": "Reconcile", "state": "Processing"}}, ""),
        ({"lastOperation": {"type": "Reconcile", "state": "Error", "description": "no"}}, "Reconcile Error: no"),
        ({"lastOperation": {"type": "Reconcile", "state": "Failed", "description": "no"}}, "Reconcile Failed: no"),
        ({"lastError": {"description": "403 from the store"}}, "403 from the store"),
        ({"lastError": {"codes": ["ERR"]}}, "it has a lastError"),
    ],
)
def test_the_trouble_of_a_bucket(status: Any, trouble: str) -> None:
    assert BackupBucket.read({"status": status}).trouble == trouble


def test_a_backup_entry() -> None:
    entry = BackupEntry.read(
        {"metadata": {"name": "e"}, "spec": {"bucketName": "b", "seedName": "s"}, "status": {"seedName": "t"}}
    )
    assert entry == BackupEntry(name="e", bucket="b", seed="s", status_seed="t", deleting=False)


def test_a_copy_task() -> None:
    failed = {"type": "Failed", "status": "True", "message": "BackoffLimitExceeded"}
    assert CopyTask.read({"status": {"conditions": [failed]}}) == CopyTask(failed=True, message="BackoffLimitExceeded")
    assert CopyTask.read({"status": {"conditions": [{"type": "Succeeded", "status": "True"}]}}).succeeded
    assert CopyTask.read({"status": {"conditions": [{"type": "Succeeded", "status": "False"}]}}) == CopyTask()
    assert CopyTask.read({"status": {"lastError": "no Secret"}}).message == "no Secret"


KEY_LABELS = {"name": "kube-apiserver-etcd-encryption-key"}
HELD = {"type": "secret", "labels": KEY_LABELS, "data": {"data": {"key": "eA=="}}}


@pytest.mark.parametrize(
    ("entry", "held"),
    [
        (HELD, True),
        (HELD | {"data": {}}, False),
        (HELD | {"data": None}, False),
        (HELD | {"type": "machine-state"}, False),
        (HELD | {"labels": {"name": "ca"}}, False),
    ],
)
def test_the_encryption_key(entry: Any, held: bool) -> None:
    assert holds_encryption_key({"spec": {"gardener": [{"type": "secret"}, entry]}}) is held


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["metadata", "spec", "status", "conditions", "lastOperation", "backup", "gardener", "type"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
VIEWS: list[Callable[[Any], object]] = [
    Shoot.read,
    Seed.read,
    BackupBucket.read,
    BackupEntry.read,
    CopyTask.read,
    LastOperation.read,
    holds_encryption_key,
    created_at,
    name_of,
    lambda document: annotation(document, "a"),
]


@pytest.mark.parametrize("view", VIEWS)
@given(document=st.dictionaries(st.sampled_from(["metadata", "spec", "status"]), ODD))
def test_odd_documents_raise_nothing(view: Callable[[Any], object], document: Any) -> None:
    view(document)
