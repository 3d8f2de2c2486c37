"""What the store copies by itself: it does not pass through here, is resumed, and falls back when it is refused."""

import threading
from dataclasses import replace

import pytest
from transfer_fakes import (
    JOURNAL,
    CancelAtLook,
    Digest,
    HookedStore,
    content,
    copy_item,
    fill,
    journal_of,
    transfer,
    unavailable,
)

from backupagent.clock import SYSTEM_CLOCK
from backupagent.errors import (
    AccessDenied,
    BackupAgentError,
    Cancelled,
    ChecksumMismatch,
    ObjectChanged,
    ObjectNotFound,
    StoreError,
    StoreUnavailable,
)
from backupagent.progress import Progress
from backupagent.stores.base import Copies, CopySource, ObjectInfo, ObjectStore
from backupagent.testing.faulty import Fault, FaultyStore
from backupagent.transfer.by_store import Planner
from backupagent.transfer.context import Transfer
from backupagent.transfer.copying import copy_objects
from backupagent.transfer.items import CopyItem, CopyOutcome
from backupagent.transfer.object_state import ObjectState
from backupagent.transfer.plan import plan_parts
from backupagent.transfer.store_copier import StoreCopier
from backupagent.transfer.target import PartedObject, PartTarget

COPIES = Copies("here", smallest=8, whole=20, part=10)
WHOLE, PARTS = content(20), content(43)


def stores(sizes: tuple[int, ...] = (43,)) -> tuple[HookedStore, HookedStore, dict[str, bytes]]:
    source = HookedStore(copies=COPIES)
    return source, HookedStore(copies=COPIES), fill(source, sizes)


def items(source: HookedStore, target: ObjectStore, keys: dict[str, bytes]) -> list[CopyItem]:
    planner = Planner(source, target, wanted=True)
    made = []
    for key in keys:
        info = source.stat(key)
        made.append(copy_item(source, key, by_store=planner.plan(key, info.size, info.etag)))
    source.reads = 0
    return made


def copy(source: HookedStore, target: ObjectStore, keys: dict[str, bytes], how: Transfer | None = None) -> CopyOutcome:
    wanted = items(source, target, keys)
    return copy_objects(source, target, wanted, journal_of(target), how or transfer())


def denied() -> AccessDenied:
    return AccessDenied("planned", op="copy", key="0")


def holds(target: HookedStore, keys: dict[str, bytes]) -> bool:
    return all(target.get(f"copy/{key}") == data for key, data in keys.items()) and target.names(JOURNAL) == []


# ---- copied


@pytest.mark.parametrize(("size", "requests"), [(20, [0]), (43, [1, 2, 3, 4, 5]), (21, [1, 2, 3])])
def test_nothing_passes_through_here(size: int, requests: list[int]) -> None:
    source, target, keys = stores((size,))
    how = transfer()
    [item] = items(source, target, keys)
    seen: list[object] = []
    outcome = copy_objects(source, target, [item], journal_of(target), how, published=seen.append)
    assert holds(target, keys)
    assert (sorted(target.copied), target.parts, source.reads) == (requests, [], 0)
    [copied] = outcome.copied
    assert copied.by_store is not None
    assert (copied.by_store.size, copied.by_store.agreed, copied.reread, copied.metadata) == (size, True, 0, {})
    assert isinstance(item.inspector, Digest)
    assert (item.inspector.unseen, item.inspector.size, item.inspector.finished) == (1, 0, 0)
    assert how.progress.view().done == size
    assert (seen, outcome.refusal, target.open_uploads()) == ([copied], None, [])


def test_both_ways_in_one_copy_and_in_the_order_of_the_items() -> None:
    source, target, keys = stores((43, 3, 20, 7, 0))
    how = transfer()
    outcome = copy(source, target, keys, how)
    assert [done.item.source_key for done in outcome.copied] == list(keys)
    assert [done.by_store is not None for done in outcome.copied] == [True, False, True, False, False]
    assert holds(target, keys)
    assert how.progress.view().done == 73


def test_no_memory_is_taken_for_what_the_store_copies() -> None:
    source, target, keys = stores((43, 20))
    copy(source, target, keys)
    assert source.buffers == {}
    assert target.buffers == {}


def test_a_digest_that_nobody_tells_is_not_claimed() -> None:
    class Silent(HookedStore):
        def copy_source(self, key: str, *, etag: str = "") -> CopySource:
            source = super().copy_source(key, etag=etag)
            return replace(source, info=replace(source.info, digests={}))

    source, target = Silent(copies=COPIES), HookedStore(copies=COPIES)
    keys = fill(source, (43, 20))
    outcome = copy(source, target, keys)
    assert [done.by_store is not None and done.by_store.agreed for done in outcome.copied] == [False, False]
    assert holds(target, keys)


