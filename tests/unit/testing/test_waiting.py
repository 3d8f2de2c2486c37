"""Waiting: for an answer, not for ever, and not when it makes no sense any more."""

import pytest

from backupagent.cancel import Cancel
from backupagent.clock import FakeClock
from backupagent.errors import Cancelled, KubeForbidden, KubeUnavailable
from backupagent.testing.waiting import NotInTime, Patience


def patience(clock: FakeClock, cancel: Cancel | None = None) -> Patience:
    return Patience(cancel=cancel or Cancel(), timeout_s=3, poll_s=0, clock=clock)


def looks(clock: FakeClock, *answers: object):
    """Return a look that takes a second and gives one answer after the other, the last one for ever."""
    left = list(answers)

    def look() -> object:
        clock.sleep(1)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return look


def test_the_first_true_answer_is_returned() -> None:
    clock = FakeClock()
    assert patience(clock).until(looks(clock, None, 0, "there", "later"), "it") == "there"


def test_an_api_server_that_is_away_is_waited_for() -> None:
    clock = FakeClock()
    away = KubeUnavailable("connection refused", what="get pods")
    assert patience(clock).until(looks(clock, away, "there"), "it") == "there"
    with pytest.raises(NotInTime, match=r"not within 3 s: it \(.*connection refused"):
        patience(clock).until(looks(clock, away), "it")


def test_another_error_ends_it() -> None:
    clock = FakeClock()
    with pytest.raises(KubeForbidden):
        patience(clock).until(looks(clock, KubeForbidden("no", what="get pods")), "it")


def test_a_token_that_is_set_ends_it() -> None:
    clock, cancel = FakeClock(), Cancel()
    cancel.set("the end")
    with pytest.raises(Cancelled):
        patience(clock, cancel).until(looks(clock, None), "it")
