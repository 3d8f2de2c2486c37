"""What the buckets say about a migration: the final snapshot, what must arrive, what has arrived, what came after.

Nothing is believed that was not read here: not a task's word, not a name.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

from backupagent.errors import (
    ChecksumMismatch,
    EmptySource,
    IntegrityError,
    ObjectChanged,
    ObjectNotFound,
    RevisionGap,
    TruncatedObject,
)
from backupagent.model.chain import build_chains
from backupagent.model.manifest import Manifest, SourceObject
from backupagent.model.migration import CopyProof, FinalSnapshot
from backupagent.model.snapshot import Snapshot, StoredSnapshot, without_final
from backupagent.snapstore import Listing, SnapStore
from backupagent.snapstore.content import check_snapshot
from backupagent.snapstore.proof import check_stored_digest, proves_copy
from backupagent.transfer.context import Transfer
from backupagent.transfer.crew import map_ordered
from backupagent.transfer.reading import ReadItem, next_object, read_objects

NEWEST_FULLS = 4
"""Among how many of the newest fulls the final one is looked for; see ``operations.copier``."""

MAX_MISSING = 10
"""Names of missing snapshots in a proof."""

MAX_REMEMBERED = 20_000
"""Objects whose proof is remembered: several migrations of a thousand snapshots each, at 300 bytes."""


@dataclass(frozen=True)
class SourceSnapshot:
    """A snapshot that must arrive.

    Attributes:
        name: The name that its copy has: without the mark of a final one.
        size: Stored size, bytes.
        etag: The source store's mark of the content; empty where it has none.
        sha256: Of the object, hex; empty where nobody read it.
    """

    name: str
    size: int
    etag: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Arrival:
    """What was found at the destination.

    Attributes:
        proof: The figures.
        problems: What is wrong with the snapshots that are there and yet count as missing, at most ten.
        absent: Names of all that are not there, whatever their number.
    """

    proof: CopyProof
    problems: tuple[IntegrityError, ...] = ()
    absent: frozenset[str] = frozenset()


class Remembered:
    """What was found out about objects, so that each is looked at once. Thread-safe; forgetting is harmless."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[object, ...], str] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, where: SnapStore, stored: StoredSnapshot, *about: object) -> str | None:
        """Return what is known about an object."""
        with self._lock:
            return self._known.get(_identity(where, stored, about))

    def add(self, where: SnapStore, stored: StoredSnapshot, *about: object, found: str) -> None:
        """Remember something about an object; one without an etag may have changed since, and is not remembered."""
        if not stored.etag:
            return
        with self._lock:
            self._known[_identity(where, stored, about)] = found
            while len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)


def _identity(where: SnapStore, stored: StoredSnapshot, about: tuple[object, ...]) -> tuple[object, ...]:
    return (where.display, stored.key, stored.etag, stored.size, *about)


