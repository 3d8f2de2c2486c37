"""Objects arrive whole, inspected in order, whatever the order of their parts."""

import threading
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transfer_fakes import (
    JOURNAL,
    LIMIT_S,
    CancelAtLook,
    Digest,
    Gate,
    HookedStore,
    Log,
    copy_item,
    fill,
    journal_of,
    open_at_close,
    peak_size,
    transfer,
    unavailable,
)

from backupagent import failpoints
from backupagent.errors import Cancelled, ConfigError, StoreUnavailable
from backupagent.stores.base import StoreLimits
from backupagent.testing.faulty import FaultyStore
from backupagent.transfer.buffers import BufferPool
from backupagent.transfer.copying import copy_objects
from backupagent.transfer.items import Copied, CopyItem


def assert_copied(target: HookedStore, objects: Mapping[str, bytes], items: list[CopyItem]) -> None:
    for item in items:
        data = objects[item.source_key]
        assert target.get(item.target_key) == data, item.target_key
        assert isinstance(item.inspector, Digest)
        assert item.inspector.saw(data), item.target_key


def assert_nothing_is_left(target: HookedStore) -> None:
    assert target.open_uploads() == []
    assert target.names(JOURNAL) == []


@given(
    sizes=st.lists(st.integers(0, 40), max_size=6),
    workers=st.integers(1, 5),
    window=st.integers(1, 4),
    part_size=st.integers(1, 12),
)
def test_every_object_is_copied_and_inspected_in_order(
    sizes: list[int], workers: int, window: int, part_size: int
) -> None:
    source, target = HookedStore(), HookedStore()
    objects = fill(source, sizes)
    items = [copy_item(source, key) for key in objects]
    how = transfer(workers, window, part_size)

    outcome = copy_objects(source, target, items, journal_of(target), how)

    assert [copied.item for copied in outcome.copied] == items
    assert [copied.info for copied in outcome.copied] == [target.stat(item.target_key) for item in items]
    assert outcome.failed == ()
    assert_copied(target, objects, items)
    assert_nothing_is_left(target)
    assert how.progress.view().done == sum(sizes)
    assert peak_size() <= (workers + window) * part_size


