"""What the tables of etcdbrctl call honoured is read by its command, and nothing else; and a copy loads only a copy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backupagent.cli.etcdbrctl_flags import COMMANDS
from backupagent.cli.etcdbrctl_settings import copy_settings, restore_settings, server_settings
from backupagent.cli.pflag import Given, Use, read_flags

ROOT = Path(__file__).parents[3]
MAKERS = {"server": server_settings, "copy": copy_settings, "restore": restore_settings}


class Watched(Given):
    """Flags that remember which of them were read."""

    def __init__(self, given: Given, read: set[str]) -> None:
        super().__init__(given.flags, given.texts)
        object.__setattr__(self, "read", read)

    def __getattribute__(self, name: str):
        found = super().__getattribute__(name)
        if name not in {"text", "number", "flag", "seconds", "list", "named"}:
            return found

        def watch(flag: str):
            super(Watched, self).__getattribute__("read").add(flag)
            return found(flag)

        return watch


@pytest.mark.parametrize("command", COMMANDS)
def test_exactly_what_is_honoured_is_read(command: str) -> None:
    """Everything is given, so that what is read only in some cases is read here."""
    words = [
        *(f"--{side}{name}" for side in ("", "source-") for name in ("storage-provider=S3", "store-container=bucket")),
        *("--wait-for-final-snapshot", "--wait-for-final-snapshot-timeout=1m"),
        *("--initial-advertise-peer-urls=http://localhost:2380", "--initial-cluster=default=http://localhost:2380"),
    ]
    known = {flag.name for flag in COMMANDS[command]}
    given = read_flags(COMMANDS[command], [word for word in words if word[2:].partition("=")[0] in known])
    read: set[str] = set()

    MAKERS[command](Watched(given, read), {})  # type: ignore[operator]

    assert read == {flag.name for flag in COMMANDS[command] if flag.use is Use.HONOURED}


def test_a_copy_loads_neither_servers_nor_kubernetes_nor_grpc(tmp_path: Path) -> None:
    script = (
        "import sys; from backupagent.cli import etcdbrctl; code = etcdbrctl.main(sys.argv[1:]);"
        "print(code, *sorted({name.partition('.')[0] for name in sys.modules}),"
        " *sorted(name for name in sys.modules if name.startswith('backupagent.')))"
    )
    words = ["copy", "--storage-provider=Local", "--store-container=to", "--source-store-container=from"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=ROOT,
        env=os.environ | {"HOME": str(tmp_path), "TERMINATION_LOG": str(tmp_path / "words")},
        capture_output=True,
        text=True,
        check=True,
    )
    code, *loaded = done.stdout.split()
    assert code in {"11", "25"}, done.stderr  # it got as far as listing the source
    assert "backupagent.operations.copier" in loaded
    unwanted = {
        *("aiohttp", "asyncio", "azure", "boto3", "etcd3", "google", "grpc", "httpx2", "lightkube", "rich", "typer"),
        *("backupagent.server", "backupagent.controller", "backupagent.kube.connection", "backupagent.etcd.session"),
    }
    assert unwanted & set(loaded) == set()