class Backups:
    """The snapshots of one etcd in one bucket, as a migration sees them.

    Args:
        snapstore: Where they are.
        transfer: How to read.
        remembered: What was read before.
    """

    def __init__(self, snapstore: SnapStore, transfer: Transfer, remembered: Remembered) -> None:
        self._snapstore = snapstore
        self._transfer = transfer
        self._remembered = remembered

    def list(self) -> Listing:
        """List what is there now.

        Raises:
            StoreError: the store cannot be listed.
        """
        return self._snapstore.list()

    def empty(self, listing: Listing) -> EmptySource:
        """Make the error for a source without a full, with what may have been meant instead."""
        return self._snapstore.empty(listing)

    # ---- at the source

    def find_final(self, listing: Listing, *, not_before_s: float = 0.0) -> StoredSnapshot | None:
        """Return the newest full with the mark of a final one.

        Args:
            listing: What is there.
            not_before_s: One that was made earlier belongs to another migration; seconds since 1970.
        """
        newest = [chain.full for chain in build_chains(listing.snapshots)[:NEWEST_FULLS]]
        finals = (full for full in newest if full.snapshot.final and full.snapshot.created_s >= not_before_s)
        return next(finals, None)

    def has_manifest(self, stored: StoredSnapshot, listing: Listing) -> bool:
        """Whether a manifest tells more about a full than its name."""
        return stored.name in listing.manifests

    def verify_final(self, stored: StoredSnapshot, listing: Listing) -> FinalSnapshot:
        """Read a final snapshot whole.

        Raises:
            IntegrityError: it is damaged, or its manifest cannot be read.
            StoreError: it cannot be read.
        """
        manifest = self._snapstore.manifest(stored, listing)
        sha256 = self._remembered.find(self._snapstore, stored) or self._read(stored, manifest)
        if manifest is not None:
            check_stored_digest(stored, manifest, sha256)
        revision = manifest.revision if manifest is not None else None
        return FinalSnapshot(
            name=stored.name,
            revision=stored.snapshot.last if revision is None else revision,
            bytes=stored.size,
            hash_kv=manifest.hash_kv if manifest is not None else None,
            hash_kv_revision=manifest.hash_kv_revision if manifest is not None else None,
            compact_revision=manifest.compact_revision if manifest is not None else None,
            stored_sha256=sha256,
        )

    # ---- at the destination

    def find_copy_of_final(self, listing: Listing) -> StoredSnapshot | None:
        """Return the newest full that was final where it was taken, by its manifest."""
        for chain in build_chains(listing.snapshots)[:NEWEST_FULLS]:
            manifest = self._manifest(chain.full, listing)
            if manifest is not None and manifest.final_at_source:
                return chain.full
        return None

    def check_copy(self, expected: Sequence[SourceSnapshot], *, settled: bool) -> Arrival:
        """Compare what must have arrived with what is there.

        An object counts when its manifest proves that it is a copy of the very object at the source, or when it was
        read whole and is right; the newest chain is read in any case.

        Args:
            expected: What the source held.
            settled: Whether the copy is said to be done. If not, nothing is read: what no manifest proves yet may
                still be on its way.

        Raises:
            StoreError: the store cannot be read.
            Cancelled: the transfer's token was set.
        """
        listing = self.list()
        there = {stored.name: stored for stored in listing.snapshots}
        newest, gaps = _newest_chain(expected), _gaps(expected)
        pairs = [(wanted, there[wanted.name]) for wanted in expected if wanted.name in there]

        def judge(pair: tuple[SourceSnapshot, StoredSnapshot]) -> IntegrityError | bool:
            try:
                return self._must_be_read(*pair, listing, settled=settled, whole=pair[0].name in newest)
            except IntegrityError as error:
                return error

        workers, cancel = self._transfer.settings.workers, self._transfer.cancel
        judged = map_ordered(judge, pairs, workers=workers, cancel=cancel)
        problems: list[IntegrityError] = []
        present: dict[str, int] = {}
        for (wanted, stored), verdict in zip(pairs, judged, strict=True):
            try:
                if isinstance(verdict, IntegrityError):
                    raise verdict
                if verdict:
                    self._check_content(wanted, stored, listing)
                present[wanted.name] = stored.size
            except IntegrityError as error:
                problems.append(error)
        missing = tuple(wanted.name for wanted in expected if wanted.name not in present)
        proof = CopyProof(
            expected=len(expected),
            present=len(present),
            missing=missing[:MAX_MISSING],
            newest_chain_verified=settled and bool(newest) and not gaps and newest.isdisjoint(missing),
            bytes=sum(present.values()),
        )
        absent = frozenset(wanted.name for wanted in expected if wanted.name not in there)
        return Arrival(proof, (*gaps, *problems)[:MAX_MISSING] if settled else (), absent)

    def first_new_backup(self, copied: frozenset[str], *, revision: int, since_s: float) -> str | None:
        """Return the first snapshot that the new etcd made itself.

        Args:
            copied: Names that the source held.
            revision: Of the final snapshot; nothing new ends before it.
            since_s: When the new etcd had been restored, seconds since 1970.
        """
        listing = self.list()
        new = [
            stored
            for stored in listing.snapshots
            if stored.name not in copied
            and stored.snapshot.last >= revision
            and stored.snapshot.created_s >= int(since_s)
        ]
        for stored in sorted(new, key=lambda stored: (stored.snapshot.created_s, stored.snapshot.last)):
            manifest = self._manifest(stored, listing)
            if manifest is None or manifest.source is None:
                return stored.name
        return None

    # ---- one object

    def _must_be_read(
        self, wanted: SourceSnapshot, stored: StoredSnapshot, listing: Listing, *, settled: bool, whole: bool
    ) -> bool:
        """Judge one object by size and manifest.

        Returns:
            Whether only reading it can tell; else it is proven.

        Raises:
            IntegrityError: it is not what the source held, or that cannot be told yet.
        """
        if stored.size != wanted.size:
            error = TruncatedObject if stored.size < wanted.size else ChecksumMismatch
            raise error(f"it has {stored.size} bytes, the source's had {wanted.size}", key=stored.key)
        if not self._is_copy(wanted, stored, listing):
            if not settled:
                raise TruncatedObject("it may still be on its way", key=stored.key)
            return True
        return settled and whole

    def _is_copy(self, wanted: SourceSnapshot, stored: StoredSnapshot, listing: Listing) -> bool:
        """Whether a manifest proves that an object is a copy of the one at the source.

        Raises:
            ChecksumMismatch: the manifest says that it is a copy of another object.
        """
        if self._remembered.find(self._snapstore, stored, wanted) is not None:
            return True
        manifest = self._manifest(stored, listing)
        if manifest is not None and _contradicts(manifest, wanted):
            raise ChecksumMismatch("it is a copy of another object than the source held", key=stored.key)
        source = SourceObject(wanted.size, wanted.etag)
        if not proves_copy(manifest, stored, source, wanted.sha256 or None) or self._replaced(stored, listing):
            return False
        self._remembered.add(self._snapstore, stored, wanted, found="copy")
        return True

    def _check_content(self, wanted: SourceSnapshot, stored: StoredSnapshot, listing: Listing) -> None:
        """Read an object whole.

        Raises:
            IntegrityError: it is damaged, not what the source held, or gone.
        """
        try:
            known = self._remembered.find(self._snapstore, stored)
            sha256 = known or self._read(stored, self._manifest(stored, listing))
        except (ObjectNotFound, ObjectChanged) as error:
            raise TruncatedObject(f"it was replaced while it was read: {error.cause}", key=stored.key) from error
        if wanted.sha256 and sha256 != wanted.sha256:
            raise ChecksumMismatch(f"its sha256 is {sha256}, the source's was {wanted.sha256}", key=stored.key)

    def _replaced(self, stored: StoredSnapshot, listing: Listing) -> bool:
        """Whether an object was written after the manifest that speaks for it."""
        if stored.name not in listing.manifests:
            return False  # the manifest is part of the object
        store, layout = self._snapstore.store, self._snapstore.layout
        return store.stat(stored.key).modified_s > store.stat(layout.manifest(stored.name)).modified_s

    def _manifest(self, stored: StoredSnapshot, listing: Listing) -> Manifest | None:
        """Read a manifest; one that is damaged or gone proves nothing."""
        with suppress(IntegrityError, ObjectNotFound):
            return self._snapstore.manifest(stored, listing)
        return None

    def _read(self, stored: StoredSnapshot, manifest: Manifest | None) -> str:
        """Read an object whole.

        Returns:
            Its sha256, hex.
        """
        digest = hashlib.sha256()

        def hashed(pieces: Iterator[memoryview]) -> Iterator[memoryview]:
            for piece in pieces:
                digest.update(piece)
                yield piece

        item = ReadItem(stored.key, stored.size, stored.etag)
        with closing(read_objects(self._snapstore.store, [item], self._transfer)) as pieces:
            check_snapshot(stored, hashed(next_object(pieces)), manifest)
        self._remembered.add(self._snapstore, stored, found=digest.hexdigest())
        return digest.hexdigest()


