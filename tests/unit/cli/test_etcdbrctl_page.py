"""The page of etcdbrctl is the tables'."""

import re
from itertools import pairwise
from pathlib import Path

from backupagent.cli.etcdbrctl_flags import COMMANDS, OTHER_COMMANDS
from backupagent.cli.etcdbrctl_page import page

COMMITTED = Path(__file__).parents[3] / "docs" / "etcdbrctl.md"


def test_the_committed_page_is_up_to_date() -> None:
    assert COMMITTED.read_text() == page(), "run: python -m backupagent.cli.etcdbrctl_page > docs/etcdbrctl.md"


def test_every_flag_of_every_command_has_one_row() -> None:
    for command, flags in COMMANDS.items():
        (section,) = re.findall(rf"^## {command}\n(.*?)(?=^## )", page(), re.DOTALL | re.MULTILINE)
        rows = re.findall(r"^\| `(?:-\w, )?--([\w-]+)` \|", section, re.MULTILINE)
        assert sorted(rows) == sorted(flag.name for flag in flags)
    assert all(f"| `{name}` |" in page() for name in OTHER_COMMANDS)


def test_every_row_has_as_many_cells_as_its_head() -> None:
    widths = [len(re.split(r"(?<!\\)\|", line)) if line.startswith("|") else 0 for line in page().splitlines()]
    pairs = [(above, here) for above, here in pairwise(widths) if above and here]
    assert pairs
    assert all(above == here for above, here in pairs)


def test_the_way_back_to_the_peers_copy_is_told() -> None:
    assert "`BACKUPAGENT_ON_MISSING_FINAL=copy`" in page()
