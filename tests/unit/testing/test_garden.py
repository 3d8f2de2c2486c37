"""The garden's and the control plane's objects, as those read them who rely on them."""

from typing import Any

from backupagent.model.gardener import BackupBucket, BackupEntry, SecretRef, Seed, Shoot, holds_encryption_key
from backupagent.testing import control_plane, garden
from backupagent.testing.control_plane import BackupPlan
from backupagent.testing.druid_copy import job_arguments
from backupagent.testing.druid_etcd import MemberPorts, sidecar_arguments
from backupagent.testing.garden import PROJECT, SOURCE, TECHNICAL_ID, BucketAccess

NOW = "2026-01-01T00:00:00Z"
ACCESS = BucketAccess("http://127.0.0.1:9000", "us-east-1", "who", "hidden")


def created(document: dict[str, Any], uid: str) -> dict[str, Any]:
    """Return an object as an API server would give it back."""
    document["metadata"] |= {"uid": uid, "generation": 1}
    return document


def test_a_seed_is_ready_and_names_its_bucket() -> None:
    document = created(garden.seed(SOURCE, ACCESS, NOW), "seed-uid")
    seed, bucket = Seed.read(document), BackupBucket.read(garden.backup_bucket(document, NOW))
    assert (seed.backup_provider, seed.observed_generation) == ("S3", seed.generation)
    assert set(seed.conditions.values()) == {"True"}
    assert (bucket.name, bucket.seed, bucket.trouble) == (seed.uid, SOURCE, "")
    assert bucket.secret == SecretRef(namespace="garden", name="generated-bucket-seed-uid")
    secrets = {each["metadata"]["name"]: each for each in garden.bucket_secrets(document, ACCESS)}
    assert set(secrets) == {f"backup-{SOURCE}", "generated-bucket-seed-uid"}
    assert garden.secret_fields(secrets[bucket.secret.name]) == {
        "accessKeyID": "who",
        "secretAccessKey": "hidden",
        "region": "us-east-1",
        "endpoint": "http://127.0.0.1:9000",
        "s3ForcePathStyle": "true",
        "bucketName": "seed-uid",
    }


def test_no_secret_is_shown() -> None:
    assert "hidden" not in repr(ACCESS)


def test_a_shoot_has_lived_on_its_seed() -> None:
    document = created(garden.shoot(SOURCE), "shoot-uid")
    shoot = Shoot.read(document | {"status": garden.shoot_status(document, NOW)})
    assert (shoot.key, shoot.spec_seed, shoot.status_seed) == ("garden-dev/demo", SOURCE, SOURCE)
    assert (shoot.backup_entry_name, shoot.must_migrate) == ("shoot--dev--demo--shoot-uid", False)
    assert str(shoot.operation) == "Reconcile Succeeded 100%"
    entry = garden.backup_entry(document, shoot.backup_entry_name, "bucket", SOURCE)
    assert BackupEntry.read(entry) == BackupEntry(name=shoot.backup_entry_name, bucket="bucket", seed=SOURCE)
    (owner,) = entry["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (
        "Shoot",
        "shoot-uid",
        True,
        False,
    )


def test_the_encryption_key_survives_in_the_shoot_state() -> None:
    shoot = created(garden.shoot(SOURCE), "shoot-uid")
    key = garden.encryption_key(TECHNICAL_ID, b"k" * 32)
    state = garden.shoot_state(shoot, [key])
    assert (state["metadata"]["name"], state["metadata"]["namespace"]) == ("demo", PROJECT)
    assert holds_encryption_key(state)
    assert garden.restored_secrets(state, TECHNICAL_ID) == [key]
    assert not holds_encryption_key(garden.shoot_state(shoot, []))


def test_a_copy_goes_from_the_source_to_the_destination() -> None:
    source, target = ({"provider": "S3", "bucket": name} for name in ("from", "to"))
    task = control_plane.copy_task(TECHNICAL_ID, source, target, "be/etcd-main")
    assert job_arguments(task["spec"]) == [
        "copy",
        "--snapstore-temp-directory=/home/nonroot/data/tmp",
        "--storage-provider=S3",
        "--store-prefix=be/etcd-main",
        "--store-container=to",
        "--source-storage-provider=S3",
        "--source-store-prefix=be/etcd-main",
        "--source-store-container=from",
        "--wait-for-final-snapshot=true",
        "--wait-for-final-snapshot-timeout=5m0s",
    ]
    secrets = {end: task["spec"][end]["secretRef"]["name"] for end in ("sourceStore", "targetStore")}
    assert secrets == {"sourceStore": "source-etcd-backup", "targetStore": "etcd-backup"}
    assert garden.backup_secret_name("source-be") == secrets["sourceStore"]
    assert garden.backup_secret_name("be") == secrets["targetStore"]


def test_an_etcd_is_backed_up_as_planned() -> None:
    plan = BackupPlan(schedule="0 3 * * *", delta_period="7s", heartbeat="3s")
    words = sidecar_arguments(control_plane.etcd(TECHNICAL_ID, "bucket", "be/etcd-main", plan), MemberPorts(1, 2, 3, 4))
    wanted = {
        "--schedule=0 3 * * *",
        "--delta-snapshot-period=7s",
        "--k8s-heartbeat-duration=3s",
        "--store-prefix=be/etcd-main",
    }
    assert wanted <= set(words)
