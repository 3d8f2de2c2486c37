"""Everything that the API says about one migration, gathered anew at every look."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from backupagent.controller import preflight
from backupagent.controller.memory import Memory
from backupagent.errors import MalformedContent
from backupagent.kube.client import Kube
from backupagent.kube.resources import (
    BACKUP_BUCKETS,
    BACKUP_ENTRIES,
    DEPLOYMENTS,
    ETCD_COPY_BACKUPS_TASKS,
    ETCDS,
    LEASES,
    SEEDS,
    Document,
)
from backupagent.model.gardener import (
    API_SERVER,
    ETCD_MAIN,
    MIGRATE,
    RESTORE,
    SOURCE_ENTRY_PREFIX,
    SUCCEEDED,
    BackupBucket,
    BackupEntry,
    CopyTask,
    Seed,
    Shoot,
    annotation,
    created_at,
    name_of,
)
from backupagent.model.migration import MigrationReport, Phase
from backupagent.model.restored import ANNOTATION, Restored, decode_restored

RECENT = timedelta(hours=1)
"""A restore that ended longer ago is nobody's news: a controller that is installed today does not judge the
migrations of last week, whose sidecars told nothing."""

MEMBER = re.compile(rf"{ETCD_MAIN}-[0-9]{{1,3}}")
"""Names of the members of the Etcd, and of their Leases."""


class Stage(IntEnum):
    """Where Gardener's flow is; in its order."""

    REQUESTED = 0  # bound to the destination; nothing has begun
    MIGRATING = 1  # the source control plane is taken down
    RELEASED = 2  # the source has let go
    RESTORING = 3  # the destination builds the control plane
    RESTORED = 4  # gardenlet says that it is done


@dataclass(frozen=True)
class Clusters:
    """The clusters of a landscape.

    Attributes:
        garden: Where Shoots and Seeds are.
        seeds: Clusters of Seeds by name; a Seed that is not named is the garden cluster.
    """

    garden: Kube
    seeds: Mapping[str, Kube] = field(default_factory=dict)

    def seed(self, name: str) -> Kube:
        """Return the cluster of a Seed."""
        return self.seeds.get(name, self.garden)


@dataclass(frozen=True, kw_only=True)
class ControlPlane:
    """The control plane of the Shoot, on the Seed that has it now.

    Attributes:
        api_server: Whether the Deployment of the API server is there.
        api_server_created: When it was made, RFC 3339; empty when that is not told.
        copy_task: The task that copies the backups.
        etcd: Whether the Etcd is there.
        restored: What the etcd's sidecar says that it restored.
        restored_problem: Why that cannot be read; else empty.
    """

    api_server: bool = False
    api_server_created: str = ""
    copy_task: CopyTask | None = None
    etcd: bool = False
    restored: Restored | None = None
    restored_problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the API says about one migration.

    Attributes:
        at: When it was asked, RFC 3339 with milliseconds, UTC.
        stage: Where the flow is.
        shoot: The Shoot.
        source: Name of the source Seed; empty when it cannot be told any more.
        destination: Name of the destination Seed.
        refusals: Why the migration must not begin; only looked for before it has.
        unchecked: What the preflight could not check.
        entry: The BackupEntry.
        source_entry: The BackupEntry that points at the source's bucket during the restore.
        source_bucket: Where the backups come from.
        destination_bucket: Where they go.
        control_plane: Of the source until it has let go, then of the destination.
    """

    at: str
    stage: Stage
    shoot: Shoot
    source: str = ""
    destination: str = ""
    refusals: tuple[preflight.Refusal, ...] = ()
    unchecked: tuple[str, ...] = ()
    entry: BackupEntry | None = None
    source_entry: BackupEntry | None = None
    source_bucket: BackupBucket | None = None
    destination_bucket: BackupBucket | None = None
    control_plane: ControlPlane = ControlPlane()

    @property
    def source_intact(self) -> bool:
        """Whether the source's backups are all there: a BackupEntry that is gone or going takes them with it."""
        name = self.source_bucket.name if self.source_bucket is not None else ""
        protecting = (found for found in (self.entry, self.source_entry) if found is not None and found.bucket == name)
        return bool(name) and any(not found.deleting for found in protecting)

    @property
    def final_answered(self) -> bool:
        """Whether gardenlet's request for the final snapshot was answered: it hands over the BackupEntry afterwards."""
        return self.stage > Stage.MIGRATING or (self.entry is not None and self.entry.seed == self.destination)

    @property
    def copy_settled(self) -> bool:
        """Whether somebody says that everything was copied."""
        task, plane = self.control_plane.copy_task, self.control_plane
        told = self.stage is Stage.RESTORED or plane.etcd or (task is not None and task.succeeded)
        return self.stage >= Stage.RESTORING and told


