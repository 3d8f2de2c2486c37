"""The token that stops work."""

import threading

import pytest

from backupagent.cancel import Cancel
from backupagent.errors import Cancelled


def test_nothing_happens_before_it_is_set() -> None:
    cancel = Cancel()
    cancel.raise_if_set()
    assert not cancel.is_set
    assert not cancel.wait(0)


def test_once_set_it_stops_everybody() -> None:
    cancel = Cancel()
    cancel.set("SIGTERM")
    assert cancel.is_set
    assert cancel.wait(60)
    with pytest.raises(Cancelled, match=r"^stopped by SIGTERM$"):
        cancel.raise_if_set()


def test_the_first_reason_stays() -> None:
    cancel = Cancel()
    cancel.set("SIGINT")
    cancel.set("SIGTERM")
    with pytest.raises(Cancelled, match="SIGINT"):
        cancel.raise_if_set()


def test_it_wakes_a_thread_that_waits() -> None:
    cancel = Cancel()
    woken: list[bool] = []
    waiter = threading.Thread(target=lambda: woken.append(cancel.wait(60)))
    waiter.start()
    cancel.set("a test")
    waiter.join(60)
    assert woken == [True]
