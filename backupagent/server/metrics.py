"""The sidecar's metrics: the peer's names, where this version has something to tell, and ours.

Source of the peer's names: etcd-backup-restore, pkg/metrics at debd95b.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from backupagent.operations.report import ListedChain, SnapshotReport
from backupagent.server.schedule import created

CONTENT_TYPE = CONTENT_TYPE_LATEST

FULL, INCR = KINDS = ("Full", "Incr")
OUTCOMES = ("true", "false")
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Go's default ones, seconds: dashboards are made for them."""


class Metrics:
    """One registry of its own; every series exists from the start, at zero."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._revision = Gauge(
            "etcdbr_snapshot_latest_revision", "Last revision of the newest snapshot", ["kind"], registry=registry
        )
        self._timestamp = Gauge(
            "etcdbr_snapshot_latest_timestamp",
            "When the newest snapshot was taken, seconds since 1970",
            ["kind"],
            registry=registry,
        )
        self._required = Gauge(
            "etcdbr_snapshot_required", "Whether a snapshot of that kind is due", ["kind"], registry=registry
        )
        self._duration = Histogram(
            "etcdbr_snapshot_duration_seconds",
            "Time that a snapshot took",
            ["kind", "succeeded"],
            registry=registry,
            buckets=BUCKETS,
        )
        self._failures = Counter(
            "backupagent_snapshot_failures", "Snapshots that failed, by the reason", ["reason"], registry=registry
        )
        self._restore = Histogram(
            "etcdbr_restoration_duration_seconds",
            "Time that a restore took",
            ["restore", "succeeded"],
            registry=registry,
            buckets=BUCKETS,
        )
        self._healthy = Gauge("backupagent_healthy", "Whether backups are being taken", registry=registry)
        self._restored = Gauge(
            "backupagent_restored_revision", "Last revision of the restore that this process made", registry=registry
        )
        for kind in KINDS:
            for gauge in (self._revision, self._timestamp, self._required):
                gauge.labels(kind).set(0)
            for outcome in OUTCOMES:
                self._duration.labels(kind, outcome)
        for outcome in OUTCOMES:
            self._restore.labels("single_node", outcome)

    def found(self, newest: ListedChain) -> None:
        """Tell what lies in the store when backups begin."""
        for snapshot in (newest.full, *newest.deltas):
            moment = created(snapshot.name)
            self._revision.labels(snapshot.kind).set(snapshot.last_revision)
            self._timestamp.labels(snapshot.kind).set(0 if moment is None else moment.timestamp())

    def due(self, kind: str) -> None:
        """Tell that a snapshot of that kind must be taken now."""
        self._required.labels(kind).set(1)

    def taken(self, report: SnapshotReport, at_s: float) -> None:
        """Tell a snapshot; one that had nothing to hold is none, but none is required then either."""
        self._required.labels(INCR).set(0)  # a full holds what a delta would
        self._required.labels(report.kind).set(0)
        if report.name is not None:
            self._revision.labels(report.kind).set(report.last_revision)
            self._timestamp.labels(report.kind).set(at_s)
            self._duration.labels(report.kind, "true").observe(report.seconds)

    def failed(self, kind: str, reason: str, seconds: float) -> None:
        """Tell a snapshot that failed."""
        self._duration.labels(kind, "false").observe(seconds)
        self._failures.labels(reason).inc()
        self._required.labels(kind).set(1)

    def restored(self, revision: int, seconds: float) -> None:
        """Tell a restore."""
        self._restore.labels("single_node", "true").observe(seconds)
        self._restored.set(revision)

    def restore_failed(self, seconds: float) -> None:
        """Tell a restore that failed."""
        self._restore.labels("single_node", "false").observe(seconds)

    def healthy(self, *, healthy: bool) -> None:
        """Tell what ``/healthz`` answers."""
        self._healthy.set(healthy)

    def text(self) -> bytes:
        """Return what ``/metrics`` answers."""
        return generate_latest(self._registry)
