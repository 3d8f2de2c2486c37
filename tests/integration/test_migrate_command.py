"""`migrate` and `migrations` against a real API server, whose RBAC decides, with bindings by Gardener's rules."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import garden as objects
import pytest
from garden import CONFIG, Garden, Person, manifests

from backupagent.cancel import Cancel
from backupagent.cli import main
from backupagent.kube.client import KubeClient
from backupagent.kube.resources import BACKUP_BUCKETS, SEEDS, SHOOT_STATES
from backupagent.model.migration import MigrationReport, Phase, Step
from backupagent.testing import crds
from backupagent.testing.binding_proxy import BindingProxy
from backupagent.testing.kube_servers import KubeApiServer

pytestmark = pytest.mark.servers

OPERATOR = ("backupagent-operator", "backupagent-operator-seeds")
LOOK_S = 0.05


class Cluster:
    """A garden cluster: API server, Gardener's kinds, the operators' roles, bindings."""

    def __init__(self, api: KubeApiServer, kube: KubeClient, proxy: BindingProxy) -> None:
        self.api, self.kube, self.proxy = api, kube, proxy


@pytest.fixture(scope="module")
def cluster(server_binary: Callable[[str], Path]) -> Iterator[Cluster]:
    for name in ("kube-apiserver", "etcd"):
        server_binary(name)
    with KubeApiServer() as api, api.client() as kube:
        crds.install(kube)
        objects.install(kube, "rbac/operator.yaml")
        with BindingProxy(api.url, kube, ca_file=api.ca_file) as proxy:
            yield Cluster(api, kube, proxy)


@pytest.fixture
def garden(cluster: Cluster) -> Garden:
    return Garden(cluster.kube)


class Shell:
    """Runs the program as somebody."""

    def __init__(self, cluster: Cluster, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._cluster, self._folder, self._capsys = cluster, folder, capsys
        self.err = ""

    def run(self, person: Person, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Return the exit code and the document on stdout."""
        kubeconfig = person.kubeconfig(self._folder, self._cluster.proxy.url)
        code = main([*arguments, "--kubeconfig", str(kubeconfig), "-o", "json", "--progress", "plain"])
        captured = self._capsys.readouterr()
        self.err = captured.err
        return code, json.loads(captured.out)

    def migrate(self, person: Person, garden: Garden, *arguments: str) -> tuple[int, dict[str, Any]]:
        return self.run(person, "migrate", "shoot", garden.key, "--to", garden.destination, *arguments)


