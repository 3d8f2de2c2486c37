"""A database file that grows from a full snapshot to a later revision, without an etcd.

::

    db = RestoredDb.open(path)                  # the full's content, without its trailer
    db.begin_delta(key)                         # for each delta
    for batch in decode_events(pieces, key):
        db.append(batch)
    db.end_delta()
    db.finish(cluster, leases={id: ttl_s for id in db.missing_leases()})
    proof = db.prove(compact_revision=...)

Pages are only added behind the existing ones; the two meta pages, written last, make them count. A file whose
restore was killed before that is still the full snapshot.
"""

import heapq
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from backupagent.crc32c import extend
from backupagent.errors import ChecksumMismatch, ConfigError
from backupagent.etcd.boltfile.layout import BUCKET_FLAG, BUCKET_HEADER, LEAF_PAGE, Meta
from backupagent.etcd.boltfile.leaf import LeafArea
from backupagent.etcd.boltfile.reader import BoltReader, Element
from backupagent.etcd.boltfile.tree import Tree, bucket, root_bucket
from backupagent.etcd.boltfile.writer import (
    BranchBuilder,
    PageAppender,
    append_leaf,
    storage_error,
    write_bucket,
    write_tree,
)
from backupagent.etcd.mvcc import meta as etcd_meta
from backupagent.etcd.mvcc.hashkv import OfflineHash, hash_kv
from backupagent.etcd.mvcc.lease import LEASE_BUCKET, Lease, decode_lease_key, encode_lease_key
from backupagent.etcd.mvcc.meta import DbState, named_bucket, read_state
from backupagent.etcd.mvcc.pages import EventPages, LeafBody
from backupagent.etcd.mvcc.revision import KEY_BUCKET, RevisionKey, encode_main
from backupagent.etcd.raftfiles import TERM, Cluster
from backupagent.failpoints import hit
from backupagent.model.event import Event

_MEMBERS_BUCKET, _REMOVED_BUCKET = b"members", b"members_removed"


class StoredChange(NamedTuple):
    """A change as it lies in the file.

    Attributes:
        revision: Its revision, its number within it, and whether it is a deletion.
        value: The encoded KeyValue.
    """

    revision: RevisionKey
    value: bytes


