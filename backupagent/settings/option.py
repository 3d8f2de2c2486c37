"""How an option is declared: a dataclass field with what flags, environment and help are derived from."""

from dataclasses import field
from typing import Any

from backupagent.units import parse_duration, parse_size


def option(  # noqa: PLR0913 - each one is a property of an option
    help_text: str,
    *,
    default: Any = ...,  # noqa: ANN401 - any field type
    unit: str = "",
    flag: str = "",
    short: str = "",
    metavar: str = "",
    minimum: int | None = None,
    positional: bool = False,
    hidden: bool = False,
) -> Any:  # noqa: ANN401 - any field type
    """Declare one option.

    Args:
        help_text: What it does and why the default is what it is; shown by ``--help``.
        default: Its default; left out for a required option.
        unit: ``size`` or ``duration``: how the text on the command line is read.
        flag: Name on the command line when it is not the field's.
        short: A second flag of one letter, e.g. ``-o``.
        metavar: What stands for its value in ``--help`` when its type says too little.
        minimum: The smallest value that the command line accepts.
        positional: It is given by its place, without a flag.
        hidden: Leave it out of ``--help``.
    """
    metadata = {
        "help": help_text,
        "unit": unit,
        "flag": flag,
        "short": short,
        "metavar": metavar,
        "minimum": minimum,
        "positional": positional,
        "hidden": hidden,
    }
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


PARSERS = {"size": parse_size, "duration": parse_duration}
"""How the text of an option with that unit is read."""
