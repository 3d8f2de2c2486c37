"""One container as local processes in namespaces of their own: start, signal, measure, end.

What is emulated: a file system of its own (the machine's folders, read-only, stand for the image; volumes lie at
their exact paths; /tmp, HOME and whatever is written elsewhere are the container's alone), its own process ids, a
memory limit that kills. What is not: users other than the one who runs the tests, capabilities, CPU limits, a network
of its own - containers share the machine's.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backupagent.testing import container_init
from backupagent.testing.server_binaries import ServerMissing

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child")
HOME = "/home/nonroot"
"""Home directory of user 65532 in the distroless images that etcd-druid runs."""

END_TIMEOUT_S = 10.0
START_ERROR = 128
"""Exit code that containerd reports for a container whose program could not be started."""

PACKAGE = Path(__file__).resolve().parents[2]
"""What must be importable for ``python -m backupagent``: the checkout, or site-packages."""


@dataclass(frozen=True)
class RuntimePolicy:
    """What a container may do.

    Attributes:
        read_only_root: Nothing outside its volumes can be written. The machine's folders never can; without this, new
            files beside them and in HOME can.
        temp_folder: /tmp can be written. There is never anything of the machine's in it. (/dev/shm can always be
            written, 64 MiB, as in the usual container runtimes.)
        memory_limit: Bytes; a container above it is killed. None: none.
    """

    read_only_root: bool = False
    temp_folder: bool = True
    memory_limit: int | None = None


@dataclass(frozen=True)
class Mount:
    """A folder or file of the machine at a path of the container.

    Attributes:
        source: Where it is on the machine.
        target: Absolute path in the container.
        read_only: It cannot be written through this path.
    """

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class ContainerRun:
    """What to run.

    Attributes:
        argv: Program and arguments.
        environment: All variables that it sees, HOME excepted.
        log_path: Where its output goes, appended.
        mounts: Its volumes.
        policy: What it may do.
        working_folder: Where it starts, in the container.
    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    log_path: Path
    mounts: Sequence[Mount] = ()
    policy: RuntimePolicy = RuntimePolicy()
    working_folder: str = "/"


@dataclass(frozen=True)
class Ended:
    """How a container ended.

    Attributes:
        exit_code: Exit status of its program; 128 + the signal that ended it; 137 when it was killed for its memory.
        reason: ``Completed``, ``Error``, ``OOMKilled`` or ``StartError``, the words of the kubelet.
        peak_memory: Greatest sum of VmHWM over its processes, bytes; never less than what the kernel measured.
        message: Why it could not be started.
    """

    exit_code: int
    reason: str
    peak_memory: int
    message: str = ""


