"""The pool of buffers is the bound on memory."""

import threading
import weakref

from hypothesis import given
from hypothesis import strategies as st

from backupagent.transfer.buffers import KEPT, BufferPool

SIZE = 10


class Traced(bytearray):
    """A bytearray that can be referred to weakly."""


def taken(pool: BufferPool, size: int) -> bytearray:
    buffer = pool.acquire(size, timeout_s=0)
    assert buffer is not None
    return buffer


@given(st.integers(1, 100), st.lists(st.tuples(st.booleans(), st.integers(1, 120)), max_size=60))
def test_what_is_held_stays_within_the_budget(budget: int, steps: list[tuple[bool, int]]) -> None:
    pool, held = BufferPool(budget), []
    for take, size in steps:
        if take:
            buffer = pool.acquire(size, timeout_s=0)
            fits = not held or sum(map(len, held)) + size <= budget
            assert (buffer is not None) == fits
            if buffer is not None:
                assert len(buffer) == size
                held.append(buffer)
        elif held:
            pool.release(held.pop(size % len(held)))
        assert len(held) <= 1 or sum(map(len, held)) <= budget


def test_a_large_buffer_is_used_again() -> None:
    pool = BufferPool(2 * SIZE)
    first = taken(pool, SIZE)
    pool.release(first)
    assert taken(pool, SIZE) is first


def test_kept_buffers_of_another_size_make_room() -> None:
    pool = BufferPool(2 * SIZE)
    kept = weakref.ref(traced := Traced(taken(pool, SIZE)))
    pool.release(traced)
    del traced
    assert kept() is not None
    assert len(taken(pool, 2 * SIZE)) == 2 * SIZE
    assert kept() is None


def test_only_so_many_are_kept() -> None:
    pool = BufferPool(10**6)
    for buffer in [taken(pool, 1) for _ in range(3 * KEPT)]:
        pool.release(buffer)
    first = taken(pool, 1)
    others = [taken(pool, 1) for _ in range(KEPT)]
    assert len({id(buffer) for buffer in (first, *others)}) == KEPT + 1


def test_whoever_waits_gets_what_is_released() -> None:
    pool = BufferPool(10)
    buffer = taken(pool, 10)
    got: list[bytearray | None] = []
    waiting = threading.Thread(target=lambda: got.append(pool.acquire(7)))
    waiting.start()
    pool.release(buffer)
    waiting.join()
    assert [len(each) for each in got if each is not None] == [7]


def test_a_large_one_is_not_passed_over_by_small_ones() -> None:
    pool = BufferPool(10)
    first, second = taken(pool, 5), taken(pool, 5)
    order: list[int] = []

    def wait_for(size: int) -> None:
        buffer = pool.acquire(size)
        assert buffer is not None
        order.append(size)
        pool.release(buffer)

    large = threading.Thread(target=wait_for, args=[10])
    large.start()
    while not pool.waiting:  # until it has its place in the queue
        pass
    pool.release(first)
    assert pool.acquire(1, timeout_s=0) is None  # there would be room, but somebody else was first
    pool.release(second)
    large.join()
    assert order == [10]
    assert pool.acquire(1, timeout_s=0) is not None


def test_closing_wakes_everybody_who_waits() -> None:
    pool = BufferPool(10)
    taken(pool, 10)
    got: list[bytearray | None] = []
    waiting = [threading.Thread(target=lambda: got.append(pool.acquire(10))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    pool.close()
    for thread in waiting:
        thread.join()
    assert got == [None] * 3


def test_a_closed_pool_holds_no_memory() -> None:
    size = SIZE
    pool = BufferPool(3 * size)
    first, second = taken(pool, size), taken(pool, size)
    before, after = Traced(first), Traced(second)
    alive = [weakref.ref(before), weakref.ref(after)]
    pool.release(before)
    del before
    assert alive[0]() is not None
    pool.close()
    pool.release(after)
    del after
    assert [each() for each in alive] == [None, None]
    assert pool.acquire(1) is None
