"""Reports of the commands that look after stores, as documents for people."""

from collections.abc import Sequence

from backupagent.cli.document import Block, Cell, Document, Line, Table, Tone
from backupagent.cli.text import count_text, phases
from backupagent.operations.report import CollectReport, Remains
from backupagent.units import format_duration, format_size


def collection(report: CollectReport) -> Document:
    """Say what was removed and what stays."""
    done = "would be removed" if report.dry_run else "removed"
    size = f", {format_size(report.bytes)}" if report.bytes else ""
    title = f"{report.store}: {count_text(len(report.removed), 'unfinished upload')} {done}{size}"
    document: list[Block] = [Line(Cell(title, Tone.WARN if report.dry_run and report.removed else Tone.GOOD))]
    if report.removed:
        document += [Line(Cell("")), _remains("REMOVED" if not report.dry_run else "WOULD BE REMOVED", report.removed)]
    if report.kept:
        document += [Line(Cell("")), _remains("KEPT", report.kept)]
    return [*document, *phases(report.phases, report.seconds)]


def _remains(title: str, remains: Sequence[Remains]) -> Table:
    rows = [
        [
            Cell(each.key),
            Cell(each.kind),
            Cell("unknown" if each.age_s is None else format_duration(each.age_s)),
            Cell("unknown" if each.bytes is None else format_size(each.bytes)),
            Cell(each.note, Tone.FAINT),
        ]
        for each in remains
    ]
    return Table([title, "WHAT", "AGE", "SIZE", ""], rows, frozenset({2, 3}), prose=True)
