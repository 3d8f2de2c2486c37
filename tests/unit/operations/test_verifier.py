"""What a check of a store finds, and what it says about the chains."""

import pytest
from snapshot_fakes import (
    add_chain,
    add_delta,
    add_full,
    damage,
    delta_content,
    golden,
    read,
    store,
    transfer,
    with_trailer,
)

from backupagent.errors import AccessDenied, EmptySource, StoreUnavailable
from backupagent.model.manifest import FORMAT, Manifest
from backupagent.operations.report import VerifyReport
from backupagent.operations.verifier import Verifier
from backupagent.settings import VerifySettings
from backupagent.snapstore import SnapStore
from backupagent.stores.memory import MemoryStore
from backupagent.testing.faulty import Fault, FaultyStore


def verify(where: SnapStore, *, newest_chain_only: bool = False, part_size: int = 64 * 1024) -> VerifyReport:
    settings = VerifySettings(store="memory://m/p", newest_chain_only=newest_chain_only)
    return Verifier(where, settings, transfer(part_size=part_size)).run()


def reasons(report: VerifyReport) -> dict[str, str]:
    return {problem.key.rpartition("/")[2]: problem.reason for problem in report.problems}


@pytest.mark.parametrize("compression", ["none", "gzip", "zlib-final", "lzw-final"])
def test_golden_buckets_are_whole(compression: str) -> None:
    where = golden(compression)
    report = verify(where, part_size=100)
    sizes = [stored.size for stored in where.list().snapshots]
    assert (report.ok, report.problems) == (True, ())
    assert (report.checked, report.bytes) == (len(sizes), sum(sizes))


def test_every_chain_is_told_up_to_where_it_can_be_restored() -> None:
    where = store()
    old = add_chain(where, 5, 7, 9, 11)
    new = add_chain(where, 20, 22)
    damage(where, old[2])
    damage(where, new[0])
    report = verify(where)
    assert [(chain.full, chain.last_revision, chain.deltas, chain.ok) for chain in report.chains] == [
        (new[0], 0, 1, False),
        (old[0], 7, 3, False),
    ]
    assert reasons(report) == {new[0]: "ChecksumMismatch", old[2]: "ChecksumMismatch"}
    assert report.checked == 6


def test_only_the_newest_chain() -> None:
    where = store()
    damage(where, add_full(where, 5))
    add_delta(where, 2, 3)
    add_chain(where, 20, 22)
    report = verify(where, newest_chain_only=True)
    assert (report.ok, report.checked, len(report.chains)) == (True, 2, 1)


def test_gaps_orphans_and_strangers() -> None:
    where = store()
    orphan = add_delta(where, 2, 3)
    add_full(where, 5)
    late = add_delta(where, 8, 9)
    where.store.put("p/v2/stranger", b"x")
    report = verify(where)
    assert reasons(report) == {orphan: "RevisionGap", late: "RevisionGap", "stranger": "BadSnapshotName"}
    details = {problem.reason: problem.detail for problem in report.problems if problem.key.endswith(late)}
    assert "revisions 6 to 7 are missing before this delta" in details["RevisionGap"]
    assert all(problem.hint for problem in report.problems)
    assert report.chains[0].last_revision == 5


def test_a_hole_inside_a_delta() -> None:
    where = store()
    add_full(where, 5)
    name = add_delta(where, 6, 9)
    where.store.put(where.layout.snapshot(name), with_trailer(delta_content(6, 9)))
    report = verify(where)
    assert reasons(report) == {name: "RevisionGap"}
    assert "revisions 7 to 8 are missing inside" in report.problems[0].detail


def test_a_changed_byte_in_a_delta_speaks_before_what_it_makes_of_the_revisions() -> None:
    where = store()
    add_full(where, 5)
    name = add_delta(where, 6, 9)
    key = where.layout.snapshot(name)
    where.store.put(key, read(where, key).replace(b'"mod_revision":7', b'"mod_revision":8', 1))
    assert reasons(verify(where)) == {name: "ChecksumMismatch"}


def test_a_bad_manifest_is_the_problem_of_its_snapshot() -> None:
    where = store()
    full, delta = add_chain(where, 5, 7)
    where.store.put(where.layout.manifest(full), b"[]")
    where.save_manifest(Manifest(format=FORMAT, name=delta, kind="Incr", stored_sha256="0" * 64))
    report = verify(where)
    assert {problem.reason for problem in report.problems} == {"MalformedContent", "ChecksumMismatch"}


def test_an_object_that_became_shorter_does_not_hide_those_behind_it() -> None:
    faulty = FaultyStore(MemoryStore(), Fault("read_into", nth=2, truncate=True))
    where = store(faulty)
    first, second, third = add_chain(where, 5, 7, 9)
    settings = VerifySettings(store="memory://m/p")
    report = Verifier(where, settings, transfer(workers=1)).run()
    faulty.assert_all_hit()
    assert reasons(report) == {second: "TruncatedObject"}
    assert (report.checked, report.chains[0].last_revision) == (3, 5)
    assert {first, third}.isdisjoint(reasons(report))


def test_a_store_that_fails_ends_the_check() -> None:
    denied = AccessDenied("planned", op="read")
    where = store(FaultyStore(MemoryStore(), Fault("read_into", nth=2, error=denied)))
    add_chain(where, 5, 7)
    with pytest.raises(AccessDenied):
        verify(where)


def test_a_store_that_fails_in_the_rest_of_a_damaged_object_is_asked_again() -> None:
    gone = StoreUnavailable("planned", op="read")
    faulty = FaultyStore(MemoryStore())
    where = store(faulty)
    full, delta = add_full(where, 5, codec="gzip"), add_delta(where, 6, 7)
    key = where.layout.snapshot(full)
    where.store.put(key, b"not gzip" + read(where, key))
    faulty.plan(Fault("read_into", nth=2, error=gone))
    report = Verifier(where, VerifySettings(store="memory://m/p"), transfer(workers=1, part_size=16)).run()
    faulty.assert_all_hit()
    assert reasons(report) == {full: "MalformedContent"}
    assert (report.checked, delta in reasons(report)) == (2, False)


def test_a_store_without_a_full() -> None:
    where = store()
    add_delta(where, 2, 3)
    with pytest.raises(EmptySource, match="1 delta snapshots but no full one"):
        verify(where)
