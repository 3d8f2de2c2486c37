"""A small garden in a real API server: the objects that a migration is about, and people with rights."""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from backupagent.kube.client import KubeClient
from backupagent.kube.resources import (
    BACKUP_BUCKETS,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    LEASES,
    NAMESPACES,
    ROLE_BINDINGS,
    ROLES,
    SEEDS,
    SERVICE_ACCOUNTS,
    SHOOT_STATES,
    SHOOTS,
    Document,
    Resource,
)
from backupagent.model.migration import LABEL, REPORT_KEY, MigrationReport, config_map_name, encode_report
from backupagent.testing.kube_servers import KubeApiServer

CONFIG = Path(__file__).parents[2] / "config"

SERVICES = Resource("", "v1", "Service", "services")
STATEFUL_SETS = Resource("apps", "v1", "StatefulSet", "statefulsets")

KINDS = {
    resource.kind: resource
    for resource in (
        CLUSTER_ROLE_BINDINGS,
        CLUSTER_ROLES,
        CONFIG_MAPS,
        DEPLOYMENTS,
        JOBS,
        LEASES,
        ROLE_BINDINGS,
        ROLES,
        SERVICE_ACCOUNTS,
        SERVICES,
        STATEFUL_SETS,
    )
}
"""What config/ is made of."""

NOW = "2026-11-23T00:00:00Z"

numbers = itertools.count()


def manifests(path: Path) -> list[dict[str, Any]]:
    """Read the documents of a file of config/."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def install(kube: KubeClient, *names: str) -> None:
    """Apply files of config/."""
    for name in names:
        for document in manifests(CONFIG / name):
            kube.apply(KINDS[document["kind"]], document)


def ensure_namespace(kube: KubeClient, name: str) -> None:
    """Make a namespace unless it is there."""
    kube.apply(NAMESPACES, NAMESPACES.stub(name))


class Person:
    """Somebody with a token, known to the API server as a service account.

    Args:
        api: The API server.
        kube: The same, as its administrator.
    """

    def __init__(self, api: KubeApiServer, kube: KubeClient) -> None:
        self._api = api
        self._kube = kube
        self.name = f"person-{next(numbers)}"
        kube.create(SERVICE_ACCOUNTS, SERVICE_ACCOUNTS.stub(self.name, "default"))
        self._subject = {"kind": "ServiceAccount", "name": self.name, "namespace": "default"}

    def grant(self, *cluster_roles: str, namespace: str = "") -> "Person":
        """Bind cluster roles to this person, in one namespace or everywhere."""
        for role in cluster_roles:
            resource = ROLE_BINDINGS if namespace else CLUSTER_ROLE_BINDINGS
            reference = {"apiGroup": CLUSTER_ROLES.group, "kind": "ClusterRole", "name": role}
            binding = resource.stub(f"{self.name}-{role}", namespace)
            self._kube.create(resource, binding | {"roleRef": reference, "subjects": [self._subject]})
        return self

    def grant_rules(self, rules: Iterable[Mapping[str, Any]]) -> "Person":
        """Make a cluster role of these rules and bind it to this person."""
        self._kube.create(CLUSTER_ROLES, CLUSTER_ROLES.stub(self.name) | {"rules": list(rules)})
        return self.grant(self.name)

    def kubeconfig(self, folder: Path, server: str = "") -> Path:
        """Write this person's kubeconfig."""
        token = self._api.token_for("default", self.name)
        return self._api.kubeconfig(folder / f"{self.name}.kubeconfig", token=token, server=server)


class Garden:
    """One project with one Shoot, and two Seeds, apart from those of other tests.

    Args:
        kube: The API server, as its administrator.
    """

    def __init__(self, kube: KubeClient) -> None:
        self.kube = kube
        number = next(numbers)
        self.namespace = f"garden-{number}"
        self.source, self.destination = f"seed-a-{number}", f"seed-b-{number}"
        self.key = f"{self.namespace}/demo"
        ensure_namespace(kube, self.namespace)
        for name in (self.source, self.destination):
            self._seed(name)
        shoot = SHOOTS.stub("demo", self.namespace) | {"spec": {"seedName": self.source, "purpose": "production"}}
        kube.create(SHOOTS, shoot)
        self.status(self.source, "Reconcile", "Succeeded", 100)
        labels = {"name": "kube-apiserver-etcd-encryption-key"}
        secret = {"name": "key-1", "type": "secret", "labels": labels, "data": {"data": {"secret": "eA=="}}}
        kube.create(SHOOT_STATES, SHOOT_STATES.stub("demo", self.namespace) | {"spec": {"gardener": [secret]}})

    def _seed(self, name: str) -> None:
        reference = {"apiVersion": "v1", "kind": "Secret", "name": f"backup-{name}", "namespace": "garden"}
        backup = {"provider": "S3", "region": "us-east-1", "credentialsRef": reference}
        uid = self.kube.create(SEEDS, SEEDS.stub(name) | {"spec": {"backup": backup}})["metadata"]["uid"]
        times = {"lastTransitionTime": NOW, "lastUpdateTime": NOW, "reason": "Test", "message": "fine"}
        self.ready = [
            {"type": kind, "status": "True"} | times for kind in ("GardenletReady", "SeedSystemComponentsHealthy")
        ]
        status = {"gardener": {"version": "v1.150.0"}, "observedGeneration": 1, "conditions": self.ready}
        self.kube.patch(SEEDS, name, "", {"status": status}, subresource="status")
        spec = {"provider": {"type": "S3", "region": "us-east-1"}, "seedName": name, "credentialsRef": reference}
        self.kube.create(BACKUP_BUCKETS, BACKUP_BUCKETS.stub(uid) | {"spec": spec})

    def status(self, seed: str, kind: str, state: str, progress: int) -> None:
        """Write what gardenlet says about the Shoot."""
        last = {"type": kind, "state": state, "progress": progress, "description": "-", "lastUpdateTime": NOW}
        status = {"technicalID": "shoot--dev--demo", "uid": "u1", "seedName": seed, "lastOperation": last}
        self.kube.patch(SHOOTS, "demo", self.namespace, {"status": status}, subresource="status")

    def report(self, report: MigrationReport) -> None:
        """Write a report as the controller does."""
        document = CONFIG_MAPS.stub(config_map_name("demo"), self.namespace)
        document["metadata"]["labels"] = {LABEL: "true"}
        self.kube.apply(CONFIG_MAPS, document | {"data": {REPORT_KEY: encode_report(report)}})

    @property
    def shoot(self) -> Document:
        """The Shoot as it is now."""
        return self.kube.get(SHOOTS, "demo", self.namespace)

    @property
    def spec_seed(self) -> str:
        """The Seed that the Shoot is bound to."""
        return str(self.shoot["spec"]["seedName"])

    @property
    def events(self) -> list[Document]:
        """What was told about the Shoot."""
        return [event for event in self.kube.list(EVENTS, self.namespace) if event["involvedObject"]["name"] == "demo"]
