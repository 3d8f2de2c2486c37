"""The sidecar as a process: what it is put together from, how it starts and how it stops."""

import asyncio
import logging
import os
import ssl
from collections.abc import Coroutine, Mapping
from contextlib import ExitStack, suppress
from dataclasses import fields, replace
from ipaddress import ip_address
from pathlib import Path

from aiohttp import web

from backupagent import wiring
from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK
from backupagent.errors import ConfigError, EmptySource
from backupagent.kube.client import Kube
from backupagent.logs import log_to
from backupagent.model.restored import Restored
from backupagent.operations.initializer import Initialization
from backupagent.operations.report import ListReport, SnapshotReport
from backupagent.progress import Progress
from backupagent.server.app import Parts, Routes
from backupagent.server.backups import Backups
from backupagent.server.etcd_config import MAX_SIZE, MemberConfig, read_config
from backupagent.server.initialization import InitializationState
from backupagent.server.leases import Leases
from backupagent.server.metrics import Metrics
from backupagent.server.restore_process import RestoreProcess
from backupagent.server.schedule import Schedule
from backupagent.settings import (
    ApiAuth,
    EtcdSettings,
    ListSettings,
    ServerSettings,
    SnapshotChoice,
    SnapshotSettings,
)

LOOK_S = 0.2
"""How often it is looked whether the process must stop."""

_log = logging.getLogger(__name__)


def run_server(settings: ServerSettings, cancel: Cancel) -> int:
    """Serve until the token is set.

    Args:
        settings: What to serve; what is empty is taken from POD_NAME, POD_NAMESPACE and ETCD_CONF.
        cancel: Set by SIGTERM.

    Returns:
        0.

    Raises:
        ConfigError: the settings or etcd's configuration are wrong.
    """
    log_to()
    settings = resolved(settings, os.environ)
    _require_auth(settings)
    config = _read_etcd_config(settings)
    with ExitStack() as opened:
        kube = _open_kube(settings, opened)
        asyncio.run(Sidecar(settings, config, kube, cancel).run())
    return 0


def resolved(settings: ServerSettings, environment: Mapping[str, str]) -> ServerSettings:
    """Fill what was not given from the variables that druid sets on the container."""
    given: dict[str, object] = {}
    if not settings.member:
        given["member"] = environment.get("POD_NAME", "")
    if not settings.namespace:
        given["namespace"] = environment.get("POD_NAMESPACE", "")
    if environment.get("ETCD_CONF"):
        given["etcd_config"] = Path(environment["ETCD_CONF"])
    return replace(settings, **given)  # type: ignore[arg-type] # names and types are those above


def _require_auth(settings: ServerSettings) -> None:
    """Refuse to let anybody who reaches the port take snapshots."""
    if settings.api_auth is ApiAuth.ON and settings.api_token_file is None and not _is_loopback(settings.host):
        raise ConfigError(
            f"whoever reaches {settings.host or 'any address'} could take snapshots and start a restore",
            hint="give --api-token-file, or --host 127.0.0.1, or --api-auth off where the network is closed",
        )


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _read_etcd_config(settings: ServerSettings) -> MemberConfig:
    path = settings.etcd_config
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_SIZE + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read etcd's configuration {path}: {error}", hint="name it by ETCD_CONF") from error
    return read_config(text, pod=settings.member, where=str(path))


def _open_kube(settings: ServerSettings, opened: ExitStack) -> Kube | None:
    """Connect to Kubernetes when something is to be told there; backups go on without it."""
    if not (settings.member_lease or settings.snapshot_leases):
        return None
    try:
        return opened.enter_context(wiring.open_kube(settings))
    except ConfigError as error:
        _log.warning("no Leases are written: %s", error)
        return None


