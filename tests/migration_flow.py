"""Gardener's steps on one Shoot, as changes of objects, and what happens to its snapshots in two directories.

For tests of the controller: in memory, and at a real API server.
"""

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from backupagent.clock import Clock
from backupagent.kube.client import Kube
from backupagent.kube.resources import (
    BACKUP_BUCKETS,
    BACKUP_ENTRIES,
    CONFIG_MAPS,
    DEPLOYMENTS,
    ETCD_COPY_BACKUPS_TASKS,
    ETCDS,
    EVENTS,
    LEASES,
    SECRETS,
    SEEDS,
    SHOOT_STATES,
    SHOOTS,
    Document,
    Resource,
)
from backupagent.model.manifest import FORMAT, Manifest
from backupagent.model.migration import REPORT_KEY, MigrationReport, Phase, config_map_name, decode_report
from backupagent.model.restored import ANNOTATION, Restored, encode_restored
from backupagent.operations.copier import Copier
from backupagent.settings import CopySettings
from backupagent.snapstore import SnapStore
from backupagent.stores.local import LocalStore
from backupagent.testing.builders import Deltas, RandomFull, build_chain, build_deltas, build_random_full
from backupagent.transfer.context import Transfer

NAMESPACE, SHOOT = "garden-dev", "demo"
CONTROL_PLANE = "shoot--dev--demo"
ENTRY = "shoot--dev--demo--u1"
SEED_NAMES = ("seed-a", "seed-b")
BASE, FINAL = 10, 30
HASH, COMPACTED = 4242, 5
KIB = 1024

PHASES = {
    "bind": Phase.REQUESTED,
    "start_migrate": Phase.PREPARING,
    "stop_api_server": Phase.PREPARING,
    "take_final": Phase.FINAL_TAKEN,
    "migrate_entry": Phase.FINAL_TAKEN,
    "end_migrate": Phase.RELEASED,
    "start_restore": Phase.COPYING,
    "deploy_source_entry": Phase.COPYING,
    "restore_entry": Phase.COPYING,
    "create_copy_task": Phase.COPYING,
    "copy": Phase.COPYING,
    "tell_copied": Phase.COPIED,
    "deploy_etcd": Phase.COPIED,
    "tell_restored": Phase.RESTORED,
    "start_api_server": Phase.RESTORED,
    "delete_source": Phase.RESTORED,
    "end_restore": Phase.RESTORED,
    "back_up": Phase.SUCCEEDED,
}
"""The phase after each step, in the order of the steps."""

STEPS = [
    ("MigrationRequested", "operator"),
    ("PreflightPassed", "controller"),
    ("MigrateStarted", "gardenlet"),
    ("ApiServerStopped", "gardenlet"),
    ("FinalSnapshotVerified", "controller"),
    ("BackupEntryMigrated", "gardenlet"),
    ("SourceReleased", "gardenlet"),
    ("RestoreStarted", "gardenlet"),
    ("SourceBackupEntryDeployed", "gardenlet"),
    ("BackupEntryRestored", "gardenlet"),
    ("CopyTaskCreated", "gardenlet"),
    ("CopyTaskSucceeded", "druid"),
    ("CopyVerified", "controller"),
    ("EtcdDeployed", "gardenlet"),
    ("EtcdRestored", "sidecar"),
    ("RestoreVerified", "controller"),
    ("ApiServerStarted", "gardenlet"),
    ("SourceBackupEntryDeleted", "gardenlet"),
    ("RestoreSucceeded", "gardenlet"),
    ("FirstBackup", "sidecar"),
    ("MigrationSucceeded", "controller"),
]
"""What a report tells of a migration in which every step was looked at, and who did it."""


