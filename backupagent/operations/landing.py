"""What is at the target of a copy, and the moment from which it can be restored."""

import threading
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from backupagent.errors import BackupAgentError, PartialFailure
from backupagent.model.chain import Chain, build_chains
from backupagent.model.snapshot import Snapshot, StoredSnapshot, without_final
from backupagent.progress import Milestone
from backupagent.snapstore import Listing
from backupagent.stores.base import ObjectInfo
from backupagent.transfer.context import Transfer
from backupagent.transfer.items import Copied
from backupagent.units import format_count

Arrived = Callable[[StoredSnapshot], None]


def nobody(_stored: StoredSnapshot) -> None:
    """Tell nobody."""


@dataclass
class Tally:
    """What was done, as far as it came.

    Attributes:
        copied: Snapshots that were published.
        skipped: Those that the target was proven to have.
        size: Bytes of what was copied.
        reread: Those of them that were read although the target had them already.
        by_store: Those of them that the store copied by itself, now or in an earlier run.
        server_side: Those of them that it copied now.
        refusal: Why the store does not copy by itself; None while it does.
        unchecked: Copied snapshots whose own sha256 was not checked.
        failed: What is bad, with the reason.
    """

    copied: int = 0
    skipped: int = 0
    size: int = 0
    reread: int = 0
    by_store: int = 0
    server_side: int = 0
    refusal: BackupAgentError | None = None
    unchecked: int = 0
    failed: list[tuple[StoredSnapshot, BackupAgentError]] = field(default_factory=list)

    def count(self, copied: Copied, *, checked: bool) -> None:
        """Count a copy."""
        self.copied += 1
        self.size += copied.info.size
        self.reread += copied.reread
        if copied.by_store is not None:
            self.by_store += copied.info.size
            self.server_side += copied.by_store.size
        self.unchecked += not checked

    def counts(self) -> dict[str, Any]:
        """Return the fields of ``CopyCounts``."""
        return {
            "copied": self.copied,
            "skipped": self.skipped,
            "bytes": self.size - self.reread - self.by_store,
            "bytes_reread": self.reread,
            "server_side_bytes": self.server_side,
            "server_side_refused": None if self.refusal is None else str(self.refusal),
            "trailers_unchecked": self.unchecked,
        }

    def take_failed(self) -> list[tuple[StoredSnapshot, BackupAgentError]]:
        """Return what failed since the last call."""
        failed, self.failed = self.failed, []
        return failed


class TargetView:
    """What the target holds: as it was listed, and what was copied since. Not thread-safe.

    Args:
        listing: Of the target.

    Attributes:
        listing: With what was copied since, after ``refresh``.
        uploads: Names of entries in the journal that were there before and are not dealt with.
    """

    def __init__(self, listing: Listing) -> None:
        self.uploads = set(listing.uploads)
        self._by_name = {stored.name: stored for stored in listing.snapshots}
        self._manifests = set(listing.manifests)
        self.listing = listing

    def find(self, name: str) -> StoredSnapshot | None:
        """Return the snapshot of that name, if there is one."""
        return self._by_name.get(name)

    def add(self, name: str, info: ObjectInfo, *, manifest: bool) -> None:
        """Take in what was copied; ``manifest`` says whether it has one as an object."""
        self._by_name[name] = StoredSnapshot(Snapshot.parse(name), info.key, info.size, info.etag)
        if manifest:
            self._manifests.add(name)

    def remove(self, name: str) -> None:
        """Take out what was removed again."""
        self._by_name.pop(name, None)
        self._manifests.discard(name)

    def refresh(self, names: AbstractSet[str]) -> None:
        """Make ``listing`` up to date, and forget all but these names: a copy may go on for months."""
        self._by_name = {name: stored for name, stored in self._by_name.items() if name in names}
        self._manifests &= names
        self.listing = Listing(tuple(self._by_name.values()), (), frozenset(self._manifests))


class Landing:
    """Says at once when all of the newest chain is at the target. Thread-safe.

    Args:
        chains: What is copied, newest first.
        target: As shown to users.
        transfer: Its progress is told.
        since_s: From when seconds are counted, in seconds of its progress.

    Attributes:
        restorable_after_s: Seconds from then until it was; None before.
    """

    def __init__(self, chains: Sequence[Chain], target: str, transfer: Transfer, since_s: float = 0.0) -> None:
        self._chains = chains
        self._since_s = since_s
        self._target = target
        self._transfer = transfer
        self._lock = threading.Lock()
        self._missing = set(chains[0].snapshots)
        self.restorable_after_s: float | None = None

    def arrived(self, stored: StoredSnapshot) -> None:
        """Take in that a snapshot is at the target."""
        with self._lock:
            if stored not in self._missing:
                return
            self._missing.discard(stored)
            if self._missing:
                return
            self.restorable_after_s = self._transfer.progress.elapsed_s - self._since_s
        words = _restorable_words(self._chains[0], self._target, self.restorable_after_s)
        self._transfer.progress.tell(Milestone(self._transfer.clock.now(), "copy", "restorable", words))

    def state(self, failed: AbstractSet[str]) -> str:
        """Say what the target can be restored to, when everything but these keys has arrived."""
        if not self._missing:
            return f"the newest chain is whole at the target, up to revision {self._chains[0].last}"
        arrived = [stored for chain in self._chains for stored in chain.snapshots if stored.key not in failed]
        chains = build_chains(arrived)
        if not chains:
            return "the target cannot be restored from: no full snapshot has arrived"
        name = without_final(chains[0].full.name)
        if chains[0].gaps:
            missing = f"revisions {chains[0].gaps[0].first} to {chains[0].gaps[0].last} after {name} are missing"
            return f"the target cannot be restored from as it is: {missing}"
        return f"the target can be restored up to revision {chains[0].last}, from {name} with its deltas"


def _restorable_words(chain: Chain, target: str, seconds: float) -> str:
    deltas = f" and {format_count(len(chain.deltas), 'delta')}" if chain.deltas else ""
    return f"at {target} up to revision {chain.last}: {without_final(chain.full.name)}{deltas}, after {seconds:.1f} s"


def raise_failures(tally: Tally, landing: Landing | None) -> None:
    """Raise what was bad, if anything, and say with it what the target can be restored to.

    Raises:
        PartialFailure: several snapshots are bad.
        BackupAgentError: one is.
    """
    errors = [error for _stored, error in tally.failed]
    if not errors:
        return
    if landing is not None:
        errors[0].hint += f"; {landing.state({stored.key for stored, _error in tally.failed})}"
    if len(errors) == 1:
        raise errors[0]
    message = f"{len(errors)} of {len(errors) + tally.copied} snapshots were not copied"
    raise PartialFailure(message, errors)
