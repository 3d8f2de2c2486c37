"""HashKV of a file is etcd's, at every pair of revision and compact revision."""

from collections.abc import Callable
from pathlib import Path

import pytest
from histories import TRANSACTIONS, Reference, alive, compact, events_of, items_of
from hypothesis import given
from hypothesis import strategies as st

from backupagent.errors import ConfigError, MalformedContent, RevisionCompacted
from backupagent.etcd.boltfile.reader import BoltReader
from backupagent.etcd.mvcc.hashkv import hash_kv
from backupagent.etcd.mvcc.meta import FINISHED_COMPACT, SCHEDULED_COMPACT, read_state
from backupagent.etcd.mvcc.revision import RevisionKey
from backupagent.model.event import Change, Event, KeyValue

MakeDb = Callable[..., Path]


def revision_value(revision: int) -> bytes:
    return RevisionKey(revision, 0, is_tombstone=False).encode()


@given(transactions=TRANSACTIONS, finished=st.integers(0, 26), keeps_tombstone=st.booleans())
def test_all_pairs_of_revisions(
    make_etcd_db: MakeDb,
    transactions: list[dict[bytes, tuple[bytes, int] | None]],
    finished: int,
    keeps_tombstone: bool,
) -> None:
    history = items_of(events_of(transactions))
    last = history[-1][0].main if history else 1
    finished = min(finished, last)
    items = compact(history, finished, keeps_tombstone=keeps_tombstone) if finished else history
    meta = [(FINISHED_COMPACT, revision_value(finished))] if finished else []
    path = make_etcd_db([(key.encode(), value) for key, value in items], meta=meta, page_size=1024)

    with BoltReader(path) as reader:
        assert read_state(reader).revision == last
        for compacted in range(finished or -1, last + 1):
            for revision in range(max(compacted, 1), last + 1):
                found = hash_kv(reader, revision=revision, compact_revision=compacted)
                assert found.hash_kv == Reference(items).hash_kv(revision, compacted), (revision, compacted)
                # A file that is not compacted says what one that is does, as long as a key is alive there.
                if alive(history, revision):
                    assert found.hash_kv == Reference(history).hash_kv(revision, compacted)


def history(count: int, *, keys: int) -> list[Event]:
    version = [0] * keys
    events = []
    for number in range(count):
        which = number % keys
        version[which] += 1
        kv = KeyValue(b"key-%d" % which, 2 + which, number + 2, version[which], bytes(200))
        events.append(Event(Change(kv=kv)))
    return events


@pytest.mark.parametrize("finished", [-1, 900])
@pytest.mark.parametrize(("revision", "compacted"), [(2001, -1), (2001, 900), (2001, 2001), (1500, 1500), (1999, 1000)])
def test_many_pages(make_etcd_db: MakeDb, finished: int, revision: int, compacted: int) -> None:
    items = items_of(history(2000, keys=700))
    items = compact(items, finished, keeps_tombstone=True) if finished > 0 else items
    meta = [(FINISHED_COMPACT, revision_value(finished))] if finished > 0 else []
    with BoltReader(make_etcd_db([(key.encode(), value) for key, value in items], meta=meta)) as reader:
        if compacted < finished:
            with pytest.raises(RevisionCompacted, match="cannot be told"):
                hash_kv(reader, revision=revision, compact_revision=compacted)
        else:
            found = hash_kv(reader, revision=revision, compact_revision=compacted)
            assert found.hash_kv == Reference(items).hash_kv(revision, compacted)
            assert (found.revision, found.compact_revision) == (revision, compacted)


def test_defaults_are_the_files_own(make_etcd_db: MakeDb) -> None:
    items = items_of(history(10, keys=3))
    meta = [(FINISHED_COMPACT, revision_value(2)), (SCHEDULED_COMPACT, revision_value(6))]
    with BoltReader(make_etcd_db([(key.encode(), value) for key, value in items], meta=meta)) as reader:
        found = hash_kv(reader)

    # A compaction that was interrupted is resumed when etcd starts: it reports the scheduled one at once.
    assert (found.revision, found.compact_revision) == (11, 6)
    assert found.hash_kv == Reference(items).hash_kv(11, 6)
    assert found.elements == 5


def test_impossible_revisions_are_refused(make_etcd_db: MakeDb) -> None:
    items = items_of(history(10, keys=3))
    with BoltReader(make_etcd_db([(key.encode(), value) for key, value in items])) as reader:
        with pytest.raises(ConfigError, match="ends at revision 11"):
            hash_kv(reader, revision=12)
        with pytest.raises(RevisionCompacted, match="compacted at revision 5"):
            hash_kv(reader, revision=4, compact_revision=5)


def test_the_last_revision_of_an_emptied_database_is_that_of_its_compaction(make_etcd_db: MakeDb) -> None:
    meta = [(FINISHED_COMPACT, revision_value(7)), (SCHEDULED_COMPACT, revision_value(9))]
    with BoltReader(make_etcd_db([], meta=meta)) as reader:
        state = read_state(reader)
    assert (state.revision, state.compact_revision, state.finished_compact_revision) == (9, 9, 7)


def test_a_database_of_another_program_is_refused(make_bolt: MakeDb) -> None:
    with BoltReader(make_bolt({b"b": []})) as reader, pytest.raises(MalformedContent, match="not a database of etcd"):
        read_state(reader)


def test_values_that_are_no_key_values_are_refused(make_etcd_db: MakeDb) -> None:
    with (
        BoltReader(make_etcd_db([(revision_value(2), b"\xff")])) as reader,
        pytest.raises(MalformedContent, match="not a KeyValue"),
    ):
        hash_kv(reader, compact_revision=1)
