"""The client against a real API server: every call, every refusal, and what a token file is for."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK
from backupagent.errors import (
    KubeConflict,
    KubeForbidden,
    KubeInvalid,
    KubeNotFound,
    KubeUnavailable,
)
from backupagent.kube import manifests, selection
from backupagent.kube.client import KubeClient
from backupagent.kube.connection import Connection
from backupagent.kube.resources import (
    BACKUP_ENTRIES,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    EVENTS,
    LEASES,
    NAMESPACES,
    PODS,
    SEEDS,
    SERVICE_ACCOUNTS,
    SHOOTS,
    Document,
    Resource,
)
from backupagent.kube.selection import Selection
from backupagent.testing.kube_servers import KubeApiServer

pytestmark = pytest.mark.servers
WITHIN_S = 60


@pytest.fixture(scope="module")
def api(server_binary: Callable[[str], Path]) -> Iterator[KubeApiServer]:
    server_binary("kube-apiserver")
    server_binary("etcd")
    with KubeApiServer() as server, server.client() as kube:
        kube.create(CUSTOM_RESOURCE_DEFINITIONS, definition(BACKUP_ENTRIES))
        kube.create(SERVICE_ACCOUNTS, SERVICE_ACCOUNTS.stub("bob", "default"))
        eventually(lambda: succeeds(lambda: kube.list(BACKUP_ENTRIES)))
        yield server


@pytest.fixture
def kube(api: KubeApiServer) -> Iterator[KubeClient]:
    with api.client() as client:
        yield client


@pytest.fixture
def place(kube: KubeClient, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own."""
    name = request.node.name.replace("_", "-").replace("[", "-").rstrip("]").lower()[:60].rstrip("-")
    kube.create(NAMESPACES, NAMESPACES.stub(name))
    return name


@pytest.fixture
def bob(api: KubeApiServer, tmp_path: Path) -> Iterator[KubeClient]:
    """A caller without any right."""
    with KubeClient.open(api.kubeconfig(tmp_path, token=api.token_for("default", "bob"))) as client:
        yield client


def definition(resource: Resource) -> Document:
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": {"bucketName": {"type": "string", "minLength": 1}}},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    version = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    return CUSTOM_RESOURCE_DEFINITIONS.stub(f"{resource.plural}.{resource.group}") | {
        "spec": {
            "group": resource.group,
            "scope": "Namespaced",
            "names": {"plural": resource.plural, "kind": resource.kind, "singular": resource.kind.lower()},
            "versions": [version],
        }
    }


def eventually(look: Callable[[], Any]) -> Any:
    cancel = Cancel()
    for _ in range(WITHIN_S * 10):
        answer = look()
        if answer:
            return answer
        cancel.wait(0.1)
    raise AssertionError(f"nothing within {WITHIN_S} s")


def succeeds(call: Callable[[], object]) -> bool:
    try:
        call()
    except KubeNotFound:
        return False
    return True


def entry(name: str, namespace: str, bucket: str = "b") -> dict[str, Any]:
    return BACKUP_ENTRIES.stub(name, namespace) | {"spec": {"bucketName": bucket}}


def names(documents: list[Document]) -> list[str]:
    return [document["metadata"]["name"] for document in documents]


def test_a_custom_object_is_made_read_changed_and_removed(kube: KubeClient, place: str) -> None:
    made = kube.create(BACKUP_ENTRIES, entry("one", place))
    assert isinstance(made, dict)
    assert kube.get(BACKUP_ENTRIES, "one", place) == made
    kube.patch(BACKUP_ENTRIES, "one", place, {"status": {"seedName": "seed-a"}}, subresource="status")
    changed = dict(kube.get(BACKUP_ENTRIES, "one", place))
    assert (changed["spec"], changed["status"]) == ({"bucketName": "b"}, {"seedName": "seed-a"})
    kube.replace(BACKUP_ENTRIES, changed | {"spec": {"bucketName": "c"}, "status": {"seedName": "ignored"}})
    replaced = kube.get(BACKUP_ENTRIES, "one", place)
    assert (replaced["spec"], replaced["status"]) == ({"bucketName": "c"}, {"seedName": "seed-a"})
    kube.delete(BACKUP_ENTRIES, "one", place)
    assert kube.find(BACKUP_ENTRIES, "one", place) is None
    kube.delete(BACKUP_ENTRIES, "one", place)


