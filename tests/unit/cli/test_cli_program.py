"""The whole program in this process: exit codes, one JSON document, errors for a tired operator."""

import errno
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from backupagent import __version__
from backupagent.cancel import Cancel
from backupagent.cli import main
from backupagent.cli.commands import COMMANDS, Outcome
from backupagent.errors import AccessDenied, Cancelled, NotEqual, ObjectNotFound, PartialFailure, RevisionGap
from backupagent.operations.report import RestoreReport
from backupagent.progress import Progress
from backupagent.settings import LeasePolicy, RestoreSettings

Restoring = Callable[[Callable[..., object]], None]

RESTORE = ["restore", "--store", "memory://b", "--data-dir", "/d"]
QUIET = [*RESTORE, "--progress", "none"]
AS_JSON = [*QUIET, "--output", "json"]


def test_a_command_gets_its_settings(restoring: Restoring, restored: RestoreReport) -> None:
    seen: list[object] = []
    restoring(lambda settings, *_: seen.append(settings) or restored)
    assert main([*QUIET, "--leases", "strip", "--part-size=1MiB"]) == 0
    assert seen == [
        RestoreSettings(store="memory://b", data_dir=Path("/d"), leases=LeasePolicy.STRIP, part_size=1 << 20)
    ]


def test_the_environment_gives_options_too(
    restoring: Restoring, restored: RestoreReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RestoreSettings] = []
    restoring(lambda settings, *_: seen.append(settings) or restored)
    for name, value in {"STORE": "memory://c", "DATA_DIR": "/e", "PROGRESS": "none", "WORKERS": "9"}.items():
        monkeypatch.setenv(f"BACKUPAGENT_{name}", value)
    assert main(["restore", "--workers", "2"]) == 0
    assert (seen[0].store, seen[0].data_dir, seen[0].workers) == ("memory://c", Path("/e"), 2)


def test_a_report_for_people(restoring: Restoring, restored: RestoreReport, capsys: pytest.CaptureFixture[str]) -> None:
    restoring(lambda *_: restored)
    assert main(QUIET) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("restored up to revision 91\n")
    assert "\x1b" not in captured.out


def test_a_report_for_machines_is_one_document(
    restoring: Restoring, restored: RestoreReport, capsys: pytest.CaptureFixture[str]
) -> None:
    restoring(lambda *_: restored)
    assert main(AS_JSON) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(json.dumps(restored.to_json()))
    assert (document["revision"], document["hash_kv"], document["phases"][0]["name"]) == (91, 3433856483, "base")


def test_progress_goes_to_stderr_alone(
    restoring: Restoring, restored: RestoreReport, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(_settings: object, progress: Progress, _cancel: Cancel) -> object:
        with progress.phase("transfer"):
            progress.add(5)
        return restored

    restoring(work)
    assert main([*RESTORE, "--output", "json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["revision"] == 91
    assert "transfer took" in captured.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RevisionGap("revisions 12 to 17 are missing", key="v2/Incr"), 24),
        (AccessDenied("403", op="read", key="x"), 13),
        (NotEqual("differ"), 42),
        (OSError(errno.ENOSPC, "No space left on device", "/d"), 35),
        (OSError(errno.EDQUOT, "Quota", "/d"), 35),
        (PermissionError(errno.EACCES, "Permission denied", "/d"), 1),
        (KeyboardInterrupt(), 130),
        (RuntimeError("boom"), 1),
    ],
)
def test_every_error_has_its_exit_code(
    restoring: Restoring, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    restoring(lambda *_: error)
    assert main(AS_JSON) == code
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"error"}
    assert document["error"]["exit_code"] == code


def test_an_error_says_what_why_and_what_to_do(restoring: Restoring, capsys: pytest.CaptureFixture[str]) -> None:
    restoring(lambda *_: RevisionGap("revisions 12 to 17 are missing before this delta", key="v2/Incr-1"))
    assert main(QUIET) == 24
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "error: v2/Incr-1: revisions 12 to 17 are missing before this delta\n"
        "reason: RevisionGap (exit code 24)\n"
        "hint: bring the missing delta back into the bucket, or take a new full snapshot\n"
    )


def test_a_partial_failure_tells_every_error(restoring: Restoring, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [AccessDenied("403", op="read", key="a"), ObjectNotFound("gone", op="read", key="b")]
    restoring(lambda *_: PartialFailure("2 of 3 snapshots were not copied", parts))
    assert main(AS_JSON) == 40
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert error["message"] == "2 of 3 snapshots were not copied"
    assert [(part["reason"], part["exit_code"]) for part in error["errors"]] == [
        ("AccessDenied", 13),
        ("ObjectNotFound", 11),
    ]
    assert "  AccessDenied: read 'a': 403\n  ObjectNotFound: read 'b': gone\n" in captured.err


def test_a_long_list_of_errors_is_cut_for_people_only(restoring: Restoring, capsys: pytest.CaptureFixture[str]) -> None:
    restoring(lambda *_: PartialFailure("all failed", [NotEqual(f"part {number}") for number in range(50)]))
    assert main(AS_JSON) == 40
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["error"]["errors"]) == 50
    assert captured.err.count("NotEqual: part") == 20
    assert "and 30 more; --output json lists them all" in captured.err


