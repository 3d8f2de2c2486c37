"""Migrations as documents for people: what one came to, all of them in a table, one with its timeline."""

from collections.abc import Sequence

from backupagent.cli.document import Block, Cell, Document, Fields, Line, Table, Tone
from backupagent.controller.facts import parse_time
from backupagent.controller.outcome import End, MigrationOutcome
from backupagent.controller.overview import Migration, Overview
from backupagent.controller.steps import is_bad
from backupagent.model.migration import CopyProof, FinalSnapshot, MigrationReport, Phase, Step
from backupagent.units import format_count, format_duration, format_size

_TONES = {Phase.SUCCEEDED: Tone.GOOD, Phase.FAILED: Tone.BAD}

_UNREPORTED = "unreported"


def migrate(outcome: MigrationOutcome) -> Document:
    """Say what a move came to: the verdict first, then the proof, then what could not be seen."""
    where = f"{outcome.namespace}/{outcome.shoot}"
    report = outcome.report
    if report is not None and report.phase is Phase.SUCCEEDED:
        equal = ": the new etcd EQUALS the old one" if report.equal else ""
        title = Cell(f"{where} is on {outcome.destination}{equal}", Tone.GOOD)
    elif outcome.reason:
        title = Cell(f"{where} to {outcome.destination}: {outcome.reason}: {outcome.message}", Tone.BAD)
    else:
        title = Cell(outcome.message, Tone.GOOD)
    document: list[Block] = [Line(title)]
    if outcome.hint:
        document.append(Line(Cell(f"hint: {outcome.hint}")))
    if report is not None:
        rows = _proof(report)
        if report.downtime_s is not None:
            rows.insert(0, ("API server down", Cell(format_duration(report.downtime_s), Tone.STRONG)))
        document.append(Fields(rows))
    document += _notes((*outcome.notes, *(report.notes if report else ())))
    follow = f"`backupagent migrations {where}` shows every step"
    if outcome.end is End.BOUND:
        document.append(Line(Cell(follow, Tone.FAINT)))
    return document


def migrations(overview: Overview) -> Document:
    """Show all migrations in a table, or the one that was asked for with its timeline."""
    if not overview.migrations:
        return [Line(Cell(f"no migration of {overview.asked} is known" if overview.asked else "no migration is known"))]
    if overview.asked:
        return [block for migration in overview.migrations for block in _detail(migration)]
    titles = ["SHOOT", "FROM", "TO", "PHASE", "OPERATION", "DOWN", "SINCE", "MESSAGE"]
    return [Table(titles, [_row(migration) for migration in overview.migrations], prose=True)]


def _row(migration: Migration) -> Sequence[Cell]:
    return [
        Cell(f"{migration.namespace}/{migration.shoot}", Tone.STRONG),
        Cell(migration.source),
        Cell(migration.destination),
        _phase(migration),
        Cell(migration.operation),
        _down(migration),
        Cell(_moment(migration.since), Tone.FAINT),
        Cell(migration.message),
    ]


def _phase(migration: Migration) -> Cell:
    if migration.phase is None:
        return Cell(_UNREPORTED, Tone.WARN)
    return Cell(migration.phase.value, _TONES.get(migration.phase, Tone.PLAIN))


def _down(migration: Migration) -> Cell:
    if migration.downtime_s is not None:
        return Cell(format_duration(migration.downtime_s))
    return Cell(f"since {_time(migration.down_since)}", Tone.BAD) if migration.down_since else Cell("")


def _moment(text: str) -> str:
    """Write a time of a report without its seconds; what is no time stays as it is."""
    at = parse_time(text)
    return f"{at:%Y-%m-%d %H:%MZ}" if at else text


def _time(text: str) -> str:
    at = parse_time(text)
    return f"{at:%H:%M:%SZ}" if at else text


def _detail(migration: Migration) -> list[Block]:
    way = f"{migration.source or '?'} to {migration.destination}"
    phase = _phase(migration)
    title = Line(Cell(f"{migration.namespace}/{migration.shoot}: {way}: {phase.text}", phase.tone or Tone.STRONG))
    rows = [("operation", Cell(migration.operation)), ("message", Cell(migration.message))]
    report = migration.report
    if report is not None and report.reason:
        rows[1] = ("reason", Cell(f"{report.reason}: {report.message}", Tone.BAD))
        rows.append(("hint", Cell(report.hint)))
    if migration.down_since or migration.downtime_s is not None:
        rows.append(("API server down", _down(migration)))
    rows += _proof(report) if report is not None else []
    document: list[Block] = [title, Fields([row for row in rows if row[1].text])]
    if report is None:
        return document
    return [*document, *_notes(report.notes), Line(Cell("")), _timeline(report.steps)]


def _proof(report: MigrationReport) -> list[tuple[str, Cell]]:
    """Return everything that was measured and compared."""
    rows: list[tuple[str, Cell]] = []
    if report.final is not None:
        rows.append(("final snapshot", _final(report.final)))
    if report.copy is not None:
        rows.append(("copied", _copied(report.copy)))
        if report.copy.missing:
            rows.append(("missing", Cell(", ".join(report.copy.missing), Tone.BAD)))
    if report.restored is not None:
        rows.append(("new etcd", Cell(f"revision {report.restored.revision}, HashKV {report.restored.hash_kv}")))
    if report.equal is not None:
        verdict = Cell("EQUAL to the final snapshot", Tone.GOOD)
        rows.append(("comparison", verdict if report.equal else Cell("NOT EQUAL to the final snapshot", Tone.BAD)))
    if report.first_backup:
        rows.append(("first backup", Cell(f"{report.first_backup} in the bucket of {report.destination}")))
    return rows


def _final(final: FinalSnapshot) -> Cell:
    hash_kv = f", HashKV {final.hash_kv}" if final.hash_kv is not None else ", no HashKV recorded"
    return Cell(f"{final.name}, revision {final.revision}{hash_kv}, {format_size(final.bytes)}")


def _copied(copy: CopyProof) -> Cell:
    chain = "newest chain read and right" if copy.newest_chain_verified else "newest chain not verified"
    text = f"{copy.present:,} of {format_count(copy.expected, 'snapshot')}, {format_size(copy.bytes)}, {chain}"
    return Cell(text, Tone.PLAIN if copy.complete else Tone.WARN)


def _notes(notes: Sequence[str]) -> list[Block]:
    return [Line(Cell(f"note: {note}", Tone.WARN)) for note in dict.fromkeys(notes)]


def _timeline(steps: Sequence[Step]) -> Table:
    first = parse_time(steps[0].at) if steps else None
    rows = []
    for step in steps:
        at = parse_time(step.at)
        after = format_duration(max(0.0, (at - first).total_seconds())) if at and first else ""
        tone = Tone.BAD if is_bad(step) else Tone.STRONG
        rows.append(
            [
                Cell(_time(step.at), Tone.FAINT),
                Cell(after, Tone.FAINT),
                Cell(step.who, Tone.FAINT),
                Cell(step.name, tone),
                Cell(step.detail),
            ]
        )
    return Table(["TIME", "AFTER", "WHO", "STEP", ""], rows, frozenset({1}), prose=True)
