"""One migration from end to end: real API server, Pods, buckets and etcds; gardenlet and druid are scripts.

Each test plays a migration of its own on its own stage.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK
from backupagent.errors import EmptySource, FinalSnapshotMissing, MigrationFailed
from backupagent.kube.resources import CONFIG_MAPS, EVENTS, PODS
from backupagent.model.migration import (
    REPORT_KEY,
    FinalSnapshot,
    MigrationReport,
    Phase,
    Step,
    config_map_name,
    decode_report,
)
from backupagent.settings import ListSettings, RestoreSettings
from backupagent.testing.controller_process import ControllerProcess
from backupagent.testing.druid_etcd import Images
from backupagent.testing.garden import DESTINATION, PROJECT, SHOOT, SOURCE, TECHNICAL_ID
from backupagent.testing.keyspace import compare, read_everything
from backupagent.testing.script import Script
from backupagent.testing.servers import EtcdServer
from backupagent.testing.stage import MigrationStage, Setup
from backupagent.units import MiB

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

MIGRATION_S = 150.0
NEEDED = ("kube-apiserver", "kube-controller-manager", "minio", "etcd")

STEPS_OF_A_MIGRATION = [
    "MigrationRequested",
    "PreflightPassed",
    "MigrateStarted",
    "ApiServerStopped",
    "FinalSnapshotVerified",
    "SourceReleased",
    "RestoreStarted",
    "CopyVerified",
    "RestoreVerified",
    "ApiServerStarted",
    "RestoreSucceeded",
    "MigrationSucceeded",
]
"""What the controller tells in any case, in order; quick steps in between may be seen together."""


def assert_in_order(names: Sequence[str]) -> None:
    """The sidecar takes the first backup when its delta is due, whatever gardenlet is doing by then."""
    assert [name for name in names if name in STEPS_OF_A_MIGRATION] == STEPS_OF_A_MIGRATION
    assert names.count("FirstBackup") == 1
    assert names.index("RestoreVerified") < names.index("FirstBackup") < names.index("MigrationSucceeded")


@pytest.fixture(autouse=True)
def _servers(server_binary: Callable[[str], Path]) -> None:
    for name in NEEDED:
        server_binary(name)


def report_of(stage: MigrationStage) -> MigrationReport | None:
    found = stage.kube.find(CONFIG_MAPS, config_map_name(SHOOT), PROJECT)
    return decode_report(found["data"][REPORT_KEY], "the report") if found else None


def ended(stage: MigrationStage) -> MigrationReport:
    """Wait until the controller says how it ended."""
    clock, cancel = SYSTEM_CLOCK, Cancel()
    deadline_s = clock.monotonic_s() + MIGRATION_S
    while clock.monotonic_s() < deadline_s:
        report = report_of(stage)
        if report is not None and report.ended:
            return report
        cancel.wait(0.2)
    raise AssertionError(f"the controller knows no end: {report}")


def write_after(stage: MigrationStage) -> None:
    """Write to the new etcd, as its API server does at once."""
    with stage.destination_client() as client:
        client.etcd3.put("written-after", "the migration")


def events(stage: MigrationStage) -> Mapping[str, str]:
    """Return the messages of the Events on the Shoot, by reason."""
    found = stage.kube.list(EVENTS, PROJECT)
    return {event["reason"]: event["message"] for event in found if event["involvedObject"]["name"] == SHOOT}


@contextmanager
def migrate_command(stage: MigrationStage) -> Iterator["subprocess.Popen[str]"]:
    """Run ``backupagent migrate`` as an operator."""
    kubeconfig = f"--kubeconfig={stage.kubeconfig('operator')}"
    command = [sys.executable, "-m", "backupagent", "migrate", "shoot", f"{PROJECT}/{SHOOT}", "--to", DESTINATION]
    child = subprocess.Popen(
        [*command, kubeconfig, "--output=json", "--progress=plain"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(stage.folder)},
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def outcome(child: "subprocess.Popen[str]") -> tuple[int, dict[str, Any], str]:
    out, err = child.communicate(timeout=MIGRATION_S)
    return child.returncode, json.loads(out), err


def test_a_migration_arrives_whole(tmp_path: Path) -> None:
    peaks: list[int] = []

    def look_at_the_copy(step: Step) -> None:
        if step.name == "CopyTaskSucceeded":
            pods = [pod["metadata"]["name"] for pod in stage.kube.list(PODS, TECHNICAL_ID)]
            peaks.extend(stage.kubelet.peak_memory(TECHNICAL_ID, pod) for pod in pods if pod.startswith(SHOOT))

    with MigrationStage(tmp_path, objects=2000, on_step=look_at_the_copy) as stage:
        stage.start_controller()
        with migrate_command(stage) as child:
            stage.gardenlet.join(MIGRATION_S)
            comparison = stage.compare()
            write_after(stage)
            code, document, log = outcome(child)
        report = ended(stage)

        assert comparison.equal, comparison
        assert code == 0, log
        assert document["report"]["phase"] == "Succeeded"
        names = [step.name for step in report.steps]
        assert_in_order(names)
        assert set(names) <= set(events(stage))
        assert (report.source, report.destination, report.phase) == (SOURCE, DESTINATION, Phase.SUCCEEDED)
        assert report.equal is True
        assert report.final is not None
        assert report.restored is not None
        assert proven(report.final) == (report.restored.revision, report.restored.hash_kv)
        assert report.restored.hash_kv == stage.source_hash.hash
        assert report.copy is not None
        assert report.copy.complete
        assert report.downtime_s is not None
        assert report.downtime_s > 0
        assert stage.shoot.status_seed == DESTINATION
        # The kubelet gives Pods of Jobs a read-only root, no temp folder, and ends them above 256 MiB.
        assert len(peaks) == 1
        assert 0 < peaks[0] <= 256 * MiB
        assert_the_new_bucket_alone_restores(stage, tmp_path)


def proven(final: FinalSnapshot) -> tuple[int, int | None]:
    return final.revision, final.hash_kv


def assert_the_new_bucket_alone_restores(stage: MigrationStage, folder: Path) -> None:
    """A key written to the new etcd is in a delta there, and a restore from there equals the new etcd."""
    from backupagent import wiring
    from backupagent.progress import Progress

    uri, cancel = stage.bucket_uri(DESTINATION), Cancel()
    with stage.destination_client() as client:
        written = client.revision()
        deadline_s = SYSTEM_CLOCK.monotonic_s() + 30
        while SYSTEM_CLOCK.monotonic_s() < deadline_s:
            chain = wiring.run_list(ListSettings(store=uri), Progress(), cancel).chains[0]
            if chain.last_revision >= written:
                break
            cancel.wait(0.3)
        assert any(delta.start_revision <= written <= delta.last_revision for delta in chain.deltas)
        restored = wiring.run_restore(RestoreSettings(store=uri, data_dir=folder / "restored.etcd"), Progress(), cancel)
        assert restored.revision == written
        wanted = read_everything(client)
    with EtcdServer(data_dir=folder / "restored.etcd") as server:
        from backupagent.etcd.client import EtcdClient
        from backupagent.etcd.connection import EtcdAccess

        with EtcdClient.open(EtcdAccess(endpoints=(server.url,))) as again:
            assert compare(wanted, read_everything(again)) is None
    assert any(key.key == b"written-after" for key in wanted)


def test_the_same_when_the_source_lets_go_by_nulling_status_seed_name(tmp_path: Path) -> None:
    released: list[str] = []

    def look(step: Step) -> None:
        if step.name == "MigrateSucceeded":
            released.append(stage.shoot.status_seed)

    script = Script(null_status_seed=True)
    with MigrationStage(tmp_path, objects=300, script=script, on_step=look) as stage:
        stage.start_controller()
        stage.bind(DESTINATION)
        stage.gardenlet.join(MIGRATION_S)
        assert stage.compare().equal
        write_after(stage)
        report = ended(stage)
    assert released == [""]
    assert (report.phase, report.equal) == (Phase.SUCCEEDED, True)


def test_a_controller_that_is_killed_after_every_step_ends_the_same(tmp_path: Path) -> None:
    controllers: list[ControllerProcess] = []

    def kill_and_start(_step: Step) -> None:
        controllers[0].kill()
        controllers[0].start()

    with MigrationStage(tmp_path, objects=300, on_step=kill_and_start) as stage:
        controllers.append(stage.start_controller())
        stage.bind(DESTINATION)
        steps = stage.gardenlet.join(MIGRATION_S)
        assert stage.compare().equal
        write_after(stage)
        report = ended(stage)
    assert len(steps) > 15
    assert (report.phase, report.equal, report.source) == (Phase.SUCCEEDED, True, SOURCE)
    assert report.copy is not None
    assert report.copy.complete
    assert report.notes == ()
    assert_in_order([step.name for step in report.steps])


LYING = {"lying-copy": [sys.executable, "-c", "print('everything is copied')"]}


@pytest.mark.parametrize(
    ("script", "setup", "expected"),
    [
        pytest.param(Script(skip_final_snapshot=True), Setup(), FinalSnapshotMissing, id="no final snapshot"),
        pytest.param(Script(empty_source=True), Setup(), EmptySource, id="the source is emptied before the copy"),
        pytest.param(
            Script(),
            Setup(images=Images(copy="lying-copy"), programs=LYING),
            MigrationFailed,
            id="a copy Job that says success without having copied",
        ),
    ],
)
def test_less_than_everything_is_a_failure_and_never_a_success(
    script: Script, setup: Setup, expected: type[Exception], tmp_path: Path
) -> None:
    with MigrationStage(tmp_path, objects=300, script=script, setup=setup) as stage:
        stage.start_controller()
        with migrate_command(stage) as child:
            report = ended(stage)
            code, document, _log = outcome(child)
        assert (report.phase, report.reason) == (Phase.FAILED, expected.__name__)
        assert report.hint
        assert report.equal is not True
        assert code == expected.exit_code  # type: ignore[attr-defined] # a class of backupagent.errors
        assert document["report"]["reason"] == expected.__name__
        assert expected.__name__ in events(stage)
        assert "MigrationSucceeded" not in events(stage)
