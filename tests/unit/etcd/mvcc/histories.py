"""Random histories, and what etcd makes of them, written down plainly: the reference that fast code is held against."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import google_crc32c
from hypothesis import strategies as st

from backupagent.etcd.mvcc.keyvalue import decode, encode_event
from backupagent.etcd.mvcc.revision import RevisionKey
from backupagent.model.event import DELETE, PUT, Change, Event, KeyValue

LEASES = (0, 0, 0, 5, -7, 2**62)

Item = tuple[RevisionKey, bytes]

TRANSACTIONS = st.lists(
    st.dictionaries(
        st.sampled_from([b"a", b"b", b"c", b"d" * 200]),
        st.none() | st.tuples(st.binary(max_size=3), st.sampled_from(LEASES)),
        min_size=1,
    ),
    max_size=25,
)
"""For each revision, by key: a value and a lease, or None to delete it."""


def events_of(transactions: Iterable[dict[bytes, tuple[bytes, int] | None]]) -> list[Event]:
    """What a watch of an etcd sees when it does these transactions; deletions of nothing are no events."""
    live: dict[bytes, tuple[int, int]] = {}
    found: list[Event] = []
    revision = 1
    for transaction in transactions:
        changes = {key: change for key, change in transaction.items() if change is not None or key in live}
        revision += bool(changes)
        for key, change in changes.items():
            if change is None:
                del live[key]
                found.append(Event(Change(type=DELETE, kv=KeyValue(key=key, mod_revision=revision))))
                continue
            create, version = live.get(key, (revision, 0))
            live[key] = (create, version + 1)
            kv = KeyValue(key, create, revision, version + 1, *change)
            found.append(Event(Change(type=PUT, kv=kv)))
    return found


def items_of(events: Sequence[Event]) -> list[Item]:
    """The ``key`` bucket after these events."""
    items: list[Item] = []
    for event in events:
        main = event.etcdEvent.kv.mod_revision
        sub = items[-1][0].sub + 1 if items and items[-1][0].main == main else 0
        items.append((RevisionKey(main, sub, event.etcdEvent.type == DELETE), encode_event(event)))
    return items


def alive(items: Iterable[Item], revision: int) -> set[RevisionKey]:
    """etcd's ``Keep``: the newest version of each key at a revision, unless it is a deletion."""
    newest = {decode(value, "x").key: key for key, value in items if key.main <= revision}
    return {key for key in newest.values() if not key.is_tombstone}


def compact(items: Sequence[Item], revision: int, *, keeps_tombstone: bool) -> list[Item]:
    """What is left after a compaction; since 3.5.16 a deletion at exactly that revision is."""
    kept = alive(items, revision)
    return [
        item
        for item in items
        if item[0].main > revision
        or item[0] in kept
        or (keeps_tombstone and item[0].main == revision and item[0].is_tombstone)
    ]


@dataclass(frozen=True)
class Reference:
    """etcd's HashKV, element by element. Source: etcd, server/storage/mvcc/hash.go at v3.7.1."""

    items: Sequence[Item]

    def hash_kv(self, revision: int, compact_revision: int) -> int:
        keep = alive(self.items, revision)
        crc = google_crc32c.value(b"key")
        for key, value in self.items:
            if key.main > revision:
                continue
            if key.main <= compact_revision and keep and key not in keep:
                continue
            if key.main == compact_revision and key.is_tombstone:
                continue
            crc = google_crc32c.extend(crc, key.encode() + value)
        return int(crc)
