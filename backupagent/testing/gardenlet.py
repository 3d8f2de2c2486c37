"""The gardenlets of both Seeds as one script: the documented steps of Migrate and Restore, on real API objects.

Which Seed acts is decided as Gardener decides it: the one in ``status.seedName`` while the Shoot shall leave it, then
the one in ``spec.seedName``. What is left out: everything that does not touch the Shoot's backups or the fields that
others watch.

Source of steps, waits and texts: gardener b312835, pkg/gardenlet/controller/shoot/shoot/reconciler_migrate.go and
reconciler_reconcile.go, pkg/gardenlet/operation/botanist; observed on the running components on 2026-11-23.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self
from urllib.parse import urlsplit

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.errors import Cancelled, KubeConflict
from backupagent.kube.client import Kube
from backupagent.kube.manifests import timestamp
from backupagent.kube.resources import (
    BACKUP_ENTRIES,
    DEPLOYMENTS,
    ETCD_COPY_BACKUPS_TASKS,
    ETCDS,
    EXTENSION_BACKUP_ENTRIES,
    NAMESPACES,
    PODS,
    SECRETS,
    SEEDS,
    SHOOT_STATES,
    SHOOTS,
    Resource,
)
from backupagent.model.gardener import (
    ABORTED,
    API_SERVER,
    ERROR,
    ETCD_MAIN,
    MIGRATE,
    RESTORE,
    SOURCE_ENTRY_PREFIX,
    SUCCEEDED,
    CopyTask,
    Shoot,
)
from backupagent.model.migration import Step
from backupagent.testing import control_plane, garden
from backupagent.testing.control_plane import EXTENSIONS, BackupPlan
from backupagent.testing.druid_etcd import MemberPorts
from backupagent.testing.extension import Extension
from backupagent.testing.garden import PROJECT, SHOOT, TECHNICAL_ID
from backupagent.testing.landscape import tell
from backupagent.testing.script import FlowFailed, Script
from backupagent.testing.server_process import http_get
from backupagent.testing.shoot_binding import seed_labels
from backupagent.testing.waiting import NotInTime, Patience

PROCESSING = "Processing"
SNAPSHOT_TIMEOUT_S = 900.0
"""The real one waits for ever."""

__all__ = ["FlowFailed", "Gardenlet", "Script"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Task:
    """One task of a flow.

    Attributes:
        step: Name of the step that it ends with.
        title: The real one's name of it, in ``lastOperation.description``.
        do: What it does.
    """

    step: str
    title: str
    do: Callable[[], None]


class Gardenlet:
    """Both gardenlets; a context manager that starts and stops them.

    Args:
        kube: The API server, as an administrator.
        script: How they behave.
        plan: How the new etcd is backed up.
        on_step: Called after every step, in the thread of the flow; may block it, and ends the flow by raising.
        clock: Source of time.
    """

    def __init__(
        self,
        kube: Kube,
        script: Script | None = None,
        *,
        plan: BackupPlan | None = None,
        on_step: Callable[[Step], None] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._kube = kube
        self._plan = plan or BackupPlan()
        self._extension = Extension(kube, clock)
        self._script = script or Script()
        self._on_step = on_step
        self._clock = clock
        self._cancel = Cancel()
        self._steps: list[Step] = []
        self._shoot = Shoot(namespace=PROJECT, name=SHOOT)
        self._failure: BaseException | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gardenlet", daemon=True)

    def __enter__(self) -> Self:
        """Start them."""
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop them, in the middle of a flow too."""
        self._cancel.set("stop")
        self._thread.join(self._script.timeout_s)

    @property
    def steps(self) -> list[Step]:
        """What they did so far, in order."""
        return list(self._steps)

    def join(self, timeout_s: float) -> list[Step]:
        """Wait until a migration has ended; return all steps.

        Raises:
            NotInTime: it did not end in time.
            BaseException: what ended the flow.
        """
        if not self._ended.wait(timeout_s):
            last = self._steps[-1].name if self._steps else "none"
            raise NotInTime(f"the migration has not ended within {timeout_s:g} s; the last step was {last}")
        if self._failure is not None:
            raise self._failure
        return self.steps

    # ---- who acts, and what

    def _run(self) -> None:
        try:
            while not self._cancel.is_set:
                self._look()
                self._cancel.wait(self._script.poll_s)
        except Cancelled:
            _log.info("stopped in the middle of a flow")
        except BaseException as error:  # noqa: BLE001 - raised by join()
            self._failure = error
            self._tell_error(error)
        self._ended.set()

    def _look(self) -> None:
        self._shoot = Shoot.read(self._kube.get(SHOOTS, SHOOT, PROJECT))
        operation = self._shoot.operation
        if operation.type == MIGRATE and operation.state in {SUCCEEDED, ABORTED}:
            self._restore()
        elif self._shoot.must_migrate:
            self._migrate()

    def _migrate(self) -> None:
        self._ended.clear()
        self._cancel.wait(self._script.gate_s)
        self._cancel.raise_if_set()
        source, destination = self._shoot.status_seed, self._shoot.spec_seed
        self._operation(MIGRATE, PROCESSING, 0, "Preparation of Shoot cluster for migration initialized.")
        self._did("MigrateStarted", f"{source} prepares the move to {destination}")
        self._flow(MIGRATE, [
            _Task("ExtensionsAnnotated", "Migrating extensions before kube-apiserver", self._migrate_extensions),
            _Task("ShootStateWritten", "Persisting ShootState in garden cluster", self._write_shoot_state),
            _Task("ApiServerStopped", "Deleting kube-apiserver deployment", self._stop_api_server),
            _Task("InfrastructureDeleted", "Deleting infrastructure from Seed", self._delete_infrastructure),
            _Task("FinalSnapshotTaken", "Creating ETCD Snapshot", self._take_final_snapshot),
            _Task("BackupEntryMigrated", "Migrating BackupEntry to new seed", self._migrate_backup_entry),
            _Task("EtcdDeleted", "Destroying main etcd", self._delete_etcd),
            _Task("NamespaceDeleted", "Deleting shoot namespace in Seed", self._delete_namespace),
        ])  # fmt: skip
        released = None if self._script.null_status_seed else destination
        told = "Shoot cluster has been successfully prepared for migration."
        self._operation(MIGRATE, SUCCEEDED, 100, told, seedName=released)
        self._did("MigrateSucceeded", f"{source} has let go")

    def _restore(self) -> None:
        self._ended.clear()
        destination = self._shoot.spec_seed
        told = "Restoration of Shoot cluster initialized."
        self._operation(RESTORE, PROCESSING, 0, told, seedName=destination)
        self._did("RestoreStarted", f"{destination} builds the control plane")
        self._flow(RESTORE, [
            _Task("NamespaceCreated", "Deploying Shoot namespace in Seed", self._create_namespace),
            _Task("SourceBackupEntryDeployed", "Deploying source backup entry", self._deploy_source_entry),
            _Task("BackupEntryRestored", "Deploying BackupEntry for ETCD data", self._restore_backup_entry),
            _Task("CopyTaskCreated", "Copying etcd backups to new seed's backup bucket", self._create_copy_task),
            _Task("CopyTaskSucceeded", "Waiting until etcd backups are copied", self._await_copy_task),
            _Task("EtcdDeployed", "Deploying main and events etcd", self._deploy_etcd),
            _Task("ApiServerStarted", "Deploying Kubernetes API server", self._start_api_server),
            _Task("SourceBackupEntryDeleted", "Destroying source backup entry", self._delete_source_entry),
        ])  # fmt: skip
        self._operation(RESTORE, SUCCEEDED, 100, "Shoot cluster has been successfully restored.")
        self._did("RestoreSucceeded", f"{destination} owns the Shoot")
        self._ended.set()

    def _flow(self, kind: str, tasks: list[_Task]) -> None:
        for done, task in enumerate(tasks):
            self._operation(kind, PROCESSING, 100 * done // len(tasks), task.title)
            task.do()
            if task.step != "FinalSnapshotTaken" or not self._script.skip_final_snapshot:
                self._did(task.step, task.title)

    # ---- Migrate

    def _migrate_extensions(self) -> None:
        for resource, name in EXTENSIONS:
            self._extension.operate(resource, name, TECHNICAL_ID, "migrate")

    def _write_shoot_state(self) -> None:
        shoot = self._kube.get(SHOOTS, SHOOT, PROJECT)
        secrets = self._kube.list(SECRETS, TECHNICAL_ID, labels={"persist": "true"})
        self._kube.apply(SHOOT_STATES, garden.shoot_state(shoot, secrets))

    def _stop_api_server(self) -> None:
        resource, name = EXTENSIONS[1]
        self._remove(resource, name, TECHNICAL_ID)
        self._remove(DEPLOYMENTS, API_SERVER, TECHNICAL_ID)

    def _delete_infrastructure(self) -> None:
        resource, name = EXTENSIONS[0]
        self._remove(resource, name, TECHNICAL_ID)

    def _take_final_snapshot(self) -> None:
        if self._script.skip_final_snapshot:
            return
        pod = self._kube.get(PODS, f"{ETCD_MAIN}-0", TECHNICAL_ID)
        where = urlsplit(MemberPorts.of(pod).sidecar_url)
        host, port = where.hostname or "", where.port or 0
        status, body = http_get(host, port, "/snapshot/full?final=true", timeout_s=SNAPSHOT_TIMEOUT_S)
        if status != HTTPStatus.OK:
            raise FlowFailed(f"the final snapshot failed: {status} {body.decode(errors='replace').strip()}")

    def _migrate_backup_entry(self) -> None:
        name = self._shoot.backup_entry_name
        changes = {"spec": {"seedName": self._shoot.spec_seed}}
        entry = self._kube.patch(BACKUP_ENTRIES, name, PROJECT, changes)
        self._remove(EXTENSION_BACKUP_ENTRIES, name)
        told = garden.last_operation(MIGRATE, SUCCEEDED, timestamp(self._clock.now()))
        tell(self._kube, BACKUP_ENTRIES, entry, {"lastOperation": told, "seedName": None})

    def _delete_etcd(self) -> None:
        self._remove(ETCDS, ETCD_MAIN, TECHNICAL_ID)

    def _delete_namespace(self) -> None:
        self._remove(NAMESPACES, TECHNICAL_ID)

    # ---- Restore

    def _create_namespace(self) -> None:
        self._kube.create(NAMESPACES, NAMESPACES.stub(TECHNICAL_ID))
        state = self._kube.get(SHOOT_STATES, SHOOT, PROJECT)
        for secret in garden.restored_secrets(state, TECHNICAL_ID):
            self._kube.create(SECRETS, secret)
        for resource, extension in control_plane.extensions(TECHNICAL_ID):
            self._kube.create(resource, extension)
            self._extension.operate(resource, extension["metadata"]["name"], TECHNICAL_ID, "restore")

    def _deploy_source_entry(self) -> None:
        entry = self._kube.get(BACKUP_ENTRIES, self._shoot.backup_entry_name, PROJECT)
        shoot = self._kube.get(SHOOTS, SHOOT, PROJECT)
        bucket, seed = entry["spec"]["bucketName"], self._shoot.spec_seed
        try:
            found = self._kube.create(BACKUP_ENTRIES, garden.backup_entry(shoot, self._source_entry, bucket, seed))
        except KubeConflict:  # it exists and is kept: the BackupEntry may point at the destination by now
            found = self._kube.get(BACKUP_ENTRIES, self._source_entry, PROJECT)
        self._extension.reconcile_entry(found, "Create")

    def _restore_backup_entry(self) -> None:
        name, seed = self._shoot.backup_entry_name, self._shoot.spec_seed
        spec = {"bucketName": self._kube.get(SEEDS, seed)["metadata"]["uid"], "seedName": seed}
        self._extension.annotate(BACKUP_ENTRIES, name, PROJECT, "restore")
        entry = self._kube.patch(BACKUP_ENTRIES, name, PROJECT, {"spec": spec})
        self._extension.reconcile_entry(entry, RESTORE)
        self._extension.annotate(BACKUP_ENTRIES, name, PROJECT, None)

    def _create_copy_task(self) -> None:
        self._remove(ETCD_COPY_BACKUPS_TASKS, SHOOT, TECHNICAL_ID)
        entries = (self._source_entry, self._shoot.backup_entry_name)
        specs = [self._kube.get(EXTENSION_BACKUP_ENTRIES, name)["spec"] for name in entries]
        source, target = ({"provider": spec["type"], "bucket": spec["bucketName"]} for spec in specs)
        if self._script.empty_source:
            self._extension.delete_objects(source["bucket"], self._shoot.backup_entry_name)
        task = control_plane.copy_task(TECHNICAL_ID, source, target, self._shoot.snapshots_prefix)
        self._kube.create(ETCD_COPY_BACKUPS_TASKS, task)

    def _await_copy_task(self) -> None:
        def succeeded() -> bool:
            document = self._kube.get(ETCD_COPY_BACKUPS_TASKS, SHOOT, TECHNICAL_ID)
            observed = document.get("status", {}).get("observedGeneration")
            return observed == document["metadata"]["generation"] and CopyTask.read(document).succeeded

        self._until(succeeded, "the backups are copied")

    def _deploy_etcd(self) -> None:
        self._kube.delete(ETCD_COPY_BACKUPS_TASKS, SHOOT, TECHNICAL_ID)
        bucket = self._kube.get(BACKUP_ENTRIES, self._shoot.backup_entry_name, PROJECT)["spec"]["bucketName"]
        etcd = control_plane.etcd(TECHNICAL_ID, bucket, self._shoot.snapshots_prefix, self._plan)
        self._kube.create(ETCDS, etcd)
        self._until(self._etcd_is_ready, "the etcd is ready")

    def _etcd_is_ready(self) -> bool:
        document = self._kube.get(ETCDS, ETCD_MAIN, TECHNICAL_ID)
        status = document.get("status", {})
        return status.get("ready") is True and status["observedGeneration"] == document["metadata"]["generation"]

    def _start_api_server(self) -> None:
        self._kube.create(DEPLOYMENTS, control_plane.api_server(TECHNICAL_ID))

    def _delete_source_entry(self) -> None:
        """Delete the BackupEntry of the source; its extension removes the objects in the bucket first."""
        name = self._source_entry
        changes = {"metadata": {"annotations": {"backupentry.core.gardener.cloud/force-deletion": "true"}}}
        entry = self._kube.patch(BACKUP_ENTRIES, name, PROJECT, changes)
        if not self._script.keep_source:
            self._extension.delete_objects(entry["spec"]["bucketName"], self._shoot.backup_entry_name)
        self._kube.delete(SECRETS, garden.backup_secret_name(name), TECHNICAL_ID)
        self._remove(EXTENSION_BACKUP_ENTRIES, name)
        self._remove(BACKUP_ENTRIES, name, PROJECT)

    # ---- what both need

    @property
    def _source_entry(self) -> str:
        return SOURCE_ENTRY_PREFIX + self._shoot.backup_entry_name

    def _remove(self, resource: Resource, name: str, namespace: str = "") -> None:
        """Delete an object and wait until it is gone."""
        self._kube.delete(resource, name, namespace)
        self._until(lambda: self._kube.find(resource, name, namespace) is None, f"{resource.kind} {name} is gone")

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        script = self._script
        patience = Patience(cancel=self._cancel, timeout_s=script.timeout_s, poll_s=script.poll_s, clock=self._clock)
        patience.until(holds, what)

    def _did(self, name: str, detail: str) -> None:
        """Note a step, and let the test do what it wants to do at that moment."""
        self._cancel.raise_if_set()
        at = self._clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        step = Step(name=name, who="gardenlet", at=at, detail=detail)
        self._steps.append(step)
        _log.info("step", extra={"fields": {"step": name}})
        if self._on_step is not None:
            self._on_step(step)
        self._cancel.wait(self._script.pause_s)
        self._cancel.raise_if_set()

    def _operation(self, kind: str, state: str, progress: int, description: str, **status: str | None) -> None:
        """Write ``lastOperation`` and more of the status, and keep the labels that name the Seeds."""
        told = garden.last_operation(
            kind, state, timestamp(self._clock.now()), progress=progress, description=description
        )
        shoot = self._kube.get(SHOOTS, SHOOT, PROJECT)
        document = tell(self._kube, SHOOTS, shoot, {"lastOperation": told, **status})
        labels = seed_labels(document, document["spec"]["seedName"])
        if any(document["metadata"].get("labels", {}).get(name) != value for name, value in labels.items()):
            self._kube.patch(SHOOTS, SHOOT, PROJECT, {"metadata": {"labels": labels}})

    def _tell_error(self, error: BaseException) -> None:
        operation = Shoot.read(self._kube.get(SHOOTS, SHOOT, PROJECT)).operation
        self._operation(operation.type, ERROR, operation.progress, f"{error} Operation will be retried.")
