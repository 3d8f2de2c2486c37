"""What a Pod's document asks for, and the status that the kubelet writes."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest

from backupagent.testing.container import Ended, RuntimePolicy
from backupagent.testing.kubelet import default_policy
from backupagent.testing.pod_spec import (
    Probe,
    arguments,
    environment,
    expanded,
    grace_period_s,
    not_emulated,
    readiness_probe,
    service_account,
)
from backupagent.testing.pod_status import ContainerState, phase, restarts_after, status_document
from backupagent.testing.pod_volumes import ApiAddress, write_private

NOW = datetime(2026, 11, 23, 20, 41, 7, tzinfo=UTC)
LATER = NOW + timedelta(seconds=90)
GOOD = Ended(0, "Completed", 1)
BAD = Ended(7, "Error", 1)


def pod(container=None, *, metadata=None, **spec) -> dict:
    containers = [{"name": "main", "image": "any", **(container or {})}]
    basics = {"name": "demo-0", "namespace": "shoot--dev--demo", "uid": "u-1"}
    return {"metadata": basics | (metadata or {}), "spec": {"containers": containers, **spec}}


def state(**fields) -> ContainerState:
    return ContainerState("main", "any", **fields)


def test_variables_come_from_the_pod_and_from_each_other() -> None:
    wanted = {
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "LEASE", "value": "$(POD_NAMESPACE)/$(POD_NAME)"},
            {"name": "EMPTY"},
        ]
    }
    values = environment(pod(wanted), wanted)
    assert values["LEASE"] == "shoot--dev--demo/demo-0"
    assert values["POD_IP"] == "127.0.0.1"
    assert values["EMPTY"] == ""
    assert values["HOSTNAME"] == "demo-0"
    assert "KUBECONFIG" not in values


def test_a_pod_with_a_service_account_finds_its_kubeconfig() -> None:
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert environment(pod(serviceAccountName="agent"), {})["KUBECONFIG"] == f"{folder}/kubeconfig"
    assert service_account(pod(serviceAccountName="agent", automountServiceAccountToken=False)) == ""


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("--name=$(NAME)", "--name=demo"),
        ("$$(NAME)", "$(NAME)"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$NAME costs 5$", "$NAME costs 5$"),
    ],
)
def test_references_are_expanded_as_the_kubelet_does(text: str, becomes: str) -> None:
    assert expanded(text, {"NAME": "demo"}) == becomes
    assert arguments({"command": ["run"], "args": [text]}, {"NAME": "demo"}) == ["run", becomes]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (pod(initContainers=[{"name": "first"}]), "initContainers"),
        (pod(volumes=[{"name": "data", "persistentVolumeClaim": {}}]), "volume data"),
        (pod({"envFrom": [{}]}), "container main: envFrom"),
        (pod({"livenessProbe": {"exec": {}}}), "container main: livenessProbe"),
        (pod({"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {}}}]}), "container main: env KEY"),
        (pod({"readinessProbe": {"exec": {}}}), "container main: a readinessProbe other than plain httpGet"),
    ],
)
def test_what_is_not_emulated_is_named(document: dict, says: str) -> None:
    assert not_emulated(document) == says


def test_what_is_emulated_is_not_refused() -> None:
    container = {
        "readinessProbe": {"httpGet": {"scheme": "HTTP", "port": 8080, "path": "/healthz"}},
        "env": [{"name": "A", "value": "a"}, {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    }
    volumes = [
        {"name": "a", "secret": {"secretName": "s"}},
        {"name": "b", "configMap": {"name": "c"}},
        {"name": "c", "emptyDir": {}},
        {"name": "d", "hostPath": {"path": "/data"}},
        {"name": "kube-api-access-x7k2p", "projected": {}},
    ]
    assert not_emulated(pod(container, volumes=volumes)) == ""


def test_a_probe_finds_its_port_by_name() -> None:
    container = {
        "ports": [{"name": "metrics", "containerPort": 9095}],
        "readinessProbe": {
            "httpGet": {"port": "metrics", "path": "/readyz"},
            "periodSeconds": 5,
            "initialDelaySeconds": 15,
        },
    }
    assert readiness_probe(container) == Probe("127.0.0.1", 9095, "/readyz", 15, 5, 1, 3)
    assert readiness_probe({}) is None


def test_the_grace_period_is_what_the_delete_asked_for() -> None:
    assert grace_period_s(pod(terminationGracePeriodSeconds=60)) == 60
    assert grace_period_s(pod(terminationGracePeriodSeconds=60, metadata={"deletionGracePeriodSeconds": 0})) == 0
    assert grace_period_s(pod()) == 30


def test_pods_of_jobs_may_do_the_least() -> None:
    owned = pod(metadata={"ownerReferences": [{"kind": "Job", "name": "demo-worker"}]})
    assert default_policy(owned) == RuntimePolicy(read_only_root=True, temp_folder=False, memory_limit=256 << 20)
    assert default_policy(pod()) == RuntimePolicy(read_only_root=False, temp_folder=True, memory_limit=None)


@pytest.mark.parametrize(
    ("policy", "ended", "again"),
    [("Always", GOOD, True), ("OnFailure", GOOD, False), ("OnFailure", BAD, True), ("Never", BAD, False)],
)
def test_the_restart_policy_decides(policy: str, ended: Ended, again: bool) -> None:
    assert restarts_after(ended, policy) is again


def test_pauses_before_restarts_grow_to_a_limit() -> None:
    assert [state(restarts=count).pause_s() for count in (0, 1, 2, 3, 9)] == [0.5, 1.0, 2.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("states", "is_phase"),
    [
        ([state()], "Pending"),
        ([state(started_at=NOW, waiting="", running=True), state()], "Pending"),
        ([state(started_at=NOW, waiting="", running=True)], "Running"),
        ([state(started_at=NOW, waiting="CrashLoopBackOff", ended=BAD)], "Running"),
        ([state(started_at=NOW, waiting="", ended=GOOD)], "Succeeded"),
        ([state(started_at=NOW, waiting="", ended=GOOD), state(started_at=NOW, waiting="", ended=BAD)], "Failed"),
        ([state(waiting="")], "Failed"),  # deleted before it started
    ],
)
def test_the_phase_follows_from_the_containers(states: list[ContainerState], is_phase: str) -> None:
    assert phase(states) == is_phase


def test_a_container_goes_from_start_to_end() -> None:
    seen = state()
    assert seen.document()["state"]["waiting"]["reason"] == "ContainerCreating"
    seen.starts(NOW)
    assert seen.document()["state"] == {"running": {"startedAt": "2026-11-23T20:41:07Z"}}
    seen.ends(Ended(137, "OOMKilled", 300 << 20), LATER, "Never")
    assert seen.document()["state"] == {
        "terminated": {
            "exitCode": 137,
            "reason": "OOMKilled",
            "startedAt": "2026-11-23T20:41:07Z",
            "finishedAt": "2026-11-23T20:42:37Z",
        }
    }
    assert seen.document()["restartCount"] == 0


def test_a_container_that_waits_for_its_restart_tells_how_it_ended() -> None:
    seen = state()
    seen.starts(NOW)
    seen.ends(BAD, LATER, "OnFailure")
    assert seen.document()["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert seen.document()["lastState"]["terminated"]["exitCode"] == 7
    seen.starts(LATER)
    assert seen.document()["restartCount"] == 1
    assert seen.document()["state"]["running"]["startedAt"] == "2026-11-23T20:42:37Z"
    assert seen.document()["lastState"]["terminated"]["startedAt"] == "2026-11-23T20:41:07Z"


def test_conditions_keep_their_times_and_those_of_others() -> None:
    foreign = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    seen = state()
    seen.starts(NOW)
    first = status_document([seen], {"conditions": [foreign]}, started_at=NOW, now=NOW)
    seen.ready = True
    second = status_document([seen], first, started_at=NOW, now=LATER)
    assert foreign in second["conditions"]
    times = {each["type"]: each["lastTransitionTime"] for each in second["conditions"]}
    assert times["PodScheduled"] == "2026-11-23T20:41:07Z"
    assert times["Ready"] == "2026-11-23T20:42:37Z"
    assert status_document([seen], second, started_at=NOW, now=LATER + timedelta(hours=1)) == second


def test_a_kubeconfig_trusts_the_ca_and_shows_the_token() -> None:
    document = json.loads(ApiAddress("https://127.0.0.1:6443", b"PEM").kubeconfig("garden", "opaque"))
    cluster = document["clusters"][0]["cluster"]
    assert cluster == {
        "server": "https://127.0.0.1:6443",
        "certificate-authority-data": base64.b64encode(b"PEM").decode(),
    }
    assert document["users"][0]["user"] == {"token": "opaque"}
    assert "certificate-authority-data" not in ApiAddress("http://127.0.0.1:1").kubeconfig("garden", "opaque")


def test_secret_files_are_not_for_others(tmp_path) -> None:
    place = tmp_path / "deep" / "key"
    write_private(place, b"one", 0o640)
    write_private(place, b"two", 0o600)
    assert place.read_bytes() == b"two"
    assert place.stat().st_mode & 0o777 == 0o600
