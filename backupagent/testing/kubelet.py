"""A kubelet that runs Pods as local processes.

It takes the Pods of all namespaces from a real API server, binds them to itself, runs their containers and reports
what became of them, so that the real controllers (Jobs, garbage collection, namespaces) and our programs cannot tell
the difference: same arguments, environment, volumes at their exact paths, service account, read-only root, memory
limit, restarts, readiness, graceful deletion. ``container.py`` says what of a container is emulated,
``pod_spec.not_emulated`` what of a Pod is not: such a Pod never starts, and its status says why.

An image is a name for the beginning of a command line, ``{"backupagent": [python, "-m", "backupagent"]}``; a Pod of
another image waits for ever with ``ErrImagePull``.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.errors import KubeConflict, KubeError
from backupagent.kube.client import Change, Kube
from backupagent.kube.resources import PODS, Document, Resource
from backupagent.testing.container import RuntimePolicy, require_namespaces
from backupagent.testing.pod_spec import POD_IP, grace_period_s, is_owned_by_job, key
from backupagent.testing.pod_status import FINAL_PHASES, rfc3339
from backupagent.testing.pod_volumes import ApiAddress
from backupagent.testing.pod_worker import NODE, Node, PodWorker, log_path

__all__ = ["ApiAddress", "Kubelet", "RuntimePolicy", "default_policy"]

NODES = Resource("", "v1", "Node", "nodes", namespaced=False)
JOB_POLICY = RuntimePolicy(read_only_root=True, temp_folder=False, memory_limit=256 << 20)
STOP_TIMEOUT_S = 20.0

_log = logging.getLogger(__name__)


def default_policy(pod: Document) -> RuntimePolicy:
    """Return what a Pod's containers may do: those of Jobs nothing but compute, in 256 MiB; others write /tmp too."""
    return JOB_POLICY if is_owned_by_job(pod) else RuntimePolicy()


