"""etcd-druid as a script: does to copy tasks and Etcds what the real one does, with the same objects.

It looks at one object at a time, whenever that or something of it changed, and brings the cluster to what it asks for;
what goes wrong is tried again. ``druid_copy.py`` and ``druid_etcd.py`` say what the objects look like.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.errors import ConfigError, KubeConflict, KubeError
from backupagent.kube.client import Change, Kube
from backupagent.kube.manifests import timestamp
from backupagent.kube.resources import (
    ETCD_COPY_BACKUPS_TASKS,
    ETCDS,
    JOBS,
    LEASES,
    PODS,
    Document,
    Resource,
)
from backupagent.testing.druid_copy import FINALIZER, MANAGED_BY, copy_job, job_name, task_status
from backupagent.testing.druid_etcd import (
    Images,
    MemberPorts,
    Readiness,
    etcd_status,
    is_deleted,
    member_name,
    member_objects,
    member_pod,
)
from backupagent.testing.server_process import free_ports

__all__ = ["Druid", "Images", "Readiness"]

RETRY_S = 0.3
STOP_TIMEOUT_S = 10.0

_log = logging.getLogger(__name__)


class _Key(NamedTuple):
    """Which object to look at."""

    resource: Resource
    namespace: str
    name: str


_Watch = tuple[Resource, Mapping[str, str], Callable[[Document], _Key | None]]
"""What is watched, with which labels, and which object a change concerns."""


class Druid:
    """The operator; a context manager that starts and stops it.

    Args:
        kube: The API server, as an administrator.
        images: Images of the containers that it makes.
        readiness: When a member counts as ready.
        clock: Source of time.

    Attributes:
        images: May be replaced while it runs, e.g. to let the next copy Job do nothing; objects that exist stay.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        images: Images | None = None,
        readiness: Readiness | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._kube = kube
        self.images = images or Images()
        self._readiness = readiness or Readiness()
        self._clock = clock
        self._cancel = Cancel()
        self._due: queue.SimpleQueue[_Key | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        watches: tuple[_Watch, ...] = (
            (ETCD_COPY_BACKUPS_TASKS, {}, _itself(ETCD_COPY_BACKUPS_TASKS)),
            (ETCDS, {}, _itself(ETCDS)),
            (JOBS, MANAGED_BY, _owner_of(ETCD_COPY_BACKUPS_TASKS)),
            (PODS, MANAGED_BY, _owner_of(ETCDS)),
        )
        self._threads = [
            threading.Thread(target=self._guarded, args=(self._watch, *watch), name=f"druid {watch[0].plural}")
            for watch in watches
        ]
        self._threads.append(threading.Thread(target=self._guarded, args=(self._work,), name="druid"))

    def __enter__(self) -> Self:
        """Start it."""
        for thread in self._threads:
            thread.daemon = True
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop it; the objects stay as they are."""
        self.stop()

    def stop(self) -> None:
        """Stop it.

        Raises:
            BaseException: what ended one of its threads before.
        """
        self._cancel.set("stop")
        self._due.put(None)
        for thread in self._threads:
            thread.join(STOP_TIMEOUT_S)
        if self._failure is not None:
            raise self._failure

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # noqa: BLE001 - told by stop()
            _log.exception("druid ended")
            self._failure = self._failure or error

    def _watch(
        self, resource: Resource, labels: Mapping[str, str], concerned: Callable[[Document], _Key | None]
    ) -> None:
        for event in self._kube.watch(resource, labels=labels, cancel=self._cancel):
            key = concerned(event.object) if event.change is not Change.SYNCED else None
            if key is not None:
                self._due.put(key)

    def _work(self) -> None:
        reconcile = {ETCD_COPY_BACKUPS_TASKS: self._reconcile_task, ETCDS: self._reconcile_etcd}
        while (key := self._due.get()) is not None:
            document = self._find(key)
            if document is None:
                continue
            try:
                reconcile[key.resource](document)
            except KubeError as error:
                _log.info("tried again", extra={"fields": {"name": key.name, "reason": str(error)}})
                self._look_again(key)

    def _look_again(self, key: _Key) -> None:
        timer = threading.Timer(RETRY_S, self._due.put, [key])
        timer.daemon = True
        timer.start()

    def _find(self, key: _Key) -> Document | None:
        with contextlib.suppress(KubeError):  # the API server restarts: its watches will tell everything again
            return self._kube.find(key.resource, key.name, key.namespace)
        return None

    # ---- copy tasks

    def _reconcile_task(self, task: Document) -> None:
        name, namespace = job_name(task), task["metadata"]["namespace"]
        job = self._kube.find(JOBS, name, namespace)
        if is_deleted(task):
            if job is None:
                self._release(ETCD_COPY_BACKUPS_TASKS, task)
            elif not is_deleted(job):
                self._kube.delete(JOBS, name, namespace, propagation="Foreground")
            return
        task = self._claim(ETCD_COPY_BACKUPS_TASKS, task)
        error = ""
        if job is None:
            try:
                job = self._kube.create(JOBS, copy_job(task, self.images.copy))
            except ConfigError as wrong:
                error = wrong.message
        self._tell(ETCD_COPY_BACKUPS_TASKS, task, task_status(task, job, error))

    # ---- Etcds

    def _reconcile_etcd(self, etcd: Document) -> None:
        name, namespace = member_name(etcd), etcd["metadata"]["namespace"]
        pod = self._kube.find(PODS, name, namespace)
        if is_deleted(etcd):
            self._remove_etcd(etcd, pod)
            return
        etcd = self._claim(ETCDS, etcd)
        if pod is None:
            pod = self._make_member(etcd)
        self._tell(ETCDS, etcd, etcd_status(etcd, pod, timestamp(self._clock.now())))

    def _make_member(self, etcd: Document) -> Document:
        """Make a Pod at ports that are free now, and its configuration with it."""
        ports = MemberPorts(*free_ports(4))
        for resource, document in member_objects(etcd, ports):
            if resource is LEASES:
                with contextlib.suppress(KubeConflict):  # it exists, and says what the sidecar told
                    self._kube.create(resource, document)
            else:
                self._kube.apply(resource, document)
        return self._kube.create(PODS, member_pod(etcd, ports, self.images, self._readiness))

    def _remove_etcd(self, etcd: Document, pod: Document | None) -> None:
        name, namespace = member_name(etcd), etcd["metadata"]["namespace"]
        if pod is not None:
            if not is_deleted(pod):
                self._kube.delete(PODS, name, namespace)
            return
        for resource, document in member_objects(etcd, MemberPorts(0, 0, 0, 0)):
            self._kube.delete(resource, document["metadata"]["name"], namespace)
        self._release(ETCDS, etcd)

    # ---- both

    def _claim(self, resource: Resource, document: Document) -> Document:
        """Put the finalizer on an object."""
        found = document["metadata"].get("finalizers", [])
        return document if FINALIZER in found else self._set_finalizers(resource, document, [*found, FINALIZER])

    def _release(self, resource: Resource, document: Document) -> None:
        found = document["metadata"].get("finalizers", [])
        if FINALIZER in found:
            self._set_finalizers(resource, document, [each for each in found if each != FINALIZER])

    def _set_finalizers(self, resource: Resource, document: Document, finalizers: list[str]) -> Document:
        metadata = document["metadata"]
        changes = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}}
        return self._kube.patch(resource, metadata["name"], metadata["namespace"], changes)

    def _tell(self, resource: Resource, document: Document, status: dict[str, Any]) -> None:
        """Write an object's status when it differs, if nobody changed the object meanwhile."""
        metadata = document["metadata"]
        told = document.get("status", {})
        if all(told.get(name) == value for name, value in status.items()):
            return
        changes = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status}
        self._kube.patch(resource, metadata["name"], metadata["namespace"], changes, subresource="status")


def _itself(resource: Resource) -> Callable[[Document], _Key]:
    return lambda document: _Key(resource, document["metadata"]["namespace"], document["metadata"]["name"])


def _owner_of(resource: Resource) -> Callable[[Document], _Key | None]:
    """Return what finds the owner of that kind; Pods of Jobs have another."""

    def find(document: Document) -> _Key | None:
        owners = document["metadata"].get("ownerReferences", ())
        names = [each["name"] for each in owners if each["kind"] == resource.kind]
        return _Key(resource, document["metadata"]["namespace"], names[0]) if names else None

    return find
