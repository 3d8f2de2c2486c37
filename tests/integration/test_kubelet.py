"""Pods as local processes, driven by a real API server and a real Job controller."""

import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK
from backupagent.kube.client import KubeClient
from backupagent.kube.resources import (
    CONFIG_MAPS,
    JOBS,
    NAMESPACES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    Document,
)
from backupagent.testing.container import require_namespaces
from backupagent.testing.kube_servers import KubeApiServer, KubeControllerManager
from backupagent.testing.kubelet import ApiAddress, Kubelet
from backupagent.testing.server_process import free_ports
from backupagent.testing.servers import ServerMissing

pytestmark = pytest.mark.servers

MIB = 1 << 20
TIMEOUT_S = 60
HOLD = "import sys, time; block = bytearray(int(sys.argv[1]) << 20); time.sleep(float(sys.argv[2]))"
"""A program that uses so many MiB for so many seconds."""


@dataclass
class Cluster:
    kube: KubeClient
    kubelet: Kubelet
    namespace: str

    def until(self, what: Callable[[], object]) -> object:
        """Ask until there is an answer; return it."""
        deadline = SYSTEM_CLOCK.monotonic_s() + TIMEOUT_S
        pause = Cancel()
        while SYSTEM_CLOCK.monotonic_s() < deadline:
            answer = what()
            if answer:
                return answer
            pause.wait(0.05)
        pytest.fail(f"not within {TIMEOUT_S} s; Pods: {[pod['status'] for pod in self.pods()]}")

    def pods(self) -> list[Document]:
        return self.kube.list(PODS, self.namespace)

    def pod(self, container: dict, name: str = "one", **spec) -> None:
        spec = {"restartPolicy": "Never", "containers": [{"name": "main", **container}], **spec}
        self.kube.create(PODS, PODS.stub(name, self.namespace) | {"spec": spec})

    def job(self, container: dict, **spec) -> None:
        """Make a Job whose Pods hold the Secret ``backup`` where druid mounts it."""
        mounts = [{"name": "backup", "mountPath": "/var/etcd-backup"}]
        pod = {
            "restartPolicy": "Never",
            "containers": [{"name": "main", "volumeMounts": mounts, **container}],
            "volumes": [{"name": "backup", "secret": {"secretName": "backup"}}],
        }
        self.kube.create(SECRETS, SECRETS.stub("backup", self.namespace) | {"stringData": {"accessKeyID": "minio"}})
        self.kube.create(JOBS, JOBS.stub("copy", self.namespace) | {"spec": {"template": {"spec": pod}, **spec}})

    def job_ended(self) -> str:
        """Wait for a Job's end; return its condition."""

        def ended() -> list[str]:
            conditions = self.kube.get(JOBS, "copy", self.namespace).get("status", {}).get("conditions", ())
            return [each["type"] for each in conditions if each["type"] in {"Complete", "Failed"}]

        return self.until(ended)[0]

    def container(self, name: str = "one") -> dict:
        """Return the status of a Pod's container."""
        statuses = self.kube.get(PODS, name, self.namespace)["status"].get("containerStatuses")
        return statuses[0] if statuses else {"state": {}, "ready": False, "restartCount": 0}

    def phase(self, name: str = "one") -> str:
        return self.kube.get(PODS, name, self.namespace)["status"]["phase"]

    def ended(self, name: str = "one") -> dict:
        """Wait until a Pod's container has ended for good; return how."""
        return self.until(lambda: self.container(name)["state"].get("terminated"))

    def runs(self, name: str = "one") -> bool:
        return "running" in self.container(name)["state"]


def new_kubelet(kube: KubeClient, api: KubeApiServer, folder: Path) -> Kubelet:
    images = {"sh": ["/bin/sh", "-c"], "python": [sys.executable, "-c"]}
    return Kubelet(kube, images, folder, api=ApiAddress(api.url, api.ca_file.read_bytes()))


@pytest.fixture(scope="module")
def api(server_binary: Callable[[str], Path]) -> Iterator[KubeApiServer]:
    for name in ("etcd", "kube-apiserver", "kube-controller-manager", "unshare"):
        server_binary(name)
    with KubeApiServer() as api, KubeControllerManager(api):
        yield api


@pytest.fixture(scope="module")
def kubelet(api: KubeApiServer, tmp_path_factory, request: pytest.FixtureRequest) -> Iterator[Kubelet]:
    folder = tmp_path_factory.mktemp("kubelet")
    try:
        require_namespaces(folder / "probe")
    except ServerMissing as error:
        if request.config.getoption("--require") == "all":
            raise
        pytest.skip(str(error))
    with api.client() as kube, new_kubelet(kube, api, folder) as kubelet:
        yield kubelet


