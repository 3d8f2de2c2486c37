"""``shoots/binding`` in front of a real API server: RBAC decides, Gardener's rules refuse, the rest passes through."""

import http.client
import itertools
import json
import ssl
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import pytest

from backupagent.cancel import Cancel
from backupagent.errors import KubeForbidden, KubeInvalid
from backupagent.kube.client import Change, KubeClient
from backupagent.kube.resources import (
    BACKUP_BUCKETS,
    BACKUP_ENTRIES,
    CONFIG_MAPS,
    ETCD_COPY_BACKUPS_TASKS,
    NAMESPACES,
    ROLE_BINDINGS,
    ROLES,
    SEEDS,
    SERVICE_ACCOUNTS,
    SHOOTS,
    Document,
)
from backupagent.testing import crds
from backupagent.testing.binding_proxy import BindingProxy
from backupagent.testing.kube_servers import KubeApiServer

pytestmark = pytest.mark.servers

NAMESPACE = "garden-dev"
MERGE_PATCH = "application/merge-patch+json"
TIMEOUT_S = 30
NUMBERS = itertools.count()
REFERENCE = {"apiVersion": "v1", "kind": "Secret", "name": "backup", "namespace": "garden"}
BACKUP = {"backup": {"provider": "S3", "region": "us-east-1", "credentialsRef": REFERENCE}}


@dataclass
class Garden:
    api: KubeApiServer
    proxy: BindingProxy
    kube: KubeClient

    def ask(self, method: str, path: str, body: object = None, *, url: str = "", token: str = "", kind=MERGE_PATCH):
        """Make a request through the proxy, or to another address; return status and document."""
        where = urllib.parse.urlsplit(url or self.proxy.url)
        trusted = ssl.create_default_context(cafile=self.api.ca_file)
        connection = (
            http.client.HTTPSConnection(where.hostname, where.port, context=trusted, timeout=TIMEOUT_S)
            if where.scheme == "https"
            else http.client.HTTPConnection(where.hostname, where.port, timeout=TIMEOUT_S)
        )
        headers = {"Authorization": f"Bearer {token or self.api.admin_token}", "Content-Type": kind}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def bind(self, shoot: str, seed: str | None, **options):
        return self.ask("PATCH", binding(shoot), {"spec": {"seedName": seed}}, **options)

    def client(self, folder: Path, token: str = "") -> KubeClient:
        """Return a client that talks to the proxy."""
        return KubeClient.open(self.api.kubeconfig(folder / "kubeconfig", token=token, server=self.proxy.url))


def binding(shoot: str) -> str:
    return f"/apis/core.gardener.cloud/v1beta1/namespaces/{NAMESPACE}/shoots/{shoot}/binding"


@pytest.fixture(scope="module")
def garden(server_binary: Callable[[str], Path]) -> Iterator[Garden]:
    for name in ("etcd", "kube-apiserver"):
        server_binary(name)
    with KubeApiServer() as api, api.client() as kube, BindingProxy(api.url, kube, ca_file=api.ca_file) as proxy:
        crds.install(kube)
        kube.create(NAMESPACES, NAMESPACES.stub(NAMESPACE))
        for seed in ("seed-a", "seed-b", "leaving"):
            kube.create(SEEDS, SEEDS.stub(seed) | {"spec": BACKUP})
        kube.create(SEEDS, SEEDS.stub("without-backup") | {"spec": {}})
        kube.patch(SEEDS, "leaving", "", {"metadata": {"finalizers": ["backupagent.io/test"]}})
        kube.delete(SEEDS, "leaving")
        yield Garden(api, proxy, kube)


@pytest.fixture
def shoot(garden: Garden) -> Iterator[str]:
    """A Shoot of its own for each test, on seed-a."""
    name = f"shoot-{next(NUMBERS)}"
    garden.kube.create(SHOOTS, SHOOTS.stub(name, NAMESPACE) | {"spec": {"seedName": "seed-a", "purpose": "testing"}})
    garden.kube.patch(SHOOTS, name, NAMESPACE, {"status": {"seedName": "seed-a"}}, subresource="status")
    yield name
    garden.kube.delete(SHOOTS, name, NAMESPACE)


