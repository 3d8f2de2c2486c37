"""Options of a command, derived from its settings: one field is one flag, one environment variable, one help text.

Precedence is flag, then environment, then the field's default. An empty environment variable counts as not set.
"""

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from backupagent.errors import ConfigError
from backupagent.settings import PARSERS
from backupagent.units import GiB, KiB, MiB

T = TypeVar("T")

VARIABLE_PREFIX = "BACKUPAGENT_"

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        name: The settings' field.
        flag: As on the command line, e.g. ``--part-size``; for a positional one its name in capitals.
        short: A second flag of one letter, e.g. ``-o``; empty when there is none.
        variable: Its environment variable.
        theme: Class of settings that declares it first; options of one theme stand together in ``--help``.
        help: What it does.
        metavar: What stands for its value in ``--help``.
        default_text: Its default as a user would write it; empty where that says nothing.
        required: Whether there is no default.
        switch: Whether it is a flag without a value, ``--x`` or ``--no-x``.
        positional: Whether it is given by its place.
        hidden: Whether ``--help`` leaves it out.
        minimum: The smallest value that is accepted, or None.
        read: Makes the field's value from text; raises ``ValueError`` with the reason.
    """

    name: str
    flag: str
    short: str
    variable: str
    theme: type
    help: str
    metavar: str
    default_text: str
    required: bool
    switch: bool
    positional: bool
    hidden: bool
    minimum: int | None
    read: Callable[[str], Any]


def size_text(size: int) -> str:
    """Write bytes exactly, so that ``parse_size`` reads the same number: ``8MiB``, ``500``."""
    for unit, factor in (("GiB", GiB), ("MiB", MiB), ("KiB", KiB)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def duration_text(seconds: float) -> str:
    """Write seconds as Go does, so that ``parse_duration`` reads the same number: ``5m0s``, ``30s``, ``0``."""
    if not seconds:
        return "0"
    whole, fraction = divmod(seconds, 1)
    minutes, rest = divmod(int(whole), 60)
    hours, minutes = divmod(minutes, 60)
    seconds_text = f"{rest + fraction:g}s"
    if hours:
        return f"{hours}h{minutes}m{seconds_text}"
    return f"{minutes}m{seconds_text}" if minutes else seconds_text


def _read_switch(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    message = f"{text!r} is neither true nor false"
    raise ValueError(message)


def _read_integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        message = f"{text!r} is not a whole number"
        raise ValueError(message) from None


def _read_choice(choices: type[StrEnum]) -> Callable[[str], StrEnum]:
    def read(text: str) -> StrEnum:
        try:
            return choices(text)
        except ValueError:
            message = f"{text!r} is not one of {', '.join(choices)}"
            raise ValueError(message) from None

    return read


def _read_path(text: str) -> Path:
    if not text or "\0" in text:
        message = f"{text!r} is not a path"
        raise ValueError(message)
    return Path(text)


def _read_list(text: str) -> tuple[str, ...]:
    return tuple(piece for piece in (piece.strip() for piece in text.split(",")) if piece)


def _value_type(declared: Any) -> Any:  # noqa: ANN401 - a field's declared type is any type
    """Return the type without ``| None``."""
    if get_origin(declared) is types.UnionType:
        return next(part for part in get_args(declared) if part is not type(None))
    return declared


def _reader(value_type: Any, unit: str) -> tuple[Callable[[str], Any], str]:  # noqa: ANN401 - see _value_type
    """Return how text is read, and what stands for the value in ``--help``."""
    if unit:
        return PARSERS[unit], unit.upper()
    if isinstance(value_type, type) and issubclass(value_type, StrEnum):
        return _read_choice(value_type), "|".join(value_type)
    readers: dict[Any, tuple[Callable[[str], Any], str]] = {
        bool: (_read_switch, ""),
        int: (_read_integer, "N"),
        str: (str, "TEXT"),
        Path: (_read_path, "PATH"),
        tuple[str, ...]: (_read_list, "LIST"),
    }
    return readers[value_type]


def _default_text(item: "Field[Any]", unit: str) -> str:
    default = item.default
    if default is MISSING or default is None or default == "":
        return ""
    if unit:
        return size_text(default) if unit == "size" else duration_text(default)
    if isinstance(default, bool):
        return "yes" if default else ""
    return ",".join(default) if isinstance(default, tuple) else str(default)


def _theme(settings: type, name: str) -> type:
    return next(base for base in reversed(settings.__mro__) if name in inspect.get_annotations(base))


def _option(settings: type, item: "Field[Any]") -> Option:
    metadata = item.metadata
    value_type = _value_type(item.type)
    read, metavar = _reader(value_type, metadata["unit"])
    metavar = metadata["metavar"] or metavar
    positional = metadata["positional"]
    words = metadata["flag"] or item.name.replace("_", "-")
    return Option(
        name=item.name,
        flag=words.upper() if positional else f"--{words}",
        short=metadata["short"],
        variable=VARIABLE_PREFIX + words.replace("-", "_").upper(),
        theme=_theme(settings, item.name),
        help=metadata["help"],
        metavar=metavar,
        default_text=_default_text(item, metadata["unit"]),
        required=item.default is MISSING,
        switch=value_type is bool,
        positional=positional,
        hidden=metadata["hidden"],
        minimum=metadata["minimum"],
        read=read,
    )


def options_of(settings: type) -> tuple[Option, ...]:
    """Derive the options of a class of settings: its own first, then those of the themes it is made of."""
    found = [_option(settings, item) for item in fields(settings)]
    themes = settings.__mro__
    return tuple(sorted(found, key=lambda option: (themes.index(option.theme), not option.required)))


def _value(option: Option, given: str, source: str) -> Any:  # noqa: ANN401 - any field type
    try:
        value = option.read(given)
    except ValueError as error:
        message = f"{source}: {error}"
        raise ConfigError(message) from error
    if option.minimum is not None and value < option.minimum:
        message = f"{source}: {given} is too small, it must be at least {option.minimum}"
        raise ConfigError(message)
    return value


def bind(settings: type[T], given: Mapping[str, str | bool | None], environment: Mapping[str, str]) -> T:
    """Make settings from what the user gave.

    Args:
        settings: Their class.
        given: Text, or True and False for switches, by the name of the field; None or absent when not given.
        environment: The process's environment.

    Raises:
        ConfigError: a value cannot be read, or a required one is missing; names flag and variable.
    """
    values: dict[str, Any] = {}
    missing: list[Option] = []
    for option in options_of(settings):
        flag_value = given.get(option.name)
        variable_value = environment.get(option.variable)
        if isinstance(flag_value, bool):
            values[option.name] = flag_value
        elif flag_value is not None:
            values[option.name] = _value(option, flag_value, option.flag)
        elif variable_value:
            values[option.name] = _value(option, variable_value, option.variable)
        elif option.required:
            missing.append(option)
    if missing:
        raise ConfigError(_missing_message(missing))
    return settings(**values)


def _missing_message(missing: Sequence[Option]) -> str:
    flags = " and ".join(option.flag for option in missing)
    variables = " and ".join(option.variable for option in missing)
    verb = "is" if len(missing) == 1 else "are"
    return f"{flags} {verb} required, here or in the environment as {variables}"
