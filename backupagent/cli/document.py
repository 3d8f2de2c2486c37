"""Reports as people read them: a small document, written plainly into a pipe and with colours on a terminal."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

WIDEST_TABLE = 300
"""Columns of a table on a terminal; longer cells are folded."""

NARROWEST_PROSE = 20
"""Columns at least for text to read in a table's last column."""

_TRAILING_SPACE = re.compile(r"[ ]+((?:\x1b\[0m)?)$", re.MULTILINE)


class Tone(StrEnum):
    """What a text means; the values are styles of rich."""

    PLAIN = ""
    STRONG = "bold"
    GOOD = "green"
    WARN = "yellow"
    BAD = "bold red"
    FAINT = "dim"


@dataclass(frozen=True)
class Cell:
    """A piece of text.

    Attributes:
        text: It; may come from a bucket, so that it is made printable when it is written.
        tone: What it means.
    """

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True)
class Line:
    """A line or paragraph.

    Attributes:
        cell: Its text.
        indent: Columns before it.
    """

    cell: Cell
    indent: int = 0


@dataclass(frozen=True)
class Fields:
    """Labels and values.

    Attributes:
        rows: Them.
    """

    rows: Sequence[tuple[str, Cell]]


@dataclass(frozen=True)
class Table:
    """Rows under titles.

    Attributes:
        titles: Of the columns.
        rows: As many cells each.
        right: Columns that are aligned to the right, from 0.
        prose: Whether the last column is text to read: a terminal wraps it inside its column.
    """

    titles: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    right: frozenset[int] = field(default_factory=frozenset)
    prose: bool = False


Block: TypeAlias = Line | Fields | Table
Document: TypeAlias = Sequence[Block]


def printable(text: str) -> str:
    """Escape what could move the cursor, colour the terminal or end a line: keys in a bucket may hold anything."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def render_plain(document: Document) -> str:
    """Write a document as aligned text without colours."""
    return "".join(f"{line}\n" for block in document for line in _plain_lines(block))


def _plain_lines(block: Block) -> list[str]:
    if isinstance(block, Line):
        return [" " * block.indent + printable(block.cell.text)]
    if isinstance(block, Fields):
        width = max((len(label) for label, _cell in block.rows), default=0)
        return [f"  {label:{width}}  {printable(cell.text)}" for label, cell in block.rows]
    texts = [list(block.titles), *([printable(cell.text) for cell in row] for row in block.rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(block.titles))]
    return [_plain_row(row, widths, block.right) for row in texts]


def _plain_row(row: Sequence[str], widths: Sequence[int], right: frozenset[int]) -> str:
    cells = (
        text.rjust(width) if column in right else text.ljust(width)
        for column, (text, width) in enumerate(zip(row, widths, strict=True))
    )
    return f"  {'  '.join(cells)}".rstrip()


def render_terminal(document: Document) -> None:
    """Write a document to the terminal on stdout with its colours.

    Text is wrapped to the terminal's width. Tables are not, but for prose in the last column: the terminal breaks
    their lines itself, so that a name can be copied whole.
    """
    from rich.console import Console, RenderableType  # noqa: PLC0415 - 40 ms that only a terminal pays
    from rich.padding import Padding  # noqa: PLC0415 - as above
    from rich.table import Table as RichTable  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    def text(cell: Cell) -> Text:
        return Text(printable(cell.text), style=cell.tone.value, overflow="fold")

    def renderable(block: Block) -> RenderableType:
        if isinstance(block, Line):
            return text(block.cell) if not block.indent else Padding.indent(text(block.cell), block.indent)
        grid = RichTable(box=None, pad_edge=False, show_header=isinstance(block, Table), padding=(0, 2, 0, 0))
        if isinstance(block, Table):
            for column, title in enumerate(block.titles):
                justify: Literal["left", "right"] = "right" if column in block.right else "left"
                whole = block.prose and column < len(block.titles) - 1
                grid.add_column(title, justify=justify, header_style="dim", no_wrap=whole)
            for row in block.rows:
                grid.add_row(*(text(cell) for cell in row))
        else:
            for label, cell in block.rows:
                grid.add_row(Text(label, style="dim"), text(cell))
        return Padding.indent(grid, 2)

    console = Console(highlight=False)
    for block in document:
        if isinstance(block, Table):
            wide = Console(highlight=False, width=_table_width(block, console.width))
            with wide.capture() as captured:
                wide.print(renderable(block))
            # Without the spaces after the last column, which a narrower terminal would show as empty lines.
            console.file.write(_TRAILING_SPACE.sub(r"\1", captured.get()))
        else:
            console.print(renderable(block))


def _table_width(table: Table, terminal: int) -> int:
    if not table.prose:
        return max(terminal, WIDEST_TABLE)
    columns = list(zip(table.titles, *([printable(cell.text) for cell in row] for row in table.rows), strict=True))
    return max(terminal, sum(max(map(len, column)) + 2 for column in columns[:-1]) + NARROWEST_PROSE)