class Flow:
    """A Shoot that moves from seed-a to seed-b; made on seed-a, with backups.

    Args:
        kube: An API server that stands for the garden and both Seeds.
        home: Where the buckets are, as directories: the provider is Local.
        clock: Source of time.
        released_seed: What ``status.seedName`` becomes when the source lets go.
    """

    def __init__(self, kube: Kube, home: Path, clock: Clock, *, released_seed: str = "seed-b") -> None:
        self._kube = kube
        self.home = home
        self.clock = clock
        self.released_seed = released_seed
        self.final_name = ""
        self.uids = {name: self._put_seed(name) for name in SEED_NAMES}
        self._put(SHOOTS, SHOOT, spec={"seedName": "seed-a"})
        status = {"technicalID": CONTROL_PLANE, "uid": "u1"}
        self.operation("Reconcile", "Succeeded", 100, seedName="seed-a", **status)
        labels = {"name": "kube-apiserver-etcd-encryption-key"}
        key = {"name": "key", "type": "secret", "labels": labels, "data": {"data": {"key": "eA=="}}}
        self._put(SHOOT_STATES, SHOOT, spec={"gardener": [key]})
        self._put(BACKUP_ENTRIES, ENTRY, spec={"bucketName": self.uids["seed-a"], "seedName": "seed-a"})
        self.start_api_server()
        build_chain(self.folder("seed-a"), RandomFull(8 * KIB, revision=BASE), Deltas(2, 5, 100, keys=7))
        self.source, self.destination = self._store("seed-a"), self._store("seed-b")

    def _put(self, resource: Resource, name: str, namespace: str = NAMESPACE, **parts: Any) -> Document:
        status = parts.pop("status", None)
        made = self._kube.apply(resource, {**resource.stub(name, namespace), **parts})
        return self.change(resource, name, namespace, status=status) if status else made

    def change(self, resource: Resource, name: str, namespace: str = "", **parts: Mapping[str, Any]) -> Document:
        """Merge fields into one part of an object."""
        ((part, _fields),) = parts.items()
        return self._kube.patch(resource, name, namespace, parts, subresource="status" if part == "status" else "")

    def _put_seed(self, name: str) -> str:
        """Make a Seed with its BackupBucket and credentials; return its uid."""
        reference = {"apiVersion": "v1", "kind": "Secret", "namespace": "garden", "name": f"backup-{name}"}
        backup = {"provider": "Local", "region": "here", "credentialsRef": reference}
        then = {"lastTransitionTime": "2026-01-01T00:00:00Z", "lastUpdateTime": "2026-01-01T00:00:00Z"}
        conditions = [
            {"type": kind, "status": "True", "reason": "Ready", "message": "it is", **then}
            for kind in ("GardenletReady", "SeedSystemComponentsHealthy")
        ]
        status = {"gardener": {"version": "v1.150.0"}, "observedGeneration": 1, "conditions": conditions}
        uid = str(self._put(SEEDS, name, "", spec={"backup": backup}, status=status)["metadata"]["uid"])
        spec = {"provider": {"type": "Local", "region": "here"}, "seedName": name, "credentialsRef": reference}
        generated = {"generatedSecretRef": {"namespace": "garden", "name": f"generated-bucket-{name}"}}
        self._put(BACKUP_BUCKETS, uid, "", spec=spec, status=generated)
        data = {"bucketName": base64.b64encode(f"bucket-{name}".encode()).decode()}
        self._put(SECRETS, f"generated-bucket-{name}", "garden", data=data)
        return uid

    # ---- buckets

    @property
    def now_s(self) -> int:
        """The time of day, seconds since 1970."""
        return int(self.clock.now().timestamp())

    def folder(self, seed: str) -> Path:
        """Return where the Shoot's backups lie in the bucket of a Seed."""
        folder = self.home / f"bucket-{seed}" / ENTRY / "etcd-main"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _store(self, seed: str) -> SnapStore:
        return SnapStore(LocalStore(self.folder(seed), create=True), "")

    def empty(self, seed: str) -> None:
        """Remove everything from a bucket."""
        for file in self.folder(seed).rglob("*"):
            if file.is_file():
                file.unlink()

    # ---- the steps

    def operation(self, kind: str, state: str, progress: int = 0, description: str = "", **status: Any) -> None:
        """Write ``lastOperation``, and more of the status."""
        last = {
            "type": kind,
            "state": state,
            "progress": progress,
            "description": description,
            "lastUpdateTime": self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        self.change(SHOOTS, SHOOT, NAMESPACE, status={"lastOperation": last, **status})

    def bind(self) -> None:
        self.change(SHOOTS, SHOOT, NAMESPACE, spec={"seedName": "seed-b"})

    def start_migrate(self) -> None:
        self.operation("Migrate", "Processing")

    def stop_api_server(self) -> None:
        self._kube.delete(DEPLOYMENTS, "kube-apiserver", CONTROL_PLANE)

    def take_final(self) -> None:
        folder = self.folder("seed-a")
        build_random_full(folder, RandomFull(16 * KIB, revision=FINAL, seed=2))
        made = next(folder.glob(f"v2/Full-*-{FINAL:08d}-*"))
        final = made.rename(made.with_name(f"Full-00000000-{FINAL:08d}-{self.now_s}.final"))
        self.final_name = final.name
        content = final.read_bytes()
        self.source.save_manifest(
            Manifest(
                format=FORMAT,
                name=final.name,
                kind="Full",
                final=True,
                revision=FINAL,
                stored_bytes=len(content),
                stored_sha256=hashlib.sha256(content).hexdigest(),
                hash_kv=HASH,
                hash_kv_revision=FINAL,
                compact_revision=COMPACTED,
            )
        )

    def migrate_entry(self) -> None:
        self.change(BACKUP_ENTRIES, ENTRY, NAMESPACE, spec={"seedName": "seed-b"})

    def end_migrate(self) -> None:
        self.operation("Migrate", "Succeeded", 100, seedName=self.released_seed or None)

    def start_restore(self) -> None:
        self.operation("Restore", "Processing", seedName="seed-b")

    def deploy_source_entry(self) -> None:
        self._put(BACKUP_ENTRIES, f"source-{ENTRY}", spec={"bucketName": self.uids["seed-a"], "seedName": "seed-b"})

    def restore_entry(self) -> None:
        spec = {"bucketName": self.uids["seed-b"], "seedName": "seed-b"}
        self.change(BACKUP_ENTRIES, ENTRY, NAMESPACE, spec=spec)

    def create_copy_task(self) -> None:
        store = {"prefix": f"{ENTRY}/etcd-main"}
        spec = {"sourceStore": store, "targetStore": store}
        self._put(ETCD_COPY_BACKUPS_TASKS, SHOOT, CONTROL_PLANE, spec=spec)

    def copy(self) -> None:
        settings = CopySettings(source="file:///a", target="file:///b")
        Copier(self.source, self.destination, settings, Transfer(clock=self.clock)).run()

    def tell_copied(self) -> None:
        then = {"lastTransitionTime": "2026-01-01T00:00:00Z", "lastUpdateTime": "2026-01-01T00:00:00Z"}
        condition = {"type": "Succeeded", "status": "True", "reason": "Complete", "message": "Job completed", **then}
        self.change(ETCD_COPY_BACKUPS_TASKS, SHOOT, CONTROL_PLANE, status={"conditions": [condition]})

    def deploy_etcd(self) -> None:
        backup = {"store": {"prefix": f"{ENTRY}/etcd-main"}}
        self._put(ETCDS, "etcd-main", CONTROL_PLANE, spec={"labels": {}, "etcd": {}, "backup": backup, "replicas": 1})
        self._kube.delete(ETCD_COPY_BACKUPS_TASKS, SHOOT, CONTROL_PLANE)

    def tell_restored(self, **changes: Any) -> None:
        restored = Restored(
            revision=FINAL,
            hash_kv=HASH,
            compact_revision=COMPACTED,
            full=self.final_name.removesuffix(".final"),
            deltas=0,
            matches_manifest=True,
            seconds=0.5,
            at=self.clock.now().isoformat(),
        )
        self.annotate(encode_restored(msgspec.structs.replace(restored, **changes)))

    def annotate(self, text: str) -> None:
        """Write what a sidecar tells on its Lease."""
        document = LEASES.stub("etcd-main-0", CONTROL_PLANE)
        document["metadata"]["annotations"] = {ANNOTATION: text}
        self._kube.apply(LEASES, document)

    def start_api_server(self) -> None:
        labels = {"app": "kube-apiserver"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "none"}]}}
        spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
        self._put(DEPLOYMENTS, "kube-apiserver", CONTROL_PLANE, spec=spec)

    def delete_source(self) -> None:
        self._kube.delete(BACKUP_ENTRIES, f"source-{ENTRY}", NAMESPACE)
        self.empty("seed-a")

    def end_restore(self) -> None:
        self.operation("Restore", "Succeeded", 100)

    def back_up(self) -> None:
        """Let the new etcd make its first delta."""
        folder = self.folder("seed-b")
        before = set(folder.glob("v2/*"))
        build_deltas(folder, FINAL, Deltas(1, 3, 100))
        (made,) = set(folder.glob("v2/*")) - before
        made.rename(made.with_name(f"Incr-{FINAL + 1:08d}-{FINAL + 3:08d}-{self.now_s}"))

    def play(self, *, after: str = "", until: str = "", leave_out: str = "", pause_s: float = 10.0) -> Iterator[str]:
        """Do the steps; after each one the caller may look.

        Args:
            after: Name of the step that was done last; none by default.
            until: Name of the last one; all by default.
            leave_out: Names of steps that are not done.
            pause_s: Time before each step, seconds.
        """
        names = list(PHASES)
        for name in names[names.index(after) + 1 if after else 0 :]:
            if name not in leave_out.split():
                self.clock.sleep(pause_s)
                step: Callable[[], None] = getattr(self, name)
                step()
                yield name
            if name == until:
                return

    # ---- what the controller says

    @property
    def data(self) -> Mapping[str, str]:
        """The data of the report's ConfigMap; empty when there is none."""
        found = self._kube.find(CONFIG_MAPS, config_map_name(SHOOT), NAMESPACE)
        return found["data"] if found is not None else {}

    @property
    def report(self) -> MigrationReport:
        """The report."""
        return decode_report(self.data[REPORT_KEY], "test")

    def forget(self) -> None:
        """Remove the ConfigMap."""
        self._kube.delete(CONFIG_MAPS, config_map_name(SHOOT), NAMESPACE)

    @property
    def events(self) -> list[tuple[str, str]]:
        """Type and reason of every Event on the Shoot, in the order in which they were made."""
        found = [event for event in self._kube.list(EVENTS, NAMESPACE) if event["involvedObject"]["name"] == SHOOT]
        return [
            (event["type"], event["reason"])
            for event in sorted(found, key=lambda event: int(event["metadata"]["resourceVersion"]))
        ]
