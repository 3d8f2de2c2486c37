"""What a scenario promises: a metric, a limit, and how both are judged and shown."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from backupagent.bench.results import ScenarioResult
from backupagent.units import GiB, format_size


class Metric(StrEnum):
    """Something that a result has a figure for, or not when a contender did not take part."""

    EVENTS_PER_S = "events_per_s"
    WALL_RATIO = "wall_ratio"
    CPU_S = "cpu_s"
    CPU_PER_GIB = "cpu_per_gib"
    CPU_ABOVE = "cpu_above"
    RESTORABLE_SHARE = "restorable_share"
    PEAK_MEMORY = "peak_memory"
    MEMORY_GROWTH = "memory_growth"
    WRITTEN = "written"


@dataclass(frozen=True)
class Target:
    """A limit on a metric of our own command.

    Attributes:
        metric: What is limited.
        limit: The worst figure that still is good.
        against: For ``WALL_RATIO`` and ``CPU_ABOVE`` a contender, for ``MEMORY_GROWTH`` another scenario.
    """

    metric: Metric
    limit: float
    against: str = ""

    def figure(self, result: ScenarioResult, others: Mapping[str, ScenarioResult]) -> float | None:
        """Return what was measured, or None when it cannot be told."""
        return _ROWS[self.metric].figure(result, self.against, others)

    def is_met(self, figure: float) -> bool:
        """Say whether a figure is good."""
        return figure >= self.limit if _ROWS[self.metric].at_least else figure <= self.limit

    def show(self, figure: float) -> str:
        """Write a figure for people, with its unit."""
        return _ROWS[self.metric].show(figure)

    def __str__(self) -> str:
        sign = ">=" if _ROWS[self.metric].at_least else "<="
        against = f" vs {self.against}" if self.against else ""
        return f"{self.metric.value.replace('_', ' ')}{against} {sign} {self.show(self.limit)}"


@dataclass(frozen=True)
class _Row:
    figure: Callable[[ScenarioResult, str, Mapping[str, ScenarioResult]], float | None]
    show: Callable[[float], str]
    at_least: bool = False


def _events_per_s(result: ScenarioResult, _against: str, _others: Mapping[str, ScenarioResult]) -> float | None:
    wall_s = result.ours.median("wall_s")
    return None if wall_s is None else result.scenario.deltas.events / wall_s


def _wall_ratio(result: ScenarioResult, against: str, _others: Mapping[str, ScenarioResult]) -> float | None:
    return result.wall_ratio(against)


def _cpu_per_gib(result: ScenarioResult, _against: str, _others: Mapping[str, ScenarioResult]) -> float | None:
    cpu_s = result.ours.median("cpu_s")
    return None if cpu_s is None else cpu_s / (result.scenario.content / GiB)


def _cpu_above(result: ScenarioResult, against: str, _others: Mapping[str, ScenarioResult]) -> float | None:
    """What our command needs beyond another contender, for each GiB of uncompressed content."""
    more_s = result.cpu_difference_s(against)
    return None if more_s is None else more_s / (result.scenario.content / GiB)


def _restorable_share(result: ScenarioResult, _against: str, _others: Mapping[str, ScenarioResult]) -> float | None:
    """After which share of its time a copy had the newest chain at the target, in the worst run."""
    if not result.ours.is_whole:
        return None
    reports = [run.report for run in result.ours.runs if run.report is not None]
    return max((each["newest_chain"]["restorable_after_s"] / each["seconds"] for each in reports), default=None)


def _memory_growth(result: ScenarioResult, against: str, others: Mapping[str, ScenarioResult]) -> float | None:
    mine = result.ours.highest("peak_memory")
    other = others[against].ours.highest("peak_memory") if against in others else None
    return None if mine is None or other is None else mine - other


_ROWS: Mapping[Metric, _Row] = {
    Metric.EVENTS_PER_S: _Row(_events_per_s, "{:,.0f} events/s".format, at_least=True),
    Metric.WALL_RATIO: _Row(_wall_ratio, "{:.2f}".format),
    Metric.CPU_S: _Row(lambda result, _a, _o: result.ours.median("cpu_s"), "{:.2f} s".format),
    Metric.CPU_PER_GIB: _Row(_cpu_per_gib, "{:.2f} s/GiB".format),
    Metric.CPU_ABOVE: _Row(_cpu_above, "{:.2f} s/GiB".format),
    Metric.RESTORABLE_SHARE: _Row(_restorable_share, "{:.0%}".format),
    # A bound is a bound: the worst run counts, not the median.
    Metric.PEAK_MEMORY: _Row(lambda result, _a, _o: result.ours.highest("peak_memory"), format_size),
    Metric.MEMORY_GROWTH: _Row(_memory_growth, format_size),
    Metric.WRITTEN: _Row(lambda result, _a, _o: result.ours.highest("written"), format_size),
}
