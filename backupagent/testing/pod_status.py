"""What the kubelet knows of a Pod's containers, and the status document that says so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backupagent.testing.container import Ended
from backupagent.testing.pod_spec import POD_IP

FINAL_PHASES = ("Succeeded", "Failed")
FIRST_RESTART_S = 0.5
LONGEST_RESTART_S = 5.0
"""Pauses before restarts; the kubelet's are 10 s to 5 min, too long for tests."""


@dataclass
class ContainerState:
    """One container of a Pod, through all its restarts.

    Attributes:
        name: Its name.
        image: Its image.
        waiting: Why it does not run; empty when it runs or ended for good.
        message: More about ``waiting``.
        started_at: When it was started last.
        last_started_at: When it was started the time before.
        ended: How it ended last.
        ended_at: When.
        running: Whether it runs.
        ready: Whether it runs and its probe said yes.
        restarts: How often it was started again.
    """

    name: str
    image: str
    waiting: str = "ContainerCreating"
    message: str = ""
    started_at: datetime | None = None
    last_started_at: datetime | None = None
    ended: Ended | None = None
    ended_at: datetime | None = None
    running: bool = False
    ready: bool = False
    restarts: int = 0

    def starts(self, now: datetime) -> None:
        """Note that it was started."""
        if self.started_at is not None:
            self.restarts += 1
        self.last_started_at, self.started_at = self.started_at, now
        self.running, self.waiting, self.message = True, "", ""

    def ends(self, ended: Ended, now: datetime, restart_policy: str) -> None:
        """Note how it ended."""
        self.ended, self.ended_at, self.running, self.ready = ended, now, False, False
        if restarts_after(ended, restart_policy):
            self.waiting = "CrashLoopBackOff"

    def gives_up(self) -> None:
        """Note that it is not started (again): its Pod is being deleted."""
        self.waiting, self.message = "", ""

    def pause_s(self) -> float:
        """Return how long it waits before its next start, seconds."""
        return min(FIRST_RESTART_S * 2.0**self.restarts, LONGEST_RESTART_S)

    def document(self) -> dict[str, Any]:
        """Return its entry in ``containerStatuses``."""
        document: dict[str, Any] = {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "ready": self.ready,
            "started": self.running,
            "restartCount": self.restarts,
        }
        if self.running:
            document["state"] = {"running": {"startedAt": rfc3339(self.started_at)}}
            document["lastState"] = self._terminated()
        elif self.waiting or not self.ended:
            document["state"] = {"waiting": {"reason": self.waiting or "ContainerCreating", "message": self.message}}
            document["lastState"] = self._terminated()
        else:
            document["state"] = self._terminated()
        return document

    def _terminated(self) -> dict[str, Any]:
        if self.ended is None:
            return {}
        ended = self.ended
        started_at = rfc3339(self.last_started_at if self.running else self.started_at)
        ended_at = rfc3339(self.ended_at)
        facts = {"exitCode": ended.exit_code, "reason": ended.reason, "startedAt": started_at, "finishedAt": ended_at}
        return {"terminated": facts | ({"message": ended.message} if ended.message else {})}


def restarts_after(ended: Ended, restart_policy: str) -> bool:
    """Whether a container is started again."""
    return restart_policy == "Always" or (restart_policy == "OnFailure" and ended.exit_code != 0)


def phase(states: Sequence[ContainerState]) -> str:
    """Return the Pod's phase.

    Source:
        https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase
    """
    if any(state.waiting and state.started_at is None for state in states):
        return "Pending"
    if any(state.running or state.waiting for state in states):
        return "Running"
    succeeded = all(state.ended and state.ended.exit_code == 0 for state in states)
    return "Succeeded" if succeeded else "Failed"


def status_document(
    states: Sequence[ContainerState], previous: Mapping[str, Any], *, started_at: datetime, now: datetime
) -> dict[str, Any]:
    """Return a Pod's status.

    Args:
        states: Its containers.
        previous: The status as it was; conditions that others wrote are kept, times of what did not change too.
        started_at: When the kubelet took the Pod.
        now: The time.
    """
    is_phase = phase(states)
    ready = all(state.ready for state in states)
    truths = {
        "PodScheduled": True,
        "Initialized": True,
        "ContainersReady": ready,
        "Ready": ready,
    }
    return {
        "phase": is_phase,
        "startTime": rfc3339(started_at),
        "hostIP": POD_IP,
        "podIP": POD_IP,
        "podIPs": [{"ip": POD_IP}],
        "conditions": _conditions(truths, previous.get("conditions", ()), is_phase, now),
        "containerStatuses": [state.document() for state in states],
    }


def _conditions(
    truths: Mapping[str, bool], previous: Sequence[Mapping[str, Any]], is_phase: str, now: datetime
) -> list[Mapping[str, Any]]:
    found = {condition["type"]: condition for condition in previous}
    for name, holds in truths.items():
        condition: dict[str, Any] = {"type": name, "status": str(holds), "lastTransitionTime": rfc3339(now)}
        if not holds:
            condition["reason"] = "PodCompleted" if is_phase in FINAL_PHASES else "ContainersNotReady"
        if found.get(name, {}).get("status") == condition["status"]:
            condition["lastTransitionTime"] = found[name].get("lastTransitionTime", rfc3339(now))
        found[name] = condition
    return list(found.values())


def rfc3339(moment: datetime | None) -> str | None:
    """Return a time as the API wants it, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None
