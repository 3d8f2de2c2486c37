"""`backupagent migrations`: what is known about all of them, read from the garden cluster and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from backupagent.controller import reports
from backupagent.controller.reports import Reported
from backupagent.controller.standing import is_moving
from backupagent.controller.steps import down_since
from backupagent.errors import ConfigError
from backupagent.kube.client import Kube, KubeClient
from backupagent.kube.resources import CONFIG_MAPS, SHOOTS
from backupagent.model.gardener import Shoot
from backupagent.model.migration import LABEL, MigrationReport, Phase, config_map_name
from backupagent.settings import MigrationsSettings

UNREPORTED = "no controller has reported this migration"


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One migration that runs, or the last one of a Shoot.

    Attributes:
        namespace: Of the Shoot.
        shoot: Name of the Shoot.
        source: Name of the source Seed; empty when it cannot be told.
        destination: Name of the destination Seed.
        phase: How far it is; None when no controller has reported it.
        operation: The Shoot's ``lastOperation`` as ``Migrate Processing 42%``; the report's when the Shoot is gone.
        since: When it began, RFC 3339; empty when that is not known.
        downtime_s: From the API server's end to its new beginning, seconds; None until both were seen.
        down_since: Since when the API server has been down, RFC 3339; empty when it is not.
        message: For a person, one line.
        report: The controller's report; None when there is none.
    """

    namespace: str
    shoot: str
    source: str
    destination: str
    phase: Phase | None
    operation: str
    since: str
    downtime_s: float | None
    down_since: str
    message: str
    report: MigrationReport | None

    def to_json(self) -> dict[str, Any]:
        """Return its part of the JSON document."""
        return {
            "namespace": self.namespace,
            "shoot": self.shoot,
            "source": self.source,
            "destination": self.destination,
            "phase": self.phase.value if self.phase else None,
            "operation": self.operation,
            "since": self.since or None,
            "downtime_s": self.downtime_s,
            "down_since": self.down_since or None,
            "message": self.message,
            "report": msgspec.to_builtins(self.report),
        }


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Migrations that run, then those that failed, then those that succeeded; each sorted by Shoot.

    Attributes:
        migrations: They.
        asked: The one Shoot that was asked for, as ``namespace/name``; empty when all were.
    """

    migrations: Sequence[Migration]
    asked: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the content of the JSON document."""
        return {"migrations": [migration.to_json() for migration in self.migrations]}


def split_key(key: str) -> tuple[str, str]:
    """Read ``NAMESPACE/NAME``.

    Raises:
        ConfigError: it is something else.
    """
    namespace, _slash, name = key.partition("/")
    if not namespace or not name or "/" in name:
        message = f"{key!r} names no Shoot"
        raise ConfigError(message, hint="write it as NAMESPACE/NAME, e.g. garden-dev/demo")
    return namespace, name


def overview(kube: Kube, namespace: str = "") -> Overview:
    """Look at all Shoots and all reports.

    Args:
        kube: The garden cluster.
        namespace: Only of this namespace; of all when empty.

    Raises:
        KubeError: the API server does not answer, or refuses.
    """
    documents = kube.list(CONFIG_MAPS, namespace, labels={LABEL: "true"})
    reported = {_place(document): reports.decoded(document) for document in documents}
    found: list[Migration] = []
    for shoot in map(Shoot.read, kube.list(SHOOTS, namespace)):
        told = reported.pop((shoot.namespace, config_map_name(shoot.name)), Reported())
        found += _of_shoot(shoot, told)
    # What is left belongs to Shoots that are gone.
    found += [_of_report(told.report) for told in reported.values() if told.report is not None]
    return Overview(migrations=sorted(found, key=_rank))


def one(kube: Kube, key: str) -> Overview:
    """Look at one Shoot.

    Raises:
        ConfigError: the key is not ``NAMESPACE/NAME``.
        KubeNotFound: there is no such Shoot.
        KubeError: the API server does not answer, or refuses.
    """
    namespace, name = split_key(key)
    shoot = Shoot.read(kube.get(SHOOTS, name, namespace))
    return Overview(migrations=_of_shoot(shoot, reports.read(kube, namespace, name)), asked=key)


def _place(config_map: Mapping[str, Any]) -> tuple[str, str]:
    metadata = config_map["metadata"]
    return metadata["namespace"], metadata["name"]


def _rank(migration: Migration) -> tuple[int, str, str]:
    order = {Phase.FAILED: 1, Phase.SUCCEEDED: 2}
    return (order.get(migration.phase, 0) if migration.phase else 0, migration.namespace, migration.shoot)


def _of_shoot(shoot: Shoot, told: Reported) -> list[Migration]:
    report = told.report
    if report is not None and (reports.belongs(report, shoot) or not is_moving(shoot)):
        return [_of_report(report, str(shoot.operation))]
    if not is_moving(shoot) and not told.trouble:
        return []
    return [
        Migration(
            namespace=shoot.namespace,
            shoot=shoot.name,
            source="" if shoot.status_seed == shoot.spec_seed else shoot.status_seed,
            destination=shoot.spec_seed,
            phase=None,
            operation=str(shoot.operation),
            since="",
            downtime_s=None,
            down_since="",
            message=told.trouble or UNREPORTED,
            report=None,
        )
    ]


def _of_report(report: MigrationReport, operation: str = "") -> Migration:
    return Migration(
        namespace=report.namespace,
        shoot=report.shoot,
        source=report.source,
        destination=report.destination,
        phase=report.phase,
        operation=operation or report.operation,
        since=report.steps[0].at if report.steps else "",
        downtime_s=report.downtime_s,
        down_since="" if report.ended else down_since(report),
        message=report.message,
        report=report,
    )


def run_migrations(settings: MigrationsSettings) -> Overview:
    """Do what `backupagent migrations` does, with the cluster of a kubeconfig.

    Raises:
        ConfigError: the Shoot's name or the kubeconfig is wrong.
        KubeError: the API server does not answer, or refuses.
    """
    with KubeClient.open(settings.kubeconfig) as kube:
        return one(kube, settings.name) if settings.name else overview(kube, settings.namespace)
