"""A restore in a child process: what it is asked, and what becomes of what it says."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from backupagent.cancel import Cancel
from backupagent.clock import FakeClock
from backupagent.errors import Cancelled, DataDirInvalid
from backupagent.server import restore_process as module
from backupagent.server.etcd_config import MemberConfig
from backupagent.server.restore_process import RestoreProcess, child_environment
from backupagent.settings import ServerSettings

REPORT = {
    "revision": 12,
    "hash_kv": 99,
    "compact_revision": 3,
    "full": "Full-00000000-00000009-1767268800.gz",
    "deltas": 1,
    "matches_manifest": True,
    "seconds": 1.23456,
    "something_new": [],
}


class Child(RestoreProcess):
    """One whose child is a few lines of Python."""

    def __init__(self, program: str, cancel: Cancel | None = None) -> None:
        settings = ServerSettings(store="s3://bucket/be", data_dir=Path("/data/new.etcd"))
        config = MemberConfig(
            "main-0",
            {"initial-cluster": "main-0=http://a:1", "initial-cluster-token": "token-1"},
            ("http://a:1", "http://b:1"),
            (),
        )
        super().__init__(settings, config, cancel or Cancel(), FakeClock())
        self.program = program

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.program]


def test_what_the_child_is_asked() -> None:
    asked = RestoreProcess.command(Child(""))
    assert asked == [
        sys.executable,
        "-m",
        "backupagent.server.restore_child",
        "restore",
        "--store=s3://bucket/be",
        "--data-dir=/data/new.etcd",
        "--name=main-0",
        "--initial-cluster=main-0=http://a:1",
        "--initial-cluster-token=token-1",
        "--initial-advertise-peer-urls=http://a:1,http://b:1",
        "--output=json",
        "--progress=plain",
    ]


def test_options_of_the_sidecar_are_not_those_of_the_restore() -> None:
    given = {
        "BACKUPAGENT_LEASES": "strip",
        "BACKUPAGENT_PART_SIZE": "1",
        "BACKUPAGENT_FAILPOINTS": "restore.base=sigkill",
        "AWS_APPLICATION_CREDENTIALS": "/secret",
        "PATH": "/bin",
    }
    assert child_environment(given).keys() == {"BACKUPAGENT_FAILPOINTS", "AWS_APPLICATION_CREDENTIALS", "PATH"}


def test_the_child_has_that_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUPAGENT_LEASES", "strip")
    with pytest.raises(DataDirInvalid, match="ended with 7"):
        Child("import os, sys; sys.exit(8 if 'BACKUPAGENT_LEASES' in os.environ else 7)").run()


def test_its_report() -> None:
    restored = Child(f"import json; print(json.dumps({REPORT!r}))").run()
    assert (restored.revision, restored.hash_kv, restored.compact_revision) == (12, 99, 3)
    assert (restored.full, restored.deltas, restored.matches_manifest) == (REPORT["full"], 1, True)
    assert (restored.seconds, restored.at) == (1.235, "2026-01-01T00:00:00Z")


def test_a_failure_is_told_with_the_reason_of_the_child() -> None:
    error = {"error": {"reason": "RevisionGap", "message": "10 to 11 are missing", "hint": "look for them"}}
    with pytest.raises(DataDirInvalid, match="the restore failed: RevisionGap: 10 to 11 are missing") as raised:
        Child(f"import sys; print({json.dumps(error)!r}); sys.exit(24)").run()
    assert raised.value.hint == "look for them"


@pytest.mark.parametrize(
    "program",
    [
        "pass",
        "print('nonsense')",
        "print('[1]')",
        "print('{}')",
        "import sys; sys.stdout.buffer.write(bytes(range(256)) * 20000)",
        "print('[' * 100000)",
        f"import json; print(json.dumps({REPORT | {'revision': 'many'}!r}))",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import sys; print('{\"error\": 3}'); sys.exit(1)",
    ],
)
def test_a_child_without_a_report(program: str) -> None:
    with pytest.raises(DataDirInvalid, match=r"the restore ended with -?\d and no report") as raised:
        Child(program).run()
    assert "memory" in raised.value.hint


def test_what_it_says_becomes_log_lines_with_one_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    lines = "2026-01-01T00:00:00Z base begins\nother words\n"
    Child(f"import json, sys; sys.stderr.write({lines!r}); print(json.dumps({REPORT!r}))").run()
    assert [record.getMessage() for record in caplog.records] == ["base begins", "other words"]


def _waiting(tmp_path: Path, cancel: Cancel, program: str) -> tuple[Child, Path]:
    pid = tmp_path / "pid"
    begin = f"import os, pathlib, signal, time; p = pathlib.Path({str(pid)!r})\n"
    write = "\np.with_suffix('.new').write_text(str(os.getpid())); p.with_suffix('.new').rename(p); time.sleep(100)"
    return Child(begin + program + write, cancel), pid


@pytest.mark.parametrize("program", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)"])
def test_a_child_is_ended_when_the_sidecar_is(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_S", 0.3)
    cancel = Cancel()
    child, pid = _waiting(tmp_path, cancel, program)

    def end() -> None:
        while not pid.exists() and not cancel.wait(0.01):
            pass
        cancel.set("SIGTERM")

    ending = threading.Thread(target=end)
    ending.start()
    try:
        with pytest.raises(Cancelled, match="SIGTERM"):
            child.run()
    finally:
        cancel.set("the test's end")
        ending.join()
    assert not Path(f"/proc/{pid.read_text()}").exists()


def test_a_child_does_not_outlive_a_parent_that_is_killed() -> None:
    waiting: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": dict(os.environ)}
    program = (
        "import os, threading, time; from backupagent.server.restore_child import end_with_parent;"
        "threading.Thread(target=end_with_parent, args=(0,), daemon=True).start(); print('up', flush=True);"
        "time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", program], **waiting) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == b"up\n"
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(20) == -9


def test_the_child_is_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "backupagent.server.restore_child", "restore", "--output=json"]
    arguments = [f"--store=file://{tmp_path}/nothing", f"--data-dir={tmp_path}/data"]
    with subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        answer = json.loads(child.stdout.read())
        assert child.wait(20) == answer["error"]["exit_code"]
    assert answer["error"]["reason"] in {"ObjectNotFound", "EmptySource", "StoreError", "ConfigError"}
