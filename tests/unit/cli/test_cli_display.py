"""Progress on stderr: lines at the right moments, a display that cleans up, neither able to stop the work."""

import io
import threading
from datetime import UTC, datetime
from functools import partial

import pytest
from rich.console import Console

from backupagent.cli import display
from backupagent.cli.display import LOG_WAITING_EVERY_S, LogView, describe, showing
from backupagent.cli.terminal import TerminalView, draw
from backupagent.clock import FakeClock
from backupagent.progress import MAX_MILESTONES, Milestone, PhaseReport, Progress, ProgressView
from backupagent.settings import ProgressStyle
from backupagent.units import GiB, MiB


class Log:
    """A log view with a clock of its own."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.progress = Progress(self.clock)
        self.out = io.StringIO()
        self._view = LogView(self.out, self.clock)

    def look(self) -> list[str]:
        """Look, and return the lines written since the last time, without their date."""
        self._view.look(self.progress.view())
        lines = self.out.getvalue().splitlines()
        self.out.seek(0)
        self.out.truncate()
        return [line.partition(" ")[2] for line in lines]


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (ProgressView("t", 4.0, 1288490189, 3 * GiB, "x"), "1.2 GiB of 3.0 GiB, 307.2 MiB/s, 6.00 s left"),
        (ProgressView("t", 4.0, 8 * MiB, 0, ""), "8.0 MiB, 2.0 MiB/s"),
        (ProgressView("t", 4.0, 0, 8 * MiB, ""), "0 B of 8.0 MiB"),
        (ProgressView("t", 4.0, 0, 0, ""), ""),
        (ProgressView("t", 4.0, 9 * MiB, 8 * MiB, ""), "9.0 MiB of 8.0 MiB, 2.2 MiB/s, 0.00 s left"),
    ],
)
def test_how_far_a_phase_is(view: ProgressView, text: str) -> None:
    assert describe(view) == text


def test_a_phase_is_logged_when_it_begins_every_five_seconds_and_when_it_ends() -> None:
    log = Log()
    assert log.look() == []
    with log.progress.phase("transfer", total=40 * MiB):
        assert log.look() == ["transfer begins"]
        log.clock.sleep(4.9)
        assert log.look() == []
        log.progress.add(10 * MiB)
        log.progress.note("v2/Full-1")
        log.clock.sleep(0.1)
        assert log.look() == ["transfer 10.0 MiB of 40.0 MiB, 2.0 MiB/s, 15.0 s left v2/Full-1"]
        assert log.look() == []
        log.clock.sleep(5)
        assert len(log.look()) == 1
    assert log.look() == ["transfer took 10.0 s, 10.0 MiB, 1.0 MiB/s"]
    assert log.look() == []


def test_phases_too_short_to_be_seen_are_logged_all_the_same() -> None:
    log = Log()
    for name in ("discover", "plan"):
        with log.progress.phase(name):
            log.clock.sleep(0.01)
    with log.progress.phase("transfer"):
        assert log.look() == ["discover took 0.01 s", "plan took 0.01 s", "transfer begins"]


def test_a_phase_that_runs_twice_is_logged_twice() -> None:
    log = Log()
    with log.progress.phase("list"):
        assert log.look() == ["list begins"]
    with log.progress.phase("list"):
        assert log.look() == ["list took 0.00 s", "list begins"]


def test_lines_begin_with_the_time() -> None:
    log = Log()
    with log.progress.phase("plan"):
        log._view.look(log.progress.view())
    assert log.out.getvalue() == "2026-01-01T00:00:00Z plan begins\n"


def test_details_cannot_move_the_cursor() -> None:
    log = Log()
    with log.progress.phase("transfer"):
        log.look()
        log.progress.note("v2/\x1b[2J\nx")
        log.clock.sleep(30)
        assert log.look() == [r"transfer v2/\x1b[2J\nx"]


@pytest.mark.parametrize("style", [ProgressStyle.AUTO, ProgressStyle.PLAIN])
def test_without_a_terminal_lines_are_written(style: ProgressStyle, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    with showing(progress, style), progress.phase("plan"):
        pass
    assert "plan took" in capsys.readouterr().err


def test_none_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    with showing(progress, ProgressStyle.NONE), progress.phase("plan"):
        pass
    assert capsys.readouterr() == ("", "")


def test_an_error_of_the_work_passes_through_and_the_thread_ends(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with showing(Progress(), ProgressStyle.PLAIN):
            raise KeyError("x")

    with pytest.raises(KeyError):
        work()
    assert "display" not in {thread.name for thread in threading.enumerate()}


def test_work_goes_on_when_nobody_reads_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Gone())
    progress = Progress()
    with showing(progress, ProgressStyle.PLAIN), progress.phase("plan"):
        done = True
    assert done


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


class Views:
    """Which views were made, in place of real ones, on a stderr that is a terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, term: str) -> None:
        self.made: list[str] = []
        self._made = threading.Event()
        monkeypatch.setattr(display, "_terminal_view", partial(self._make, "terminal"))
        monkeypatch.setattr(display, "_log_view", partial(self._make, "log"))
        monkeypatch.setattr(display, "PATIENCE_S", 0.0)
        monkeypatch.setattr("sys.stderr", Terminal())
        monkeypatch.setenv("TERM", term)

    def _make(self, name: str) -> LogView:
        self.made.append(name)
        self._made.set()
        return LogView(io.StringIO(), FakeClock())

    def after(self, style: ProgressStyle) -> list[str]:
        """Show work until a view was made."""
        with showing(Progress(), style):
            assert self._made.wait(60)
        return self.made


