"""The measurements of a process tree are what the tree really did."""

import os
import select
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest

from backupagent.bench import measure as measuring
from backupagent.bench.measure import CHUNK, KEPT_OUTPUT, Measurement, measure, memory_ready
from backupagent.clock import SYSTEM_CLOCK
from backupagent.units import MiB


def measure_python(script: str, folder: Path, *arguments: str, timeout_s: float = 60) -> Measurement:
    command = [sys.executable, "-I", "-S", "-c", textwrap.dedent(script), *arguments]
    return measure(command, {"PATH": os.defpath}, folder, timeout_s=timeout_s)


def test_exit_code_and_outputs_are_kept(tmp_path: Path) -> None:
    run = measure_python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)", tmp_path)

    assert (run.exit_code, run.stdout, run.stderr) == (3, "out\n", "err\n")


def test_of_a_long_output_the_end_is_kept(tmp_path: Path) -> None:
    run = measure_python(f"print('x' * {KEPT_OUTPUT}); print('end')", tmp_path)

    assert len(run.stdout) == KEPT_OUTPUT
    assert run.stdout.endswith("xx\nend\n")


def test_the_working_directory_and_the_environment_are_those_given(tmp_path: Path) -> None:
    run = measure_python("import os; print(os.getcwd(), sorted(os.environ))", tmp_path)

    assert run.stdout.startswith(f"{tmp_path} ['LC_CTYPE', 'PATH']") or run.stdout.startswith(f"{tmp_path} ['PATH']")


def test_memory_of_all_processes_at_one_moment_is_added_up(tmp_path: Path) -> None:
    hold = f"held = bytearray(b'x') * {40 * MiB}"
    run = measure_python(
        f"""
        import subprocess, sys
        {hold}
        child = "import sys; {hold}; print(flush=True); sys.stdin.read()"
        children = [
            subprocess.Popen([sys.executable, "-I", "-S", "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        for each in children:
            each.stdout.readline()
        # Held until the sampler has certainly looked: it reads this process's status at every look.
        import time
        time.sleep(0.2)
        for each in children:
            each.communicate()
        """,
        tmp_path,
    )

    assert run.exit_code == 0, run.stderr
    assert 120 * MiB <= run.peak_memory <= 240 * MiB


def test_a_peak_between_two_looks_counts(tmp_path: Path) -> None:
    script = f"held = bytearray(b'x') * {80 * MiB}; del held; import time; time.sleep(0.2)"

    assert measure_python(script, tmp_path).peak_memory >= 80 * MiB


def test_our_own_memory_is_not_charged_to_the_command(tmp_path: Path) -> None:
    held = bytearray(b"x") * (200 * MiB)

    assert measure_python("pass", tmp_path).peak_memory < 100 * MiB
    assert len(held) == 200 * MiB


def test_cpu_of_children_counts(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    script = "import subprocess, sys; subprocess.run([sys.executable, '-I', '-S', '-c', sys.argv[1]], check=True)"

    assert measure_python(script, tmp_path, burn).cpu_s >= 0.3


def test_bytes_written_to_disk_count_and_output_does_not(tmp_path: Path) -> None:
    write = f"open('file', 'wb').write(b'x' * {4 * MiB})"
    script = f"import subprocess, sys; {write}; subprocess.run([sys.executable, '-I', '-S', '-c', sys.argv[1]])"

    written = measure_python(script, tmp_path, write.replace("file", "other")).written
    printed = measure_python(f"print('x' * {4 * MiB})", tmp_path).written

    assert 8 * MiB <= written < 9 * MiB
    assert printed < MiB


def test_what_a_command_leaves_running_is_killed(tmp_path: Path) -> None:
    script = """
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"])
        print(child.pid)
    """
    pid = int(measure_python(script, tmp_path).stdout)

    with suppress(ProcessLookupError):  # its new parent has reaped it already
        handle = os.pidfd_open(pid)
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        assert poller.poll(30_000)
        os.close(handle)


def test_a_command_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    assert measure_python("import signal; signal.pause()", tmp_path, timeout_s=0.1).exit_code == -9


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        measure([str(tmp_path / "none")], {}, tmp_path)


def test_memory_is_taken_before_a_run_and_given_free_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        held = 0

        def __init__(self, size: int) -> None:
            assert size == CHUNK
            Memory.held += 1

        def close(self) -> None:
            Memory.held -= 1

    monkeypatch.setattr(measuring, "_touched", Memory)
    with memory_ready(3 * CHUNK + 1):
        assert Memory.held > 0
        deadline = SYSTEM_CLOCK.monotonic_s() + 60
        while Memory.held and SYSTEM_CLOCK.monotonic_s() < deadline:
            SYSTEM_CLOCK.sleep(0.01)
        assert not Memory.held, "all of it is free although the run goes on"
    with memory_ready(50 * CHUNK):
        assert Memory.held > 3
    assert not Memory.held, "what a short run did not need is given free too"


def test_touched_memory_is_really_there() -> None:
    with measuring._touched(CHUNK) as memory:
        assert (len(memory), memory[0], memory[CHUNK - os.sysconf("SC_PAGE_SIZE")]) == (CHUNK, 1, 1)
