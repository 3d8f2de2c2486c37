"""Snapshots from one store to another: discover, plan, transfer, verify, publish."""

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from backupagent import failpoints
from backupagent.errors import (
    ChecksumMismatch,
    ConfigError,
    IntegrityError,
    ObjectLocked,
)
from backupagent.model.chain import Chain, build_chains
from backupagent.model.manifest import Manifest, SourceObject
from backupagent.model.shard import Shard
from backupagent.model.snapshot import StoredSnapshot, without_final
from backupagent.operations.final import discover
from backupagent.operations.landing import Arrived, Landing, Tally, TargetView, nobody, raise_failures
from backupagent.operations.passage import Passage
from backupagent.operations.report import ChainEnd, CopyReport
from backupagent.settings import CopySettings, VerifyMode
from backupagent.snapstore import Listing, SnapStore
from backupagent.snapstore.proof import proves_copy, renewed_manifest
from backupagent.stores.base import NO_METADATA
from backupagent.transfer.by_store import Planner
from backupagent.transfer.context import Transfer
from backupagent.transfer.copying import copy_objects
from backupagent.transfer.crew import map_ordered
from backupagent.transfer.items import Copied, CopyItem
from backupagent.transfer.reading import ReadItem, next_object, read_objects

QUESTIONS = 32
"""Requests about single objects at once, unless --workers says otherwise: they are nothing but round trips."""


