"""Backups while etcd runs: fulls by schedule, deltas by period, both on request; one at a time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from backupagent.clock import Clock
from backupagent.errors import BackupAgentError, EmptySource, EtcdError
from backupagent.model.snapshot import Snapshot
from backupagent.operations.report import ListReport, SnapshotReport
from backupagent.server.metrics import Metrics
from backupagent.server.schedule import Schedule
from backupagent.settings import SnapshotChoice

FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 128.0
"""Pauses after failures double between these. Source: etcd-backup-restore, pkg/types/exponentialbackoff.go."""

LAST_DELTA_S = 20.0
"""How long a stopping sidecar tries to take what is not in the store yet."""

PROBE_S = 1.0
"""How often an etcd that does not answer yet is asked."""

NEVER = datetime.max.replace(tzinfo=UTC)

_log = logging.getLogger(__name__)

TakeSnapshot = Callable[[SnapshotChoice, bool], SnapshotReport]
"""Takes one snapshot of that kind, final or not; runs in a thread."""


class Backups:
    """Keeps a store up to date. Used on the event loop only.

    Args:
        take: Takes a snapshot.
        listing: Lists the store.
        probe: Asks etcd whether it serves.
        taken: Told of every snapshot that was taken.
        schedule: When fulls are due.
        delta_period_s: Time between deltas; 0 takes none by itself.
        metrics: Is told.
        clock: Source of time.
    """

    def __init__(  # noqa: PLR0913 - what it is put together from
        self,
        *,
        take: TakeSnapshot,
        listing: Callable[[], ListReport],
        probe: Callable[[], object],
        taken: Callable[[SnapshotReport], Awaitable[None]],
        schedule: Schedule,
        delta_period_s: float,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._take = take
        self._listing = listing
        self._probe = probe
        self._taken = taken
        self._schedule = schedule
        self._delta_period_s = delta_period_s
        self._metrics = metrics
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._stopping = asyncio.Event()
        self.active = False
        self._next_full = self._next_delta = NEVER

    async def run(self) -> None:
        """Take backups until ``stop``; failures are told and tried again."""
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            try:
                await self._wait_for_etcd()
                if self._stopping.is_set():
                    return
                await self._begin()
                self._set_active(active=True)
                pause_s = FIRST_PAUSE_S
                await self._go_on()
            except BackupAgentError as error:
                self._set_active(active=False)
                _log.warning("backups fail, next attempt in %.0f s: %s; %s", pause_s, error, error.hint)
            except Exception:  # noqa: BLE001 - whatever it is, backups must go on
                self._set_active(active=False)
                _log.exception("backups fail, next attempt in %.0f s", pause_s)
            await self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def stop(self) -> None:
        """Stop, with a last delta of what is not in the store yet, if etcd still answers."""
        self._stopping.set()
        if not self.active:
            return
        try:
            await asyncio.wait_for(self.take(SnapshotChoice.DELTA), LAST_DELTA_S)
        except (BackupAgentError, TimeoutError) as error:
            _log.warning("no last delta: %s", error if isinstance(error, BackupAgentError) else "no time left")
        self._set_active(active=False)

    async def take(self, kind: SnapshotChoice, *, final: bool = False) -> SnapshotReport:
        """Take a snapshot now, after the one that is being taken.

        Raises:
            BackupAgentError: it failed.
        """
        async with self._one_at_a_time:
            began_s = self._clock.monotonic_s()
            try:
                report = await asyncio.to_thread(self._take, kind, final)
            except BackupAgentError as error:
                name = "Full" if kind is SnapshotChoice.FULL else "Incr"
                self._metrics.failed(name, error.reason, self._clock.monotonic_s() - began_s)
                raise
            self._plan_next(full=report.kind == "Full")
        if report.name is not None:
            fields = {"name": report.name, "revision": report.last_revision, "seconds": round(report.seconds, 3)}
            _log.info("snapshot is taken", extra={"fields": fields})
        if report.note:
            _log.info("note: %s", report.note)
        self._metrics.taken(report, self._clock.now().timestamp())
        await self._taken(report)
        return report

    # ---- the loop

    async def _wait_for_etcd(self) -> None:
        told = False
        while not self._stopping.is_set():
            try:
                await asyncio.to_thread(self._probe)
            except EtcdError as error:
                if not told:
                    _log.info("waiting for etcd: %s", error)
                    told = True
                await self._pause(PROBE_S)
            else:
                return

    async def _begin(self) -> None:
        """Take what is due at the start: a full when the store's newest cannot be gone on from, else a delta."""
        reason = await asyncio.to_thread(self._why_full)
        if reason:
            _log.info("a full snapshot is due: %s", reason)
            await self.take(SnapshotChoice.FULL)
        elif self._delta_period_s:
            await self.take(SnapshotChoice.DELTA)
        else:
            self._plan_next(full=True)

    def _why_full(self) -> str:
        try:
            chains = self._listing().chains
        except EmptySource:
            return "the store has none"
        if not chains:
            return "the store has none"
        newest = chains[0].full
        if newest.final:
            return "the newest one is final"
        taken = datetime.fromtimestamp(Snapshot.parse(newest.name).created_s, UTC)
        return "the last one was missed" if self._schedule.missed(taken, self._clock.now()) else ""

    async def _go_on(self) -> None:
        while not self._stopping.is_set():
            due = min(self._next_full, self._next_delta)
            await self._pause((due - self._clock.now()).total_seconds())
            if self._stopping.is_set():
                return
            if self._clock.now() >= self._next_full:
                await self.take(SnapshotChoice.FULL)
            elif self._clock.now() >= self._next_delta:
                await self.take(SnapshotChoice.DELTA)

    def _plan_next(self, *, full: bool) -> None:
        now = self._clock.now()
        if full or self._next_full == NEVER:
            self._next_full = self._schedule.after(now)
        if self._delta_period_s:
            self._next_delta = now + timedelta(seconds=self._delta_period_s)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), max(0.0, seconds))
        except TimeoutError:
            return

    def _set_active(self, *, active: bool) -> None:
        self.active = active
        self._metrics.healthy(healthy=active)
