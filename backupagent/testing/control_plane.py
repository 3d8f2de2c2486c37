"""A Seed's objects of one Shoot: its control plane, and what moves its backups. Pure.

Source of the fields: gardener b312835, pkg/component/etcd and pkg/component/etcd/copybackupstask.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backupagent.kube.resources import (
    CONTROL_PLANES,
    DEPLOYMENTS,
    ETCD_COPY_BACKUPS_TASKS,
    ETCDS,
    EXTENSION_BACKUP_ENTRIES,
    INFRASTRUCTURES,
    Resource,
)
from backupagent.model.gardener import API_SERVER, ETCD_MAIN
from backupagent.testing.garden import GARDEN, PROVIDER, SHOOT

FINAL_SNAPSHOT_TIMEOUT = "5m0s"
EXTENSIONS: tuple[tuple[Resource, str], ...] = ((INFRASTRUCTURES, SHOOT), (CONTROL_PLANES, SHOOT))
"""Kind and name of the extension objects of a control plane."""


@dataclass(frozen=True, kw_only=True)
class BackupPlan:
    """How an etcd is backed up.

    Attributes:
        schedule: Of full snapshots, cron; gardenlet's is once a day.
        delta_period: Between deltas; gardenlet's is 5m.
        heartbeat: Between renewals of the member's Lease; druid's is 10s.
    """

    schedule: str = "0 1 * * *"
    delta_period: str = "5m0s"
    heartbeat: str = "10s"


def etcd(namespace: str, bucket: str, prefix: str, plan: BackupPlan) -> dict[str, Any]:
    """Return the Etcd that is backed up.

    Args:
        namespace: The control plane's.
        bucket: Where the backups go.
        prefix: What stands before ``/v2/``.
        plan: How it is backed up.
    """
    labels = {"app": "etcd-statefulset", "role": "main", "gardener.cloud/role": "controlplane"}
    spec = {
        "replicas": 1,
        "labels": labels,
        "selector": {"matchLabels": labels},
        "etcd": {"quota": "8Gi", "metrics": "basic", "heartbeatDuration": plan.heartbeat},
        "backup": {
            "store": _store(PROVIDER, "etcd-backup", bucket, prefix),
            "fullSnapshotSchedule": plan.schedule,
            "deltaSnapshotPeriod": plan.delta_period,
            "deltaSnapshotMemoryLimit": "100Mi",
            "garbageCollectionPolicy": "Exponential",
            "garbageCollectionPeriod": "12h0m0s",
            "compression": {"enabled": True, "policy": "gzip"},
        },
        "sharedConfig": {"autoCompactionMode": "periodic", "autoCompactionRetention": "30m"},
    }
    return ETCDS.stub(ETCD_MAIN, namespace) | {"spec": spec}


def _store(provider: str, secret: str, bucket: str, prefix: str) -> dict[str, Any]:
    return {"provider": provider, "secretRef": {"name": secret}, "container": bucket, "prefix": prefix}


def copy_task(namespace: str, source: Mapping[str, str], target: Mapping[str, str], prefix: str) -> dict[str, Any]:
    """Return the task that copies the backups.

    Args:
        namespace: The control plane's.
        source: Provider and bucket of the source, as ``provider`` and ``bucket``.
        target: The same of the destination.
        prefix: What stands before ``/v2/`` in both.
    """
    spec = {
        "sourceStore": _store(source["provider"], "source-etcd-backup", source["bucket"], prefix),
        "targetStore": _store(target["provider"], "etcd-backup", target["bucket"], prefix),
        "waitForFinalSnapshot": {"enabled": True, "timeout": FINAL_SNAPSHOT_TIMEOUT},
        "podLabels": {
            "networking.gardener.cloud/to-dns": "allowed",
            "networking.gardener.cloud/to-public-networks": "allowed",
        },
    }
    return ETCD_COPY_BACKUPS_TASKS.stub(SHOOT, namespace) | {"spec": spec}


def extension_backup_entry(name: str, bucket: str, region: str) -> dict[str, Any]:
    """Return the extension's object for a BackupEntry."""
    secret = {"name": f"entry-{name}", "namespace": GARDEN}
    spec = {"type": PROVIDER, "region": region, "bucketName": bucket, "secretRef": secret}
    return EXTENSION_BACKUP_ENTRIES.stub(name) | {"spec": spec}


def extensions(namespace: str) -> list[tuple[Resource, dict[str, Any]]]:
    """Return the extension objects of a control plane."""
    return [(each, each.stub(name, namespace) | {"spec": {"type": PROVIDER}}) for each, name in EXTENSIONS]


def api_server(namespace: str) -> dict[str, Any]:
    """Return the Deployment of the Shoot's API server; that it exists is all that is played of it."""
    labels = {"app": "kubernetes", "role": "apiserver"}
    container = {"name": API_SERVER, "image": API_SERVER}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    return DEPLOYMENTS.stub(API_SERVER, namespace) | {"spec": spec}
