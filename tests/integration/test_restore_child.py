"""The child that restores: it does not outlive its sidecar, and its own death is told."""

import shutil
import sys
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

import pytest

from backupagent.cancel import Cancel
from backupagent.testing.server_process import LocalServer, http_get
from backupagent.testing.waiting import Patience

GOLDEN = Path(__file__).parent.parent / "golden" / "gzip"
SOON = Patience(cancel=Cancel(), timeout_s=60, poll_s=0.05)


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


@pytest.fixture
def golden(tmp_path: Path) -> str:
    """Return a store that the peer has made."""
    return f"file://{shutil.copytree(GOLDEN, tmp_path / 'golden')}"


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in text for child in (task / "children").read_text().split()]


def log_of(sidecar: Sidecar) -> str:
    return sidecar.log_path.read_text()


def test_a_sidecar_that_is_killed_amid_a_restore(tmp_path: Path, golden: str) -> None:
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
