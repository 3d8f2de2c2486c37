"""Which delta belongs to which full, and what is missing between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent.errors import RevisionGap
from backupagent.model.chain import Chain, Gap, build_chains, orphans
from backupagent.model.snapshot import Snapshot, StoredSnapshot


def stored(name: str, size: int = 10) -> StoredSnapshot:
    return StoredSnapshot(Snapshot.parse(name), f"v2/{name}", size, "")


def full(last: int, created: int = 1, end: str = "") -> StoredSnapshot:
    return stored(f"Full-00000000-{last:08d}-{created}{end}")


def delta(start: int, last: int, created: int = 1) -> StoredSnapshot:
    return stored(f"Incr-{start:08d}-{last:08d}-{created}")


names = st.builds(
    lambda is_full, numbers, created: full(max(numbers), created) if is_full else delta(*sorted(numbers), created),
    is_full=st.booleans(),
    numbers=st.tuples(*[st.integers(0, 40)] * 2),
    created=st.integers(1, 3),
)


def test_deltas_go_to_the_newest_full_below_them() -> None:
    old, new = full(6), full(20)
    deltas = [delta(7, 11), delta(12, 20), delta(21, 25)]
    chains = build_chains([deltas[2], old, deltas[1], new, deltas[0]])
    assert chains == (Chain(new, (deltas[2],)), Chain(old, (deltas[0], deltas[1])))


def test_a_delta_that_overlaps_its_full_belongs_to_it() -> None:
    assert build_chains([full(10), delta(8, 12)]) == (Chain(full(10), (delta(8, 12),)),)


def test_a_delta_that_ends_with_the_full_belongs_to_the_older_one() -> None:
    chains = build_chains([full(5), full(10), delta(6, 10)])
    assert [chain.deltas for chain in chains] == [(), (delta(6, 10),)]


def test_of_two_fulls_of_one_revision_the_younger_is_newer_and_then_the_final() -> None:
    chains = build_chains([full(10, 1), full(10, 2), full(10, 2, ".final")])
    assert [chain.full for chain in chains] == [full(10, 2, ".final"), full(10, 2), full(10, 1)]


def test_a_chain_knows_its_end_its_size_and_its_objects() -> None:
    chain = Chain(full(6), (delta(7, 11), delta(8, 9)))
    assert (chain.last, chain.size) == (11, 30)
    assert chain.snapshots == (full(6), delta(7, 11), delta(8, 9))
    assert Chain(full(6)).last == 6


@pytest.mark.parametrize(
    ("deltas", "missing"),
    [
        ([], []),
        ([(7, 9), (10, 12)], []),
        ([(5, 9), (7, 12), (13, 13)], []),
        ([(8, 9)], [(7, 7)]),
        ([(7, 20), (9, 10), (21, 21)], []),
        ([(7, 8), (10, 11), (15, 16)], [(9, 9), (12, 14)]),
    ],
)
def test_gaps_are_what_no_name_covers(deltas: list[tuple[int, int]], missing: list[tuple[int, int]]) -> None:
    chain = Chain(full(6), tuple(delta(*numbers) for numbers in deltas))
    assert [(gap.first, gap.last) for gap in chain.gaps] == missing


def test_a_gap_names_the_range_and_the_delta_behind_it() -> None:
    chain = Chain(full(6), (delta(12, 17),))
    assert chain.gaps == (Gap(first=chain.gaps[0].first, last=chain.gaps[0].last, before=delta(12, 17).key),)
    with pytest.raises(RevisionGap, match="revisions 7 to 11 are missing before this delta") as caught:
        chain.require_contiguous()
    assert caught.value.key == delta(12, 17).key


def test_a_whole_chain_is_accepted() -> None:
    chain = Chain(full(6), (delta(7, 11), delta(11, 17)))
    chain.require_contiguous()
    assert chain.gaps == ()


def test_deltas_older_than_every_full_are_orphans() -> None:
    assert orphans([full(20), delta(7, 11), delta(3, 6), delta(21, 22)]) == (delta(3, 6), delta(7, 11))
    assert orphans([delta(7, 11)]) == (delta(7, 11),)


def test_the_newest_chain_has_the_highest_revision_not_the_latest_time() -> None:
    assert build_chains([full(9, 5), full(10, 1), delta(11, 12)])[0].full == full(10, 1)


def test_without_a_full_there_is_no_chain() -> None:
    assert build_chains([]) == build_chains([delta(1, 2)]) == ()


@given(st.lists(names, unique_by=lambda snapshot: snapshot.key))
def test_every_snapshot_is_in_exactly_one_place(there: list[StoredSnapshot]) -> None:
    chains = build_chains(there)
    placed = [snapshot for chain in chains for snapshot in chain.snapshots] + list(orphans(there))
    assert sorted(snapshot.key for snapshot in placed) == sorted(snapshot.key for snapshot in there)


@given(st.lists(names, unique_by=lambda snapshot: snapshot.key))
def test_gaps_and_names_cover_every_revision_of_a_chain(there: list[StoredSnapshot]) -> None:
    for chain in build_chains(there):
        covered = set(range(chain.full.snapshot.last + 1))
        for part in chain.deltas:
            covered |= set(range(part.snapshot.start, part.snapshot.last + 1))
        missing = {revision for gap in chain.gaps for revision in range(gap.first, gap.last + 1)}
        assert covered | missing == set(range(chain.last + 1))
        assert not covered & missing


@given(st.lists(names, unique_by=lambda snapshot: snapshot.key), st.randoms(use_true_random=False))
def test_the_order_of_the_listing_does_not_matter(there: list[StoredSnapshot], random: object) -> None:
    shuffled = list(there)
    random.shuffle(shuffled)  # type: ignore[attr-defined] # hypothesis gives a random.Random
    assert build_chains(shuffled) == build_chains(there)
