"""Threads that work on one job and end together."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from backupagent.cancel import Cancel

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def crew(count: int, work: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
    """Run a function in several threads beside a block.

    Args:
        count: Number of threads, at least 1.
        work: Runs in each of them until it returns. It keeps its own errors: one that escapes is a bug.
        stop: Called when the block has ended, in whatever way; makes every ``work`` return soon.
    """
    threads = [threading.Thread(target=work, name=f"transfer-{number}") for number in range(count)]
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def map_ordered(
    function: Callable[[Item], Result], items: Sequence[Item] | Iterable[Item], *, workers: int, cancel: Cancel
) -> list[Result]:
    """Call a function for each item, several at a time.

    Returns:
        Results in the order of the items.

    Raises:
        Cancelled: the token was set.
        Exception: the first error, in the order of the items; calls that had not begun are not made.
    """

    def call(item: Item) -> Result:
        cancel.raise_if_set()
        return function(item)

    with ThreadPoolExecutor(workers, thread_name_prefix="transfer") as pool:
        futures = [pool.submit(call, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
