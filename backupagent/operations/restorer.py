"""A data directory from a store, without an etcd: base, deltas, finish, raft, verify, publish."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from backupagent import failpoints
from backupagent.errors import (
    DataDirNotEmpty,
    IntegrityError,
    NameMismatch,
    NotEqual,
    RevisionGap,
)
from backupagent.etcd.boltfile.writer import storage_error
from backupagent.etcd.mvcc.hashkv import OfflineHash
from backupagent.etcd.overlap import Overlap
from backupagent.etcd.raftfiles import Cluster, parse_initial_cluster, require_advertised, write_raft_files
from backupagent.etcd.restored_db import RestoredDb
from backupagent.model.chain import Chain, build_chains
from backupagent.model.manifest import Manifest
from backupagent.model.snapshot import StoredSnapshot
from backupagent.operations.report import LeaseCount, RestoreReport
from backupagent.settings import LeasePolicy, RestoreSettings
from backupagent.snapstore import Listing, SnapStore
from backupagent.snapstore.content import ContentReader, drain, read_events
from backupagent.transfer.context import Transfer
from backupagent.transfer.crew import map_ordered
from backupagent.transfer.reading import ReadItem, next_object, read_objects


@dataclass(frozen=True)
class _Plan:
    """What is restored, decided before anything is written."""

    listing: Listing
    chain: Chain
    manifest: Manifest | None
    cluster: Cluster
    building: Path

    @property
    def db(self) -> Path:
        """Where etcd keeps its database."""
        return self.building / "member" / "snap" / "db"


@dataclass(frozen=True)
class _Built:
    """What was found out while the directory was built."""

    events: int
    leases: LeaseCount
    proof: OfflineHash
    matches_manifest: bool | None


class Restorer:
    """Restores the newest chain of a store.

    The directory is built as ``<data-dir>.part`` and renamed when everything in it is written and checked.

    Args:
        snapstore: The store.
        settings: What to make.
        transfer: How to read.
    """

    def __init__(self, snapstore: SnapStore, settings: RestoreSettings, transfer: Transfer) -> None:
        self._snapstore = snapstore
        self._settings = settings
        self._transfer = transfer

    def run(self) -> RestoreReport:
        """Restore.

        Raises:
            ConfigError: the members do not fit together.
            DataDirNotEmpty: the directory has something in it.
            EmptySource: the store has no full snapshot.
            IntegrityError: a snapshot is damaged, missing or not what its name says.
            NotEqual: the result is not what the source had, by its recorded HashKV.
            NoSpace: the file system is full.
            Cancelled: the transfer's token was set.
        """
        progress = self._transfer.progress
        cluster = self._cluster()
        self._require_empty()
        with progress.phase("discover"):
            plan = self._plan(cluster)
        try:
            _make_directories(plan.building)
            built = self._build(plan)
            with progress.phase("publish"):
                self._publish(plan.building)
        except BaseException as error:
            _remove(plan.building, error)
            raise
        return RestoreReport(
            revision=built.proof.revision,
            hash_kv=built.proof.hash_kv,
            compact_revision=built.proof.compact_revision,
            events=built.events,
            matches_manifest=built.matches_manifest,
            full=plan.chain.full.name,
            deltas=len(plan.chain.deltas),
            leases=built.leases,
            data_dirs=(str(self._settings.data_dir),),
            cluster_id=f"{cluster.id:x}",
            seconds=progress.elapsed_s,
            phases=tuple(progress.phases),
        )

    # ---- discover

    def _cluster(self) -> Cluster:
        settings = self._settings
        cluster = parse_initial_cluster(settings.initial_cluster, token=settings.initial_cluster_token)
        member = cluster.member(settings.name)
        if settings.initial_advertise_peer_urls:
            require_advertised(member, settings.initial_advertise_peer_urls.split(","))
        return cluster

    def _require_empty(self) -> None:
        directory = self._settings.data_dir
        try:
            if os.path.lexists(directory) and (not directory.is_dir() or any(directory.iterdir())):
                message = f"{directory}: there is something there already"
                raise DataDirNotEmpty(message)
        except OSError as error:
            raise storage_error(error, str(directory)) from error

    def _plan(self, cluster: Cluster) -> _Plan:
        listing = self._snapstore.list()
        chains = build_chains(listing.snapshots)
        if not chains:
            raise self._snapstore.empty(listing)
        chain = chains[0]
        manifest = self._snapstore.manifest(chain.full, listing)
        if manifest is not None and manifest.revision is not None:
            # The base's true revision is known, so a hole is found before anything is read.
            _require_contiguous(chain, manifest.revision)
        directory = self._settings.data_dir.absolute()
        return _Plan(listing, chain, manifest, cluster, directory.with_name(directory.name + ".part"))

    # ---- base, deltas

    def _build(self, plan: _Plan) -> _Built:
        progress = self._transfer.progress
        items = [ReadItem(stored.key, stored.size, stored.etag) for stored in plan.chain.snapshots]
        with ExitStack() as opened:
            pieces = opened.enter_context(closing(read_objects(self._snapstore.store, items, self._transfer)))
            with progress.phase("base", plan.chain.full.size):
                progress.note(plan.chain.full.name)
                self._write_base(plan, next_object(pieces))
            strip = self._settings.leases is LeasePolicy.STRIP
            db = opened.enter_context(RestoredDb.open(plan.db, name=plan.chain.full.key, strip_leases=strip))
            _check_base(plan.chain.full, plan.manifest, db.base.revision)
            _require_contiguous(plan.chain, db.base.revision)
            with progress.phase("deltas", sum(delta.size for delta in plan.chain.deltas)):
                for delta in plan.chain.deltas:
                    progress.note(delta.name)
                    self._append(db, delta, next_object(pieces))
            self._transfer.cancel.raise_if_set()
            with progress.phase("finish"):
                leases = self._finish(plan, db)
            self._transfer.cancel.raise_if_set()
            with progress.phase("verify"):
                proof, matches = self._prove(plan, db)
            return _Built(db.events, leases, proof, matches)

    def _write_base(self, plan: _Plan, pieces: Iterator[memoryview]) -> None:
        """Write the database once, where it stays; its digest is compared while it passes."""
        try:
            file = os.open(plan.db, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_error(error, str(plan.db)) from error
        try:
            for content in ContentReader(plan.chain.full, plan.manifest).pieces(pieces):
                try:
                    failpoints.hit("restore.base")
                    _write(file, content)
                except OSError as error:
                    raise storage_error(error, str(plan.db)) from error
        finally:
            os.close(file)

    def _append(self, db: RestoredDb, delta: StoredSnapshot, pieces: Iterator[memoryview]) -> None:
        events = read_events(delta, pieces)
        overlap = Overlap(db, delta.key)
        db.begin_delta(delta.key)
        try:
            for batch in events:
                self._transfer.cancel.raise_if_set()
                overlap.compare(batch)
                db.append(batch)
            overlap.finish()
        except IntegrityError:
            drain(events)  # a changed byte may look like anything: let the digest speak first
            raise
        db.end_delta()

    # ---- finish

    def _finish(self, plan: _Plan, db: RestoredDb) -> LeaseCount:
        missing = db.missing_leases()
        kept = db.base_lease_count()
        granted: dict[int, int] = {}
        if missing and self._settings.leases is LeasePolicy.SYNTHESIZE:
            granted = self._granted_ttls(plan)
            ttl_s = max(1, round(self._settings.lease_ttl))
            added = {lease: max(1, granted.get(lease, ttl_s)) for lease in missing}
        else:
            added = {}
        db.finish(plan.cluster, leases=added)
        write_raft_files(plan.building, plan.cluster, self._settings.name)
        return LeaseCount(
            kept=kept,
            synthesized=len(added),
            guessed_ttl=sum(lease not in granted for lease in added),
            dangling=len(missing) - len(added),
        )

    def _granted_ttls(self, plan: _Plan) -> dict[int, int]:
        """Collect the granted times to live that the deltas' manifests remember."""

        def manifest(delta: StoredSnapshot) -> Manifest | None:
            return self._snapstore.manifest(delta, plan.listing)

        workers, cancel = self._transfer.settings.workers, self._transfer.cancel
        manifests = map_ordered(manifest, plan.chain.deltas, workers=workers, cancel=cancel)
        return {int(lease): ttl_s for known in manifests if known is not None for lease, ttl_s in known.leases.items()}

    # ---- verify

    def _prove(self, plan: _Plan, db: RestoredDb) -> tuple[OfflineHash, bool | None]:
        """Read everything back; compare the recorded HashKV at the revision where it was recorded."""
        manifest = plan.manifest
        recorded = manifest.compact_revision if manifest is not None else None
        if recorded is not None and recorded < db.base.finished_compact_revision:
            recorded = None  # etcd remembered a hash from before its last compaction: it cannot be computed any more
        proof = db.prove(compact_revision=self._settings.hash_compact_revision or recorded)
        if manifest is None or manifest.hash_kv is None or recorded is None:
            return proof, None
        revision = manifest.hash_kv_revision
        same = (proof.revision, proof.compact_revision) == (revision, recorded)
        there = proof if same else db.hash_kv(revision=revision, compact_revision=recorded)
        if there.hash_kv != manifest.hash_kv:
            message = (
                f"{plan.chain.full.key}: HashKV at revision {revision} (compacted at {recorded}) is {there.hash_kv},"
                f" the source had {manifest.hash_kv}"
            )
            raise NotEqual(message, hint="the snapshot is not what the etcd had; restore from another chain")
        return proof, True

    # ---- publish

    def _publish(self, building: Path) -> None:
        """Rename a finished directory, with everything in it on the disk first."""
        directory = self._settings.data_dir.absolute()
        try:
            for folder in (building / "member" / "snap", building / "member" / "wal", building / "member", building):
                _sync_directory(folder)
            failpoints.hit("restore.publish")
            self._transfer.cancel.raise_if_set()
            building.rename(directory)
            _sync_directory(directory.parent)
        except OSError as error:
            raise storage_error(error, str(directory)) from error


