"""The servers that a migration is played on: Kubernetes with Gardener's kinds, and a MinIO for each Seed."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.kube.client import KubeClient
from backupagent.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
)
from backupagent.testing import crds
from backupagent.testing.binding_proxy import BindingProxy
from backupagent.testing.garden import BucketAccess
from backupagent.testing.kube_servers import KubeApiServer, KubeControllerManager
from backupagent.testing.servers import MinioServer

RBAC_FOLDER = Path(__file__).resolve().parents[2] / "config" / "rbac"
"""Of the checkout; not part of the installed package."""

RBAC_KINDS = {
    each.kind: each for each in (CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS)
}


class Timings:
    """How long the parts took.

    Attributes:
        seconds: By name of the part, in the order in which they ended.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Measure a block."""
        began_s = self._clock.monotonic_s()
        yield
        self.seconds[part] = self._clock.monotonic_s() - began_s


class StageServers:
    """The servers; a context manager that starts and ends them. They are started side by side.

    Args:
        folder: Where their logs and the buckets' files go.
        seeds: Names of the Seeds.
        clock: Source of time.

    Attributes:
        api: The API server.
        kube: A client of it, as an administrator.
        proxy: Before it, with ``shoots/binding``.
        minios: The object store of each Seed.
        timings: How long each start took.
    """

    def __init__(self, folder: Path, seeds: Sequence[str], clock: Clock = SYSTEM_CLOCK) -> None:
        self._stack = ExitStack()
        self._folder = folder
        self.timings = Timings(clock)
        logs = folder / "logs"
        self.api = KubeApiServer(log_path=logs / "kube-apiserver.log", clock=clock)
        self._manager = KubeControllerManager(self.api, log_path=logs / "kube-controller-manager.log", clock=clock)
        self.minios = {
            seed: MinioServer(folder / "buckets" / seed, log_path=logs / f"minio-{seed}.log", clock=clock)
            for seed in seeds
        }
        self.kube: KubeClient
        self.proxy: BindingProxy

    def __enter__(self) -> Self:
        """Start them.

        Raises:
            ServerFailed: one of them did not become ready; nothing is left running.
        """
        with ExitStack() as starting:
            for server in (self.api, self._manager, *self.minios.values()):
                starting.callback(server.close)
            with ThreadPoolExecutor(max_workers=1 + len(self.minios)) as pool:
                stores = [pool.submit(self._start, f"minio {name}", each.start) for name, each in self.minios.items()]
                self._start("kube-apiserver", self.api.start)
                manager = pool.submit(self._start, "kube-controller-manager", self._manager.start)
                self.kube = starting.enter_context(self.api.client())
                self._start("custom resources", lambda: crds.install(self.kube))
                for future in (*stores, manager):
                    future.result()
            self.proxy = starting.enter_context(BindingProxy(self.api.url, self.kube, ca_file=self.api.ca_file))
            self._stack = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them."""
        self._stack.__exit__(kind, error, trace)

    def _start(self, part: str, start: Callable[[], None]) -> None:
        with self.timings.of(part):
            start()

    def access(self, seed: str) -> BucketAccess:
        """Return how to reach the object store of a Seed."""
        minio = self.minios[seed]
        return BucketAccess(minio.endpoint_url, minio.REGION, minio.access_key, minio.secret_key)

    def kubeconfig(self, name: str, account: str = "") -> Path:
        """Write a kubeconfig that leads through the proxy.

        Args:
            name: Name of the file.
            account: ``namespace/name`` of a service account; the admin when empty.
        """
        token = self.api.token_for(*account.split("/")) if account else ""
        folder = self._folder / "kubeconfigs"
        folder.mkdir(exist_ok=True)
        return self.api.kubeconfig(folder / name, token=token, server=self.proxy.url)

    def install_rbac(self) -> bool:
        """Apply what config/rbac holds; return whether there is such a folder."""
        for path in sorted(RBAC_FOLDER.glob("*.yaml")):
            for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
                if document["kind"] in RBAC_KINDS:
                    self.kube.apply(RBAC_KINDS[document["kind"]], document)
        return RBAC_FOLDER.is_dir()
