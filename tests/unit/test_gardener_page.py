"""docs/gardener.md names what exists: commands, options, files, metrics, reasons, phases."""

import re
import shlex
from pathlib import Path

import pytest

from backupagent import errors
from backupagent.cli.failure import exit_code_of
from backupagent.cli.parser import parse
from backupagent.controller import preflight
from backupagent.controller.metrics import METRICS
from backupagent.model.migration import LABEL, Phase, config_map_name

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "gardener.md").read_text()
README = (ROOT / "README.md").read_text()

COMMANDS = re.findall(r"^backupagent .*$", PAGE, re.MULTILINE) + re.findall(r"`(backupagent [\w-]+ [^`\n]+)`", PAGE)
PATHS = sorted(set(re.findall(r"config/[\w./-]*\w", PAGE)))
MERMAID = re.compile(r"^```mermaid\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_can_be_run(line: str) -> None:
    assert parse(shlex.split(line, comments=True)[1:]) is not None


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 7


@pytest.mark.parametrize("path", PATHS)
def test_files_are_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_metric_is_explained() -> None:
    told = re.findall(r"^\| `(\w+)(?:{([\w,]+)})?` \|", PAGE, re.MULTILINE)
    metrics = {name: tuple(labels.split(",")) if labels else () for name, labels in told if "_" in name}
    assert metrics == {metric.name: metric.labels for metric in METRICS}


def test_every_refusal_has_a_remedy() -> None:
    source = Path(preflight.__file__).read_text()
    sides = re.findall(r'f"{side}(\w+)"', source)
    reasons = {
        *re.findall(r'_refusal\(\s*"(\w+)"', source),
        *(side + name for name in sides for side in ("Source", "Destination")),
    }
    section = PAGE.partition("## When it is refused")[2].partition("\n## ")[0]
    assert (
        set(re.findall(r"`([A-Z]\w+)`", section.partition("|---|---|")[2]))
        - {
            "BackupBucketsReady",
            "GardenletReady",
            "SeedSystemComponentsHealthy",
        }
        == reasons
    )


def test_every_failure_is_an_error_with_its_exit_code() -> None:
    section = PAGE.partition("## When it fails")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \| ([\d, ]+) \|", section, re.MULTILINE)
    told = {}
    for names, codes in rows:
        told |= dict(zip(re.findall(r"\w+", names), map(int, codes.split(", ")), strict=True))
    assert set(told) <= set(errors.__all__)
    assert told == {name: exit_code_of([name]) for name in told}


def test_every_phase_is_named_in_order() -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith("The phases"))
    assert re.findall(r"`(\w+)`", line) == [phase.value for phase in Phase]


def test_the_report_is_where_the_page_says() -> None:
    assert f"ConfigMap `{config_map_name('demo')}`" in PAGE
    assert f"{LABEL}=true" in PAGE


def test_the_readme_shows_the_same_picture() -> None:
    (picture,) = MERMAID.findall(PAGE)
    assert picture in MERMAID.findall(README)