def _check_base(full: StoredSnapshot, manifest: Manifest | None, revision: int) -> None:
    """Compare a full's name and manifest with the revision inside; it may be later than its name, never earlier."""
    named, known = full.snapshot.last, manifest.revision if manifest is not None else None
    if revision < named or known not in {None, revision}:
        told = f"its manifest says {known}" if known not in {None, revision} else f"its name says {named}"
        raise NameMismatch(f"the database ends at revision {revision}, {told}", key=full.key)


def _require_contiguous(chain: Chain, base_revision: int) -> None:
    """Refuse a hole behind the base, before the deltas are read.

    Raises:
        RevisionGap: names the missing range and the delta after it.
    """
    reached = base_revision
    for delta in chain.deltas:
        if delta.snapshot.start > reached + 1:
            message = f"revisions {reached + 1} to {delta.snapshot.start - 1} are missing before this delta"
            raise RevisionGap(message, key=delta.key)
        reached = max(reached, delta.snapshot.last)


def _write(file: int, content: memoryview) -> None:
    while content:
        content = content[os.write(file, content) :]


def _make_directories(building: Path) -> None:
    """Make the empty tree; what a killed restore left there is removed."""
    try:
        if building.exists():
            shutil.rmtree(building)
        for folder in (building, building / "member", building / "member" / "snap"):
            folder.mkdir(mode=0o700, parents=folder == building)
    except OSError as error:
        raise storage_error(error, str(building)) from error


def _sync_directory(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _remove(building: Path, error: BaseException) -> None:
    """Leave nothing half-made behind; what cannot be removed is told beside the reason of the failure."""
    try:
        if building.exists():
            shutil.rmtree(building)
    except OSError as second:
        error.add_note(f"{building} could not be removed: {second}")
