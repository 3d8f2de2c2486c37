"""The scripted druid against a real API server, controller manager, MinIOs, and Pods as processes."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK
from backupagent.etcd.client import EtcdClient
from backupagent.etcd.connection import EtcdAccess
from backupagent.kube.client import KubeClient
from backupagent.kube.resources import (
    CONFIG_MAPS,
    ETCD_COPY_BACKUPS_TASKS,
    ETCDS,
    JOBS,
    LEASES,
    NAMESPACES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    Document,
)
from backupagent.stores.peer import peer_uri
from backupagent.testing import crds
from backupagent.testing.container import require_namespaces
from backupagent.testing.druid import Druid, Images, Readiness
from backupagent.testing.druid_copy import FINALIZER
from backupagent.testing.druid_etcd import MemberPorts
from backupagent.testing.kube_servers import KubeApiServer, KubeControllerManager
from backupagent.testing.kubelet import ApiAddress, Kubelet
from backupagent.testing.servers import MinioServer, ServerMissing
from backupagent.wiring import open_snapstore

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

TIMEOUT_S = 90
PREFIX = "shoot--dev--demo--1/etcd-main"
IMAGES = {
    "etcd-wrapper": ["/usr/bin/env", "ETCD_WRAPPER_PAUSE_S=0.2", sys.executable, "-m", "backupagent.testing.wrapper"],
    "etcdbrctl": [sys.executable, "-m", "backupagent.cli.etcdbrctl"],
    "fails": ["/bin/sh", "-c", "exit 1"],
}


@dataclass
class Seed:
    """A namespace of a cluster in which druid runs, and the buckets that it may name."""

    kube: KubeClient
    kubelet: Kubelet
    druid: Druid
    namespace: str
    credentials: dict[str, dict[str, str]] = field(default_factory=dict)

    def until(self, what: Callable[[], Any]) -> Any:
        """Ask until there is an answer; return it."""
        deadline = SYSTEM_CLOCK.monotonic_s() + TIMEOUT_S
        pause = Cancel()
        while SYSTEM_CLOCK.monotonic_s() < deadline:
            if answer := what():
                return answer
            pause.wait(0.1)
        pytest.fail(f"not within {TIMEOUT_S} s; {self.story()}")

    def story(self) -> str:
        """Return what the Pods said, for the message of a failure."""
        pods = self.kube.list(PODS, self.namespace)
        containers = [(pod["metadata"]["name"], each["name"]) for pod in pods for each in pod["spec"]["containers"]]
        return "\n".join(f"{key}: {self.kubelet.logs(self.namespace, *key)[-3000:]}" for key in containers)

    def bucket(self, minio: MinioServer, bucket: str, secret: str) -> dict[str, Any]:
        """Make a bucket and the Secret for it; return the store as specs name it."""
        minio.make_bucket(bucket)
        self.credentials[bucket] = {
            "accessKeyID": minio.access_key,
            "secretAccessKey": minio.secret_key,
            "region": minio.REGION,
            "endpoint": minio.endpoint_url,
            "s3ForcePathStyle": "true",
            "bucketName": bucket,
        }
        document = SECRETS.stub(secret, self.namespace) | {"stringData": self.credentials[bucket]}
        self.kube.create(SECRETS, document)
        return {"provider": "S3", "container": bucket, "prefix": PREFIX, "secretRef": {"name": secret}}

    def snapshots(self, bucket: str, folder: Path) -> list[str]:
        """Return the names of the snapshots in a bucket."""
        for name, value in self.credentials[bucket].items():
            (folder / name).write_text(value)
        uri = peer_uri("S3", bucket, PREFIX, credentials=str(folder))
        with open_snapstore(uri, Cancel()) as store:
            return [each.snapshot.name for each in store.list().snapshots]

    def put(self, bucket: str, folder: Path, value: str) -> None:
        """Write a key once the first full is there, and wait for the delta that has it.

        Written before, it would be in the full, and no delta would ever come.
        """
        assert self.until(lambda: self.snapshots(bucket, folder))[0].startswith("Full-")
        with EtcdClient.open(EtcdAccess((self.client_url(),))) as client:
            client.etcd3.put("/registry/pods/one", value)
        self.until(lambda: any(each.startswith("Incr-") for each in self.snapshots(bucket, folder)))

    def etcd(self, store: Mapping[str, Any], name: str = "etcd-main") -> dict[str, Any]:
        labels = {"role": "main"}
        backup = {"store": store, "fullSnapshotSchedule": "0 1 * * *", "deltaSnapshotPeriod": "2s"}
        spec = {"replicas": 1, "labels": labels, "etcd": {"heartbeatDuration": "1s"}, "backup": backup}
        return ETCDS.stub(name, self.namespace) | {"spec": spec}

    def is_ready(self, name: str = "etcd-main") -> bool:
        return bool(self.kube.get(ETCDS, name, self.namespace).get("status", {}).get("ready"))

    def client_url(self) -> str:
        return MemberPorts.of(self.kube.get(PODS, "etcd-main-0", self.namespace)).client_url

    def task(self, source: Mapping[str, Any], target: Mapping[str, Any], name: str = "demo", **spec: Any) -> None:
        document = {"spec": {"sourceStore": source, "targetStore": target, **spec}}
        self.kube.create(ETCD_COPY_BACKUPS_TASKS, ETCD_COPY_BACKUPS_TASKS.stub(name, self.namespace) | document)

    def condition(self, name: str = "demo") -> Mapping[str, str]:
        """Wait for a task's end; return its condition."""

        def told() -> list[Mapping[str, str]]:
            return self.kube.get(ETCD_COPY_BACKUPS_TASKS, name, self.namespace).get("status", {}).get("conditions", [])

        return self.until(told)[0]


