"""HashKV of a database file, as the etcd started from it would answer.

etcd sums the name of the ``key`` bucket and then keys and values in order, with CRC32C. With a compact revision C an
element at or below C counts only if its key is alive at the revision R asked for and this is its newest version
there, also when it has not been removed yet. A deletion at exactly C never counts: since 3.5.16 a compaction keeps
it, before it did not. When no key is alive at R, nothing else is left out. Source: etcd, server/storage/mvcc/hash.go
and key_index.go (keep) at v3.7.1.
"""

from collections.abc import Callable
from dataclasses import dataclass

from backupagent.crc32c import extend
from backupagent.errors import ConfigError, MalformedContent, RevisionCompacted
from backupagent.etcd.boltfile.leaf import LeafArea
from backupagent.etcd.boltfile.reader import BoltReader
from backupagent.etcd.boltfile.tree import Tree, root_bucket
from backupagent.etcd.mvcc.keyset import HashSet
from backupagent.etcd.mvcc.keyvalue import user_key
from backupagent.etcd.mvcc.meta import named_bucket, read_state
from backupagent.etcd.mvcc.revision import KEY_BUCKET, TOMBSTONE_SIZE, encode_main


@dataclass(frozen=True)
class OfflineHash:
    """A HashKV that was computed from a file.

    Attributes:
        hash_kv: The CRC32C, unsigned.
        revision: The revision that it is of.
        compact_revision: The compact revision that it is as of; -1 for never compacted.
        elements: Number of keys and values that it covers.
    """

    hash_kv: int
    revision: int
    compact_revision: int
    elements: int


def hash_kv(
    reader: BoltReader,
    *,
    revision: int | None = None,
    compact_revision: int | None = None,
    visited: bytearray | None = None,
    tap: Callable[[LeafArea], None] | None = None,
) -> OfflineHash:
    """Compute the HashKV of a database.

    What has to be remembered for the rule of compaction is a 64-bit hash for each key that changed since the file's
    own last finished compaction: at most about 20 MiB, and 10 bytes for each key. Two of a million keys share a hash
    with a probability of 3e-8; then the result is wrong, and right when it is computed again, because the hash is
    seeded for each process.

    Args:
        reader: The file.
        revision: The last one that counts; by default the last there is.
        compact_revision: As if compacted there; by default the file's own.
        visited: See ``Tree.leaves``; for the one pass over all pages.
        tap: Called with every page of keys up to ``revision``, in order.

    Raises:
        RevisionCompacted: ``compact_revision`` is below the file's own finished one, or above ``revision``.
        ConfigError: ``revision`` is above the last one.
        MalformedContent: the file is not a database of etcd.
        TruncatedObject: the file ends too early.
    """
    state = read_state(reader)
    at = state.revision if revision is None else revision
    compacted = state.compact_revision if compact_revision is None else compact_revision
    if at > state.revision:
        message = f"{reader.name} ends at revision {state.revision}, HashKV of revision {at} was asked for"
        raise ConfigError(message)
    if compacted < state.finished_compact_revision:
        message = f"compacted at revision {state.finished_compact_revision}, as if at {compacted} cannot be told"
        raise RevisionCompacted(message, endpoint=reader.name)
    if at < compacted:
        message = f"compacted at revision {compacted}, HashKV of revision {at} was asked for"
        raise RevisionCompacted(message, endpoint=reader.name)
    keys = named_bucket(reader, root_bucket(reader), KEY_BUCKET)
    rule = _Rule(reader.name, at, compacted, state.finished_compact_revision)
    if compacted > 0:
        rule.learn(keys)
    crc, elements = extend(0, KEY_BUCKET), 0
    for area in keys.areas(visited=visited):
        if tap:
            tap(area)
        counted, data = rule.select(area)
        crc = extend(crc, data)
        elements += counted
    return OfflineHash(crc, at, compacted, elements)


class _Rule:
    """Which elements count.

    Three ranges of revisions: up to the finished compaction every key has one element left at most; between that and
    the compact revision keys may have several; above it all count.
    """

    def __init__(self, where: str, revision: int, compacted: int, finished: int) -> None:
        self._where = where
        self._end = encode_main(revision + 1)
        self._compacted = encode_main(max(compacted, 0))
        self._all_count_from = encode_main(max(compacted, 0) + 1)
        self._compaction_finished = encode_main(max(finished, 0) + 1)
        self._changed = HashSet()
        self._is_alive = bytearray()  # of elements between finished and asked-for compaction; the first one last
        self._anything_alive = False

    def learn(self, keys: Tree) -> None:
        """Find the newest version of each key that changed after the finished compaction, newest change first."""
        changed, where = self._changed, self._where
        for area in keys.areas(self._compaction_finished, reverse=True):
            for key, start, end in reversed(list(area.spans())):
                if not self._compaction_finished <= key < self._end:
                    continue
                mark = hash(user_key(area.data, start, end, where))
                is_newest = mark not in changed
                alive = is_newest and len(key) != TOMBSTONE_SIZE
                self._anything_alive |= alive
                if key < self._all_count_from:
                    self._is_alive.append(alive)
                if is_newest:
                    changed.add(mark)
        # Nearly always the first key of the rest is alive.
        self._anything_alive = self._anything_alive or any(
            self._survives(key, area.data, start, end)
            for area in keys.areas()
            if area.first_key < self._compaction_finished
            for key, start, end in area.spans()
            if key < self._compaction_finished
        )

    def select(self, area: LeafArea) -> tuple[int, bytes]:
        """Return the number of elements that count, and their bytes; call it with every page in order."""
        last = area.last_key
        if area.first_key >= self._all_count_from and last < self._end:
            return area.element_count, area.data
        data = area.data
        if last < self._compaction_finished and not area.has_key_size(TOMBSTONE_SIZE):
            marks = [hash(user_key(data, start, end, self._where)) for _, start, end in area.spans()]
            if self._changed.is_disjoint(marks):
                return area.element_count, data
        spans = [span for span in area.spans() if self._counts(span[0], data, span[1], span[2])]
        if len(spans) == area.element_count:
            return len(spans), data
        return len(spans), b"".join(data[start - len(key) : end] for key, start, end in spans)

    def _counts(self, key: bytes, data: bytes, start: int, end: int) -> bool:
        if key >= self._end:
            return False
        if key >= self._all_count_from:
            return True
        alive = self._survives(key, data, start, end) if key < self._compaction_finished else self._next_is_alive()
        if self._anything_alive:
            return alive
        return not (len(key) == TOMBSTONE_SIZE and key.startswith(self._compacted))

    def _next_is_alive(self) -> bool:
        if not self._is_alive:
            message = "the keys of the branch pages do not agree with those of the leaf pages"
            raise MalformedContent(message, key=self._where)
        return bool(self._is_alive.pop())

    def _survives(self, key: bytes, data: bytes, start: int, end: int) -> bool:
        return len(key) != TOMBSTONE_SIZE and hash(user_key(data, start, end, self._where)) not in self._changed