@pytest.fixture
def shell(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(cluster, tmp_path, capsys)


@pytest.fixture
def person(cluster: Cluster) -> Person:
    return Person(cluster.api, cluster.kube)


# ---- binding


def test_an_operator_binds_a_shoot(garden: Garden, person: Person, shell: Shell) -> None:
    before = garden.shoot
    code, outcome = shell.migrate(person.grant(*OPERATOR), garden, "--no-follow")
    assert (code, outcome["end"], outcome["bound"], outcome["notes"]) == (0, "bound", True, [])
    assert garden.shoot["spec"] == before["spec"] | {"seedName": garden.destination}
    assert garden.shoot["metadata"]["generation"] == before["metadata"]["generation"] + 1
    assert garden.events == []
    code, again = shell.migrate(person, garden, "--no-follow")
    assert (code, again["bound"]) == (0, False)


def test_without_the_right_to_bind_the_refusal_and_the_missing_rule_are_told(
    cluster: Cluster, garden: Garden, person: Person, shell: Shell
) -> None:
    rules = [rule for role in roles() for rule in role["rules"] if rule["resources"] != ["shoots/binding"]]
    code, answer = shell.migrate(person.grant_rules(rules), garden)
    assert code == 52
    error = answer["error"]
    assert error["reason"] == "KubeForbidden"
    assert (
        f'User "system:serviceaccount:default:{person.name}" cannot update resource "shoots/binding"'
        in error["message"]
    )
    for part in ("core.gardener.cloud", "shoots/binding", "update", garden.namespace):
        assert part in error["hint"]
    assert garden.spec_seed == garden.source


def test_a_stranger_is_refused(garden: Garden, person: Person, shell: Shell) -> None:
    code, answer = shell.migrate(person, garden)
    assert (code, answer["error"]["reason"]) == (52, "KubeForbidden")
    assert garden.spec_seed == garden.source


def test_a_shoot_that_does_not_exist(garden: Garden, person: Person, shell: Shell) -> None:
    person.grant(*OPERATOR)
    code, answer = shell.run(person, "migrate", "shoot", f"{garden.namespace}/other", "--to", garden.destination)
    assert (code, answer["error"]["reason"]) == (53, "KubeNotFound")


# ---- preflight


def no_backup(garden: Garden) -> None:
    garden.kube.patch(SEEDS, garden.destination, "", {"spec": {"backup": None}})


def in_deletion(garden: Garden) -> None:
    garden.kube.patch(SEEDS, garden.destination, "", {"metadata": {"finalizers": ["backupagent.io/test"]}})
    garden.kube.delete(SEEDS, garden.destination)


def unhealthy(garden: Garden) -> None:
    conditions = [garden.ready[0] | {"status": "False"}, garden.ready[1]]
    garden.kube.patch(SEEDS, garden.destination, "", {"status": {"conditions": conditions}}, subresource="status")


def no_bucket(garden: Garden) -> None:
    garden.kube.delete(BACKUP_BUCKETS, garden.kube.get(SEEDS, garden.destination)["metadata"]["uid"])


def no_shoot_state(garden: Garden) -> None:
    garden.kube.delete(SHOOT_STATES, "demo", garden.namespace)


def no_key(garden: Garden) -> None:
    garden.kube.patch(SHOOT_STATES, "demo", garden.namespace, {"spec": {"gardener": []}})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (no_backup, "DestinationSeedWithoutBackup"),
        (in_deletion, "DestinationSeedInDeletion"),
        (unhealthy, "DestinationSeedUnready"),
        (no_bucket, "DestinationBackupBucketMissing"),
        (no_shoot_state, "ShootStateMissing"),
        (no_key, "EncryptionKeyMissing"),
    ],
)
def test_what_must_not_move_is_refused_with_an_event(
    spoil: Callable[[Garden], None], reason: str, garden: Garden, person: Person, shell: Shell
) -> None:
    spoil(garden)
    code, answer = shell.migrate(person.grant(*OPERATOR), garden)
    assert (code, answer["error"]["reason"]) == (43, "PreflightFailed")
    assert reason in answer["error"]["message"]
    (event,) = garden.events
    assert (event["type"], event["reason"]) == ("Warning", "PreflightFailed")
    assert reason in event["message"]
    assert event["involvedObject"]["uid"] == garden.shoot["metadata"]["uid"]
    assert garden.spec_seed == garden.source


# ---- the roles hold what is used, and nothing else


def roles() -> list[dict[str, Any]]:
    return manifests(CONFIG / "rbac" / "operator.yaml")


def without(resource: str, verb: str) -> list[dict[str, Any]]:
    """Return the operators' rules without one right."""
    rules = []
    for rule in (rule for role in roles() for rule in role["rules"]):
        for each in rule["resources"]:
            verbs = [known for known in rule["verbs"] if (each, known) != (resource, verb)]
            rules += [rule | {"resources": [each], "verbs": verbs}] if verbs else []
    return rules


RIGHTS = [
    (resource, verb)
    for role in roles()
    for rule in role["rules"]
    for resource in rule["resources"]
    for verb in rule["verbs"]
]


def everything(shell: Shell, person: Person, garden: Garden) -> str:
    """Do all that an operator does; return all that was said."""
    said = []
    for arguments in (
        ("migrate", "shoot", garden.key, "--to", garden.source),  # there already
        ("migrate", "shoot", garden.key, "--to", "nowhere"),  # refused
        ("migrate", "shoot", garden.key, "--to", garden.destination, "--timeout", "100ms"),
        ("migrations", garden.key),
        ("migrations", "--namespace", garden.namespace),
    ):
        said += [json.dumps(shell.run(person, *arguments)), shell.err]
    return "\n".join(said).replace('\\"', '"')


