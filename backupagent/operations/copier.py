"""Snapshots from one store to another: discover, plan, transfer, verify, publish."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from backupagent import failpoints
from backupagent.errors import (
    BackupAgentError,
    ChecksumMismatch,
    ConfigError,
    FinalSnapshotMissing,
    IntegrityError,
    ObjectLocked,
    PartialFailure,
)
from backupagent.model.chain import Chain, build_chains
from backupagent.model.manifest import Manifest, SourceObject
from backupagent.model.shard import Shard
from backupagent.model.snapshot import StoredSnapshot, without_final
from backupagent.operations.passage import Passage
from backupagent.operations.report import ChainEnd, CopyReport
from backupagent.settings import CopySettings, OnMissingFinal, VerifyMode
from backupagent.snapstore import Listing, SnapStore
from backupagent.snapstore.proof import proves_copy
from backupagent.stores.base import NO_METADATA
from backupagent.transfer.context import Transfer
from backupagent.transfer.copying import Copied, CopyItem, copy_objects
from backupagent.transfer.crew import map_ordered
from backupagent.transfer.reading import ReadItem, next_object, read_objects

POLL_S = 5.0
"""How often the source is listed while waiting for a final snapshot, seconds."""

NEWEST_FULLS = 4
"""Among how many of the newest fulls a final one is looked for: an etcd that goes on after its final snapshot may
write some more. Source: etcd-backup-restore pull request 1001."""


QUESTIONS = 32
"""Requests about single objects at once, unless --workers says otherwise: they are nothing but round trips."""

UNKNOWN_REVISION = -1
"""The end of a range that nobody can know."""


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
            listing = self._discover()
            chains = self._choose(listing)
        with progress.phase("plan"):
            self._target.remove_leftovers()
            planned = self._plan(chains, listing)
        items = [self._item(passage) for passage in planned if isinstance(passage, Passage)]
        with progress.phase("transfer", sum(item.size for item in items)):
            outcome = copy_objects(
                self._source.store,
                self._target.store,
                items,
                self._target.journal,
                self._transfer,
                published=self._publish,
            )
        if self._settings.verify is VerifyMode.READ_BACK:
            with progress.phase("verify", sum(copied.info.size for copied in outcome.copied)):
                self._read_back(outcome.copied)
        refused = [error for error in planned if isinstance(error, IntegrityError)]
        _raise_failures([*refused, *(error for _item, error in outcome.failed)], len(outcome.copied))
        newest = chains[0]
        return CopyReport(
            copied=len(outcome.copied),
            skipped=planned.count(None),
            bytes=sum(copied.info.size - copied.reread for copied in outcome.copied),
            bytes_reread=sum(copied.reread for copied in outcome.copied),
            server_side_bytes=0,
            trailers_unchecked=sum(not self._passages[done.info.key].checked for done in outcome.copied),
            newest_chain=ChainEnd(without_final(newest.full.name), newest.last),
            given_up_revisions=self._given_up,
            seconds=progress.elapsed_s,
            phases=tuple(progress.phases),
        )

    # ---- discover

    def _discover(self) -> Listing:
        """List the source, again and again while a final snapshot is waited for."""
        clock = self._transfer.clock
        deadline_s = clock.monotonic_s() + self._settings.wait_for_final
        while True:
            listing = self._source.list()
            chains = build_chains(listing.snapshots)
            if not self._settings.wait_for_final or any(c.full.snapshot.final for c in chains[:NEWEST_FULLS]):
                return listing
            if clock.monotonic_s() >= deadline_s:
                self._give_up_final(chains)
                return listing
            self._transfer.progress.note("waiting for a final snapshot")
            self._transfer.cancel.wait(min(POLL_S, max(0.0, deadline_s - clock.monotonic_s())))
            self._transfer.cancel.raise_if_set()

    def _give_up_final(self, chains: Sequence[Chain]) -> None:
        newest = chains[0].snapshots[-1].name if chains else "none"
        if self._settings.on_missing_final is OnMissingFinal.ERROR:
            message = f"{self._source.display}: no final snapshot appeared; the newest snapshot is {newest}"
            raise FinalSnapshotMissing(message)
        if chains:
            self._given_up = (chains[0].last + 1, UNKNOWN_REVISION)

    def _choose(self, listing: Listing) -> tuple[Chain, ...]:
        chains = build_chains(listing.snapshots)
        if not chains:
            raise self._source.empty(listing)
        chains[0].require_contiguous()
        if self._settings.newest_chain_only:
            return chains[:1]
        older = chains[1:]
        if self._settings.max_backup_age:
            oldest_s = self._transfer.clock.now().timestamp() - self._settings.max_backup_age
            older = tuple(chain for chain in older if chain.full.snapshot.created_s >= oldest_s)
        chosen = (chains[0], *older)
        return chosen[: self._settings.max_backups] if self._settings.max_backups else chosen

    # ---- plan

    def _plan(self, chains: Sequence[Chain], listing: Listing) -> list[Passage | IntegrityError | None]:
        """Pair every snapshot with what is known about it, newest chain first.

        Returns:
            For each one how it is copied; None when the target has it already; an error when its manifest or its
            compression cannot be read, which does not keep the others from being copied.
        """
        there = self._target.list()
        by_name = {stored.name: stored for stored in there.snapshots}
        snapshots = [snapshot for chain in chains for snapshot in chain.snapshots if self._shard.holds(snapshot.name)]
        check = self._settings.verify is not VerifyMode.TRANSFER

        def plan(stored: StoredSnapshot) -> Passage | IntegrityError | None:
            passage = Passage(stored, without_final(stored.name), trailer=check)
            old = by_name.get(passage.target_name)
            if old is None and self._tells_itself(stored, listing):
                return passage
            try:
                known = self._source.manifest(stored, listing)
                at_target = None if old is None else self._at_target(old, there)
                if old is not None and _same(stored, known, old, at_target):
                    self._forget_upload(stored, there, at_target)
                    return None
                passage.replaces = old is not None
                passage.begin(known)
            except IntegrityError as error:
                return error
            return passage

        workers = self._transfer.settings.workers or QUESTIONS
        return map_ordered(plan, snapshots, workers=workers, cancel=self._transfer.cancel)

    def _tells_itself(self, stored: StoredSnapshot, listing: Listing) -> bool:
        """Whether the answer that brings a delta brings its manifest too, so that it needs no question of its own."""
        if not self._source.store.features.reads_tell_metadata:
            return False
        one_part = 0 < stored.size <= self._transfer.settings.part_size
        return one_part and stored.name not in listing.manifests and not stored.snapshot.is_full

    def _forget_upload(self, stored: StoredSnapshot, there: Listing, manifest: Manifest | None) -> None:
        """Finish what a run left that was killed after the object had become visible."""
        name = _journal_name(self._source.display, stored)
        if name in there.uploads and manifest is not None:
            self._target.save_manifest(manifest)
            self._target.journal.close(name)

    def _at_target(self, old: StoredSnapshot, there: Listing) -> Manifest | None:
        """Read a manifest of the target; one that is damaged proves nothing, and is written anew."""
        try:
            return self._target.manifest(old, there)
        except IntegrityError:
            return None

    # ---- transfer

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
        )

    def _foretell(self, passage: Passage) -> None:
        """Write the manifest of a large copy before there is the copy, for a run that is killed before ``_publish``.

        Where another object has that name, the manifest would prove the wrong one.
        """
        if not passage.replaces:
            self._target.save_manifest(passage.manifest())

    def _publish(self, copied: Copied) -> None:
        """Write the manifest of a copy that does not carry it; one that is older than its object proves less."""
        failpoints.hit("copy.publish")
        if not copied.metadata:
            self._target.save_manifest(self._passages[copied.item.target_key].manifest())

    # ---- verify

    def _read_back(self, copied: Sequence[Copied]) -> None:
        """Read what the target holds now; remove what is not what was sent.

        Raises:
            ChecksumMismatch: names the first such object.
        """
        objects = [ReadItem(done.info.key, done.info.size, done.info.etag) for done in copied]
        error: ChecksumMismatch | None = None
        with closing(read_objects(self._target.store, objects, self._transfer)) as pieces:
            for item in objects:
                found = self._compare(item.key, next_object(pieces))
                error = error or found
        if error is not None:
            raise error

    def _compare(self, key: str, data: Iterator[memoryview]) -> ChecksumMismatch | None:
        """Remove an object that is not what was sent."""
        passage = self._passages[key]
        sha = hashlib.sha256()
        for piece in data:
            sha.update(piece)
        if sha.hexdigest() == passage.stored_sha256:
            return None
        message = f"read back with sha256 {sha.hexdigest()}, sent with {passage.stored_sha256}"
        hint = "the target changed the object, which was removed again; check the target and copy once more"
        try:
            self._target.store.delete(key)
            self._target.store.delete(self._target.layout.manifest(passage.target_name))
        except ObjectLocked as error:  # what is wrong with the object comes first
            hint = f"the target changed the object, and it stays there: {error.message}; copy to another prefix"
        return ChecksumMismatch(message, key=key, hint=hint)


def _same(stored: StoredSnapshot, manifest: Manifest | None, old: StoredSnapshot, known: Manifest | None) -> bool:
    """Whether the target is proven to hold this very object."""
    sha256 = manifest.stored_sha256 if manifest is not None else None
    return proves_copy(known, old, SourceObject(stored.size, stored.etag), sha256)


def _journal_name(source: str, stored: StoredSnapshot) -> str:
    """Name an upload by what is copied, so that only a copy of the very same object goes on with it."""
    identity = "\n".join((source, stored.key, str(stored.size), stored.etag))
    return hashlib.sha256(identity.encode()).hexdigest()


def _raise_failures(errors: Sequence[BackupAgentError], copied: int) -> None:
    if not errors:
        return
    if len(errors) == 1:
        raise errors[0]
    message = f"{len(errors)} of {len(errors) + copied} snapshots were not copied"
    raise PartialFailure(message, errors)
