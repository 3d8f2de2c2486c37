"""What long work tells about itself."""

import threading

import pytest

from backupagent.clock import FakeClock
from backupagent.progress import PhaseReport, Progress, ProgressView


def test_before_the_first_phase_there_is_nothing() -> None:
    view = Progress(FakeClock()).view()
    assert (view.phase, view.done, view.total, view.detail, view.finished) == ("", 0, 0, "", ())


def test_a_phase_counts_bytes_time_and_detail() -> None:
    clock = FakeClock()
    progress = Progress(clock)
    clock.sleep(1)
    with progress.phase("transfer", total=100):
        progress.note("v2/Full-1")
        progress.add(30)
        progress.add(-10)
        clock.sleep(4)
        assert progress.view() == ProgressView("transfer", 4.0, 20, 100, "v2/Full-1")
        progress.expect(200)
        assert progress.view().total == 200
    assert progress.phases == [PhaseReport("transfer", 4.0, 20)]
    assert progress.elapsed_s == 5.0


def test_between_two_phases_none_runs_and_each_begins_anew() -> None:
    clock = FakeClock()
    progress = Progress(clock)
    with progress.phase("discover", total=5):
        progress.add(5)
        progress.note("x")
    assert progress.view().phase == ""
    clock.sleep(7)
    with progress.phase("plan"):
        view = progress.view()
    assert view == ProgressView("plan", 0.0, 0, 0, "", (PhaseReport("discover", 0.0, 5),))


def test_a_phase_inside_another_is_a_step_of_it() -> None:
    progress = Progress(FakeClock())
    with progress.phase("follow", total=5):
        with progress.phase("transfer", total=7):
            progress.add(12)
            assert (progress.view().phase, progress.view().total) == ("follow", 12)
        assert progress.view().phase == "follow"
    assert progress.phases == [PhaseReport("follow", 0.0, 12)]


def test_a_phase_that_fails_is_kept_too() -> None:
    progress = Progress(FakeClock())

    def fail() -> None:
        with progress.phase("transfer"):
            progress.add(3)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert progress.phases == [PhaseReport("transfer", 0.0, 3)]


@pytest.mark.parametrize(
    ("seconds", "done", "total", "rate", "eta_s"),
    [
        (4.0, 20, 100, 5.0, 16.0),
        (0.0, 20, 100, 0.0, None),
        (4.0, 0, 100, 0.0, None),
        (4.0, 20, 0, 5.0, None),
        (4.0, 100, 100, 25.0, 0.0),
    ],
)
def test_rate_and_eta(seconds: float, done: int, total: int, rate: float, eta_s: float | None) -> None:
    view = ProgressView("transfer", seconds, done, total, "")
    assert (view.rate, view.eta_s) == (rate, eta_s)


def test_counts_of_many_threads_add_up() -> None:
    progress = Progress(FakeClock())

    def work() -> None:
        for _ in range(5000):
            progress.add(1)

    with progress.phase("transfer"):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert progress.view().done == 20_000
