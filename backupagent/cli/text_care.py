"""Reports of the commands that look after stores, as documents for people."""

from collections import Counter
from collections.abc import Sequence

from backupagent.cli.document import Block, Cell, Document, Line, Table, Tone
from backupagent.cli.text import phases
from backupagent.operations.report_care import CheckStatus, CollectReport, DoctorReport, Remains
from backupagent.units import format_count, format_duration, format_size


def collection(report: CollectReport) -> Document:
    """Say what was removed and what stays."""
    done = "would be removed" if report.dry_run else "removed"
    size = f", {format_size(report.bytes)}" if report.bytes else ""
    title = f"{report.store}: {format_count(len(report.removed), 'unfinished upload')} {done}{size}"
    document: list[Block] = [Line(Cell(title, Tone.WARN if report.dry_run and report.removed else Tone.GOOD))]
    if report.removed:
        document += [Line(Cell("")), _remains("REMOVED" if not report.dry_run else "WOULD BE REMOVED", report.removed)]
    if report.kept:
        document += [Line(Cell("")), _remains("KEPT", report.kept)]
    return [*document, *phases(report.phases, report.seconds)]


_TONES = {
    CheckStatus.OK: Tone.GOOD,
    CheckStatus.WARNING: Tone.WARN,
    CheckStatus.FAILED: Tone.BAD,
    CheckStatus.UNTESTED: Tone.FAINT,
}


def checks(report: DoctorReport) -> Document:
    """Show what was checked, then what to do."""
    count = Counter(check.status for check in report.checks)
    words = [
        f"{count[status]} {word}"
        for status, word in (
            (CheckStatus.FAILED, "failed"),
            (CheckStatus.WARNING, "to look at"),
            (CheckStatus.UNTESTED, "untested"),
        )
        if count[status]
    ]
    title = f"{format_count(len(report.checks), 'check')}: {', '.join(words) or 'all well'}"
    tone = Tone.BAD if not report.ok else Tone.WARN if count[CheckStatus.WARNING] else Tone.GOOD
    rows = [
        [
            Cell(check.side, Tone.FAINT),
            Cell(check.name),
            Cell(check.status.value, _TONES[check.status]),
            Cell(check.detail),
        ]
        for check in report.checks
    ]
    document: list[Block] = [Line(Cell(title, tone)), Line(Cell(""))]
    document.append(Table(["WHERE", "CHECK", "RESULT", "FOUND"], rows, prose=True))
    hints = [check for check in report.checks if check.hint]
    if hints:
        document += [Line(Cell("")), Line(Cell("what to do:"))]
        document += [Line(Cell(f"{check.side} {check.name}: {check.hint}", _TONES[check.status]), 2) for check in hints]
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
