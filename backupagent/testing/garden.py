"""The garden cluster's objects of one Shoot on its way between two Seeds. Pure.

Source of the fields: gardener b312835, pkg/apis/core/v1beta1.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backupagent.kube.resources import (
    BACKUP_BUCKETS,
    BACKUP_ENTRIES,
    SECRETS,
    SEEDS,
    SHOOT_STATES,
    SHOOTS,
    Document,
)
from backupagent.model.gardener import ENCRYPTION_KEY, SOURCE_ENTRY_PREFIX
from backupagent.testing.shoot_binding import SEED_LABEL

GARDEN = "garden"
PROJECT = "garden-dev"
SHOOT = "demo"
TECHNICAL_ID = "shoot--dev--demo"
SOURCE, DESTINATION = "seed-a", "seed-b"
PROVIDER = "S3"
GARDENER_VERSION = "v1.150.0"
SEED_CONDITIONS = ("GardenletReady", "SeedSystemComponentsHealthy", "BackupBucketsReady")
OPERATION = "gardener.cloud/operation"
"""Annotation that asks the owner of an object to do something."""


@dataclass(frozen=True)
class BucketAccess:
    """How to reach the bucket of a Seed.

    Attributes:
        endpoint: URL of the S3 service.
        region: Its region.
        access_key: Who asks.
        secret_key: Their secret.
    """

    endpoint: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)

    def credentials(self, bucket: str) -> dict[str, str]:
        """Return the fields of a Secret for one bucket, by the peer's names."""
        return {
            "accessKeyID": self.access_key,
            "secretAccessKey": self.secret_key,
            "region": self.region,
            "endpoint": self.endpoint,
            "s3ForcePathStyle": "true",
            "bucketName": bucket,
        }


def secret(name: str, namespace: str, fields: Mapping[str, str], /, **labels: str) -> dict[str, Any]:
    """Return a Secret."""
    data = {key: base64.b64encode(value.encode()).decode() for key, value in fields.items()}
    document = SECRETS.stub(name, namespace) | {"type": "Opaque", "data": data}
    document["metadata"]["labels"] = labels
    return document


def secret_fields(document: Document) -> dict[str, str]:
    """Return what a Secret holds."""
    return {key: base64.b64decode(value).decode() for key, value in document.get("data", {}).items()}


def last_operation(kind: str, state: str, now: str, *, progress: int = 100, description: str = "") -> dict[str, Any]:
    """Return a ``lastOperation``.

    Args:
        kind: ``Create``, ``Reconcile``, ``Migrate``, ``Restore``, ``Delete``.
        state: ``Processing``, ``Succeeded``, ``Error``, ...
        now: The time, RFC 3339.
        progress: 0 to 100.
        description: For people.
    """
    return {"type": kind, "state": state, "progress": progress, "description": description, "lastUpdateTime": now}


def seed(name: str, access: BucketAccess, now: str) -> dict[str, Any]:
    """Return a Seed that is ready for everything."""
    spec = {
        "provider": {"type": PROVIDER, "region": access.region},
        "backup": {
            "provider": PROVIDER,
            "region": access.region,
            "credentialsRef": _secret_reference(f"backup-{name}"),
        },
    }
    told = {"status": "True", "reason": "Healthy", "message": "all is well"}
    times = {"lastTransitionTime": now, "lastUpdateTime": now}
    status = {
        "gardener": {"version": GARDENER_VERSION},
        "observedGeneration": 1,
        "conditions": [{"type": kind} | told | times for kind in SEED_CONDITIONS],
    }
    return SEEDS.stub(name) | {"spec": spec, "status": status}


def _secret_reference(name: str) -> dict[str, str]:
    return {"apiVersion": "v1", "kind": SECRETS.kind, "name": name, "namespace": GARDEN}


def backup_bucket(of: Document, now: str) -> dict[str, Any]:
    """Return the BackupBucket of a Seed.

    Args:
        of: The Seed, as the API server gave it: its uid is the bucket's name.
        now: The time, RFC 3339.
    """
    uid, backup = of["metadata"]["uid"], of["spec"]["backup"]
    spec = {
        "provider": {"type": backup["provider"], "region": backup["region"]},
        "seedName": of["metadata"]["name"],
        "credentialsRef": backup["credentialsRef"],
    }
    status = {
        "lastOperation": last_operation("Reconcile", "Succeeded", now),
        "observedGeneration": 1,
        "generatedSecretRef": {"name": f"generated-bucket-{uid}", "namespace": GARDEN},
    }
    return BACKUP_BUCKETS.stub(uid) | {"spec": spec, "status": status}


