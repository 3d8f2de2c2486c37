"""The first process of a container: makes its file system, runs its program, measures it, ends with it.

Run by ``container.py`` in fresh user, mount and process namespaces, as ``python -I -S container_init.py RUN.json``;
it imports the standard library only. Being process 1 of its namespace it is all that keeps the container alive: when
it ends, the kernel kills whatever is left in there. It ends with the program, and when its standard input closes:
that is the kubelet's end of a pipe, so no container outlives the kubelet, however that ends.

Standard input: single bytes, ``T`` (SIGTERM to the program) and ``K`` (SIGKILL to everything).
Standard output: JSON lines, ``{"peak_memory": N}`` as it grows, at last ``{"exit_code", "oom_killed", "peak_memory"}``
or ``{"refused": "why it did not start"}``.

This is no security border: the program keeps the power to change its own mounts. It keeps honest programs from
writing where a container of that policy could not.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SAMPLE_S = 0.05
REPORT_STEP = 1 << 20
"""Growth of the peak, bytes, that is worth a line."""

SHM_SIZE = "64m"
"""Size of /dev/shm in a container of containerd and of Docker."""

FRESH = ("/proc", "/tmp")  # noqa: S108 - of the container, never the machine's
"""Folders of the machine that a container does not see."""

MS_BIND, MS_REC = 4096, 16384
SYS_MOUNT_SETATTR = 442
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY = 1
"""Source of the numbers: <linux/mount.h>, <linux/fcntl.h>, Linux 5.12."""

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, place: str, kind: str = "", *, flags: int = 0, data: str = "") -> None:
    """Call ``mount`` of the kernel."""
    if _libc.mount(source.encode(), place.encode(), kind.encode(), flags, data.encode()):
        _raise("mount", place)


def make_read_only(place: str, *, recursive: bool) -> None:
    """Make a mount read-only, or it and all below it."""
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    size = ctypes.sizeof(attributes)
    if _libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, place.encode(), flags, ctypes.byref(attributes), size):
        _raise("mount_setattr", place)


def _raise(call: str, place: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{call}: {os.strerror(number)}", place)


def bind(source: str, place: str) -> None:
    """Show a folder or file at another place, made when it is not there."""
    if os.path.isdir(source):  # noqa: PTH112 - strings throughout: the paths are of two roots
        os.makedirs(place, exist_ok=True)  # noqa: PTH103
    elif not os.path.exists(place):  # noqa: PTH110
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).touch()
    mount(source, place, flags=MS_BIND | MS_REC)


def show_machine(root: str, folder: str, targets: set[str]) -> None:
    """Show a folder of the machine in the new root, read-only.

    A folder that something is to be mounted into is made anew and its entries are shown one by one, so that the
    mount point can be made without touching the machine's file system.
    """
    opened = {str(parent) for target in targets for parent in Path(target).parents}
    for entry in os.scandir(folder):
        place = root + entry.path
        if entry.path in FRESH or entry.path in targets:
            continue
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), place)  # noqa: PTH115, PTH211
        elif entry.is_dir() and entry.path in opened:
            Path(place).mkdir()
            show_machine(root, entry.path, targets)
        elif entry.is_dir() or entry.is_file():
            bind(entry.path, place)
            make_read_only(place, recursive=True)


def make_root(run: dict[str, Any]) -> None:
    """Make the container's file system and go into it."""
    root: str = run["root"]
    mounts = sorted(run["mounts"], key=lambda each: len(Path(each["target"]).parts))
    mount("tmpfs", root, "tmpfs", data="mode=755")
    show_machine(root, "/", {each["target"] for each in mounts})
    for each in mounts:
        bind(each["source"], root + each["target"])
    for each in mounts:  # only now: mount points of some lie in others
        if each["read_only"]:
            make_read_only(root + each["target"], recursive=False)
    Path(root, "proc").mkdir()
    mount("proc", f"{root}/proc", "proc")
    shared_memory = Path(root, "dev", "shm")
    if shared_memory.is_dir():
        mount("tmpfs", str(shared_memory), "tmpfs", data=f"mode=1777,size={SHM_SIZE}")
    if run["read_only_root"]:
        make_read_only(root, recursive=False)
    os.chroot(root)


def peak_memory() -> int:
    """Return the sum of the peaks of resident memory (VmHWM) of all processes of the container, bytes."""
    total = 0
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit() and entry != "1":
            with contextlib.suppress(OSError):  # it ended
                total += _high_water(Path("/proc", entry, "status").read_bytes())
    return total


def _high_water(status: bytes) -> int:
    _, found, rest = status.partition(b"VmHWM:")
    return int(rest.split(None, 1)[0]) * 1024 if found else 0


class Program:
    """The container's program and all that it started.

    Args:
        run: What to run.
        log: Where its output goes.
    """

    def __init__(self, run: dict[str, Any], log: int) -> None:
        self._limit: int | None = run["memory_limit"]
        self._reported = 0
        self._peak = 0
        self._oom_killed = False
        self._process = subprocess.Popen(
            run["argv"],
            env=run["environment"],
            cwd=run["working_folder"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self._watched = os.pidfd_open(self._process.pid)

    def supervise(self) -> dict[str, Any]:
        """Wait for the program's end, obeying commands and the memory limit; return the last report."""
        while True:
            ready, _, _ = select.select([sys.stdin.fileno(), self._watched], [], [], SAMPLE_S)
            if sys.stdin.fileno() in ready:
                self._obey(os.read(sys.stdin.fileno(), 1))
            self._measure(peak_memory())
            status = self._reap()
            if status is not None:
                code = os.waitstatus_to_exitcode(status)
                return {
                    # 137 also when it ended by itself above the limit, before a sample saw it.
                    "exit_code": 137 if self._oom_killed else code if code >= 0 else 128 - code,
                    "oom_killed": self._oom_killed,
                    "peak_memory": self._peak,
                }

    def _obey(self, command: bytes) -> None:
        if command == b"T":
            os.kill(self._process.pid, signal.SIGTERM)
        elif command == b"K":
            kill_all()
        else:
            sys.exit()  # the kubelet is gone

    def _measure(self, memory: int) -> None:
        self._peak = max(self._peak, memory)
        if self._peak >= self._reported + REPORT_STEP:
            self._reported = self._peak
            report({"peak_memory": self._peak})
        if self._limit is not None and self._peak > self._limit and not self._oom_killed:
            self._oom_killed = True
            kill_all()

    def _reap(self) -> int | None:
        """Take in what has ended; return the program's status once it is among it."""
        status = None
        for pid, its_status, resident_kib in ended_children():
            self._measure(resident_kib * 1024)
            if pid == self._process.pid:
                status = its_status
        return status


def ended_children() -> Iterator[tuple[int, int, int]]:
    """Tell process id, status and greatest resident memory (KiB, of it and its children) of what has ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            yield pid, status, usage.ru_maxrss


def kill_all() -> None:
    """Send SIGKILL to all processes of the container but this one."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)


def report(fields: dict[str, Any]) -> None:
    """Write a line to whoever started the container."""
    os.write(sys.stdout.fileno(), json.dumps(fields).encode() + b"\n")


def main() -> None:
    """Run the container that the file named on the command line describes."""
    run = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    log = os.open(run["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        make_root(run)
        program = Program(run, log)
    except OSError as error:
        report({"refused": str(error)})
        return
    report(program.supervise())


if __name__ == "__main__":
    main()
