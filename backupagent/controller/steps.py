"""Reading the steps of a report. Pure functions: a report comes out of a ConfigMap that others may write to."""

from backupagent import errors
from backupagent.controller.timeline import API_SERVER_STARTED, API_SERVER_STOPPED
from backupagent.model.migration import MigrationReport, Step


def is_bad(step: Step) -> bool:
    """Whether a step tells of trouble: such a step has the name of its error's class."""
    return step.name in errors.__all__


def down_since(report: MigrationReport) -> str:
    """Return since when the Shoot's API server has been down; empty when it is not, or when that was not seen."""
    borders = [step for step in report.steps if step.name in {API_SERVER_STOPPED, API_SERVER_STARTED}]
    return borders[-1].at if borders and borders[-1].name == API_SERVER_STOPPED else ""
