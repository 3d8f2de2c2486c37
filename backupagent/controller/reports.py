"""Reading the reports of migrations: what the controller wrote beside the Shoots."""

from collections.abc import Mapping
from dataclasses import dataclass

from backupagent.controller.standing import Standing, standing
from backupagent.errors import MalformedContent
from backupagent.kube.client import Kube
from backupagent.kube.resources import CONFIG_MAPS, Document
from backupagent.model.gardener import Shoot, name_of
from backupagent.model.migration import (
    REPORT_KEY,
    MigrationReport,
    Phase,
    config_map_name,
    decode_report,
)


@dataclass(frozen=True)
class Reported:
    """The content of a report's ConfigMap.

    Attributes:
        text: It; empty when there is none.
        report: The same, decoded; None when there is none or it cannot be read.
        trouble: Why it cannot be read; else empty.
    """

    text: str = ""
    report: MigrationReport | None = None
    trouble: str = ""


def decoded(config_map: Document) -> Reported:
    """Read a report out of its ConfigMap."""
    data = config_map.get("data")
    text = data.get(REPORT_KEY) if isinstance(data, Mapping) else None
    if not isinstance(text, str):
        return Reported()
    try:
        return Reported(text, decode_report(text, f"ConfigMap {name_of(config_map)}"))
    except MalformedContent as error:
        return Reported(text, None, str(error))


def read(kube: Kube, namespace: str, shoot: str) -> Reported:
    """Read a Shoot's report.

    Raises:
        KubeError: the API server does not answer, or refuses.
    """
    config_map = kube.find(CONFIG_MAPS, config_map_name(shoot), namespace)
    return Reported() if config_map is None else decoded(config_map)


def belongs(report: MigrationReport, shoot: Shoot) -> bool:
    """Whether a report is about the migration that a Shoot is in, or was in last.

    A report stays when a migration has ended. One of an earlier migration must not pass for the news of this one:
    it names another destination, or it says success while the Shoot still moves.
    """
    now = standing(shoot, report.destination)
    return now is Standing.THERE or (now is Standing.MOVING and report.phase is not Phase.SUCCEEDED)
