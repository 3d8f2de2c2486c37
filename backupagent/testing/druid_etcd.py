"""What etcd-druid makes of an Etcd with one member: its Pod with wrapper and sidecar, and what both need. Pure.

Unlike the real one it makes the Pod itself instead of a StatefulSet, everything is plain http, and members are found
by the ports in their Pod's containers instead of Services: all Pods share one loopback address.

Source: etcd-druid 5b90b4a, internal/component/{configmap,statefulset,role,memberlease,snapshotlease}.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from backupagent.kube.resources import (
    CONFIG_MAPS,
    ETCDS,
    LEASES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    Document,
    Resource,
)
from backupagent.testing.druid_copy import MANAGED_BY, SECRET_MODE, Store, owner, pod_security_context
from backupagent.units import GiB, MiB, parse_size

HOST = "127.0.0.1"
DATA_FOLDER = "/var/etcd/data"
CONFIG_FOLDER = "/var/etcd/config"
CONFIG_FILE = "etcd.conf.yaml"
QUOTA = 8 * GiB
DELTA_MEMORY_LIMIT = 100 * MiB
ROLE_RULES = [
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["get", "list", "watch", "update", "patch"],
    },
]
"""Rights of our sidecar, which needs no more; the peer's gets StatefulSets and Pods too."""


@dataclass(frozen=True)
class Images:
    """Images of the containers.

    Attributes:
        wrapper: Of etcd.
        backup_restore: Of the sidecar.
        copy: Of the Jobs of copy tasks.
    """

    wrapper: str = "etcd-wrapper"
    backup_restore: str = "etcdbrctl"
    copy: str = "etcdbrctl"


@dataclass(frozen=True)
class Readiness:
    """When a member counts as ready.

    Attributes:
        initial_delay_s: Pause before the first question; druid's is 15.
        period_s: Pause between questions; druid's is 5.
    """

    initial_delay_s: int = 15
    period_s: int = 5


@dataclass(frozen=True)
class MemberPorts:
    """Where a member listens.

    Attributes:
        client: etcd, for clients; druid's default is 2379.
        peer: etcd, for members; 2380.
        wrapper: The wrapper; 9095.
        sidecar: The sidecar; 8080.
    """

    client: int
    peer: int
    wrapper: int
    sidecar: int

    @classmethod
    def of(cls, pod: Document) -> "MemberPorts":
        """Read them out of a member's Pod."""
        found = {port["name"]: port["containerPort"] for each in pod["spec"]["containers"] for port in each["ports"]}
        return cls(**found)

    @property
    def client_url(self) -> str:
        """URL of the etcd."""
        return f"http://{HOST}:{self.client}"

    @property
    def sidecar_url(self) -> str:
        """URL of the sidecar."""
        return f"http://{HOST}:{self.sidecar}"


def member_name(etcd: Document) -> str:
    """Return the name of the only member, which is that of its Pod and its Lease too."""
    return f"{etcd['metadata']['name']}-0"


def etcd_config(etcd: Document, ports: MemberPorts) -> str:
    """Return what the sidecar gets as ``etcd.conf.yaml``."""
    member, spec = member_name(etcd), etcd["spec"]
    peer_url = f"http://{HOST}:{ports.peer}"
    shared = spec.get("sharedConfig", {})
    return yaml.safe_dump(
        {
            "name": "etcd-config",
            "data-dir": f"{DATA_FOLDER}/new.etcd",
            "metrics": spec["etcd"].get("metrics", "basic"),
            "snapshot-count": 10000,
            "enable-grpc-gateway": False,
            "quota-backend-bytes": _quota(etcd),
            "initial-cluster-token": "etcd-cluster",
            "initial-cluster-state": "new",
            "initial-cluster": f"{member}={peer_url}",
            "auto-compaction-mode": shared.get("autoCompactionMode", "periodic"),
            "auto-compaction-retention": shared.get("autoCompactionRetention", "30m"),
            "listen-peer-urls": peer_url,
            "listen-client-urls": ports.client_url,
            "initial-advertise-peer-urls": {member: [peer_url]},
            "advertise-client-urls": {member: [ports.client_url]},
            "next-cluster-version-compatible": True,
        }
    )


