"""What the sidecar tells Kubernetes: three Leases that exist already.

Kubernetes is never needed for a backup or a restore: what cannot be told is logged and told again later.
Source of the fields: etcd-backup-restore, pkg/health at debd95b; etcd-druid reads them.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from backupagent.clock import Clock
from backupagent.errors import BackupAgentError
from backupagent.etcd.client import Status
from backupagent.kube.client import Kube
from backupagent.kube.manifests import lease_patch
from backupagent.kube.resources import LEASES
from backupagent.model.restored import ANNOTATION, Restored, encode_restored
from backupagent.model.snapshot import Snapshot
from backupagent.operations.report import SnapshotReport

TLS_ANNOTATION = "member.etcd.gardener.cloud/tls-enabled"

AGAIN_S = 1.0
"""Pause before a restore is told again: a migration waits for it."""

_log = logging.getLogger(__name__)


class Leases:
    """The member's Lease, and those of the newest full and delta. Used on the event loop only.

    Args:
        kube: The cluster.
        namespace: Where the Leases lie.
        member: Name of the member and of its Lease.
        full: Name of the Lease of fulls; empty tells none.
        delta: Name of the Lease of deltas; empty tells none.
        tls_peers: Whether members talk to each other by TLS.
        clock: Source of time.
    """

    def __init__(  # noqa: PLR0913 - what it is put together from
        self, kube: Kube, namespace: str, *, member: str, full: str, delta: str, tls_peers: bool, clock: Clock
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._member = member
        self._full = full
        self._delta = delta
        self._tls_peers = tls_peers
        self._clock = clock

    async def tell_restored(self, restored: Restored) -> None:
        """Write what a restore made on the member's Lease; tried until it is there."""
        changes = lease_patch(annotations={ANNOTATION: encode_restored(restored)})
        while not await self._patch(self._member, changes):  # noqa: ASYNC110 - nobody tells when it can be written
            await asyncio.sleep(AGAIN_S)
        _log.info("the restore is told", extra={"fields": {"lease": self._member, "revision": restored.revision}})

    async def renew(self, every_s: float, status: Callable[[], Status]) -> None:
        """Renew the member's Lease for ever.

        Args:
            every_s: Pause between renewals.
            status: Asks etcd; runs in a thread. While it fails the Lease is not renewed.
        """
        while True:
            try:
                found = await asyncio.to_thread(status)
            except BackupAgentError as error:
                _log.debug("the member's Lease is not renewed: %s", error)
            else:
                role = "Leader" if found.leader == found.member_id else "Member"
                changes = lease_patch(
                    holder=f"{found.member_id:x}:{found.cluster_id:x}:{role}",
                    renewed=self._clock.now(),
                    annotations={TLS_ANNOTATION: str(self._tls_peers).lower()},
                )
                await self._patch(self._member, changes)
            await asyncio.sleep(every_s)

    async def tell_snapshot(self, report: SnapshotReport) -> None:
        """Tell the newest revision in the store."""
        name = self._full if report.kind == "Full" else self._delta
        if not name or report.name is None:
            return
        created = datetime.fromtimestamp(Snapshot.parse(report.name).created_s, UTC)
        await self._patch(name, lease_patch(holder=str(report.last_revision), renewed=created))

    async def _patch(self, name: str, changes: dict[str, object]) -> bool:
        try:
            await asyncio.to_thread(self._kube.patch, LEASES, name, self._namespace, changes)
        except BackupAgentError as error:
            _log.warning("Lease %s/%s is not written: %s", self._namespace, name, error)
            return False
        return True
