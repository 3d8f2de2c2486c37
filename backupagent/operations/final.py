"""The source of a copy, listed until the final snapshot of its etcd is there."""

from collections.abc import Sequence

from backupagent.errors import FinalSnapshotMissing
from backupagent.model.chain import Chain, build_chains
from backupagent.model.snapshot import StoredSnapshot
from backupagent.settings import CopySettings, OnMissingFinal
from backupagent.snapstore import Listing, SnapStore
from backupagent.transfer.context import Transfer

POLL_S = 5.0
"""How often the source is listed while waiting for a final snapshot, seconds."""

NEWEST_FULLS = 4
"""Among how many of the newest fulls a final one is looked for: an etcd that goes on after its final snapshot may
write some more. Source: etcd-backup-restore pull request 1001."""

UNKNOWN_REVISION = -1
"""The end of a range that nobody can know."""


def discover(source: SnapStore, settings: CopySettings, transfer: Transfer) -> tuple[Listing, tuple[int, int] | None]:
    """List the source, again and again while a final snapshot is waited for.

    Returns:
        The listing; and the revisions that are given up by going on without a final snapshot.

    Raises:
        FinalSnapshotMissing: none appeared in time.
    """
    clock = transfer.clock
    deadline_s = clock.monotonic_s() + settings.wait_for_final
    while True:
        listing = source.list()
        chains = build_chains(listing.snapshots)
        if not settings.wait_for_final or newest_final(chains) is not None:
            return listing, None
        if clock.monotonic_s() >= deadline_s:
            return listing, _given_up(source, settings, chains)
        transfer.progress.note("waiting for a final snapshot")
        transfer.cancel.wait(min(POLL_S, max(0.0, deadline_s - clock.monotonic_s())))
        transfer.cancel.raise_if_set()


def newest_final(chains: Sequence[Chain]) -> StoredSnapshot | None:
    """Return the newest full that is marked final, if it is among the newest fulls.

    Args:
        chains: All of a store, newest first.
    """
    return next((chain.full for chain in chains[:NEWEST_FULLS] if chain.full.snapshot.final), None)


def _given_up(source: SnapStore, settings: CopySettings, chains: Sequence[Chain]) -> tuple[int, int] | None:
    newest = chains[0].snapshots[-1].name if chains else "none"
    if settings.on_missing_final is OnMissingFinal.ERROR:
        message = f"{source.display}: no final snapshot appeared; the newest snapshot is {newest}"
        raise FinalSnapshotMissing(message)
    return (chains[0].last + 1, UNKNOWN_REVISION) if chains else None
