"""Every byte in order, once, read ahead in bounded memory; whatever happens, all threads end."""

import gc
import itertools
import threading
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transfer_fakes import (
    LIMIT_S,
    CancelAtLook,
    Gate,
    HookedStore,
    Log,
    content,
    fill,
    open_at_close,
    peak_size,
    transfer,
    unavailable,
)

from backupagent.errors import Cancelled, ObjectChanged, ObjectNotFound, StoreUnavailable
from backupagent.stores.memory import MemoryStore
from backupagent.testing.faulty import FaultyStore
from backupagent.transfer.buffers import BufferPool
from backupagent.transfer.context import Transfer
from backupagent.transfer.reading import Piece, ReadItem, read_objects


def items_of(store: MemoryStore) -> list[ReadItem]:
    return [ReadItem(info.key, info.size, info.etag) for info in store.list_objects("")]


def read_all(store: MemoryStore | FaultyStore, items: list[ReadItem], how: Transfer) -> dict[str, bytes]:
    """Read, and check that pieces come in order and that exactly the last of each object says so."""
    got: dict[str, bytes] = {}
    pieces: list[tuple[int, bool]] = []
    for piece in read_objects(store, items, how):
        key = items[piece.index].key
        got[key] = got.get(key, b"") + bytes(piece.data)
        pieces.append((piece.index, piece.last))
    for index, group in itertools.groupby(pieces, key=lambda piece: piece[0]):
        lasts = [last for _index, last in group]
        assert lasts == [False] * (len(lasts) - 1) + [True], f"object {index}"
    assert [index for index, _group in itertools.groupby(pieces, key=lambda piece: piece[0])] == list(range(len(items)))
    return got


@given(
    sizes=st.lists(st.integers(0, 40), max_size=6),
    workers=st.integers(1, 5),
    window=st.integers(1, 4),
    part_size=st.integers(1, 12),
)
def test_every_byte_comes_once_and_in_order(sizes: list[int], workers: int, window: int, part_size: int) -> None:
    store = HookedStore()
    objects = fill(store, sizes)
    how = transfer(workers, window, part_size)

    assert read_all(store, items_of(store), how) == objects
    assert how.progress.view().done == sum(sizes)
    assert peak_size() <= (workers + window) * part_size


def test_reads_that_end_in_any_order_are_handed_out_in_order() -> None:
    store = HookedStore()
    objects = fill(store, [16])
    first = threading.Event()

    def on_read(_key: str, offset: int) -> None:
        if offset == 12:
            first.set()
        else:
            assert first.wait(LIMIT_S)

    store.on_read = on_read
    assert read_all(store, items_of(store), transfer(workers=4, part_size=4)) == objects


def test_a_slow_part_stalls_nobody_before_all_buffers_are_full() -> None:
    store, slow, begun = HookedStore(), Gate(), Log()
    fill(store, [100])

    def on_read(_key: str, offset: int) -> None:
        begun.add(offset)
        if offset == 0:
            slow.hold()

    store.on_read = on_read
    pieces = read_objects(store, items_of(store), transfer(workers=3, window=4, part_size=5))
    got: list[bytes] = []
    consumer = threading.Thread(target=lambda: got.extend(bytes(piece.data) for piece in pieces))
    consumer.start()
    begun.wait_for(7)
    assert sorted(begun.seen, key=str) == sorted((offset * 5 for offset in range(7)), key=str)
    slow.open()
    consumer.join()
    assert b"".join(got) == content(100, seed=0)
    assert peak_size() == 7 * 5


def test_no_more_threads_and_buffers_than_parts() -> None:
    store = HookedStore()
    store.put("key", content(7))
    before = threading.active_count()
    pieces = read_objects(store, items_of(store), transfer(workers=8, window=8, part_size=7))
    assert next(pieces).last
    assert threading.active_count() <= before + 1
    pieces.close()
    assert peak_size() == 7


def test_nothing_to_read() -> None:
    assert list(read_objects(HookedStore(), [], transfer())) == []


def test_an_empty_object_gives_one_empty_piece_without_a_request() -> None:
    store = FaultyStore(MemoryStore())
    store.put("empty", b"")
    pieces = [
        (bytes(piece.data), piece.last) for piece in read_objects(store, [ReadItem("empty", 0, "any")], transfer())
    ]
    assert pieces == [(b"", True)]
    assert not store.calls["read_into"]


def test_a_piece_is_not_valid_after_the_next_was_asked_for() -> None:
    store = HookedStore()
    fill(store, [8])
    pieces = read_objects(store, items_of(store), transfer(part_size=4))
    first = next(pieces)
    next(pieces)
    with pytest.raises(ValueError, match="released"):
        bytes(first.data)
    pieces.close()


# ---- errors


