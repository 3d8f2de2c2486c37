"""Following a migration from outside: the Shoot and the controller's report, looked at until the end.

It decides nothing: what has happened is what the report says, and where no controller writes one, what Gardener says.
"""

from dataclasses import dataclass

from backupagent.cancel import Cancel
from backupagent.clock import Clock
from backupagent.controller import reports
from backupagent.controller.facts import parse_time
from backupagent.controller.outcome import End
from backupagent.controller.reports import Reported
from backupagent.controller.standing import Standing, standing
from backupagent.controller.steps import down_since, is_bad
from backupagent.errors import KubeForbidden, KubeUnavailable, MigrationFailed
from backupagent.kube.client import Kube
from backupagent.kube.resources import SHOOTS
from backupagent.model.gardener import Shoot
from backupagent.model.migration import MigrationReport, Step
from backupagent.progress import Milestone, Progress
from backupagent.units import format_duration

LOOK_EVERY_S = 1.0

REPORT_WITHIN_S = 15.0
"""How long a controller may take for its first report before the operator is told that there is none."""

PROOF_WITHIN_S = 60.0
"""How long a report may be missing after Gardener has finished, before the migration is called unproven."""

NO_CONTROLLER = "no controller reports this migration; what follows is Gardener's word alone"


@dataclass(frozen=True)
class Target:
    """What is followed.

    Attributes:
        namespace: Of the Shoot.
        shoot: Its name.
        destination: The Seed that it moves to.
        stale: Text of a report that was there before, and is about an earlier attempt.
    """

    namespace: str
    shoot: str
    destination: str
    stale: str = ""


@dataclass(frozen=True)
class Seen:
    """One look.

    Attributes:
        shoot: The Shoot.
        report: The report of this migration; None when there is none.
    """

    shoot: Shoot
    report: MigrationReport | None


class Follower:
    """Looks at one migration until it ends. Used by one thread.

    Args:
        kube: The garden cluster.
        target: What is followed.
        progress: Where it is told: a milestone for each step, and one line about now.
        clock: Source of time.
    """

    def __init__(self, kube: Kube, target: Target, progress: Progress, clock: Clock) -> None:
        self._kube = kube
        self._target = target
        self._progress = progress
        self._clock = clock
        self._began_s = clock.monotonic_s()
        self._finished_s: float | None = None
        self._told_steps: set[tuple[str, str]] = set()
        self._told_operation = ""
        self.notes: list[str] = []
        self.last: Seen | None = None

    def follow(self, timeout_s: float, cancel: Cancel) -> End:
        """Look again and again, until the migration has ended or the time is over.

        Args:
            timeout_s: How long, seconds; 0 is for ever.
            cancel: Stops it; the migration goes on.

        Raises:
            Cancelled: the token was set.
            KubeNotFound: the Shoot is gone.
            KubeForbidden: the Shoot may not be read.
            MigrationFailed: the Shoot was bound to yet another Seed.
        """
        while True:
            cancel.raise_if_set()
            end = self._look()
            if end is not None:
                return end
            if timeout_s and self._clock.monotonic_s() - self._began_s >= timeout_s:
                return End.TIMEOUT
            cancel.wait(LOOK_EVERY_S)

    def _look(self) -> End | None:
        try:
            # In this order: a report that says success must not be held against a Shoot that was read before.
            reported = self._reported()
            shoot = Shoot.read(self._kube.get(SHOOTS, self._target.shoot, self._target.namespace))
        except KubeUnavailable as error:
            self._progress.note(f"{error.message}; trying again")
            return None
        if shoot.spec_seed != self._target.destination:
            message = f"{shoot.key} was bound to {shoot.spec_seed or 'no Seed'} meanwhile"
            raise MigrationFailed(message, hint="somebody else moves it; `backupagent migrations` shows where to")
        seen = self.last = Seen(shoot, self._of_this_migration(reported, shoot))
        self._tell(seen)
        self._progress.note(self._now(seen))
        return self._end(seen)

    def _reported(self) -> Reported:
        try:
            reported = reports.read(self._kube, self._target.namespace, self._target.shoot)
        except KubeForbidden as error:
            reported = Reported(trouble=f"{error.message}; {error.hint}")
        if reported.trouble:
            self._say_once("ReportUnreadable", reported.trouble)
        return reported

    def _of_this_migration(self, reported: Reported, shoot: Shoot) -> MigrationReport | None:
        known = reported.report
        stale = known is None or known.destination != self._target.destination or reported.text == self._target.stale
        return None if known is None or stale or not reports.belongs(known, shoot) else known

    def _tell(self, seen: Seen) -> None:
        if seen.report is not None:
            for step in seen.report.steps:
                self._tell_step(step)
        elif not self._told_steps and self._clock.monotonic_s() - self._began_s >= REPORT_WITHIN_S:
            self._say_once("NoController", NO_CONTROLLER)
            self._tell_operation(seen.shoot)

    def _tell_operation(self, shoot: Shoot) -> None:
        operation = shoot.operation
        kind = operation.type + operation.state
        if kind != self._told_operation:
            self._told_operation = kind
            at = parse_time(operation.updated) or self._clock.now()
            self._progress.tell(Milestone(at, "gardenlet", kind, operation.description))

    def _tell_step(self, step: Step) -> None:
        if (step.name, step.at) in self._told_steps:
            return
        self._told_steps.add((step.name, step.at))
        at = parse_time(step.at) or self._clock.now()
        self._progress.tell(Milestone(at, step.who, step.name, step.detail, bad=is_bad(step)))

    def _say_once(self, what: str, detail: str) -> None:
        if detail not in self.notes:
            self.notes.append(detail)
            self._progress.tell(Milestone(self._clock.now(), "migrate", what, detail, bad=True))

    def _now(self, seen: Seen) -> str:
        parts = [str(seen.shoot.operation)]
        if seen.report is not None:
            parts = [seen.report.phase.value, *parts]
            since = parse_time(down_since(seen.report))
            if since is not None:
                down_s = max(0.0, (self._clock.now() - since).total_seconds())
                parts.append(f"API server down for {format_duration(down_s)}")
            parts.append(seen.report.message)
        return ", ".join(part for part in parts if part)

    def _end(self, seen: Seen) -> End | None:
        if seen.report is not None:
            return End.ENDED if seen.report.ended else None
        if standing(seen.shoot, self._target.destination) is not Standing.THERE:
            self._finished_s = None
            return None
        if self._finished_s is None:
            self._finished_s = self._clock.monotonic_s()
        return End.UNPROVEN if self._clock.monotonic_s() - self._finished_s >= PROOF_WITHIN_S else None
