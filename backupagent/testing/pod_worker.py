"""One Pod on its way from bound to gone, in a thread of its own."""

import contextlib
import functools
import http.client
import logging
import queue
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from backupagent.clock import Clock
from backupagent.errors import KubeConflict, KubeNotFound, KubeUnavailable
from backupagent.kube.client import Kube
from backupagent.kube.resources import PODS, Document
from backupagent.testing import pod_spec
from backupagent.testing.container import Container, ContainerRun, Ended, RuntimePolicy
from backupagent.testing.pod_spec import Probe
from backupagent.testing.pod_status import FINAL_PHASES, ContainerState, restarts_after, status_document
from backupagent.testing.pod_volumes import ApiAddress, PodVolumes

NODE = "local"
RETRY_S = 0.5
"""Pause before the API server is asked again for what it did not have or did not do."""

_Answer = TypeVar("_Answer")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Node:
    """What all Pods of a kubelet share.

    Attributes:
        kube: The API server.
        images: Argv prefix of each image.
        folder: Where logs and volumes go.
        api: What the Pods' kubeconfigs name.
        policy: What the containers of a Pod may do.
        clock: Source of time.
    """

    kube: Kube
    images: Mapping[str, Sequence[str]]
    folder: Path
    api: ApiAddress
    policy: Callable[[Document], RuntimePolicy]
    clock: Clock


@dataclass
class _Slot:
    """A container of the Pod: what is known of it and what is due."""

    spec: Mapping[str, Any]
    state: ContainerState
    probe: Probe | None
    container: Container | None = None
    start_at: float | None = None
    probe_at: float = 0
    failed_probes: int = 0


