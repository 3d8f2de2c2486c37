"""One look at one Shoot: facts, evidence, the next report."""

import random

from backupagent.clock import Clock
from backupagent.controller.decide import decide
from backupagent.controller.evidence import Desk, Evidence, question
from backupagent.controller.facts import Clusters, gather
from backupagent.controller.memory import Memory, remember
from backupagent.controller.reporting import Reporter
from backupagent.kube.resources import SHOOTS
from backupagent.model.gardener import Shoot
from backupagent.model.migration import MigrationReport, Phase
from backupagent.operations.arrival import SourceSnapshot

FAILED_POLL_S = 20.0
"""Time between looks at a migration that failed, seconds: it is looked at until it is mended, but nobody waits."""

JITTER = 0.2
"""Part of a pause that is chance, so that many migrations do not ask at once."""


class Reconciler:
    """Looks at Shoots. Thread-safe, as long as one Shoot is looked at by one thread at a time.

    Args:
        clusters: Where to look.
        desk: Looks into buckets.
        reporter: Tells what was found.
        clock: Source of time.
        poll_s: Time between two looks at a running migration, seconds.
    """

    def __init__(self, clusters: Clusters, desk: Desk, reporter: Reporter, clock: Clock, *, poll_s: float) -> None:
        self._clusters = clusters
        self._desk = desk
        self._reporter = reporter
        self._clock = clock
        self._poll_s = poll_s
        self._rng = random.Random()  # noqa: S311 - jitter

    def reconcile(self, key: str) -> float | None:
        """Look at a Shoot, and tell what is known of its migration.

        Args:
            key: ``namespace/name``.

        Returns:
            After how many seconds it wants to be looked at again; None when there is nothing to wait for.

        Raises:
            KubeError: a cluster does not answer, or refuses.
            Cancelled: the controller is being stopped.
        """
        namespace, _slash, name = key.partition("/")
        document = self._clusters.garden.find(SHOOTS, name, namespace)
        if document is None:
            self._desk.forget(key)
            self._reporter.forget(key)
            return None
        shoot = Shoot.read(document)
        memory = remember(self._clusters.garden, shoot)
        facts = gather(self._clusters, shoot, memory, self._clock.now())
        if facts is None:
            if memory.report is None:
                self._reporter.forget(key)
            else:
                self._reporter.publish(shoot, memory, memory.report, memory.source)
            return None
        asked = question(facts, memory.report, memory.source)
        evidence = self._desk.ask(key, asked) if asked is not None else None
        report = decide(memory.report, facts, evidence)
        self._reporter.publish(shoot, memory, report, _source(memory, evidence))
        return self._pause_s(report)

    def _pause_s(self, report: MigrationReport) -> float | None:
        if report.phase is Phase.SUCCEEDED:
            return None
        pause_s = max(self._poll_s, FAILED_POLL_S) if report.phase is Phase.FAILED else self._poll_s
        return pause_s * (1 - JITTER * self._rng.random())


def _source(memory: Memory, evidence: Evidence | None) -> tuple[SourceSnapshot, ...] | None:
    return evidence.source if evidence is not None and evidence.source is not None else memory.source
