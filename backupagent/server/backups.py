"""Backups while etcd runs: fulls by schedule, deltas by period, both on request; one at a time."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf

from backupagent.clock import Clock
from backupagent.errors import BackupAgentError, EtcdError
from backupagent.etcd.client import Status
from backupagent.operations.report import ListedChain, ListReport, SnapshotReport
from backupagent.server.metrics import FULL, INCR, Metrics
from backupagent.server.schedule import Schedule, created
from backupagent.server.threads import in_thread
from backupagent.settings import SnapshotChoice

FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 128.0
"""Pauses after failures double between these. Source: etcd-backup-restore, pkg/types/exponentialbackoff.go."""

LAST_DELTA_S = 20.0
"""How long a stopping sidecar tries to take what is not in the store yet."""

PROBE_S = 1.0
"""How often an etcd that does not answer yet is asked."""

LOOK_S = 10.0
"""How often it is looked whether etcd still serves, and what time it is: somebody may have set the clock."""

NEVER = datetime.max.replace(tzinfo=UTC)

_log = logging.getLogger(__name__)

TakeSnapshot = Callable[[SnapshotChoice, bool], SnapshotReport]
"""Takes one snapshot of that kind, final or not; runs in a thread."""


class Backups:
    """Keeps a store up to date. Used on the event loop only.

    Attributes:
        active: Whether etcd and the store answered when they were asked last.
        takes_deltas: Whether deltas are taken.

    Args:
        take: Takes a snapshot.
        listing: Lists the store; None when it is empty.
        probe: Asks etcd how it is.
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
        listing: Callable[[], ListReport | None],
        probe: Callable[[], Status],
        taken: Callable[[SnapshotReport], None],
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
        self.takes_deltas = delta_period_s > 0
        self._metrics = metrics
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._stopping = asyncio.Event()
        self.active = False
        self._next_full = NEVER
        self._next_delta_s = inf  # on the clock that nobody sets

    async def run(self) -> None:
        """Take backups until ``stop``; failures are told and tried again."""
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            try:
                status = await self._wait_for_etcd()
                if status is None:
                    return
                if pause_s == FIRST_PAUSE_S:  # nothing has failed: who asks for a snapshot may wait for the first one
                    self._set_active(active=True)
                await self._begin(status)
                self._set_active(active=True)
                pause_s = FIRST_PAUSE_S
                await self._go_on()
            except BackupAgentError as error:
                self._set_active(active=False)
                if self._stopping.is_set():
                    return
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
            await asyncio.wait_for(self._take_last(), LAST_DELTA_S)
        except (BackupAgentError, TimeoutError) as error:
            _log.warning("no last delta: %s", error if isinstance(error, BackupAgentError) else "no time left")
        except Exception:  # noqa: BLE001 - whatever it is, the rest must be stopped too
            _log.exception("no last delta")
        self._set_active(active=False)

    async def _take_last(self) -> None:
        # A Pod's containers are told to stop at the same moment: an etcd that is gone is not waited for.
        await in_thread(self._probe)
        await self.take(SnapshotChoice.DELTA)

    async def take(self, kind: SnapshotChoice, *, final: bool = False) -> SnapshotReport:
        """Take a snapshot now, after the one that is being taken.

        Raises:
            BackupAgentError: it failed.
        """
        async with self._one_at_a_time:
            began_s = self._clock.monotonic_s()
            try:
                report = await in_thread(self._take, kind, final)
            except BackupAgentError as error:
                name = FULL if kind is SnapshotChoice.FULL else INCR
                self._metrics.failed(name, error.reason, self._clock.monotonic_s() - began_s)
                raise
            self._plan_next(full=report.kind == FULL)
        if report.name is not None:
            fields = {"name": report.name, "revision": report.last_revision, "seconds": round(report.seconds, 3)}
            _log.info("snapshot is taken", extra={"fields": fields})
        if report.note:
            _log.info("note: %s", report.note)
        self._metrics.taken(report, self._clock.now().timestamp())
        self._taken(report)
        return report

    # ---- the loop

    async def _wait_for_etcd(self) -> Status | None:
        """Return how etcd is when it answers; None when it is time to stop."""
        told = False
        while not self._stopping.is_set():
            try:
                return await in_thread(self._probe)
            except EtcdError as error:
                if not told:
                    _log.info("waiting for etcd: %s", error)
                    told = True
                await self._pause(PROBE_S)
        return None

    async def _begin(self, status: Status) -> None:
        """Take what is due at the start: a full when the store's newest cannot be gone on from, else a delta."""
        found = await in_thread(self._listing)
        newest = found.chains[0] if found is not None and found.chains else None
        if newest is not None:
            self._metrics.found(newest)
        reason = why_full(newest, self._schedule, self._clock.now(), status.revision)
        if reason:
            _log.info("a full snapshot is due: %s", reason)
            self._metrics.due(FULL)
            await self.take(SnapshotChoice.FULL)
        elif self._delta_period_s and newest is not None and not newest.full.final:
            self._metrics.due(INCR)
            await self.take(SnapshotChoice.DELTA)
        else:
            self._plan_next(full=True)

    async def _go_on(self) -> None:
        while not self._stopping.is_set():
            full_s = (self._next_full - self._clock.now()).total_seconds()
            await self._pause(min(full_s, self._next_delta_s - self._clock.monotonic_s(), LOOK_S))
            if self._stopping.is_set():
                return
            if self._clock.now() >= self._next_full:
                self._metrics.due(FULL)
                await self.take(SnapshotChoice.FULL)
            elif self._clock.monotonic_s() >= self._next_delta_s:
                await self.take(SnapshotChoice.DELTA)
            else:
                await in_thread(self._probe)

    def _plan_next(self, *, full: bool) -> None:
        if full or self._next_full == NEVER:
            self._next_full = self._schedule.after(self._clock.now())
        if self._delta_period_s:
            self._next_delta_s = self._clock.monotonic_s() + self._delta_period_s

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), max(0.0, seconds))
        except TimeoutError:
            return

    def _set_active(self, *, active: bool) -> None:
        self.active = active
        self._metrics.healthy(healthy=active)


def why_full(newest: ListedChain | None, schedule: Schedule, now: datetime, revision: int) -> str:
    """Say why backups must begin with a full snapshot; empty when they can go on from the newest chain.

    Args:
        newest: The newest chain in the store.
        schedule: When fulls are due.
        now: The time of day.
        revision: Of the etcd.
    """
    if newest is None:
        return "the store has none"
    if newest.full.final:
        # Nothing was written since: that full is still the last word of this etcd, and who asks for it again gets it.
        untouched = not newest.deltas and newest.last_revision == revision
        return "" if untouched else "the newest one is final"
    taken = created(newest.full.name)
    if taken is None:
        return "the newest one does not say when it was taken"
    return "the last one was missed" if schedule.missed(taken, now) else ""
