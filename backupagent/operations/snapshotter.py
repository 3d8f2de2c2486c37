"""One snapshot of a running etcd, streamed into a store: full or delta."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from backupagent import failpoints
from backupagent.codecs.base import Codec, Encoder
from backupagent.errors import ConfigError, EtcdError, RevisionCompacted
from backupagent.etcd.client import EtcdClient, HashKV, Status
from backupagent.etcd.watch import events as watch_events
from backupagent.model.chain import Chain, build_chains
from backupagent.model.event import Event, format_time
from backupagent.model.manifest import FORMAT, Manifest, manifest_fields
from backupagent.model.snapshot import Revision, Snapshot, SnapshotKind
from backupagent.model.trailer import TRAILER_SIZE, TrailerCheck
from backupagent.operations.delta_builder import BuiltDelta, DeltaBuilder
from backupagent.operations.report import SnapshotReport
from backupagent.progress import Progress
from backupagent.settings import SnapshotChoice, SnapshotSettings
from backupagent.snapstore import Listing, SnapStore
from backupagent.transfer.context import Transfer
from backupagent.transfer.writing import STREAM_MARKER, ObjectWriter, open_writer
from backupagent.units import MiB

DELTA_SIZE = 10 * MiB
"""Bytes of JSON at which a delta is closed and the next begun; the peer's --delta-snapshot-memory-limit."""

RUN_SIZE = 1 * MiB
"""Bytes of keys and values that are encoded at once."""

ABANDONED_AFTER_S = 24 * 3600.0
"""Age at which a streamed upload of another machine counts as abandoned."""

COMPRESSION_THREADS = 2
"""More do not help: etcd streams at about 180 MB/s on two cores (reference measurement, 2026-11-23)."""


@dataclass(frozen=True)
class _Taken:
    manifest: Manifest
    names: tuple[str, ...]
    start: int
    events: int = 0
    note: str = ""