@pytest.mark.parametrize("size", [20, 43])
def test_an_object_that_must_not_pass_unseen_fails_alone(size: int) -> None:
    source, target, keys = stores((size, 9))
    wanted = items(source, target, keys)
    wanted[0] = replace(wanted[0], inspector=Digest(bad_unseen=True))
    outcome = copy_objects(source, target, wanted, journal_of(target), transfer())
    assert [type(error) for _item, error in outcome.failed] == [ChecksumMismatch]
    assert target.names("copy/") == ["copy/1"]
    assert (target.open_uploads(), target.names(JOURNAL), outcome.refusal) == ([], [], None)


# ---- refused


@pytest.mark.parametrize("method", ["copy_object", "copy_part"])
@pytest.mark.parametrize("error", [denied(), unavailable("copy"), ObjectNotFound("no bucket", op="copy", key="0")])
def test_a_refusal_of_the_first_lets_everything_go_the_ordinary_way(
    method: str, error: BackupAgentError, caplog: pytest.LogCaptureFixture
) -> None:
    source, inner, keys = stores((20, 43, 20, 5) if method == "copy_object" else (43, 20, 43, 5))
    target = FaultyStore(inner, Fault(method, error=error))
    how = transfer(workers=1)
    outcome = copy(source, target, keys, how)
    assert holds(inner, keys)
    assert [done.by_store for done in outcome.copied] == [None] * 4
    assert [done.item.source_key for done in outcome.copied] == list(keys)
    assert target.calls["copy_object"] + target.calls["copy_part"] == 1
    assert outcome.refusal is error
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"the store does not copy by itself, the bytes go through here: {error}"
    ]
    assert (how.progress.view().done, inner.open_uploads()) == (sum(map(len, keys.values())), [])


@pytest.mark.parametrize("nth", [2, 3, 5])
@pytest.mark.parametrize("workers", [1, 4])
def test_a_refusal_in_the_middle_of_an_object(nth: int, workers: int) -> None:
    source, inner, keys = stores((43, 43, 3))
    target = FaultyStore(inner, Fault("copy_part", nth=nth, error=denied(), times=20))
    how = transfer(workers=workers)
    outcome = copy(source, target, keys, how)
    assert holds(inner, keys)
    assert isinstance(outcome.refusal, AccessDenied)
    assert (how.progress.view().done, inner.open_uploads()) == (89, [])


def test_a_part_that_lands_after_its_object_was_left_is_not_counted() -> None:
    source, target, keys = stores()
    [item] = items(source, target, keys)
    assert item.by_store is not None
    progress = Progress()
    copier = StoreCopier(target, progress, lambda _state, _copied: None)
    parts = plan_parts(item.size, item.by_store.part_size)
    upload = PartTarget(target, PartedObject("copy/0", 10, "n", copied=True), journal_of(target), SYSTEM_CLOCK)
    state = ObjectState(item, parts, upload)
    copier.move(state, parts[0], item.by_store)
    assert progress.view().done == 10
    target.on_part = lambda _number: copier.leave(state)
    copier.move(state, parts[1], item.by_store)
    assert progress.view().done == 0
    copier.move(state, parts[2], item.by_store)
    assert target.copied == [1, 2]
    assert not copier.settle(state, upload, item.by_store)


def test_parts_that_do_not_become_an_object_go_the_ordinary_way() -> None:
    source, inner, keys = stores((43,))
    target = FaultyStore(inner, Fault("complete_upload", error=StoreError("planned", op="complete", key="0")))
    outcome = copy(source, target, keys, transfer(workers=1))
    assert (str(outcome.refusal), outcome.copied[0].by_store) == ("complete '0': planned", None)
    assert holds(inner, keys)
    assert inner.open_uploads() == []


def test_what_was_copied_before_a_refusal_stays() -> None:
    source, inner, keys = stores((20, 43, 20))
    target = FaultyStore(inner, Fault("copy_part", error=denied()))
    outcome = copy(source, target, keys, transfer(workers=1))
    assert [done.by_store is not None for done in outcome.copied] == [True, False, False]
    assert holds(inner, keys)


def test_what_has_begun_the_ordinary_way_goes_on_beside_a_refusal() -> None:
    """A large object is in the middle of its parts when the store refuses another one."""
    source, inner, keys = stores((30, 20))
    wanted = items(source, inner, keys)
    wanted[0] = replace(wanted[0], by_store=None)
    refused = threading.Event()

    class Store(FaultyStore):
        def copy_object(self, source: CopySource, key: str) -> ObjectInfo:
            try:
                return super().copy_object(source, key)
            finally:
                refused.set()

    # No part of the first object goes before the store has refused the second one.
    source.on_read = lambda key, _offset: key != "0" or refused.wait(30)
    target = Store(inner, Fault("copy_object", error=denied()))
    outcome = copy_objects(source, target, wanted, journal_of(target), transfer(workers=9))
    assert holds(inner, keys)
    assert [done.by_store for done in outcome.copied] == [None, None]
    assert [done.reread for done in outcome.copied] == [0, 0]
    assert sorted(inner.parts) == sorted([*range(1, 9), *range(1, 6)])