def test_who_may_not_bind_gets_the_servers_own_refusal(garden: Garden, shoot: str, tmp_path: Path) -> None:
    garden.kube.create(SERVICE_ACCOUNTS, SERVICE_ACCOUNTS.stub("visitor", NAMESPACE))
    token = garden.api.token_for(NAMESPACE, "visitor")
    direct = garden.bind(shoot, "seed-b", url=garden.api.url, token=token)
    assert direct[0] == HTTPStatus.FORBIDDEN  # and not 404: RBAC is asked before the path is looked up
    assert garden.bind(shoot, "seed-b", token=token) == direct
    with garden.client(tmp_path, token) as kube, pytest.raises(KubeForbidden, match="shoots/binding"):
        kube.patch(SHOOTS, shoot, NAMESPACE, {"spec": {"seedName": "seed-b"}}, subresource="binding")
    assert garden.kube.get(SHOOTS, shoot, NAMESPACE)["spec"]["seedName"] == "seed-a"


def test_who_may_bind_needs_no_other_right(garden: Garden, shoot: str, tmp_path: Path) -> None:
    garden.kube.create(SERVICE_ACCOUNTS, SERVICE_ACCOUNTS.stub("operator", NAMESPACE))
    rules = [{"apiGroups": ["core.gardener.cloud"], "resources": ["shoots/binding"], "verbs": ["patch"]}]
    garden.kube.create(ROLES, ROLES.stub("operator", NAMESPACE) | {"rules": rules})
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"}
    bound = {"subjects": [subject], "roleRef": role}
    garden.kube.create(ROLE_BINDINGS, ROLE_BINDINGS.stub("operator", NAMESPACE) | bound)
    with garden.client(tmp_path, garden.api.token_for(NAMESPACE, "operator")) as kube:
        kube.patch(SHOOTS, shoot, NAMESPACE, {"spec": {"seedName": "seed-b"}}, subresource="binding")
        with pytest.raises(KubeForbidden):
            kube.patch(SHOOTS, shoot, NAMESPACE, {"spec": {"purpose": "production"}})
    assert garden.kube.get(SHOOTS, shoot, NAMESPACE)["spec"] == {"seedName": "seed-b", "purpose": "testing"}


def check_bound(before: Document, after: Document) -> None:
    assert after["spec"] == before["spec"] | {"seedName": "seed-b"}
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    labels = after["metadata"]["labels"]
    assert labels == {"name.seed.gardener.cloud/seed-a": "true", "name.seed.gardener.cloud/seed-b": "true"}


def test_a_merge_patch_binds(garden: Garden, shoot: str) -> None:
    before = garden.kube.get(SHOOTS, shoot, NAMESPACE)
    status, after = garden.bind(shoot, "seed-b")
    assert status == HTTPStatus.OK
    check_bound(before, after)
    check_bound(before, garden.kube.get(SHOOTS, shoot, NAMESPACE))


def test_an_update_binds(garden: Garden, shoot: str, tmp_path: Path) -> None:
    before = garden.kube.get(SHOOTS, shoot, NAMESPACE)
    wanted = {**before, "spec": before["spec"] | {"seedName": "seed-b"}}
    with garden.client(tmp_path) as kube:
        check_bound(before, kube.replace(SHOOTS, wanted, subresource="binding"))


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"seedName": "seed-a"}, 500, "shoot is already assigned to the same seed"),
        ({"seedName": "missing"}, 500, 'could not find referenced seed "missing"'),
        ({"seedName": None}, 403, "spec.seedName cannot be set to nil"),
        ({"seedName": "seed-b", "purpose": "production"}, 403, "only spec.seedName can be changed"),
        ({"seedName": "leaving"}, 403, "that is already marked for deletion"),
        ({"seedName": "without-backup"}, 403, 'backup is not configured for seed "without-backup"'),
    ],
)
def test_gardeners_rules_refuse(garden: Garden, shoot: str, change: dict, code: int, says: str) -> None:
    status, document = garden.ask("PATCH", binding(shoot), {"spec": change})
    assert (status, document["kind"], document["code"]) == (code, "Status", code)
    assert says in document["message"]
    assert garden.kube.get(SHOOTS, shoot, NAMESPACE)["spec"] == {"seedName": "seed-a", "purpose": "testing"}


def test_a_shoot_on_its_way_is_not_sent_elsewhere(garden: Garden, shoot: str) -> None:
    assert garden.bind(shoot, "seed-b")[0] == HTTPStatus.OK
    status, document = garden.bind(shoot, "seed-a")
    assert status == HTTPStatus.FORBIDDEN
    assert "rescheduled to a new seed" in document["message"]


