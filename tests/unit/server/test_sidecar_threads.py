"""Blocking work beside the loop."""

import asyncio
import threading

import pytest
from sidecar_fakes import run, until

from backupagent.errors import ConfigError
from backupagent.server.threads import in_thread


def test_what_the_work_returns_or_raises() -> None:
    def refuse() -> None:
        raise ConfigError("no")

    async def go() -> None:
        assert await in_thread(lambda number, *, plus: number + plus, 1, plus=2) == 3
        with pytest.raises(ConfigError, match="no"):
            await in_thread(refuse)

    run(go())


def test_much_work_that_hangs_keeps_nobody_from_working_and_the_loop_from_ending() -> None:
    hang, hanging = threading.Event(), []

    def work() -> None:
        hanging.append(threading.current_thread())
        hang.wait()

    async def go() -> None:
        tasks = [asyncio.create_task(in_thread(work)) for _ in range(50)]
        await until(lambda: len(hanging) == 50)
        assert await in_thread(lambda: "done") == "done"
        for task in tasks:
            task.cancel()

    try:
        run(go())
        assert all(thread.daemon for thread in hanging)
    finally:
        hang.set()
    for thread in hanging:
        thread.join()
