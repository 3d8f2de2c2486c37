"""The play without the controller: a full etcd, its Shoot moves, and what the scripts leave behind at each step."""

from collections.abc import Callable
from pathlib import Path

import pytest

from backupagent import wiring
from backupagent.cancel import Cancel
from backupagent.errors import EmptySource, KubeError
from backupagent.kube.resources import (
    BACKUP_ENTRIES,
    DEPLOYMENTS,
    ETCD_COPY_BACKUPS_TASKS,
    JOBS,
    NAMESPACES,
    SECRETS,
    SEEDS,
    SHOOTS,
)
from backupagent.model.gardener import API_SERVER, ENCRYPTION_KEY, BackupEntry, name_of
from backupagent.model.migration import Step
from backupagent.operations.report import ListedSnapshot
from backupagent.progress import Progress
from backupagent.settings import ListSettings
from backupagent.testing.container import require_namespaces
from backupagent.testing.garden import DESTINATION, PROJECT, SHOOT, SOURCE, TECHNICAL_ID
from backupagent.testing.gardenlet import Script
from backupagent.testing.servers import ServerMissing
from backupagent.testing.stage import MigrationStage, Setup
from backupagent.testing.waiting import NotInTime

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

OBJECTS = 200
MIGRATION_S = 120
STEPS = [
    "MigrateStarted",
    "ExtensionsAnnotated",
    "ShootStateWritten",
    "ApiServerStopped",
    "InfrastructureDeleted",
    "FinalSnapshotTaken",
    "BackupEntryMigrated",
    "EtcdDeleted",
    "NamespaceDeleted",
    "MigrateSucceeded",
    "RestoreStarted",
    "NamespaceCreated",
    "SourceBackupEntryDeployed",
    "BackupEntryRestored",
    "CopyTaskCreated",
    "CopyTaskSucceeded",
    "EtcdDeployed",
    "ApiServerStarted",
    "SourceBackupEntryDeleted",
    "RestoreSucceeded",
]