def test_a_bug_asks_for_a_report_and_shows_no_secret(restoring: Restoring, capsys: pytest.CaptureFixture[str]) -> None:
    restoring(lambda *_: RuntimeError("GET https://h/b?X-Amz-Signature=abcdef&n=1 with secret_access_key: hunter2"))
    assert main(AS_JSON) == 1
    captured = capsys.readouterr()
    assert "this is a bug, please report it with the traceback on stderr" in captured.err
    assert "Traceback (most recent call last)" in captured.err
    assert json.loads(captured.out)["error"]["reason"] == "RuntimeError"
    for secret in ("abcdef", "hunter2"):
        assert secret not in captured.err + captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["restor"], "no such command 'restor'. Did you mean 'restore'?"),
        (["--bogus"], "no such option: --bogus"),
        (["restore"], "--store and --data-dir are required, here or in the environment as"),
        ([*RESTORE, "--stor", "x"], "no such option: --stor"),
        ([*RESTORE, "extra"], "unexpected argument 'extra'"),
        ([*RESTORE, "--workers"], "option '--workers' requires an argument"),
        ([*RESTORE, "--workers", "0"], "--workers: 0 is too small, it must be at least 1"),
        ([*RESTORE, "--progress", "loud"], "--progress: 'loud' is not one of auto, plain, none"),
        (["bench"], "KIND is required, here or in the environment as BACKUPAGENT_KIND"),
        (["migrate", "shoot", "--to", "seed-b"], "NAME is required, here or in the environment as BACKUPAGENT_NAME"),
        (["migrate", "seed", "a/b", "--to", "seed-b"], "KIND: 'seed' is not one of shoot"),
        (["migrations", "a/b", "c/d"], "unexpected argument 'c/d'"),
        (["bench", "speed"], "KIND: 'speed' is not one of restore, copy"),
    ],
)
def test_a_wrong_command_line_is_told_and_nothing_runs(
    restoring: Restoring, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    restoring(lambda *_: RuntimeError("it ran"))
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}")
    assert "reason: ConfigError (exit code 2)\nhint: see `backupagent " in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["restore", "--output", "json"],
        ["restore", "--output=json", "--bogus"],
        ["restore", "-o", "json"],
        ["restore", "-ojson", "--bogus"],
    ],
)
def test_a_wrong_command_line_is_one_document_too(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 2
    assert json.loads(capsys.readouterr().out)["error"]["hint"] == "see `backupagent restore --help`"


def test_the_environment_asks_for_json_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUPAGENT_OUTPUT", "json")
    assert main(["restore"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == 2
    assert main(["restore", "--output", "text"]) == 2
    assert capsys.readouterr().out == ""


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    for command in COMMANDS.values():
        assert f"  {command.name} " in page
        assert command.help.partition("\n")[0] in page, "the first sentence fits into 80 columns"


def test_without_arguments_help_is_printed_but_a_script_notices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("Usage: backupagent ")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_teaches_it(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([name, "-h"]) == 0
    page = capsys.readouterr().out
    assert COMMANDS[name].example in page
    assert max(len(line.rstrip()) for line in page.splitlines()) <= 80
    if COMMANDS[name].reports:
        assert "--output text|json" in page
        assert "Reporting:" in page


def test_help_shows_sizes_and_durations_as_people_write_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", "--help"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "size of a ranged read [default: 4MiB]" in page
    assert "[default: 1h0m0s]" in page
    assert "--store URI URI of the store to restore from [required]" in page


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"backupagent {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_in_help_is_valid(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[object] = []

    def run(settings: object, *_: object) -> Outcome:
        seen.append(settings)
        raise Cancelled("enough")

    monkeypatch.setitem(COMMANDS, name, replace(COMMANDS[name], run=run))
    assert main(COMMANDS[name].example.split()[1:]) == 130
    assert isinstance(seen[0], COMMANDS[name].settings)
    assert "stopped" not in capsys.readouterr().out


def test_a_signal_sets_the_token(
    restoring: Restoring, restored: RestoreReport, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(_settings: object, _progress: Progress, cancel: Cancel) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        assert cancel.wait(60)
        cancel.raise_if_set()
        return restored

    before = signal.getsignal(signal.SIGTERM)
    restoring(work)
    assert main(QUIET) == 130
    assert "error: stopped by SIGTERM\nreason: Cancelled (exit code 130)\n" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
