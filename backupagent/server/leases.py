"""What the sidecar tells Kubernetes: three Leases that exist already.

Kubernetes is never needed for a backup or a restore: what cannot be told is logged and told again later.
Source of the fields: etcd-backup-restore, pkg/health at debd95b; etcd-druid reads them.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backupagent.clock import Clock
from backupagent.errors import BackupAgentError
from backupagent.etcd.client import Status
from backupagent.kube.client import Kube
from backupagent.kube.manifests import lease_patch
from backupagent.kube.resources import LEASES, Document
from backupagent.model.restored import ANNOTATION, Restored, encode_restored
from backupagent.model.snapshot import SnapshotKind
from backupagent.operations.report import SnapshotReport
from backupagent.server.schedule import created
from backupagent.server.threads import in_thread

TLS_ANNOTATION = "member.etcd.gardener.cloud/tls-enabled"

NO_DELTA = "0"
"""Holder of the deltas' Lease before there was one."""

MAX_DIGITS = 19
"""Of a revision."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 5.0
"""Pauses before something is told again; short, since a migration waits for a restore to be told."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeaseNames:
    """The Leases of one member.

    Attributes:
        namespace: Where they lie.
        member: That of the member has its name.
        full: That of fulls; empty tells none.
        delta: That of deltas; empty tells none.
    """

    namespace: str
    member: str
    full: str = ""
    delta: str = ""


class Leases:
    """Tells the newest of each kind of news, until it is told. Used on the event loop only.

    Args:
        kube: The cluster.
        names: The Leases.
        clock: Source of time.
    """

    def __init__(self, kube: Kube, names: LeaseNames, clock: Clock) -> None:
        self._kube = kube
        self._names = names
        self._clock = clock
        self._untold: dict[str, Callable[[], None]] = {}
        self._news = asyncio.Event()
        self._complaints: dict[str, str] = {}

    # ---- news

    def restored(self, restored: Restored, told: Callable[[], None]) -> None:
        """Tell what a restore made, on the member's Lease.

        Args:
            restored: What it made.
            told: Called when it is there, in a thread.
        """

        def write() -> None:
            self._patch(self._names.member, annotations={ANNOTATION: encode_restored(restored)})
            _log.info("the restore is told", extra={"fields": {"lease": self._names.member}})
            told()

        self._tell("the restore", write)

    def snapshot(self, report: SnapshotReport) -> None:
        """Tell a full, or that deltas were looked for, with the newest revision in the store."""
        if report.kind == SnapshotKind.FULL.value:
            if self._names.full and report.name is not None:
                self._tell("the newest full", lambda: self._write_full(report.last_revision, report.name or ""))
        elif self._names.delta:
            revision = None if report.name is None else report.last_revision
            self._tell("the newest delta", lambda: self._write_delta(revision, self._clock.now()))

    def _tell(self, what: str, write: Callable[[], None]) -> None:
        self._untold[what] = write
        self._news.set()

    # ---- telling

    async def run(self) -> None:
        """Tell what there is to tell, for ever; what failed is tried again."""
        pause_s = FIRST_PAUSE_S
        while True:
            await self._news.wait()
            self._news.clear()
            if await self.tell_all():
                pause_s = FIRST_PAUSE_S
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                self._news.set()

    async def tell_all(self) -> bool:
        """Try once to tell what is not told yet; return whether everything is."""
        for what, write in list(self._untold.items()):
            if await self._tried(what, write) and self._untold.get(what) is write:
                del self._untold[what]
        return not self._untold

    async def renew(self, every_s: float, status: Callable[[], Status], *, tls_peers: bool) -> None:
        """Renew the member's Lease for ever.

        Args:
            every_s: Pause between renewals.
            status: Asks etcd; runs in a thread. While it fails, or etcd knows no leader, the Lease is not renewed.
            tls_peers: Whether members talk to each other by TLS.
        """

        def write() -> None:
            found = status()
            if not found.leader:
                return
            role = "Leader" if found.leader == found.member_id else "Member"
            self._patch(
                self._names.member,
                holder=f"{found.member_id:x}:{found.cluster_id:x}:{role}",
                renewed=self._clock.now(),
                annotations={TLS_ANNOTATION: str(tls_peers).lower()},
            )

        while True:
            await self._tried("the member", write)
            await asyncio.sleep(every_s)

    async def _tried(self, what: str, write: Callable[[], None]) -> bool:
        """Write in a thread; a complaint is made once for as long as it stays the same."""
        try:
            await in_thread(write)
        except BackupAgentError as error:
            if self._complaints.get(what) != str(error):
                self._complaints[what] = str(error)
                _log.warning("%s is not told: %s; %s", what, error, error.hint)
            return False
        except Exception:  # noqa: BLE001 - whatever it is, the rest must be told
            _log.exception("%s is not told", what)
            return False
        self._complaints.pop(what, None)
        return True

    # ---- writing, in a thread

    def _write_full(self, revision: int, name: str) -> None:
        """Write a full; the revision is never lowered."""
        lease = self._kube.get(LEASES, self._names.full, self._names.namespace)
        holder = max(_number(_holder(lease)), revision)
        version = lease["metadata"]["resourceVersion"]
        self._patch(self._names.full, holder=str(holder), renewed=created(name), resource_version=version)

    def _write_delta(self, revision: int | None, now: datetime) -> None:
        """Write a delta, or that there was nothing for one to hold."""
        holder = str(revision)
        if revision is None:
            lease = self._kube.get(LEASES, self._names.delta, self._names.namespace)
            holder = _holder(lease) or NO_DELTA
        self._patch(self._names.delta, holder=holder, renewed=now)

    def _patch(self, name: str, **changes: Any) -> None:  # noqa: ANN401 - see lease_patch
        self._kube.patch(LEASES, name, self._names.namespace, lease_patch(**changes))


def _holder(lease: Document) -> str:
    return (lease.get("spec") or {}).get("holderIdentity") or ""


def _number(holder: str) -> int:
    """Read a revision that somebody else may have written."""
    return int(holder) if holder.isascii() and holder.isdigit() and len(holder) <= MAX_DIGITS else 0
