"""The command line: one program, a table of commands, options derived from settings."""

import gc
import sys
from collections.abc import Sequence

YOUNG_OBJECTS = 50_000
"""New objects between two looks of the garbage collector. With Python's 700 it goes through the SDKs' objects again and
again while more are made: the second client of S3 took 42 ms of CPU instead of 11 (2026-11-29)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit status; ``docs/errors.md`` lists them.
    """
    gc.set_threshold(YOUNG_OBJECTS)
    from backupagent.cli.program import run  # noqa: PLC0415 - so that parts of this package load without typer

    return run(sys.argv[1:] if argv is None else list(argv))
