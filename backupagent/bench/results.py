"""What was measured, and the figures drawn from it."""

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from backupagent.bench.measure import Measurement

if TYPE_CHECKING:
    from backupagent.bench.scenarios import Scenario

FIGURES = ("wall_s", "cpu_s", "peak_memory", "written")
"""Attributes of ``Measurement`` that are summed up."""


@dataclass(frozen=True)
class Run:
    """One run of one contender.

    Attributes:
        measurement: What it cost.
        problem: Why its result is not what was asked for; empty when it is.
        report: What it told about itself, where it writes JSON.
    """

    measurement: Measurement
    problem: str = ""
    report: dict[str, Any] | None = None


@dataclass
class ContenderResult:
    """All runs of one contender.

    Attributes:
        name: Of the contender.
        missing: Why it did not take part; empty when it did.
        version: What its program tells of itself.
        runs: In order.
    """

    name: str
    missing: str = ""
    version: str = ""
    runs: list[Run] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether it took part and every result was what was asked for."""
        return bool(self.runs) and not any(run.problem for run in self.runs)

    def median(self, figure: str) -> float | None:
        """Return the median of one of ``FIGURES``, or None when a run went wrong."""
        return statistics.median(self._all(figure)) if self.is_whole else None

    def highest(self, figure: str) -> float | None:
        """Return the highest of one of ``FIGURES``, or None when a run went wrong."""
        return max(self._all(figure)) if self.is_whole else None

    def _all(self, figure: str) -> list[float]:
        return [getattr(run.measurement, figure) for run in self.runs]


@dataclass
class ScenarioResult:
    """All runs of one scenario.

    Attributes:
        scenario: What was run.
        contenders: In order; the first one is ours.
    """

    scenario: "Scenario"
    contenders: list[ContenderResult]

    @property
    def ours(self) -> ContenderResult:
        """The runs of our own command."""
        return self.contenders[0]

    def wall_ratio(self, against: str) -> float | None:
        """Return the median of our time over another's, run by run, or None when one of them went wrong."""
        pairs = self._pairs(against)
        return statistics.median(mine.wall_s / theirs.wall_s for mine, theirs in pairs) if pairs else None

    def cpu_difference_s(self, against: str) -> float | None:
        """Return the median of what we needed more than another, run by run, or None when one of them went wrong."""
        pairs = self._pairs(against)
        return statistics.median(mine.cpu_s - theirs.cpu_s for mine, theirs in pairs) if pairs else None

    def _pairs(self, against: str) -> list[tuple[Measurement, Measurement]]:
        other = next((contender for contender in self.contenders if contender.name == against), None)
        if other is None or not (self.ours.is_whole and other.is_whole):
            return []
        both = zip(self.ours.runs, other.runs, strict=True)
        return [(mine.measurement, theirs.measurement) for mine, theirs in both]
