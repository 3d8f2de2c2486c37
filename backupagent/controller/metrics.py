"""What the controller counts, as one table."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from backupagent.model.migration import MigrationReport, Phase


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: As it is scraped.
        help: What it tells.
        labels: Names of its labels.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()


PHASE = Metric(
    "backupagent_migration_phase",
    "1 for the phase that a migration is in, 0 for the others",
    ("namespace", "shoot", "phase"),
)
DOWNTIME = Metric(
    "backupagent_migration_downtime_seconds", "API server stopped to API server started", ("namespace", "shoot")
)
FAILURES = Metric("backupagent_migration_failures_total", "Migrations that became Failed, by reason", ("reason",))
FINISHED = Metric("backupagent_migrations_succeeded_total", "Migrations that became Succeeded")
RECONCILE = Metric("backupagent_reconcile_seconds", "Time of one look at a Shoot")
RECONCILE_ERRORS = Metric("backupagent_reconcile_errors_total", "Looks at a Shoot that failed, by reason", ("reason",))
LOOK = Metric("backupagent_bucket_look_seconds", "Time of one look at the buckets of a migration")
QUEUE = Metric("backupagent_queue_length", "Shoots that wait to be looked at")

METRICS = (PHASE, DOWNTIME, FAILURES, FINISHED, RECONCILE, RECONCILE_ERRORS, LOOK, QUEUE)
"""Every metric; a new one is a line above and here."""


class Metrics:
    """The controller's metrics. Thread-safe."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._gauges = {
            m.name: Gauge(m.name, m.help, m.labels, registry=self._registry) for m in (PHASE, DOWNTIME, QUEUE)
        }
        self._counters = {
            m.name: Counter(m.name, m.help, m.labels, registry=self._registry)
            for m in (FAILURES, FINISHED, RECONCILE_ERRORS)
        }
        self._times = {m.name: Histogram(m.name, m.help, registry=self._registry) for m in (RECONCILE, LOOK)}

    def show(self, report: MigrationReport) -> None:
        """Show how far a migration is."""
        gauge = self._gauges[PHASE.name]
        for phase in Phase:
            gauge.labels(report.namespace, report.shoot, phase.value).set(phase is report.phase)
        if report.downtime_s is not None:
            self._gauges[DOWNTIME.name].labels(report.namespace, report.shoot).set(report.downtime_s)

    def forget(self, namespace: str, shoot: str) -> None:
        """Show a Shoot no longer."""
        for phase in Phase:
            self._gauges[PHASE.name].remove(namespace, shoot, phase.value)
        self._gauges[DOWNTIME.name].remove(namespace, shoot)

    def failed(self, reason: str) -> None:
        """Count a migration that became Failed."""
        self._counters[FAILURES.name].labels(reason).inc()

    def succeeded(self) -> None:
        """Count a migration that became Succeeded."""
        self._counters[FINISHED.name].inc()

    def reconciled(self, seconds: float) -> None:
        """Count a look at a Shoot."""
        self._times[RECONCILE.name].observe(seconds)

    def looked(self, seconds: float) -> None:
        """Count a look at buckets."""
        self._times[LOOK.name].observe(seconds)

    def reconcile_failed(self, reason: str) -> None:
        """Count a look at a Shoot that failed."""
        self._counters[RECONCILE_ERRORS.name].labels(reason).inc()

    def waiting(self, count: int) -> None:
        """Show how many Shoots wait."""
        self._gauges[QUEUE.name].set(count)

    def scrape(self) -> bytes:
        """Return everything in the text format of Prometheus."""
        return generate_latest(self._registry)