class Kubelet:
    """The kubelet of the only node; a context manager that starts and stops it. Thread-safe.

    Args:
        kube: The API server, as an administrator.
        images: Argv prefix of each image.
        folder: Where logs (``NAMESPACE/POD/CONTAINER.log``) and volumes go.
        api: Where Pods reach the API server.
        policy: Chooses what the containers of a Pod may do.
        clock: Source of time.
    """

    def __init__(
        self,
        kube: Kube,
        images: Mapping[str, Sequence[str]],
        folder: Path,
        *,
        api: ApiAddress,
        policy: Callable[[Document], RuntimePolicy] = default_policy,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._node = Node(kube, images, folder.resolve(), api, policy, clock)
        self._cancel = Cancel()
        self._watcher = threading.Thread(target=self._watch, name="kubelet", daemon=True)
        self._lock = threading.Lock()
        self._workers: dict[str, PodWorker] = {}
        self._peaks: dict[tuple[str, str], dict[str, int]] = {}

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop it."""
        self.stop()

    def start(self) -> None:
        """Register the node and begin to run Pods.

        Raises:
            ServerMissing: this machine does not let its user make namespaces.
            KubeError: the API server does not let the node register.
        """
        require_namespaces(self._node.folder / "probe")
        self._register()
        self._watcher.start()

    def stop(self) -> None:
        """Kill all containers; the Pods stay in the API as they are, as when a node loses its power."""
        self._cancel.set("stop")
        self._watcher.join(STOP_TIMEOUT_S)
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            worker.abandon()
        for worker in workers:
            worker.join(STOP_TIMEOUT_S)
        with contextlib.suppress(KubeError):  # the API server may be gone already
            self._node.kube.delete(NODES, NODE)

    def logs(self, namespace: str, pod: str, container: str) -> str:
        """Return what a container wrote: of all Pods of that name, through all restarts; empty when nothing."""
        place = log_path(self._node.folder, namespace, pod, container)
        return place.read_text(errors="replace") if place.exists() else ""

    def peak_memory(self, namespace: str, pod: str, container: str | None = None) -> int:
        """Return the greatest memory that a Pod's containers had so far, restarts and earlier Pods included.

        It is the sum of VmHWM over a container's processes, sampled every 50 ms, and at least what the kernel measured
        (ru_maxrss). Pages that processes share count once for each, mapped files count: never less than the truth.

        Args:
            namespace: The Pod's namespace.
            pod: Its name; it may be gone.
            container: One container; by default the sum of the peaks of all.

        Returns:
            Bytes; 0 when there never was such a Pod.
        """
        with self._lock:
            peaks = dict(self._peaks.get((namespace, pod), {}))
        worker = self._worker(namespace, pod)
        if worker is not None:
            peaks = {name: max(peak, worker.peak_memory(name)) for name, peak in peaks.items()}
        return peaks.get(container, 0) if container is not None else sum(peaks.values())

    def kill_pod(self, namespace: str, name: str, container: str) -> None:
        """Send SIGKILL to the processes of a container; the Pod's restart policy decides what comes after.

        Raises:
            KeyError: no such container runs here.
        """
        worker = self._worker(namespace, name)
        if worker is None:
            raise KeyError(f"{namespace}/{name}")
        worker.kill(container)

    def _worker(self, namespace: str, pod: str) -> PodWorker | None:
        with self._lock:
            found = [each for each in self._workers.values() if (each.namespace, each.pod_name) == (namespace, pod)]
        return found[-1] if found else None

    def _register(self) -> None:
        """Make the Node object: controllers remove Pods of nodes that do not exist."""
        now = rfc3339(self._node.clock.now())
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
        addresses = [{"type": "InternalIP", "address": POD_IP}]
        status = {"conditions": [ready | {"lastTransitionTime": now}], "addresses": addresses}
        with contextlib.suppress(KubeConflict):  # left by one that was killed
            self._node.kube.create(NODES, NODES.stub(NODE) | {"status": status})

    def _watch(self) -> None:
        for event in self._node.kube.watch(PODS, cancel=self._cancel):
            if event.change is Change.DELETED:
                self._forget(event.object)
            elif event.change is not Change.SYNCED and event.object["spec"].get("nodeName", NODE) == NODE:
                self._take(event.object)

    def _take(self, pod: Document) -> None:
        uid = pod["metadata"]["uid"]
        with self._lock:
            self._workers = {each: worker for each, worker in self._workers.items() if worker.is_alive()}
            worker = self._workers.get(uid)
        if "deletionTimestamp" in pod["metadata"]:
            if worker is not None:
                worker.delete(grace_period_s(pod))
            elif pod["metadata"].get("deletionGracePeriodSeconds"):
                # Nothing of it runs here: it never did, or this kubelet was started after it.
                self._node.kube.delete(PODS, pod["metadata"]["name"], pod["metadata"]["namespace"], grace_period_s=0)
        elif worker is None and pod.get("status", {}).get("phase") not in FINAL_PHASES:
            self._run(uid, pod)

    def _run(self, uid: str, pod: Document) -> None:
        names = [container["name"] for container in pod["spec"]["containers"]]
        with self._lock:
            peaks = self._peaks.setdefault(key(pod), {})
            for name in names:
                peaks.setdefault(name, 0)

        def measured(container: str, memory: int) -> None:
            with self._lock:
                peaks[container] = max(peaks[container], memory)

        worker = PodWorker(self._node, pod, measured)
        with self._lock:
            self._workers[uid] = worker
        worker.start()
        _log.info("pod taken", extra={"fields": {"pod": worker.name}})

    def _forget(self, pod: Mapping[str, Any]) -> None:
        """End what runs of a Pod that was removed from the API without waiting for it."""
        with self._lock:
            worker = self._workers.get(pod["metadata"]["uid"])
        if worker is not None:
            worker.abandon()
