"""Sizes and durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent.units import GiB, KiB, MiB, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("8MiB", 8 * MiB),
        ("8Mi", 8 * MiB),
        ("8mib", 8 * MiB),
        (" 8 MiB ", 8 * MiB),
        ("10MB", 10_000_000),
        ("10m", 10_000_000),
        ("1.5G", 1_500_000_000),
        ("1.5GiB", GiB + 512 * MiB),
        ("0.5K", 500),
        ("7B", 7),
        ("2gb", 2_000_000_000),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "8 Mi B", "1,5G", "1e3", "8TiB", "0x10", "٣", ".5K", "1.", "8\0"])
def test_other_texts_are_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size: write for example 8MiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("90s", 90.0),
        ("5m0s", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("7d", 604800.0),
        ("100ms", 0.1),
        ("1m1m", 120.0),
        (" 2s ", 2.0),
    ],
)
def test_durations_are_read_as_go_does(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "seconds"), [("1us", 1e-6), ("1µs", 1e-6), ("1ns", 1e-9)])
def test_short_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "-5s", "5 s", "5m 0s", "1h30", "1w", "5S", "1e3s", "٣s", ".s"])
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write for example 90s"):
        parse_duration(text)


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused_with_itself_in_the_message(text: str) -> None:
    for parse in (parse_size, parse_duration):
        try:
            value = parse(text)
        except ValueError as error:
            if repr(text) not in str(error):
                raise
        else:
            assert value >= 0


@given(st.integers(0, 2**62), st.sampled_from(["", "B", "KiB", "MiB", "GiB"]))
def test_whole_numbers_are_exact_at_any_size(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * {"": 1, "B": 1, "KiB": KiB, "MiB": MiB, "GiB": GiB}[unit]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (KiB, "1.0 KiB"), (3.4 * MiB, "3.4 MiB"), (5 * GiB, "5.0 GiB"), (1500, "1.5 KiB")],
)
def test_sizes_are_shown(size: float, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.00 s"), (0.43, "0.43 s"), (12.34, "12.3 s"), (59.9, "59.9 s"), (60, "1m00s"), (125, "2m05s"),
     (3599.7, "1h00m"), (3725, "1h02m"), (90000, "25h00m")],
)  # fmt: skip
def test_durations_are_shown(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