def test_a_pod_is_bound_through_its_subresource(kube: KubeClient, place: str) -> None:
    containers = [{"name": "a", "image": "none"}]
    kube.create(PODS, PODS.stub("p", place) | {"spec": {"containers": containers}})
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p", "namespace": place}}
    kube.create(PODS, binding | {"target": {"kind": "Node", "name": "here"}}, subresource="binding", parent="p")
    assert kube.get(PODS, "p", place)["spec"]["nodeName"] == "here"


def test_a_listing_goes_through_all_pages_and_tells_kinds(
    api: KubeApiServer, kube: KubeClient, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "PAGE", 3)
    for number in range(8):
        kube.create(CONFIG_MAPS, CONFIG_MAPS.stub(f"m{number}", place))
    connection = Connection.open(api.kubeconfig(api.scratch))
    asked: list[dict[str, str]] = []
    ask = connection.ask

    def recorded(*arguments: Any, parameters: dict[str, str], **options: Any) -> dict[str, Any]:
        asked.append(parameters)
        return ask(*arguments, parameters=parameters, **options)

    monkeypatch.setattr(connection, "ask", recorded)
    documents, version = Selection(connection, CONFIG_MAPS, place, {}).listed()
    connection.close()
    assert names(documents) == [f"m{number}" for number in range(8)]
    assert {(document["apiVersion"], document["kind"]) for document in documents} == {("v1", "ConfigMap")}
    assert ["continue" in parameters for parameters in asked] == [False, True, True]
    assert int(version) > 0


def test_labels_fields_and_namespaces_choose(kube: KubeClient, place: str) -> None:
    for name, label in (("a", "yes"), ("b", "yes"), ("c", "no")):
        kube.create(CONFIG_MAPS, manifests.config_map(name, place, {}, labels={"mine": label, "of": place}))
    assert names(kube.list(CONFIG_MAPS, place, labels={"mine": "yes"})) == ["a", "b"]
    assert names(kube.list(CONFIG_MAPS, labels={"mine": "yes", "of": place})) == ["a", "b"]
    assert names(kube.list(CONFIG_MAPS, place, fields={"metadata.name": "c"})) == ["c"]
    assert kube.list(CONFIG_MAPS, "elsewhere", labels={"of": place}) == []


def test_applying_makes_changes_and_takes_back(kube: KubeClient, place: str) -> None:
    kube.apply(CONFIG_MAPS, manifests.config_map("report", place, {"a": "1", "b": "1"}))
    kube.patch(CONFIG_MAPS, "report", place, {"data": {"foreign": "kept"}})
    kube.apply(CONFIG_MAPS, manifests.config_map("report", place, {"a": "2"}))
    assert kube.get(CONFIG_MAPS, "report", place)["data"] == {"a": "2", "foreign": "kept"}


def test_applying_the_same_again_changes_nothing(kube: KubeClient, place: str) -> None:
    document = manifests.config_map("report", place, {"a": "1"})
    assert kube.apply(CONFIG_MAPS, document) == kube.apply(CONFIG_MAPS, document)


def test_what_was_read_before_it_changed_is_not_written(kube: KubeClient, place: str) -> None:
    stale = kube.create(LEASES, LEASES.stub("l", place))
    kube.patch(LEASES, "l", place, manifests.lease_patch(holder="1"))
    version = stale["metadata"]["resourceVersion"]
    with pytest.raises(KubeConflict, match=f"patch leases {place}/l"):
        kube.patch(LEASES, "l", place, manifests.lease_patch(holder="2", resource_version=version))
    with pytest.raises(KubeConflict, match=f"update leases {place}/l"):
        kube.replace(LEASES, stale)
    assert kube.get(LEASES, "l", place)["spec"]["holderIdentity"] == "1"


