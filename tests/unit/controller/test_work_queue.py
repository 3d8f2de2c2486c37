"""What is looked at next: when it is due, by one worker at a time, again after failures."""

import random
import threading

import pytest

from backupagent.clock import FakeClock
from backupagent.controller.queue import FIRST_RETRY_S, LONGEST_RETRY_S, WorkQueue


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(clock: FakeClock) -> WorkQueue:
    return WorkQueue(clock, random.Random(1))


def due(queue: WorkQueue) -> str | None:
    """Take a key that is due, without waiting for one."""
    queue.add("nothing")
    key = queue.take()
    if key == "nothing":
        queue.done(key)
        return None
    queue.take()
    queue.done("nothing")
    return key


def test_a_key_that_waits_is_handled_once(queue: WorkQueue) -> None:
    for _time in range(3):
        queue.add("a")
    assert queue.take() == "a"
    queue.done("a")
    assert len(queue) == 0


def test_the_earliest_time_counts(queue: WorkQueue, clock: FakeClock) -> None:
    queue.add("a", after_s=5)
    queue.add("a", after_s=50)
    assert due(queue) is None
    clock.sleep(5)
    assert due(queue) == "a"


def test_a_key_is_handled_by_one_worker_and_once_more_when_it_was_added_meanwhile(
    queue: WorkQueue, clock: FakeClock
) -> None:
    queue.add("a")
    assert queue.take() == "a"
    queue.add("a")
    queue.add("b", after_s=1)
    clock.sleep(1)
    assert queue.take() == "b"
    queue.done("a", again_after_s=100)
    assert queue.take() == "a"


def test_a_key_that_wants_to_be_handled_again(queue: WorkQueue, clock: FakeClock) -> None:
    queue.add("a")
    queue.take()
    queue.done("a", again_after_s=2)
    assert due(queue) is None
    clock.sleep(2)
    assert due(queue) == "a"


def test_pauses_after_failures_grow_and_start_anew_after_a_success(queue: WorkQueue, clock: FakeClock) -> None:
    pauses = []
    for _failure in range(40):
        queue.add("a")
        assert queue.take() == "a"
        pauses.append(queue.retry("a"))
        clock.sleep(pauses[-1])
    for number, pause_s in enumerate(pauses):
        longest_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0**number)
        assert longest_s / 2 <= pause_s <= longest_s
    assert len(set(pauses[10:])) > 1  # chance keeps many failures apart
    assert queue.take() == "a"
    queue.done("a")
    queue.add("a")
    queue.take()
    assert queue.retry("a") <= FIRST_RETRY_S


def test_closing_lets_every_worker_go(queue: WorkQueue) -> None:
    taken: list[str | None] = []
    workers = [threading.Thread(target=lambda: taken.append(queue.take())) for _number in range(3)]
    for worker in workers:
        worker.start()
    queue.close()
    for worker in workers:
        worker.join(10)
    assert taken == [None, None, None]