@pytest.fixture(scope="module")
def api(server_binary: Callable[[str], Path]) -> Iterator[KubeApiServer]:
    for name in ("etcd", "kube-apiserver", "kube-controller-manager", "minio", "unshare"):
        server_binary(name)
    with KubeApiServer() as api, KubeControllerManager(api):
        with api.client() as kube:
            crds.install(kube)
        yield api


@pytest.fixture(scope="module")
def kubelet(api: KubeApiServer, tmp_path_factory: Any, request: pytest.FixtureRequest) -> Iterator[Kubelet]:
    folder = tmp_path_factory.mktemp("kubelet")
    try:
        require_namespaces(folder / "probe")
    except ServerMissing as error:
        if request.config.getoption("--require") == "all":
            raise
        pytest.skip(str(error))
    address = ApiAddress(api.url, api.ca_file.read_bytes())
    with api.client() as kube, Kubelet(kube, IMAGES, folder, api=address) as kubelet:
        yield kubelet


@pytest.fixture(scope="module")
def minio(server_binary: Callable[[str], Path]) -> Iterator[MinioServer]:
    with MinioServer(binary=server_binary("minio")) as minio:
        yield minio


@pytest.fixture(scope="module")
def other_minio(server_binary: Callable[[str], Path]) -> Iterator[MinioServer]:
    with MinioServer(binary=server_binary("minio")) as minio:
        yield minio


@pytest.fixture
def seed(api: KubeApiServer, kubelet: Kubelet, request: pytest.FixtureRequest) -> Iterator[Seed]:
    namespace = request.node.originalname.replace("_", "-")[:60].rstrip("-")
    with api.client() as kube:
        kube.create(NAMESPACES, NAMESPACES.stub(namespace))
        with Druid(kube, readiness=Readiness(0, 1)) as druid:
            yield Seed(kube, kubelet, druid, namespace)
            kube.delete(NAMESPACES, namespace)