def test_a_terminal_gets_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Views(monkeypatch, term="xterm").after(ProgressStyle.AUTO) == ["terminal"]


@pytest.mark.parametrize(("style", "term"), [(ProgressStyle.PLAIN, "xterm"), (ProgressStyle.AUTO, "dumb")])
def test_a_terminal_gets_lines_when_it_is_dumb_or_they_are_asked_for(
    style: ProgressStyle, term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Views(monkeypatch, term=term).after(style) == ["log"]


def test_short_work_does_not_pay_for_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    views = Views(monkeypatch, term="xterm")
    monkeypatch.setattr(display, "PATIENCE_S", 600.0)
    with showing(Progress(), ProgressStyle.AUTO):
        pass
    assert views.made == []


def test_the_real_display_is_the_one_with_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    view = display._terminal_view()
    view.close()
    assert isinstance(view, TerminalView)


def drawn(view: ProgressView) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(draw(view))
    return console.export_text()


def test_the_display_shows_finished_phases_a_bar_and_the_detail() -> None:
    finished = (PhaseReport("discover", 0.12, 0), PhaseReport("plan", 2.0, 4 * MiB))
    text = drawn(ProgressView("transfer", 4.0, 10 * MiB, 40 * MiB, "v2/Full-\x1b1", finished))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[:2] == ["discover done 0.12 s", "plan done 2.00 s, 4.0 MiB, 2.0 MiB/s"]
    assert lines[2].startswith("transfer ━")
    assert lines[2].endswith("10.0 MiB of 40.0 MiB, 2.5 MiB/s, 12.0 s left")
    assert lines[3] == r"v2/Full-\x1b1"
    assert max(map(len, text.splitlines())) <= 80


def test_the_display_shows_time_where_there_are_no_bytes() -> None:
    assert "3.00 s" in drawn(ProgressView("verify", 3.0, 0, 0, ""))
    assert "done" in drawn(ProgressView("", 3.0, 0, 0, "", (PhaseReport("plan", 1.0, 0),)))


def test_the_display_gives_the_cursor_back() -> None:
    out = io.StringIO()
    view = TerminalView(Console(file=out, force_terminal=True, width=80, legacy_windows=False))
    view.look(ProgressView("transfer", 4.0, 10 * MiB, 40 * MiB, ""))
    view.close()
    hide, show = "\x1b[?25l", "\x1b[?25h"
    assert out.getvalue().startswith(hide)
    assert out.getvalue().rindex(show) > out.getvalue().rindex("transfer")


MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STOPPED = Milestone(MOMENT, "gardenlet", "ApiServerStopped", "downtime begins")
FAILED = Milestone(MOMENT, "controller", "NotEqual\x1b[2J", bad=True)


def test_a_milestone_is_one_log_line_with_its_own_time() -> None:
    log = Log()
    log.progress.tell(STOPPED)
    with log.progress.phase("migration"):
        assert log.look() == ["gardenlet ApiServerStopped downtime begins", "migration begins"]
        log.progress.tell(FAILED)
        assert log.look() == [r"controller NotEqual\x1b[2J"]
        assert log.look() == []
    log.progress.tell(STOPPED)
    out = io.StringIO()
    LogView(out, log.clock).look(log.progress.view())
    assert out.getvalue().splitlines()[0] == "2026-01-02T03:04:05Z gardenlet ApiServerStopped downtime begins"


def test_work_that_waits_for_others_is_logged_more_rarely() -> None:
    log = Log()
    with log.progress.phase("migration"):
        log.look()
        log.progress.note("Copying, Restore Processing 12%")
        log.clock.sleep(LOG_WAITING_EVERY_S - 0.1)
        assert log.look() == []
        log.clock.sleep(0.1)
        assert log.look() == ["migration Copying, Restore Processing 12%"]


def test_work_that_rests_is_not_logged_again_and_again() -> None:
    log = Log()
    with log.progress.phase("follow"):
        log.progress.add(5)
        log.progress.note("in step", resting=True)
        log.look()
        log.clock.sleep(10 * LOG_WAITING_EVERY_S)
        assert log.look() == []
        log.progress.note("2 snapshots behind")
        assert len(log.look()) == 1


def test_milestones_that_were_forgotten_meanwhile_are_not_told_twice() -> None:
    log = Log()
    for _ in range(MAX_MILESTONES):
        log.progress.tell(STOPPED)
    assert len(log.look()) == MAX_MILESTONES
    for _ in range(3):
        log.progress.tell(FAILED)
    assert log.progress.view().forgotten == 3
    assert log.look() == [r"controller NotEqual\x1b[2J"] * 3


def test_milestones_stay_on_a_terminal_and_are_written_once() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, highlight=False)
    view, progress = TerminalView(console), Progress()
    progress.tell(STOPPED)
    with progress.phase("migration"):
        view.look(progress.view())
        view.look(progress.view())
        progress.tell(FAILED)
        view.look(progress.view())
    view.close()
    written = out.getvalue()
    assert written.count("ApiServerStopped") == 1
    assert "03:04:05Z" in written
    assert "\x1b[1;31mNotEqual\\x1b[2J" in written, "trouble is red, and its text cannot move the cursor"


def test_a_milestone_of_short_work_is_shown_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Progress] = []
    monkeypatch.setattr(display, "_show", lambda progress, *_: shown.append(progress))
    stop = threading.Event()
    stop.set()
    quiet, loud = Progress(), Progress()
    loud.tell(STOPPED)
    for progress in (quiet, loud):
        display._show_after_patience(progress, stop)
    assert shown == [loud]