@pytest.fixture(scope="module")
def lonely(kubelet: Kubelet) -> Iterator[KubeApiServer]:
    """An API server without a kubelet."""
    with KubeApiServer() as api:
        yield api


@pytest.fixture
def cluster(api: KubeApiServer, kubelet: Kubelet, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    namespace = request.node.originalname.replace("_", "-")[:60].rstrip("-")
    with api.client() as kube:
        kube.create(NAMESPACES, NAMESPACES.stub(namespace))
        yield Cluster(kube, kubelet, namespace)
        kube.delete(NAMESPACES, namespace)


def test_a_job_succeeds_with_its_secret_at_the_exact_path(cluster: Cluster) -> None:
    cluster.job(
        {"image": "sh", "args": ["cat /var/etcd-backup/accessKeyID; ls -l /var/etcd-backup | grep -c rw-r-----"]}
    )
    assert cluster.job_ended() == "Complete"
    (pod,) = cluster.pods()
    assert cluster.kubelet.logs(cluster.namespace, pod["metadata"]["name"], "main") == "minio1\n"
    assert pod["status"]["phase"] == "Succeeded"
    assert cluster.kube.get(JOBS, "copy", cluster.namespace)["status"]["succeeded"] == 1


def test_a_job_fails_with_the_exit_code(cluster: Cluster) -> None:
    cluster.job({"image": "sh", "args": ["exit 41"]}, backoffLimit=0)
    assert cluster.job_ended() == "Failed"
    (pod,) = cluster.pods()
    assert pod["status"]["phase"] == "Failed"
    terminated = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (41, "Error")


def test_a_jobs_pod_is_killed_above_256_mib(cluster: Cluster) -> None:
    cluster.job({"image": "python", "args": [HOLD, "300", "30"]}, backoffLimit=0)
    assert cluster.job_ended() == "Failed"
    (pod,) = cluster.pods()
    terminated = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (137, "OOMKilled")
    assert cluster.kubelet.peak_memory(cluster.namespace, pod["metadata"]["name"]) > 256 * MIB


def test_a_jobs_pod_below_its_limit_is_measured(cluster: Cluster) -> None:
    cluster.job({"image": "python", "args": [HOLD, "100", "0.2"]}, backoffLimit=0)
    assert cluster.job_ended() == "Complete"
    (pod,) = cluster.pods()
    assert 100 * MIB <= cluster.kubelet.peak_memory(cluster.namespace, pod["metadata"]["name"], "main") <= 256 * MIB


def test_a_jobs_pod_can_write_neither_its_root_nor_a_temp_folder(cluster: Cluster) -> None:
    script = "for place in / /tmp /var/tmp /var/etcd-backup $HOME; do touch $place/new && exit 1; done; true"
    cluster.job({"image": "sh", "args": [script]}, backoffLimit=0)
    assert cluster.job_ended() == "Complete"
    (pod,) = cluster.pods()
    assert cluster.kubelet.logs(cluster.namespace, pod["metadata"]["name"], "main").count("Read-only file system") == 5


def test_a_deleted_job_takes_its_running_pod_along(cluster: Cluster) -> None:
    script = "trap 'echo terminated; exit 0' TERM; echo ready; while true; do sleep 0.05; done"
    cluster.job({"image": "sh", "args": [script]})
    name = cluster.until(lambda: [pod["metadata"]["name"] for pod in cluster.pods()])[0]
    cluster.until(lambda: "ready" in cluster.kubelet.logs(cluster.namespace, name, "main"))
    cluster.kube.delete(JOBS, "copy", cluster.namespace, propagation="Foreground")
    cluster.until(lambda: cluster.kube.find(JOBS, "copy", cluster.namespace) is None)
    assert cluster.pods() == []
    assert cluster.kubelet.logs(cluster.namespace, name, "main") == "ready\nterminated\n"


def test_a_failed_container_is_started_again_and_keeps_its_volumes(cluster: Cluster) -> None:
    volume = {"name": "data", "mountPath": "/var/etcd/data"}
    again = "cd /var/etcd/data; echo x >> starts; test $(wc -l < starts) = 3"
    container = {"image": "sh", "args": [again], "volumeMounts": [volume]}
    cluster.pod(container, restartPolicy="OnFailure", volumes=[{"name": "data", "emptyDir": {}}])
    assert cluster.ended()["exitCode"] == 0
    assert cluster.container()["restartCount"] == 2
    assert cluster.phase() == "Succeeded"


def test_a_killed_container_comes_back(cluster: Cluster) -> None:
    cluster.pod({"image": "sh", "args": ["sleep 1000"]}, restartPolicy="Always")
    cluster.until(cluster.runs)
    cluster.kubelet.kill_pod(cluster.namespace, "one", "main")
    cluster.until(lambda: cluster.container()["restartCount"] == 1 and cluster.runs())
    assert cluster.container()["lastState"]["terminated"]["exitCode"] == 137


def test_deletion_ends_the_process_with_sigterm(cluster: Cluster) -> None:
    script = "trap 'echo terminated; exit 0' TERM; echo ready; while true; do sleep 0.05; done"
    cluster.pod({"image": "sh", "args": [script]})
    cluster.until(lambda: "ready" in cluster.kubelet.logs(cluster.namespace, "one", "main"))
    cluster.kube.delete(PODS, "one", cluster.namespace)
    cluster.until(lambda: cluster.kube.find(PODS, "one", cluster.namespace) is None)
    assert cluster.kubelet.logs(cluster.namespace, "one", "main") == "ready\nterminated\n"


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace_period(cluster: Cluster) -> None:
    script = "trap '' TERM; echo ready; while true; do sleep 0.05; done"
    cluster.pod({"image": "sh", "args": [script]}, terminationGracePeriodSeconds=1)
    cluster.until(lambda: "ready" in cluster.kubelet.logs(cluster.namespace, "one", "main"))
    cluster.kube.delete(PODS, "one", cluster.namespace)
    cluster.until(lambda: cluster.kube.find(PODS, "one", cluster.namespace) is None)
    with pytest.raises(KeyError):
        cluster.kubelet.kill_pod(cluster.namespace, "one", "main")


def test_a_pod_is_ready_when_its_probe_says_so(cluster: Cluster, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    server = textwrap.dedent(
        f"""
        import http.server, os
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if os.path.exists("/gate/open") else 503)
                self.end_headers()
        http.server.HTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
        """
    )
    probe = {"httpGet": {"path": "/readyz", "port": port}, "periodSeconds": 1, "failureThreshold": 1}
    gate = {"name": "gate", "mountPath": "/gate"}
    volumes = [{"name": "gate", "hostPath": {"path": str(tmp_path)}}]
    cluster.pod({"image": "python", "args": [server], "readinessProbe": probe, "volumeMounts": [gate]}, volumes=volumes)
    cluster.until(lambda: " 503 " in cluster.kubelet.logs(cluster.namespace, "one", "main"))
    assert cluster.container()["ready"] is False
    (tmp_path / "open").touch()
    cluster.until(lambda: cluster.container()["ready"])
    conditions = cluster.kube.get(PODS, "one", cluster.namespace)["status"]["conditions"]
    assert {"Ready": "True"}.items() <= {each["type"]: each["status"] for each in conditions}.items()
    (tmp_path / "open").unlink()
    cluster.until(lambda: not cluster.container()["ready"])


def test_a_service_account_may_do_what_rbac_allows_and_no_more(cluster: Cluster) -> None:
    kube, namespace = cluster.kube, cluster.namespace
    kube.create(SERVICE_ACCOUNTS, SERVICE_ACCOUNTS.stub("reader", namespace))
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]
    kube.create(ROLES, ROLES.stub("reader", namespace) | {"rules": rules})
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    kube.create(ROLE_BINDINGS, ROLE_BINDINGS.stub("reader", namespace) | {"subjects": [subject], "roleRef": role})
    kube.create(CONFIG_MAPS, CONFIG_MAPS.stub("facts", namespace) | {"data": {"answer": "42"}})
    program = textwrap.dedent(
        f"""
        from backupagent.errors import KubeForbidden
        from backupagent.kube.client import KubeClient
        from backupagent.kube.resources import CONFIG_MAPS, SECRETS
        with KubeClient.open() as kube:
            print(kube.get(CONFIG_MAPS, "facts", "{namespace}")["data"]["answer"])
            try:
                kube.list(SECRETS, "{namespace}")
            except KubeForbidden:
                print("forbidden")
        """
    )
    cluster.pod({"image": "python", "args": [program]}, serviceAccountName="reader")
    assert cluster.ended()["exitCode"] == 0, cluster.kubelet.logs(namespace, "one", "main")
    assert cluster.kubelet.logs(namespace, "one", "main") == "42\nforbidden\n"


def test_a_pod_waits_for_a_secret_that_comes_later(cluster: Cluster) -> None:
    volumes = [{"name": "late", "secret": {"secretName": "late"}}]
    mounts = [{"name": "late", "mountPath": "/late"}]
    cluster.pod({"image": "sh", "args": ["cat /late/word"], "volumeMounts": mounts}, volumes=volumes)
    cluster.until(lambda: "late" in cluster.container()["state"].get("waiting", {}).get("message", ""))
    assert cluster.phase() == "Pending"
    cluster.kube.create(SECRETS, SECRETS.stub("late", cluster.namespace) | {"stringData": {"word": "here"}})
    assert cluster.ended()["exitCode"] == 0
    assert cluster.kubelet.logs(cluster.namespace, "one", "main") == "here"


def test_what_cannot_be_run_says_why_and_can_be_deleted(cluster: Cluster) -> None:
    cluster.pod({"image": "sh", "args": ["true"]}, initContainers=[{"name": "first", "image": "sh"}])
    cluster.pod({"image": "registry.example/unknown:1"}, name="two")

    def reason(name: str) -> str:
        return cluster.container(name)["state"].get("waiting", {}).get("reason", "")

    cluster.until(lambda: reason("one") == "CreateContainerConfigError")
    assert cluster.container("one")["state"]["waiting"]["message"] == "not emulated: initContainers"
    cluster.until(lambda: reason("two") == "ErrImagePull")
    for name in ("one", "two"):
        cluster.kube.delete(PODS, name, cluster.namespace)
    cluster.until(lambda: cluster.pods() == [])


def test_a_namespace_goes_with_its_running_pods(cluster: Cluster) -> None:
    cluster.pod({"image": "sh", "args": ["sleep 1000"]}, terminationGracePeriodSeconds=1)
    cluster.until(cluster.runs)
    cluster.kube.delete(NAMESPACES, cluster.namespace)
    cluster.until(lambda: cluster.kube.find(NAMESPACES, cluster.namespace) is None)


def sleeper(folder: Path) -> dict:
    """Return a Pod that writes into the FIFO ``life`` and keeps it open, in each of its processes, while it runs."""
    script = "exec 3> /volume/life; echo ready >&3; sleep 1000"
    mounts = [{"name": "volume", "mountPath": "/volume"}]
    return {
        "containers": [{"name": "main", "image": "sh", "args": [script], "volumeMounts": mounts}],
        "volumes": [{"name": "volume", "hostPath": {"path": str(folder)}}],
    }


def test_nothing_runs_after_stop_and_the_next_kubelet_takes_over(lonely: KubeApiServer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "life")
    with lonely.client() as kube:
        one = Cluster(kube, new_kubelet(kube, lonely, tmp_path / "first"), "stopped")
        kube.create(NAMESPACES, NAMESPACES.stub("stopped"))
        kube.create(PODS, PODS.stub("one", "stopped") | {"spec": sleeper(tmp_path)})
        one.kubelet.start()
        with (tmp_path / "life").open() as life:
            assert life.readline() == "ready\n"
            one.until(one.runs)
            one.kubelet.stop()
            assert life.read() == ""  # the end of the file: nobody holds it open any more
        assert one.phase() == "Running"  # as after a power cut, nobody knows better
        kube.delete(PODS, "one", "stopped")
        assert "deletionTimestamp" in kube.get(PODS, "one", "stopped")["metadata"]
        with new_kubelet(kube, lonely, tmp_path / "second"):
            one.until(lambda: kube.find(PODS, "one", "stopped") is None)


def test_a_pod_outlives_an_outage_of_the_api_server(lonely: KubeApiServer, tmp_path: Path) -> None:
    with lonely.client() as kube, new_kubelet(kube, lonely, tmp_path) as kubelet:
        one = Cluster(kube, kubelet, "outage")
        kube.create(NAMESPACES, NAMESPACES.stub("outage"))
        waits = "echo ready; until test -e /gate/open; do sleep 0.05; done; echo done"
        mounts = [{"name": "gate", "mountPath": "/gate"}]
        volumes = [{"name": "gate", "hostPath": {"path": str(tmp_path)}}]
        one.pod({"image": "sh", "args": [waits], "volumeMounts": mounts}, volumes=volumes)
        one.until(one.runs)
        lonely.stop()
        (tmp_path / "open").touch()
        one.until(lambda: "done" in kubelet.logs("outage", "one", "main"))
        lonely.start()
        assert one.ended()["exitCode"] == 0
        kube.delete(PODS, "one", "outage")
        one.until(lambda: kube.find(PODS, "one", "outage") is None)
