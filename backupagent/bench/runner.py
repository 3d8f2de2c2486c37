"""Runs scenarios: every contender in turn, again and again, so that a slow minute of the machine meets all."""

import compileall
import fnmatch
import json as json_format
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import backupagent
from backupagent.bench.contender import Contender
from backupagent.bench.host import describe_host, load_average
from backupagent.bench.measure import measure, memory_ready, settle
from backupagent.bench.report import document, print_circumstances, print_result, print_run, print_targets
from backupagent.bench.results import ContenderResult, Run, ScenarioResult
from backupagent.bench.scenarios import QUICK, SCENARIOS, Scenario
from backupagent.bench.stages import STAGES, Stage
from backupagent.errors import ConfigError
from backupagent.testing.builders import cache_root

STDERR_LINES = 3
"""Last lines of a failed contender's standard error that are shown."""

DEFAULT_RUNS = 5


def run(
    kind: str,
    only: str | None = None,
    runs: int = DEFAULT_RUNS,
    json: Path | None = None,
    *,
    check: bool = False,
    quick: bool = False,
) -> int:
    """Run scenarios and show every run, medians, ratios and targets.

    Args:
        kind: What is measured, e.g. ``restore``.
        only: Glob that a scenario's name must match; a scenario that another is compared with is run, too.
        runs: How often each contender runs.
        json: Where to write everything that was measured.
        check: Whether a missed target is a failure. One that cannot be judged (a peer is missing) is none.
        quick: Run scenarios that are too small to mean anything.

    Returns:
        Exit code: 1 when our own command failed or, with ``check``, missed a target.

    Raises:
        ConfigError: no scenario matches.
        ServerMissing: a server that the scenarios need is not on this machine.
    """
    chosen = choose(QUICK if quick else SCENARIOS, kind, only)
    # Else the first run would write these, and be charged for it.
    compileall.compile_dir(Path(backupagent.__file__).parent, quiet=2)
    load_before = load_average()
    results: dict[str, ScenarioResult] = {}
    with _workspace() as workspace:
        host = describe_host(workspace)
        for scenario in chosen:
            results[scenario.name] = run_scenario(scenario, runs, workspace)
            print_result(results[scenario.name])
    missed = print_targets(results)
    report = document(results, host | {"load_before": load_before, "load_after": load_average()})
    print_circumstances(report)
    if json is not None:
        json.write_text(json_format.dumps(report, indent=1) + "\n")
    failed = not all(result.ours.is_whole for result in results.values())
    return int(failed or (check and missed > 0))


def choose(scenarios: Sequence[Scenario], kind: str, only: str | None) -> list[Scenario]:
    """Return the scenarios that were asked for, and those that they are compared with, in the table's order.

    Raises:
        ConfigError: no scenario matches.
    """
    wanted = [each for each in scenarios if each.what == kind and fnmatch.fnmatchcase(each.name, only or "*")]
    if not wanted:
        known = ", ".join(scenario.name for scenario in scenarios)
        raise ConfigError(f"no scenario of {kind!r} matches {only or '*'!r}", hint=f"there are {known}")
    names = {scenario.name for scenario in wanted}.union(*(scenario.needs for scenario in wanted))
    return [scenario for scenario in scenarios if scenario.name in names]


def run_scenario(scenario: Scenario, runs: int, workspace: Path) -> ScenarioResult:
    """Run the contenders of a scenario in turn.

    Args:
        scenario: What to run.
        runs: How often each contender runs.
        workspace: An empty directory on the disk that is measured.
    """
    found = [
        ContenderResult(each.name, version=each.version(), missing="" if each.find() else f"no {each.program} on PATH")
        for each in scenario.contenders
    ]
    with STAGES[scenario.what](scenario, workspace / scenario.name) as stage:
        for number in range(runs):
            for contender, result in zip(scenario.contenders, found, strict=True):
                if not result.missing:
                    result.runs.append(_run_once(contender, stage, workspace, scenario.ready_memory))
                    print_run(scenario, contender.name, number, result.runs[-1])
    return ScenarioResult(scenario, found)


def _run_once(contender: Contender, stage: Stage, directory: Path, ready_memory: int) -> Run:
    fields = stage.fresh()
    settle()
    with memory_ready(ready_memory):
        measurement = measure(contender.command(fields), contender.variables(fields), directory)
    if measurement.exit_code != 0:
        told = " / ".join(measurement.stderr.strip().splitlines()[-STDERR_LINES:])
        return Run(measurement, f"exit code {measurement.exit_code}: {told}")
    report, problem = _read_report(measurement.stdout) if contender.reports_json else (None, "")
    return Run(measurement, problem or stage.problem(fields, report), report)


def _read_report(text: str) -> tuple[dict[str, Any] | None, str]:
    try:
        report = json_format.loads(text)
    except ValueError as error:
        return None, f"its standard output is not one JSON document: {error}"
    return (report, "") if isinstance(report, dict) else (None, "its standard output is no JSON object")


@contextmanager
def _workspace() -> Iterator[Path]:
    """Make a directory beside what the builders keep, so that source and results lie on one disk."""
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="work-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
