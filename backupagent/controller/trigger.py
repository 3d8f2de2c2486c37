"""`backupagent migrate`: ask whether a Shoot may move, bind it to its destination, follow it.

It needs no controller and no server of its own: the API server decides who may bind a Shoot, Gardener moves it.
"""

import copy

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.controller import preflight, reports
from backupagent.controller.follow import Follower, Target
from backupagent.controller.outcome import End, MigrationOutcome
from backupagent.controller.overview import split_key
from backupagent.controller.standing import Standing, standing
from backupagent.errors import Cancelled, KubeConflict, KubeError, KubeForbidden, PreflightFailed
from backupagent.kube import manifests
from backupagent.kube.client import Kube, KubeClient
from backupagent.kube.resources import EVENTS, SHOOTS, Document
from backupagent.model.gardener import Shoot
from backupagent.model.migration import MigrationReport
from backupagent.progress import Milestone, Progress
from backupagent.settings import MigrateSettings

ATTEMPTS = 5
"""How often a binding is tried while others change the Shoot: gardenlet writes to a Shoot a few times a minute."""

COMPONENT = "backupagent-migrate"
"""Who reports an Event."""


def run_migrate(settings: MigrateSettings, progress: Progress, cancel: Cancel) -> MigrationOutcome:
    """Do what `backupagent migrate` does, with the cluster of a kubeconfig.

    Raises:
        ConfigError: the Shoot's name or the kubeconfig is wrong.
        PreflightFailed: the Shoot must not move; nothing was changed.
        KubeForbidden: the operator may not bind Shoots, or not read them; nothing was changed.
        KubeError: the API server does not answer, or refuses.
        MigrationFailed: the Shoot was bound to yet another Seed while it was followed.
        Cancelled: following was stopped; the migration goes on.
    """
    with KubeClient.open(settings.kubeconfig) as kube:
        return Trigger(kube, settings, progress, SYSTEM_CLOCK).run(cancel)


class Trigger:
    """Moves one Shoot. Used by one thread, once.

    Args:
        kube: The garden cluster.
        settings: What to move where, and how long to follow it.
        progress: Where it is told.
        clock: Source of time.
    """

    def __init__(self, kube: Kube, settings: MigrateSettings, progress: Progress, clock: Clock) -> None:
        self._kube = kube
        self._settings = settings
        self._progress = progress
        self._clock = clock
        self._namespace, self._name = split_key(settings.name)
        self._began_s = clock.monotonic_s()
        self._notes: list[str] = []
        self._bound = False

    def run(self, cancel: Cancel) -> MigrationOutcome:
        """Check, bind, follow; see ``run_migrate``."""
        document = self._read()
        shoot = Shoot.read(document)
        now = standing(shoot, self._settings.to)
        before = self._reported() if now is not Standing.MOVING else reports.Reported()
        if now is Standing.THERE:
            return self._outcome(End.ALREADY_THERE, shoot, self._of(before, shoot))
        if now is Standing.ELSEWHERE:
            self._check(document)
            self._bind(document)
        if not self._settings.follow:
            return self._outcome(End.BOUND, shoot, None)
        return self._follow(shoot, before.text, cancel)

    def _follow(self, shoot: Shoot, stale: str, cancel: Cancel) -> MigrationOutcome:
        target = Target(self._namespace, self._name, self._settings.to, stale)
        follower = Follower(self._kube, target, self._progress, self._clock)
        with self._progress.phase(f"{shoot.key} to {target.destination}"):
            try:
                end = follower.follow(self._settings.timeout, cancel)
            except Cancelled as error:
                hint = f"`backupagent migrations {shoot.key}` shows it; the same command again goes on showing"
                raise Cancelled(f"{error.message}: the move goes on", hint=hint) from error
        self._notes += follower.notes
        last = follower.last
        return self._outcome(end, last.shoot if last else shoot, last.report if last else None, came_from=shoot)

    def _read(self) -> Document:
        return self._kube.get(SHOOTS, self._name, self._namespace)

    def _reported(self) -> reports.Reported:
        """Read the report that is there before anything is done; an operator may do without."""
        try:
            return reports.read(self._kube, self._namespace, self._name)
        except KubeForbidden:
            return reports.Reported()

    def _of(self, reported: reports.Reported, shoot: Shoot) -> MigrationReport | None:
        report = reported.report
        known = report is not None and report.destination == self._settings.to and reports.belongs(report, shoot)
        return report if known else None

    def _check(self, document: Document) -> None:
        facts = preflight.gather(self._kube, Shoot.read(document), self._settings.to)
        for unchecked in facts.unchecked:
            self._notes.append(unchecked)
            self._tell("migrate", "Unchecked", unchecked, bad=True)
        try:
            preflight.require(facts)
        except PreflightFailed as error:
            self._warn(document, error)
            raise

    def _warn(self, shoot: Document, refused: PreflightFailed) -> None:
        """Tell on the Shoot why it was not moved; an operator without that right is refused all the same."""
        warning = manifests.event(
            shoot,
            reason=refused.reason,
            message=refused.message,
            at=self._clock.now(),
            component=COMPONENT,
            warning=True,
        )
        try:
            self._kube.create(EVENTS, warning)
        except KubeConflict:
            return  # the same was told before, and the Event is still there
        except KubeError as error:
            self._tell("migrate", "EventNotWritten", error.message, bad=True)

    def _bind(self, document: Document) -> None:
        """Change ``spec.seedName`` and nothing else, by the subresource that is there for it."""
        for attempt in range(1, ATTEMPTS + 1):
            wanted = copy.deepcopy(dict(document))
            wanted["spec"]["seedName"] = self._settings.to
            try:
                self._kube.replace(SHOOTS, wanted, subresource="binding")
            except KubeConflict:
                if attempt == ATTEMPTS:
                    raise
                document = self._read_unmoved(Shoot.read(document))
            else:
                self._bound = True
                self._tell("operator", "Bound", f"{Shoot.read(document).spec_seed} to {self._settings.to}")
                return

    def _read_unmoved(self, before: Shoot) -> Document:
        """Read the Shoot again after a conflict.

        Raises:
            KubeConflict: somebody else moves it: what was checked holds no more.
        """
        document = self._read()
        now = Shoot.read(document)
        if (now.spec_seed, now.status_seed) != (before.spec_seed, before.status_seed):
            message = f"somebody bound it to {now.spec_seed} meanwhile"
            raise KubeConflict(message, what=f"update shoots/binding {now.key}")
        return document

    def _tell(self, who: str, what: str, detail: str, *, bad: bool = False) -> None:
        self._progress.tell(Milestone(self._clock.now(), who, what, detail, bad))

    def _outcome(
        self, end: End, shoot: Shoot, report: MigrationReport | None, *, came_from: Shoot | None = None
    ) -> MigrationOutcome:
        source = (came_from or shoot).status_seed
        return MigrationOutcome(
            namespace=self._namespace,
            shoot=self._name,
            source=report.source if report else "" if source == self._settings.to else source,
            destination=self._settings.to,
            end=end,
            bound=self._bound,
            operation=str(shoot.operation),
            report=report,
            seconds=self._clock.monotonic_s() - self._began_s,
            notes=tuple(dict.fromkeys(self._notes)),
        )
