"""The real command line, run as a process of its own, and what it must say when it fails."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backupagent import failpoints

ROOT = Path(__file__).parents[1]
LIMIT_S = 100

DOCUMENTED = {
    reason: int(code)
    for code, reason in re.findall(r"^\| (\d+) \| `(\w+)` \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
}
"""Exit codes by the name of the error's class, as docs/errors.md promises them."""


@dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Attributes:
        code: Its exit status; negative for a signal.
        document: The one JSON document on its stdout; empty when it was killed.
        stderr: What it told people.
    """

    code: int
    document: dict[str, Any]
    stderr: str

    def report(self) -> dict[str, Any]:
        """Return the document of a command that succeeded."""
        assert self.code == 0, self.stderr
        return self.document


def backupagent(command: str, *options: str | Path, armed: str = "") -> Ended:
    """Run a command.

    Args:
        command: Its name.
        options: In order.
        armed: Failpoints of the process.
    """
    words = [sys.executable, "-m", "backupagent", command, *options, "--output", "json", "--progress", "none"]
    environment = os.environ | ({failpoints.VARIABLE: armed} if armed else {})
    process = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert "Traceback" not in process.stderr, process.stderr
    return Ended(process.returncode, json.loads(process.stdout) if process.stdout else {}, process.stderr)


def assert_blamed(ended: Ended, reason: str, *words: str) -> None:
    """Hold a failure against its promise: documented exit code, object and reason named, a remedy told.

    Args:
        ended: What was run.
        reason: Name of the error's class.
        words: What the message must hold, e.g. the key of the object.
    """
    assert ended.code == DOCUMENTED[reason], (ended.code, ended.document, ended.stderr)
    if "problems" in ended.document:
        assert not ended.document["ok"]
        (problem,) = ended.document["problems"]
        told = {"reason": problem["reason"], "message": problem["detail"], "hint": problem["hint"]}
    else:
        told = ended.document["error"]
        assert told["exit_code"] == ended.code
        assert told["message"] in ended.stderr
    assert told["reason"] == reason
    assert told["hint"]
    missing = [word for word in words if word not in told["message"]]
    assert not missing, told["message"]
