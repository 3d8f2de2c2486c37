"""One migration on this machine, from the binding of a Shoot to the first backup of its new etcd.

Real: API server and controllers of Kubernetes, two object stores, etcds, sidecars, the copy Job, the migration
controller and ``backupagent migrate``. Scripted: gardenlet and druid, and the wrapper that starts etcd.
"""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK
from backupagent.errors import MigrationFailed
from backupagent.kube.resources import CONFIG_MAPS
from backupagent.model.migration import (
    REPORT_KEY,
    MigrationReport,
    Step,
    config_map_name,
    decode_report,
)
from backupagent.testing.equality import Comparison
from backupagent.testing.garden import DESTINATION, PROJECT, SHOOT, SOURCE
from backupagent.testing.servers import clean_environment
from backupagent.testing.stage import MigrationStage, Setup
from backupagent.testing.waiting import NotInTime
from backupagent.units import format_duration, format_size

LIMIT_S = 300.0
"""How long the migration may take before the demo gives up."""

LOOK_S = 0.5
"""How often it is looked whether the demo was stopped."""

WRITES_PER_SECOND = 100.0
"""Pace of the writer that goes on until the API server stops."""


def run_migration_demo(*, objects: int, keep: Path | None, cancel: Cancel) -> int:
    """Play it, and print who did what and when.

    Args:
        objects: Keys in the old etcd.
        keep: Keeps logs and buckets there; None removes them.
        cancel: Looked at between the acts.

    Returns:
        0 when the new etcd equals the old one and the controller says so too, else 1.

    Raises:
        BackupAgentError: something that it needs is missing, or did not come about.
    """
    with ExitStack() as stack:
        stack.enter_context(clean_environment())
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backupagent-migration-")))
        folder.mkdir(parents=True, exist_ok=True)
        began_s = SYSTEM_CLOCK.monotonic_s()
        _say(
            f"two Seeds, each with a bucket; a Shoot on {SOURCE} whose etcd gets {objects:,} objects; files in {folder}"
        )
        setup = Setup(writes_per_second=WRITES_PER_SECOND)
        play = MigrationStage(folder, objects=objects, setup=setup, on_step=_tell_step, cancel=cancel)
        stage = stack.enter_context(play)
        stage.start_controller()
        cancel.raise_if_set()
        _say(f"everything is there after {format_duration(SYSTEM_CLOCK.monotonic_s() - began_s)}\n")
        operator = stack.enter_context(_migrate(stage))
        _wait_for_gardenlet(stage, cancel)
        comparison = stage.compare()
        with stage.destination_client() as client:
            client.etcd3.put("/registry/configmaps/default/written-after-the-migration", "by its first client")
        code, document = _outcome(operator)
        cancel.raise_if_set()
        _print_timeline(stage.gardenlet.steps, _report(stage))
        return _judge(comparison, _report(stage), code, document)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the demo talks to whoever watches


def _tell_step(step: Step) -> None:
    _say(f"{step.at[11:23]}  {step.who:<10} {step.name}")


def _migrate(stage: MigrationStage) -> "subprocess.Popen[str]":
    """Ask for the migration, as an operator does."""
    shoot = f"{PROJECT}/{SHOOT}"
    _say(f"$ backupagent migrate shoot {shoot} --to {DESTINATION}")
    command = [sys.executable, "-m", "backupagent", "migrate", "shoot", shoot, "--to", DESTINATION]
    options = [f"--kubeconfig={stage.kubeconfig('operator')}", "--output=json", "--progress=none"]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, env=environment)


def _wait_for_gardenlet(stage: MigrationStage, cancel: Cancel) -> None:
    """Wait until it has ended, or somebody wants to stop."""
    deadline_s = SYSTEM_CLOCK.monotonic_s() + LIMIT_S
    while True:
        cancel.raise_if_set()
        try:
            stage.gardenlet.join(LOOK_S)
        except NotInTime:
            if SYSTEM_CLOCK.monotonic_s() > deadline_s:
                raise
        else:
            return


def _outcome(operator: "subprocess.Popen[str]") -> tuple[int, dict[str, Any]]:
    out, _ = operator.communicate(timeout=LIMIT_S)
    return operator.returncode, json.loads(out)


def _report(stage: MigrationStage) -> MigrationReport:
    name = config_map_name(SHOOT)
    return decode_report(stage.kube.get(CONFIG_MAPS, name, PROJECT)["data"][REPORT_KEY], name)


def _print_timeline(played: list[Step], report: MigrationReport) -> None:
    """Print every step once: gardenlet's as it did them, the others' as the controller saw them."""
    done = {step.name for step in played}
    steps = sorted([*played, *(step for step in report.steps if step.name not in done)], key=lambda step: step.at)
    began = datetime.fromisoformat(steps[0].at)
    _say(f"\n{'seconds':>8}  {'who':<11}{'step':<26}what")
    for step in steps:
        seconds = (datetime.fromisoformat(step.at) - began).total_seconds()
        _say(f"{seconds:8.2f}  {step.who:<11}{step.name:<26}{step.detail}")


def _judge(comparison: Comparison, report: MigrationReport, code: int, document: dict[str, Any]) -> int:
    _say(f"\n{'':<14}{'revision':>12}{'HashKV':>14}{'compact revision':>20}")
    for name, side in (("old etcd", comparison.source), ("new etcd", comparison.destination)):
        _say(f"{name:<14}{side.revision:>12}{side.hash:>14}{side.compact_revision:>20}")
    if report.copy is not None:
        copied = f"{report.copy.present} of {report.copy.expected} snapshots, {format_size(report.copy.bytes)}"
        _say(f"\ncopied, as the controller counted: {copied}")
    _say(f"first new backup in the new bucket: {report.first_backup}")
    if report.downtime_s is not None:
        _say(f"without an API server: {format_duration(report.downtime_s)}")
    _say(f"`backupagent migrate` ended with {code}: {document.get('message') or report.phase}")
    if comparison.difference is not None:
        _say(f"the first difference: {comparison.difference}")
    equal = comparison.equal and report.equal is True and code == 0
    _say("\nEQUAL" if equal else "\nDIFFERENT")
    return 0 if equal else MigrationFailed.exit_code
