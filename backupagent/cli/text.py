"""Each command's report as a document for people."""

from collections.abc import Iterable, Sequence

from backupagent.cli.document import Block, Cell, Document, Fields, Line, Table, Tone
from backupagent.operations.report import (
    ChainEnd,
    CopyReport,
    FollowEnd,
    FollowReport,
    LeaseCount,
    ListedChain,
    ListedSnapshot,
    ListReport,
    Problem,
    RestoreReport,
    SnapshotReport,
    VerifyReport,
)
from backupagent.progress import PhaseReport
from backupagent.units import format_count, format_duration, format_size


def rate_text(size: float, seconds: float) -> str:
    """Write bytes per second for people; empty when nothing was handled."""
    return f"{format_size(size / seconds)}/s" if size and seconds > 0 else ""


def _range_text(first: int, last: int) -> str:
    return f"{first} to {last}" if first != last else str(first)


def phases(phases: Sequence[PhaseReport], seconds: float) -> list[Block]:
    """Show how long each phase took."""
    rows = [
        [
            Cell(phase.name),
            Cell(format_duration(phase.seconds)),
            Cell(format_size(phase.bytes) if phase.bytes else ""),
            Cell(rate_text(phase.bytes, phase.seconds)),
        ]
        for phase in phases
    ]
    total = [Cell("in all", Tone.STRONG), Cell(format_duration(seconds), Tone.STRONG), Cell(""), Cell("")]
    return [Line(Cell("")), Table(["PHASE", "TIME", "BYTES", "RATE"], [*rows, total], frozenset({1, 2, 3}))]


def snapshot(report: SnapshotReport) -> Document:
    """Describe the snapshot that was taken, or say that none was needed."""
    note = [Line(Cell(f"note: {report.note}", Tone.WARN))] if report.note else []
    if report.name is None:
        nothing = f"nothing new after revision {report.last_revision}: no delta was written"
        return [Line(Cell(nothing, Tone.GOOD)), *note, *phases(report.phases, report.seconds)]
    rows = [("snapshot", Cell(name, Tone.STRONG)) for name in report.names]
    if report.kind == "Full":
        rows.append(("revision", Cell(str(report.last_revision))))
    else:
        rows.append(("revisions", Cell(_range_text(report.start_revision, report.last_revision))))
        rows.append(("events", Cell(f"{report.events:,}")))
    rows.append(("final", Cell("yes", Tone.WARN) if report.final else Cell("no")))
    rows += _manifest_rows(report.manifest)
    title = Line(Cell("full snapshot taken" if report.kind == "Full" else "delta snapshot taken", Tone.GOOD))
    return [title, Fields(rows), *note, *phases(report.phases, report.seconds)]


def _manifest_rows(manifest: dict[str, object]) -> list[tuple[str, Cell]]:
    rows: list[tuple[str, Cell]] = []
    content, stored = manifest.get("bytes"), manifest.get("stored_bytes")
    if isinstance(content, int) and isinstance(stored, int):
        rows.append(("content", Cell(f"{format_size(content)}, stored as {format_size(stored)}")))
    hash_kv, compacted = manifest.get("hash_kv"), manifest.get("compact_revision")
    if isinstance(hash_kv, int) and isinstance(compacted, int):
        at = f"at revision {manifest.get('hash_kv_revision')}"
        rows.append(("HashKV", Cell(f"{hash_kv} {at}, {_compacted_text(compacted)}")))
    if manifest.get("etcd_version"):
        rows.append(("etcd", Cell(f"{manifest['etcd_version']}, cluster {manifest.get('cluster_id')}")))
    return rows


def _compacted_text(compact_revision: int) -> str:
    return "never compacted" if compact_revision < 0 else f"compacted at revision {compact_revision}"


