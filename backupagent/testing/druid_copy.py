"""What etcd-druid makes of an EtcdCopyBackupsTask: its Job, and its status out of the Job's. Pure.

Source: etcd-druid 5b90b4a, internal/controller/etcdcopybackupstask and internal/store.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backupagent.errors import ConfigError
from backupagent.kube.resources import ETCD_COPY_BACKUPS_TASKS, JOBS, Document

FINALIZER = "druid.gardener.cloud/etcd-druid"
MANAGED_BY = {"app.kubernetes.io/managed-by": "etcd-druid"}
NONROOT = 65532
SECRET_MODE = 0o640
TEMP_FOLDER = "/home/nonroot/data/tmp"

PROVIDERS: Mapping[str, str] = {
    "s3": "S3", "aws": "S3", "stackit": "S3",
    "abs": "ABS", "azure": "ABS",
    "gcs": "GCS", "gcp": "GCS",
    "swift": "Swift", "openstack": "Swift",
    "oss": "OSS", "alicloud": "OSS",
    "ocs": "OCS", "openshift": "OCS",
}  # fmt: skip
"""Name of a store for what ``provider`` may say; Local and ECS are not played here."""

CREDENTIALS: Mapping[str, tuple[str, str]] = {
    "S3": ("AWS_APPLICATION_CREDENTIALS", "/var/{}etcd-backup"),
    "ABS": ("AZURE_APPLICATION_CREDENTIALS", "/var/{}etcd-backup"),
    "GCS": ("GOOGLE_APPLICATION_CREDENTIALS", "/var/.{}gcp/serviceaccount.json"),
    "Swift": ("OPENSTACK_APPLICATION_CREDENTIALS", "/var/{}etcd-backup"),
    "OSS": ("ALICLOUD_APPLICATION_CREDENTIALS", "/var/{}etcd-backup"),
    "OCS": ("OPENSHIFT_APPLICATION_CREDENTIALS", "/var/{}etcd-backup"),
}
"""Variable and its value by store; in the place of the braces stands ``source-`` for the source of a copy."""

CONDITIONS: Mapping[str, str] = {"Complete": "Succeeded", "Failed": "Failed"}
"""Conditions of the Job that are told, and as what."""


@dataclass(frozen=True)
class Store:
    """A store of a task or an Etcd.

    Attributes:
        spec: As in the object: ``provider``, ``container``, ``prefix``, ``secretRef``, ``endpointOverride``.
        side: ``source-`` for the source of a copy; else empty.
    """

    spec: Mapping[str, Any]
    side: str = ""

    @property
    def provider(self) -> str:
        """Name of the store.

        Raises:
            ConfigError: druid does not know it, or it is not played here.
        """
        given = self.spec.get("provider", "")
        if given.lower() not in PROVIDERS:
            raise ConfigError(f"unsupported storage provider {given!r}")
        return PROVIDERS[given.lower()]

    def copy_arguments(self) -> list[str]:
        """Return what tells a copy where the store is."""
        given = {
            "storage-provider": self.provider,
            "store-prefix": self.spec["prefix"],
            "store-container": self.spec.get("container", ""),
            "store-endpoint-override": self.spec.get("endpointOverride", ""),
        }
        return [f"--{self.side}{name}={value}" for name, value in given.items() if value]

    def environment(self) -> list[dict[str, str]]:
        """Return the variables that name container and credentials."""
        side = "SOURCE_" if self.side else ""
        name, place = CREDENTIALS[self.provider]
        return [
            {"name": f"{side}STORAGE_CONTAINER", "value": self.spec.get("container", "")},
            {"name": f"{side}{name}", "value": place.format(self.side)},
        ]

    def volume(self) -> dict[str, Any]:
        """Return the volume with the credentials."""
        secret = {"secretName": self.spec["secretRef"]["name"], "defaultMode": SECRET_MODE}
        return {"name": f"{self.side}etcd-backup-secret", "secret": secret}

    def mount(self) -> dict[str, str]:
        """Return where the credentials lie."""
        place = CREDENTIALS[self.provider][1].format(self.side)
        folder = place.removesuffix("serviceaccount.json")
        return {"name": f"{self.side}etcd-backup-secret", "mountPath": folder}


def job_name(task: Document) -> str:
    """Return the name of a task's Job."""
    return f"{task['metadata']['name']}-worker"