def test_an_etcd_comes_up_and_backs_itself_up(seed: Seed, minio: MinioServer, tmp_path: Path) -> None:
    store = seed.bucket(minio, "backups", "etcd-backup")
    seed.kube.create(ETCDS, seed.etcd(store))
    seed.until(seed.is_ready)
    status = seed.kube.get(ETCDS, "etcd-main", seed.namespace)["status"]
    assert {each["type"]: each["status"] for each in status["conditions"]} == {
        "Ready": "True",
        "AllMembersReady": "True",
        "AllMembersUpdated": "True",
    }
    assert (status["replicas"], status["observedGeneration"]) == (1, 1)

    seed.put("backups", tmp_path, "first")

    def renewed() -> str:
        return seed.kube.get(LEASES, "etcd-main-0", seed.namespace)["spec"].get("renewTime", "")

    before = seed.until(renewed)
    seed.until(lambda: renewed() > before)
    seed.until(lambda: seed.kube.get(LEASES, "etcd-main-full-snap", seed.namespace)["spec"].get("holderIdentity"))


def test_an_etcd_comes_back_with_its_data_from_the_store(seed: Seed, minio: MinioServer, tmp_path: Path) -> None:
    store = seed.bucket(minio, "comes-back", "etcd-backup")
    seed.kube.create(ETCDS, seed.etcd(store))
    seed.until(seed.is_ready)
    url = seed.client_url()
    seed.put("comes-back", tmp_path, "kept")

    before = seed.kube.get(PODS, "etcd-main-0", seed.namespace)["metadata"]["uid"]
    seed.kube.delete(PODS, "etcd-main-0", seed.namespace)
    seed.until(
        lambda: (pod := seed.kube.find(PODS, "etcd-main-0", seed.namespace)) and pod["metadata"]["uid"] != before
    )
    seed.until(lambda: seed.client_url() != url)
    seed.until(seed.is_ready)
    url = seed.client_url()
    with EtcdClient.open(EtcdAccess((url,))) as client:
        assert client.etcd3.get("/registry/pods/one")[0] == b"kept"


def test_a_deleted_etcd_takes_along_everything_it_made(seed: Seed, minio: MinioServer) -> None:
    store = seed.bucket(minio, "goes", "etcd-backup")
    seed.kube.create(ETCDS, seed.etcd(store))
    seed.until(seed.is_ready)
    seed.kube.delete(ETCDS, "etcd-main", seed.namespace)
    kinds = (PODS, CONFIG_MAPS, SERVICE_ACCOUNTS, ROLES, ROLE_BINDINGS, LEASES)

    def left() -> list[str]:
        found = [each["metadata"] for kind in kinds for each in seed.kube.list(kind, seed.namespace)]
        return [each["name"] for each in found if each["name"].startswith(("etcd-main", "druid."))]

    seed.until(lambda: seed.kube.find(ETCDS, "etcd-main", seed.namespace) is None and not left())


def test_a_namespace_goes_with_its_etcd(seed: Seed, minio: MinioServer) -> None:
    seed.kube.create(ETCDS, seed.etcd(seed.bucket(minio, "ends", "etcd-backup")))
    seed.until(seed.is_ready)
    seed.kube.delete(NAMESPACES, seed.namespace)
    seed.until(lambda: seed.kube.find(NAMESPACES, seed.namespace) is None)


def test_a_task_copies_a_bucket(seed: Seed, minio: MinioServer, other_minio: MinioServer, tmp_path: Path) -> None:
    source = seed.bucket(minio, "source", "source-etcd-backup")
    target = seed.bucket(other_minio, "target", "etcd-backup")
    seed.kube.create(ETCDS, seed.etcd({**source, "secretRef": {"name": "source-etcd-backup"}}))
    seed.until(lambda: seed.snapshots("source", tmp_path))
    seed.kube.delete(ETCDS, "etcd-main", seed.namespace)
    seed.until(lambda: seed.kube.find(PODS, "etcd-main-0", seed.namespace) is None)

    seed.task(source, target)
    condition = seed.condition()
    assert (condition["type"], condition["status"]) == ("Succeeded", "True"), seed.story()
    assert set(condition) == {"type", "status", "reason", "message", "lastTransitionTime", "lastUpdateTime"}
    status = seed.kube.get(ETCD_COPY_BACKUPS_TASKS, "demo", seed.namespace)["status"]
    assert status["observedGeneration"] == 1
    assert seed.snapshots("target", tmp_path) == seed.snapshots("source", tmp_path) != []