def copy(report: CopyReport | FollowReport) -> Document:
    """Describe what was copied and what the target can be restored from now."""
    if isinstance(report, FollowReport):
        return follow(report)
    moved = report.bytes + report.server_side_bytes
    rows = [
        ("copied", Cell(f"{format_count(report.copied, 'snapshot')}, {format_size(moved)}", Tone.STRONG)),
        ("skipped", Cell(f"{format_count(report.skipped, 'snapshot')} proven to be the same at the target")),
        ("newest chain", Cell(report.newest_chain.full)),
        _restorable(report.newest_chain),
    ]
    rate = rate_text(moved, sum(phase.seconds for phase in report.phases if phase.bytes))
    if rate:
        rows.insert(2, ("rate", Cell(rate)))
    if report.server_side_bytes:
        rows.append(("server side", Cell(f"{format_size(report.server_side_bytes)} copied by the store itself")))
    if report.server_side_refused:
        rows.append(("not server side", Cell(report.server_side_refused, Tone.WARN)))
    if report.bytes_reread:
        rows.append(("read again", Cell(f"{format_size(report.bytes_reread)} of parts that were uploaded before")))
    if report.trailers_unchecked:
        unchecked = f"{format_count(report.trailers_unchecked, 'snapshot')} without a check of its own sha256"
        rows.append(("unchecked", Cell(f"{unchecked}; `backupagent verify` does it", Tone.WARN)))
    if report.given_up_revisions is not None:
        first, last = report.given_up_revisions
        lost = f"every revision from {first} on" if last < first else f"revisions {_range_text(first, last)}"
        rows.append(("given up", Cell(f"{lost}: no final snapshot appeared", Tone.BAD)))
    title = "copied" if report.copied else "nothing to copy: the target is in step"
    return [Line(Cell(title, Tone.GOOD)), Fields(rows), *phases(report.phases, report.seconds)]


def follow(report: FollowReport) -> Document:
    """Say how far the target is behind, and what is wrong."""
    ends = {
        FollowEnd.FINAL: f"a final snapshot was copied: {report.final}",
        FollowEnd.STOPPED: "stopped as asked",
        FollowEnd.FAILED: "ended by a problem",
    }
    behind = report.behind
    missing = f"{format_count(behind.snapshots, 'snapshot')}, {format_size(behind.bytes)}"
    age = f", {format_duration(behind.seconds)}" if behind.seconds else ""
    listed = f"; the source was last listed {format_duration(report.unlisted_s)} ago"
    rows = [
        ("ended", Cell(ends[report.ended])),
        ("copied", Cell(f"{format_count(report.copied, 'snapshot')}, {format_size(report.bytes)}", Tone.STRONG)),
        ("skipped", Cell(f"{format_count(report.skipped, 'snapshot')} proven to be the same at the target")),
        ("behind", Cell(f"{missing}{age}{listed}" if behind.snapshots else f"nothing{listed}")),
    ]
    if report.newest_chain is None:
        rows.append(("restorable to", Cell("nothing yet", Tone.BAD)))
    else:
        chain = report.newest_chain
        revision = Cell(f"revision {chain.last_revision}", Tone.STRONG)
        rows += [("newest chain", Cell(chain.full)), ("restorable to", revision)]
    title = Cell("in step", Tone.GOOD) if report.in_step else Cell("NOT in step", Tone.BAD)
    document: list[Block] = [Line(title), Fields(rows)]
    for problem in report.problems:
        document += _problem(problem)
    return [*document, *phases(report.phases, report.seconds)]


def _restorable(chain: ChainEnd) -> tuple[str, Cell]:
    revision = f"revision {chain.last_revision}"
    if chain.restorable_after_s is None:  # a share of several: the others have the rest
        return "reaches", Cell(f"{revision}, when all shares are copied")
    return "restorable to", Cell(f"{revision}, after {format_duration(chain.restorable_after_s)}", Tone.STRONG)


def restore(report: RestoreReport) -> Document:
    """Describe the data directory and the proof."""
    verdicts = {
        True: Cell("HashKV equals the one recorded with the snapshot", Tone.GOOD),
        False: Cell("HashKV is NOT the one recorded with the snapshot", Tone.BAD),
        None: Cell("no HashKV is recorded with the snapshot to compare with", Tone.WARN),
    }
    deltas = format_count(report.deltas, "delta")
    rows = [("data directory", Cell(path, Tone.STRONG)) for path in report.data_dirs]
    rows += [
        ("from", Cell(f"{report.full}, {deltas}, {format_count(report.events, 'event')}")),
        ("revision", Cell(str(report.revision), Tone.STRONG)),
        ("HashKV", Cell(str(report.hash_kv), Tone.STRONG)),
        ("compact revision", Cell(str(report.compact_revision) + (" (never)" if report.compact_revision < 0 else ""))),
        ("proof", verdicts[report.matches_manifest]),
        ("leases", _leases(report.leases)),
        ("cluster id", Cell(report.cluster_id)),
    ]
    title = Line(Cell(f"restored up to revision {report.revision}", Tone.GOOD))
    return [title, Fields(rows), *phases(report.phases, report.seconds)]