class Sidecar:
    """One sidecar.

    Args:
        settings: Complete, see ``resolved``.
        config: What etcd's configuration says of this member.
        kube: Where Leases are; None without.
        cancel: Ends it.
    """

    def __init__(self, settings: ServerSettings, config: MemberConfig, kube: Kube | None, cancel: Cancel) -> None:
        self._settings = settings
        self._config = config
        self._cancel = cancel
        self._work = Cancel()  # a last delta is taken when the process must stop already
        self._metrics = Metrics()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leases = self._make_leases(kube)
        self._restore = RestoreProcess(settings, config, cancel)

    async def run(self) -> None:
        """Serve until the token is set, then stop in order."""
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
        runner = web.AppRunner(Routes(parts).application(), access_log=None)
        await runner.setup()
        try:
            await self._listen(runner)
            if backups is not None:
                self._spawn(backups.run())
            if self._leases is not None and self._settings.member_lease:
                self._spawn(self._leases.renew(self._settings.heartbeat, lambda: wiring.etcd_status(self._settings)))
            while not self._cancel.is_set:  # noqa: ASYNC110 - other threads set it
                await asyncio.sleep(LOOK_S)
            _log.info("stopping")
            if backups is not None:
                await backups.stop()
            await initialization.finish()
        finally:
            self._work.set("the end of the sidecar")
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await runner.cleanup()

    def _make_leases(self, kube: Kube | None) -> Leases | None:
        settings = self._settings
        if kube is None:
            return None
        return Leases(
            kube,
            settings.namespace,
            member=self._config.name,
            full=settings.full_lease,
            delta=settings.delta_lease,
            tls_peers=self._config.tls_peers,
            clock=SYSTEM_CLOCK,
        )

    async def _listen(self, runner: web.AppRunner) -> None:
        settings, context = self._settings, None
        if settings.server_cert is not None and settings.server_key is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            try:
                context.load_cert_chain(settings.server_cert, settings.server_key)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"cannot serve with {settings.server_cert}: {error}") from error
        try:
            await web.TCPSite(runner, settings.host or None, settings.port, ssl_context=context).start()
        except OSError as error:
            raise ConfigError(f"cannot serve on port {settings.port}: {error}", hint="choose another --port") from error
        addresses = ", ".join(f"{address[0]}:{address[1]}" for address in runner.addresses)
        _log.info("serving", extra={"fields": {"on": addresses, "tls": context is not None}})

    def _spawn(self, coroutine: Coroutine[object, object, None]) -> None:
        task: asyncio.Task[None] = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a part of the sidecar ended: %r", task.exception())

    # ---- what it does

    def _initialize(self, *, deep: bool) -> Initialization[Restored]:
        settings = self._settings
        has_backups = (lambda: wiring.has_backups(settings.store, self._cancel)) if settings.store else None
        return wiring.initialize(
            settings.data_dir,
            namespace=settings.namespace,
            has_backups=has_backups,
            restore=self._restore.run,
            deep=deep,
        )

    def _initialized(self, result: Initialization[Restored]) -> None:
        if result.restored is None:
            return
        self._metrics.restored(result.restored.revision, result.restored.seconds)
        if self._leases is not None:
            self._spawn(self._leases.tell_restored(result.restored))

    def _make_backups(self) -> Backups:
        settings = self._settings
        return Backups(
            take=self._take,
            listing=lambda: wiring.run_list(ListSettings(store=settings.store), Progress(), self._work),
            probe=lambda: wiring.etcd_status(settings),
            taken=self._taken,
            schedule=Schedule(settings.schedule),
            delta_period_s=settings.delta_period if settings.delta_period >= 1 else 0.0,
            metrics=self._metrics,
            clock=SYSTEM_CLOCK,
        )

    def _take(self, kind: SnapshotChoice, final: bool) -> SnapshotReport:  # noqa: FBT001 - see TakeSnapshot
        settings = self._settings
        etcd = {item.name: getattr(settings, item.name) for item in fields(EtcdSettings)}
        wanted = SnapshotSettings(
            **etcd, store=settings.store, kind=kind, final=final, compression=settings.compression
        )
        return wiring.run_snapshot(wanted, Progress(), self._work)

    async def _taken(self, report: SnapshotReport) -> None:
        if self._leases is not None and self._settings.snapshot_leases:
            await self._leases.tell_snapshot(report)

    async def _list(self) -> ListReport | None:
        if not self._settings.store:
            return None
        try:
            return await asyncio.to_thread(
                wiring.run_list, ListSettings(store=self._settings.store), Progress(), self._work
            )
        except EmptySource:
            return None