def test_a_job_that_gives_up_is_a_failed_task(seed: Seed, minio: MinioServer, other_minio: MinioServer) -> None:
    source = seed.bucket(minio, "unread", "source-etcd-backup")
    target = seed.bucket(other_minio, "unwritten", "etcd-backup")
    seed.druid.images = replace(Images(), copy="fails")
    seed.task(source, target)

    def restarts() -> int:
        pods: list[Document] = seed.kube.list(PODS, seed.namespace)
        statuses = [each for pod in pods for each in pod.get("status", {}).get("containerStatuses", [])]
        return max((each["restartCount"] for each in statuses), default=0)

    seed.until(restarts)
    condition = seed.condition()
    assert (condition["type"], condition["status"]) == ("Failed", "True")
    assert condition["reason"] == "BackoffLimitExceeded"


def test_a_deleted_task_waits_for_its_job(seed: Seed, minio: MinioServer, other_minio: MinioServer) -> None:
    source = seed.bucket(minio, "never-final", "source-etcd-backup")
    target = seed.bucket(other_minio, "stays-empty", "etcd-backup")
    seed.task(source, target, waitForFinalSnapshot={"enabled": True, "timeout": "5m0s"})
    seed.until(lambda: seed.kube.find(JOBS, "demo-worker", seed.namespace))
    task = seed.until(lambda: seed.kube.get(ETCD_COPY_BACKUPS_TASKS, "demo", seed.namespace))
    assert task["metadata"]["finalizers"] == [FINALIZER]
    seed.kube.delete(ETCD_COPY_BACKUPS_TASKS, "demo", seed.namespace)
    seed.until(lambda: seed.kube.find(ETCD_COPY_BACKUPS_TASKS, "demo", seed.namespace) is None)
    assert seed.kube.find(JOBS, "demo-worker", seed.namespace) is None
    assert seed.kube.list(PODS, seed.namespace) == []


def test_a_job_of_that_name_is_adopted_as_it_is(seed: Seed, minio: MinioServer, other_minio: MinioServer) -> None:
    source = seed.bucket(minio, "adopted-from", "source-etcd-backup")
    target = seed.bucket(other_minio, "adopted-to", "etcd-backup")
    container = {"name": "other", "image": "fails"}
    spec = {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    made = seed.kube.create(JOBS, JOBS.stub("demo-worker", seed.namespace) | {"spec": spec})

    def has_failed() -> bool:
        status = seed.kube.get(JOBS, "demo-worker", seed.namespace).get("status", {})
        return any(each["type"] == "Failed" for each in status.get("conditions", []))

    seed.until(has_failed)
    seed.task(source, target)  # only now: the Jobs of others are not watched
    assert seed.condition()["type"] == "Failed"
    assert seed.kube.get(JOBS, "demo-worker", seed.namespace)["metadata"]["uid"] == made["metadata"]["uid"]


def test_a_store_that_is_not_supported_is_told(seed: Seed) -> None:
    store = {"provider": "Punchcards", "container": "c", "prefix": "p", "secretRef": {"name": "s"}}
    seed.task(store, store)

    def told() -> str:
        return seed.kube.get(ETCD_COPY_BACKUPS_TASKS, "demo", seed.namespace).get("status", {}).get("lastError", "")

    assert "Punchcards" in seed.until(told)
    assert seed.kube.find(JOBS, "demo-worker", seed.namespace) is None
