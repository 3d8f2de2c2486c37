"""Telling what is known: the ConfigMap, Events on the Shoot, metrics, log lines."""

import hashlib
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from backupagent.clock import Clock
from backupagent.controller.facts import parse_time
from backupagent.controller.memory import Memory, config_map
from backupagent.controller.metrics import Metrics
from backupagent.controller.steps import is_bad
from backupagent.errors import KubeConflict
from backupagent.kube.client import Kube
from backupagent.kube.resources import CONFIG_MAPS, EVENTS, SHOOTS, Document
from backupagent.model.gardener import Shoot
from backupagent.model.migration import MigrationReport, Phase, Step
from backupagent.operations.arrival import SourceSnapshot

log = logging.getLogger(__name__)

COMPONENT = "backupagent-controller"

EVENT_LIFE = timedelta(hours=1)
"""How long an API server keeps Events by default: older steps are not told again after a restart."""

MAX_MESSAGE = 1024
"""Bytes of an Event's message. Source: kubernetes 1.36, pkg/apis/core/validation/events.go, NoteLengthLimit."""


class Reporter:
    """Writes what is known where people look. Thread-safe, as long as one Shoot is reported by one thread at a time.

    Args:
        kube: The garden cluster.
        metrics: To be shown.
        clock: Source of time.
    """

    def __init__(self, kube: Kube, metrics: Metrics, clock: Clock) -> None:
        self._kube = kube
        self._metrics = metrics
        self._clock = clock
        self._told: dict[str, set[str]] = {}

    def publish(
        self, shoot: Shoot, memory: Memory, report: MigrationReport, source: Sequence[SourceSnapshot] | None
    ) -> None:
        """Tell what is new.

        The report comes first: with it the times of the steps are settled, and with them the names of the Events, so
        that a controller that is killed in between neither loses nor repeats one.

        Args:
            shoot: The Shoot.
            memory: What the ConfigMap holds.
            report: What it shall hold.
            source: What the source held when it was seen last; None when nobody saw it.

        Raises:
            KubeError: the API server does not answer, or refuses.
        """
        document = config_map(shoot, report, source)
        if document["data"] != memory.data:
            self._kube.apply(CONFIG_MAPS, document)
        self._tell_steps(shoot, report)
        self._metrics.show(report)
        before = memory.report
        if before is None or before.phase is not report.phase or before.reason != report.reason:
            self._log(report)

    def forget(self, shoot_key: str) -> None:
        """Drop what was told about a Shoot that is gone."""
        self._told.pop(shoot_key, None)
        namespace, _slash, name = shoot_key.partition("/")
        self._metrics.forget(namespace, name)

    def _log(self, report: MigrationReport) -> None:
        fields = {"shoot": f"{report.namespace}/{report.shoot}", "phase": report.phase.value, "message": report.message}
        if report.phase is Phase.FAILED:
            self._metrics.failed(report.reason)
            log.warning("a migration failed", extra={"fields": fields | {"reason": report.reason}})
            return
        if report.phase is Phase.SUCCEEDED:
            self._metrics.succeeded()
        log.info("a migration goes on", extra={"fields": fields})

    def _tell_steps(self, shoot: Shoot, report: MigrationReport) -> None:
        told = self._told.setdefault(shoot.key, set())
        for step in report.steps:
            name = _event_name(shoot, step)
            if name in told:
                continue
            seen = parse_time(step.at)
            if seen is not None and self._clock.now() - seen < EVENT_LIFE:
                self._tell(_event(shoot, step, name, seen))
            told.add(name)

    def _tell(self, event: Document) -> None:
        try:
            self._kube.create(EVENTS, event)
        except KubeConflict:
            log.debug("an event was there already", extra={"fields": {"event": event["metadata"]["name"]}})


def _event_name(shoot: Shoot, step: Step) -> str:
    """Name an Event by what it tells, so that it is made once."""
    identity = f"{shoot.uid}\n{step.name}\n{step.at}"
    return f"{shoot.name}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _event(shoot: Shoot, step: Step, name: str, seen: datetime) -> Document:
    event = EVENTS.stub(name, shoot.namespace)
    at = seen.strftime("%Y-%m-%dT%H:%M:%SZ")
    text = f"{step.name} by {step.who}{f': {step.detail}' if step.detail else ''}"
    return event | {
        "involvedObject": {
            "apiVersion": SHOOTS.api_version,
            "kind": SHOOTS.kind,
            "namespace": shoot.namespace,
            "name": shoot.name,
            "uid": shoot.uid,
        },
        "reason": step.name,
        "message": text.encode()[:MAX_MESSAGE].decode(errors="ignore"),
        "type": "Warning" if is_bad(step) else "Normal",
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
    }
