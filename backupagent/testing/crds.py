"""The kinds of Gardener, etcd-druid and the extensions as CustomResourceDefinitions, as far as a migration needs them.

In production ``core.gardener.cloud`` is an API server of its own. As CRDs its kinds have no ``shoots/binding`` (see
``binding_proxy.py``), no admission, and no generation that grows by a status write. What others could get wrong without
noticing is validated: the fields of ``lastOperation``, of druid's conditions, of the stores; the rest is taken as
it is.

Source: gardener b312835 (pkg/apis/core/v1beta1, example/seed-crds), etcd-druid 5b90b4a (api/core/v1alpha1/crds).
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.errors import KubeNotFound, KubeUnavailable
from backupagent.kube.client import Kube
from backupagent.kube.resources import (
    BACKUP_BUCKETS,
    BACKUP_ENTRIES,
    CONTROL_PLANES,
    CUSTOM_RESOURCE_DEFINITIONS,
    ETCD_COPY_BACKUPS_TASKS,
    ETCDS,
    EXTENSION_BACKUP_ENTRIES,
    INFRASTRUCTURES,
    SEEDS,
    SHOOT_STATES,
    SHOOTS,
    Resource,
)

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
TIME: Schema = {"type": "string", "format": "date-time"}
NUMBER: Schema = {"type": "integer", "format": "int32"}
COUNT: Schema = {"type": "integer", "format": "int32", "minimum": 0}
FLAG: Schema = {"type": "boolean"}

POLL_S = 0.05
TIMEOUT_S = 30.0


def record(required: Sequence[str] = (), **fields: Schema) -> Schema:
    """Return the schema of an object that may have more fields than the named ones."""
    schema: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": fields}
    return schema | ({"required": list(required)} if required else {})


def whole_record(**fields: Schema) -> Schema:
    """Return the schema of an object all of whose named fields are required."""
    return record(list(fields), **fields)


def listed(item: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": item}


LAST_OPERATION = whole_record(type=TEXT, state=TEXT, progress=NUMBER, description=TEXT, lastUpdateTime=TIME)
PROVIDER = whole_record(type=TEXT, region=TEXT)
REFERENCE = whole_record(apiVersion=TEXT, kind=TEXT, name=TEXT, namespace=TEXT)
CORE_CONDITION = record(
    ["type", "status", "lastTransitionTime", "lastUpdateTime", "reason", "message"],
    type=TEXT,
    status=TEXT,
    lastTransitionTime=TIME,
    lastUpdateTime=TIME,
    reason=TEXT,
    message=TEXT,
)
DRUID_CONDITION = CORE_CONDITION
"""Druid's conditions have the same six required fields."""

DRUID_STORE = record(
    ["prefix"],
    prefix=TEXT,
    container={"type": "string", "maxLength": 63, "pattern": "^[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?$"},
    provider=TEXT,
    secretRef=record(["name"], name=TEXT, namespace=TEXT),
    endpointOverride=TEXT,
)


def shoot() -> dict[str, Any]:
    """Return the CRD of Shoots."""
    status = record(
        seedName=TEXT, technicalID=TEXT, uid=TEXT, observedGeneration=_GENERATION, lastOperation=LAST_OPERATION
    )
    return definition(SHOOTS, record(seedName=TEXT), status, selectable=[".spec.seedName", ".status.seedName"])


def seed() -> dict[str, Any]:
    """Return the CRD of Seeds; ``spec.backup`` may be missing, as on a Seed that cannot take migrations."""
    backup = record(["provider", "credentialsRef"], provider=TEXT, region=TEXT, credentialsRef=REFERENCE)
    status = record(gardener=record(version=TEXT), observedGeneration=_GENERATION, conditions=listed(CORE_CONDITION))
    return definition(SEEDS, record(backup=backup, provider=PROVIDER), status)


def backup_bucket() -> dict[str, Any]:
    """Return the CRD of BackupBuckets."""
    spec = record(["provider", "credentialsRef"], provider=PROVIDER, seedName=TEXT, credentialsRef=REFERENCE)
    generated = record(name=TEXT, namespace=TEXT)
    status = record(lastOperation=LAST_OPERATION, observedGeneration=_GENERATION, generatedSecretRef=generated)
    return definition(BACKUP_BUCKETS, spec, status, selectable=[".spec.seedName"])


def backup_entry() -> dict[str, Any]:
    """Return the CRD of Gardener's BackupEntries."""
    spec = record(["bucketName"], bucketName=TEXT, seedName=TEXT)
    status = record(lastOperation=LAST_OPERATION, observedGeneration=_GENERATION, seedName=TEXT)
    return definition(BACKUP_ENTRIES, spec, status, selectable=[".spec.seedName", ".spec.bucketName"])


def shoot_state() -> dict[str, Any]:
    """Return the CRD of ShootStates, which have no status."""
    data = record(["name", "type"], name=TEXT, type=TEXT, data=record(), labels=record())
    spec = record(gardener=listed(data), extensions=listed(record()), resources=listed(record()))
    return definition(SHOOT_STATES, spec, None)