def wrapper_arguments(ports: MemberPorts) -> list[str]:
    """Return the arguments of the container ``etcd``."""
    return [
        "start-etcd",
        f"--backup-restore-host-port={HOST}:{ports.sidecar}",
        f"--etcd-server-name={HOST}",
        "--backup-restore-tls-enabled=false",
        f"--etcd-client-port={ports.client}",
        f"--etcd-wrapper-port={ports.wrapper}",
    ]


def sidecar_arguments(etcd: Document, ports: MemberPorts) -> list[str]:
    """Return the arguments of the container ``backup-restore``."""
    shared = etcd["spec"].get("sharedConfig", {})
    return [
        "server",
        f"--server-port={ports.sidecar}",
        *_backup_arguments(etcd),
        f"--defragmentation-schedule={etcd['spec']['etcd'].get('defragmentationSchedule', '0 0 */3 * *')}",
        "--etcd-defrag-timeout=15m",
        f"--auto-compaction-mode={shared.get('autoCompactionMode', 'periodic')}",
        f"--auto-compaction-retention={shared.get('autoCompactionRetention', '30m')}",
        "--insecure-transport=true",
        "--insecure-skip-tls-verify=true",
        f"--endpoints={ports.client_url}",
        f"--service-endpoints={ports.client_url}",
        f"--data-dir={DATA_FOLDER}/new.etcd",
        f"--restoration-temp-snapshots-dir={DATA_FOLDER}/restoration.temp",
        f"--snapstore-temp-directory={DATA_FOLDER}/temp",
        "--etcd-connection-timeout=5m",
        "--use-etcd-wrapper=true",
        "--enable-member-lease-renewal=true",
        f"--k8s-heartbeat-duration={etcd['spec']['etcd'].get('heartbeatDuration', '10s')}",
        f"--embedded-etcd-quota-bytes={_quota(etcd)}",
    ]


def _backup_arguments(etcd: Document) -> list[str]:
    """Return what tells the sidecar how to back up; nothing for an Etcd without a store."""
    name, backup = etcd["metadata"]["name"], etcd["spec"]["backup"]
    if "store" not in backup:
        return []
    compression = backup.get("compression", {})
    given = {
        "schedule": backup.get("fullSnapshotSchedule"),
        "delta-snapshot-period": backup.get("deltaSnapshotPeriod"),
        "delta-snapshot-memory-limit": _size(backup.get("deltaSnapshotMemoryLimit"), DELTA_MEMORY_LIMIT),
        "garbage-collection-policy": backup.get("garbageCollectionPolicy", "Exponential"),
        "garbage-collection-period": backup.get("garbageCollectionPeriod"),
        "compress-snapshots": "true" if compression.get("enabled") else None,
        "compression-policy": compression.get("policy"),
        "etcd-snapshot-timeout": backup.get("etcdSnapshotTimeout", "15m"),
    }
    return [
        "--enable-snapshot-lease-renewal=true",
        f"--full-snapshot-lease-name={name}-full-snap",
        f"--delta-snapshot-lease-name={name}-delta-snap",
        f"--storage-provider={Store(backup['store']).provider}",
        f"--store-prefix={backup['store']['prefix']}",
        *[f"--{flag}={value}" for flag, value in given.items() if value is not None],
    ]


def _quota(etcd: Document) -> int:
    return _size(etcd["spec"]["etcd"].get("quota"), QUOTA)


def _size(quantity: str | None, default: int) -> int:
    return parse_size(quantity) if quantity else default


def member_objects(etcd: Document, ports: MemberPorts) -> list[tuple[Resource, dict[str, Any]]]:
    """Return what there must be before the Pod is made."""
    name = etcd["metadata"]["name"]
    role = f"druid.gardener.cloud:etcd:{name}"
    group = ROLES.group
    binding = {
        "roleRef": {"apiGroup": group, "kind": ROLES.kind, "name": role},
        "subjects": [
            {"kind": SERVICE_ACCOUNTS.kind, "name": name, "namespace": etcd["metadata"]["namespace"]},
        ],
    }
    config = {"data": {CONFIG_FILE: etcd_config(etcd, ports)}}
    leases = [member_name(etcd), f"{name}-full-snap", f"{name}-delta-snap"]
    return [
        (SERVICE_ACCOUNTS, _owned(etcd, SERVICE_ACCOUNTS, name)),
        (ROLES, _owned(etcd, ROLES, role) | {"rules": ROLE_RULES}),
        (ROLE_BINDINGS, _owned(etcd, ROLE_BINDINGS, role) | binding),
        (CONFIG_MAPS, _owned(etcd, CONFIG_MAPS, f"{name}-config") | config),
        *[(LEASES, _owned(etcd, LEASES, lease) | {"spec": {}}) for lease in leases],
    ]


