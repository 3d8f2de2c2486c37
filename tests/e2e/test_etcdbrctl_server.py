"""etcdbrctl as druid's sidecar: its whole list of arguments starts a process that speaks with etcd-wrapper."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import ROOT
from druid_job import PREFIX, PROGRAM

from backupagent.cancel import Cancel
from backupagent.testing.server_process import free_ports, http_get
from backupagent.testing.waiting import Patience

LIMIT_S = 30
ETCD_CONFIG = """
name: etcd-config
data-dir: /var/etcd/data/new.etcd
initial-cluster: etcd-main-0=http://127.0.0.1:2380
initial-cluster-state: new
initial-cluster-token: etcd-cluster
initial-advertise-peer-urls: {etcd-main-0: ["http://127.0.0.1:2380"]}
advertise-client-urls: {etcd-main-0: ["http://127.0.0.1:2379"]}
"""


def arguments(folder: Path, port: int, etcd_port: int) -> list[str]:
    """Return the arguments of a member without TLS.

    Source:
        etcd-druid 5b90b4a, internal/component/statefulset/builder.go.
    """
    return [
        "server",
        f"--server-port={port}",
        "--enable-snapshot-lease-renewal=true",
        "--full-snapshot-lease-name=etcd-main-full-snap",
        "--delta-snapshot-lease-name=etcd-main-delta-snap",
        "--storage-provider=Local",
        f"--store-prefix={PREFIX}",
        "--schedule=30 1 * * *",
        "--delta-snapshot-period=5m0s",
        "--delta-snapshot-memory-limit=104857600",
        "--garbage-collection-policy=Exponential",
        "--garbage-collection-period=12h0m0s",
        "--compress-snapshots=true",
        "--compression-policy=gzip",
        "--etcd-snapshot-timeout=15m0s",
        "--defragmentation-schedule=0 0 */3 * *",
        "--etcd-defrag-timeout=15m",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=30m",
        "--insecure-transport=true",
        "--insecure-skip-tls-verify=true",
        f"--endpoints=http://127.0.0.1:{etcd_port}",
        f"--service-endpoints=http://127.0.0.1:{etcd_port}",
        f"--data-dir={folder}/data/new.etcd",
        f"--restoration-temp-snapshots-dir={folder}/data/restoration.temp",
        f"--snapstore-temp-directory={folder}/data/temp",
        "--etcd-connection-timeout=5m",
        "--use-etcd-wrapper=true",
        "--enable-member-lease-renewal=true",
        "--k8s-heartbeat-duration=10s",
        "--embedded-etcd-quota-bytes=8589934592",
    ]


@dataclass(frozen=True)
class Sidecar:
    """A running sidecar.

    Attributes:
        process: It.
        port: Where it serves.
        folder: With its data, its store and its log.
    """

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    def get(self, path: str) -> str:
        status, body = http_get("127.0.0.1", self.port, path, timeout_s=5)
        return body.decode() if status == 200 else ""

    def until(self, path: str, body: str) -> None:
        """Wait for an answer."""
        patience = Patience(cancel=Cancel(), timeout_s=LIMIT_S)
        patience.until(lambda: self.process.poll() is not None or self.get(path) == body, f"{path} says {body}")
        assert self.process.poll() is None, (self.folder / "log").read_text()

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT_S)


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    for name in ("home", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "etcd.conf.yaml").write_text(ETCD_CONFIG)
    variables = {
        "HOME": str(tmp_path / "home"),
        "STORAGE_CONTAINER": "bucket",
        "POD_NAME": "etcd-main-0",
        "POD_NAMESPACE": "shoot--dev--demo",
        "ETCD_CONF": str(tmp_path / "etcd.conf.yaml"),
        "TERMINATION_LOG": str(tmp_path / "termination-log"),
        "PYTHONPATH": str(ROOT),
    }
    port, etcd_port = free_ports(2)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*PROGRAM, *arguments(tmp_path, port, etcd_port)],
            cwd=tmp_path,
            env=os.environ | variables,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Sidecar(process, port, tmp_path)
    finally:
        process.kill()
        process.wait()


def test_a_member_without_backups_begins_and_the_sidecar_ends_when_it_must(sidecar: Sidecar) -> None:
    sidecar.until("/initialization/status", "New")
    assert json.loads(http_get("127.0.0.1", sidecar.port, "/healthz")[1]) == {"health": False}  # there is no etcd
    sidecar.get("/initialization/start?mode=full")
    sidecar.until("/initialization/status", "Successful")
    assert "name: etcd-main-0" in sidecar.get("/config")

    assert sidecar.end() == 0, (sidecar.folder / "log").read_text()

    written = {path.relative_to(sidecar.folder).parts[0] for path in sidecar.folder.rglob("*") if path.is_file()}
    assert written <= {"data", "home", "log", "etcd.conf.yaml"}
    assert not (sidecar.folder / "data" / "restoration.temp").exists()


def test_what_cannot_be_served_is_told_before_anything_is_done(tmp_path: Path) -> None:
    words = [*arguments(tmp_path, 0, 1), "--schedule=whenever"]
    variables = {"HOME": str(tmp_path), "TERMINATION_LOG": str(tmp_path / "words"), "PYTHONPATH": str(ROOT)}
    (tmp_path / "etcd.conf.yaml").write_text(ETCD_CONFIG)
    variables |= {"ETCD_CONF": str(tmp_path / "etcd.conf.yaml"), "POD_NAME": "etcd-main-0", "POD_NAMESPACE": "x"}
    done = subprocess.run(
        [*PROGRAM, *words], cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "whenever" in done.stderr
    assert json.loads((tmp_path / "words").read_text())["error"]["reason"] == "ConfigError"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["etcd.conf.yaml", "words"]
