"""What a listing says from names alone."""

import pytest
from snapshot_fakes import add_chain, add_delta, add_full, store

from backupagent.errors import EmptySource
from backupagent.model.manifest import FORMAT, Manifest
from backupagent.operations.lister import Lister
from backupagent.operations.report import ListReport
from backupagent.progress import Progress
from backupagent.snapstore import SnapStore
from backupagent.stores.memory import MemoryStore
from backupagent.testing.faulty import FaultyStore


def listed(where: SnapStore) -> ListReport:
    return Lister(where, Progress()).run()


def test_chains_with_gaps_newest_first() -> None:
    where = store()
    orphan = add_delta(where, 2, 3)
    old = add_chain(where, 5, 7)
    late = add_delta(where, 10, 12)
    new = add_full(where, 20, final=True)
    where.store.put("p/v2/stranger", b"x")
    where.save_manifest(Manifest(format=FORMAT, name=new, kind="Full"))
    report = listed(where)
    first, second = report.chains
    assert (first.full.name, first.full.final, first.full.manifest, first.gaps) == (new, True, True, ())
    assert (second.full.name, second.full.manifest) == (old[0], False)
    assert [delta.name for delta in second.deltas] == [old[1], late]
    assert (second.gaps, second.last_revision, first.last_revision) == (((8, 9),), 7, 20)
    assert second.size == sum(found.size for found in [second.full, *second.deltas])
    assert [found.name for found in report.orphans] == [orphan]
    assert report.unreadable == ("p/v2/stranger",)
    assert (report.store, [phase.name for phase in report.phases]) == (where.display, ["list"])


def test_times_of_names_and_what_no_calendar_has() -> None:
    where = store()
    add_full(where, 5)
    where.store.put("p/v2/Full-00000000-00000006-999999999999", b"x")
    newest, other = listed(where).chains
    assert (newest.full.created, other.full.created) == ("999999999999", "2026-01-01T00:00:00Z")


def test_contents_are_not_read() -> None:
    faulty = FaultyStore(MemoryStore())
    where = store(faulty)
    add_chain(where, 5, 7)
    listed(where)
    assert (faulty.calls["read_into"], faulty.calls["stat"]) == (0, 0)


def test_nothing_at_all_is_an_error_and_strangers_alone_are_not() -> None:
    where = store()
    with pytest.raises(EmptySource):
        listed(where)
    where.store.put("p/v2/stranger", b"x")
    report = listed(where)
    assert (report.chains, report.unreadable) == ((), ("p/v2/stranger",))