class Container:
    """A running container. Thread-safe.

    Args:
        run: What to run.
        scratch: Folder for the container's own files, made here, removed at its end.
        ended: Called once, from another thread, when nothing of it runs any more.
    """

    def __init__(self, run: ContainerRun, scratch: Path, ended: Callable[[Ended], None]) -> None:
        self._scratch = scratch
        self._ended = ended
        self._lock = threading.Lock()
        self._peak = 0
        self._last: dict[str, Any] = {}
        described = _describe(run, scratch)
        run.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors_path.open("wb") as errors:
            self._process = subprocess.Popen(
                [
                    shutil.which(UNSHARE[0]) or UNSHARE[0],
                    *UNSHARE[1:],
                    sys.executable,
                    "-I",
                    "-S",
                    container_init.__file__,
                    str(described),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={},
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, name=f"container {run.argv[0]}", daemon=True)
        self._reader.start()

    @property
    def peak_memory(self) -> int:
        """Greatest sum of VmHWM over its processes so far, bytes."""
        with self._lock:
            return self._peak

    def terminate(self) -> None:
        """Send SIGTERM to its program."""
        self._command(b"T")

    def kill(self) -> None:
        """Send SIGKILL to all its processes."""
        self._command(b"K")

    def wait(self) -> None:
        """Wait until it has ended and ``ended`` was called."""
        self._reader.join()

    def close(self) -> None:
        """Kill it and wait until it has ended and ``ended`` was called."""
        self.kill()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # unshare then kills process 1 of the namespace
        self.wait()

    @property
    def _errors_path(self) -> Path:
        return self._scratch / "init-errors.log"

    def _command(self, command: bytes) -> None:
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):  # it has ended
            if self._process.stdin is not None:
                self._process.stdin.write(command)
                self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._last = json.loads(line)
                with self._lock:
                    self._peak = max(self._peak, self._last.get("peak_memory", 0))
        self._process.wait()
        ended = self._outcome()
        with self._lock, contextlib.suppress(BrokenPipeError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._ended(ended)

    def _outcome(self) -> Ended:
        if "exit_code" not in self._last:
            told = self._last.get("refused") or self._errors_path.read_text(errors="replace").strip()
            return Ended(START_ERROR, "StartError", self._peak, told or "its first process was killed")
        code: int = self._last["exit_code"]
        reason = "OOMKilled" if self._last["oom_killed"] else "Error" if code else "Completed"
        return Ended(code, reason, self._peak)


def require_namespaces(scratch: Path) -> None:
    """See whether containers can be run here.

    Args:
        scratch: Folder that may be used, made here.

    Raises:
        ServerMissing: they cannot; its message tells why.
    """
    if shutil.which(UNSHARE[0]) is None:
        raise ServerMissing(UNSHARE[0], "not on PATH (it belongs to util-linux)")
    outcome: list[Ended] = []
    scratch.mkdir(parents=True, exist_ok=True)
    run = ContainerRun([sys.executable, "-I", "-S", "-c", ""], {}, scratch / "probe.log")
    Container(run, scratch / "probe", outcome.append).wait()
    if outcome[0].exit_code:
        said = outcome[0].message or f"exit code {outcome[0].exit_code}"
        raise ServerMissing(
            UNSHARE[0], f"this machine does not let its user make user, mount and pid namespaces: {said}"
        )


def _describe(run: ContainerRun, scratch: Path) -> Path:
    """Write what ``container_init`` reads; return the file's path."""
    for name in ("root", "home", "tmp"):
        (scratch / name).mkdir(parents=True)
    policy = run.policy
    own = [
        Mount(scratch / "home", HOME, policy.read_only_root),
        Mount(scratch / "tmp", "/tmp", not policy.temp_folder),  # noqa: S108 - the container's own
    ]
    mounts = {mount["target"]: mount for mount in map(_mount, [*own, *_program_mounts(run.argv), *run.mounts])}
    described = scratch / "run.json"
    described.touch(mode=0o600)  # environments hold secrets
    fields = asdict(run) | {
        "root": str(scratch / "root"),
        "log": str(run.log_path),
        "environment": {**run.environment, "HOME": HOME},
        "mounts": list(mounts.values()),
        "read_only_root": policy.read_only_root,
        "memory_limit": policy.memory_limit,
    }
    described.write_text(json.dumps(fields, default=str), encoding="utf-8")
    return described


def _mount(mount: Mount) -> dict[str, object]:
    # A path through a link, as /var/run is one, leads to where the link leads.
    target = str(Path(mount.target).resolve())
    return {"source": str(mount.source.resolve()), "target": target, "read_only": mount.read_only}


def _program_mounts(argv: Sequence[str]) -> list[Mount]:
    """Show the programs themselves where they lie in a folder that containers do not see, e.g. a checkout in /tmp."""
    named = (Path(text) for word in argv for text in (word, word.partition("=")[2]) if text.startswith("/"))
    words = [path for path in named if path.is_file()]
    programs = [folder for word in words for folder in (word.parent, word.resolve().parent)]
    needed = dict.fromkeys([Path(sys.prefix), Path(sys.base_prefix), PACKAGE, *programs])
    return [Mount(each, str(each), read_only=True) for each in needed if str(each).startswith(container_init.FRESH)]
