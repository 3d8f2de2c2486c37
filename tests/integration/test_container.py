"""Containers without an API server: what they see, what they may do, how they end."""

import os
import queue
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from backupagent.testing.container import Container, ContainerRun, Ended, Mount, RuntimePolicy, require_namespaces
from backupagent.testing.servers import ServerMissing

pytestmark = pytest.mark.servers

MIB = 1 << 20
OPEN = RuntimePolicy()
CLOSED = RuntimePolicy(read_only_root=True, temp_folder=False)
TIMEOUT_S = 30
HOLD = "import sys, time; block = bytearray(int(sys.argv[1]) << 20); time.sleep(float(sys.argv[2]))"
"""A program that uses so many MiB for so many seconds."""


class Runs:
    """Containers of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "output.log"
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._started: list[Container] = []

    def start(self, *argv: str, mounts=(), policy=OPEN, **environment: str) -> Container:
        run = ContainerRun(argv, {"PATH": os.defpath, **environment}, self.log, mounts, policy)
        container = Container(run, self.folder / f"scratch-{len(self._started)}", self._ended.put)
        self._started.append(container)
        return container

    def end(self) -> Ended:
        return self._ended.get(timeout=TIMEOUT_S)

    def shell(self, script: str, **options) -> str:
        """Run a shell script and return its output."""
        self.start("sh", "-c", script, **options)
        assert self.end().exit_code == 0, self.log.read_text()
        return self.log.read_text()

    def close(self) -> None:
        for container in self._started:
            container.close()


@pytest.fixture
def runs(tmp_path: Path, server_binary: Callable[[str], Path], request: pytest.FixtureRequest):
    server_binary("unshare")
    try:
        require_namespaces(tmp_path / "probe")
    except ServerMissing as error:
        if request.config.getoption("--require") == "all":
            raise
        pytest.skip(str(error))
    runs = Runs(tmp_path)
    yield runs
    runs.close()


def test_volumes_lie_at_their_exact_paths_and_the_machine_is_untouched(runs: Runs) -> None:
    for name in ("secret", "data"):
        (runs.folder / name).mkdir()
    (runs.folder / "secret" / "accessKeyID").write_text("minio")
    mounts = [
        Mount(runs.folder / "data", "/var/etcd/data"),
        Mount(runs.folder / "secret", "/var/etcd-backup", read_only=True),
        Mount(runs.folder / "secret" / "accessKeyID", "/var/etcd/data/one-file"),
    ]
    script = "cat /var/etcd-backup/accessKeyID /var/etcd/data/one-file; echo written > /var/etcd/data/member"
    assert runs.shell(script, mounts=mounts) == "miniominio"
    assert (runs.folder / "data" / "member").read_text() == "written\n"
    assert not Path("/var/etcd-backup").exists()


@pytest.mark.parametrize("place", ["/new", "/var/new", "/etc/new", "/tmp/new", "/home/nonroot/new", "/secret/new"])
def test_a_read_only_root_without_temp_folder_takes_no_file(runs: Runs, place: str) -> None:
    mounts = [Mount(runs.folder, "/secret", read_only=True), Mount(runs.folder, "/volume")]
    said = runs.shell(f"touch /volume/new && ! touch {place}", mounts=mounts, policy=CLOSED)
    assert "Read-only file system" in said
    assert (runs.folder / "new").exists()
    assert not Path(place).exists()


def test_a_program_in_a_temp_folder_of_the_machine_is_seen(runs: Runs) -> None:
    program = runs.folder / "bin" / "program.py"
    program.parent.mkdir()
    program.write_text("print('runs')")
    runs.start(sys.executable, str(program), policy=CLOSED)
    assert runs.end().exit_code == 0
    assert runs.log.read_text() == "runs\n"


def test_other_containers_have_a_layer_of_their_own(runs: Runs) -> None:
    other = runs.folder / "other"
    other.touch()
    said = runs.shell(f"touch /new /tmp/new $HOME/new && ! test -e {other} && ! touch /etc/new")
    assert "Read-only file system" in said
    assert not Path("/new").exists()
    assert not Path("/tmp/new").exists()


def test_a_container_sees_its_own_processes_and_variables_only(runs: Runs) -> None:
    said = runs.shell("echo $$ $HOME $GREETING; env | grep PYTEST || true", GREETING="hello")
    assert said == "2 /home/nonroot hello\n"  # process 1 is container_init


def test_the_sum_over_all_processes_counts_and_is_limited(runs: Runs) -> None:
    policy = RuntimePolicy(memory_limit=100 * MIB)
    script = f"'{sys.executable}' -c '{HOLD}' 60 30 & '{sys.executable}' -c '{HOLD}' 60 30; wait"
    runs.start("sh", "-c", script, policy=policy)
    ended = runs.end()
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")
    assert ended.peak_memory > 100 * MIB


def test_memory_below_the_limit_is_measured_and_left_alone(runs: Runs) -> None:
    container = runs.start(sys.executable, "-c", HOLD, "64", "0.3", policy=RuntimePolicy(memory_limit=128 * MIB))
    ended = runs.end()
    assert (ended.exit_code, ended.reason) == (0, "Completed")
    assert 64 * MIB <= ended.peak_memory <= 128 * MIB
    assert container.peak_memory == ended.peak_memory


def test_a_peak_between_two_samples_is_found_by_the_kernel(runs: Runs) -> None:
    quick = ("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")  # over in less than a sample's time
    runs.start(*quick, policy=RuntimePolicy(memory_limit=48 * MIB))
    assert runs.end().reason == "OOMKilled"


def test_exit_codes_and_signals_are_told(runs: Runs) -> None:
    runs.start("sh", "-c", "exit 7")
    assert runs.end().exit_code == 7
    runs.start("sh", "-c", "kill -SEGV $$")
    assert runs.end().exit_code == 128 + signal.SIGSEGV
    runs.start("no-such-program")
    ended = runs.end()
    assert (ended.exit_code, ended.reason) == (128, "StartError")
    assert "no-such-program" in ended.message


def test_sigterm_reaches_the_program_and_kill_reaches_all(runs: Runs) -> None:
    os.mkfifo(runs.folder / "life")
    mounts = [Mount(runs.folder, "/volume")]
    waits = "exec 3> /volume/life; trap 'exit 5' TERM; echo ready >&3; sleep 1000 & wait"
    for stop, code in ((Container.terminate, 5), (Container.kill, 137)):
        container = runs.start("sh", "-c", waits, mounts=mounts)
        with (runs.folder / "life").open() as life:
            assert life.readline() == "ready\n"
            stop(container)
            assert life.read() == ""  # the sleep, too, has ended
        assert runs.end().exit_code == code


def test_no_process_outlives_the_one_that_started_the_container(runs: Runs) -> None:
    os.mkfifo(runs.folder / "life")
    starter = textwrap.dedent(
        """
        import sys, threading
        from pathlib import Path
        from backupagent.testing.container import Container, ContainerRun, Mount
        folder = Path(sys.argv[1])
        script = "exec 3> /volume/life; setsid sleep 1000 & trap '' TERM HUP; echo ready >&3; exec sleep 1000"
        run = ContainerRun(["sh", "-c", script], {"PATH": "/usr/bin:/bin"}, folder / "log", [Mount(folder, "/volume")])
        container = Container(run, folder / "scratch", print)
        while not container.peak_memory:
            threading.Event().wait(0.01)
        print("measured", flush=True)
        threading.Event().wait()
        """
    )
    command = [sys.executable, "-c", starter, str(runs.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process, (runs.folder / "life").open() as life:
        assert life.readline() == "ready\n"
        # From here on its first process has nothing more to write: no broken pipe will tell it what happened.
        assert process.stdout.readline() == b"measured\n"
        process.kill()
        assert life.read() == ""  # the end of the file: nobody holds it open any more


def test_a_machine_without_namespaces_says_so(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = runs.folder / "bin" / "unshare"
    refusing.parent.mkdir()
    refusing.write_text("#!/bin/sh\necho unshare failed: Operation not permitted >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(refusing.parent))
    with pytest.raises(ServerMissing, match="unshare failed: Operation not permitted"):
        require_namespaces(runs.folder / "second")
    refusing.unlink()
    with pytest.raises(ServerMissing, match="not on PATH"):
        require_namespaces(runs.folder / "third")
