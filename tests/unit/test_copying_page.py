"""docs/copying.md names what exists: commands, checks, fields of the reports, numbers."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from backupagent import errors
from backupagent.cli.parser import parse
from backupagent.operations import collector, doctor, final, follower
from backupagent.operations.report import Behind, FollowEnd, FollowReport, Problem
from backupagent.operations.report_care import Check, CheckStatus, DoctorReport
from backupagent.settings import CopySettings, GcSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "copying.md").read_text()
COMMANDS = re.findall(r"^backupagent .*$", PAGE, re.MULTILINE)
OPTIONS = re.findall(r"`(--[^`]+)`", PAGE)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_can_be_run(line: str) -> None:
    assert parse(shlex.split(line)[1:]) is not None


def test_there_are_commands() -> None:
    assert {shlex.split(line)[1] for line in COMMANDS} == {"copy", "doctor", "gc"}


@pytest.mark.parametrize("option", sorted({option.split()[0] for option in OPTIONS}))
def test_options_exist(option: str) -> None:
    names = {field.name for settings in (CopySettings, GcSettings) for field in fields(settings)} | {"output"}
    assert option.removeprefix("--").replace("-", "_") in names


@pytest.mark.parametrize("words", [option for option in OPTIONS if " " in option and "$" not in option])
def test_values_of_options_are_taken(words: str) -> None:
    if not words.startswith("--output"):
        assert parse(["copy", "--source", "memory://a", "--target", "memory://b", *words.split()]) is not None


def test_every_check_is_explained() -> None:
    told = re.findall(r"^\| ((?:`[\w -]+`(?:, )?)+) \|", PAGE.partition("## Every day")[0], re.MULTILINE)
    source = Path(doctor.__file__).read_text()
    made = set(re.findall(r'self\._(?:add|check)\(\s*"([\w -]+)"', source)) | {doctor.SERVER_SIDE, "read", "delete"}
    assert {name for cell in told for name in re.findall(r"`([\w -]+)`", cell)} == made
    assert {status.value for status in CheckStatus} <= set(re.findall(r"`(\w+)`", PAGE))


def test_fields_of_the_reports_exist() -> None:
    follow = PAGE.partition("The report says how it stands:")[2].partition("The exit code")[0]
    told = re.findall(r"`([a-z_.]+)`", " ".join(re.findall(r"^\| ([^|]+) \|", follow, re.MULTILINE)))
    report = {field.name for field in fields(FollowReport)}
    nested = {f"behind.{field.name}" for field in fields(Behind)}
    assert set(told) <= report | nested
    assert nested <= set(told)
    assert all(f"`{end.value}`" in follow for end in FollowEnd)
    for name in ("key", "reason", "detail", "hint"):
        assert name in {field.name for field in fields(Problem)}
    (checks,) = re.findall(r"`checks\[{([^}]+)}\]`", PAGE)
    assert checks.split(", ") == [field.name for field in fields(Check)]
    assert {"ok", "expected_s"} <= {field.name for field in fields(DoctorReport)}


def test_numbers_are_those_of_the_program() -> None:
    assert f"exit code {errors.FinalSnapshotMissing.exit_code}," in PAGE
    assert f"; {errors.Cancelled.exit_code} when it was stopped" in PAGE
    assert f"({errors.PartialFailure.exit_code} when there are several" in PAGE
    defaults = {field.name: field.default for field in fields(CopySettings)} | {
        field.name: field.default for field in fields(GcSettings)
    }
    assert (defaults["follow_interval"], defaults["older_than"]) == (5.0, 24 * 3600.0)
    assert "`--follow-interval` (5 s)" in PAGE
    assert "`--older-than` (24h)" in PAGE
    assert (follower.LONGEST_WAIT_S, follower.MANIFEST_PATIENCE_S, follower.TRIES) == (60, 30, 2)
    assert (final.NEWEST_FULLS, doctor.SKEW_S, doctor.REFUSED_SKEW_S) == (4, 60, 900)
    assert doctor.STALE_S == defaults["older_than"] < collector.IN_USE_AT_MOST_S