def bucket_secrets(of: Document, access: BucketAccess) -> list[dict[str, Any]]:
    """Return the operator's Secret for the backups of a Seed, and the one that the extension generated."""
    uid, name = of["metadata"]["uid"], of["metadata"]["name"]
    fields = access.credentials(uid)
    return [secret(f"backup-{name}", GARDEN, fields), secret(f"generated-bucket-{uid}", GARDEN, fields)]


def shoot(on: str) -> dict[str, Any]:
    """Return the Shoot, which has run on a Seed for a while; its status has yet to be told its uid."""
    document = SHOOTS.stub(SHOOT, PROJECT) | {"spec": {"seedName": on, "purpose": "production"}}
    document["metadata"]["labels"] = {f"{SEED_LABEL}{on}": "true"}
    return document


def shoot_status(created: Document, now: str) -> dict[str, Any]:
    """Return the status of the Shoot before its migration.

    Args:
        created: The Shoot, as the API server gave it.
        now: The time, RFC 3339.
    """
    return {
        "technicalID": TECHNICAL_ID,
        "uid": created["metadata"]["uid"],
        "seedName": created["spec"]["seedName"],
        "observedGeneration": created["metadata"]["generation"],
        "hibernated": False,
        "gardener": {"id": "gardenlet", "name": "gardenlet-0", "version": GARDENER_VERSION},
        "lastOperation": last_operation("Reconcile", "Succeeded", now, description="Shoot cluster reconciled."),
    }


def backup_entry(of: Document, name: str, bucket: str, seed_name: str) -> dict[str, Any]:
    """Return a BackupEntry of a Shoot.

    Args:
        of: The Shoot.
        name: Its name; for the one that points at the source during a restore it begins with ``source-``.
        bucket: The BackupBucket that it points at.
        seed_name: The Seed that looks after it.
    """
    document = BACKUP_ENTRIES.stub(name, of["metadata"]["namespace"])
    metadata = of["metadata"]
    reference = {"apiVersion": of["apiVersion"], "kind": of["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    document["metadata"] |= {
        "ownerReferences": [reference | {"controller": True, "blockOwnerDeletion": False}],
        "labels": {f"{SEED_LABEL}{seed_name}": "true"},
        "annotations": {"shoot.gardener.cloud/purpose": of["spec"]["purpose"]},
    }
    return document | {"spec": {"bucketName": bucket, "seedName": seed_name}}


def backup_secret_name(entry: str) -> str:
    """Return the name of the Secret that an extension makes for a BackupEntry in the control plane's namespace."""
    return "source-etcd-backup" if entry.startswith(SOURCE_ENTRY_PREFIX) else "etcd-backup"


def shoot_state(of: Document, secrets: list[Document]) -> dict[str, Any]:
    """Return the ShootState: what a new control plane needs of the old one's secrets.

    Args:
        of: The Shoot.
        secrets: Those with the label ``persist=true``.
    """
    entries = [
        {
            "name": each["metadata"]["name"],
            "type": "secret",
            "labels": each["metadata"]["labels"],
            "data": {"data": each["data"], "type": each["type"]},
        }
        for each in secrets
    ]
    metadata = of["metadata"]
    return SHOOT_STATES.stub(metadata["name"], metadata["namespace"]) | {"spec": {"gardener": entries}}


def restored_secrets(state: Document, namespace: str) -> list[dict[str, Any]]:
    """Return the Secrets that a ShootState remembers."""
    found = []
    for entry in state["spec"]["gardener"]:
        document = SECRETS.stub(entry["name"], namespace) | entry["data"]
        document["metadata"]["labels"] = entry["labels"]
        found.append(document)
    return found


def encryption_key(namespace: str, key: bytes) -> dict[str, Any]:
    """Return the Secret without which nobody can read the Shoot's etcd.

    Args:
        namespace: The control plane's.
        key: 32 bytes.
    """
    fields = {
        "key": "key1700000000",
        "secret": base64.b64encode(key).decode(),
        "encoding": "base64",
        "provider": "aescbc",
    }
    labels = {"name": ENCRYPTION_KEY, "persist": "true", "managed-by": "secrets-manager"}
    return secret(f"{ENCRYPTION_KEY}-7a3f0c51", namespace, fields, **labels)
