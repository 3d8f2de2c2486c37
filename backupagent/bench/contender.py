"""Who takes part in a benchmark: a command line as data, with our own commands.

Arguments and values hold ``{fields}`` that a stage fills (``backupagent/bench/stages.py``).
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import backupagent

INHERITED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "GOMAXPROCS")
"""What a contender sees of our environment: no proxy, no cloud variable, no setting of backupagent."""

SCRIPT_HEAD = 4096
"""Bytes in which a script that an installer wrote names the package it starts."""


@dataclass(frozen=True)
class Contender:
    """One row of a table of contenders.

    Attributes:
        name: Unique, for people and for JSON.
        kind: What it does, e.g. ``restore``.
        program: Name on PATH, or ``{python}``.
        arguments: After the program.
        environment: Variables besides ``INHERITED``.
        version_arguments: Make the program tell its version; empty where that is not asked.
        version_pattern: Its first group is the version.
        reports_json: Whether its standard output is one JSON document, to be kept.
    """

    name: str
    kind: str
    program: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    version_arguments: tuple[str, ...] = ()
    version_pattern: str = r"(\S+)"
    reports_json: bool = False

    def find(self) -> str | None:
        """Return the path of the program, or None when this machine has none.

        Our own ``etcdbrctl``, which an activated environment puts before the peer's, is passed over.
        """
        if self.program == "{python}":
            return sys.executable
        folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
        found = (shutil.which(self.program, path=folder) for folder in folders)
        return next((path for path in found if path is not None and not _is_ours(Path(path))), None)

    def version(self) -> str:
        """Return what the program tells of itself, empty when it tells nothing or is not there."""
        program = self.find()
        if program is None or not self.version_arguments:
            return ""
        answer = subprocess.run(
            [program, *self.version_arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=_inherited(),
        )
        found = re.search(self.version_pattern, answer.stdout + answer.stderr)
        return found[1] if found else ""

    def command(self, fields: Mapping[str, str]) -> list[str]:
        """Return the command line.

        Raises:
            FileNotFoundError: this machine has no such program.
        """
        program = self.find()
        if program is None:
            raise FileNotFoundError(self.program)
        return [program, *(argument.format_map(fields) for argument in self.arguments)]

    def variables(self, fields: Mapping[str, str]) -> dict[str, str]:
        """Return the environment."""
        return _inherited() | {name: value.format_map(fields) for name, value in self.environment.items()}


def _is_ours(program: Path) -> bool:
    """Tell whether a program is a script that starts this package, in whatever environment it was installed."""
    with program.open("rb") as file:
        head = file.read(SCRIPT_HEAD)
    return head.startswith(b"#!") and backupagent.__name__.encode() in head


def _inherited() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    # The package that is measured is the one that measures, installed or not.
    return inherited | {"PYTHONPATH": str(Path(backupagent.__file__).resolve().parent.parent)}


_OUR_VERSION = ("-m", "backupagent", "--version")

OUR_RESTORE = Contender(
    name="backupagent",
    kind="restore",
    program="{python}",
    arguments=(
        "-m", "backupagent", "restore", "--store", "{store_uri}", "--data-dir", "{data_dir}", "--output", "json",
    ),
    version_arguments=_OUR_VERSION,
    version_pattern=r"(\d\S*)",
    reports_json=True,
)  # fmt: skip

OUR_COPY = Contender(
    name="backupagent",
    kind="copy",
    program="{python}",
    arguments=(
        "-m", "backupagent", "copy", "--source", "{source_uri}", "--target", "{target_uri}", "--output", "json",
    ),
    version_arguments=_OUR_VERSION,
    version_pattern=r"(\d\S*)",
    reports_json=True,
)  # fmt: skip

OUR_COPY_UNCHECKED = replace(
    OUR_COPY, name="backupagent --verify=transfer", arguments=(*OUR_COPY.arguments, "--verify=transfer")
)
"""The same without a look at the content: what the check of the trailers costs is the difference."""
