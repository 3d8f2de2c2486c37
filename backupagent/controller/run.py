"""The controller as a process: one watch on Shoots, a queue, a few workers, and three routes for those who look."""

import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.controller.evidence import Desk, Evidence, Inspector, Question
from backupagent.controller.facts import Clusters, parse_time
from backupagent.controller.health import serving
from backupagent.controller.metrics import Metrics
from backupagent.controller.queue import WorkQueue
from backupagent.controller.reconciler import Reconciler
from backupagent.controller.reporting import EVENT_LIFE, Reporter
from backupagent.controller.reports import decoded
from backupagent.controller.standing import is_moving
from backupagent.errors import BackupAgentError, Cancelled, ConfigError
from backupagent.kube.client import Change, Kube, KubeClient, WatchEvent
from backupagent.kube.resources import CONFIG_MAPS, SHOOTS, Document
from backupagent.model.gardener import RESTORE, Shoot
from backupagent.model.migration import LABEL, Phase, config_map_name
from backupagent.settings import ControllerSettings

log = logging.getLogger(__name__)

FIELD_MANAGER = "backupagent-controller"

RESYNC_S = 600.0
"""How often every report is looked at anew, seconds; a watch that lost a change is made good by it."""

LOOK_S = 0.5
"""How often the main thread looks whether a thread has ended, seconds."""


def run_controller(settings: ControllerSettings, cancel: Cancel) -> int:
    """Follow migrations until the token is set.

    Returns:
        The exit status, 0.

    Raises:
        ConfigError: a kubeconfig cannot be read, or the address cannot be served on.
        KubeForbidden: RBAC does not let us watch Shoots.
        KubeNotFound: the cluster has no Shoots: it is no garden cluster.
    """
    with ExitStack() as opened:
        garden = opened.enter_context(KubeClient.open(settings.kubeconfig, field_manager=FIELD_MANAGER))
        seeds = {
            name: opened.enter_context(KubeClient.open(file, field_manager=FIELD_MANAGER))
            for name, file in seed_kubeconfigs(settings.seed_kubeconfig).items()
        }
        controller = Controller(Clusters(garden, seeds), settings, cancel)
        controller.run()
    return 0


def seed_kubeconfigs(given: Sequence[str]) -> Mapping[str, Path]:
    """Read ``SEED=FILE``.

    Raises:
        ConfigError: one is not of this form, or a Seed is named twice.
    """
    files: dict[str, Path] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not (name and equals and file) or name in files:
            raise ConfigError(f"--seed-kubeconfig: {text!r} is not SEED=FILE, or names a Seed twice")
        files[name] = Path(file)
    return files