@pytest.mark.parametrize("error", [ObjectChanged("other", op="copy", key="1"), ObjectNotFound("gone", key="1", op="c")])
def test_an_error_about_one_object_is_its_own_once_the_store_has_copied(error: StoreError) -> None:
    source, inner, keys = stores((20, 20, 20))
    target = FaultyStore(inner, Fault("copy_object", nth=2, error=error))
    outcome = copy(source, target, keys, transfer(workers=1))
    assert [done.by_store is not None for done in outcome.copied] == [True, False, True]
    assert (outcome.refusal, holds(inner, keys)) == (None, True)


def test_an_object_that_was_replaced_fails_alone() -> None:
    source, target, keys = stores((20, 20))
    wanted = items(source, target, keys)
    source.put("1", content(20, seed=9))
    outcome = copy_objects(source, target, wanted, journal_of(target), transfer(workers=1))
    assert [(item.source_key, type(error)) for item, error in outcome.failed] == [("1", ObjectChanged)]
    assert target.names("copy/") == ["copy/0"]


def test_trouble_that_may_pass_stops_a_copy_that_works_and_the_next_run_goes_on() -> None:
    source, inner, keys = stores()
    target = FaultyStore(inner, Fault("copy_part", nth=3, error=unavailable("copy")))
    with pytest.raises(StoreUnavailable):
        copy(source, target, keys, transfer(workers=1))
    assert inner.copied == [1, 2]
    inner.copied.clear()
    outcome = copy(source, inner, keys)
    assert sorted(inner.copied) == [3, 4, 5]
    [copied] = outcome.copied
    assert copied.by_store is not None
    assert (copied.by_store.size, copied.by_store.agreed) == (23, True)
    assert holds(inner, keys)


def test_a_cancelled_copy_is_taken_up_again() -> None:
    source, target, keys = stores()
    with pytest.raises(Cancelled):
        copy(source, target, keys, transfer(workers=1, cancel=CancelAtLook(3)))
    assert target.open_uploads() == ["copy/0"]
    copy(source, target, keys)
    assert holds(target, keys)
    assert target.open_uploads() == []


def test_a_copy_that_is_cancelled_while_the_store_waits_is_no_refusal() -> None:
    source, inner, keys = stores()
    target = FaultyStore(inner, Fault("copy_part", error=Cancelled("stop")))
    with pytest.raises(Cancelled):
        copy(source, target, keys, transfer(workers=1))


@pytest.mark.parametrize("by_store_first", [True, False])
def test_the_ways_do_not_take_up_each_others_uploads(by_store_first: bool) -> None:
    source, inner, keys = stores()
    method = "copy_part" if by_store_first else "upload_part"
    target = FaultyStore(inner, Fault(method, nth=3, error=unavailable()))
    by_store = items(source, inner, keys)
    ordinary = [replace(item, by_store=None, inspector=Digest()) for item in by_store]
    first, second = (by_store, ordinary) if by_store_first else (ordinary, by_store)
    how = transfer(workers=1, part_size=10)
    with pytest.raises(StoreUnavailable):
        copy_objects(source, target, first, journal_of(inner), how)
    copy_objects(source, inner, second, journal_of(inner), how)
    assert holds(inner, keys)
    assert inner.open_uploads() == []


# ---- a store that lies


def test_a_copy_of_another_size_is_found_without_a_digest() -> None:
    class Short(HookedStore):
        def copy_object(self, source: CopySource, key: str) -> ObjectInfo:
            info = super().copy_object(source, key)
            self.put(key, b"short")
            return replace(info, digests={})

    source, target = HookedStore(copies=COPIES), Short(copies=COPIES)
    keys = fill(source, (20,))
    outcome = copy(source, target, keys)
    assert isinstance(outcome.refusal, ChecksumMismatch)
    assert holds(target, keys)


@pytest.mark.parametrize("size", [20, 43])
def test_a_copy_with_another_digest_is_removed_and_the_store_trusted_no_more(size: int) -> None:
    class Liar(HookedStore):
        def copy_source(self, key: str, *, etag: str = "") -> CopySource:
            source = super().copy_source(key, etag=etag)
            return replace(source, info=replace(source.info, digests={"crc32": "another"}))

    source, target = Liar(copies=COPIES), FaultyStore(HookedStore(copies=COPIES))
    keys = fill(source, (size, 20))
    how = transfer(workers=1)
    published: list[object] = []
    wanted = items(source, target, keys)
    outcome = copy_objects(source, target, wanted, journal_of(target), how, published=published.append)
    assert isinstance(outcome.refusal, ChecksumMismatch)
    assert [done.by_store for done in outcome.copied] == [None, None]
    assert len(published) == 2
    assert target.calls["delete"] >= 1
    assert how.progress.view().done == size + 20
    buffer = bytearray(size)
    target.read_into("copy/0", memoryview(buffer))
    assert buffer == keys["0"]


def test_an_upload_that_cannot_be_thrown_away_after_a_refusal_is_no_obstacle() -> None:
    source, inner, keys = stores()
    target = FaultyStore(
        inner, Fault("copy_part", nth=2, error=denied()), Fault("abort_upload", error=unavailable("abort"))
    )
    copy(source, target, keys, transfer(workers=1))
    assert holds(inner, keys)
    target.assert_all_hit()