def timestamp(moment: datetime) -> str:
    """Write a moment as RFC 3339 with milliseconds, UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime | None:
    """Read RFC 3339; None when it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def stage_of(shoot: Shoot, report: MigrationReport | None, now: datetime) -> Stage | None:
    """Say where the flow is; None when a Shoot is in no migration that has anything left to tell.

    Args:
        shoot: The Shoot.
        report: What is known about its migration.
        now: A restore that nobody reported on matters for a while only.
    """
    operation = shoot.operation
    if operation.type == MIGRATE:
        # The documents say that status.seedName is removed, the code sets it to the destination.
        return Stage.RELEASED if shoot.status_seed in {"", shoot.spec_seed} else Stage.MIGRATING
    if operation.type == RESTORE and operation.state != SUCCEEDED:
        return Stage.RESTORING
    if shoot.must_migrate:
        return Stage.REQUESTED
    if report is not None:
        return None if report.phase is Phase.SUCCEEDED else Stage.RESTORED
    ended = parse_time(operation.updated)
    recent = operation.type == RESTORE and ended is not None and now - ended < RECENT
    return Stage.RESTORED if recent else None


def gather(clusters: Clusters, shoot: Shoot, memory: Memory, now: datetime) -> Facts | None:
    """Read everything about a migration.

    Returns:
        The facts, or None when the Shoot is in no migration.

    Raises:
        KubeError: a cluster does not answer, or refuses.
    """
    stage = stage_of(shoot, memory.report, now)
    if stage is None:
        return None
    at, destination = timestamp(now), shoot.spec_seed
    if stage is Stage.REQUESTED:
        found = preflight.gather(clusters.garden, shoot, destination)
        return Facts(
            at=at,
            stage=stage,
            shoot=shoot,
            source=shoot.status_seed,
            destination=destination,
            refusals=preflight.refusals(found),
            unchecked=found.unchecked,
        )
    entry, source_entry = _entries(clusters.garden, shoot)
    destination_bucket = _bucket_of_seed(clusters.garden, destination)
    there = destination_bucket.name if destination_bucket is not None else ""
    known = memory.report.source if memory.report is not None else ""
    known = known or (shoot.status_seed if shoot.must_migrate else "")
    source_bucket = _source_bucket(clusters.garden, entry, source_entry, known, there)
    source = known or (source_bucket.seed if source_bucket is not None else "")
    return Facts(
        at=at,
        stage=stage,
        shoot=shoot,
        source=source,
        destination=destination,
        entry=entry,
        source_entry=source_entry,
        source_bucket=source_bucket,
        destination_bucket=destination_bucket,
        control_plane=_control_plane(clusters, stage, shoot, source),
    )


def _entries(garden: Kube, shoot: Shoot) -> tuple[BackupEntry | None, BackupEntry | None]:
    """Read a Shoot's BackupEntry and, while it is restored, the one that points at the source's bucket."""
    name = shoot.backup_entry_name
    if not name:
        return None, None
    entry = garden.find(BACKUP_ENTRIES, name, shoot.namespace)
    source_entry = garden.find(BACKUP_ENTRIES, SOURCE_ENTRY_PREFIX + name, shoot.namespace)
    return (
        BackupEntry.read(entry) if entry is not None else None,
        BackupEntry.read(source_entry) if source_entry is not None else None,
    )


def _bucket_of_seed(garden: Kube, seed: str) -> BackupBucket | None:
    document = garden.find(SEEDS, seed) if seed else None
    return _bucket(garden, Seed.read(document).uid) if document is not None else None


def _bucket(garden: Kube, name: str) -> BackupBucket | None:
    document = garden.find(BACKUP_BUCKETS, name) if name else None
    return BackupBucket.read(document) if document is not None else None


def _source_bucket(
    garden: Kube, entry: BackupEntry | None, source_entry: BackupEntry | None, seed: str, destination_bucket: str
) -> BackupBucket | None:
    """Find the bucket that the backups come from: by the BackupEntries, else by the Seed."""
    named = (found.bucket for found in (source_entry, entry) if found is not None)
    for name in named:
        if name and name != destination_bucket:
            return _bucket(garden, name)
    return _bucket_of_seed(garden, seed)


def _control_plane(clusters: Clusters, stage: Stage, shoot: Shoot, source: str) -> ControlPlane:
    namespace = shoot.technical_id
    if not namespace or stage is Stage.RELEASED:
        return ControlPlane()  # the source's is gone, the destination's not begun
    seed = clusters.seed(source if stage is Stage.MIGRATING else shoot.spec_seed)
    deployment = seed.find(DEPLOYMENTS, API_SERVER, namespace)
    created = created_at(deployment) if deployment is not None else ""
    if stage is Stage.MIGRATING:
        return ControlPlane(api_server=deployment is not None, api_server_created=created)
    task = seed.find(ETCD_COPY_BACKUPS_TASKS, shoot.name, namespace)
    restored, problem = _restored(seed.list(LEASES, namespace))
    return ControlPlane(
        api_server=deployment is not None,
        api_server_created=created,
        copy_task=CopyTask.read(task) if task is not None else None,
        etcd=seed.find(ETCDS, ETCD_MAIN, namespace) is not None,
        restored=restored,
        restored_problem=problem,
    )


def _restored(leases: list[Document]) -> tuple[Restored | None, str]:
    """Read what the first member that restored anything says; members that join later take their data from it."""
    told = [(name_of(lease), annotation(lease, ANNOTATION)) for lease in leases]
    for name, text in sorted(told):
        if not text or not MEMBER.fullmatch(name):
            continue
        try:
            return decode_restored(text, f"Lease {name}"), ""
        except MalformedContent as error:
            return None, str(error)
    return None, ""
