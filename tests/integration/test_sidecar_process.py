"""The sidecar as a process: what a kill, a stop and an impatient wrapper do to it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from backupagent.cancel import Cancel
from backupagent.etcd.client import EtcdClient
from backupagent.etcd.connection import EtcdAccess
from backupagent.testing.keyspace import Put, commit, read_everything
from backupagent.testing.server_process import LocalServer, http_get
from backupagent.testing.servers import EtcdServer, MinioServer
from backupagent.testing.waiting import Patience

pytestmark = pytest.mark.servers

Find = Callable[[str], Path]
GOLDEN = Path(__file__).parent.parent / "golden" / "gzip"
SOON = Patience(cancel=Cancel(), timeout_s=60, poll_s=0.05)
REQUESTS = 200
WINDOW = 4096
"""Bytes that etcd-wrapper can have of an answer: it cancels the request when it has the header."""


class Sidecar(LocalServer):
    """``backupagent server`` for member ``main-0``, its volume and configuration in one folder."""

    def __init__(self, folder: Path, store: str, etcd: str = "http://127.0.0.1:1", **variables: str) -> None:
        super().__init__("sidecar", host="127.0.0.1", ports={"http": None})
        self.volume = folder / "volume"
        self.volume.mkdir(exist_ok=True)
        self.data_dir = self.volume / "new.etcd"
        self.variables = variables
        self._store, self._etcd = store, etcd
        self._config = folder / "etcd.conf.yaml"
        self._config.write_text(
            "initial-cluster: main-0=http://127.0.0.1:2380\n"
            "initial-advertise-peer-urls: {main-0: ['http://127.0.0.1:2380']}\n"
            f"advertise-client-urls: {{main-0: ['{etcd}']}}\n" + "# " + "x" * 50 + "\n"
        )

    def is_ready(self) -> bool:
        return http_get(self.host, self.port("http"), "/config")[0] == HTTPStatus.OK

    def _command(self) -> list[str | Path]:
        options = {
            "store": self._store,
            "data-dir": self.data_dir,
            "etcd-config": self._config,
            "host": self.host,
            "port": self.port("http"),
            "endpoints": self._etcd,
            "delta-period": "1000s",
            "member": "main-0",
        }
        return [sys.executable, "-m", "backupagent", "server", *(f"--{name}={text}" for name, text in options.items())]

    def _environment(self) -> Mapping[str, str]:
        return self.variables

    def ask(self, path: str) -> str:
        status, body = http_get(self.host, self.port("http"), path, timeout_s=30)
        assert status == HTTPStatus.OK, (path, status, body)
        return body.decode()

    def initialized(self) -> str:
        self.ask("/initialization/start?mode=full")
        return SOON.until(
            lambda: (state := self.ask("/initialization/status")) not in {"New", "Progress"} and state, "an end"
        )

    def window(self, path: str) -> bytes:
        """Return what comes at once."""
        with socket.create_connection((self.host, self.port("http")), 10) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            return connection.recv(WINDOW)


@pytest.fixture
def golden(tmp_path: Path) -> str:
    """Return a store that the peer has made."""
    return f"file://{shutil.copytree(GOLDEN, tmp_path / 'golden')}"


def restored(store: str, place: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "backupagent", "restore", f"--store={store}", f"--data-dir={place}", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in text for child in (task / "children").read_text().split()]


def log_of(sidecar: Sidecar) -> str:
    return sidecar.log_path.read_text()


def test_header_and_body_come_together(tmp_path: Path, golden: str) -> None:
    with Sidecar(tmp_path, golden) as sidecar:
        for path in ("/initialization/status", "/config"):
            for _ in range(REQUESTS):
                head, _blank, body = sidecar.window(path).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                assert f"Content-Length: {len(body)}".encode() in head
                assert body


def test_a_sidecar_that_is_killed_amid_a_restore(tmp_path: Path, golden: str) -> None:
    expected = restored(golden, tmp_path / "expected")
    with Sidecar(tmp_path, golden, BACKUPAGENT_FAILPOINTS="restore.publish=pause(600)") as sidecar:
        sidecar.ask("/initialization/start")
        half_made = sidecar.data_dir.with_name("new.etcd.part")
        SOON.until((half_made / "member" / "wal").exists, "a half-made directory")
        (child,) = children(sidecar.pid)
        sidecar.kill()
        SOON.until(lambda: not Path(f"/proc/{child}").exists(), "the end of the child")
        assert half_made.exists()
        assert not sidecar.data_dir.exists()
        sidecar.variables = {}
        sidecar.start()
        assert sidecar.initialized() == "Successful"
        assert sidecar.data_dir.is_dir()
        assert not half_made.exists()
        assert f"backupagent_restored_revision {float(expected['revision'])}" in sidecar.ask("/metrics")


def test_a_restore_that_is_killed_is_a_failure_that_may_be_tried_again(tmp_path: Path, golden: str) -> None:
    with Sidecar(tmp_path, golden, BACKUPAGENT_FAILPOINTS="restore.publish=sigkill") as sidecar:
        assert sidecar.initialized() == "Failed"
        assert sidecar.ask("/initialization/status") == "New"
        assert "the restore ended with -9" in log_of(sidecar)
        assert not sidecar.data_dir.exists()
        sidecar.stop()
        sidecar.variables = {}
        sidecar.start()
        assert sidecar.initialized() == "Successful"


def test_options_of_the_sidecar_do_not_change_the_restore(tmp_path: Path, golden: str) -> None:
    with Sidecar(tmp_path, golden, BACKUPAGENT_HASH_COMPACT_REVISION="nonsense") as sidecar:
        assert sidecar.initialized() == "Successful"


def test_a_stop_amid_a_restore_leaves_nothing(tmp_path: Path, golden: str) -> None:
    with Sidecar(tmp_path, golden, BACKUPAGENT_FAILPOINTS="restore.base=pause(2)") as sidecar:
        sidecar.ask("/initialization/start")
        half_made = sidecar.data_dir.with_name("new.etcd.part")
        SOON.until(half_made.exists, "a half-made directory")
        os.kill(sidecar.pid, signal.SIGTERM)
        SOON.until(lambda: not sidecar.is_running, "the end")
        assert not half_made.exists()
        assert not sidecar.data_dir.exists()


@pytest.fixture
def minio_store(server_binary: Find, tmp_path: Path) -> Iterator[str]:
    with MinioServer(binary=server_binary("minio")) as server:
        server.make_bucket("backups")
        folder = tmp_path / "credentials"
        folder.mkdir()
        (folder / "accessKeyID").write_text(server.access_key)
        (folder / "secretAccessKey").write_text(server.secret_key)
        options = f"endpoint={server.endpoint_url}&region={server.REGION}&path-style=true&credentials={folder}"
        yield f"s3://backups/be/etcd-main?{options}"


@pytest.mark.parametrize("kind", ["directory", "minio"])
def test_a_stop_takes_what_was_written_a_moment_before(
    kind: str, tmp_path: Path, server_binary: Find, request: pytest.FixtureRequest
) -> None:
    store = f"file://{tmp_path}/new-store" if kind == "directory" else request.getfixturevalue("minio_store")
    with EtcdServer(server_binary("etcd-3.5")) as etcd, Sidecar(tmp_path, store, etcd.url) as sidecar:
        SOON.until(lambda: '"isFinal"' in sidecar.ask("/snapshot/latest"), "the first full")
        with EtcdClient.open(EtcdAccess(endpoints=(etcd.endpoint,))) as client:
            revision = commit(client, [Put(b"/late", b"but not lost")])
        sidecar.stop()
        text = log_of(sidecar)
    secret = next(iter((tmp_path / "credentials").glob("secret*")), None)
    assert secret is None or secret.read_text() not in text
    assert restored(store, tmp_path / "copy")["revision"] == revision
    with (
        EtcdServer(server_binary("etcd-3.5"), data_dir=tmp_path / "copy") as again,
        EtcdClient.open(EtcdAccess(endpoints=(again.endpoint,))) as client,
    ):
        assert [(key.key, key.value) for key in read_everything(client)] == [(b"/late", b"but not lost")]
