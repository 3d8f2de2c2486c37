"""What a Pod's document asks for, as plain values; nothing here touches a file or the API."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backupagent.kube.resources import Document

GRACE_PERIOD_S = 30
"""terminationGracePeriodSeconds of a Pod that names none."""

PLAIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of most images."""

TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
KUBECONFIG_NAME = "kubeconfig"
TOKEN_VOLUME_PREFIX = "kube-api-access-"  # noqa: S105 - a name
"""Begin of the name of the volume that the API server's ServiceAccount admission adds to every Pod."""

VOLUME_KINDS = ("secret", "configMap", "emptyDir", "hostPath")
FIELDS = ("metadata.name", "metadata.namespace", "metadata.uid", "status.podIP")
REFERENCE = re.compile(r"\$(?:(\$)|\(([-._a-zA-Z][-._a-zA-Z0-9]*)\))")
"""``$$`` and ``$(NAME)``."""

POD_IP = "127.0.0.1"
"""Containers share the machine's network."""


def key(pod: Document) -> tuple[str, str]:
    """Return namespace and name."""
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


def is_owned_by_job(pod: Document) -> bool:
    """Whether a Job made the Pod."""
    return any(owner["kind"] == "Job" for owner in pod["metadata"].get("ownerReferences", ()))


def not_emulated(pod: Document) -> str:
    """Name what the Pod asks for that the kubelet does not do; empty when there is nothing.

    A Pod of which a part were left out would prove something about another Pod.
    """
    return ", ".join(_not_emulated(pod["spec"]))


def _not_emulated(spec: Mapping[str, Any]) -> Iterator[str]:
    if spec.get("initContainers"):
        yield "initContainers"
    for volume in spec.get("volumes", ()):
        if not is_token_volume(volume) and not any(kind in volume for kind in VOLUME_KINDS):
            yield f"volume {volume['name']}"
    for container in spec["containers"]:
        where = f"container {container['name']}: "
        for name in ("envFrom", "lifecycle", "livenessProbe", "startupProbe", "volumeDevices"):
            if container.get(name):
                yield where + name
        for variable in container.get("env", ()):
            if "valueFrom" in variable and _field_path(variable) not in FIELDS:
                yield f"{where}env {variable['name']}"
        probe = container.get("readinessProbe")
        if probe and probe.get("httpGet", {}).get("scheme", "HTTPS") != "HTTP":
            yield where + "a readinessProbe other than plain httpGet"


def is_token_volume(volume: Mapping[str, Any]) -> bool:
    """Whether it is the service account's; the kubelet fills that in its own way."""
    return "projected" in volume and volume["name"].startswith(TOKEN_VOLUME_PREFIX)


def environment(pod: Document, container: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that a container sees."""
    values = {
        "PATH": PLAIN_PATH,
        "LANG": "C.UTF-8",
        "HOSTNAME": pod["metadata"]["name"],
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if service_account(pod):
        values["KUBECONFIG"] = f"{TOKEN_FOLDER}/{KUBECONFIG_NAME}"
    for variable in container.get("env", ()):
        if "valueFrom" in variable:
            values[variable["name"]] = _field(pod, _field_path(variable))
        else:
            values[variable["name"]] = expanded(variable.get("value", ""), values)
    return values


def _field_path(variable: Mapping[str, Any]) -> str:
    path: str = variable["valueFrom"].get("fieldRef", {}).get("fieldPath", "")
    return path


def _field(pod: Document, path: str) -> str:
    part, _, name = path.partition(".")
    return POD_IP if part == "status" else str(pod[part][name])


def expanded(text: str, values: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` of known variables, and ``$$`` by ``$``, as the kubelet does in env, command and args."""
    return REFERENCE.sub(lambda match: "$" if match[1] else values.get(match[2], match[0]), text)


def arguments(container: Mapping[str, Any], values: Mapping[str, str]) -> list[str]:
    """Return command and args of a container."""
    return [expanded(word, values) for word in (*container.get("command", ()), *container.get("args", ()))]


def service_account(pod: Document) -> str:
    """Return the service account whose token the Pod gets; empty when it gets none."""
    spec = pod["spec"]
    return "" if spec.get("automountServiceAccountToken") is False else spec.get("serviceAccountName", "")


def grace_period_s(pod: Document) -> float:
    """Return how long the Pod may take to end, seconds."""
    asked = pod["metadata"].get("deletionGracePeriodSeconds", pod["spec"].get("terminationGracePeriodSeconds"))
    return GRACE_PERIOD_S if asked is None else asked


@dataclass(frozen=True)
class Probe:
    """When a container is ready.

    Attributes:
        host: Where it is asked.
        port: TCP port.
        path: Path of the request; 200 to 399 is a yes.
        initial_delay_s: Pause before the first question.
        period_s: Pause between questions.
        timeout_s: How long an answer may take.
        failures: How many times in a row no answer makes a ready container unready.
    """

    host: str
    port: int
    path: str
    initial_delay_s: float
    period_s: float
    timeout_s: float
    failures: int


def readiness_probe(container: Mapping[str, Any]) -> Probe | None:
    """Return the container's readiness probe; the API server has filled in the defaults."""
    probe = container.get("readinessProbe")
    if not probe:
        return None
    request = probe["httpGet"]
    named = {port.get("name"): port["containerPort"] for port in container.get("ports", ())}
    return Probe(
        host=request.get("host") or POD_IP,
        port=named.get(request["port"], request["port"]),
        path=request.get("path", "/"),
        initial_delay_s=probe.get("initialDelaySeconds", 0),
        period_s=probe.get("periodSeconds", 10),
        timeout_s=probe.get("timeoutSeconds", 1),
        failures=probe.get("failureThreshold", 3),
    )
