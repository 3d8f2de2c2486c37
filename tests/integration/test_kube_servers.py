"""The Kubernetes that other tests rely on: it serves with TLS and RBAC, runs controllers, and keeps its state."""

import json
import ssl
import stat
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backupagent.cancel import Cancel
from backupagent.errors import KubeForbidden, KubeNotFound
from backupagent.kube.client import KubeClient
from backupagent.kube.resources import (
    CONFIG_MAPS,
    JOBS,
    NAMESPACES,
    PODS,
    SERVICE_ACCOUNTS,
    Document,
    Resource,
)
from backupagent.testing.kube_servers import KubeApiServer, KubeControllerManager
from backupagent.testing.servers import EtcdServer

pytestmark = pytest.mark.servers
Find = Callable[[str], Path]
WITHIN_S = 60


@pytest.fixture(scope="module")
def api(server_binary: Find) -> Iterator[KubeApiServer]:
    server_binary("kube-apiserver")
    server_binary("etcd")
    with KubeApiServer() as server:
        yield server


@pytest.fixture(scope="module")
def controllers(api: KubeApiServer, server_binary: Find) -> Iterator[KubeControllerManager]:
    server_binary("kube-controller-manager")
    with KubeControllerManager(api) as server:
        yield server


@pytest.fixture
def kube(api: KubeApiServer) -> Iterator[KubeClient]:
    with api.client() as client:
        yield client


def eventually(look: Callable[[], Any]) -> Any:
    """Return the first true answer."""
    cancel = Cancel()
    for _ in range(WITHIN_S * 10):
        answer = look()
        if answer:
            return answer
        cancel.wait(0.1)
    raise AssertionError(f"nothing within {WITHIN_S} s")


def pod_template() -> dict[str, Any]:
    return {"spec": {"restartPolicy": "Never", "containers": [{"name": "work", "image": "none"}]}}


def of_namespace(resource: Resource, name: str, namespace: str, **parts: Any) -> Document:
    return resource.stub(name, namespace) | parts


def test_a_job_gets_a_pod_and_takes_it_along_when_it_is_deleted(
    kube: KubeClient, controllers: KubeControllerManager
) -> None:
    kube.create(NAMESPACES, NAMESPACES.stub("with-job"))
    kube.create(JOBS, of_namespace(JOBS, "copy", "with-job", spec={"template": pod_template()}))
    pod = eventually(lambda: kube.list(PODS, "with-job"))[0]
    assert pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "copy"
    kube.delete(JOBS, "copy", "with-job", propagation="Foreground")
    eventually(lambda: kube.find(JOBS, "copy", "with-job") is None)
    assert kube.list(PODS, "with-job") == []


def test_the_deletion_of_a_namespace_ends_and_takes_what_is_in_it(
    kube: KubeClient, controllers: KubeControllerManager
) -> None:
    kube.create(NAMESPACES, NAMESPACES.stub("doomed"))
    kube.create(CONFIG_MAPS, CONFIG_MAPS.stub("content", "doomed"))
    kube.delete(NAMESPACES, "doomed")
    eventually(lambda: kube.find(NAMESPACES, "doomed") is None)
    assert kube.find(CONFIG_MAPS, "content", "doomed") is None


def test_a_namespace_gets_its_default_service_account(kube: KubeClient, controllers: KubeControllerManager) -> None:
    kube.create(NAMESPACES, NAMESPACES.stub("with-account"))
    eventually(lambda: kube.find(SERVICE_ACCOUNTS, "default", "with-account"))


def test_a_pod_needs_no_service_account(kube: KubeClient) -> None:
    pod = kube.create(PODS, of_namespace(PODS, "plain", "default", **pod_template()))
    assert "serviceAccountName" not in pod["spec"]


def test_a_service_account_without_a_role_is_known_and_refused(
    api: KubeApiServer, kube: KubeClient, tmp_path: Path
) -> None:
    kube.create(SERVICE_ACCOUNTS, SERVICE_ACCOUNTS.stub("nobody", "default"))
    token = api.token_for("default", "nobody")
    with KubeClient.open(api.kubeconfig(tmp_path, token=token)) as nobody, pytest.raises(KubeForbidden) as caught:
        nobody.list(CONFIG_MAPS, "default")
    assert "system:serviceaccount:default:nobody" in caught.value.message


def test_there_is_no_token_for_an_account_that_is_not_there(api: KubeApiServer) -> None:
    with pytest.raises(KubeNotFound):
        api.token_for("default", "ghost")


def test_who_has_no_token_is_not_served(api: KubeApiServer) -> None:
    trusted = ssl.create_default_context(cafile=api.ca_file)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{api.url}/api", context=trusted)


def test_its_certificate_is_trusted_through_its_own_ca_alone(api: KubeApiServer) -> None:
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(f"{api.url}/api")


def test_tokens_are_readable_by_this_user_alone(api: KubeApiServer, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("before")
    path.chmod(0o644)
    assert api.kubeconfig(path, token="t0", server="https://127.0.0.1:1") == path
    written = json.loads(path.read_text())
    assert written["users"][0]["user"]["token"] == "t0"
    assert written["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"
    private = [path, *(file for file in api.scratch.rglob("*") if file.suffix in {".csv", ".key"})]
    assert len(private) == 3
    assert [stat.S_IMODE(file.stat().st_mode) for file in private] == [0o600] * 3


def test_a_restart_keeps_address_objects_and_tokens(api: KubeApiServer, kube: KubeClient, tmp_path: Path) -> None:
    kube.create(SERVICE_ACCOUNTS, SERVICE_ACCOUNTS.stub("stays", "default"))
    before = api.url, api.ca_file.read_bytes()
    token = api.token_for("default", "stays")
    api.restart()
    assert (api.url, api.ca_file.read_bytes()) == before
    assert kube.get(SERVICE_ACCOUNTS, "stays", "default")["metadata"]["name"] == "stays"
    with KubeClient.open(api.kubeconfig(tmp_path, token=token)) as stays, pytest.raises(KubeForbidden, match="stays"):
        stays.list(CONFIG_MAPS, "default")


def test_a_given_etcd_outlives_the_api_server(server_binary: Find) -> None:
    server_binary("kube-apiserver")
    with EtcdServer(server_binary("etcd")) as etcd:
        with KubeApiServer(etcd) as server:
            assert server.is_ready()
        assert not server.is_running
        assert etcd.is_ready()
        assert not server.scratch.exists()


def test_its_own_etcd_ends_with_it(server_binary: Find) -> None:
    server_binary("kube-apiserver")
    server_binary("etcd")
    with KubeApiServer() as server:
        etcd = server.etcd
    assert not etcd.is_running
    assert not etcd.scratch.exists()


def test_another_server_on_its_port_is_not_taken_for_it(api: KubeApiServer) -> None:
    other = KubeApiServer(api.etcd, port=api.port("https"))
    try:
        assert not other.is_ready()
    finally:
        other.close()


def test_a_controller_manager_is_ready_when_its_controllers_run(controllers: KubeControllerManager) -> None:
    assert controllers.is_ready()
    controllers.kill()
    assert not controllers.is_ready()
    controllers.start()
    assert controllers.is_ready()