class Copier:
    """Copies snapshots; the source is only listed and read.

    Args:
        source: Where they are.
        target: Where they go.
        settings: What to copy and how to check it.
        transfer: How to move bytes.
    """

    def __init__(self, source: SnapStore, target: SnapStore, settings: CopySettings, transfer: Transfer) -> None:
        self._source = source
        self._target = target
        self._settings = settings
        self._transfer = transfer
        try:
            self._shard = Shard.parse(settings.shard)
        except ValueError as error:
            message = f"--shard: {error}"
            raise ConfigError(message) from error
        self._given_up: tuple[int, int] | None = None
        self._passages: dict[str, Passage] = {}
        self._there: TargetView | None = None
        self._arrived: Arrived = nobody
        self._lock = threading.Lock()
        self.tally = Tally()
        self._by_store = Planner(source.store, target.store, wanted=settings.server_side_copy)

    def run(self) -> CopyReport:
        """Copy.

        Raises:
            EmptySource: the source has no full snapshot.
            RevisionGap: the newest chain of the source has a hole.
            FinalSnapshotMissing: none appeared in time.
            PartialFailure: several snapshots are bad, for different reasons; the others were copied.
            IntegrityError: a snapshot is bad; the others were copied.
            StoreError: a store failed; run again to go on.
            Cancelled: the transfer's token was set; run again to go on.
        """
        progress = self._transfer.progress
        with progress.phase("discover"):
            failpoints.hit("copy.discover")
            listing, self._given_up = discover(self._source, self._settings, self._transfer)
            chains = self.choose(listing)
            chains[0].require_contiguous()
        landing = self.landing(chains)
        self._arrived = landing.arrived if landing else nobody
        with progress.phase("plan"):
            passages = self._plan(self.order(chains), listing)
        for batch in self._batches(passages, chains[0]):
            self._move(batch)
        raise_failures(self.tally, landing)
        restorable_after_s = landing.restorable_after_s if landing else None
        return CopyReport(
            **self.tally.counts(),
            newest_chain=ChainEnd(without_final(chains[0].full.name), chains[0].last, restorable_after_s),
            given_up_revisions=self._given_up,
            seconds=progress.elapsed_s,
            phases=tuple(progress.phases),
        )

    # ---- steps that a follower takes too

    def list_source(self) -> Listing:
        """List the source once."""
        return self._source.list()

    def choose(self, listing: Listing) -> tuple[Chain, ...]:
        """Return the chains to copy, newest first.

        Raises:
            EmptySource: there is no full snapshot.
        """
        chains = build_chains(listing.snapshots)
        if not chains:
            raise self._source.empty(listing)
        if self._settings.newest_chain_only:
            return chains[:1]
        older = chains[1:]
        if self._settings.max_backup_age:
            oldest_s = self._transfer.clock.now().timestamp() - self._settings.max_backup_age
            older = tuple(chain for chain in older if chain.full.snapshot.created_s >= oldest_s)
        chosen = (chains[0], *older)
        return chosen[: self._settings.max_backups] if self._settings.max_backups else chosen

    def order(self, chains: Sequence[Chain]) -> list[StoredSnapshot]:
        """Return what this process copies of some chains, in the order in which it is needed."""
        return [snapshot for chain in chains for snapshot in chain.snapshots if self._shard.holds(snapshot.name)]

    def copy(self, snapshots: Sequence[StoredSnapshot], listing: Listing, arrived: Arrived) -> None:
        """Copy snapshots in this order; what becomes of them is in ``tally``, also when an error ends it.

        Args:
            snapshots: Some of the source.
            listing: Of the source.
            arrived: Told of each that is at the target, from a worker thread: copied, or proven to be there before.

        Raises:
            StoreError: a store failed.
            Cancelled: the transfer's token was set.
        """
        self._arrived = arrived
        self._move(self._plan(snapshots, listing))

    def landing(self, chains: Sequence[Chain], since_s: float = 0.0) -> Landing | None:
        """Return who says when the newest chain is at the target; None when others copy the rest of it."""
        if self._shard.count > 1:
            return None
        return Landing(chains, self._target.display, self._transfer, since_s)

    def forget_target(self) -> None:
        """List the target anew before the next copy: after an error nobody knows what it holds."""
        self._there = None

    # ---- plan

    def _plan(self, snapshots: Sequence[StoredSnapshot], listing: Listing) -> list[Passage]:
        """Find out which snapshots must move, in their order.

        What the target has already is counted as skipped. One whose manifest or compression cannot be read is counted
        as failed; it does not keep the others from being copied.
        """
        self._passages.clear()
        there = self._there
        if there is None:
            self._target.remove_leftovers()
            there = self._there = TargetView(self._target.list())
        there.refresh({without_final(stored.name) for stored in listing.snapshots})
        check = self._settings.verify is not VerifyMode.TRANSFER

        def plan(stored: StoredSnapshot) -> Passage | IntegrityError | None:
            passage = Passage(stored, without_final(stored.name), trailer=check)
            old = there.find(passage.target_name)
            if old is None and self._tells_itself(stored, listing) and not self._by_store.takes(stored.size):
                return passage
            try:
                known = self._source.manifest(stored, listing)
                if old is not None and self._is_there(stored, known, old, there):
                    return None
                passage.replaces = old is not None
                passage.begin(known)
            except IntegrityError as error:
                return error
            passage.by_store = self._by_store.plan(stored.key, stored.size, stored.etag)
            return passage

        workers = self._transfer.settings.workers or QUESTIONS
        passages: list[Passage] = []
        planned = map_ordered(plan, snapshots, workers=workers, cancel=self._transfer.cancel)
        for stored, found in zip(snapshots, planned, strict=True):
            if isinstance(found, Passage):
                passages.append(found)
            elif found is None:
                self.tally.skipped += 1
                self._arrived(stored)
            else:
                self.tally.failed.append((stored, found))
        return passages

    def _is_there(self, stored: StoredSnapshot, known: Manifest | None, old: StoredSnapshot, there: TargetView) -> bool:
        """Whether the target is proven to hold this very object; brings its manifest up to date.

        A full is visible before its manifest is written, since its HashKV is asked for in between. A copy that was
        made in that time has a manifest that says less.
        """
        at_target = self._at_target(old, there)
        if at_target is None or not _same(stored, known, old, at_target):
            return False
        self._forget_upload(stored, there, at_target)
        if known is not None and stored.snapshot.is_full:
            renewed = renewed_manifest(known, at_target)
            if renewed is not None:
                self._target.save_manifest(renewed)
        return True

    def _tells_itself(self, stored: StoredSnapshot, listing: Listing) -> bool:
        """Whether the answer that brings a delta brings its manifest too, so that it needs no question of its own."""
        if not self._source.store.features.reads_tell_metadata:
            return False
        one_part = 0 < stored.size <= self._transfer.settings.part_size
        return one_part and stored.name not in listing.manifests and not stored.snapshot.is_full

    def _forget_upload(self, stored: StoredSnapshot, there: TargetView, manifest: Manifest) -> None:
        """Finish what a run left that was killed after the object had become visible."""
        name = _journal_name(self._source.display, stored)
        if name in there.uploads:
            self._target.save_manifest(manifest)
            self._target.journal.close(name)
            there.uploads.discard(name)

    def _at_target(self, old: StoredSnapshot, there: TargetView) -> Manifest | None:
        """Read a manifest of the target; one that is damaged proves nothing, and is written anew."""
        try:
            return self._target.manifest(old, there.listing)
        except IntegrityError:
            return None

    # ---- transfer

    def _batches(self, passages: Sequence[Passage], newest: Chain) -> list[Sequence[Passage]]:
        """Cut the work: where copies are read back, the newest chain is proven before history moves."""
        if self._settings.verify is not VerifyMode.READ_BACK:
            return [passages]
        keys = {stored.key for stored in newest.snapshots}
        first = [passage for passage in passages if passage.stored.key in keys]
        rest = [passage for passage in passages if passage.stored.key not in keys]
        return [first, rest] if rest else [first]

    def _move(self, passages: Sequence[Passage]) -> None:
        progress = self._transfer.progress
        items = [self._item(passage) for passage in passages]
        with progress.phase("transfer", sum(item.size for item in items)):
            outcome = copy_objects(
                self._source.store,
                self._target.store,
                items,
                self._target.journal,
                self._transfer,
                published=self._publish,
            )
        self._by_store.refused(outcome.refusal)
        self.tally.refusal = self._by_store.refusal
        self.tally.failed += [(self._passages[item.target_key].stored, error) for item, error in outcome.failed]
        if self._settings.verify is VerifyMode.READ_BACK:
            with progress.phase("verify", sum(copied.info.size for copied in outcome.copied)):
                self._read_back(outcome.copied)

    def _item(self, passage: Passage) -> CopyItem:
        stored = passage.stored
        key = self._target.layout.snapshot(passage.target_name)
        self._passages[key] = passage

        def metadata() -> Mapping[str, str]:
            return NO_METADATA if stored.snapshot.is_full else self._target.metadata_for(passage.manifest())

        def arrived(found: Mapping[str, str]) -> None:
            if not passage.begun:
                passage.begin(self._source.manifest_of(stored, found))

        return CopyItem(
            source_key=stored.key,
            size=stored.size,
            etag=stored.etag,
            target_key=key,
            inspector=passage,
            metadata=metadata,
            journal_name=_journal_name(self._source.display, stored),
            arrived=arrived,
            ready=lambda: self._foretell(passage),
            by_store=passage.by_store if self._by_store.refusal is None else None,
        )

    def _foretell(self, passage: Passage) -> None:
        """Write the manifest of a large copy before there is the copy, for a run that is killed before ``_publish``.

        Where another object has that name, the manifest would prove the wrong one.
        """
        if not passage.replaces:
            self._target.save_manifest(passage.manifest())

    def _publish(self, copied: Copied) -> None:
        """Write the manifest of a copy that does not carry it, and count it.

        It is written also when it was foretold: one that is older than its object proves less.
        """
        failpoints.hit("copy.publish")
        passage = self._passages[copied.item.target_key]
        if copied.by_store is not None:
            passage.copied_by_store(agreed=copied.by_store.agreed)
        if not copied.metadata:
            self._target.save_manifest(passage.manifest())
        with self._lock:
            self.tally.count(copied, checked=passage.checked)
            if self._there is not None:
                self._there.add(passage.target_name, copied.info, manifest=not copied.metadata)
        if self._settings.verify is not VerifyMode.READ_BACK:
            self._arrived(passage.stored)

    # ---- verify

    def _read_back(self, copied: Sequence[Copied]) -> None:
        """Read what the target holds now; remove what is not what was sent, and count it as failed."""
        objects = [ReadItem(done.info.key, done.info.size, done.info.etag) for done in copied]
        with closing(read_objects(self._target.store, objects, self._transfer)) as pieces:
            for item in objects:
                stored = self._passages[item.key].stored
                error = self._compare(item.key, next_object(pieces))
                if error is None:
                    self._arrived(stored)
                else:
                    self.tally.failed.append((stored, error))

    def _compare(self, key: str, data: Iterator[memoryview]) -> ChecksumMismatch | None:
        """Remove an object that is not what was sent."""
        passage = self._passages[key]
        message = self._fault(passage, data)
        if not message:
            return None
        hint = "the target changed the object, which was removed again; check the target and copy once more"
        try:
            self._target.store.delete(key)
            self._target.store.delete(self._target.layout.manifest(passage.target_name))
            if self._there is not None:
                self._there.remove(passage.target_name)
        except ObjectLocked as error:  # what is wrong with the object comes first
            hint = f"the target changed the object, and it stays there: {error.message}; copy to another prefix"
        return ChecksumMismatch(message, key=key, hint=hint)

    def _fault(self, passage: Passage, data: Iterator[memoryview]) -> str:
        """Say what is wrong with what was read back; empty when it is right."""
        if passage.unseen:
            fault = passage.read_back(data)
            if fault is not None:
                return f"copied by the store and read back: {fault}"
            self._target.save_manifest(passage.manifest())  # with the digest that is known now
            return ""
        sha = hashlib.sha256()
        for piece in data:
            sha.update(piece)
        sent = passage.stored_sha256
        return "" if sha.hexdigest() == sent else f"read back with sha256 {sha.hexdigest()}, sent with {sent}"


def _same(stored: StoredSnapshot, manifest: Manifest | None, old: StoredSnapshot, known: Manifest | None) -> bool:
    """Whether the target is proven to hold this very object."""
    sha256 = manifest.stored_sha256 if manifest is not None else None
    return proves_copy(known, old, SourceObject(stored.size, stored.etag), sha256)


def _journal_name(source: str, stored: StoredSnapshot) -> str:
    """Name an upload by what is copied, so that only a copy of the very same object goes on with it."""
    identity = "\n".join((source, stored.key, str(stored.size), stored.etag))
    return hashlib.sha256(identity.encode()).hexdigest()
