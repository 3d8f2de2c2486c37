"""Failpoints: each does what its action says, and the list is the code's."""

import ast
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

import pytest

from backupagent import failpoints
from backupagent.errors import ConfigError, StoreUnavailable

PACKAGE = Path(failpoints.__file__).parent

PASSED_ON = "failpoint"
"""Name of a parameter by which a caller chooses the point."""


def calls() -> list[ast.Call]:
    files = (path for path in PACKAGE.rglob("*.py") if path.name != "failpoints.py")
    return [node for path in files for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def test_every_hit_in_the_code_is_listed() -> None:
    hits = [call.args[0] for call in calls() if ast.unparse(call.func) == "failpoints.hit"]
    points = {hit.value for hit in hits if isinstance(hit, ast.Constant)}
    others = {ast.unparse(hit) for hit in hits if not isinstance(hit, ast.Constant)}
    assert points <= set(failpoints.POINTS)
    assert others <= {PASSED_ON}


def test_every_listed_point_is_in_the_code() -> None:
    arguments = [argument for call in calls() for argument in call.args]
    given = {argument.value for argument in arguments if isinstance(argument, ast.Constant)}
    given |= {
        keyword.value.value
        for call in calls()
        for keyword in call.keywords
        if keyword.arg == PASSED_ON and isinstance(keyword.value, ast.Constant)
    }
    assert sorted(set(failpoints.POINTS) - given) == []


def test_points_that_are_not_armed_do_nothing() -> None:
    failpoints.arm("transfer.part=nospace")
    failpoints.hit("restore.base")
    with pytest.raises(OSError, match="No space left"):
        failpoints.hit("transfer.part")
    failpoints.arm("")
    failpoints.hit("transfer.part")


def test_nospace_is_what_a_full_disk_raises() -> None:
    failpoints.arm("restore.base=nospace")
    with pytest.raises(OSError, match="No space left") as caught:
        failpoints.hit("restore.base")
    assert caught.value.errno == errno.ENOSPC


def test_unavailable_is_what_a_store_raises() -> None:
    failpoints.arm("transfer.part=unavailable")
    with pytest.raises(StoreUnavailable) as caught:
        failpoints.hit("transfer.part")
    assert caught.value.retryable


def test_a_count_acts_at_that_hit_alone() -> None:
    failpoints.arm("transfer.part=unavailable*3")
    failpoints.hit("transfer.part")
    failpoints.hit("transfer.part")
    with pytest.raises(StoreUnavailable):
        failpoints.hit("transfer.part")
    failpoints.hit("transfer.part")


def test_several_points_may_be_armed() -> None:
    failpoints.arm(" transfer.part=unavailable ; restore.base=nospace;")
    with pytest.raises(StoreUnavailable):
        failpoints.hit("transfer.part")
    with pytest.raises(OSError, match="No space left"):
        failpoints.hit("restore.base")


def test_a_pause_lasts_as_long_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(failpoints.time, "sleep", slept.append)
    failpoints.arm("transfer.part=pause(2.5)")
    failpoints.hit("transfer.part")
    assert slept == [2.5]


def test_sigterm_reaches_this_process() -> None:
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = signal.signal(signal.SIGTERM, note)
    try:
        failpoints.arm("transfer.part=sigterm")
        failpoints.hit("transfer.part")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]


def child(armed: str) -> "subprocess.CompletedProcess[str]":
    program = 'from backupagent import failpoints\nfailpoints.hit("local.write")\nprint("alive")'
    environment = os.environ | {failpoints.VARIABLE: armed}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_environment_arms_a_process() -> None:
    assert child("local.write=sigkill").returncode == -signal.SIGKILL
    assert child("local.write=sigkill*2").stdout == "alive\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere=nospace", "unknown failpoint 'nowhere'"),
        ("local.write=explode", "unknown action 'explode'"),
        ("local.write", "unknown action ''"),
        ("local.write=pause(x)", r"unknown action 'pause\(x\)'"),
        ("local.write=pause(1.2.3)", "unknown action"),
        ("local.write=nospace*x", "count"),
        ("local.write=nospace*-1", "count"),
    ],
)
def test_typing_errors_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        failpoints.parse(text)