def test_the_pieces_before_an_error_are_handed_out() -> None:
    store = HookedStore()
    data = fill(store, [20])["0"]
    failed = threading.Event()

    def on_read(_key: str, offset: int) -> None:
        if offset == 8:
            failed.set()
            raise unavailable("read")
        assert failed.wait(LIMIT_S)

    store.on_read = on_read
    pieces = read_objects(store, items_of(store), transfer(workers=3, part_size=4))
    assert bytes(next(pieces).data) + bytes(next(pieces).data) == data[:8]
    with pytest.raises(StoreUnavailable):
        next(pieces)


@pytest.mark.parametrize("error", [ObjectChanged, ObjectNotFound])
def test_an_object_that_is_replaced_or_removed_is_an_error(error: type[Exception]) -> None:
    store = HookedStore()
    store.put("key", content(8))
    items = items_of(store)
    if error is ObjectChanged:
        store.put("key", content(8, seed=2))
    else:
        store.delete("key")
    with pytest.raises(error):
        read_all(store, items, transfer())


def test_no_memory_for_a_buffer_is_an_error_and_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    store = HookedStore()
    fill(store, [20])

    def acquire(_pool: BufferPool, _size: int, timeout_s: float | None = None) -> bytearray:
        raise MemoryError("planned")

    monkeypatch.setattr(BufferPool, "acquire", acquire)
    with pytest.raises(MemoryError, match="planned"):
        read_all(store, items_of(store), transfer())


def test_memory_comes_back_with_the_error_and_needs_no_garbage_collection() -> None:
    store = HookedStore()
    fill(store, [20])
    store.on_read = lambda _key, _offset: (_ for _ in ()).throw(unavailable())
    gc.disable()
    try:
        try:
            read_all(store, items_of(store), transfer())
        except StoreUnavailable as error:
            alive = weakref.ref(error)
        store.on_read = lambda _key, _offset: None
        assert alive() is None
    finally:
        gc.enable()


# ---- stopping early


def first_piece(store: HookedStore, how: Transfer) -> Piece:
    for piece in read_objects(store, items_of(store), how):
        return piece
    raise AssertionError


def test_a_consumer_may_stop_early() -> None:
    store = HookedStore()
    fill(store, [100])
    how = transfer(part_size=4)
    first_piece(store, how)  # leaves the loop; the fixture finds the threads gone
    assert how.progress.view().done == 4


def test_a_consumer_may_raise() -> None:
    store = HookedStore()
    fill(store, [100])

    def consume() -> None:
        for piece in read_objects(store, items_of(store), transfer(part_size=4)):
            assert piece.index // 0

    with pytest.raises(ZeroDivisionError):
        consume()


def test_closing_wakes_workers_that_wait_for_a_buffer() -> None:
    store, begun = HookedStore(), Log()
    fill(store, [100])
    store.on_read = lambda _key, offset: begun.add(offset)
    pieces = read_objects(store, items_of(store), transfer(workers=3, window=1, part_size=4))
    next(pieces)
    begun.wait_for(4)  # every buffer is filled or held by the consumer: the workers wait
    pieces.close()
    assert len(begun.seen) == 4


def test_the_garbage_collector_may_close_it_in_one_of_its_own_threads() -> None:
    store, abandoned, collected = HookedStore(), Gate(), Log()
    fill(store, [100])

    def on_read(_key: str, offset: int) -> None:
        if offset == 4:
            abandoned.hold()
            gc.collect()
            collected.add(offset)

    store.on_read = on_read
    gc.disable()
    try:
        pieces = read_objects(store, items_of(store), transfer(workers=2, window=1, part_size=4))
        alive = weakref.ref(pieces)
        cycle: list[object] = [pieces]
        cycle.append(cycle)
        next(pieces)
        abandoned.wait_for(1)
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("transfer-")]
        assert len(threads) == 2
        del pieces, cycle
        abandoned.open()
        collected.wait_for(1)
        for thread in threads:
            thread.join(LIMIT_S)
    finally:
        gc.enable()
    assert alive() is None


def test_a_set_token_stops_it_before_the_next_piece() -> None:
    store = HookedStore()
    fill(store, [100])
    how = transfer(part_size=4)
    pieces = read_objects(store, items_of(store), how)
    next(pieces)
    how.cancel.set("a test")
    with pytest.raises(Cancelled, match="stopped by a test"):
        next(pieces)


def test_a_set_token_is_seen_while_it_waits_for_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    store, reading = HookedStore(), Gate()
    fill(store, [100])
    open_at_close(reading, monkeypatch)
    store.on_read = lambda _key, _offset: reading.hold()
    with pytest.raises(Cancelled, match="stopped by look 2"):  # look 1 is before the first piece
        read_all(store, items_of(store), transfer(part_size=4, cancel=CancelAtLook(2)))