@pytest.fixture
def folder(server_binary: Callable[[str], Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    for name in ("etcd", "kube-apiserver", "kube-controller-manager", "minio", "unshare"):
        server_binary(name)
    try:
        require_namespaces(tmp_path / "probe")
    except ServerMissing as error:
        if request.config.getoption("--require") == "all":
            raise
        pytest.skip(str(error))
    return tmp_path / "stage"


class Looks:
    """What there was after each step."""

    def __init__(self) -> None:
        self.stage: MigrationStage
        self.found: dict[str, dict[str, object]] = {}

    def __call__(self, step: Step) -> None:
        kube, shoot = self.stage.kube, self.stage.shoot
        entry = BackupEntry.read(kube.get(BACKUP_ENTRIES, shoot.backup_entry_name, PROJECT))
        self.found[step.name] = {
            "operation": str(shoot.operation),
            "seed": shoot.status_seed,
            "labels": sorted(kube.get(SHOOTS, SHOOT, PROJECT)["metadata"]["labels"]),
            "namespace": kube.find(NAMESPACES, TECHNICAL_ID) is not None,
            "api server": kube.find(DEPLOYMENTS, API_SERVER, TECHNICAL_ID) is not None,
            "job": kube.find(JOBS, f"{SHOOT}-worker", TECHNICAL_ID) is not None,
            "task": kube.find(ETCD_COPY_BACKUPS_TASKS, SHOOT, TECHNICAL_ID) is not None,
            "entry": (entry.bucket, entry.seed, entry.status_seed),
            "entries": sorted(map(name_of, kube.list(BACKUP_ENTRIES, PROJECT))),
            "secrets": sorted(map(name_of, kube.list(SECRETS, TECHNICAL_ID))),
        }

    def of(self, what: str) -> dict[str, object]:
        """Return one thing after each step."""
        return {step: found[what] for step, found in self.found.items()}

    def since(self, what: str) -> str:
        """Return the first step after which it was there."""
        return next(step for step, there in self.of(what).items() if there)

    def gone(self, what: str) -> str:
        """Return the first step after which it was no longer there."""
        return next(step for step, there in self.of(what).items() if not there)


def snapshots(stage: MigrationStage, seed: str) -> list[ListedSnapshot]:
    """Return what a bucket holds, newest chain first; nothing when it is empty."""
    try:
        report = wiring.run_list(ListSettings(store=stage.bucket_uri(seed)), Progress(), Cancel())
    except EmptySource:
        return []
    return [each for chain in report.chains for each in (chain.full, *chain.deltas)]


def encryption_key(stage: MigrationStage) -> object:
    (secret,) = stage.kube.list(SECRETS, TECHNICAL_ID, labels={"name": ENCRYPTION_KEY})
    return secret["data"]


def test_a_whole_migration(folder: Path) -> None:
    looks = Looks()
    at_final: list[ListedSnapshot] = []

    def look(step: Step) -> None:
        looks(step)
        if step.name == "FinalSnapshotTaken":
            at_final.extend(snapshots(looks.stage, SOURCE))

    with MigrationStage(folder, objects=OBJECTS, on_step=look) as stage:
        looks.stage = stage
        kinds = [each.kind for each in snapshots(stage, SOURCE)]
        assert (kinds[0], kinds.count("Incr") >= 2) == ("Full", True)
        key = encryption_key(stage)
        with pytest.raises(NotInTime):
            stage.compare()
        with pytest.raises(KubeError, match="already assigned to the same seed"):
            stage.bind(SOURCE)
        stage.bind(DESTINATION)
        steps = stage.gardenlet.join(MIGRATION_S)
        assert [step.name for step in steps] == STEPS
        comparison = stage.compare()
        assert comparison.equal, comparison
        assert comparison.source.compact_revision > 0
        assert len(stage.source.keys) > OBJECTS / 2
        assert encryption_key(stage) == key
        moved = snapshots(stage, DESTINATION)
        check_objects(stage, looks)
        assert snapshots(stage, SOURCE) == []
    final = at_final[0]
    assert (final.final, final.last_revision) == (True, comparison.source.revision)
    assert {each.name.removesuffix(".final") for each in at_final} <= {each.name for each in moved}


def check_objects(stage: MigrationStage, looks: Looks) -> None:
    """Check when what was there."""
    source, destination = (stage.kube.get(SEEDS, seed)["metadata"]["uid"] for seed in (SOURCE, DESTINATION))
    name = stage.shoot.backup_entry_name
    assert looks.gone("api server") == "ApiServerStopped"
    assert looks.gone("namespace") == "NamespaceDeleted"
    assert looks.found["ApiServerStarted"]["api server"]
    operations = looks.of("operation")
    assert operations["MigrateStarted"] == "Migrate Processing 0%"
    assert operations["FinalSnapshotTaken"] == "Migrate Processing 50%"
    assert operations["MigrateSucceeded"] == "Migrate Succeeded 100%"
    assert operations["RestoreStarted"] == "Restore Processing 0%"
    assert operations["RestoreSucceeded"] == "Restore Succeeded 100%"
    seeds = looks.of("seed")
    assert (seeds["NamespaceDeleted"], seeds["MigrateSucceeded"]) == (SOURCE, DESTINATION)
    labels = looks.of("labels")
    both = [f"name.seed.gardener.cloud/{seed}" for seed in (SOURCE, DESTINATION)]
    assert (labels["MigrateStarted"], labels["RestoreSucceeded"]) == (both, both[1:])
    entry = looks.of("entry")
    assert entry["FinalSnapshotTaken"] == (source, SOURCE, SOURCE)
    assert entry["BackupEntryMigrated"] == (source, DESTINATION, "")
    assert entry["BackupEntryRestored"] == (destination, DESTINATION, DESTINATION)
    entries = looks.of("entries")
    assert entries["SourceBackupEntryDeployed"] == sorted([name, f"source-{name}"])
    assert entries["RestoreSucceeded"] == [name]
    assert looks.since("task") == "CopyTaskCreated"
    assert looks.found["CopyTaskSucceeded"]["job"]
    assert not looks.found["RestoreSucceeded"]["task"]
    secrets = {"etcd-backup", "source-etcd-backup"}
    assert secrets <= set(looks.found["BackupEntryRestored"]["secrets"])
    assert secrets & set(looks.found["RestoreSucceeded"]["secrets"]) == {"etcd-backup"}


def test_a_flow_that_is_broken_off(folder: Path) -> None:
    class Broken(Exception):
        """The test's own."""

    def look(step: Step) -> None:
        if step.name == "BackupEntryMigrated":
            raise Broken

    setup = Setup(writes_per_second=50)
    script = Script(skip_final_snapshot=True)
    with MigrationStage(folder, objects=OBJECTS, script=script, setup=setup, on_step=look) as stage:
        filled = snapshots(stage, SOURCE)[0].last_revision
        controller = stage.start_controller()
        stage.bind(DESTINATION)
        with pytest.raises(Broken):
            stage.gardenlet.join(MIGRATION_S)
        assert [step.name for step in stage.gardenlet.steps][-2:] == ["InfrastructureDeleted", "BackupEntryMigrated"]
        assert (stage.shoot.operation.type, stage.shoot.operation.state) == ("Migrate", "Error")
        assert not any(each.final for each in snapshots(stage, SOURCE))
        with stage.source_client() as client:
            assert client.revision() == stage.source_hash.revision > filled
        controller.kill()
        controller.start()
        assert "backupagent_" in controller.metrics()
