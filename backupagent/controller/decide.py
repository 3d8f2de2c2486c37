"""The next report, out of the last one, the facts and the evidence: pure, and the same however often it is called."""

from dataclasses import dataclass

import msgspec

from backupagent.controller import timeline as steps
from backupagent.controller.evidence import Evidence
from backupagent.controller.facts import Facts, Stage
from backupagent.controller.timeline import Timeline
from backupagent.controller.verdict import Comparison, compare, error_line, given_up, incomplete, refused, untold
from backupagent.errors import BackupAgentError, PreflightFailed
from backupagent.model.gardener import ERROR
from backupagent.model.migration import CopyProof, FinalSnapshot, MigrationReport, Phase, RestoredEtcd

HISTORY_UNKNOWN = (
    "the source's history could not be compared: its backups were gone when the controller first looked;"
    " the final snapshot is proven, what was taken before it is not"
)


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What is known now, of now and of before.

    Attributes:
        final: The final snapshot.
        copy: What the destination holds.
        restored: The new etcd.
        comparison: It beside the final snapshot; None until both are known.
        equal: The result of the comparison, of now or of before.
        first_backup: The first snapshot of the new etcd.
    """

    final: FinalSnapshot | None
    copy: CopyProof | None
    restored: RestoredEtcd | None
    comparison: Comparison | None
    equal: bool | None
    first_backup: str | None

    @property
    def copied(self) -> bool:
        return self.copy is not None and self.copy.complete

    @property
    def arrived(self) -> bool:
        """Whether the new etcd may be taken for the old one."""
        compared = self.comparison is not None and self.comparison.problem is None
        return self.equal is True or (compared and self.equal is None)


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """Why a migration is FAILED."""

    reason: str
    message: str
    hint: str


def decide(previous: MigrationReport | None, facts: Facts, evidence: Evidence | None) -> MigrationReport:
    """Return what is known about a migration now.

    Args:
        previous: What was known; None for nothing.
        facts: What the API says.
        evidence: What was found in the buckets; None while nobody has looked anew.
    """
    report = previous or _first(facts)
    if report.phase is Phase.SUCCEEDED:
        return report
    known = _know(report, facts, evidence)
    timeline = Timeline(facts.at, list(report.steps), list(report.notes))
    steps.see(timeline, facts)
    failure = _failure(report, facts, evidence, known)
    phase = Phase.FAILED if failure else _phase(facts, known)
    _tell_proofs(timeline, known, phase)
    _tell_failure(timeline, report, failure)
    _tell_notes(timeline, report, facts, evidence, known)
    return msgspec.structs.replace(
        report,
        source=report.source or facts.source,
        phase=phase,
        reason=failure.reason if failure else "",
        message=failure.message if failure else _waiting(phase, facts, evidence, known),
        hint=failure.hint if failure else "",
        operation=str(facts.shoot.operation),
        steps=tuple(timeline.steps),
        final=known.final,
        copy=known.copy,
        restored=known.restored,
        equal=known.equal,
        first_backup=known.first_backup,
        downtime_s=timeline.downtime_s,
        notes=tuple(timeline.notes),
    )


def _first(facts: Facts) -> MigrationReport:
    return MigrationReport(
        namespace=facts.shoot.namespace,
        shoot=facts.shoot.name,
        source=facts.source,
        destination=facts.destination,
        phase=Phase.REQUESTED,
    )


# ---- what is known


def _know(report: MigrationReport, facts: Facts, evidence: Evidence | None) -> _Known:
    found = evidence or Evidence()
    final = report.final or found.final
    copy = report.copy
    if found.arrival is not None and not (copy is not None and copy.complete):
        copy = found.arrival.proof
    restored, told = report.restored, facts.control_plane.restored
    comparison = None
    # What was equal stays equal: a sidecar that restores again later starts from later backups.
    if told is not None and report.equal is not True:
        restored = RestoredEtcd(revision=told.revision, hash_kv=told.hash_kv, compact_revision=told.compact_revision)
        comparison = compare(told, final) if final is not None else None
    equal = comparison.equal if comparison is not None else (report.equal or None)
    return _Known(
        final=final,
        copy=copy,
        restored=restored,
        comparison=comparison,
        equal=equal,
        first_backup=report.first_backup or found.first_backup,
    )


# ---- failures


def _failure(report: MigrationReport, facts: Facts, evidence: Evidence | None, known: _Known) -> _Failure | None:
    """Return what is wrong, the gravest first."""
    if facts.stage is Stage.REQUESTED:
        return _failed(refused(facts))
    differs = known.comparison.problem if known.comparison is not None else None
    if differs is not None:
        return _failed(differs)
    return _of_buckets(report, facts, evidence, known) or _failed(given_up(facts)) or _failed(untold(facts, report))


def _of_buckets(report: MigrationReport, facts: Facts, evidence: Evidence | None, known: _Known) -> _Failure | None:
    """Return what the buckets lack; without a new look, what they lacked before."""
    seen = evidence is not None and not evidence.unreadable
    failed_before = report.phase is Phase.FAILED and report.reason != PreflightFailed.__name__
    as_before = _Failure(reason=report.reason, message=report.message, hint=report.hint) if failed_before else None
    if evidence is not None and evidence.lost is not None:
        return _failed(evidence.lost)
    if not seen and facts.stage is Stage.RESTORING and not known.copied:
        return as_before
    no_final = facts.stage >= Stage.RELEASED and known.final is None
    no_copy = facts.copy_settled and not known.copied
    if not (no_final or no_copy):
        return None
    error: BackupAgentError | None = None
    if evidence is not None and seen:
        arrival = evidence.arrival
        error = evidence.final_problem if no_final else (incomplete(arrival.proof, arrival) if arrival else None)
    return _failed(error) or as_before


def _failed(error: BackupAgentError | None) -> _Failure | None:
    return _Failure(reason=error.reason, message=error_line(error), hint=error.hint) if error is not None else None


# ---- phase and message


def _phase(facts: Facts, known: _Known) -> Phase:
    if facts.stage is Stage.REQUESTED:
        return Phase.REQUESTED
    if facts.stage is Stage.MIGRATING:
        return Phase.FINAL_TAKEN if known.final is not None else Phase.PREPARING
    if facts.stage is Stage.RELEASED:
        return Phase.RELEASED
    if known.final is None or not known.copied:
        return Phase.COPYING
    if not known.arrived:
        return Phase.COPIED
    done = facts.stage is Stage.RESTORED and known.first_backup is not None
    return Phase.SUCCEEDED if done else Phase.RESTORED


def _waiting(phase: Phase, facts: Facts, evidence: Evidence | None, known: _Known) -> str:
    """Say what is waited for."""
    trouble = []
    if facts.shoot.operation.state == ERROR:
        trouble.append(f"gardenlet tries again: {facts.shoot.operation.description}")
    if evidence is not None and evidence.unreadable:
        trouble.append(f"a bucket cannot be looked at: {evidence.unreadable}")
    task = facts.control_plane.copy_task
    if task is not None and task.message:
        trouble.append(f"the copy task says: {task.message}")
    return "; ".join([_next(phase, facts, known), *(" ".join(line.split()) for line in trouble)])


def _next(phase: Phase, facts: Facts, known: _Known) -> str:
    if phase is Phase.COPYING:
        if known.final is None:
            return "looking for the final snapshot"
        copy = known.copy
        return (
            f"{copy.present} of {copy.expected} snapshots have arrived" if copy is not None else "waiting for the copy"
        )
    if phase is Phase.RESTORED and known.first_backup is not None:
        return "waiting for gardenlet to finish"
    released = "the source has let go; waiting for the destination to begin"
    return {
        Phase.REQUESTED: "nothing speaks against it; waiting for gardenlet to begin",
        Phase.PREPARING: "waiting for the final snapshot",
        Phase.FINAL_TAKEN: "the final snapshot is whole; waiting for the source to let go",
        Phase.RELEASED: released if known.final is not None else f"{released}; looking for the final snapshot",
        Phase.COPIED: "everything has arrived; waiting for the new etcd",
        Phase.RESTORED: "waiting for the first backup of the new etcd",
        Phase.SUCCEEDED: f"everything arrived at {facts.destination}, and backups go there",
    }[phase]


# ---- steps and notes


def _tell_proofs(timeline: Timeline, known: _Known, phase: Phase) -> None:
    final, copy = known.final, known.copy
    if final is not None:
        hashed = f", HashKV {final.hash_kv}" if final.hash_kv is not None else ""
        detail = f"{final.name}: revision {final.revision}, {final.bytes} bytes{hashed}"
        timeline.once("FinalSnapshotVerified", steps.CONTROLLER, detail)
    if copy is not None and known.copied:
        timeline.once(
            "CopyVerified", steps.CONTROLLER, f"{copy.present} of {copy.expected} snapshots, {copy.bytes} bytes"
        )
    if known.restored is not None and known.arrived and known.copied:
        detail = "EQUAL" if known.equal else "nothing was recorded that could be compared"
        timeline.once("RestoreVerified", steps.CONTROLLER, f"revision {known.restored.revision}: {detail}")
    if known.first_backup is not None:
        timeline.once("FirstBackup", steps.SIDECAR, known.first_backup)
    if phase is Phase.SUCCEEDED:
        timeline.once("MigrationSucceeded", steps.CONTROLLER)


def _tell_failure(timeline: Timeline, report: MigrationReport, failure: _Failure | None) -> None:
    if failure is not None and failure.reason != report.reason:
        timeline.add(failure.reason, steps.CONTROLLER, failure.message)
    if failure is None and report.phase is Phase.FAILED:
        timeline.add("FailureOver", steps.CONTROLLER, f"it was {report.reason}")


def _tell_notes(
    timeline: Timeline, report: MigrationReport, facts: Facts, evidence: Evidence | None, known: _Known
) -> None:
    for line in facts.unchecked:
        timeline.note(line)
    if facts.stage is not Stage.REQUESTED and report.reason == PreflightFailed.__name__:
        timeline.note(f"it was begun although the preflight had failed: {report.message}")
    if evidence is not None and evidence.history_unknown and known.copied:
        timeline.note(HISTORY_UNKNOWN)
    if known.comparison is not None:
        timeline.note(known.comparison.note)
