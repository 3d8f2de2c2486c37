"""The pool of buffers is the bound on memory."""

import threading
import weakref

from backupagent.transfer.buffers import BufferPool


class Traced(bytearray):
    """A bytearray that can be referred to weakly."""


def test_no_more_buffers_are_made_than_asked_for() -> None:
    pool = BufferPool(2, 10)
    first, second = pool.acquire(), pool.acquire()
    assert first is not None
    assert second is not None
    assert first is not second
    assert len(first) == len(second) == pool.size == 10
    assert pool.acquire(timeout_s=0) is None


def test_a_released_buffer_is_used_again_before_another_is_made() -> None:
    pool = BufferPool(2, 10)
    first = pool.acquire()
    assert first is not None
    pool.release(first)
    assert pool.acquire() is first


def test_whoever_waits_gets_the_buffer_that_is_released() -> None:
    pool = BufferPool(1, 10)
    buffer = pool.acquire()
    assert buffer is not None
    got: list[bytearray | None] = []
    waiting = threading.Thread(target=lambda: got.append(pool.acquire()))
    waiting.start()
    pool.release(buffer)
    waiting.join()
    assert got[0] is buffer


def test_closing_wakes_everybody_who_waits() -> None:
    pool = BufferPool(1, 10)
    pool.acquire()
    got: list[bytearray | None] = []
    waiting = [threading.Thread(target=lambda: got.append(pool.acquire())) for _ in range(3)]
    for thread in waiting:
        thread.start()
    pool.close()
    for thread in waiting:
        thread.join()
    assert got == [None] * 3


def test_a_closed_pool_holds_no_memory() -> None:
    pool = BufferPool(2, 10)
    before, after = Traced(10), Traced(10)
    alive = [weakref.ref(before), weakref.ref(after)]
    pool.release(before)
    pool.close()
    pool.release(after)
    del before, after
    assert [ref() for ref in alive] == [None, None]
    assert pool.acquire() is None
