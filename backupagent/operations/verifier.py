"""Whether a store's objects are whole and its chains complete: every byte is read, nothing is restored."""

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field

from backupagent.errors import BackupAgentError, BadSnapshotName, IntegrityError, RevisionGap, StoreError
from backupagent.model.chain import Chain, build_chains, orphans
from backupagent.model.snapshot import StoredSnapshot
from backupagent.operations.report import Problem, VerifiedChain, VerifyReport
from backupagent.settings import VerifySettings
from backupagent.snapstore import Listing, SnapStore
from backupagent.snapstore.content import check_snapshot, drain
from backupagent.transfer.context import Transfer
from backupagent.transfer.reading import Piece, ReadItem, next_object, read_objects


@dataclass
class _Findings:
    problems: list[Problem] = field(default_factory=list)
    bad: set[str] = field(default_factory=set)
    checked: int = 0
    bytes: int = 0

    def add(self, key: str, error: BackupAgentError) -> None:
        self.bad.add(key)
        self.problems.append(Problem(key, error.reason, str(error), error.hint))


class Verifier:
    """Checks one store.

    Args:
        snapstore: The store.
        settings: What to check.
        transfer: How to read.
    """

    def __init__(self, snapstore: SnapStore, settings: VerifySettings, transfer: Transfer) -> None:
        self._snapstore = snapstore
        self._settings = settings
        self._transfer = transfer

    def run(self) -> VerifyReport:
        """Read everything and look for holes.

        Returns:
            What was found; problems of the content are reported, not raised.

        Raises:
            EmptySource: there is no full snapshot.
            StoreError: the store cannot be read.
            Cancelled: the transfer's token was set.
        """
        progress = self._transfer.progress
        with progress.phase("discover"):
            listing = self._snapstore.list()
            chains = build_chains(listing.snapshots)
            if not chains:
                raise self._snapstore.empty(listing)
        chosen = chains[:1] if self._settings.newest_chain_only else chains
        loose = () if self._settings.newest_chain_only else orphans(listing.snapshots)
        findings = _Findings()
        objects = [*(snapshot for chain in chosen for snapshot in chain.snapshots), *loose]
        with progress.phase("verify", sum(snapshot.size for snapshot in objects)):
            self._check_objects(objects, listing, findings)
        for chain in chosen:
            for gap in chain.gaps:
                reason = f"revisions {gap.first} to {gap.last} are missing before this delta"
                findings.add(gap.before, RevisionGap(reason, key=gap.before))
        for delta in loose:
            findings.add(delta.key, RevisionGap("no full snapshot comes before this delta", key=delta.key))
        for key in listing.unreadable:
            findings.add(key, BadSnapshotName("not a snapshot name", key=key))
        return VerifyReport(
            ok=not findings.problems,
            problems=tuple(findings.problems),
            chains=tuple(_verified(chain, findings.bad) for chain in chosen),
            checked=findings.checked,
            bytes=findings.bytes,
            seconds=progress.elapsed_s,
            phases=tuple(progress.phases),
        )

    def _check_objects(self, objects: list[StoredSnapshot], listing: Listing, findings: _Findings) -> None:
        """Read all objects as one stream; one that cannot be read on is left and the reading begins behind it."""
        start = 0
        while start < len(objects):
            start += self._check_run(objects[start:], listing, findings)

    def _check_run(self, objects: list[StoredSnapshot], listing: Listing, findings: _Findings) -> int:
        items = [ReadItem(stored.key, stored.size, stored.etag) for stored in objects]
        with closing(read_objects(self._snapstore.store, items, self._transfer)) as pieces:
            for index, stored in enumerate(objects):
                self._transfer.progress.note(stored.name)
                if not self._check_next(stored, pieces, listing, findings):
                    return index + 1
        return len(objects)

    def _check_next(
        self, stored: StoredSnapshot, pieces: Iterator[Piece], listing: Listing, findings: _Findings
    ) -> bool:
        """Check one object; return whether those behind it can still be read from the same stream."""
        reading = _Reading(pieces)
        data = reading.data()
        findings.checked += 1
        try:
            check_snapshot(stored, data, self._snapstore.manifest(stored, listing))
        except IntegrityError as error:
            findings.add(stored.key, error)
            with suppress(IntegrityError, StoreError):
                drain(data)
            if not reading.ended:  # it was the reading that failed
                return False
        findings.bytes += stored.size
        return True


class _Reading:
    """One object's bytes, and whether all of them came."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self.ended = False

    def data(self) -> Iterator[memoryview]:
        yield from next_object(self._pieces)
        self.ended = True


def _verified(chain: Chain, bad: set[str]) -> VerifiedChain:
    """Count a chain up to its first gap or damaged object."""
    if chain.full.key in bad:
        return VerifiedChain(chain.full.name, 0, len(chain.deltas), ok=False)
    last = chain.full.snapshot.last
    for delta in chain.deltas:
        if delta.key in bad:
            return VerifiedChain(chain.full.name, last, len(chain.deltas), ok=False)
        last = max(last, delta.snapshot.last)
    return VerifiedChain(chain.full.name, last, len(chain.deltas), ok=True)