@given(order=st.permutations(range(6)), phase=st.sampled_from(["read", "upload"]))
def test_parts_may_end_in_any_order(order: list[int], phase: str) -> None:
    """All six parts are on their way at once, and end in an order that the test decides."""
    source, target = HookedStore(), HookedStore()
    objects = fill(source, [23])
    turns = [threading.Event() for _ in range(7)]
    turns[0].set()
    turn_of = {part: turn for turn, part in enumerate(order)}

    def wait_for_turn(part: int) -> None:
        assert turns[turn_of[part]].wait(LIMIT_S)

    def end_turn(part: int) -> None:
        turns[turn_of[part] + 1].set()

    def turn_in_read(_key: str, offset: int) -> None:
        wait_for_turn(offset // 4)
        end_turn(offset // 4)

    if phase == "read":
        source.on_read = turn_in_read
    else:
        target.on_part = lambda number: wait_for_turn(number - 1)
        target.after_part = lambda number: end_turn(number - 1)
    items = [copy_item(source, "0")]

    # While uploads are held none of their buffers is free: one for each part.
    copy_objects(source, target, items, journal_of(target), transfer(workers=6, window=1, part_size=4))

    assert_copied(target, objects, items)
    assert sorted(target.parts) == [1, 2, 3, 4, 5, 6]


def test_a_slow_part_stalls_nobody_inside_the_window() -> None:
    source, target, slow, uploaded = HookedStore(), HookedStore(), Gate(), Log()
    objects = fill(source, [100])
    source.on_read = lambda _key, offset: slow.hold() if offset == 0 else None
    target.after_part = uploaded.add
    items = [copy_item(source, "0")]
    how = transfer(workers=3, window=4, part_size=5)
    copying = threading.Thread(target=copy_objects, args=(source, target, items, journal_of(target), how))
    copying.start()
    uploaded.wait_for(6)  # 3 + 4 buffers, one of them with the slow part
    assert sorted(map(str, uploaded.seen)) == list("234567")
    slow.open()
    copying.join()
    assert_copied(target, objects, items)
    assert peak_size() == 7 * 5


def test_a_slow_inspection_holds_up_no_upload_inside_the_window() -> None:
    source, target, slow, uploaded = HookedStore(), HookedStore(), Gate(), Log()
    objects = fill(source, [24])

    class Slow(Digest):
        def update(self, data: memoryview) -> None:
            if not self.size:
                slow.hold()
            super().update(data)

    target.after_part = uploaded.add
    items = [copy_item(source, "0", Slow())]
    how = transfer(workers=2, window=4, part_size=4)
    copying = threading.Thread(target=copy_objects, args=(source, target, items, journal_of(target), how))
    copying.start()
    uploaded.wait_for(5)  # all but the one whose worker inspects
    slow.open()
    copying.join()
    assert_copied(target, objects, items)


def test_small_objects_pass_a_large_one_that_is_slow() -> None:
    source, target, slow, published = HookedStore(), HookedStore(), Gate(), Log()
    objects = fill(source, [10, 2, 3, 1])
    source.on_read = lambda key, offset: slow.hold() if (key, offset) == ("0", 0) else None
    items = [copy_item(source, key) for key in objects]

    def copy() -> None:
        how = transfer(workers=2, window=3, part_size=5)
        copy_objects(
            source,
            target,
            items,
            journal_of(target),
            how,
            published=lambda copied: published.add(copied.item.source_key),
        )

    copying = threading.Thread(target=copy)
    copying.start()
    published.wait_for(3)
    assert published.seen == ["1", "2", "3"]
    slow.open()
    copying.join()
    assert published.seen == ["1", "2", "3", "0"]
    assert_copied(target, objects, items)


def test_nothing_to_copy() -> None:
    outcome = copy_objects(HookedStore(), HookedStore(), [], journal_of(HookedStore()), transfer())
    assert outcome.copied == outcome.failed == ()


@pytest.mark.parametrize(("size", "parts"), [(0, []), (1, []), (9, []), (10, []), (11, [1, 2]), (20, [1, 2])])
def test_an_object_that_fits_into_one_part_is_put(size: int, parts: list[int]) -> None:
    source, target = HookedStore(), HookedStore()
    objects = fill(source, [size])
    items = [copy_item(source, "0")]
    copy_objects(source, target, items, journal_of(target), transfer(part_size=10))
    assert_copied(target, objects, items)
    assert sorted(target.parts) == parts


def test_an_empty_object_is_copied_without_reading() -> None:
    inner, target = HookedStore(), HookedStore()
    fill(inner, [0])
    source = FaultyStore(inner)
    items = [copy_item(inner, "0")]
    copy_objects(source, target, items, journal_of(target), transfer())
    assert_copied(target, {"0": b""}, items)
    assert not source.calls


def test_parts_keep_to_the_limits_of_the_target() -> None:
    source, target = HookedStore(), HookedStore(limits=StoreLimits(min_part=8, max_part=50, max_parts=4))
    objects = fill(source, [7, 8, 9, 33])
    items = [copy_item(source, key) for key in objects]
    copy_objects(source, target, items, journal_of(target), transfer(part_size=1))
    assert_copied(target, objects, items)
    assert sorted(target.parts) == [1, 1, 2, 2, 3, 4]  # 9 bytes in parts of 8, 33 in parts of 9


def test_an_object_too_large_for_the_target_is_refused_before_anything_is_read() -> None:
    inner, target = HookedStore(), HookedStore(limits=StoreLimits(max_part=4, max_parts=2))
    objects = fill(inner, [3, 9])
    source = FaultyStore(inner)
    items = [copy_item(inner, key) for key in objects]
    with pytest.raises(ConfigError, match="9 bytes does not fit"):
        copy_objects(source, target, items, journal_of(target), transfer())
    assert not source.calls
    assert target.names() == []


def test_metadata_is_asked_for_after_the_inspection_and_only_where_it_can_be_given() -> None:
    source, target = HookedStore(), HookedStore()
    objects = fill(source, [3, 9])
    asked: list[int] = []
    inspectors = {key: Digest() for key in objects}

    def item(key: str) -> CopyItem:
        def metadata() -> Mapping[str, str]:
            asked.append(inspectors[key].finished)
            return {"digest": inspectors[key].sha256.hexdigest()}

        return copy_item(source, key, inspectors[key], metadata)

    outcome = copy_objects(source, target, [item(key) for key in objects], journal_of(target), transfer(part_size=4))

    digest = {"digest": inspectors["0"].sha256.hexdigest()}
    assert asked == [1]
    assert [copied.metadata for copied in outcome.copied] == [digest, {}]
    assert [target.stat(f"copy/{key}").metadata for key in objects] == [digest, {}]


def test_publishing_is_told_once_the_object_is_visible() -> None:
    source, target = HookedStore(), HookedStore()
    objects = fill(source, [3, 9])
    seen: dict[str, bytes] = {}

    def published(copied: Copied) -> None:
        seen[copied.item.source_key] = target.get(copied.info.key)

    items = [copy_item(source, key) for key in objects]
    copy_objects(source, target, items, journal_of(target), transfer(), published=published)
    assert seen == objects


@pytest.mark.parametrize(("size", "told"), [(3, []), (9, [[]])])
def test_an_object_in_parts_is_announced_before_it_is_visible(size: int, told: list[list[str]]) -> None:
    source, target = HookedStore(), HookedStore()
    objects = fill(source, [size])
    seen: list[list[str]] = []
    inspector = Digest()

    def ready() -> None:
        assert inspector.saw(objects["0"])
        seen.append(target.names("copy/"))

    copy_objects(
        source, target, [copy_item(source, "0", inspector, ready=ready)], journal_of(target), transfer(part_size=8)
    )
    assert seen == told
    assert target.names("copy/") == ["copy/0"]


@pytest.mark.parametrize("size", [3, 9])
def test_an_error_while_publishing_stops_the_copy(size: int) -> None:
    source, target = HookedStore(), HookedStore()
    fill(source, [size])

    def published(_copied: Copied) -> None:
        raise unavailable("manifest")

    with pytest.raises(StoreUnavailable, match="manifest"):
        copy_objects(source, target, [copy_item(source, "0")], journal_of(target), transfer(), published=published)


# ---- stopping


def test_a_set_token_stops_it_before_the_first_part() -> None:
    source, target, how = FaultyStore(HookedStore()), HookedStore(), transfer()
    source.put("0", b"content")
    how.cancel.set("a test")
    with pytest.raises(Cancelled, match="stopped by a test"):
        copy_objects(source, target, [copy_item(source, "0")], journal_of(target), how)
    assert not source.calls["read_into"]


def test_a_set_token_is_seen_by_whoever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both workers are held in the store; only the thread that waits for them can look."""
    source, target, reading = HookedStore(), HookedStore(), Gate()
    fill(source, [8])
    open_at_close(reading, monkeypatch)
    source.on_read = lambda _key, _offset: reading.hold()
    how = transfer(workers=2, part_size=4, cancel=CancelAtLook(3))
    with pytest.raises(Cancelled, match="look 3"):
        copy_objects(source, target, [copy_item(source, "0")], journal_of(target), how)


def test_workers_that_wait_for_a_buffer_end_when_the_copy_is_stopped() -> None:
    """Every buffer waits behind the first part, whose reader meets an error that stops everything."""
    source, target, uploaded = HookedStore(), HookedStore(), Log()
    fill(source, [100])

    def on_read(_key: str, offset: int) -> None:
        if offset == 0:
            uploaded.wait_for(4)
            raise unavailable("read")

    source.on_read = on_read
    target.after_part = uploaded.add
    with pytest.raises(StoreUnavailable):
        copy_objects(
            source, target, [copy_item(source, "0")], journal_of(target), transfer(workers=3, window=2, part_size=4)
        )
    assert sorted(map(str, uploaded.seen)) == list("2345")


def test_no_memory_for_a_buffer_is_an_error_and_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = HookedStore(), HookedStore()
    fill(source, [8])

    def acquire(_pool: BufferPool, _size: int, timeout_s: float | None = None) -> bytearray:
        raise MemoryError("planned")

    monkeypatch.setattr(BufferPool, "acquire", acquire)
    with pytest.raises(MemoryError, match="planned"):
        copy_objects(source, target, [copy_item(source, "0")], journal_of(target), transfer())


@pytest.mark.parametrize(("point", "size"), [("transfer.part", 3), ("transfer.complete", 3), ("transfer.complete", 9)])
def test_failpoints_are_passed_before_anything_is_visible(point: str, size: int) -> None:
    source, target = HookedStore(), HookedStore()
    fill(source, [size])
    failpoints.arm(f"{point}=unavailable")
    with pytest.raises(StoreUnavailable, match="failpoint"):
        copy_objects(source, target, [copy_item(source, "0")], journal_of(target), transfer())
    assert target.names("copy/") == []
