"""What only a process of its own shows: signals, closed pipes, full disks, what is imported."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from backupagent.cli.signals import stopping_by_signal

GOLDEN = Path(__file__).parents[2] / "golden"

HEAVY = ["boto3", "botocore", "azure", "google", "grpc", "etcd3", "rich", "pydantic", "asyncio"]

FAKE = """
import sys, time
from dataclasses import replace
from backupagent.cli import main
from backupagent.cli.commands import COMMANDS, Outcome
from backupagent.operations.report import LeaseCount, RestoreReport

REPORT = RestoreReport(
    seconds=1, phases=(), revision=91, hash_kv=1, compact_revision=-1, events=0, matches_manifest=None, full="Full",
    deltas=0, leases=LeaseCount(0, 0, 0, 0), data_dirs=("d",), cluster_id="c",
)

def run(settings, progress, cancel):
    print("ready", file=sys.stderr, flush=True)
    {work}
    return Outcome(REPORT)

COMMANDS["restore"] = replace(COMMANDS["restore"], run=run)
sys.exit(main(["restore", "--store", "memory://b", "--data-dir", "d", "--progress", "none"]))
"""


def start(work: str, **streams: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", FAKE.format(work=work)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **streams)  # type: ignore[call-overload,no-any-return] # streams


@pytest.mark.parametrize(("second", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_work_that_does_not_look_at_its_token(second: signal.Signals, code: int) -> None:
    with start("time.sleep(600)") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith("SIGINT: stopping")
        process.send_signal(second)
        assert process.wait(60) == code


CHILD = """
    import os, signal
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGTERM, "it ignores SIGINT and ends by SIGTERM"
    assert not cancel.wait(0.2), "its parent has heard nothing"
"""


def test_a_forked_child_keeps_its_signals_to_itself() -> None:
    with start(CHILD.strip()) as process:
        _out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "ready\n")


def test_outside_the_main_thread_the_token_is_only_passed_on() -> None:
    seen: list[bool] = []

    def work() -> None:
        with stopping_by_signal() as cancel:
            seen.append(cancel.is_set)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert seen == [False]


def test_a_reader_that_goes_away_is_no_failure() -> None:
    with start("sys.stdin.read()", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.close()
        process.stdin.close()
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == "ready\n"


def test_a_report_that_cannot_be_written_is_a_failure() -> None:
    with Path("/dev/full").open("w") as full, start("pass", stdout=full) as process:
        _out, err = process.communicate(timeout=60)
        assert process.returncode == 35
        assert err.startswith("ready\nerror: standard output: no space left on device\nreason: NoSpace")
        assert "Traceback" not in err


def imported(arguments: list[str]) -> tuple[int, list[str]]:
    """Run the program; return its exit code and which of the heavy modules it imported."""
    program = (
        "import sys\nfrom backupagent.cli import main\ncode = main(sys.argv[1:])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\nsys.exit(code)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    last = run.stderr.splitlines()[-1]
    return run.returncode, last.strip("[]").replace("'", "").split(", ") if last != "[]" else []


@pytest.mark.parametrize("arguments", [["--help"], ["restore", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert imported(arguments) == (0, [])


def test_commands_on_a_directory_import_no_sdk(tmp_path: Path) -> None:
    store = f"file://{GOLDEN}/none"
    (tmp_path / "copy").mkdir()
    assert imported(["list", "--store", store]) == (0, [])
    assert imported(["verify", "--store", store]) == (0, [])
    assert imported(["copy", "--source", store, "--target", f"file://{tmp_path}/copy"]) == (0, [])
    assert imported(["restore", "--store", store, "--data-dir", str(tmp_path / "new.etcd")]) == (0, [])


def test_the_module_runs_the_program() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "backupagent", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.startswith("backupagent ")


def test_any_locale_can_print_any_key() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    program = "from backupagent.cli.program import run, _write; run(['--version']); _write('kläy\\n')"
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True, timeout=60)
    assert run.stdout.endswith(b"kl\\xe4y\n")
