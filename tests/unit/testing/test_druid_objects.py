"""The documents of the scripted druid, against druid's own, written out; and what its threads make of errors."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from backupagent.errors import ConfigError, KubeUnavailable
from backupagent.kube.client import Change, WatchEvent
from backupagent.kube.resources import ETCD_COPY_BACKUPS_TASKS, ETCDS, JOBS, LEASES, PODS, ROLES, Document, Resource
from backupagent.server.etcd_config import read_config
from backupagent.testing.druid import Druid
from backupagent.testing.druid_copy import FINALIZER, copy_job, job_arguments, task_status
from backupagent.testing.druid_etcd import (
    Images,
    MemberPorts,
    Readiness,
    etcd_config,
    etcd_status,
    member_objects,
    member_pod,
    sidecar_arguments,
    wrapper_arguments,
)

PORTS = MemberPorts(client=2379, peer=2380, wrapper=9095, sidecar=8080)
NOW = "2026-01-01T00:00:00Z"


def store(bucket: str, secret: str, **more: str) -> dict[str, Any]:
    return {"provider": "S3", "container": bucket, "prefix": "be/etcd-main", "secretRef": {"name": secret}, **more}


def task(**spec: Any) -> dict[str, Any]:
    document = ETCD_COPY_BACKUPS_TASKS.stub("demo", "cp")
    document["metadata"] |= {"uid": "u", "generation": 3}
    stores = {"sourceStore": store("src", "source-etcd-backup"), "targetStore": store("dst", "etcd-backup")}
    return document | {"spec": stores | spec}


def etcd(**backup: Any) -> dict[str, Any]:
    document = ETCDS.stub("etcd-main", "cp")
    document["metadata"] |= {"uid": "u", "generation": 2}
    backup = {
        "store": store("dst", "etcd-backup"),
        "fullSnapshotSchedule": "0 1 * * *",
        "deltaSnapshotPeriod": "2s",
        "deltaSnapshotMemoryLimit": "100Mi",
        "garbageCollectionPeriod": "12h0m0s",
        "compression": {"enabled": True, "policy": "gzip"},
        **backup,
    }
    return document | {"spec": {"replicas": 1, "labels": {}, "etcd": {"quota": "8Gi"}, "backup": backup}}


def test_a_copy_has_druids_arguments_in_druids_order() -> None:
    spec = task(
        sourceStore=store("src", "s", endpointOverride="http://src"),
        targetStore=store("dst", "s", endpointOverride="http://dst"),
        maxBackupAge=7,
        maxBackups=5,
        waitForFinalSnapshot={"enabled": True, "timeout": "5m0s"},
    )["spec"]
    assert job_arguments(spec) == [
        "copy",
        "--snapstore-temp-directory=/home/nonroot/data/tmp",
        "--storage-provider=S3",
        "--store-prefix=be/etcd-main",
        "--store-container=dst",
        "--store-endpoint-override=http://dst",
        "--source-storage-provider=S3",
        "--source-store-prefix=be/etcd-main",
        "--source-store-container=src",
        "--source-store-endpoint-override=http://src",
        "--max-backup-age=7",
        "--max-backups-to-copy=5",
        "--wait-for-final-snapshot=true",
        "--wait-for-final-snapshot-timeout=5m0s",
    ]


def test_a_copy_without_options_names_none() -> None:
    assert job_arguments(task()["spec"]) == [
        "copy",
        "--snapstore-temp-directory=/home/nonroot/data/tmp",
        "--storage-provider=S3",
        "--store-prefix=be/etcd-main",
        "--store-container=dst",
        "--source-storage-provider=S3",
        "--source-store-prefix=be/etcd-main",
        "--source-store-container=src",
    ]


def test_a_copys_job_is_druids() -> None:
    job = copy_job(task(podLabels={"to-dns": "allowed"}), "image")
    labels = {
        "app.kubernetes.io/component": "etcd-copy-backups-job",
        "app.kubernetes.io/part-of": "demo",
        "app.kubernetes.io/managed-by": "etcd-druid",
        "app.kubernetes.io/name": "demo-worker",
    }
    (owner,) = job["metadata"].pop("ownerReferences")
    assert (owner["kind"], owner["controller"], owner["blockOwnerDeletion"]) == ("EtcdCopyBackupsTask", True, True)
    assert job["metadata"] == {"name": "demo-worker", "namespace": "cp", "labels": labels}
    assert set(job["spec"]) == {"template"}  # no backoffLimit, no deadline, no TTL
    assert job["spec"]["template"]["metadata"]["labels"] == {**labels, "to-dns": "allowed"}
    pod = job["spec"]["template"]["spec"]
    (container,) = pod.pop("containers")
    assert pod == {
        "restartPolicy": "OnFailure",
        "shareProcessNamespace": True,
        "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "runAsNonRoot": True},
        "volumes": [
            {"name": "source-etcd-backup-secret", "secret": {"secretName": "source-etcd-backup", "defaultMode": 416}},
            {"name": "etcd-backup-secret", "secret": {"secretName": "etcd-backup", "defaultMode": 416}},
        ],
    }
    assert "command" not in container
    assert (container["name"], container["image"]) == ("copy-backups", "image")
    assert {each["name"]: each["value"] for each in container["env"]} == {
        "SOURCE_STORAGE_CONTAINER": "src",
        "STORAGE_CONTAINER": "dst",
        "SOURCE_AWS_APPLICATION_CREDENTIALS": "/var/source-etcd-backup",
        "AWS_APPLICATION_CREDENTIALS": "/var/etcd-backup",
    }
    assert {each["name"]: each["mountPath"] for each in container["volumeMounts"]} == {
        "source-etcd-backup-secret": "/var/source-etcd-backup",
        "etcd-backup-secret": "/var/etcd-backup",
    }


def test_a_provider_that_druid_does_not_know_is_an_error() -> None:
    with pytest.raises(ConfigError, match="Punchcards"):
        copy_job(task(targetStore=store("dst", "s", provider="Punchcards")), "image")


@pytest.mark.parametrize(("of_job", "of_task"), [("Complete", "Succeeded"), ("Failed", "Failed")])
def test_a_tasks_condition_is_the_jobs(of_job: str, of_task: str) -> None:
    told = {"type": of_job, "status": "True", "lastTransitionTime": NOW, "lastProbeTime": NOW, "message": "why"}
    suspended = told | {"type": "Suspended"}
    assert task_status(task(), JOBS.stub("demo-worker", "cp") | {"status": {"conditions": [suspended, told]}}) == {
        "observedGeneration": 3,
        "conditions": [
            {
                "type": of_task,
                "status": "True",
                "lastTransitionTime": NOW,
                "lastUpdateTime": NOW,
                "reason": "",
                "message": "why",
            }
        ],
        "lastError": None,
    }


def test_a_sidecar_has_druids_arguments_for_plain_http() -> None:
    assert sidecar_arguments(etcd(), PORTS) == [
        "server",
        "--server-port=8080",
        "--enable-snapshot-lease-renewal=true",
        "--full-snapshot-lease-name=etcd-main-full-snap",
        "--delta-snapshot-lease-name=etcd-main-delta-snap",
        "--storage-provider=S3",
        "--store-prefix=be/etcd-main",
        "--schedule=0 1 * * *",
        "--delta-snapshot-period=2s",
        "--delta-snapshot-memory-limit=104857600",
        "--garbage-collection-policy=Exponential",
        "--garbage-collection-period=12h0m0s",
        "--compress-snapshots=true",
        "--compression-policy=gzip",
        "--etcd-snapshot-timeout=15m",
        "--defragmentation-schedule=0 0 */3 * *",
        "--etcd-defrag-timeout=15m",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=30m",
        "--insecure-transport=true",
        "--insecure-skip-tls-verify=true",
        "--endpoints=http://127.0.0.1:2379",
        "--service-endpoints=http://127.0.0.1:2379",
        "--data-dir=/var/etcd/data/new.etcd",
        "--restoration-temp-snapshots-dir=/var/etcd/data/restoration.temp",
        "--snapstore-temp-directory=/var/etcd/data/temp",
        "--etcd-connection-timeout=5m",
        "--use-etcd-wrapper=true",
        "--enable-member-lease-renewal=true",
        "--k8s-heartbeat-duration=10s",
        "--embedded-etcd-quota-bytes=8589934592",
    ]


def test_a_wrapper_is_told_its_ports() -> None:
    assert wrapper_arguments(PORTS) == [
        "start-etcd",
        "--backup-restore-host-port=127.0.0.1:8080",
        "--etcd-server-name=127.0.0.1",
        "--backup-restore-tls-enabled=false",
        "--etcd-client-port=2379",
        "--etcd-wrapper-port=9095",
    ]


def test_the_sidecar_reads_the_configuration() -> None:
    text = etcd_config(etcd(), PORTS)
    read = read_config(text, pod="etcd-main-0", where="etcd.conf.yaml")
    assert (read.name, read.peer_urls, read.client_urls) == (
        "etcd-main-0",
        ("http://127.0.0.1:2380",),
        ("http://127.0.0.1:2379",),
    )
    assert (read.initial_cluster, read.initial_cluster_token) == ("etcd-main-0=http://127.0.0.1:2380", "etcd-cluster")
    keys = {"data-dir": "/var/etcd/data/new.etcd", "snapshot-count": 10000, "quota-backend-bytes": 8 << 30}
    compaction = {"auto-compaction-mode": "periodic", "auto-compaction-retention": "30m"}
    assert (keys | compaction).items() <= yaml.safe_load(text).items()


def test_only_the_sidecar_sees_configuration_and_credentials() -> None:
    pod = member_pod(etcd(), PORTS, Images(), Readiness())
    mounts = {
        each["name"]: {mount["mountPath"] for mount in each["volumeMounts"]} for each in pod["spec"]["containers"]
    }
    assert mounts == {
        "etcd": {"/var/etcd/data"},
        "backup-restore": {"/var/etcd/data", "/var/etcd/config", "/var/etcd-backup"},
    }
    assert pod["spec"]["serviceAccountName"] == "etcd-main"
    wrapper, sidecar = pod["spec"]["containers"]
    assert (wrapper["image"], sidecar["image"]) == ("etcd-wrapper", "etcdbrctl")
    assert wrapper["readinessProbe"] == {
        "httpGet": {"path": "/readyz", "port": 9095, "scheme": "HTTP"},
        "initialDelaySeconds": 15,
        "periodSeconds": 5,
        "failureThreshold": 5,
    }
    fields = {
        each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in sidecar["env"] if "valueFrom" in each
    }
    assert fields == {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}


def test_the_sidecar_may_touch_leases_and_nothing_else() -> None:
    (role,) = [document for resource, document in member_objects(etcd(), PORTS) if resource is ROLES]
    (rule,) = role["rules"]
    assert rule == {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["get", "list", "watch", "update", "patch"],
    }


def test_everything_belongs_to_its_etcd() -> None:
    documents = [document for _, document in member_objects(etcd(), PORTS)]
    for document in [*documents, member_pod(etcd(), PORTS, Images(), Readiness())]:
        (owner,) = document["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("Etcd", "etcd-main", "u", True)
    leases = [
        document["metadata"]["name"] for resource, document in member_objects(etcd(), PORTS) if resource is LEASES
    ]
    assert leases == ["etcd-main-0", "etcd-main-full-snap", "etcd-main-delta-snap"]


def test_a_member_is_found_by_its_pod() -> None:
    found = MemberPorts.of(member_pod(etcd(), PORTS, Images(), Readiness()))
    assert found == PORTS
    assert (found.client_url, found.sidecar_url) == ("http://127.0.0.1:2379", "http://127.0.0.1:8080")


@pytest.mark.parametrize("ready", [True, False])
def test_a_status_is_the_pods_readiness(ready: bool) -> None:
    condition = {"type": "Ready", "status": str(ready)}
    status = etcd_status(etcd(), PODS.stub("etcd-main-0", "cp") | {"status": {"conditions": [condition]}}, NOW)
    assert (status["ready"], status["observedGeneration"], status["replicas"]) == (ready, 2, 1)
    told = {each["type"]: each["status"] for each in status["conditions"]}
    assert told == {"Ready": str(ready), "AllMembersReady": str(ready), "AllMembersUpdated": "True"}
    six = {"type", "status", "reason", "message", "lastTransitionTime", "lastUpdateTime"}
    assert all(set(each) == six for each in status["conditions"])


def test_a_condition_keeps_its_time_while_it_holds() -> None:
    ready = PODS.stub("etcd-main-0", "cp") | {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    before = etcd() | {"status": etcd_status(etcd(), ready, NOW)}
    assert etcd_status(before, ready, "2027-01-01T00:00:00Z") == before["status"]


class Broken:
    """An API server whose watches fail."""

    def watch(self, *_arguments: object, **_options: object) -> Iterator[WatchEvent]:
        raise ZeroDivisionError


def test_what_ends_a_thread_is_told_at_the_end() -> None:
    druid = Druid(Broken())  # type: ignore[arg-type]  # the only method that is reached
    with pytest.raises(ZeroDivisionError), druid:
        pass


class Flaky:
    """An API server with one Etcd that is to go, which is away at first."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.released = threading.Event()
        self.document = etcd()
        self.document["metadata"] |= {"deletionTimestamp": NOW, "finalizers": [FINALIZER], "resourceVersion": "1"}

    def watch(self, resource: Resource, *_arguments: object, **_options: object) -> Iterator[WatchEvent]:
        yield WatchEvent(Change.SYNCED, {})
        if resource is ETCDS:
            yield WatchEvent(Change.ADDED, self.document)

    def find(self, resource: Resource, *_names: str) -> Document | None:
        return self.document if resource is ETCDS else None

    def delete(self, *_arguments: object, **_options: object) -> None:
        self.failures -= 1
        if self.failures >= 0:
            raise KubeUnavailable("away", what="delete")

    def patch(self, *_arguments: object, **_options: object) -> Document:
        self.released.set()
        return self.document


def test_what_the_api_server_refuses_is_tried_again() -> None:
    kube = Flaky(failures=2)
    with Druid(kube):  # type: ignore[arg-type]  # the methods that are reached
        assert kube.released.wait(30)
