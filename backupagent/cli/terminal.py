"""The display on a terminal: what happened above, finished phases, the running one with a bar below. Imports rich."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from backupagent.cli.display import describe, milestone_words
from backupagent.cli.document import Tone, printable
from backupagent.cli.text import rate_text
from backupagent.progress import Milestone, PhaseReport, ProgressView
from backupagent.units import format_duration, format_size

BAR_WIDTH = 24

WHO_WIDTH = 10
WHAT_WIDTH = 22
"""Columns of a milestone's words at least: the lines come one after the other and stand in columns all the same."""


class TerminalView:
    """Draws on stderr and wipes what it drew when the work has ended: the report says it all again.

    Milestones are written above, once, and stay.

    Args:
        console: Where to draw; the terminal on stderr by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._live = Live(console=console or Console(stderr=True, highlight=False), auto_refresh=False, transient=True)
        self._told = 0
        self._live.start()

    def look(self, view: ProgressView) -> None:
        """Draw anew."""
        if news := view.news(self._told):
            self._live.console.print(_milestones(news))
            self._told = view.told
        self._live.update(draw(view), refresh=True)

    def close(self) -> None:
        """Wipe the display and give the cursor back."""
        self._live.stop()


def _milestones(milestones: Sequence[Milestone]) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, min_width=WHO_WIDTH)
    grid.add_column(no_wrap=True, min_width=WHAT_WIDTH)
    grid.add_column()
    for milestone in milestones:
        what, *detail = milestone_words(milestone)
        tone = Tone.BAD if milestone.bad else Tone.STRONG
        grid.add_row(
            Text(f"{milestone.at:%H:%M:%SZ}", style=Tone.FAINT.value),
            Text(printable(milestone.who), style=Tone.FAINT.value),
            Text(what, style=tone.value),
            Text(" ".join(detail), overflow="fold"),
        )
    return grid


def draw(view: ProgressView) -> RenderableType:
    """Lay out one look at the work."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for phase in view.finished:
        grid.add_row(Text(phase.name), Text("done", style="green"), Text(_finished_text(phase), style="dim"))
    if not view.phase:
        return grid
    bar = ProgressBar(total=view.total or None, completed=view.done, width=BAR_WIDTH, pulse=not view.total)
    grid.add_row(Text(view.phase, style="bold"), bar, Text(describe(view) or format_duration(view.seconds)))
    detail = Text(printable(view.detail), style="dim", overflow="ellipsis", no_wrap=True)
    return Group(grid, detail) if view.detail else grid


def _finished_text(phase: PhaseReport) -> str:
    size = f"{format_size(phase.bytes)}, {rate_text(phase.bytes, phase.seconds)}" if phase.bytes else ""
    return ", ".join(part for part in (format_duration(phase.seconds), size) if part)
