"""The sidecar: what it is put together from, how it starts and how it stops."""

import asyncio
import logging
import ssl
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import fields, replace

from aiohttp import web

from backupagent import wiring
from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK
from backupagent.errors import BackupAgentError, ConfigError
from backupagent.etcd.client import Status
from backupagent.kube.client import Kube
from backupagent.model.restored import Restored
from backupagent.operations.initializer import Initialization
from backupagent.operations.report import ListReport, SnapshotReport
from backupagent.progress import Progress
from backupagent.server.app import Parts, Routes
from backupagent.server.backups import Backups
from backupagent.server.etcd_config import MemberConfig
from backupagent.server.initialization import InitializationState
from backupagent.server.leases import LeaseNames, Leases
from backupagent.server.metrics import Metrics
from backupagent.server.open_store import OpenStore
from backupagent.server.restore_process import RestoreProcess
from backupagent.server.schedule import Schedule
from backupagent.server.threads import in_thread
from backupagent.server.untold import UntoldRestore
from backupagent.settings import (
    ApiAuth,
    EtcdSettings,
    ServerSettings,
    SnapshotChoice,
    SnapshotSettings,
    TransferSettings,
)

LOOK_S = 0.2
"""How often it is looked whether the process must stop."""

LONGEST_CONNECT_S = 10.0
"""How long a snapshot waits for its etcd, which has answered a moment before; druid's own limit is 5 minutes."""

LAST_NEWS_S, CLEAN_UP_S, LAST_ANSWERS_S = 3.0, 2.0, 3.0
"""How long a stopping sidecar tells Leases, lets a snapshot that was cut off remove what it has half made, and finishes
answers. With ``LAST_DELTA_S`` less than the 30 s of a Pod."""

_log = logging.getLogger(__name__)