def test_updates_of_an_old_shoot_and_what_is_not_understood_are_refused(garden: Garden, shoot: str) -> None:
    old = garden.kube.get(SHOOTS, shoot, NAMESPACE)
    wanted = {**old, "spec": old["spec"] | {"seedName": "seed-b"}}
    garden.kube.patch(SHOOTS, shoot, NAMESPACE, {"metadata": {"labels": {"new": "label"}}})
    anonymous = {**wanted, "metadata": {"name": shoot}}
    path = binding(shoot)
    assert garden.ask("PUT", path, wanted, kind="application/json")[0] == HTTPStatus.CONFLICT
    assert garden.ask("PUT", path, anonymous, kind="application/json")[0] == HTTPStatus.UNPROCESSABLE_ENTITY
    assert garden.ask("PATCH", path, [], kind="application/json-patch+json")[0] == HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    assert garden.ask("PATCH", f"{path}?dryRun=All", wanted)[0] == HTTPStatus.BAD_REQUEST
    assert garden.ask("PATCH", path, "seed-b")[0] == HTTPStatus.BAD_REQUEST
    assert garden.bind("no-such-shoot", "seed-b")[0] == HTTPStatus.NOT_FOUND
    assert garden.bind(shoot, "seed-b", token="wrong")[0] == HTTPStatus.UNAUTHORIZED
    assert garden.kube.get(SHOOTS, shoot, NAMESPACE)["spec"]["seedName"] == "seed-a"


def test_a_watch_and_everything_else_pass_through(garden: Garden, tmp_path: Path) -> None:
    cancel = Cancel()
    with garden.client(tmp_path) as kube:
        events = kube.watch(CONFIG_MAPS, NAMESPACE, labels={"watched": "yes"}, cancel=cancel)
        assert next(events).change is Change.SYNCED
        facts = CONFIG_MAPS.stub("facts", NAMESPACE) | {"data": {"big": "x" * 900_000}}
        facts["metadata"]["labels"] = {"watched": "yes"}
        created = kube.create(CONFIG_MAPS, facts)
        added = next(events)
        assert (added.change, added.object["metadata"]["uid"]) == (Change.ADDED, created["metadata"]["uid"])
        kube.delete(CONFIG_MAPS, "facts", NAMESPACE)
        assert next(events).change is Change.DELETED
        cancel.set("end of the test")
        assert list(events) == []


def test_an_api_server_that_is_gone_is_told_as_unavailable(garden: Garden) -> None:
    with BindingProxy("http://127.0.0.1:9", garden.kube) as proxy:
        status, document = garden.ask("GET", "/version", url=proxy.url)
    assert (status, document["reason"]) == (HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable")


def test_lists_can_be_selected_by_seed_and_bucket(garden: Garden, shoot: str) -> None:
    entry = BACKUP_ENTRIES.stub("entry", NAMESPACE) | {"spec": {"bucketName": "bucket-1", "seedName": "seed-a"}}
    garden.kube.create(BACKUP_ENTRIES, entry)
    provider = {"provider": {"type": "S3", "region": "us-east-1"}, "credentialsRef": REFERENCE, "seedName": "seed-a"}
    garden.kube.create(BACKUP_BUCKETS, BACKUP_BUCKETS.stub("bucket-1") | {"spec": provider})
    for seed, found in (("seed-a", True), ("seed-z", False)):
        names = [each["metadata"]["name"] for each in garden.kube.list(SHOOTS, fields={"status.seedName": seed})]
        assert (shoot in names) is found
        assert bool(garden.kube.list(BACKUP_ENTRIES, fields={"spec.seedName": seed})) is found
        assert bool(garden.kube.list(BACKUP_BUCKETS, fields={"spec.seedName": seed})) is found
    assert len(garden.kube.list(BACKUP_ENTRIES, fields={"spec.bucketName": "bucket-1"})) == 1


def test_half_told_states_are_refused(garden: Garden, shoot: str) -> None:
    operation = {"type": "Migrate", "state": "Processing", "progress": 0, "description": "begun"}
    with pytest.raises(KubeInvalid, match="lastUpdateTime"):
        garden.kube.patch(SHOOTS, shoot, NAMESPACE, {"status": {"lastOperation": operation}}, subresource="status")
    store = {"prefix": "entry/etcd-main", "container": "bucket-1"}
    task = ETCD_COPY_BACKUPS_TASKS.stub("copy", NAMESPACE) | {"spec": {"sourceStore": store, "targetStore": store}}
    with pytest.raises(KubeInvalid, match="prefix"):
        garden.kube.create(ETCD_COPY_BACKUPS_TASKS, task | {"spec": {"sourceStore": store, "targetStore": {}}})
    garden.kube.create(ETCD_COPY_BACKUPS_TASKS, task)
    condition = {"type": "Succeeded", "status": "True", "reason": "Done", "message": ""}
    with pytest.raises(KubeInvalid, match="lastTransitionTime"):
        garden.kube.patch(
            ETCD_COPY_BACKUPS_TASKS, "copy", NAMESPACE, {"status": {"conditions": [condition]}}, subresource="status"
        )
