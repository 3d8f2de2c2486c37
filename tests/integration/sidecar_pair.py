"""A real sidecar and the etcd that it is for, on one volume."""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import yaml

from backupagent import failpoints, wiring
from backupagent.cancel import Cancel
from backupagent.etcd.client import EtcdClient
from backupagent.etcd.connection import EtcdAccess
from backupagent.operations.report import ListedChain
from backupagent.testing.server_process import LocalServer, http_request
from backupagent.testing.servers import EtcdServer
from backupagent.testing.waiting import Patience

ROOT = Path(__file__).parents[2]
MEMBER = "etcd-main-0"
NAMESPACE = "shoot--dev--demo"
PATIENCE_S = 30.0
ENOUGH = 64 * 1024
YEARLY = "0 0 1 1 *"

T = TypeVar("T")


def until(look: Callable[[], T], what: str) -> T:
    """Wait for something that others bring about."""
    return Patience(cancel=Cancel(), timeout_s=PATIENCE_S, poll_s=0.05).until(look, what)


class ConfiguredEtcd(EtcdServer):
    """An etcd that is started with a configuration file, as the wrapper's is."""

    def __init__(self, binary: Path, data_dir: Path, config: Path) -> None:
        super().__init__(binary, data_dir, MEMBER)
        self.config = config

    def _command(self) -> list[str | Path]:
        return [self.binary, f"--config-file={self.config}"]