def job_arguments(spec: Mapping[str, Any]) -> list[str]:
    """Return the arguments of the copy, in druid's order.

    Args:
        spec: Of the task.
    """
    waiting = spec.get("waitForFinalSnapshot") or {}
    optional = {
        "max-backup-age": spec.get("maxBackupAge"),
        "max-backups-to-copy": spec.get("maxBackups"),
        "wait-for-final-snapshot": str(waiting["enabled"]).lower() if waiting else None,
        "wait-for-final-snapshot-timeout": waiting.get("timeout"),
    }
    return [
        "copy",
        f"--snapstore-temp-directory={TEMP_FOLDER}",
        *Store(spec["targetStore"]).copy_arguments(),
        *Store(spec["sourceStore"], "source-").copy_arguments(),
        *[f"--{name}={value}" for name, value in optional.items() if value is not None],
    ]


def copy_job(task: Document, image: str) -> dict[str, Any]:
    """Return a task's Job.

    Args:
        task: The task, as the API server gave it.
        image: Of its only container.

    Raises:
        ConfigError: a store's provider is not supported.
    """
    name, spec = job_name(task), task["spec"]
    labels = {
        "app.kubernetes.io/component": "etcd-copy-backups-job",
        "app.kubernetes.io/part-of": task["metadata"]["name"],
        **MANAGED_BY,
        "app.kubernetes.io/name": name,
    }
    stores = [Store(spec["sourceStore"], "source-"), Store(spec["targetStore"])]
    container = {
        "name": "copy-backups",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": job_arguments(spec),
        "env": [variable for store in stores for variable in store.environment()],
        "volumeMounts": [store.mount() for store in stores],
        "securityContext": {"allowPrivilegeEscalation": False},
    }
    pod = {
        "restartPolicy": "OnFailure",
        "shareProcessNamespace": True,
        "securityContext": pod_security_context(),
        "containers": [container],
        "volumes": [store.volume() for store in stores],
    }
    template = {"metadata": {"labels": labels | spec.get("podLabels", {})}, "spec": pod}
    document = JOBS.stub(name, task["metadata"]["namespace"]) | {"spec": {"template": template}}
    document["metadata"] |= {"labels": labels, "ownerReferences": [owner(ETCD_COPY_BACKUPS_TASKS.kind, task)]}
    return document


def pod_security_context() -> dict[str, Any]:
    """Return the security context of every Pod of druid's."""
    return {"runAsUser": NONROOT, "runAsGroup": NONROOT, "fsGroup": NONROOT, "runAsNonRoot": True}


def owner(kind: str, document: Document) -> dict[str, Any]:
    """Return the reference to the object that controls others."""
    return {
        "apiVersion": document["apiVersion"],
        "kind": kind,
        "name": document["metadata"]["name"],
        "uid": document["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def task_status(task: Document, job: Document | None, error: str = "") -> dict[str, Any]:
    """Return the whole status of a task; None stands for what is not there.

    Args:
        task: The task.
        job: Its Job; None when there is none.
        error: What went wrong this time.
    """
    found = job.get("status", {}).get("conditions", []) if job else []
    conditions = [
        {
            "type": CONDITIONS[each["type"]],
            "status": each["status"],
            "lastTransitionTime": each["lastTransitionTime"],
            "lastUpdateTime": each["lastProbeTime"],
            "reason": each.get("reason", ""),
            "message": each.get("message", ""),
        }
        for each in found
        if each["type"] in CONDITIONS
    ]
    return {
        "observedGeneration": task["metadata"]["generation"],
        "conditions": conditions or None,
        "lastError": error or None,
    }