class Snapshotter:
    """Takes one snapshot.

    Args:
        client: The etcd.
        snapstore: Where the snapshot goes.
        codec: How to compress.
        settings: What to take.
        transfer: How to upload.
    """

    def __init__(
        self, client: EtcdClient, snapstore: SnapStore, codec: Codec, settings: SnapshotSettings, transfer: Transfer
    ) -> None:
        if settings.final and settings.kind is not SnapshotChoice.FULL:
            raise ConfigError("only a full snapshot can be final", hint="leave out --kind delta")
        if codec.encoder is None:
            raise ConfigError(f"{codec.name} can only be read", hint="use --compression gzip")
        self._client = client
        self._snapstore = snapstore
        self._codec = codec
        self._settings = settings
        self._transfer = transfer

    def run(self) -> SnapshotReport:
        """Take it.

        Raises:
            EtcdUnavailable: the etcd cannot be reached, or cut the stream.
            EtcdError: its history is not the one in the store.
            StoreError: the store failed.
            Cancelled: the transfer's token was set.
        """
        self._snapstore.remove_leftovers()
        now_s = self._transfer.clock.now().timestamp()
        self._snapstore.journal.abort_abandoned(
            now_s=now_s, older_than_s=ABANDONED_AFTER_S, stream_marker=STREAM_MARKER
        )
        listing = self._snapstore.list()
        newest = next(iter(build_chains(listing.snapshots)), None)
        if self._settings.kind is SnapshotChoice.DELTA:
            return self._delta_or_full(newest)
        return self._report(self._final_again(newest, listing) or self._full(newest))

    # ---- full

    def _full(self, newest: Chain | None, note: str = "") -> _Taken:
        progress, client = self._transfer.progress, self._client
        with progress.phase("stream"):
            status = client.status()
            before = client.revision()
            self._check_history(before, newest)
            created = self._transfer.clock.now()
            snapshot = Snapshot(
                last=Revision(before),
                start=Revision(0),
                created_s=int(created.timestamp()),
                kind=SnapshotKind.FULL,
                suffix=self._codec.suffix,
                final=self._settings.final,
            )
            progress.expect(status.db_size + TRAILER_SIZE)
            progress.note(snapshot.name)
            manifest = self._stream(snapshot, before, created, status)
        with progress.phase("prove"):
            manifest = self._with_hash(manifest, before)
            failpoints.hit("snapshot.manifest")
            self._snapstore.save_manifest(manifest)
        if self._settings.final and manifest.revision_after != before:
            moved = (
                f"the etcd was written to while its final snapshot was taken ({before} to {manifest.revision_after})"
            )
            note = f"{note}; {moved}" if note else moved
        return _Taken(manifest, (snapshot.name,), 0, note=note)

    def _final_again(self, newest: Chain | None, listing: Listing) -> _Taken | None:
        """Find the final snapshot that was taken already: who asks again gets it, also after a restart.

        It counts while this very etcd was not written to since, and when its manifest is there, which is written last.
        """
        if not self._settings.final or newest is None or newest.deltas or not newest.full.snapshot.final:
            return None
        manifest = self._snapstore.manifest(newest.full, listing)
        if manifest is None or manifest.revision != newest.last or self._client.revision() != newest.last:
            return None
        if manifest.cluster_id != f"{self._client.status().cluster_id:x}":
            return None
        note = "nothing was written since the final snapshot was taken, so it is the same one"
        return _Taken(manifest, (manifest.name,), 0, note=note)

    def _stream(self, snapshot: Snapshot, before: int, created: datetime, status: Status) -> Manifest:
        """Stream, check, compress and upload at the same time; nothing touches a disk."""
        key = self._snapstore.layout.snapshot(snapshot.name)
        trailer = TrailerCheck(SnapshotKind.FULL, key)
        # What is shown is how much of the database has come, whose size is known; not what compression makes of it.
        upload = replace(self._transfer, progress=Progress())
        with (
            _encoding(self._codec) as encoder,
            open_writer(self._snapstore.store, key, self._snapstore.journal, upload) as writer,
        ):
            for blob in self._client.snapshot_stream(self._transfer.cancel):
                failpoints.hit("snapshot.stream")
                trailer.update(blob)
                self._transfer.progress.add(len(blob))
                _write_all(writer, encoder.feed(blob))
            content = trailer.finish()
            _write_all(writer, encoder.finish())
            after = self._client.revision()
            info = writer.complete("snapshot.publish")
        return Manifest(
            format=FORMAT,
            name=snapshot.name,
            kind=snapshot.kind.value,
            final=snapshot.final,
            final_at_source=snapshot.final,
            revision_before=before,
            revision_after=after,
            revision=before if before == after else None,
            created=format_time(created),
            bytes=content.size - TRAILER_SIZE,
            stored_bytes=info.size,
            sha256=content.sha256,
            stored_sha256=writer.sha256,
            etcd_version=status.version,
            cluster_id=f"{status.cluster_id:x}",
        )

    def _with_hash(self, manifest: Manifest, revision: int) -> Manifest:
        """Add the source's HashKV at the named revision, unless it was compacted away meanwhile."""
        if not self._settings.hash_kv:
            return manifest
        try:
            answer = self._hash(revision, idle=manifest.revision_after == revision)
        except RevisionCompacted:
            return manifest
        return msgspec.structs.replace(
            manifest, hash_kv=answer.hash, hash_kv_revision=revision, compact_revision=answer.compact_revision
        )

    def _hash(self, revision: int, *, idle: bool) -> HashKV:
        """Ask for the newest hash while nothing is written, since asking by revision may give an old answer.

        etcd remembers a hash for each compaction, made before it and as if it had not happened, and answers with
        it when asked for just that revision. Source: etcd, server/storage/mvcc/hash.go at v3.7.3, HashByRev.
        """
        if idle:
            newest = self._client.hash_kv()
            if newest.revision == revision:
                return newest
        return self._client.hash_kv(revision)

    def _check_history(self, revision: int, newest: Chain | None) -> None:
        if newest is not None and revision < newest.last:
            raise EtcdError(
                f"is at revision {revision}, but {self._snapstore.display} holds revision {newest.last}",
                endpoint=self._client.endpoint,
                hint="this is another etcd, or one that went back in time: use a prefix of its own",
            )

    # ---- delta

    def _delta_or_full(self, newest: Chain | None) -> SnapshotReport:
        if newest is None:
            return self._report(self._full(newest, "the store has no full snapshot yet, so one was taken"))
        if newest.gaps:
            return self._report(self._full(newest, "the newest chain has a gap, so a full snapshot was taken"))
        try:
            return self._delta(newest)
        except RevisionCompacted as error:
            return self._report(self._full(newest, f"{error.cause}, so a full snapshot was taken"))

    def _delta(self, newest: Chain) -> SnapshotReport:
        first = newest.last + 1
        with self._transfer.progress.phase("watch"):
            status = self._client.status()
            last = self._client.revision()
            self._check_history(last, newest)
            if last < first:
                return self._nothing(newest.last)
            taken: list[tuple[BuiltDelta, Manifest]] = []
            for built in self._build(first, last):
                failpoints.hit("snapshot.delta")
                self._transfer.cancel.raise_if_set()
                taken.append((built, self._save(built, status)))
        names = tuple(manifest.name for _built, manifest in taken)
        return self._report(_Taken(taken[-1][1], names, first, sum(built.events for built, _manifest in taken)))

    def _build(self, first: int, last: int) -> Iterator[BuiltDelta]:
        """Encode what comes; close a delta when it is large enough, never inside a revision."""
        builder = DeltaBuilder(self._codec)
        source = watch_events(self._client, first, last, cancel=self._transfer.cancel, clock=self._transfer.clock)
        for batch in source:
            for run in _whole_revisions(batch, RUN_SIZE):
                builder.add(run)
                if builder.content_size >= DELTA_SIZE:
                    yield builder.finish()
                    builder = DeltaBuilder(self._codec)
        if builder.content_size:
            yield builder.finish()

    def _save(self, built: BuiltDelta, status: Status) -> Manifest:
        """Upload a delta together with its manifest; a manifest of its own comes first."""
        created = self._transfer.clock.now()
        snapshot = Snapshot(
            last=Revision(built.last),
            start=Revision(built.first),
            created_s=int(created.timestamp()),
            kind=SnapshotKind.DELTA,
            suffix=self._codec.suffix,
        )
        granted = self._client.lease_ttls(sorted(built.leases)) if built.leases else {}
        manifest = Manifest(
            format=FORMAT,
            name=snapshot.name,
            kind=snapshot.kind.value,
            start_revision=built.first,
            revision_before=built.last,
            revision_after=built.last,
            revision=built.last,
            created=format_time(created),
            bytes=built.content_size,
            stored_bytes=len(built.data),
            sha256=built.sha256,
            stored_sha256=built.stored_sha256,
            etcd_version=status.version,
            cluster_id=f"{status.cluster_id:x}",
            leases={str(lease_id): ttl_s for lease_id, ttl_s in granted.items()},
        )
        metadata = self._snapstore.metadata_for(manifest)
        if not metadata:
            self._snapstore.save_manifest(manifest)
        self._snapstore.store.put(self._snapstore.layout.snapshot(snapshot.name), built.data, metadata=metadata)
        self._transfer.progress.add(len(built.data))
        return manifest

    # ---- reports

    def _nothing(self, last: int) -> SnapshotReport:
        progress = self._transfer.progress
        return SnapshotReport(
            name=None,
            names=(),
            kind=SnapshotKind.DELTA.value,
            final=False,
            start_revision=last + 1,
            last_revision=last,
            events=0,
            note="",
            manifest={},
            seconds=progress.elapsed_s,
            phases=tuple(progress.phases),
        )

    def _report(self, taken: _Taken) -> SnapshotReport:
        progress, manifest = self._transfer.progress, taken.manifest
        return SnapshotReport(
            name=manifest.name,
            names=taken.names,
            kind=manifest.kind,
            final=manifest.final,
            start_revision=taken.start,
            last_revision=manifest.revision_before or 0,
            events=taken.events,
            note=taken.note,
            manifest=manifest_fields(manifest),
            seconds=progress.elapsed_s,
            phases=tuple(progress.phases),
        )


@contextmanager
def _encoding(codec: Codec) -> Iterator[Encoder]:
    assert codec.encoder is not None, "checked when the operation was made"  # noqa: S101
    encoder = codec.encoder(COMPRESSION_THREADS)
    try:
        yield encoder
    finally:
        encoder.close()


def _write_all(writer: ObjectWriter, pieces: Iterator[bytes | bytearray | memoryview]) -> None:
    for piece in pieces:
        writer.write(piece)


def _whole_revisions(batch: list[Event], size: int) -> Iterator[list[Event]]:
    """Cut a batch of whole revisions into runs of whole revisions of about that many bytes."""
    run: list[Event] = []
    held = 0
    for event in batch:
        kv = event.etcdEvent.kv
        if held >= size and run[-1].etcdEvent.kv.mod_revision != kv.mod_revision:
            yield run
            run, held = [], 0
        run.append(event)
        held += len(kv.key) + len(kv.value)
    if run:
        yield run