class RestoredDb:
    """A full snapshot to which events are appended. Not thread safe.

    Args:
        reader: The file.
        fd: The same file, open for reading and writing; belongs to this object.
        path: Where it is.
        name: The object it came from, for messages about its content.
        strip_leases: See ``EventPages``.

    Attributes:
        base: Where the full snapshot stands.
        strips_leases: Whether the lease ids of appended events are left out.
    """

    def __init__(self, reader: BoltReader, fd: int, path: Path, name: str, *, strip_leases: bool) -> None:
        self.base: DbState = read_state(reader)
        self.strips_leases = strip_leases
        self._reader, self._fd, self._path, self._name = reader, fd, path, name
        self._root = {key: element.value for key, element in self._read_root(reader).items()}
        self._appender = PageAppender(fd, reader.page_size, reader.high_water, name=str(path))
        self._branches = BranchBuilder(self._appender)
        self._pages = EventPages(reader.page_size, self.base.revision, strip_leases=strip_leases)
        self._started = False
        self._own_pages_from = reader.high_water

    @classmethod
    def open(cls, path: Path, *, name: str = "", strip_leases: bool = False) -> Self:
        """Open a full snapshot's content and cut off what lies behind its last page.

        Args:
            path: The file; it will be changed.
            name: The object it came from, for messages; by default the path.
            strip_leases: Leave the lease ids out of appended events.

        Raises:
            MalformedContent: not a database of etcd.
            TruncatedObject: the file ends too early.
            EtcdError: the file cannot be opened.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise storage_error(error, str(path)) from error
        try:
            reader = BoltReader(fd, name=name or str(path))
            os.ftruncate(fd, reader.high_water * reader.page_size)
            return cls(reader, fd, path, name or str(path), strip_leases=strip_leases)
        except BaseException as error:
            os.close(fd)
            if isinstance(error, OSError):
                raise storage_error(error, str(path)) from error
            raise

    @property
    def revision(self) -> int:
        """Last revision so far."""
        return self._pages.revision

    @property
    def events(self) -> int:
        """Number of events appended."""
        return self._pages.events

    @property
    def size(self) -> int:
        """Bytes of the file so far."""
        return self._appender.next_page * self._appender.page_size

    def begin_delta(self, key: str) -> None:
        """Start a delta. Its events of revisions that are already there are left out (see ``Overlap``).

        Args:
            key: The object, for messages.
        """
        self._pages.begin(key)

    def append(self, events: Sequence[Event]) -> None:
        """Append events of the current delta.

        Raises:
            RevisionGap: revisions are missing.
            MalformedContent: revisions run backwards, or an event is none that etcd makes.
            NoSpace: the file system is full.
            EtcdError: the file cannot be written.
        """
        self._write(self._pages.add(events))

    def end_delta(self) -> None:
        """Write what is left of the current delta, and let the operating system start to write it to the disk.

        Raises:
            NoSpace: the file system is full.
            EtcdError: the file cannot be written.
        """
        self._write(self._pages.take())
        self._flush()
        self._appender.start_writeback()

    def events_at(self, first: int, last: int) -> Iterator[StoredChange]:
        """Yield the changes of a range of revisions in order, appended ones included.

        Of revisions up to the base's compact revision only what the compaction left is there.

        Raises:
            MalformedContent: the base is malformed there.
            TruncatedObject: the file ends too early.
            NoSpace: the file system is full.
            EtcdError: the file cannot be read or written.
        """
        self._write(self._pages.take())
        self._flush()
        tree = Tree(self._reader, self._branches.entries()) if self._started else self._base_keys()
        for element in tree.items(encode_main(first)):
            revision = RevisionKey.decode(element.key, self._name)
            if revision.main > last:
                return
            yield StoredChange(revision, element.value)

    def attached_leases(self) -> frozenset[int]:
        """Return the leases that appended events attached to keys and that are still attached."""
        return self._pages.leases.attached()

    def missing_leases(self) -> list[int]:
        """Return those of ``attached_leases`` that the base does not have, sorted.

        Raises:
            MalformedContent: the base's leases are malformed.
            TruncatedObject: the file ends too early.
        """
        missing = set(self.attached_leases())
        for element in self._base_leases():
            missing.discard(decode_lease_key(element.key, self._name))
        return sorted(missing)

    def base_lease_count(self) -> int:
        """Return how many leases the base has.

        Raises:
            MalformedContent: the base's leases are malformed.
            TruncatedObject: the file ends too early.
        """
        return sum(1 for _element in self._base_leases())

    def hash_kv(self, *, revision: int | None = None, compact_revision: int | None = None) -> OfflineHash:
        """Compute HashKV of the finished file at another pair of revisions, without the checks of ``prove``.

        Args:
            revision: See ``mvcc.hashkv.hash_kv``.
            compact_revision: See ``mvcc.hashkv.hash_kv``.
        """
        return hash_kv(BoltReader(self._fd, name=str(self._path)), revision=revision, compact_revision=compact_revision)

    def finish(
        self, cluster: Cluster, *, leases: Mapping[int, int], bump_revision: int = 0, mark_compacted: bool = False
    ) -> None:
        """Write the small buckets, and then the meta pages that make everything count.

        The consistent index and the term are those of a new cluster's first raft log; buckets that are not named
        here (auth, alarms, cluster version) stay as in the base.

        Args:
            cluster: The members.
            leases: Leases to add: granted TTL in seconds by id. Those that the base has stay as they are.
            bump_revision: Raise the last revision by that much, so that clients do not see it run backwards.
            mark_compacted: Let etcd compact at the last revision when it starts.

        Raises:
            ConfigError: a negative ``bump_revision``, or a TTL that is not positive.
            NoSpace: the file system is full.
            EtcdError: the file cannot be written.
            MalformedContent: the base's leases are malformed.
        """
        if bump_revision < 0 or any(ttl_s < 1 for ttl_s in leases.values()):
            message = "the revision can only be raised, and a lease lasts at least one second"
            raise ConfigError(message)
        self._write(self._pages.bump(bump_revision) if bump_revision else self._pages.take())
        try:
            hit("restore.finish")
            self._write_buckets(cluster, leases, mark_compacted=mark_compacted)
            root = write_tree(self._appender, [Element(BUCKET_FLAG, *item) for item in sorted(self._root.items())])
            self._flush()
            os.fsync(self._fd)
            self._write_metas(root)
            os.fsync(self._fd)
        except OSError as error:
            raise storage_error(error, str(self._path)) from error

    def prove(self, *, revision: int | None = None, compact_revision: int | None = None) -> OfflineHash:
        """Read the finished file back from its meta pages: every page, and every key and value for HashKV.

        Args:
            revision: See ``hash_kv``.
            compact_revision: See ``hash_kv``.

        Raises:
            ChecksumMismatch: what was appended is not what is there.
            RevisionCompacted: see ``hash_kv``.
            ConfigError: see ``hash_kv``.
            MalformedContent: a page is wrong.
            TruncatedObject: the file ends too early.
        """
        reader = BoltReader(self._fd, name=str(self._path))
        read_back = _ReadBack(self._own_pages_from)
        visited = bytearray(reader.high_water)
        for name, element in self._read_root(reader, visited).items():
            if name != KEY_BUCKET:
                for _ in bucket(reader, element.value).items(visited=visited):
                    pass
        result = hash_kv(
            reader, revision=revision, compact_revision=compact_revision, visited=visited, tap=read_back.add
        )
        if (read_back.crc, read_back.size) != (self._pages.crc, self._pages.size):
            message = f"read back {read_back.size} bytes of keys and values, {self._pages.size} others were written"
            raise ChecksumMismatch(message, key=str(self._path), hint="check the disk and its file system")
        return result

    def close(self) -> None:
        """Close the file; harmless the second time."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        """Return the database."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def _write(self, leaves: Sequence[LeafBody]) -> None:
        if leaves and not self._started:
            self._start()
        add, append = self._branches.add, self._appender.append
        for leaf in leaves:
            add(leaf.first_key, append(LEAF_PAGE, leaf.element_count, leaf.table, leaf.data))

    def _start(self) -> None:
        """Take over the right edge of the base's keys."""
        spine = self._base_keys().spine()
        elements = list(self._reader.elements(spine.last_leaf))
        if spine.branches:
            self._branches.preload(spine.branches)
        elif elements:
            pgid = spine.last_leaf.pgid or append_leaf(self._appender, elements)
            self._branches.add(elements[0].key, pgid)
        self._own_pages_from = self._appender.next_page
        self._started = True

    def _flush(self) -> None:
        self._appender.flush()
        self._reader.high_water = self._appender.next_page

    def _write_buckets(self, cluster: Cluster, leases: Mapping[int, int], *, mark_compacted: bool) -> None:
        if self._started:
            self._root[KEY_BUCKET] = BUCKET_HEADER.pack(self._branches.finish(), self._base_keys().sequence)
        meta = named_bucket(self._reader, root_bucket(self._reader), etcd_meta.META_BUCKET).small()
        values = {key: element.value for key, element in meta.items()}
        values[etcd_meta.CONSISTENT_INDEX] = etcd_meta.encode_number(len(cluster.members))
        values[etcd_meta.TERM] = etcd_meta.encode_number(TERM)
        if etcd_meta.CONF_STATE in values:
            values[etcd_meta.CONF_STATE] = cluster.encode_conf_state()
        if mark_compacted:
            values[etcd_meta.SCHEDULED_COMPACT] = RevisionKey(self.revision, 0, is_tombstone=False).encode()
        members = {member.hex_id.encode(): member.encode() for member in cluster.members}
        for name, content in ((etcd_meta.META_BUCKET, values), (_MEMBERS_BUCKET, members), (_REMOVED_BUCKET, {})):
            self._root[name] = write_bucket(self._appender, [Element(0, *item) for item in sorted(content.items())])
        if leases:
            self._root[LEASE_BUCKET] = write_bucket(self._appender, self._merged_leases(leases))

    def _merged_leases(self, leases: Mapping[int, int]) -> Iterator[Element]:
        added = sorted(Element(0, encode_lease_key(id_), Lease(id_, ttl_s).encode()) for id_, ttl_s in leases.items())
        last = None
        for element in heapq.merge(self._base_leases(), added, key=lambda element: element.key):
            if element.key != last:  # the base's comes first
                yield element
            last = element.key

    def _write_metas(self, root: int) -> None:
        old = self._reader.meta
        # Both, because etcd's snapshots keep the page and the parity of their transaction ids apart.
        for txid in (old.txid + 1, old.txid + 2):
            meta = Meta(old.page_size, old.flags, root, old.sequence, self._appender.next_page, txid)
            os.pwrite(self._fd, meta.encode_page(), (txid % 2) * old.page_size)

    def _base_keys(self) -> Tree:
        return named_bucket(self._reader, root_bucket(self._reader), KEY_BUCKET)

    def _base_leases(self) -> Iterator[Element]:
        element = root_bucket(self._reader).get(LEASE_BUCKET)
        return bucket(self._reader, element.value).items() if element else iter(())

    @staticmethod
    def _read_root(reader: BoltReader, visited: bytearray | None = None) -> dict[bytes, Element]:
        elements = root_bucket(reader).small(visited=visited)
        for element in elements.values():
            if element.flags != BUCKET_FLAG:
                raise reader.malformed(f"{element.key[:32]!r} beside the buckets is none")
        return elements


class _ReadBack:
    """Sums the keys and values of the pages from a page id on."""

    def __init__(self, first_page: int) -> None:
        self._first_page = first_page
        self.crc = 0
        self.size = 0

    def add(self, area: LeafArea) -> None:
        if area.pgid >= self._first_page:
            self.crc = extend(self.crc, area.data)
            self.size += len(area.data)
