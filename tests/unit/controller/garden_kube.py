"""An API server in memory for the controller, and a controller whose looks are finished before it looks on."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from migration_flow import NAMESPACE, SHOOT, Flow
from scripted_kube import ScriptedKube

from backupagent.cancel import Cancel
from backupagent.clock import Clock, FakeClock
from backupagent.controller.evidence import Desk, Evidence, Inspector, Question
from backupagent.controller.facts import Clusters
from backupagent.controller.metrics import Metrics
from backupagent.controller.reconciler import Reconciler
from backupagent.controller.reporting import Reporter
from backupagent.errors import KubeConflict
from backupagent.kube.resources import Document, Resource

KEY = f"{NAMESPACE}/{SHOOT}"


class GardenKube(ScriptedKube):
    """Keeps what is created, applied and patched; gives uids."""

    def create(self, resource: Resource, document: Document) -> Document:
        super().create(resource, document)
        metadata = document["metadata"]
        if (resource.plural, metadata.get("namespace", ""), metadata["name"]) in self.objects:
            raise KubeConflict("it exists", what=f"create {resource.plural}")
        return self.put(resource, document)

    def apply(self, resource: Resource, document: Document) -> Document:
        self._may("patch", resource.plural)
        metadata = {"uid": f"{document['metadata']['name']}-uid"} | document["metadata"]
        return self.put(resource, {**document, "metadata": metadata})

    def patch(
        self, resource: Resource, name: str, namespace: str, changes: Mapping[str, Any], *, subresource: str = ""
    ) -> Document:
        assert set(changes) == {"status"} if subresource else "status" not in changes
        stored = self.objects[resource.plural, namespace, name]
        for part, fields in changes.items():
            stored.setdefault(part, {}).update(fields)
        return self.put(resource, stored)

    def delete(self, resource: Resource, name: str, namespace: str = "") -> None:
        self.objects.pop((resource.plural, namespace, name), None)


class GardenFlow(Flow):
    """A flow in memory, by default with a clock that moves when it is told.

    Args:
        home: Where the buckets are.
        released_seed: See ``Flow``.
        kube: The API server.
        clock: Source of time.
    """

    def __init__(
        self, home: Path, *, released_seed: str = "seed-b", kube: GardenKube | None = None, clock: Clock | None = None
    ) -> None:
        self.kube = kube or GardenKube()
        super().__init__(self.kube, home, clock or FakeClock(), released_seed=released_seed)

    @contextmanager
    def controller(self) -> Iterator["Looker"]:
        """Give a controller that was started just now."""
        cancel = Cancel()
        looker = Looker(self, Inspector(self.kube, cancel))
        try:
            yield looker
        finally:
            cancel.set("the end of the test")


class Immediate(Executor):
    """Runs what is submitted at once."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*args, **kwargs))
        return future


class Looker:
    """A controller that looks when it is told to."""

    def __init__(self, flow: GardenFlow, inspector: Inspector) -> None:
        self.asked: list[Question] = []

        def look(asked: Question) -> Evidence:
            self.asked.append(asked)
            return inspector.look(asked)

        desk = Desk(look, lambda _key: None, Immediate())
        reporter = Reporter(flow.kube, Metrics(), flow.clock)
        self._reconciler = Reconciler(Clusters(flow.kube), desk, reporter, flow.clock, poll_s=2.0)

    def look(self) -> float | None:
        """Ask the buckets and take the answer; twice, since one answer may raise the next question."""
        pause_s = None
        for _round in range(2):
            self._reconciler.reconcile(KEY)
            pause_s = self._reconciler.reconcile(KEY)
        return pause_s
