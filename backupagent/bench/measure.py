"""Running a command as a whole process tree and measuring it from outside, by what Linux counts.

Every ``SAMPLE_S`` the tree is read from ``/proc``: processes of the command's session, and children of those. The
sampler costs one to two percent of a core, the same for everybody it measures.
"""

import mmap
import os
import re
import select
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.units import GiB, KiB, MiB

SAMPLE_S = 0.005
SETTLE_S = 0.3
"""Pause after writing back the page cache, before a run."""
TIMEOUT_S = 540.0
KEPT_OUTPUT = 64 * KiB
"""Bytes of each output that are kept; the end of it, for the message of a failure."""

_MEMORY = re.compile(rb"^Vm(HWM|RSS):\s*(\d+) kB", re.MULTILINE)
_WRITTEN = re.compile(rb"^write_bytes: (\d+)$", re.MULTILINE)

READY = 3 * GiB
"""Bytes of free memory that are kept ready for a run: more than most contenders write. A virtual machine gives pages
that are free back to its host, and pays to get one again: 1.1 GiB into a new file took 2.9 s here, into the same file
once more 0.8 s (2026-11-29). Otherwise that lottery is what is measured."""

CHUNK = 64 * MiB
CHUNK_S = 0.1
"""Such a piece is given free so often while a run goes on: faster than a copy here writes."""

POLICY = (
    "each run starts a new process tree with the source in the page cache, no dirty pages (sync, then "
    f"{SETTLE_S:g} s of pause); {READY // GiB} GiB of memory that the machine really has become free in its first "
    f"{READY // CHUNK * CHUNK_S:g} s; its time ends when its first process has ended, so what a command leaves in the "
    "page cache without fsync is not counted against it"
)


@dataclass(frozen=True)
class Measurement:
    """One run of a command.

    Attributes:
        wall_s: From start to end of the first process, seconds.
        user_s: User CPU of the tree, seconds; of descendants as far as their parents waited for them.
        system_s: System CPU of the tree, likewise.
        peak_memory: Bytes: the highest sum of the resident memory (mapped file pages included) of all
            processes of the tree at one moment, and never less than the kernel's own peak of any one of them.
        written: Bytes that the tree caused to be written to disks, scratch files and results alike.
        exit_code: Of the first process; negative when a signal ended it.
        stdout: End of its standard output.
        stderr: End of its standard error.
    """

    wall_s: float
    user_s: float
    system_s: float
    peak_memory: int
    written: int
    exit_code: int
    stdout: str = ""
    stderr: str = ""

    @property
    def cpu_s(self) -> float:
        """User and system CPU of the tree, seconds."""
        return self.user_s + self.system_s


def settle(clock: Clock = SYSTEM_CLOCK) -> None:
    """Write dirty pages back, so that the next run does not pay for the one before."""
    os.sync()
    clock.sleep(SETTLE_S)


@contextmanager
def memory_ready(size: int) -> Iterator[None]:
    """Take memory before a block, and give it free piece by piece while the block runs; see ``READY``.

    Args:
        size: Bytes of it; at most half of what is free.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    pieces = [_touched(CHUNK) for _ in range(min(size, free // 2) // CHUNK)]
    ended = threading.Event()

    def give() -> None:
        while pieces and not ended.wait(CHUNK_S):
            pieces.pop().close()

    giving = threading.Thread(target=give, daemon=True)
    giving.start()
    try:
        yield
    finally:
        ended.set()
        giving.join()
        while pieces:
            pieces.pop().close()


def _touched(size: int) -> mmap.mmap:
    """Return memory, every page of which has been written to."""
    memory = mmap.mmap(-1, size)
    memory.madvise(mmap.MADV_HUGEPAGE)
    memory[:: mmap.PAGESIZE] = b"\1" * (size // mmap.PAGESIZE)
    return memory


def measure(
    command: list[str],
    environment: Mapping[str, str],
    directory: Path,
    *,
    timeout_s: float = TIMEOUT_S,
    clock: Clock = SYSTEM_CLOCK,
) -> Measurement:
    """Run a command to its end.

    Nothing of its tree is left running afterwards. Its output goes to memory files, which no disk counts.

    Args:
        command: Program and arguments.
        environment: All variables it sees.
        directory: Its working directory.
        timeout_s: It is killed after that long.
        clock: Source of time.

    Raises:
        OSError: the program cannot be started.
    """
    with os.fdopen(os.memfd_create("stdout"), "w+b") as out, os.fdopen(os.memfd_create("stderr"), "w+b") as err:
        began_s = clock.monotonic_s()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
        )
        try:
            peak_memory = _watch(process.pid, began_s + timeout_s, clock)
            wall_s = clock.monotonic_s() - began_s
        finally:
            # The first process is not reaped yet, so its id cannot belong to anybody else.
            os.killpg(process.pid, signal.SIGKILL)
        written = _written(process.pid)
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return Measurement(
            wall_s=wall_s,
            user_s=usage.ru_utime,
            system_s=usage.ru_stime,
            peak_memory=peak_memory,
            written=written,
            exit_code=process.returncode,
            stdout=_end_of(out.fileno()),
            stderr=_end_of(err.fileno()),
        )


def _watch(pid: int, deadline_s: float, clock: Clock) -> int:
    """Sample the tree until its first process has ended, which stays a zombie.

    ``ru_maxrss`` is no cross-check here: a program inherits that of the process that started it. VmHWM is.
    """
    tree = _Tree(pid)
    peak = tree.memory()
    handle = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        while not poller.poll(SAMPLE_S * 1000):
            peak = max(peak, tree.memory())
            if clock.monotonic_s() > deadline_s:
                os.killpg(pid, signal.SIGKILL)
    finally:
        os.close(handle)
    return peak


class _Tree:
    """The living processes of a session; looks only at processes that are new since the last look."""

    def __init__(self, leader: int) -> None:
        self._leader = leader
        self._members: set[int] = {leader}
        self._foreign: set[int] = set()

    def memory(self) -> int:
        """Return the resident memory of the tree now, bytes; at least the largest peak of one process.

        A process counts from the second look on: before it has called exec it shows its parent's memory as its own.
        """
        total = largest = 0
        for pid in self._members:
            fields = dict(_MEMORY.findall(_read(f"/proc/{pid}/status")))
            total += int(fields.get(b"RSS", 0))
            largest = max(largest, int(fields.get(b"HWM", 0)))
        self._refresh()
        return max(total, largest) * KiB

    def _refresh(self) -> None:
        living = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208 - faster by half
        self._members &= living
        self._foreign &= living
        for pid in sorted(living - self._members - self._foreign):
            # After the name in parentheses: state, parent, group, session. Source: proc_pid_stat(5).
            fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
            if len(fields) > 3 and (int(fields[3]) == self._leader or int(fields[1]) in self._members):  # noqa: PLR2004
                self._members.add(pid)
            else:
                self._foreign.add(pid)


def _written(zombie: int) -> int:
    """Return the bytes written by an ended process and the descendants it waited for.

    The kernel adds the counts of a waited-for child to its parent. Source: kernel/exit.c, wait_task_zombie.
    """
    found = _WRITTEN.search(_read(f"/proc/{zombie}/io"))
    return int(found[1]) if found else 0


def _read(path: str) -> bytes:
    """Return a file of /proc, empty when its process is gone."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - hundreds of times a second
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _end_of(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, KEPT_OUTPUT, max(0, size - KEPT_OUTPUT)).decode(errors="replace")
