"""Every test of the transfer engine leaves no thread behind."""

import threading
from collections.abc import Iterator

import pytest
import transfer_fakes

from backupagent.transfer.buffers import BufferPool


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    assert not left, f"threads left behind: {left}"


@pytest.fixture(autouse=True)
def _pools_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every pool of buffers, so that a test can ask how much was held; see ``transfer_fakes.peak_size``."""
    make = BufferPool.__init__

    def remember(pool: BufferPool, budget: int) -> None:
        make(pool, budget)
        transfer_fakes.POOLS.append(pool)

    transfer_fakes.POOLS.clear()
    monkeypatch.setattr(BufferPool, "__init__", remember)
