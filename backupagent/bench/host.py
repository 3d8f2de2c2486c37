"""What machine and what software a figure belongs to."""

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import backupagent
from backupagent.testing.server_binaries import find_binary

SERVERS = ("etcd-3.5", "minio")
"""Those that scenarios use."""


def load_average() -> list[float]:
    """Return the load of the last 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


def describe_host(workspace: Path) -> dict[str, Any]:
    """Return processor, cores, memory (bytes), kernel, and the file system under a directory."""
    cpu = _first_field(Path("/proc/cpuinfo").read_text(), "model name") or platform.processor()
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "file_system": _file_system(workspace),
    }


def describe_software() -> dict[str, str]:
    """Return versions of python, backupagent and the servers; empty for what is not on this machine."""
    versions = {"python": platform.python_version(), "backupagent": backupagent.__version__}
    return versions | {name: _first_line(find_binary(name)) for name in SERVERS}


def git_commit() -> str:
    """Return the commit of the checkout that this package lies in, with a mark when it is changed; else nothing."""
    git = shutil.which("git")
    if git is None:
        return ""
    folder = Path(backupagent.__file__).resolve().parent
    question = [git, "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    answer = subprocess.run(question, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _first_line(binary: Path | None) -> str:
    """Return the first line that a server tells of its version."""
    if binary is None:
        return ""
    question = [str(binary), "--version"]
    answer = subprocess.run(question, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return answer.stdout.partition("\n")[0]


def _first_field(text: str, name: str) -> str:
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for field, _colon, value in lines if field.strip() == name), "")


def _file_system(place: Path) -> str:
    """Return the type of the file system that holds a path: of the longest mount point above it."""
    mounts = [line.split(" ")[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    held = [(point, kind) for point, kind in mounts if place.resolve().is_relative_to(point)]
    return max(held, key=lambda mount: len(mount[0]))[1] if held else ""
