"""Figures and verdicts drawn from runs."""

import dataclasses
import fnmatch

import pytest

from backupagent.bench.measure import Measurement
from backupagent.bench.results import ContenderResult, Run, ScenarioResult
from backupagent.bench.runner import choose
from backupagent.bench.scenarios import QUICK, SCENARIOS, Scenario
from backupagent.bench.stages import STAGES
from backupagent.bench.targets import Metric, Target
from backupagent.errors import ConfigError
from backupagent.testing.builders import Deltas, RandomFull
from backupagent.units import GiB, MiB

SCENARIO = Scenario(
    "it", "restore", RandomFull(4096), Deltas(count=10, per_delta=100, value_size=1), (), content=2 * GiB
)


def runs(*walls_s: float, problem: str = "", memory: int = MiB) -> list[Run]:
    return [Run(Measurement(wall_s, 1.0, 0.5, memory, 0, 0), problem) for wall_s in walls_s]


def result(ours: list[Run], theirs: list[Run]) -> ScenarioResult:
    return ScenarioResult(SCENARIO, [ContenderResult("backupagent", runs=ours), ContenderResult("peer", runs=theirs)])


def test_the_ratio_is_the_median_over_pairs_of_runs_and_not_the_ratio_of_medians() -> None:
    assert result(runs(1, 2, 9), runs(2, 8, 9)).wall_ratio("peer") == 0.5


def test_a_ratio_needs_both_whole() -> None:
    assert result(runs(1), []).wall_ratio("peer") is None
    assert result(runs(1), runs(1, problem="nothing restored")).wall_ratio("peer") is None
    assert result(runs(1, problem="nothing restored"), runs(1)).wall_ratio("peer") is None
    assert result(runs(1), runs(1)).wall_ratio("stranger") is None


def test_the_newest_chain_counts_in_the_worst_run() -> None:
    def told(after_s: float, seconds: float) -> Run:
        report = {"newest_chain": {"restorable_after_s": after_s}, "seconds": seconds}
        return Run(Measurement(1, 1, 1, 1, 0, 0), report=report)

    target = Target(Metric.RESTORABLE_SHARE, 0.3)
    assert target.figure(result([told(1, 10), told(2, 5)], []), {}) == 0.4
    assert target.figure(result(runs(1), []), {}) is None  # nothing was told
    assert target.figure(result(runs(1, problem="broken"), []), {}) is None


def test_cpu_is_compared_run_by_run() -> None:
    def took(cpu_s: float) -> Run:
        return Run(Measurement(1, cpu_s, 0, 1, 0, 0))

    assert result([took(3), took(5)], [took(1), took(2)]).cpu_difference_s("peer") == 2.5
    assert result([took(3)], []).cpu_difference_s("peer") is None


def test_a_failed_run_leaves_no_figures() -> None:
    failed = ContenderResult("peer", runs=[*runs(1, 2), *runs(3, problem="exit code 1")])

    assert (failed.is_whole, failed.median("wall_s"), failed.highest("wall_s")) == (False, None, None)


@pytest.mark.parametrize(
    ("target", "figure", "met"),
    [
        (Target(Metric.EVENTS_PER_S, 500), 500, True),
        (Target(Metric.EVENTS_PER_S, 501), 500, False),
        (Target(Metric.WALL_RATIO, 0.5, against="peer"), 0.5, True),
        (Target(Metric.WALL_RATIO, 0.49, against="peer"), 0.5, False),
        (Target(Metric.CPU_S, 1.5), 1.5, True),
        (Target(Metric.CPU_S, 1.4), 1.5, False),
        (Target(Metric.CPU_PER_GIB, 0.75), 0.75, True),  # 1.5 s for 2 GiB
        (Target(Metric.CPU_PER_GIB, 0.74), 0.75, False),
        (Target(Metric.CPU_ABOVE, 0, against="peer"), 0, True),
        (Target(Metric.CPU_ABOVE, -0.1, against="peer"), 0, False),
        (Target(Metric.PEAK_MEMORY, MiB), MiB, True),
        (Target(Metric.PEAK_MEMORY, MiB - 1), MiB, False),
        (Target(Metric.MEMORY_GROWTH, 0, against="smaller"), MiB // 2, False),
        (Target(Metric.MEMORY_GROWTH, MiB, against="smaller"), MiB // 2, True),
        (Target(Metric.WRITTEN, 0), 0, True),
    ],
)
def test_a_target_judges_our_figure(target: Target, figure: float, met: bool) -> None:
    measured = result(runs(2, 2), runs(4, 4))
    smaller = result(runs(1, memory=MiB // 2), [])

    assert target.figure(measured, {"smaller": smaller}) == figure
    assert target.is_met(figure) is met


def test_memory_is_judged_by_the_worst_run() -> None:
    measured = result([*runs(1, memory=MiB), *runs(1, 1, memory=3 * MiB), *runs(1, 1, memory=MiB)], [])

    assert Target(Metric.PEAK_MEMORY, MiB).figure(measured, {}) == 3 * MiB


def test_what_a_target_compares_with_may_be_missing() -> None:
    measured = result(runs(1), [])

    assert Target(Metric.MEMORY_GROWTH, 1, against="smaller").figure(measured, {}) is None
    assert Target(Metric.WALL_RATIO, 1, against="peer").figure(measured, {}) is None


def test_a_chosen_scenario_brings_those_that_it_is_compared_with() -> None:
    assert [scenario.name for scenario in choose(SCENARIOS, "restore", "restore-1m")] == ["restore-100k", "restore-1m"]


def test_a_kind_is_all_of_its_scenarios_and_no_other() -> None:
    names = [scenario.name for scenario in choose(SCENARIOS, "copy", None)]
    assert names == fnmatch.filter([scenario.name for scenario in SCENARIOS], "copy-*")


@pytest.mark.parametrize(("kind", "only"), [("restore", "copy-*"), ("cook", "*")])
def test_a_choice_of_nothing_is_an_error(kind: str, only: str) -> None:
    with pytest.raises(ConfigError, match="no scenario"):
        choose(SCENARIOS, kind, only)


def test_the_tables_agree_with_each_other() -> None:
    everything = (*SCENARIOS, *QUICK)
    names = [scenario.name for scenario in everything]
    assert len(set(names)) == len(names)
    for scenario in everything:
        assert scenario.what in STAGES
        assert {contender.kind for contender in scenario.contenders} == {scenario.what}
        assert scenario.contenders[0].name == "backupagent"
        assert scenario.needs <= set(names)
        ratios = {target.against for target in scenario.targets if target.metric is Metric.WALL_RATIO}
        assert ratios <= {contender.name for contender in scenario.contenders}


def test_a_tenfold_scenario_differs_from_its_base_in_the_number_of_deltas_alone() -> None:
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    small, large = by_name["restore-100k"], by_name["restore-1m"]
    assert large.full == small.full
    assert large.deltas == dataclasses.replace(small.deltas, count=10 * small.deltas.count)