def test_what_exists_is_not_made_again(kube: KubeClient, place: str) -> None:
    kube.create(CONFIG_MAPS, CONFIG_MAPS.stub("a", place))
    with pytest.raises(KubeConflict, match="already exists"):
        kube.create(CONFIG_MAPS, CONFIG_MAPS.stub("a", place))


def test_validation_refuses(kube: KubeClient, place: str) -> None:
    with pytest.raises(KubeInvalid, match=r"spec\.bucketName"):
        kube.create(BACKUP_ENTRIES, entry("bad", place, bucket=""))
    with pytest.raises(KubeInvalid):
        kube.list(CONFIG_MAPS, place, labels={"not a label": "x"})


def test_admission_refuses_and_no_role_would_help(kube: KubeClient, place: str) -> None:
    kube.create(CONFIG_MAPS, CONFIG_MAPS.stub("keeps", place))
    kube.delete(NAMESPACES, place)  # nobody is there to finish it
    with pytest.raises(KubeInvalid, match="being terminated"):
        kube.create(CONFIG_MAPS, CONFIG_MAPS.stub("late", place))


def test_what_is_missing_is_told(kube: KubeClient, place: str) -> None:
    with pytest.raises(KubeNotFound, match=f'get configmaps {place}/gone: configmaps "gone" not found'):
        kube.get(CONFIG_MAPS, "gone", place)
    with pytest.raises(KubeNotFound):
        kube.patch(CONFIG_MAPS, "gone", place, {"data": {}})


def test_a_kind_that_the_server_does_not_have_is_told(kube: KubeClient) -> None:
    with pytest.raises(KubeNotFound) as caught:
        kube.list(SHOOTS)
    assert "no shoots of core.gardener.cloud/v1beta1" in caught.value.hint


BINDING = SHOOTS.stub("demo", "garden-dev")
IN_PROJECT = "in namespace garden-dev"
EVERYWHERE = "for the whole cluster"


@pytest.mark.parametrize(
    ("call", "group", "resource", "verb", "where"),
    [
        (lambda kube: kube.get(SHOOTS, "a", "garden-dev"), SHOOTS.group, "shoots", "get", IN_PROJECT),
        (
            lambda kube: kube.replace(SHOOTS, BINDING, subresource="binding"),
            SHOOTS.group,
            "shoots/binding",
            "update",
            IN_PROJECT,
        ),
        (lambda kube: kube.apply(LEASES, LEASES.stub("r", "garden-dev")), LEASES.group, "leases", "patch", IN_PROJECT),
        (lambda kube: kube.create(PODS, PODS.stub("p", "garden-dev")), "", "pods", "create", IN_PROJECT),
        (lambda kube: kube.list(SEEDS), SEEDS.group, "seeds", "list", EVERYWHERE),
        (lambda kube: list(kube.watch(SHOOTS, cancel=Cancel())), SHOOTS.group, "shoots", "list", EVERYWHERE),
        (lambda kube: kube.delete(SEEDS, "s"), SEEDS.group, "seeds", "delete", EVERYWHERE),
    ],
)
def test_the_rule_that_is_missing_is_named(
    bob: KubeClient, call: Callable[[KubeClient], Any], group: str, resource: str, verb: str, where: str
) -> None:
    with pytest.raises(KubeForbidden) as caught:
        call(bob)
    rule = f'apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"] {where}'
    assert caught.value.hint == f"ask for a role with the rule that is missing: {rule}"


def test_a_role_with_the_named_rule_helps(kube: KubeClient, bob: KubeClient, place: str) -> None:
    with pytest.raises(KubeForbidden):
        bob.list(CONFIG_MAPS, place)
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    kube.create(CLUSTER_ROLES, CLUSTER_ROLES.stub("lister") | {"rules": rules})
    role = {"apiGroup": CLUSTER_ROLES.group, "kind": CLUSTER_ROLES.kind, "name": "lister"}
    subjects = [{"kind": "ServiceAccount", "name": "bob", "namespace": "default"}]
    binding = CLUSTER_ROLE_BINDINGS.stub("lister") | {"roleRef": role, "subjects": subjects}
    kube.create(CLUSTER_ROLE_BINDINGS, binding)
    eventually(lambda: allowed(lambda: bob.list(CONFIG_MAPS, place)))


