"""Threads that work on one job and end together."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from backupagent.cancel import Cancel
from backupagent.errors import Cancelled

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def crew(
    count: int, work: Callable[[], None], *, stop: Callable[[], None], fail: Callable[[BaseException], None]
) -> Iterator[None]:
    """Run a function in several threads beside a block.

    Args:
        count: Number of threads, at least 1.
        work: Runs in each of them until it returns.
        stop: Called when the block has ended, in whatever way; makes every ``work`` return soon.
        fail: Given an error that ended a ``work``, in that thread; lets the block know, so that it does not wait
            for what nobody does any more.
    """

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the block raises it again
            fail(error)

    # Daemons: a generator that nobody closed must not keep the process from ending.
    threads = [threading.Thread(target=run, name=f"transfer-{number}", daemon=True) for number in range(count)]
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        stop()
        # The garbage collector may close a generator in one of its own threads, which cannot wait for the others.
        if threading.current_thread() not in threads:
            for thread in threads:
                if thread.ident is not None:
                    thread.join()


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, cancel: Cancel
) -> list[Result]:
    """Call a function for each item, several at a time.

    Returns:
        Results in the order of the items.

    Raises:
        Cancelled: the token was set.
        Exception: the first error, in the order of the items; calls that had not begun are not made.
    """
    failed = threading.Event()

    def call(item: Item) -> Result:
        cancel.raise_if_set()
        if failed.is_set():
            raise Cancelled("stopped by an error")  # never seen: calls begin in order, so the error comes first
        try:
            return function(item)
        except BaseException:
            failed.set()
            raise

    pool = ThreadPoolExecutor(workers, thread_name_prefix="transfer")
    try:
        futures = [pool.submit(call, item) for item in items]
        return [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)
