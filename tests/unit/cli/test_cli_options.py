"""Options derived from settings: flag, then environment, then default; every mistake is told with its place."""

from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent.cli.commands import COMMANDS
from backupagent.cli.options import Option, bind, duration_text, options_of, size_text
from backupagent.errors import ConfigError
from backupagent.settings import (
    EtcdSettings,
    OnMissingFinal,
    ReportingSettings,
    TransferSettings,
    option,
)
from backupagent.units import MiB, parse_duration, parse_size

THEMES = [*(command.settings for command in COMMANDS.values()), ReportingSettings]


@dataclass(frozen=True, kw_only=True)
class Sample(TransferSettings):
    """One option of each kind."""

    where: str = option("required")
    to: Path = option("also required")  # noqa: RUF009 - a dataclass field
    count: int = option("a number", default=3, minimum=0)
    compact: int = option("may be negative", default=0)
    wait: float = option("a duration", default=300.0, unit="duration")
    limit: int = option("a size", default=MiB, unit="size")
    eager: bool = option("a switch", default=False)
    proof: bool = option("a switch that is on", default=True)
    missing: OnMissingFinal = option("a choice", default=OnMissingFinal.ERROR)  # noqa: RUF009 - a dataclass field
    urls: tuple[str, ...] = option("a list", default=("a", "b"))
    path: Path | None = option("perhaps a path", default=None)  # noqa: RUF009 - a dataclass field
    renamed: str = option("has a flag of its own", default="", flag="other-name")
    secret: str = option("not shown", default="", hidden=True)


REQUIRED = {"where": "x", "to": "/y"}


def of(name: str) -> Option:
    return next(found for found in options_of(Sample) if found.name == name)


def test_without_anything_defaults_hold() -> None:
    assert bind(Sample, REQUIRED, {}) == Sample(where="x", to=Path("/y"))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "7", 7),
        ("compact", "-1", -1),
        ("wait", "5m0s", 300.0),
        ("wait", "0", 0.0),
        ("limit", "8MiB", 8 * MiB),
        ("missing", "copy", OnMissingFinal.COPY),
        ("urls", "http://a:1, http://b:2,", ("http://a:1", "http://b:2")),
        ("path", "/etc/ca.pem", Path("/etc/ca.pem")),
        ("where", "", ""),
        ("renamed", "n", "n"),
        ("part_size", "5MiB", 5 * MiB),
    ],
)
def test_values_are_read_the_same_from_flag_and_environment(name: str, text: str, value: object) -> None:
    assert getattr(bind(Sample, REQUIRED | {name: text}, {}), name) == value
    if text:
        rest = {key: other for key, other in REQUIRED.items() if key != name}
        assert getattr(bind(Sample, rest, {of(name).variable: text}), name) == value


@pytest.mark.parametrize("text", ["true", "1", "YES", "on"])
def test_switches_are_turned_on_by_the_environment(text: str) -> None:
    assert bind(Sample, REQUIRED, {"BACKUPAGENT_EAGER": text}).eager


@pytest.mark.parametrize("text", ["false", "0", "No", "off"])
def test_switches_are_turned_off_by_the_environment(text: str) -> None:
    assert not bind(Sample, REQUIRED, {"BACKUPAGENT_PROOF": text}).proof


def test_a_flag_goes_before_the_environment_and_that_before_the_default() -> None:
    environment = {"BACKUPAGENT_COUNT": "5", "BACKUPAGENT_EAGER": "true"}
    assert bind(Sample, REQUIRED | {"count": "6", "eager": False}, environment) == Sample(
        where="x", to=Path("/y"), count=6, eager=False
    )
    assert bind(Sample, REQUIRED, environment) == Sample(where="x", to=Path("/y"), count=5, eager=True)


