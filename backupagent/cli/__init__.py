"""The command line: one program, a table of commands, options derived from settings."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit status; ``docs/errors.md`` lists them.
    """
    from backupagent.cli.program import run  # noqa: PLC0415 - so that parts of this package load without typer

    return run(sys.argv[1:] if argv is None else list(argv))