def allowed(call: Callable[[], object]) -> bool:
    try:
        call()
    except KubeForbidden:
        return False
    return True


def test_unknown_credentials_are_told_without_showing_them(api: KubeApiServer, tmp_path: Path) -> None:
    with KubeClient.open(api.kubeconfig(tmp_path, token="s3cr3t")) as stranger, pytest.raises(KubeForbidden) as caught:
        stranger.list(CONFIG_MAPS)
    assert "no longer valid" in caught.value.hint
    assert "s3cr3t" not in f"{caught.value}{caught.value.hint}{stranger!r}"


def test_a_rotated_token_file_is_read_again(api: KubeApiServer, tmp_path: Path) -> None:
    config = api.kubeconfig(tmp_path)
    document = json.loads(config.read_text())
    document["users"][0]["user"] = {"tokenFile": "token"}
    config.write_text(json.dumps(document))
    (tmp_path / "token").write_text("expired\n")
    with KubeClient.open(config) as kube:
        with pytest.raises(KubeForbidden):
            kube.list(NAMESPACES)
        (tmp_path / "token").write_text(f"{api.admin_token}\n")
        assert "default" in names(kube.list(NAMESPACES))


def test_a_server_that_is_not_there_is_unavailable(api: KubeApiServer, tmp_path: Path) -> None:
    nobody = api.kubeconfig(tmp_path, server="https://127.0.0.1:1")
    with KubeClient.open(nobody) as kube, pytest.raises(KubeUnavailable, match="list namespaces: "):
        kube.list(NAMESPACES)


def test_no_proxy_stands_before_this_machine(api: KubeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with api.client() as kube:
        assert "default" in names(kube.list(NAMESPACES))


def test_another_ca_is_told(api: KubeApiServer, tmp_path: Path, server_binary: Callable[[str], Path]) -> None:
    other = KubeApiServer(api.etcd)
    with other:
        config = json.loads(api.kubeconfig(tmp_path).read_text())
        foreign = base64.b64encode(other.ca_file.read_bytes()).decode()
    config["clusters"][0]["cluster"]["certificate-authority-data"] = foreign
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    with KubeClient.open(tmp_path / "kubeconfig") as kube, pytest.raises(KubeUnavailable) as caught:
        kube.list(NAMESPACES)
    assert caught.value.hint == "the certificate-authority in the kubeconfig is not that of this API server"


def test_an_event_told_again_is_counted(kube: KubeClient, place: str) -> None:
    about = kube.create(CONFIG_MAPS, CONFIG_MAPS.stub("thing", place))

    def tell() -> Document:
        at = SYSTEM_CLOCK.now()
        told = manifests.event(about, reason="Copied", message="x" * 2000, at=at, component="test")
        earlier = kube.find(EVENTS, told["metadata"]["name"], place)
        return kube.apply(
            EVENTS,
            manifests.event(about, reason="Copied", message="x" * 2000, at=at, component="test", earlier=earlier),
        )

    assert [tell()["count"], tell()["count"]] == [1, 2]
    [event] = kube.list(EVENTS, place, fields={"involvedObject.name": "thing"})
    assert (event["reason"], event["type"], event["involvedObject"]["uid"]) == (
        "Copied",
        "Normal",
        about["metadata"]["uid"],
    )


def test_a_lease_takes_what_a_patch_says_and_keeps_the_rest(kube: KubeClient, place: str) -> None:
    kube.create(LEASES, LEASES.stub("member", place))
    now = SYSTEM_CLOCK.now()
    kube.patch(LEASES, "member", place, manifests.lease_patch(holder="1f:Leader", annotations={"a": "1", "b": "2"}))
    kube.patch(LEASES, "member", place, manifests.lease_patch(renewed=now, annotations={"b": None}))
    lease = kube.get(LEASES, "member", place)
    assert lease["spec"] == {"holderIdentity": "1f:Leader", "renewTime": manifests.micro_timestamp(now)}
    assert lease["metadata"]["annotations"] == {"a": "1"}
