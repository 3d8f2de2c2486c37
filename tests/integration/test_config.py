"""config/ is accepted by a real API server, and its roles hold what is used and nothing else."""

import http.client
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from garden import CONFIG, KINDS, Garden, ensure_namespace, install, manifests

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK
from backupagent.controller.run import run_controller
from backupagent.errors import KubeForbidden
from backupagent.kube.client import KubeClient
from backupagent.kube.resources import (
    BACKUP_ENTRIES,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    SEEDS,
    SERVICE_ACCOUNTS,
    SHOOTS,
    Resource,
)
from backupagent.settings import ControllerSettings
from backupagent.testing import crds
from backupagent.testing.kube_servers import KubeApiServer

pytestmark = pytest.mark.servers

FILES = sorted(path for path in CONFIG.rglob("*.yaml") if path.name != "kustomization.yaml")
REVIEWS = Resource("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False)

GARDEN = "garden"
CONTROLLER = "system:serviceaccount:garden:backupagent-controller"
WITHIN_S = 60.0
LOOK_S = 0.2


@pytest.fixture(scope="module")
def audit_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the API server writes about the controller's requests."""
    return tmp_path_factory.mktemp("audit") / "audit.log"


@pytest.fixture(scope="module")
def api(server_binary: Callable[[str], Path], audit_log: Path) -> Iterator[KubeApiServer]:
    for name in ("kube-apiserver", "etcd"):
        server_binary(name)
    policy = audit_log.with_name("policy.json")
    rules = [{"level": "Metadata", "users": [CONTROLLER]}, {"level": "None"}]
    policy.write_text(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}))
    with KubeApiServer(extra_args=(f"--audit-policy-file={policy}", f"--audit-log-path={audit_log}")) as server:
        yield server


@pytest.fixture(scope="module")
def kube(api: KubeApiServer) -> Iterator[KubeClient]:
    with api.client() as client:
        crds.install(client)
        ensure_namespace(client, GARDEN)
        install(client, "rbac/garden.yaml", "rbac/operator.yaml", "sidecar/rbac.yaml")
        yield client