def _leases(count: LeaseCount) -> Cell:
    parts = [f"{count.kept} kept"]
    if count.synthesized:
        guessed = f" ({count.guessed_ttl} with a guessed TTL, see --lease-ttl)" if count.guessed_ttl else ""
        parts.append(f"{count.synthesized} made anew{guessed}")
    if count.dangling:
        parts.append(f"{count.dangling} ids on keys without a lease: those keys stay for ever")
    doubtful = count.guessed_ttl or count.dangling
    return Cell(", ".join(parts), Tone.WARN if doubtful else Tone.PLAIN)


def listing(report: ListReport) -> Document:
    """Show the chains of a store, newest first, with the revisions that are missing in red."""
    document: list[Block] = [Line(Cell(f"{report.store}: {format_count(len(report.chains), 'chain')}", Tone.STRONG))]
    for chain in report.chains:
        document += _chain(chain)
    if report.orphans:
        orphans = f"{format_count(len(report.orphans), 'delta')} that no full snapshot can carry"
        document += [Line(Cell("")), Line(Cell(orphans, Tone.WARN)), _snapshots(report.orphans, ())]
    if report.unreadable:
        odd = f"{format_count(len(report.unreadable), 'object')} whose name is no snapshot's"
        document += [Line(Cell("")), Line(Cell(odd, Tone.WARN))]
        document += [Line(Cell(key), 2) for key in report.unreadable]
    return document


def _chain(chain: ListedChain) -> list[Block]:
    summary = f"restorable to revision {chain.last_revision}, {format_count(len(chain.deltas), 'delta')}"
    tone = Tone.BAD if chain.gaps else Tone.GOOD
    lines: list[Block] = [Line(Cell("")), Line(Cell(f"{summary}, {format_size(chain.size)}", tone))]
    lines += [
        Line(Cell(f"revisions {_range_text(first, last)} are missing", Tone.BAD), 2) for first, last in chain.gaps
    ]
    return [*lines, _snapshots([chain.full, *chain.deltas], chain.gaps)]


def _snapshots(snapshots: Iterable[ListedSnapshot], gaps: Sequence[tuple[int, int]]) -> Table:
    holes = list(gaps)
    rows: list[list[Cell]] = []
    for listed in snapshots:
        while holes and listed.start_revision > holes[0][1]:
            missing = Cell(_range_text(*holes.pop(0)).replace(" to ", "-"), Tone.BAD)
            rows.append([Cell("(missing)", Tone.BAD), missing, Cell(""), Cell(""), Cell("")])
        last = str(listed.last_revision)
        revisions = last if listed.kind == "Full" else f"{listed.start_revision}-{last}"
        marks = Cell(", ".join(_marks(listed)), Tone.WARN if listed.final else Tone.PLAIN)
        created = Cell(listed.created, Tone.FAINT)
        rows.append([Cell(listed.name), Cell(revisions), created, Cell(format_size(listed.size)), marks])
    return Table(["SNAPSHOT", "REVISIONS", "TAKEN", "SIZE", ""], rows, frozenset({1, 3}))


def _marks(listed: ListedSnapshot) -> list[str]:
    return [mark for mark, set_ in (("final", listed.final), ("manifest", listed.manifest)) if set_]


def verification(report: VerifyReport) -> Document:
    """Say what is wrong, then which chains can be restored."""
    read = f"{format_count(report.checked, 'object')} read, {format_size(report.bytes)}"
    if report.ok:
        title = Cell(f"no problem: {read}", Tone.GOOD)
    else:
        title = Cell(f"{format_count(len(report.problems), 'problem')}: {read}", Tone.BAD)
    document: list[Block] = [Line(title)]
    for problem in report.problems:
        document += _problem(problem)
    rows = [
        [
            Cell(chain.full),
            Cell(str(chain.last_revision)),
            Cell(str(chain.deltas)),
            Cell("whole", Tone.GOOD) if chain.ok else Cell("damaged", Tone.BAD),
        ]
        for chain in report.chains
    ]
    if rows:
        document += [Line(Cell("")), Table(["CHAIN", "RESTORABLE TO", "DELTAS", "STATE"], rows, frozenset({1, 2}))]
    return [*document, *phases(report.phases, report.seconds)]


def _problem(problem: Problem) -> list[Block]:
    detail = problem.detail if problem.key in problem.detail else f"{problem.key}: {problem.detail}"
    lines: list[Block] = [Line(Cell("")), Line(Cell(f"{problem.reason}: {detail}", Tone.BAD), 2)]
    return [*lines, Line(Cell(f"hint: {problem.hint}"), 2)] if problem.hint else lines