def source_snapshots(listing: Listing) -> tuple[SourceSnapshot, ...]:
    """Return what must arrive: every snapshot that belongs to a chain, newest chain first."""
    chains = build_chains(listing.snapshots)
    snapshots = (stored for chain in chains for stored in chain.snapshots)
    found = {without_final(s.name): SourceSnapshot(without_final(s.name), s.size, s.etag) for s in snapshots}
    return tuple(found.values())


def _chain_names(expected: Sequence[SourceSnapshot]) -> list[StoredSnapshot]:
    found: list[StoredSnapshot] = []
    for wanted in expected:
        with suppress(ValueError):
            found.append(StoredSnapshot(Snapshot.parse(wanted.name), wanted.name, wanted.size, wanted.etag))
    return found


def _newest_chain(expected: Sequence[SourceSnapshot]) -> frozenset[str]:
    chains = build_chains(_chain_names(expected))
    return frozenset(stored.name for stored in chains[0].snapshots) if chains else frozenset()


def _gaps(expected: Sequence[SourceSnapshot]) -> list[IntegrityError]:
    chains = build_chains(_chain_names(expected))
    try:
        if chains:
            chains[0].require_contiguous()
    except RevisionGap as error:
        return [error]
    return []


def _contradicts(manifest: Manifest, wanted: SourceSnapshot) -> bool:
    """Whether a manifest says that the object is something else than what the source held."""
    if wanted.sha256 and manifest.stored_sha256 is not None:
        return manifest.stored_sha256 != wanted.sha256
    return bool(wanted.etag) and manifest.source is not None and manifest.source.etag != wanted.etag