def test_an_empty_variable_is_not_set() -> None:
    assert bind(Sample, REQUIRED, {"BACKUPAGENT_COUNT": "", "BACKUPAGENT_EAGER": ""}) == bind(Sample, REQUIRED, {})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("count", "many", "--count: 'many' is not a whole number"),
        ("count", "-1", "--count: -1 is too small, it must be at least 0"),
        ("workers", "0", "--workers: 0 is too small, it must be at least 1"),
        ("wait", "5", "--wait: '5' is not a duration: write for example 90s"),
        ("limit", "big", "--limit: 'big' is not a size: write for example 8MiB"),
        ("missing", "fail", "--missing: 'fail' is not one of error, copy"),
        ("path", "", "--path: '' is not a path"),
        ("to", "a\0b", r"--to: 'a\x00b' is not a path"),
    ],
)
def test_wrong_values_name_their_flag(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bind(Sample, REQUIRED | {name: text}, {})
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("BACKUPAGENT_EAGER", "maybe", "BACKUPAGENT_EAGER: 'maybe' is neither true nor false"),
        ("BACKUPAGENT_OTHER_NAME", "x", None),
        ("BACKUPAGENT_PART_SIZE", "0", "BACKUPAGENT_PART_SIZE: 0 is too small, it must be at least 1"),
    ],
)
def test_wrong_values_name_their_variable(variable: str, text: str, message: str | None) -> None:
    if message is None:
        assert bind(Sample, REQUIRED, {variable: text}).renamed == text
        return
    with pytest.raises(ConfigError) as caught:
        bind(Sample, REQUIRED, {variable: text})
    assert caught.value.message == message


def test_all_missing_options_are_told_at_once_with_their_variables() -> None:
    with pytest.raises(ConfigError) as caught:
        bind(Sample, {}, {})
    assert caught.value.message == (
        "--where and --to are required, here or in the environment as BACKUPAGENT_WHERE and BACKUPAGENT_TO"
    )
    with pytest.raises(ConfigError, match=r"^--to is required, here or in the environment as BACKUPAGENT_TO$"):
        bind(Sample, {"where": "x"}, {})


@pytest.mark.parametrize(
    ("name", "metavar", "default"),
    [
        ("where", "TEXT", ""),
        ("count", "N", "3"),
        ("wait", "DURATION", "5m0s"),
        ("limit", "SIZE", "1MiB"),
        ("eager", "", ""),
        ("proof", "", "yes"),
        ("missing", "error|copy", "error"),
        ("urls", "LIST", "a,b"),
        ("path", "PATH", ""),
    ],
)
def test_help_shows_values_as_they_are_written(name: str, metavar: str, default: str) -> None:
    assert (of(name).metavar, of(name).default_text) == (metavar, default)


def test_own_options_come_before_those_of_themes_and_required_ones_first() -> None:
    found = options_of(Sample)
    assert [item.name for item in found[:3]] == ["where", "to", "count"]
    assert [item.name for item in found if item.theme is TransferSettings] == ["workers", "window", "part_size"]
    assert found[-1].theme is TransferSettings


def test_flags_and_variables_are_made_from_one_word() -> None:
    assert (of("renamed").flag, of("renamed").variable) == ("--other-name", "BACKUPAGENT_OTHER_NAME")
    assert (of("part_size").flag, of("part_size").variable) == ("--part-size", "BACKUPAGENT_PART_SIZE")
    assert of("secret").hidden


@pytest.mark.parametrize("settings", THEMES, ids=lambda settings: settings.__name__)
def test_every_default_is_read_back_from_its_text(settings: type) -> None:
    by_name = {item.name: item for item in fields(settings)}
    for found in options_of(settings):
        assert found.help
        if found.default_text and not found.switch:
            assert found.read(found.default_text) == by_name[found.name].default


def test_options_of_a_command_do_not_clash() -> None:
    for command in COMMANDS.values():
        flags = [found.flag for found in options_of(command.settings)]
        flags += [found.flag for found in options_of(ReportingSettings)] if command.reports else []
        assert len(flags) == len(set(flags))


@given(st.integers(0, 2**50))
def test_sizes_are_written_exactly(size: int) -> None:
    assert parse_size(size_text(size)) == size


@given(st.integers(0, 10**7).map(float) | st.sampled_from([0.5, 90.25, 3600.0]))
def test_durations_are_written_exactly(seconds: float) -> None:
    assert parse_duration(duration_text(seconds)) == seconds


def test_durations_look_like_those_of_go() -> None:
    assert [duration_text(seconds) for seconds in (0, 0.5, 30, 300, 3600, 5430)] == [
        "0", "0.5s", "30s", "5m0s", "1h0m0s", "1h30m30s",
    ]  # fmt: skip


def test_lists_have_defaults_too() -> None:
    endpoints = next(found for found in options_of(EtcdSettings) if found.name == "endpoints")
    assert endpoints.read(endpoints.default_text) == ("http://127.0.0.1:2379",)
