"""The steps of a migration as they are seen: each once, in the order in which they came."""

from dataclasses import dataclass

from backupagent.controller.facts import Facts, Stage, parse_time, timestamp
from backupagent.model.gardener import MIGRATE, RESTORE
from backupagent.model.migration import Step

REQUESTED = "MigrationRequested"
API_SERVER_STOPPED = "ApiServerStopped"
API_SERVER_STARTED = "ApiServerStarted"
RESTORE_SUCCEEDED = "RestoreSucceeded"

GARDENLET = "gardenlet"
DRUID = "druid"
SIDECAR = "sidecar"
CONTROLLER = "controller"
OPERATOR = "operator"

MAX_STEPS = 200
"""Steps in a report: the flow has 25; the rest is room for failures that come and go."""

ALREADY_GONE = "the API server was gone when the controller first looked: the downtime began earlier than it says"


@dataclass
class Timeline:
    """The steps seen so far.

    Attributes:
        at: When the controller looks now, RFC 3339.
        steps: In order.
        notes: What the operator should know, each once.
    """

    at: str
    steps: list[Step]
    notes: list[str]

    def has(self, name: str) -> bool:
        """Whether a step was seen."""
        return any(step.name == name for step in self.steps)

    def when(self, name: str) -> str:
        """Return when a step was seen first; empty when it was not."""
        return next((step.at for step in self.steps if step.name == name), "")

    def once(self, name: str, who: str, detail: str = "", *, at: str = "") -> None:
        """Add a step that happens once."""
        if not self.has(name):
            self.add(name, who, detail, at=at)

    def add(self, name: str, who: str, detail: str = "", *, at: str = "") -> None:
        """Add a step that may happen again."""
        if len(self.steps) < MAX_STEPS:
            self.steps.append(Step(name=name, who=who, at=at or self.at, detail=detail))

    def note(self, text: str) -> None:
        """Tell the operator something, once."""
        if text and text not in self.notes:
            self.notes.append(text)

    @property
    def downtime_s(self) -> float | None:
        """From the API server's end to its new beginning, seconds; None until both were seen."""
        stopped, started = parse_time(self.when(API_SERVER_STOPPED)), parse_time(self.when(API_SERVER_STARTED))
        if stopped is None or started is None:
            return None
        return round(max(0.0, (started - stopped).total_seconds()), 3)


def see(timeline: Timeline, facts: Facts) -> None:
    """Add what the API shows now; what was missed is not made up."""
    if facts.stage is Stage.REQUESTED:
        timeline.once(REQUESTED, OPERATOR, f"from {facts.source} to {facts.destination}")
        if not facts.refusals:
            timeline.once("PreflightPassed", CONTROLLER)
        return
    _see_migrate(timeline, facts)
    if facts.stage >= Stage.RESTORING:
        _see_restore(timeline, facts)


def _see_migrate(timeline: Timeline, facts: Facts) -> None:
    operation = facts.shoot.operation
    if operation.type == MIGRATE:
        first_look = not timeline.steps
        timeline.once("MigrateStarted", GARDENLET)
        if facts.stage is Stage.RELEASED or not facts.control_plane.api_server:
            _see_api_server_stopped(timeline, facts, first_look=first_look)
    entry = facts.entry
    if entry is not None and entry.seed == facts.destination:
        timeline.once("BackupEntryMigrated", GARDENLET)
    if facts.stage is Stage.RELEASED:
        owner = facts.shoot.status_seed
        timeline.once(
            "SourceReleased", GARDENLET, f"status.seedName is {owner}" if owner else "status.seedName is gone"
        )


def _see_api_server_stopped(timeline: Timeline, facts: Facts, *, first_look: bool) -> None:
    if timeline.has(API_SERVER_STOPPED):
        return
    if first_look:
        timeline.note(ALREADY_GONE)
    # lastOperation was written after the Deployment had gone, but before now.
    migrating = facts.shoot.operation.type == MIGRATE
    updated = parse_time(facts.shoot.operation.updated) if first_look and migrating else None
    now = parse_time(timeline.at)
    earlier = updated is not None and now is not None and updated < now
    timeline.once(API_SERVER_STOPPED, GARDENLET, at=timestamp(updated) if updated is not None and earlier else "")


def _see_restore(timeline: Timeline, facts: Facts) -> None:
    if facts.stage is Stage.RESTORING:
        if not timeline.steps and not facts.control_plane.api_server:
            _see_api_server_stopped(timeline, facts, first_look=True)
        timeline.once("RestoreStarted", GARDENLET)
    _see_backups(timeline, facts)
    _see_etcd(timeline, facts)
    if facts.stage is Stage.RESTORED and facts.shoot.operation.type == RESTORE:
        timeline.once(RESTORE_SUCCEEDED, GARDENLET)


def _see_backups(timeline: Timeline, facts: Facts) -> None:
    entry, source_entry, there = facts.entry, facts.source_entry, facts.destination_bucket
    if source_entry is not None:
        timeline.once("SourceBackupEntryDeployed", GARDENLET, f"it points at {source_entry.bucket}")
    if entry is not None and there is not None and entry.bucket == there.name:
        timeline.once("BackupEntryRestored", GARDENLET, f"it points at {entry.bucket}")
    task = facts.control_plane.copy_task
    if task is not None:
        timeline.once("CopyTaskCreated", GARDENLET)
        if task.succeeded:
            timeline.once("CopyTaskSucceeded", DRUID)
    if timeline.has("SourceBackupEntryDeployed") and (source_entry is None or source_entry.deleting):
        timeline.once("SourceBackupEntryDeleted", GARDENLET)


def _see_etcd(timeline: Timeline, facts: Facts) -> None:
    plane = facts.control_plane
    if plane.etcd:
        timeline.once("EtcdDeployed", GARDENLET)
    if plane.restored is not None:
        restored = plane.restored
        timeline.once("EtcdRestored", SIDECAR, f"revision {restored.revision}, HashKV {restored.hash_kv}")
    if plane.api_server:
        _see_api_server_started(timeline, facts)


def _see_api_server_started(timeline: Timeline, facts: Facts) -> None:
    """Take the Deployment's own time: a look may come late, and downtime is what everybody asks for."""
    created = parse_time(facts.control_plane.api_server_created)
    stopped, now = parse_time(timeline.when(API_SERVER_STOPPED)), parse_time(timeline.at)
    plausible = created is not None and now is not None and (stopped or created) <= created <= now
    timeline.once(API_SERVER_STARTED, GARDENLET, at=timestamp(created) if created is not None and plausible else "")
