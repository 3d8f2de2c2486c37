"""The page of exit codes is the code's."""

from pathlib import Path

from backupagent.cli.errors_page import page
from backupagent.cli.failure import error_classes

COMMITTED = Path(__file__).parents[3] / "docs" / "errors.md"


def test_the_committed_page_is_up_to_date() -> None:
    assert COMMITTED.read_text() == page(), "run: python -m backupagent.cli.errors_page > docs/errors.md"


def test_every_class_has_one_row() -> None:
    rows = [line.split(" | ") for line in page().splitlines() if line.startswith("| ") and "`" in line]
    assert [row[1].strip("`") for row in rows] == [
        error.__name__ for error in sorted(error_classes()[1:], key=lambda error: error.exit_code)
    ]
    assert all(len(row) == 7 and row[5] and row[6].strip(" |") for row in rows)
