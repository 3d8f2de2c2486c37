"""The whole play: a Kubernetes, two buckets, druid, gardenlets, and a Shoot whose etcd is full and backed up.

::

    with MigrationStage(folder, objects=2000) as stage:
        stage.start_controller()
        stage.bind("seed-b")
        stage.gardenlet.join(120)
        assert stage.compare().equal

One API server stands for the garden cluster and both Seeds: the control plane's namespace has the same name on both,
and the source's is gone before the destination's is made.
"""

import secrets
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.errors import KubeConflict
from backupagent.etcd.client import EtcdClient, HashKV
from backupagent.etcd.connection import EtcdAccess
from backupagent.kube.client import KubeClient
from backupagent.kube.manifests import timestamp
from backupagent.kube.resources import ETCDS, PODS, SEEDS, SHOOTS
from backupagent.model.gardener import ETCD_MAIN, Shoot
from backupagent.model.migration import Step
from backupagent.testing.control_plane import BackupPlan
from backupagent.testing.controller_process import ControllerProcess
from backupagent.testing.druid import Druid, Images, Readiness
from backupagent.testing.druid_etcd import MemberPorts
from backupagent.testing.equality import Comparison, Content, compare_with
from backupagent.testing.garden import DESTINATION, GARDEN, PROJECT, SHOOT, SOURCE, TECHNICAL_ID
from backupagent.testing.gardenlet import Gardenlet, Script
from backupagent.testing.keyspace import Put, commit
from backupagent.testing.kubelet import ApiAddress, Kubelet
from backupagent.testing.landscape import make_garden, make_shoot
from backupagent.testing.server_process import http_get
from backupagent.testing.servers import require
from backupagent.testing.stage_servers import StageServers
from backupagent.testing.waiting import NotInTime, Patience
from backupagent.testing.workload import KubernetesLikeWriter
from backupagent.testing.wrapper import BINARY_VARIABLE, PAUSE_VARIABLE

CONTROLLER_ACCOUNT = f"{GARDEN}/backupagent-controller"
"""Service account of the controller in config/rbac."""

MEMBER = f"{ETCD_MAIN}-0"
API_SERVER_STOPPED, API_SERVER_STARTED = "ApiServerStopped", "ApiServerStarted"
"""Steps between which nobody writes to the etcd."""

FIRST_WRITES = (b"/registry/masterleases/127.0.0.1", b"/registry/leases/kube-system/apiserver-7a3f0c51")
"""What an API server writes as soon as it runs."""

