"""What the store is to copy by itself, and in which parts; what can be compared afterwards."""

from dataclasses import replace

import pytest
from transfer_fakes import content, unavailable

from backupagent.errors import AccessDenied, StoreUnavailable
from backupagent.stores.base import Copies, CopySource, ObjectInfo, StoreLimits
from backupagent.stores.memory import MemoryStore
from backupagent.testing.faulty import Fault, FaultyStore
from backupagent.transfer.by_store import Planner, copy_part_size, digests_agree

COPIES = Copies("here", smallest=8, whole=20, part=10)


def stores() -> tuple[MemoryStore, MemoryStore]:
    source = MemoryStore(copies=COPIES)
    source.put("0", content(43))
    return source, MemoryStore(copies=COPIES)


def denied() -> AccessDenied:
    return AccessDenied("planned", op="copy", key="0")


@pytest.mark.parametrize(("size", "taken"), [(7, False), (8, True), (20, True), (21, True)])
def test_objects_below_the_smallest_go_through_here(size: int, taken: bool) -> None:
    source, target = stores()
    assert Planner(source, target, wanted=True).takes(size) is taken
    assert not Planner(source, target, wanted=False).takes(size)


def test_a_store_that_copies_no_ranges_takes_what_fits_into_one_request() -> None:
    copies = replace(COPIES, part=0)
    planner = Planner(MemoryStore(copies=copies), MemoryStore(copies=copies), wanted=True)
    assert planner.takes(20)
    assert not planner.takes(21)


@pytest.mark.parametrize("other", [None, replace(COPIES, service="elsewhere")])
def test_stores_that_are_not_on_one_service(other: Copies | None) -> None:
    able, unable = MemoryStore(copies=COPIES), MemoryStore(copies=other)
    for source, target in ((able, unable), (unable, able)):
        planner = Planner(source, target, wanted=True)
        assert not planner.takes(10)
        assert planner.plan("0", 10, "") is None


@pytest.mark.parametrize(
    ("size", "own", "expected"),
    [(20, 0, 0), (21, 0, 10), (43, 6, 6), (20, 6, 6), (20, 1, 0), (43, 1, 10), (43, 90, 10), (63, 6, 10)],
)
def test_parts_are_those_of_the_source_where_that_is_possible(size: int, own: int, expected: int) -> None:
    limits = StoreLimits(min_part=5, max_part=50, max_parts=10)
    source = CopySource("c", ObjectInfo("k", size, "e", 0.0), part_size=own)
    assert copy_part_size(source, COPIES, limits) == expected


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ({"md5": "1"}, {"md5": "1"}, True),
        ({"md5": "1"}, {"md5": "2"}, False),
        ({"md5": "1", "crc32": "3"}, {"md5": "1", "crc32": "4"}, False),
        ({"md5": "1"}, {"crc32": "1"}, None),
        ({}, {"md5": "1"}, None),
    ],
)
def test_digests_are_compared_by_their_names(one: dict, other: dict, agree: bool | None) -> None:
    assert digests_agree(one, other) is agree


def test_an_object_that_went_or_changed_meanwhile_is_left_to_the_ordinary_way() -> None:
    source, target = stores()
    planner = Planner(source, target, wanted=True)
    assert planner.plan("gone", 43, "1") is None
    assert planner.plan("0", 43, "another") is None
    assert planner.refusal is None
    assert planner.plan("0", 43, source.stat("0").etag) is not None


def test_a_source_that_cannot_name_its_objects_is_not_asked_again() -> None:
    source, target = stores()
    faulty = FaultyStore(source, Fault("copy_source", error=denied()))
    planner = Planner(faulty, target, wanted=True)
    assert planner.plan("0", 43, "") is planner.plan("0", 43, "") is None
    assert isinstance(planner.refusal, AccessDenied)
    assert faulty.calls["copy_source"] == 1


def test_a_source_that_is_not_there_now_is_no_refusal() -> None:
    source, target = stores()
    planner = Planner(FaultyStore(source, Fault("copy_source", error=unavailable())), target, wanted=True)
    with pytest.raises(StoreUnavailable):
        planner.plan("0", 43, "")


def test_an_object_that_is_described_with_another_size_is_left_to_the_ordinary_way() -> None:
    source, target = stores()
    assert Planner(source, target, wanted=True).plan("0", 44, "") is None