@pytest.mark.parametrize(("resource", "verb"), RIGHTS)
def test_every_right_of_an_operator_is_needed(
    resource: str, verb: str, garden: Garden, person: Person, shell: Shell
) -> None:
    said = everything(shell, person.grant_rules(without(resource, verb)), garden)
    assert f'cannot {verb} resource "{resource}"' in said


def test_no_other_right_is_needed_and_a_project_is_enough(garden: Garden, person: Person, shell: Shell) -> None:
    person.grant("backupagent-operator", namespace=garden.namespace).grant("backupagent-operator-seeds")
    said = everything(shell, person, garden)
    assert "cannot" not in said.replace("cannot be", "")
    assert garden.spec_seed == garden.destination


# ---- following


def report(garden: Garden, phase: Phase, *names: str, **changes: Any) -> MigrationReport:
    steps = tuple(Step(name=name, who="gardenlet", at=f"2026-11-23T00:00:0{at}.000Z") for at, name in enumerate(names))
    return MigrationReport(
        namespace=garden.namespace,
        shoot="demo",
        source=garden.source,
        destination=garden.destination,
        phase=phase,
        steps=steps,
        **changes,
    )


def when_bound(garden: Garden, act: Callable[[], None]) -> threading.Thread:
    """Do something as soon as the Shoot is bound to its destination."""

    def wait() -> None:
        pause = Cancel()
        while garden.spec_seed != garden.destination:
            pause.wait(LOOK_S)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_an_operator_follows_to_the_proof(garden: Garden, person: Person, shell: Shell) -> None:
    def arrive() -> None:
        garden.status(garden.destination, "Restore", "Succeeded", 100)
        names = ("MigrateStarted", "ApiServerStopped", "ApiServerStarted")
        garden.report(report(garden, Phase.SUCCEEDED, *names, equal=True, downtime_s=1.0, message="all there"))

    thread = when_bound(garden, arrive)
    code, outcome = shell.migrate(person.grant(*OPERATOR), garden, "--timeout", "60s")
    thread.join()
    assert (code, outcome["end"], outcome["report"]["equal"]) == (0, "ended", True)
    assert outcome["operation"] == "Restore Succeeded 100%"
    for line in ("operator Bound", "gardenlet MigrateStarted", "gardenlet ApiServerStopped"):
        assert line in shell.err


def test_an_operator_is_told_how_it_failed(garden: Garden, person: Person, shell: Shell) -> None:
    failed = report(garden, Phase.FAILED, "FinalSnapshotMissing", reason="FinalSnapshotMissing", message="none there")
    thread = when_bound(garden, lambda: garden.report(failed))
    code, outcome = shell.migrate(person.grant(*OPERATOR), garden, "--timeout", "60s")
    thread.join()
    assert (code, outcome["reason"], outcome["message"]) == (41, "FinalSnapshotMissing", "none there")


def test_migrations_shows_all_and_one(garden: Garden, person: Person, shell: Shell) -> None:
    person.grant(*OPERATOR)
    assert shell.run(person, "migrations", garden.key) == (0, {"migrations": []})
    shell.migrate(person, garden, "--no-follow")
    code, found = shell.run(person, "migrations", "--namespace", garden.namespace)
    (entry,) = found["migrations"]
    assert (code, entry["phase"], entry["source"], entry["destination"]) == (0, None, garden.source, garden.destination)
    garden.report(report(garden, Phase.PREPARING, "MigrateStarted"))
    _code, found = shell.run(person, "migrations", garden.key)
    (entry,) = found["migrations"]
    assert (entry["phase"], entry["report"]["steps"][0]["name"]) == ("Preparing", "MigrateStarted")
    _code, found = shell.run(person, "migrations")
    assert garden.namespace in {entry["namespace"] for entry in found["migrations"]}
