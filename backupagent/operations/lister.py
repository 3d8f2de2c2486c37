"""What lies in a store: chains, gaps, sizes, final marks, manifests."""

from datetime import UTC, datetime

from backupagent.model.chain import Chain, build_chains, orphans
from backupagent.model.snapshot import StoredSnapshot
from backupagent.operations.report import ListedChain, ListedSnapshot, ListReport
from backupagent.progress import Progress
from backupagent.snapstore import Listing, SnapStore


class Lister:
    """Lists one store; reads names only.

    Args:
        snapstore: The store.
        progress: Is told the phase.
    """

    def __init__(self, snapstore: SnapStore, progress: Progress) -> None:
        self._snapstore = snapstore
        self._progress = progress

    def run(self) -> ListReport:
        """List.

        Raises:
            EmptySource: there is no snapshot at all.
        """
        with self._progress.phase("list"):
            listing = self._snapstore.list()
        if not listing.snapshots and not listing.unreadable:
            raise self._snapstore.empty(listing)
        return ListReport(
            store=self._snapstore.display,
            chains=tuple(_listed_chain(chain, listing) for chain in build_chains(listing.snapshots)),
            orphans=tuple(_listed(delta, listing) for delta in orphans(listing.snapshots)),
            unreadable=listing.unreadable,
            seconds=self._progress.elapsed_s,
            phases=tuple(self._progress.phases),
        )


def restorable_revision(chain: Chain) -> int:
    """Last revision before the first gap."""
    return chain.gaps[0].first - 1 if chain.gaps else chain.last


def _listed_chain(chain: Chain, listing: Listing) -> ListedChain:
    return ListedChain(
        full=_listed(chain.full, listing),
        deltas=tuple(_listed(delta, listing) for delta in chain.deltas),
        last_revision=restorable_revision(chain),
        gaps=tuple((gap.first, gap.last) for gap in chain.gaps),
        size=chain.size,
    )


def _listed(stored: StoredSnapshot, listing: Listing) -> ListedSnapshot:
    snapshot = stored.snapshot
    return ListedSnapshot(
        name=stored.name,
        kind=snapshot.kind.value,
        start_revision=snapshot.start,
        last_revision=snapshot.last,
        created=_time(snapshot.created_s),
        size=stored.size,
        final=snapshot.final,
        manifest=stored.name in listing.manifests,
    )


def _time(created_s: int) -> str:
    try:
        return datetime.fromtimestamp(created_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):  # a name can say any number
        return str(created_s)
