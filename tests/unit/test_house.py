"""Rules of the house that no linter knows."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "backupagent" / "etcd" / "rpc"
MAX_LINES = 400

FILES = sorted(
    path
    for folder in ("backupagent", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if GENERATED not in path.parents
)

UNFINISHED = re.compile(r"\b(" + "|".join(["NotImplemented" + "Error", "TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")


def test_there_are_files() -> None:
    assert ROOT / "backupagent" / "units.py" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_can_be_read_in_one_go_and_is_finished(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= MAX_LINES
    assert [line for line in lines if UNFINISHED.search(line)] == []
