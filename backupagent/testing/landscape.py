"""Makes everything that exists before a migration: two Seeds, their buckets, and a Shoot on the first."""

from collections.abc import Callable, Mapping

from backupagent.kube.client import Kube
from backupagent.kube.resources import (
    BACKUP_BUCKETS,
    BACKUP_ENTRIES,
    DEPLOYMENTS,
    ETCDS,
    EXTENSION_BACKUP_ENTRIES,
    NAMESPACES,
    SECRETS,
    SEEDS,
    SHOOT_STATES,
    SHOOTS,
    Document,
    Resource,
)
from backupagent.model.gardener import Shoot
from backupagent.testing import control_plane, garden
from backupagent.testing.control_plane import BackupPlan
from backupagent.testing.garden import GARDEN, PROJECT, SOURCE, TECHNICAL_ID, BucketAccess


def make(kube: Kube, resource: Resource, document: Document) -> Document:
    """Make an object, and give it its status when the document has one; return it as it was made."""
    created = kube.create(resource, document)
    if "status" in document:
        tell(kube, resource, created, document["status"])
    return created


def tell(kube: Kube, resource: Resource, document: Document, status: Document) -> Document:
    """Write fields of an object's status; return the object as it is then."""
    metadata = document["metadata"]
    namespace = metadata.get("namespace", "")
    return kube.patch(resource, metadata["name"], namespace, {"status": status}, subresource="status")


def make_garden(
    kube: Kube, seeds: Mapping[str, BucketAccess], make_bucket: Callable[[str, str], None], now: str
) -> None:
    """Make the project's namespaces, the Seeds and their BackupBuckets.

    Args:
        kube: The API server, as an administrator.
        seeds: How to reach the bucket of each Seed.
        make_bucket: Makes the bucket of a Seed: takes the Seed's name and the bucket's.
        now: The time, RFC 3339.
    """
    for name in (GARDEN, PROJECT):
        kube.apply(NAMESPACES, NAMESPACES.stub(name))
    for name, access in seeds.items():
        seed = make(kube, SEEDS, garden.seed(name, access, now))
        make_bucket(name, seed["metadata"]["uid"])
        for secret in garden.bucket_secrets(seed, access):
            kube.create(SECRETS, secret)
        make(kube, BACKUP_BUCKETS, garden.backup_bucket(seed, now))


def make_shoot(kube: Kube, access: BucketAccess, plan: BackupPlan, key: bytes, now: str) -> Shoot:
    """Make the Shoot and its control plane on the source Seed; druid then makes its etcd.

    Args:
        kube: The API server, as an administrator.
        access: How to reach the source's bucket.
        plan: How its etcd is backed up.
        key: What the Shoot's API server encrypts with, 32 bytes.
        now: The time, RFC 3339.
    """
    bucket = kube.get(SEEDS, SOURCE)["metadata"]["uid"]
    created = kube.create(SHOOTS, garden.shoot(SOURCE))
    document = tell(kube, SHOOTS, created, garden.shoot_status(created, now))
    shoot = Shoot.read(document)
    entry = shoot.backup_entry_name
    made = make(kube, BACKUP_ENTRIES, garden.backup_entry(document, entry, bucket, SOURCE))
    operation = garden.last_operation("Reconcile", "Succeeded", now)
    tell(kube, BACKUP_ENTRIES, made, {"lastOperation": operation, "observedGeneration": 1, "seedName": SOURCE})
    kube.create(NAMESPACES, NAMESPACES.stub(TECHNICAL_ID))
    secret = kube.create(SECRETS, garden.encryption_key(TECHNICAL_ID, key))
    kube.create(SECRETS, garden.secret("etcd-backup", TECHNICAL_ID, access.credentials(bucket)))
    kube.create(SHOOT_STATES, garden.shoot_state(document, [secret]))
    kube.create(EXTENSION_BACKUP_ENTRIES, control_plane.extension_backup_entry(entry, bucket, access.region))
    for resource, extension in control_plane.extensions(TECHNICAL_ID):
        kube.create(resource, extension)
    kube.create(ETCDS, control_plane.etcd(TECHNICAL_ID, bucket, shoot.snapshots_prefix, plan))
    kube.create(DEPLOYMENTS, control_plane.api_server(TECHNICAL_ID))
    return shoot
