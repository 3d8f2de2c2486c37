"""An API server in memory with a script: every look of the follower plays the next act."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from backupagent.cancel import Cancel
from backupagent.clock import FakeClock
from backupagent.errors import KubeConflict, KubeError, KubeForbidden, KubeNotFound
from backupagent.kube.resources import (
    BACKUP_BUCKETS,
    CONFIG_MAPS,
    SEEDS,
    SHOOT_STATES,
    SHOOTS,
    Document,
    Resource,
)
from backupagent.model.migration import (
    LABEL,
    REPORT_KEY,
    MigrationReport,
    Phase,
    Step,
    config_map_name,
    encode_report,
)

NAMESPACE, SHOOT = "garden-dev", "demo"
KEY = f"{NAMESPACE}/{SHOOT}"


class ScriptedKube:
    """Answers like an API server that serves one client."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.errors: dict[tuple[str, str], KubeError] = {}
        self.created: list[Document] = []
        self.replaced: list[tuple[Document, str]] = []
        self.version = 1

    def put(self, resource: Resource, document: Mapping[str, Any]) -> dict[str, Any]:
        """Store an object."""
        stored = copy.deepcopy(dict(document))
        metadata = stored["metadata"]
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        self.objects[resource.plural, metadata.get("namespace", ""), metadata["name"]] = stored
        return stored

    def refuse(self, verb: str, resource: str, message: str = "") -> None:
        """Answer a request as RBAC does."""
        text = message or f'{resource} is forbidden: User "jane" cannot {verb} resource "{resource}"'
        self.errors[verb, resource] = KubeForbidden(text, what=f"{verb} {resource}")

    def find(self, resource: Resource, name: str, namespace: str = "") -> Document | None:
        self._may("get", resource.plural)
        return copy.deepcopy(self.objects.get((resource.plural, namespace, name)))

    def get(self, resource: Resource, name: str, namespace: str = "") -> Document:
        found = self.find(resource, name, namespace)
        if found is None:
            raise KubeNotFound("not found", what=f"get {resource.plural} {namespace}/{name}")
        return found

    def list(
        self, resource: Resource, namespace: str = "", *, labels: Mapping[str, str] | None = None
    ) -> list[Document]:
        self._may("list", resource.plural)
        return [
            document
            for (plural, where, _name), document in self.objects.items()
            if plural == resource.plural
            and namespace in {"", where}
            and (labels or {}).items() <= document["metadata"].get("labels", {}).items()
        ]

    def create(self, resource: Resource, document: Document) -> Document:
        self._may("create", resource.plural)
        self.created.append(document)
        return document

    def replace(self, resource: Resource, document: Document, *, subresource: str = "") -> Document:
        self._may("update", f"{resource.plural}/{subresource}")
        metadata = document["metadata"]
        stored = self.objects[resource.plural, metadata["namespace"], metadata["name"]]
        if stored["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise KubeConflict("the object has been modified", what="update shoots/binding")
        self.replaced.append((document, subresource))
        return self.put(resource, document)

    def _may(self, verb: str, resource: str) -> None:
        if (verb, resource) in self.errors:
            raise self.errors[verb, resource]


class Play(Cancel):
    """A token whose waiting moves the clock and plays the next act; when all are played, the token is set."""

    def __init__(self, clock: FakeClock, *acts: Callable[[], object]) -> None:
        super().__init__()
        self._clock = clock
        self._acts = list(acts)

    def wait(self, timeout_s: float) -> bool:
        self._clock.sleep(timeout_s)
        if self._acts:
            self._acts.pop(0)()
        else:
            self.set("the end of the play")
        return self.is_set


def shoot(spec: str = "seed-a", status: str = "seed-a", operation: str = "Reconcile Succeeded 100") -> dict[str, Any]:
    """A Shoot; ``operation`` is type, state, progress."""
    document = SHOOTS.stub(SHOOT, NAMESPACE)
    document["metadata"]["uid"] = "shoot-uid"
    kind, state, progress = operation.split()
    last = {"type": kind, "state": state, "progress": int(progress), "description": "", "lastUpdateTime": ""}
    document["spec"] = {"seedName": spec, "provider": {"type": "local"}}
    document["status"] = {"technicalID": "shoot--dev--demo", "uid": "u1", "seedName": status, "lastOperation": last}
    return document


def seed(name: str, **changes: Any) -> dict[str, Any]:
    """A Seed that is ready to take Shoots."""
    document = SEEDS.stub(name)
    document["metadata"] |= {"uid": f"{name}-uid", "generation": 1}
    document["spec"] = {"backup": {"provider": "S3"}}
    conditions = [{"type": kind, "status": "True"} for kind in ("GardenletReady", "SeedSystemComponentsHealthy")]
    document["status"] = {"gardener": {"version": "v1"}, "observedGeneration": 1, "conditions": conditions}
    for part, content in changes.items():
        document[part] = content
    return document


def bucket(name: str) -> dict[str, Any]:
    """The BackupBucket of a Seed."""
    document = BACKUP_BUCKETS.stub(f"{name}-uid")
    document["spec"] = {"provider": {"type": "S3"}, "seedName": name}
    return document


def shoot_state() -> dict[str, Any]:
    """A ShootState with the encryption key."""
    document = SHOOT_STATES.stub(SHOOT, NAMESPACE)
    labels = {"name": "kube-apiserver-etcd-encryption-key"}
    document["spec"] = {
        "gardener": [{"name": "k", "type": "secret", "labels": labels, "data": {"data": {"key": "eA=="}}}]
    }
    return document


def landscape() -> ScriptedKube:
    """A garden in which the Shoot may move from seed-a to seed-b."""
    kube = ScriptedKube()
    kube.put(SHOOTS, shoot())
    for name in ("seed-a", "seed-b"):
        kube.put(SEEDS, seed(name))
        kube.put(BACKUP_BUCKETS, bucket(name))
    kube.put(SHOOT_STATES, shoot_state())
    return kube


def report(phase: Phase, *steps: Step, **changes: Any) -> MigrationReport:
    """A report of the move from seed-a to seed-b."""
    fields: dict[str, Any] = {"namespace": NAMESPACE, "shoot": SHOOT, "source": "seed-a", "destination": "seed-b"}
    return MigrationReport(**(fields | {"phase": phase, "steps": steps} | changes))


def step(name: str, second: int, who: str = "gardenlet", detail: str = "") -> Step:
    """A step in the first minute of 2026."""
    return Step(name=name, who=who, at=f"2026-01-01T00:00:{second:02}.000Z", detail=detail)


def put_report(kube: ScriptedKube, content: MigrationReport | str) -> None:
    """Store a report as the controller does."""
    name = content.shoot if isinstance(content, MigrationReport) else SHOOT
    namespace = content.namespace if isinstance(content, MigrationReport) else NAMESPACE
    document = CONFIG_MAPS.stub(config_map_name(name), namespace)
    document["metadata"]["labels"] = {LABEL: "true"}
    text = content if isinstance(content, str) else encode_report(content)
    kube.put(CONFIG_MAPS, document | {"data": {REPORT_KEY: text}})
