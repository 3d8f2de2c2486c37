"""Rules for everything in config/ that no API server knows."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from backupagent import __version__
from backupagent.cli.commands import COMMANDS
from backupagent.cli.parser import parse

CONFIG = Path(__file__).parents[3] / "config"
OURS = "backupagent"

MANIFESTS = [
    pytest.param(document, id=f"{path.relative_to(CONFIG)}:{document['kind']}/{document['metadata']['name']}")
    for path in sorted(CONFIG.rglob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in yaml.safe_load_all(path.read_text())
]
KUSTOMIZATIONS = sorted(CONFIG.rglob("kustomization.yaml"))


def pod_specs(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [document["spec"]["template"]["spec"]] if document["kind"] in {"Deployment", "Job", "StatefulSet"} else []


PODS = [pytest.param(pod, id=param.id) for param in MANIFESTS for pod in pod_specs(param.values[0])]
CONTAINERS = [
    pytest.param(container, id=f"{param.id}/{container['name']}")
    for param in PODS
    for container in param.values[0]["containers"]
]


def test_there_are_manifests() -> None:
    assert len(PODS) == 3
    assert len(KUSTOMIZATIONS) == 4


@pytest.mark.parametrize("document", MANIFESTS)
def test_nothing_lands_in_whatever_namespace_is_current(document: dict[str, Any]) -> None:
    assert ("namespace" in document["metadata"]) is not document["kind"].startswith("ClusterRole")
    assert "app.kubernetes.io/name" in document["metadata"]["labels"]


@pytest.mark.parametrize("document", MANIFESTS)
def test_rights_are_named_one_by_one(document: dict[str, Any]) -> None:
    for rule in document.get("rules", ()):
        assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
    if "roleRef" in document:
        assert document["roleRef"]["name"] == document["metadata"]["name"]


@pytest.mark.parametrize("pod", PODS)
def test_pods_run_as_nobody(pod: dict[str, Any]) -> None:
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == 65532
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert ("serviceAccountName" in pod) is not (pod.get("automountServiceAccountToken") is False)


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_can_do_little_and_are_bounded(container: dict[str, Any]) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    image, _colon, tag = container["image"].partition(":")
    assert tag not in {"", "latest"}
    assert "/" not in image, "no registry: a kustomization names it"
    if image == OURS:
        assert tag == __version__
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("container", [param for param in CONTAINERS if param.values[0]["image"].startswith(OURS)])
def test_our_commands_have_these_options(container: dict[str, Any]) -> None:
    program, name = container["command"]
    assert program == OURS
    assert name in COMMANDS
    understood = parse([name, *container["args"]])
    assert understood is not None
    assert understood.command.name == name


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_kustomizations_name_what_is_there(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    for resource in document["resources"]:
        assert (path.parent / resource).exists(), resource
    tags = {image["name"]: image["newTag"] for image in document.get("images", ())}
    used = {
        tuple(container["image"].split(":"))
        for resource in document["resources"]
        if resource.endswith(".yaml")
        for manifest in yaml.safe_load_all((path.parent / resource).read_text())
        for pod in pod_specs(manifest)
        for container in pod["containers"]
    }
    assert set(tags.items()) == used