def dry_run(api: KubeApiServer, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Post a document; unknown and doubled fields are errors, nothing is kept."""
    resource = KINDS[document["kind"]]
    group = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
    place = f"/namespaces/{document['metadata']['namespace']}" if resource.namespaced else ""
    path = f"{group}{place}/{resource.plural}?dryRun=All&fieldValidation=Strict"
    context = ssl.create_default_context(cafile=api.ca_file)
    connection = http.client.HTTPSConnection(api.host, api.port("https"), context=context, timeout=10)
    headers = {"Authorization": f"Bearer {api.admin_token}", "Content-Type": "application/json"}
    try:
        connection.request("POST", path, json.dumps(document), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIG)))
def test_every_manifest_is_accepted(api: KubeApiServer, kube: KubeClient, path: Path) -> None:
    documents = manifests(path)
    assert documents
    for document in documents:
        document["metadata"]["name"] = f"x-{document['metadata']['name']}"  # what the roles are about exists already
        if document["kind"].endswith("Binding"):
            document["roleRef"]["name"] = f"x-{document['roleRef']['name']}"
        status, answer = dry_run(api, document)
        assert status == 201, answer.get("message")


def test_a_wrong_manifest_would_not_be_accepted(api: KubeApiServer, kube: KubeClient) -> None:
    (document,) = manifests(CONFIG / "controller" / "deployment.yaml")
    document["spec"]["template"]["spec"]["containers"][0]["securityContex"] = {}
    status, answer = dry_run(api, document)
    assert (status, "unknown field" in answer["message"]) == (400, True)


# ---- rights


def granted(*names: str) -> set[tuple[str, str, str]]:
    """Return group, resource and verb of every right in files of config/."""
    return {
        (group, resource, verb)
        for name in names
        for document in manifests(CONFIG / name)
        if document["kind"] in {"ClusterRole", "Role"}
        for rule in document["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used(audit_log: Path) -> set[tuple[str, str, str]]:
    """Return group, resource and verb of every request of the controller, which all must have been allowed."""
    found = set()
    whole, _newline, _being_written = audit_log.read_text().rpartition("\n")
    for line in whole.splitlines():
        entry = json.loads(line)
        about = entry["objectRef"]
        assert entry.get("responseStatus", {}).get("code") != HTTPStatus.FORBIDDEN, line
        found.add((about.get("apiGroup", ""), about["resource"], entry["verb"]))
    return found


def test_the_controller_uses_every_right_and_needs_no_other(
    api: KubeApiServer, kube: KubeClient, audit_log: Path, tmp_path: Path
) -> None:
    install(kube, "rbac/seed.yaml")
    requested, restoring = Garden(kube), Garden(kube)
    kube.patch(SHOOTS, "demo", requested.namespace, {"spec": {"seedName": requested.destination}})
    kube.patch(SHOOTS, "demo", restoring.namespace, {"spec": {"seedName": restoring.destination}})
    restoring.status(restoring.destination, "Restore", "Processing", 5)
    bucket = kube.get(SEEDS, restoring.source)["metadata"]["uid"]
    entry = BACKUP_ENTRIES.stub("shoot--dev--demo--u1", restoring.namespace)
    kube.create(BACKUP_ENTRIES, entry | {"spec": {"bucketName": bucket, "seedName": restoring.destination}})

    token = api.token_for(GARDEN, "backupagent-controller")
    settings = ControllerSettings(kubeconfig=api.kubeconfig(tmp_path, token=token), port=0, poll=0.2)
    # A server-side apply of something new is a patch that asks for the right to create as well; see the next test.
    expected = granted("rbac/garden.yaml", "rbac/seed.yaml") - {("", "configmaps", "create")}
    cancel = Cancel()
    thread = threading.Thread(target=run_controller, args=(settings, cancel))
    thread.start()
    try:
        deadline = SYSTEM_CLOCK.monotonic_s() + WITHIN_S
        while not expected <= used(audit_log) and SYSTEM_CLOCK.monotonic_s() < deadline:
            Cancel().wait(LOOK_S)
    finally:
        cancel.set("the end of the test")
        thread.join()
    assert used(audit_log) == expected


def test_a_report_can_only_be_made_with_the_right_to_create(
    api: KubeApiServer, kube: KubeClient, tmp_path: Path
) -> None:
    ensure_namespace(kube, "narrow")
    kube.create(SERVICE_ACCOUNTS, SERVICE_ACCOUNTS.stub("narrow", "narrow"))
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch"]}
    kube.create(CLUSTER_ROLES, CLUSTER_ROLES.stub("narrow") | {"rules": [rule]})
    reference = {"apiGroup": CLUSTER_ROLES.group, "kind": "ClusterRole", "name": "narrow"}
    subject = {"kind": "ServiceAccount", "name": "narrow", "namespace": "narrow"}
    binding = CLUSTER_ROLE_BINDINGS.stub("narrow") | {"roleRef": reference, "subjects": [subject]}
    kube.create(CLUSTER_ROLE_BINDINGS, binding)
    kubeconfig = api.kubeconfig(tmp_path, token=api.token_for("narrow", "narrow"))
    with (
        KubeClient.open(kubeconfig) as client,
        pytest.raises(KubeForbidden, match='cannot create resource "configmaps"'),
    ):
        client.apply(CONFIG_MAPS, CONFIG_MAPS.stub("report", "narrow"))


def may(kube: KubeClient, user: str, verb: str, resource: str, namespace: str, name: str = "") -> bool:
    """Ask the API server's authorizer; ``resource`` is ``plural[/subresource][.group]``."""
    plural, _dot, group = resource.partition(".")
    plural, _slash, subresource = plural.partition("/")
    asked = {
        "verb": verb,
        "group": group,
        "resource": plural,
        "subresource": subresource,
        "namespace": namespace,
        "name": name,
    }
    spec = {"user": user, "groups": ["system:authenticated"], "resourceAttributes": asked}
    answer = kube.create(
        REVIEWS, {"apiVersion": REVIEWS.api_version, "kind": REVIEWS.kind, "metadata": {}, "spec": spec}
    )
    return bool(answer["status"]["allowed"])


@pytest.fixture(scope="module")
def subjects(kube: KubeClient) -> dict[str, str]:
    """Users with the rights of one file each: the controller's accounts of garden and Seed have the same name."""
    users = {}
    for who, name in (("garden", "garden"), ("seed", "seed")):
        for document in manifests(CONFIG / "rbac" / f"{name}.yaml"):
            document["metadata"]["name"] += f"-alone-{who}"
            if document["kind"].endswith("Binding"):
                document["roleRef"]["name"] += f"-alone-{who}"
                document["subjects"][0]["name"] += f"-alone-{who}"
            kube.apply(KINDS[document["kind"]], document)
        users[who] = f"{CONTROLLER}-alone-{who}"
    for role in ("backupagent-operator", "backupagent-operator-seeds"):
        reference = {"apiGroup": CLUSTER_ROLES.group, "kind": "ClusterRole", "name": role}
        subject = {"apiGroup": CLUSTER_ROLES.group, "kind": "User", "name": "jane"}
        binding = CLUSTER_ROLE_BINDINGS.stub(f"{role}-jane") | {"roleRef": reference, "subjects": [subject]}
        kube.apply(CLUSTER_ROLE_BINDINGS, binding)
    return users | {"operator": "jane", "sidecar": "system:serviceaccount:default:etcd"}


@pytest.mark.parametrize(
    ("who", "verb", "resource", "namespace", "allowed"),
    [
        ("garden", "watch", "shoots.core.gardener.cloud", "", True),
        ("garden", "get", "secrets", GARDEN, True),
        ("garden", "get", "secrets", "garden-dev", False),
        ("garden", "list", "secrets", GARDEN, False),
        ("garden", "patch", "configmaps", "garden-dev", True),
        ("garden", "delete", "configmaps", "garden-dev", False),
        ("garden", "update", "shoots/binding.core.gardener.cloud", "garden-dev", False),
        ("garden", "update", "shoots.core.gardener.cloud", "garden-dev", False),
        ("garden", "patch", "shoots/status.core.gardener.cloud", "garden-dev", False),
        ("garden", "delete", "backupentries.core.gardener.cloud", "garden-dev", False),
        ("garden", "list", "shootstates.core.gardener.cloud", "garden-dev", False),
        ("garden", "get", "pods", "garden", False),
        ("seed", "get", "deployments.apps", "shoot--dev--demo", True),
        ("seed", "list", "leases.coordination.k8s.io", "shoot--dev--demo", True),
        ("seed", "patch", "leases.coordination.k8s.io", "shoot--dev--demo", False),
        ("seed", "get", "secrets", "shoot--dev--demo", False),
        ("seed", "get", "secrets", GARDEN, False),
        ("seed", "patch", "etcdcopybackupstasks/status.druid.gardener.cloud", "shoot--dev--demo", False),
        ("seed", "create", "jobs.batch", "shoot--dev--demo", False),
        ("operator", "update", "shoots/binding.core.gardener.cloud", "garden-dev", True),
        ("operator", "update", "shoots.core.gardener.cloud", "garden-dev", False),
        ("operator", "patch", "shoots.core.gardener.cloud", "garden-dev", False),
        ("operator", "update", "seeds.core.gardener.cloud", "", False),
        ("operator", "get", "secrets", GARDEN, False),
        ("operator", "create", "configmaps", "garden-dev", False),
        ("operator", "delete", "events", "garden-dev", False),
        ("sidecar", "get", "secrets", "default", False),
        ("sidecar", "list", "leases.coordination.k8s.io", "default", False),
    ],
)
def test_who_may_do_what(
    kube: KubeClient, subjects: dict[str, str], who: str, verb: str, resource: str, namespace: str, allowed: bool
) -> None:
    assert may(kube, subjects[who], verb, resource, namespace) is allowed


def test_a_sidecar_writes_to_its_own_leases_alone(kube: KubeClient, subjects: dict[str, str]) -> None:
    leases, sidecar = "leases.coordination.k8s.io", subjects["sidecar"]
    for name in ("etcd-0", "etcd-full-snap", "etcd-delta-snap"):
        assert may(kube, sidecar, "patch", leases, "default", name)
    assert not may(kube, sidecar, "patch", leases, "default", "other")
    assert not may(kube, sidecar, "patch", leases, "garden", "etcd-0")
