"""Blocking work beside the event loop, each piece in a thread of its own.

Not the loop's pool: a few snapshots and listings that hang would keep a Lease from being renewed, and at its end the
process would wait for them without a limit.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Run something in a new thread and wait for what it returns or raises.

    Who waits may be cancelled; the thread then goes on by itself, and does not keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(settled: Callable[[], None]) -> None:
        if not done.done():
            settled()

    def run() -> None:
        try:
            result = work(*arguments, **options)
        except BaseException as error:  # noqa: BLE001 - carried to who waits
            failure = error
            settled: Callable[[], None] = lambda: done.set_exception(failure)  # noqa: E731 - one of two
        else:
            settled = lambda: done.set_result(result)  # noqa: E731 - one of two
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, settled)

    threading.Thread(target=run, daemon=True, name=getattr(work, "__name__", "work")).start()
    return await done