def member_pod(etcd: Document, ports: MemberPorts, images: Images, readiness: Readiness) -> dict[str, Any]:
    """Return the Pod of the only member."""
    name, store = etcd["metadata"]["name"], etcd["spec"]["backup"].get("store")
    data = {"name": name, "mountPath": DATA_FOLDER}
    config = {"name": "etcd-config-file", "mountPath": CONFIG_FOLDER}
    probe = {"httpGet": {"path": "/readyz", "port": ports.wrapper, "scheme": "HTTP"}, "failureThreshold": 5}
    wrapper = {
        "name": "etcd",
        "image": images.wrapper,
        "args": wrapper_arguments(ports),
        "ports": [_port("client", ports.client), _port("peer", ports.peer), _port("wrapper", ports.wrapper)],
        "readinessProbe": probe
        | {"initialDelaySeconds": readiness.initial_delay_s, "periodSeconds": readiness.period_s},
        "volumeMounts": [data],
    }
    sidecar = {
        "name": "backup-restore",
        "image": images.backup_restore,
        "args": sidecar_arguments(etcd, ports),
        "env": [_field("POD_NAME", "metadata.name"), _field("POD_NAMESPACE", "metadata.namespace")]
        + (Store(store).environment() if store else []),
        "ports": [_port("sidecar", ports.sidecar)],
        "volumeMounts": [data, config] + ([Store(store).mount()] if store else []),
    }
    items = [{"key": CONFIG_FILE, "path": CONFIG_FILE}]
    config_map = {"name": f"{name}-config", "items": items, "defaultMode": SECRET_MODE}
    volumes = [{"name": name, "emptyDir": {}}, {"name": "etcd-config-file", "configMap": config_map}]
    spec = {
        "serviceAccountName": name,
        "shareProcessNamespace": True,
        "securityContext": pod_security_context(),
        "containers": [wrapper, sidecar],
        "volumes": volumes + ([Store(store).volume()] if store else []),
    }
    return _owned(etcd, PODS, member_name(etcd)) | {"spec": spec}


def _owned(etcd: Document, resource: Resource, name: str) -> dict[str, Any]:
    document = resource.stub(name, etcd["metadata"]["namespace"])
    labels = MANAGED_BY | {"app.kubernetes.io/part-of": etcd["metadata"]["name"]}
    document["metadata"] |= {"labels": labels, "ownerReferences": [owner(ETCDS.kind, etcd)]}
    return document


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _port(name: str, port: int) -> dict[str, Any]:
    return {"name": name, "containerPort": port}


def is_ready(pod: Document | None) -> bool:
    """Whether a Pod says that it is ready."""
    conditions = pod.get("status", {}).get("conditions", ()) if pod and not is_deleted(pod) else ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def is_deleted(document: Document) -> bool:
    """Whether an object's removal was asked for."""
    return "deletionTimestamp" in document["metadata"]


def etcd_status(etcd: Document, pod: Document | None, now: str) -> dict[str, Any]:
    """Return the status of an Etcd.

    Args:
        etcd: The Etcd.
        pod: Its member's Pod; None when there is none.
        now: The time, RFC 3339.
    """
    ready = is_ready(pod)
    before: Mapping[str, Any] = {each["type"]: each for each in etcd.get("status", {}).get("conditions", ())}
    truths = {"Ready": ready, "AllMembersReady": ready, "AllMembersUpdated": True}
    conditions = []
    for name, holds in truths.items():
        told = before.get(name, {})
        same = told.get("status") == str(holds)
        conditions.append(
            {
                "type": name,
                "status": str(holds),
                "reason": "Quorate" if holds else "NotQuorate",
                "message": "the only member is ready" if ready else "the only member is not ready",
                "lastTransitionTime": told["lastTransitionTime"] if same else now,
                "lastUpdateTime": told["lastUpdateTime"] if same else now,
            }
        )
    return {
        "observedGeneration": etcd["metadata"]["generation"],
        "ready": ready,
        "replicas": 1 if pod else 0,
        "conditions": conditions,
    }