class SidecarServer(LocalServer):
    """``backupagent server`` as a process.

    Args:
        options: Of the command, but for the port.
        environment: Further variables.
    """

    START_TIMEOUT_S = PATIENCE_S

    def __init__(self, options: Sequence[str], environment: Mapping[str, str]) -> None:
        super().__init__("sidecar", host="127.0.0.1", ports={"http": None})
        self.options = list(options)
        self.environment = dict(environment)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def is_ready(self) -> bool:
        status, body = self.ask("/metrics")
        return status == HTTPStatus.OK and b"etcdbr_snapshot_latest_revision" in body

    def ask(self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Return status and body; status 0 when nobody answers."""
        return http_request(method, self.host, self.port("http"), path, headers=headers, timeout_s=PATIENCE_S)

    def ask_at_once(self, path: str) -> tuple[int, bytes]:
        """Return status and body as far as they come with the first read, as etcd-wrapper does."""
        with socket.create_connection((self.host, self.port("http")), PATIENCE_S) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())
            head, _, body = connection.recv(ENOUGH).partition(b"\r\n\r\n")
        fields = {
            name.lower(): text.strip() for name, _, text in (line.partition(b":") for line in head.split(b"\r\n"))
        }
        assert len(body) == int(fields[b"content-length"]), f"{path}: its body did not come with its header"
        return int(head.split()[1]), body

    def json(self, path: str, method: str = "GET") -> Any:
        """Return what a route that succeeds answers."""
        status, body = self.ask(path, method)
        assert status == HTTPStatus.OK, (status, body, self.log_tail())
        return json.loads(body)

    def metric(self, series: str) -> float:
        """Return the value of a series, e.g. ``name{label="x"}``."""
        lines = self.ask("/metrics")[1].decode().splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == series)

    def _command(self) -> list[str | Path]:
        return [sys.executable, "-m", "backupagent", "server", *self.options, f"--port={self.port('http')}"]

    def _environment(self) -> Mapping[str, str]:
        kept = {name: text for name, text in os.environ.items() if name.startswith("COV")}
        return kept | {"PYTHONPATH": str(ROOT)} | self.environment


class Pair:
    """The two containers of an etcd's Pod.

    Args:
        folder: A directory of its own.
        binary: Of etcd.
        store: URI of the backups; empty for none.
    """

    def __init__(self, folder: Path, binary: Path, store: str) -> None:
        self.volume = folder / "volume"
        self.data_dir = self.volume / "new.etcd"
        self.store = store
        self._druids = folder / "etcd.conf.yaml"  # as druid writes it
        served = folder / "served.yaml"
        self.etcd = ConfiguredEtcd(binary, self.data_dir, served)
        self._write_config()
        self.sidecar = SidecarServer([], {})
        self.arrange()

    def arrange(self, *options: str, armed: str = "", **variables: str) -> None:
        """Choose how the next sidecar is started; without options it takes nothing by itself but the first full.

        Args:
            options: Of the command, the later ones count.
            armed: Its failpoints.
            variables: Of its environment.
        """
        self.sidecar.options = [
            f"--data-dir={self.data_dir}",
            "--host=127.0.0.1",
            f"--endpoints={self.etcd.url}",
            f"--schedule={YEARLY}",
            "--delta-period=1h",
            *([f"--store={self.store}"] if self.store else []),
            *options,
        ]
        pod = {"POD_NAME": MEMBER, "POD_NAMESPACE": NAMESPACE, "ETCD_CONF": str(self._druids)}
        self.sidecar.environment = pod | variables | ({failpoints.VARIABLE: armed} if armed else {})

    def initialize(self, mode: str = "full") -> str:
        """Ask for an initialization as the wrapper does, and return how it ended."""
        sidecar = self.sidecar
        sidecar.start()
        assert sidecar.ask_at_once("/initialization/status") == (HTTPStatus.OK, b"New")
        assert sidecar.ask_at_once(f"/initialization/start?mode={mode}") == (HTTPStatus.OK, b"")

        def ended() -> str:
            state = sidecar.ask_at_once("/initialization/status")[1].decode()
            return state if state != "Progress" else ""

        return until(ended, "the end of the initialization")

    def start(self, mode: str = "full") -> None:
        """Start both, in the wrapper's order."""
        assert self.initialize(mode) == "Successful", self.sidecar.log_tail()
        self.start_etcd()

    def start_etcd(self) -> None:
        """Start etcd with what the sidecar serves, and wait until the first snapshot was taken."""
        status, config = self.sidecar.ask_at_once("/config")
        assert status == HTTPStatus.OK
        self.etcd.config.write_bytes(config)
        self.etcd.start()
        if self.store:
            until(lambda: self.healthy() and self._has_full(), "backups")

    def healthy(self) -> bool:
        """Ask whether backups run."""
        return self.sidecar.ask("/healthz")[0] == HTTPStatus.OK

    def stop(self) -> None:
        """Stop both, the sidecar first."""
        self.sidecar.stop()
        self.etcd.stop()

    def close(self) -> None:
        """Stop both and remove what they leave."""
        self.sidecar.close()
        self.etcd.close()

    @contextmanager
    def client(self) -> Iterator[EtcdClient]:
        """Connect to the etcd."""
        with EtcdClient.open(EtcdAccess((self.etcd.url,))) as client:
            yield client

    def put(self, *keys: str) -> int:
        """Write keys, each with its own name as value; return the revision."""
        with self.client() as client, client.errors():
            for key in keys:
                client.etcd3.put(key, key)
            return client.revision()

    def keys(self) -> dict[str, tuple[str, int]]:
        """Return value and mod revision of every key."""
        with self.client() as client, client.errors():
            found = client.etcd3.get_all()
            return {meta.key.decode(): (value.decode(), meta.mod_revision) for value, meta in found}

    def chains(self) -> tuple[ListedChain, ...]:
        """List the store, newest chain first."""
        report = wiring.list_if_any(self.store, Cancel())
        return () if report is None else report.chains

    def _has_full(self) -> bool:
        chains = self.chains()
        return bool(chains) and chains[0].full.manifest  # which is written last

    def names(self) -> list[str]:
        """Return the newest chain's snapshots."""
        chains = self.chains()
        return [chains[0].full.name, *(delta.name for delta in chains[0].deltas)] if chains else []

    def _write_config(self) -> None:
        etcd = self.etcd
        document = {
            "name": "etcd-config",
            "data-dir": str(self.data_dir),
            "metrics": "basic",
            "snapshot-count": 10000,
            "initial-cluster": f"{MEMBER}={etcd.peer_url}",
            "initial-cluster-state": "new",
            "initial-cluster-token": "etcd-cluster",
            "initial-advertise-peer-urls": {MEMBER: [etcd.peer_url]},
            "advertise-client-urls": {MEMBER: [etcd.url]},
            "listen-peer-urls": etcd.peer_url,
            "listen-client-urls": etcd.url,
            "unsafe-no-fsync": True,
        }
        self._druids.write_text(yaml.safe_dump(document))