def etcd() -> dict[str, Any]:
    """Return the CRD of druid's Etcds."""
    selector = record()
    backup = record(store=DRUID_STORE)
    spec = record(
        ["labels", "etcd", "backup", "replicas"],
        selector=selector,
        labels=record(),
        etcd=record(),
        backup=backup,
        replicas=NUMBER,
    )
    status = record(
        observedGeneration=_GENERATION, ready=FLAG, replicas=NUMBER, selector=TEXT, conditions=listed(DRUID_CONDITION)
    )
    return definition(ETCDS, spec, status, scale=True)


def etcd_copy_backups_task() -> dict[str, Any]:
    """Return the CRD of druid's EtcdCopyBackupsTasks."""
    spec = record(
        ["sourceStore", "targetStore"],
        sourceStore=DRUID_STORE,
        targetStore=DRUID_STORE,
        maxBackupAge=COUNT,
        maxBackups=COUNT,
        podLabels=record(),
        waitForFinalSnapshot=record(["enabled"], enabled=FLAG, timeout=TEXT),
    )
    status = record(conditions=listed(DRUID_CONDITION), observedGeneration=_GENERATION, lastError=TEXT)
    return definition(ETCD_COPY_BACKUPS_TASKS, spec, status)


def extension_backup_entry() -> dict[str, Any]:
    """Return the CRD of the extensions' BackupEntries."""
    secret = record(["name"], name=TEXT, namespace=TEXT)
    spec = record(
        ["type", "region", "bucketName", "secretRef"], type=TEXT, region=TEXT, bucketName=TEXT, secretRef=secret
    )
    return definition(EXTENSION_BACKUP_ENTRIES, spec, _EXTENSION_STATUS)


def infrastructure() -> dict[str, Any]:
    """Return the CRD of Infrastructures."""
    return definition(INFRASTRUCTURES, record(["type"], type=TEXT), _EXTENSION_STATUS)


def control_plane() -> dict[str, Any]:
    """Return the CRD of ControlPlanes."""
    return definition(CONTROL_PLANES, record(["type"], type=TEXT), _EXTENSION_STATUS)


_GENERATION: Schema = {"type": "integer", "format": "int64"}
_EXTENSION_STATUS = record(lastOperation=LAST_OPERATION, observedGeneration=_GENERATION)

DEFINITIONS = {
    SHOOTS: shoot,
    SEEDS: seed,
    BACKUP_BUCKETS: backup_bucket,
    BACKUP_ENTRIES: backup_entry,
    SHOOT_STATES: shoot_state,
    ETCDS: etcd,
    ETCD_COPY_BACKUPS_TASKS: etcd_copy_backups_task,
    EXTENSION_BACKUP_ENTRIES: extension_backup_entry,
    INFRASTRUCTURES: infrastructure,
    CONTROL_PLANES: control_plane,
}
"""The CRD of each kind."""


def definition(
    resource: Resource, spec: Schema, status: Schema | None, *, selectable: Sequence[str] = (), scale: bool = False
) -> dict[str, Any]:
    """Return a CRD.

    Args:
        resource: The kind.
        spec: Schema of ``spec``, which is required.
        status: Schema of ``status``, then a subresource; None: there is none.
        selectable: Paths that field selectors may name.
        scale: Whether there is the subresource ``scale``.
    """
    properties = {"spec": spec} | ({"status": status} if status else {})
    version: dict[str, Any] = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": properties}},
        "subresources": {"status": {}} if status else {},
    }
    if selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in selectable]
    if scale:
        version["subresources"]["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    names = {
        "kind": resource.kind,
        "listKind": f"{resource.kind}List",
        "plural": resource.plural,
        "singular": resource.kind.lower(),
    }
    return {
        **CUSTOM_RESOURCE_DEFINITIONS.stub(f"{resource.plural}.{resource.group}"),
        "spec": {
            "group": resource.group,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "names": names,
            "versions": [version],
        },
    }


def install(kube: Kube, *, cancel: Cancel | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
    """Make all kinds known to an API server; return when they can be used.

    Raises:
        KubeUnavailable: one of them was not served within half a minute.
        KubeError: the API server refuses one.
    """
    for each in DEFINITIONS.values():
        kube.apply(CUSTOM_RESOURCE_DEFINITIONS, each())
    deadline = clock.monotonic_s() + TIMEOUT_S
    for resource in DEFINITIONS:
        name = f"{resource.plural}.{resource.group}"
        while not _is_served(kube, resource, name):
            if clock.monotonic_s() > deadline:
                raise KubeUnavailable(f"not served within {TIMEOUT_S:g} s", what=f"customresourcedefinition {name}")
            (cancel or Cancel()).wait(POLL_S)


def _is_served(kube: Kube, resource: Resource, name: str) -> bool:
    status = kube.get(CUSTOM_RESOURCE_DEFINITIONS, name).get("status", {})
    conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
    if conditions.get("Established") == "True":
        # Established, but the handler does not know it yet (404), or its storage is being initialized (429).
        with contextlib.suppress(KubeNotFound, KubeUnavailable):
            kube.list(resource)
            return True
    return False
