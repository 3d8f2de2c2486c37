"""The history that the tests of faults copy, and the copy of it in this process."""

from pathlib import Path

from backupagent.cancel import Cancel
from backupagent.operations.report import CopyReport
from backupagent.progress import Progress
from backupagent.settings import CopySettings
from backupagent.testing.builders import Deltas, RandomFull, cached_chain
from backupagent.units import MiB
from backupagent.wiring import run_copy

SCHEMES = ("s3", "az", "gs")
PART_SIZE = 5 * MiB
FULL = RandomFull(12 * MiB)
"""Three parts."""
DELTAS = Deltas(count=3, per_delta=40, value_size=1000)


def make_history() -> Path:
    """Return a directory bucket with a full that goes in parts, and deltas."""
    return cached_chain(FULL, DELTAS)


def copy(source: str, target: str, workers: int = 4) -> CopyReport:
    settings = CopySettings(source=source, target=target, part_size=PART_SIZE, workers=workers)
    return run_copy(settings, Progress(), Cancel())