class Controller:
    """The threads of the controller and what they share.

    Args:
        clusters: Where to look.
        settings: How.
        cancel: Ends everything; set by the controller itself when it cannot go on.
        clock: Source of time.
    """

    def __init__(
        self, clusters: Clusters, settings: ControllerSettings, cancel: Cancel, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._garden: Kube = clusters.garden
        self._settings = settings
        self._cancel = cancel
        self._clock = clock
        self._metrics = Metrics()
        self._queue = WorkQueue(clock, random.Random())  # noqa: S311 - jitter
        self._inspector = Inspector(clusters.garden, cancel)
        looks = ThreadPoolExecutor(settings.workers, thread_name_prefix="look")
        self._desk = Desk(self._look, self._queue.add, looks)
        reporter = Reporter(clusters.garden, self._metrics, clock)
        self._reconciler = Reconciler(clusters, self._desk, reporter, clock, poll_s=settings.poll)
        self._synced = threading.Event()
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def run(self) -> None:
        """Work until the token is set.

        Raises:
            ConfigError: see ``health.serving``.
            KubeForbidden: see ``run_controller``.
            KubeNotFound: see ``run_controller``.
        """
        routes = {"/healthz": self._healthy, "/readyz": self._ready, "/metrics": self._scrape}
        with serving(self._settings.host, self._settings.port, routes) as port:
            log.info("serving", extra={"fields": {"host": self._settings.host, "port": port}})
            self._start("watch", self._watch)
            for number in range(self._settings.workers):
                self._start(f"worker-{number}", self._work)
            try:
                self._stay()
            finally:
                self._cancel.set("the end of the controller")
                self._queue.close()
                self._desk.close()
                for thread in self._threads:
                    thread.join()
        if self._failure is not None:
            raise self._failure

    def _start(self, name: str, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again in the main thread
                self._failure = self._failure or error
                self._cancel.set(f"the end of {name}")

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _stay(self) -> None:
        resync_s = self._clock.monotonic_s() + RESYNC_S
        while not self._cancel.wait(LOOK_S):
            self._metrics.waiting(len(self._queue))
            if self._clock.monotonic_s() >= resync_s:
                resync_s = self._clock.monotonic_s() + RESYNC_S
                self._resync()

    # ---- what is looked at

    def _watch(self) -> None:
        for event in self._garden.watch(SHOOTS, self._settings.namespace, cancel=self._cancel):
            if event.change is Change.SYNCED:
                self._resync()
                self._synced.set()
                log.info("watching Shoots")
            else:
                self._notice(event)

    def _notice(self, event: WatchEvent) -> None:
        """Look at a Shoot that is in a migration, or that has just left one."""
        shoot = Shoot.read(event.object)
        matters = is_moving(shoot) or shoot.operation.type == RESTORE or event.change is Change.DELETED
        if shoot.name and matters:
            self._queue.add(shoot.key)

    def _resync(self) -> None:
        """Look at every Shoot whose report has not ended, whatever its ``lastOperation`` says now."""
        try:
            found = self._garden.list(CONFIG_MAPS, self._settings.namespace, labels={LABEL: "true"})
        except BackupAgentError as error:
            log.warning("reports cannot be listed", extra={"fields": {"reason": str(error)}})
            return
        for config_map in found:
            key = _shoot_key(config_map)
            if key and self._is_open(config_map):
                self._queue.add(key)

    def _is_open(self, config_map: Document) -> bool:
        """Whether a report has not ended, or has so lately that its Events may not have been told."""
        report = decoded(config_map).report
        if report is None or report.phase is not Phase.SUCCEEDED:
            return True
        last = parse_time(report.steps[-1].at) if report.steps else None
        return last is not None and self._clock.now() - last < EVENT_LIFE

    # ---- work

    def _work(self) -> None:
        while (key := self._queue.take()) is not None:
            began_s = self._clock.monotonic_s()
            try:
                again_after_s = self._reconciler.reconcile(key)
            except Cancelled:
                self._queue.done(key)
            except BackupAgentError as error:
                self._put_off(key, error.reason, str(error))
            except Exception as error:
                log.exception("a look at a Shoot failed: a bug", extra={"fields": {"shoot": key}})
                self._put_off(key, type(error).__name__, str(error))
            else:
                self._queue.done(key, again_after_s=again_after_s)
            self._metrics.reconciled(self._clock.monotonic_s() - began_s)

    def _put_off(self, key: str, reason: str, message: str) -> None:
        self._metrics.reconcile_failed(reason)
        pause_s = self._queue.retry(key)
        fields = {"shoot": key, "reason": reason, "message": message, "again_after_s": round(pause_s, 1)}
        log.warning("a Shoot cannot be looked at", extra={"fields": fields})

    def _look(self, asked: Question) -> Evidence:
        began_s = self._clock.monotonic_s()
        try:
            return self._inspector.look(asked)
        finally:
            self._metrics.looked(self._clock.monotonic_s() - began_s)

    # ---- routes

    def _healthy(self) -> tuple[HTTPStatus, bytes]:
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        if dead:
            return HTTPStatus.INTERNAL_SERVER_ERROR, f"not running: {', '.join(dead)}\n".encode()
        return HTTPStatus.OK, b"ok\n"

    def _ready(self) -> tuple[HTTPStatus, bytes]:
        if not self._synced.is_set():
            return HTTPStatus.SERVICE_UNAVAILABLE, b"Shoots are being listed\n"
        return HTTPStatus.OK, b"ok\n"

    def _scrape(self) -> tuple[HTTPStatus, bytes]:
        return HTTPStatus.OK, self._metrics.scrape()


def _shoot_key(config_map: Document) -> str:
    """Return the Shoot that a report's ConfigMap lies beside; empty when its name is no such name."""
    metadata = config_map.get("metadata", {})
    namespace, name = str(metadata.get("namespace", "")), str(metadata.get("name", ""))
    suffix = config_map_name("")
    return f"{namespace}/{name.removesuffix(suffix)}" if namespace and name.endswith(suffix) else ""