DELTAS = 2
SNAPSHOT_TIMEOUT_S = 600.0
ETCD_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is played; the defaults are fast.

    Attributes:
        seed: Of everything random that is written.
        plan: How both etcds are backed up.
        readiness: When a member counts as ready; druid's real values wait 15 s.
        wrapper_pause_s: The wrapper's pause between two requests; the real one's is 1 s.
        writes_per_second: Transactions that go on until the API server stops; 0 for none.
        writes_after: The new API server writes to its etcd, as every one does when it starts; without it there is
            nothing new to back up.
        etcd: Name of the etcd that the members run, as in ``server_binaries``.
        images: Images that druid takes.
        programs: Further images: argv prefix by name.
    """

    seed: int = 20261123
    plan: BackupPlan = field(default_factory=lambda: BackupPlan(delta_period="1s", heartbeat="1s"))
    readiness: Readiness = field(default_factory=lambda: Readiness(0, 1))
    wrapper_pause_s: float = 0.1
    writes_per_second: float = 0.0
    writes_after: bool = True
    etcd: str = "etcd"
    images: Images = field(default_factory=Images)
    programs: Mapping[str, Sequence[str]] = field(default_factory=dict)


class MigrationStage:
    """Everything up to the moment before the migration; a context manager.

    Args:
        folder: Where everything is kept: logs, buckets, credentials.
        objects: Keys in the source's etcd.
        script: How the gardenlets behave.
        setup: What else is played.
        on_step: Called after every step of the gardenlets, in their thread; may block it.
        cancel: Ends every wait of the setup; set when the stage ends.
        clock: Source of time.

    Attributes:
        servers: API server, proxy, buckets.
        kubelet: Runs the Pods.
        druid: Makes Jobs and members.
        gardenlet: Both gardenlets; it acts when the Shoot is bound to the other Seed.
        source: What the source's etcd held when its API server had stopped; None before.
        timings: Seconds that each part of the setup took.
    """

    def __init__(  # noqa: PLR0913 - knobs of a test, all but one optional
        self,
        folder: Path,
        *,
        objects: int = 2000,
        script: Script | None = None,
        setup: Setup | None = None,
        on_step: Callable[[Step], None] | None = None,
        cancel: Cancel | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._objects = objects
        self._setup = setup or Setup()
        self._on_step = on_step
        self._clock = clock
        self._cancel = cancel or Cancel()
        self._stack = ExitStack()
        self._patience = Patience(cancel=self._cancel, timeout_s=ETCD_TIMEOUT_S, clock=clock)
        self.servers = StageServers(self.folder, (SOURCE, DESTINATION), clock)
        self.timings = self.servers.timings.seconds
        self.source: Content | None = None
        self._writing = ExitStack()
        self.kubelet: Kubelet
        self.druid: Druid
        self.gardenlet: Gardenlet
        self._script = script or Script()

    def __enter__(self) -> Self:
        """Start everything and fill the source's etcd.

        Raises:
            ServerMissing: a server is not on this machine.
            ServerFailed: one did not start.
            NotInTime: the source's etcd did not become ready.
        """
        with ExitStack() as starting, self.servers.timings.of("all"):
            starting.callback(self._cancel.set, "the end of the stage")
            starting.enter_context(self.servers)
            kube = self.kube
            self.kubelet = starting.enter_context(self._new_kubelet())
            setup = self._setup
            druid = Druid(kube, images=setup.images, readiness=setup.readiness, clock=self._clock)
            self.druid = starting.enter_context(druid)
            with self.servers.timings.of("landscape"):
                self._make_landscape()
            with self.servers.timings.of("source etcd"):
                self._patience.until(self._etcd_is_ready, "the source's etcd is ready")
            starting.callback(self._writing.close)
            self._fill()
            gardenlet = Gardenlet(kube, self._script, plan=setup.plan, on_step=self._after_step, clock=self._clock)
            self.gardenlet = starting.enter_context(gardenlet)
            self._stack = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything; the folder stays."""
        self._stack.__exit__(kind, error, trace)

    # ---- what a test uses

    @property
    def kube(self) -> KubeClient:
        """The API server, as an administrator."""
        return self.servers.kube

    @property
    def proxy_url(self) -> str:
        """URL of the API server with ``shoots/binding``; bearer tokens only."""
        return self.servers.proxy.url

    @property
    def source_hash(self) -> HashKV:
        """HashKV of the source's etcd when its API server had stopped.

        Raises:
            NotInTime: it has not yet.
        """
        if self.source is None:
            raise NotInTime("the source's API server has not stopped")
        return self.source.hash_kv

    @property
    def shoot(self) -> Shoot:
        """The Shoot as it is now."""
        return Shoot.read(self.kube.get(SHOOTS, SHOOT, PROJECT))

    def kubeconfig(self, name: str = "admin", account: str = "") -> Path:
        """Write a kubeconfig that leads through the proxy; see ``StageServers.kubeconfig``."""
        return self.servers.kubeconfig(name, account)

    def source_client(self) -> EtcdClient:
        """Connect to the source's etcd, until gardenlet deletes it; the caller closes the client."""
        return self._client()

    def destination_client(self) -> EtcdClient:
        """Connect to the destination's etcd, once gardenlet has deployed it; the caller closes the client."""
        return self._client()

    def bucket_uri(self, seed: str) -> str:
        """Return the URI of the Shoot's snapshots in the bucket of a Seed, with a folder of credentials."""
        access = self.servers.access(seed)
        bucket = self.kube.get(SEEDS, seed)["metadata"]["uid"]
        options = {
            "endpoint": access.endpoint,
            "region": access.region,
            "path-style": "true",
            "credentials": str(self._credentials_folder(seed)),
        }
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
        return f"s3://{bucket}/{self.shoot.snapshots_prefix}?{query}"

    def bind(self, seed: str) -> None:
        """Bind the Shoot to a Seed, as an operator does: a PUT of ``shoots/binding``.

        Raises:
            KubeError: the binding is refused.
        """
        with KubeClient.open(self.kubeconfig("operator")) as operator:
            while True:
                shoot = dict(operator.get(SHOOTS, SHOOT, PROJECT))
                wanted = shoot | {"spec": shoot["spec"] | {"seedName": seed}}
                with suppress(KubeConflict):  # somebody else wrote to the Shoot meanwhile
                    operator.replace(SHOOTS, wanted, subresource="binding")
                    return

    def start_controller(self, *options: str, kubeconfig: Path | None = None) -> ControllerProcess:
        """Start a migration controller; it ends with the stage, if not before.

        Args:
            options: Options of the command after ``--poll 500ms``.
            kubeconfig: Of the garden cluster; by default one of the account in config/rbac, whose roles are applied.
        """
        if kubeconfig is None:
            account = CONTROLLER_ACCOUNT if self.servers.install_rbac() else ""
            kubeconfig = self.kubeconfig("controller", account)
        log = self.folder / "logs" / "controller.log"
        controller = ControllerProcess(kubeconfig, ("--poll", "500ms", *options), log_path=log, clock=self._clock)
        self._stack.callback(controller.close)
        controller.start()
        return controller

    def compare(self) -> Comparison:
        """Compare the destination's etcd, at the revision at which the source's ended, with what that held.

        Raises:
            NotInTime: the source's API server has not stopped yet.
        """
        if self.source is None:
            raise NotInTime("the source's API server has not stopped")
        with self.destination_client() as client:
            return compare_with(self.source, client)

    # ---- setting up

    def _new_kubelet(self) -> Kubelet:
        python = sys.executable
        variables = [
            f"{BINARY_VARIABLE}={require(self._setup.etcd).resolve()}",
            f"{PAUSE_VARIABLE}={self._setup.wrapper_pause_s}",
        ]
        env = shutil.which("env") or "env"
        programs = {
            "etcdbrctl": [python, "-m", "backupagent.cli.etcdbrctl"],
            "etcd-wrapper": [env, *variables, python, "-m", "backupagent.testing.wrapper"],
            **self._setup.programs,
        }
        api = ApiAddress(self.servers.api.url, self.servers.api.ca_file.read_bytes())
        return Kubelet(self.kube, programs, self.folder / "pods", api=api, clock=self._clock)

    def _make_landscape(self) -> None:
        access = {seed: self.servers.access(seed) for seed in (SOURCE, DESTINATION)}
        now = timestamp(self._clock.now())
        minios = self.servers.minios
        make_garden(self.kube, access, lambda seed, bucket: minios[seed].make_bucket(bucket), now)
        make_shoot(self.kube, access[SOURCE], self._setup.plan, secrets.token_bytes(32), now)

    def _etcd_is_ready(self) -> bool:
        return self.kube.get(ETCDS, ETCD_MAIN, TECHNICAL_ID).get("status", {}).get("ready") is True

    def _fill(self) -> None:
        """Write the objects, take a full, and twice more writes and a delta; some revisions are compacted."""
        client = self.source_client()
        self._writing.callback(client.close)
        with self.servers.timings.of("fill"):
            writer = KubernetesLikeWriter(client, seed=self._setup.seed, clock=self._clock)
            writer.create(self._objects)
            self._snapshot("full")
            for _ in range(DELTAS):
                writer.churn(max(1, self._objects // 50))
                self._snapshot("delta")
            client.compact(client.revision() - self._objects // 50)
        if self._setup.writes_per_second:
            self._writing.enter_context(writer.running(self._setup.writes_per_second))

    def _snapshot(self, kind: str) -> None:
        where = urlsplit(self._ports().sidecar_url)
        asked = (where.hostname or "", where.port or 0, f"/snapshot/{kind}")

        def taken() -> bool:  # until the sidecar leads it has no snapshotter
            return http_get(*asked, timeout_s=SNAPSHOT_TIMEOUT_S)[0] == HTTPStatus.OK

        self._patience.until(taken, f"the sidecar takes a {kind} snapshot")

    def _after_step(self, step: Step) -> None:
        if step.name == API_SERVER_STOPPED:
            self._writing.close()
            with self.source_client() as client:
                self.source = Content.of(client)
        if step.name == API_SERVER_STARTED and self._setup.writes_after:
            with self.destination_client() as client:
                commit(client, [Put(key, b"127.0.0.1") for key in FIRST_WRITES])
        if self._on_step is not None:
            self._on_step(step)

    def _ports(self) -> MemberPorts:
        return MemberPorts.of(self.kube.get(PODS, MEMBER, TECHNICAL_ID))

    def _client(self) -> EtcdClient:
        return EtcdClient.open(EtcdAccess(endpoints=(self._ports().client_url,)))

    def _credentials_folder(self, seed: str) -> Path:
        folder = self.folder / f"credentials-{seed}"
        folder.mkdir(mode=0o700, exist_ok=True)
        access = self.servers.access(seed)
        for name, text in (("accessKeyID", access.access_key), ("secretAccessKey", access.secret_key)):
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(text)
        return folder