class PodWorker(threading.Thread):
    """Runs one Pod until it has ended and, when it is deleted, removes it from the API.

    Args:
        node: What it runs on.
        pod: The Pod, bound or not.
        measured: Told container name and peak memory, bytes, when a container ended.
    """

    def __init__(self, node: Node, pod: Document, measured: Callable[[str, int], None]) -> None:
        self.namespace, self.pod_name = pod_spec.key(pod)
        super().__init__(name=f"pod {self.namespace}/{self.pod_name}", daemon=True)
        self._node = node
        self._pod = pod
        self._measured = measured
        self._folder = node.folder / self.namespace / self.pod_name / pod["metadata"]["uid"]
        self._volumes = PodVolumes(node.kube, pod, self._folder, node.api)
        self._policy = node.policy(pod)
        self._restart_policy: str = pod["spec"].get("restartPolicy", "Always")
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._slots = {spec["name"]: self._slot(spec) for spec in pod["spec"]["containers"]}
        self._started_at = node.clock.now()
        self._told: Mapping[str, Any] = {}
        self._prepare_at: float | None = node.clock.monotonic_s()
        self._kill_at: float | None = None
        self._deleted = False
        self._abandoned = False

    def delete(self, grace_s: float) -> None:
        """End the containers, with SIGKILL when the grace period is over, and remove the Pod from the API."""
        self._inbox.put(lambda: self._end(grace_s))

    def abandon(self) -> None:
        """Kill the containers and leave the API alone: the Pod is gone, or the kubelet stops."""
        self._inbox.put(self._give_up)

    def kill(self, container: str) -> None:
        """Kill the processes of a container; it ends with 137 and the Pod's restart policy decides.

        Raises:
            KeyError: no such container runs.
        """
        running = self._slots[container].container
        if running is None:
            raise KeyError(container)
        running.kill()

    def peak_memory(self, container: str) -> int:
        """Return the peak of the container that runs now, bytes; 0 when none does."""
        running = self._slots[container].container
        return running.peak_memory if running is not None else 0

    def run(self) -> None:
        """Do what is due until the Pod is over."""
        try:
            if self._is_bound():
                self._live()
        finally:
            for name, slot in self._slots.items():
                if slot.container is not None:
                    slot.container.close()
                    self._measured(name, slot.container.peak_memory)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _live(self) -> None:
        while not self._abandoned:
            self._do_what_is_due()
            self._tell_status()
            if self._told["phase"] in FINAL_PHASES and not self._running():
                break
            self._wait()
        if self._deleted:
            self._ask(lambda: self._node.kube.delete(PODS, self.pod_name, self.namespace, grace_period_s=0))

    def _slot(self, spec: Mapping[str, Any]) -> _Slot:
        return _Slot(spec, ContainerState(spec["name"], spec["image"]), pod_spec.readiness_probe(spec))

    def _is_bound(self) -> bool:
        """Bind the Pod to this node when it is not; return whether it is now."""
        if self._pod["spec"].get("nodeName"):
            return True
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": self.pod_name, "namespace": self.namespace},
            "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
        }
        bind = functools.partial(self._node.kube.create, PODS, binding, subresource="binding", parent=self.pod_name)
        with contextlib.suppress(KubeConflict):  # another was faster; was it this node after all, its watch tells
            return self._ask(bind) is not None
        return False

    def _wait(self) -> None:
        """Wait for a message until the next thing is due, and act on it."""
        due = [self._prepare_at, self._kill_at]
        for slot in self._slots.values():
            due.append(slot.start_at)
            due.append(slot.probe_at if slot.probe and slot.container else None)
        moments = [moment for moment in due if moment is not None]
        timeout_s = max(0.0, min(moments) - self._node.clock.monotonic_s()) if moments else None
        with contextlib.suppress(queue.Empty):
            self._inbox.get(timeout=timeout_s)()

    def _do_what_is_due(self) -> None:
        now = self._node.clock.monotonic_s()
        if self._prepare_at is not None and now >= self._prepare_at:
            self._prepare()
        for slot in self._slots.values():
            if slot.start_at is not None and now >= slot.start_at:
                self._start(slot)
            if slot.probe and slot.container and now >= slot.probe_at:
                self._ask_whether_ready(slot, slot.probe)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            for container in self._running():
                container.kill()

    def _prepare(self) -> None:
        """Make the volumes; with them all containers may start."""
        self._prepare_at = None
        reason, message = self._obstacle()
        for slot in self._slots.values():
            slot.state.waiting, slot.state.message = reason, message
            slot.start_at = None if message else self._node.clock.monotonic_s()

    def _obstacle(self) -> tuple[str, str]:
        """Return why the containers cannot start: a reason and a message, empty when nothing is in the way."""
        missing = [slot.state.image for slot in self._slots.values() if slot.state.image not in self._node.images]
        if missing:
            return "ErrImagePull", f"no such image: {', '.join(missing)}"
        refused = pod_spec.not_emulated(self._pod)
        if refused:
            return "CreateContainerConfigError", f"not emulated: {refused}"
        try:
            self._volumes.prepare()
        except (KubeNotFound, KubeUnavailable) as error:
            self._prepare_at = self._node.clock.monotonic_s() + RETRY_S
            return "ContainerCreating", str(error)
        return "ContainerCreating", ""

    def _start(self, slot: _Slot) -> None:
        slot.start_at = None
        values = pod_spec.environment(self._pod, slot.spec)
        run = ContainerRun(
            argv=[*self._node.images[slot.state.image], *pod_spec.arguments(slot.spec, values)],
            environment=values,
            log_path=log_path(self._node.folder, self.namespace, self.pod_name, slot.state.name),
            mounts=self._volumes.mounts(slot.spec),
            policy=self._policy,
            working_folder=slot.spec.get("workingDir") or "/",
        )
        slot.state.starts(self._node.clock.now())
        slot.state.ready = slot.probe is None
        slot.probe_at = self._node.clock.monotonic_s() + (slot.probe.initial_delay_s if slot.probe else 0)
        slot.failed_probes = 0
        scratch = self._folder / "containers" / f"{slot.state.name}-{slot.state.restarts}"
        slot.container = Container(run, scratch, lambda ended: self._inbox.put(lambda: self._note_end(slot, ended)))

    def _note_end(self, slot: _Slot, ended: Ended) -> None:
        self._measured(slot.state.name, ended.peak_memory)
        slot.container = None
        slot.state.ends(ended, self._node.clock.now(), self._restart_policy)
        _log.info("container ended", extra={"fields": {"pod": self.name, "container": slot.state.name, "how": ended}})
        if self._deleted:
            slot.state.gives_up()
        elif restarts_after(ended, self._restart_policy):
            slot.start_at = self._node.clock.monotonic_s() + slot.state.pause_s()

    def _ask_whether_ready(self, slot: _Slot, probe: Probe) -> None:
        slot.probe_at = self._node.clock.monotonic_s() + probe.period_s
        if answers(probe):
            slot.failed_probes = 0
            slot.state.ready = True
        else:
            slot.failed_probes += 1
            slot.state.ready = slot.state.ready and slot.failed_probes < probe.failures

    def _end(self, grace_s: float) -> None:
        if not self._deleted:
            for container in self._running():
                container.terminate()
        self._deleted = True
        self._prepare_at = None
        self._kill_at = self._node.clock.monotonic_s() + grace_s
        for slot in self._slots.values():
            slot.start_at = None
            if slot.container is None:
                slot.state.gives_up()

    def _give_up(self) -> None:
        self._abandoned = True

    def _running(self) -> list[Container]:
        return [slot.container for slot in self._slots.values() if slot.container is not None]

    def _tell_status(self) -> None:
        """Write the Pod's status when it changed."""
        states = [slot.state for slot in self._slots.values()]
        previous = self._told or self._pod.get("status", {})
        status = status_document(states, previous, started_at=self._started_at, now=self._node.clock.now())
        if status == self._told:
            return
        change = {"status": status}
        written = self._ask(
            lambda: self._node.kube.patch(PODS, self.pod_name, self.namespace, change, subresource="status")
        )
        self._told = status
        if written and "deletionTimestamp" in written["metadata"] and status["phase"] in FINAL_PHASES:
            self._deleted = True  # it ended by itself between the request for its deletion and the news of it

    def _ask(self, request: Callable[[], _Answer]) -> _Answer | None:
        """Make a request until the API server answers; None when the Pod is gone or the kubelet stops."""
        while not self._abandoned:
            try:
                return request()
            except KubeUnavailable as error:
                _log.warning("no answer from the API server", extra={"fields": {"pod": self.name, "error": str(error)}})
                with contextlib.suppress(queue.Empty):
                    self._inbox.get(timeout=RETRY_S)()
            except KubeNotFound:
                self._abandoned = True
        return None


def log_path(folder: Path, namespace: str, pod: str, container: str) -> Path:
    """Return the file that has a container's output: of all Pods of that name, through all restarts."""
    return folder / namespace / pod / f"{container}.log"


def answers(probe: Probe) -> bool:
    """Ask a container whether it is ready."""
    connection = http.client.HTTPConnection(probe.host, probe.port, timeout=probe.timeout_s)
    try:
        connection.request("GET", probe.path)
        return http.HTTPStatus.OK <= connection.getresponse().status < http.HTTPStatus.BAD_REQUEST
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
