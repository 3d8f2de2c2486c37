"""What a benchmark says: one line a run, a table a scenario, the targets at the end, and everything as JSON."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from backupagent.bench.host import describe_software, git_commit
from backupagent.bench.measure import POLICY
from backupagent.bench.results import FIGURES, ContenderResult, Run, ScenarioResult
from backupagent.bench.scenarios import Scenario
from backupagent.bench.targets import Target
from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.units import format_size

FORMAT = 1
"""Of the JSON document; fields may be added without a new number."""

_console = Console(highlight=False)


def print_run(scenario: Scenario, contender: str, number: int, run: Run) -> None:
    """Show one run as it ends."""
    cost = run.measurement
    figures = f"{cost.wall_s:8.3f} s  {cost.cpu_s:7.2f} CPU s  {format_size(cost.peak_memory):>10}"
    _console.print(
        f"{scenario.name} #{number + 1} {contender:<12} {figures}  {run.problem}", markup=False, soft_wrap=True
    )


def print_result(result: ScenarioResult) -> None:
    """Show the medians of a scenario and our time beside everybody else's."""
    table = Table(title=result.scenario.name, title_justify="left")
    for heading in ("", "wall s", "ours / it", "CPU s", "peak memory", "written"):
        table.add_column(heading, justify="left" if not heading else "right")
    for contender in result.contenders:
        table.add_row(contender.name, *_cells(result, contender))
    _console.print(table)


def print_targets(results: Mapping[str, ScenarioResult]) -> int:
    """Show every target and whether it was met.

    Returns:
        How many were missed; those that could not be judged are none of them.
    """
    missed = 0
    for result in results.values():
        for target in result.scenario.targets:
            figure = target.figure(result, results)
            verdict = "not judged" if figure is None else "met" if target.is_met(figure) else "MISSED"
            missed += verdict == "MISSED"
            shown = "" if figure is None else target.show(figure)
            _console.print(f"{result.scenario.name}: {target}: {shown} {verdict}", markup=False)
    return missed


def print_circumstances(report: Mapping[str, Any]) -> None:
    """Show what the figures belong to.

    Args:
        report: From ``document``.
    """
    host, versions = report["host"], dict(report["versions"])
    for scenario in report["scenarios"]:
        versions |= {each["name"]: each["version"] for each in scenario["contenders"] if each["version"]}
    load = " to ".join("/".join(f"{one:.1f}" for one in host[moment]) for moment in ("load_before", "load_after"))
    programs = ", ".join(f"{name} {told}" for name, told in versions.items())
    machine = f"{host['cores']} cores ({host['cpu']}), {format_size(host['memory'])}, {host['file_system']}"
    _console.print(
        f"commit {report['git_commit'] or 'unknown'}; {programs}\n{machine}, load {load}; {report['policy']}",
        markup=False,
        soft_wrap=True,
    )


def document(
    results: Mapping[str, ScenarioResult], host: Mapping[str, Any], clock: Clock = SYSTEM_CLOCK
) -> dict[str, Any]:
    """Return everything that was measured, ready for JSON: seconds and bytes."""
    return {
        "format": FORMAT,
        "created": clock.now().isoformat(),
        "git_commit": git_commit(),
        "versions": describe_software(),
        "host": dict(host),
        "policy": POLICY,
        "scenarios": [_scenario(result, results) for result in results.values()],
    }


def _cells(result: ScenarioResult, contender: ContenderResult) -> list[str]:
    if not contender.is_whole:
        return [contender.missing or "failed", "", "", "", ""]
    wall_s, cpu_s, memory, written = (contender.median(figure) or 0 for figure in FIGURES)
    ratio = result.wall_ratio(contender.name)
    shown = "" if ratio is None or contender is result.ours else f"{ratio:.2f}"
    return [f"{wall_s:.3f}", shown, f"{cpu_s:.2f}", format_size(memory), format_size(written)]


def _scenario(result: ScenarioResult, results: Mapping[str, ScenarioResult]) -> dict[str, Any]:
    scenario = result.scenario
    others = [contender.name for contender in result.contenders[1:]]
    return {
        "name": scenario.name,
        "what": scenario.what,
        "full": {"kind": type(scenario.full).__name__, **dataclasses.asdict(scenario.full)},
        "deltas": dataclasses.asdict(scenario.deltas),
        "contenders": [_contender(contender) for contender in result.contenders],
        "wall_ratios": {name: result.wall_ratio(name) for name in others},
        "targets": [_target(target, result, results) for target in scenario.targets],
    }


def _contender(contender: ContenderResult) -> dict[str, Any]:
    return {
        "name": contender.name,
        "version": contender.version,
        "missing": contender.missing or None,
        "median": {figure: contender.median(figure) for figure in FIGURES},
        "highest": {figure: contender.highest(figure) for figure in FIGURES},
        "runs": [_run(run) for run in contender.runs],
    }


def _run(run: Run) -> dict[str, Any]:
    cost = dataclasses.asdict(run.measurement)
    del cost["stdout"], cost["stderr"]
    return {**cost, "cpu_s": run.measurement.cpu_s, "problem": run.problem or None, "report": run.report}


def _target(target: Target, result: ScenarioResult, results: Mapping[str, ScenarioResult]) -> dict[str, Any]:
    figure = target.figure(result, results)
    return {
        "metric": target.metric.value,
        "against": target.against or None,
        "limit": target.limit,
        "figure": figure,
        "met": None if figure is None else target.is_met(figure),
    }