class Sidecar:
    """One sidecar.

    Args:
        settings: Complete, see ``run.resolved``.
        config: What etcd's configuration says of this member.
        kube: Where Leases are; None without.
        cancel: Ends it.
    """

    def __init__(self, settings: ServerSettings, config: MemberConfig, kube: Kube | None, cancel: Cancel) -> None:
        self._settings = settings
        self._config = config
        self._cancel = cancel
        self._work = Cancel()  # a last delta is taken when the process must stop already
        self._store = OpenStore(lambda: wiring.open_snapstore(settings.store, self._work, create=True))
        self._metrics = Metrics()
        self._tasks: set[asyncio.Task[None]] = set()
        self._backing_up: asyncio.Task[None] | None = None
        self._leases = self._make_leases(kube)
        self._untold = UntoldRestore(settings.data_dir)
        self._restore = RestoreProcess(settings, config, cancel)

    async def run(self, tls: ssl.SSLContext | None) -> None:
        """Serve until the token is set, then stop in order.

        Args:
            tls: How to serve with a certificate; None for plain HTTP.

        Raises:
            ConfigError: the address cannot be had.
        """
        initialization = InitializationState(self._initialize, self._initialized)
        backups = self._make_backups() if self._settings.store else None
        parts = Parts(
            initialization=initialization,
            config=self._config.for_etcd,
            backups=backups,
            listing=self._list,
            prefix=wiring.snapshots_prefix(self._settings.store) if self._settings.store else "",
            metrics=self._metrics,
            token_file=self._settings.api_token_file if self._settings.api_auth is ApiAuth.ON else None,
        )
        runner = web.AppRunner(Routes(parts).application(), access_log=None, shutdown_timeout=LAST_ANSWERS_S)
        await runner.setup()
        try:
            await self._listen(runner, tls)
            self._begin(backups)
            while not self._cancel.is_set:  # noqa: ASYNC110 - other threads set it
                await asyncio.sleep(LOOK_S)
            _log.info("stopping")
            await self._finish(initialization, backups)
        finally:
            self._work.set("the end of the sidecar")
            if self._backing_up is not None:
                await asyncio.wait({self._backing_up}, timeout=CLEAN_UP_S)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await runner.cleanup()
            self._store.close()

    async def _listen(self, runner: web.AppRunner, tls: ssl.SSLContext | None) -> None:
        settings = self._settings
        try:
            await web.TCPSite(runner, settings.host or None, settings.port, ssl_context=tls).start()
        except OSError as error:
            raise ConfigError(f"cannot serve on port {settings.port}: {error}", hint="choose another --port") from error
        addresses = ", ".join(f"{address[0]}:{address[1]}" for address in runner.addresses)
        _log.info("serving", extra={"fields": {"on": addresses, "tls": tls is not None}})

    def _begin(self, backups: Backups | None) -> None:
        """Start what runs beside the requests."""
        settings = self._settings
        if backups is not None:
            self._backing_up = self._spawn(backups.run())
        if self._leases is None:
            return
        self._spawn(self._leases.run())
        if settings.member_lease:
            self._spawn(self._leases.renew(settings.heartbeat, self._status, tls_peers=self._config.tls_peers))
            self._tell_restored(self._untold.recall())

    async def _finish(self, initialization: InitializationState, backups: Backups | None) -> None:
        """Finish what runs: each part has a limit of its own."""
        if backups is None:
            await initialization.finish()
        else:
            await asyncio.gather(initialization.finish(), backups.stop())
        if self._leases is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leases.tell_all(), LAST_NEWS_S)

    def _spawn(self, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a part of the sidecar ended: %r", task.exception())

    # ---- parts

    def _make_leases(self, kube: Kube | None) -> Leases | None:
        settings = self._settings
        if kube is None:
            return None
        names = LeaseNames(settings.namespace, self._config.name)
        if settings.snapshot_leases:
            names = replace(names, full=settings.full_lease, delta=settings.delta_lease)
        return Leases(kube, names, SYSTEM_CLOCK)

    def _make_backups(self) -> Backups:
        settings = self._settings
        return Backups(
            take=self._take,
            listing=self._listed,
            probe=self._status,
            taken=self._taken,
            schedule=Schedule(settings.schedule),
            delta_period_s=settings.delta_period if settings.delta_period >= 1 else 0.0,
            metrics=self._metrics,
            clock=SYSTEM_CLOCK,
        )

    # ---- what they do

    def _initialize(self, *, deep: bool) -> Initialization[Restored]:
        settings = self._settings
        has_backups = (lambda: wiring.has_backups(settings.store, self._cancel)) if settings.store else None
        return wiring.initialize(
            settings.data_dir,
            namespace=settings.namespace,
            has_backups=has_backups,
            restore=self._make_data_dir,
            deep=deep,
        )

    def _make_data_dir(self) -> Restored:
        began_s = SYSTEM_CLOCK.monotonic_s()
        try:
            restored = self._restore.run()
        except BackupAgentError:
            self._metrics.restore_failed(SYSTEM_CLOCK.monotonic_s() - began_s)
            raise
        self._metrics.restored(restored.revision, SYSTEM_CLOCK.monotonic_s() - began_s)
        if self._leases is not None and self._settings.member_lease:
            self._untold.remember(restored)
        return restored

    def _initialized(self, result: Initialization[Restored]) -> None:
        self._tell_restored(result.restored)

    def _tell_restored(self, restored: Restored | None) -> None:
        if restored is not None and self._leases is not None and self._settings.member_lease:
            self._leases.restored(restored, lambda: self._untold.forget(restored))

    def _status(self) -> Status:
        return wiring.etcd_status(self._settings)

    def _take(self, kind: SnapshotChoice, final: bool) -> SnapshotReport:  # noqa: FBT001 - see TakeSnapshot
        settings = self._settings
        shared = {
            field.name: getattr(settings, field.name)
            for kept in (EtcdSettings, TransferSettings)
            for field in fields(kept)
        }
        shared["connect_timeout"] = min(settings.connect_timeout, LONGEST_CONNECT_S)
        wanted = SnapshotSettings(
            **shared, store=settings.store, kind=kind, final=final, compression=settings.compression
        )
        return wiring.take_snapshot(self._store.get(), wanted, Progress(), self._work)

    def _taken(self, report: SnapshotReport) -> None:
        if self._leases is not None:
            self._leases.snapshot(report)

    def _listed(self) -> ListReport | None:
        return wiring.list_open(self._store.get())

    async def _list(self) -> ListReport | None:
        return await in_thread(self._listed) if self._settings.store else None
