"""Threads of one job end together, and their errors reach whoever waits."""

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator

import pytest
from transfer_fakes import LIMIT_S

from backupagent.cancel import Cancel
from backupagent.errors import Cancelled, ConfigError
from backupagent.transfer.crew import crew, map_ordered


def no_error(error: BaseException) -> None:
    raise AssertionError(error)


def test_the_work_runs_beside_the_block_and_ends_with_it() -> None:
    at_work, stop, ended = threading.Barrier(4), threading.Event(), []

    def work() -> None:
        at_work.wait(LIMIT_S)
        assert stop.wait(LIMIT_S)
        ended.append(threading.current_thread().name)

    with crew(3, work, stop=stop.set, fail=no_error):
        at_work.wait(LIMIT_S)
        assert not ended
    assert sorted(ended) == ["transfer-0", "transfer-1", "transfer-2"]


def test_the_work_ends_when_the_block_fails() -> None:
    stop, ended = threading.Event(), []

    def work() -> None:
        assert stop.wait(LIMIT_S)
        ended.append(1)

    with pytest.raises(ConfigError), crew(2, work, stop=stop.set, fail=no_error):
        raise ConfigError("planned")
    assert ended == [1, 1]


def test_an_error_that_ends_a_work_is_handed_over() -> None:
    failed, errors = threading.Event(), []

    def fail(error: BaseException) -> None:
        errors.append(error)
        failed.set()

    def work() -> None:
        raise MemoryError("planned")

    with crew(1, work, stop=lambda: None, fail=fail):
        assert failed.wait(LIMIT_S)
    assert [str(error) for error in errors] == ["planned"]


def test_when_a_thread_cannot_be_started_those_before_it_end(monkeypatch: pytest.MonkeyPatch) -> None:
    start, stop, ended = threading.Thread.start, threading.Event(), []

    def start_two(thread: threading.Thread) -> None:
        if thread.name == "transfer-2":
            raise RuntimeError("can't start new thread")
        start(thread)

    def work() -> None:
        assert stop.wait(LIMIT_S)
        ended.append(1)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    with pytest.raises(RuntimeError, match="can't start"), crew(4, work, stop=stop.set, fail=no_error):
        raise AssertionError
    assert ended == [1, 1]


def test_a_generator_that_nobody_closes_does_not_keep_the_process_alive() -> None:
    program = """
        from backupagent.stores.memory import MemoryStore
        from backupagent.transfer.context import Transfer
        from backupagent.transfer.reading import ReadItem, read_objects
        from backupagent.settings import TransferSettings

        store = MemoryStore()
        store.put("key", bytes(1000))
        pieces = read_objects(store, [ReadItem("key", 1000)], Transfer(TransferSettings(part_size=1)))
        cycle = [pieces]
        cycle.append(cycle)
        print(len(next(pieces).data))
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    assert done.stdout == "1\n"


# ---- map_ordered


def test_results_are_in_the_order_of_the_items() -> None:
    second_done = threading.Event()

    def call(item: int) -> int:
        if item == 0:
            assert second_done.wait(LIMIT_S)
        if item == 1:
            second_done.set()
        return item * 10

    assert map_ordered(call, range(5), workers=2, cancel=Cancel()) == [0, 10, 20, 30, 40]


def test_as_many_calls_run_at_once_as_there_are_workers() -> None:
    together = threading.Barrier(3)
    assert len(map_ordered(lambda _item: together.wait(LIMIT_S), range(3), workers=3, cancel=Cancel())) == 3


def test_no_items_give_no_results() -> None:
    assert map_ordered(str, [], workers=2, cancel=Cancel()) == []


def test_the_first_error_in_the_order_of_the_items_is_raised() -> None:
    later_failed = threading.Event()

    def call(item: int) -> None:
        if item == 0:
            assert later_failed.wait(LIMIT_S)
            raise ConfigError("first in order")
        later_failed.set()
        raise ConfigError("first in time")

    with pytest.raises(ConfigError, match="first in order"):
        map_ordered(call, range(2), workers=2, cancel=Cancel())


@pytest.mark.parametrize("workers", [1, 2])
def test_calls_that_had_not_begun_are_not_made(workers: int) -> None:
    begun: list[int] = []

    def call(item: int) -> None:
        begun.append(item)
        raise ConfigError(f"planned {item}")

    with pytest.raises(ConfigError, match="planned 0"):
        map_ordered(call, range(100), workers=workers, cancel=Cancel())
    assert len(begun) <= workers


def test_when_the_items_fail_the_calls_end() -> None:
    begun: list[int] = []

    def items() -> Iterator[int]:
        yield 0
        raise RuntimeError("the items themselves fail")

    with pytest.raises(RuntimeError, match="the items themselves fail"):
        map_ordered(begun.append, items(), workers=2, cancel=Cancel())
    assert begun in ([], [0])


def test_cancelling_stops_calls_that_had_not_begun() -> None:
    cancel, begun = Cancel(), []

    def call(item: int) -> None:
        begun.append(item)
        cancel.set("a test")

    with pytest.raises(Cancelled, match="stopped by a test"):
        map_ordered(call, range(100), workers=1, cancel=cancel)
    assert begun == [0]
