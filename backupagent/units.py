"""Sizes and durations as people write them.

Inside the program a size is an ``int`` of bytes and a duration a ``float`` of seconds; names say so.
"""

import re

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB

_SIZE_FACTORS = {
    "": 1, "b": 1,
    "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "g": 1000**3, "gb": 1000**3,
    "ki": KiB, "kib": KiB, "mi": MiB, "mib": MiB, "gi": GiB, "gib": GiB,
}  # fmt: skip
_SIZE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[A-Za-z]*)")

# Go's time.ParseDuration, which the peer's flags use, plus d for days.
_DURATION_FACTORS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_PIECE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?P<unit>ns|us|µs|ms|s|m|h|d)")


def parse_size(text: str) -> int:
    """Read a size: ``8MiB``, ``8Mi``, ``10MB``, ``1.5G``, ``4096``.

    Returns:
        Bytes, rounded down.

    Raises:
        ValueError: the text is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    factor = _SIZE_FACTORS.get(match["unit"].lower()) if match else None
    if match is None or factor is None:
        message = f"{text!r} is not a size: write for example 8MiB, 500KB or 4096"
        raise ValueError(message)
    return int(float(match["number"]) * factor) if "." in match["number"] else int(match["number"]) * factor


def parse_duration(text: str) -> float:
    """Read a duration in Go's syntax: ``5m0s``, ``90s``, ``1h30m``, ``0``, and days: ``7d``.

    Returns:
        Seconds, not negative.

    Raises:
        ValueError: the text is not a duration.
    """
    stripped = text.strip()
    if stripped == "0":
        return 0.0
    position, seconds = 0, 0.0
    while position < len(stripped):
        match = _DURATION_PIECE.match(stripped, position)
        if match is None:
            break
        seconds += float(match["number"]) * _DURATION_FACTORS[match["unit"]]
        position = match.end()
    if not stripped or position < len(stripped):
        message = f"{text!r} is not a duration: write for example 90s, 5m0s, 1h30m or 7d"
        raise ValueError(message)
    return seconds


def format_count(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 delta``, ``2 deltas``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_size(size: float) -> str:
    """Write bytes for people: ``512 B``, ``3.4 MiB``."""
    for unit, factor in (("GiB", GiB), ("MiB", MiB), ("KiB", KiB)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"


def format_duration(seconds: float) -> str:
    """Write seconds for people: ``0.43 s``, ``12.3 s``, ``2m05s``, ``1h02m``."""
    if seconds < 10:  # noqa: PLR2004 - two digits of precision below, one above
        return f"{seconds:.2f} s"
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
