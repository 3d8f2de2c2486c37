"""Whether what arrived is what left: pure judgements over one migration's facts and figures."""

from dataclasses import dataclass
from datetime import timedelta

from backupagent.controller.facts import Facts, Stage, parse_time
from backupagent.controller.preflight import summary
from backupagent.errors import BackupAgentError, MigrationFailed, NotEqual, PreflightFailed
from backupagent.model.gardener import FAILED, RESTORE
from backupagent.model.migration import CopyProof, FinalSnapshot, MigrationReport
from backupagent.model.restored import Restored
from backupagent.model.snapshot import without_final
from backupagent.operations.arrival import Arrival

PROOF_WITHIN = timedelta(minutes=10)
"""How long after gardenlet's success the sidecar may take to tell what it restored. It tells it before etcd starts,
which gardenlet itself has waited for; what is left is a Lease that could not be written, tried again every 30 s."""

KEEP_SOURCE = (
    "keep the source's backups: take the BackupEntry's deletion back, or copy them elsewhere, before anything else"
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The restored etcd beside the final snapshot.

    Attributes:
        equal: Whether they are equal; None when nothing was recorded that could be compared.
        note: What the operator should know beside that.
        problem: Why the restored etcd must not pass for the old one.
    """

    equal: bool | None = None
    note: str = ""
    problem: NotEqual | None = None


def compare(restored: Restored, final: FinalSnapshot) -> Comparison:
    """Compare what was restored with what the source recorded of its final snapshot."""
    if without_final(restored.full) != without_final(final.name):
        return _differs(f"it was made from {restored.full}, the final snapshot is {final.name}")
    if restored.revision < final.revision:
        return _differs(f"it ends at revision {restored.revision}, the final snapshot at {final.revision}")
    extra = restored.revision - final.revision
    note = f"the new etcd has {extra} revisions more than the final snapshot" if extra else ""
    if final.hash_kv is None:
        told = "the final snapshot has no recorded HashKV: only the revisions could be compared"
        return Comparison(note=f"{told}; {note}" if note else told)
    recorded = (final.hash_kv_revision, final.compact_revision)
    if (restored.revision, restored.compact_revision) == recorded:
        same = restored.hash_kv == final.hash_kv
        return Comparison(equal=True, note=note) if same else _differs(_figures(restored, final))
    if restored.revision > (final.hash_kv_revision or 0) and restored.matches_manifest is True:
        return Comparison(equal=True, note=note)  # HashKV was found again at the revision where it was recorded
    return _differs(_figures(restored, final))


def _differs(reason: str) -> Comparison:
    hint = "do not use the new etcd; restore it again from the destination bucket, or from the source's backups"
    return Comparison(equal=False, problem=NotEqual(f"the restored etcd is not the old one: {reason}", hint=hint))


def _figures(restored: Restored, final: FinalSnapshot) -> str:
    return (
        f"HashKV {restored.hash_kv} at revision {restored.revision} (compacted at {restored.compact_revision}),"
        f" the source had {final.hash_kv} at {final.hash_kv_revision} (compacted at {final.compact_revision})"
    )


def refused(facts: Facts) -> PreflightFailed | None:
    """Return why the migration must not begin."""
    if not facts.refusals:
        return None
    return PreflightFailed(summary(facts.refusals), hint=facts.refusals[0].hint)


def incomplete(proof: CopyProof, arrival: Arrival | None) -> MigrationFailed:
    """Return what a copy that is said to be done lacks."""
    parts = [f"{proof.present} of {proof.expected} snapshots arrived"]
    if proof.missing:
        more = proof.expected - proof.present - len(proof.missing)
        parts.append(f"missing: {', '.join(proof.missing)}{f' and {more} more' if more > 0 else ''}")
    elif not proof.newest_chain_verified:
        parts.append("the newest chain is not whole")
    parts += [str(problem) for problem in (arrival.problems if arrival is not None else ())[:3]]
    return MigrationFailed("; ".join(parts), hint=KEEP_SOURCE)


def given_up(facts: Facts) -> MigrationFailed | None:
    """Return what gardenlet says when it will not try again."""
    operation = facts.shoot.operation
    if operation.state != FAILED:
        return None
    hint = "mend what it names, then annotate the Shoot with gardener.cloud/operation=retry"
    return MigrationFailed(f"gardenlet gave up: {operation.description}", hint=hint)


def untold(facts: Facts, report: MigrationReport) -> MigrationFailed | None:
    """Return that nobody told what the new etcd was made from, when it is long enough ago that somebody should have."""
    if facts.stage is not Stage.RESTORED or facts.control_plane.restored is not None or report.restored is not None:
        return None
    operation = facts.shoot.operation
    told = [step.at for step in report.steps if step.name == "RestoreSucceeded"]
    ended = parse_time(operation.updated if operation.type == RESTORE else "".join(told[:1]))
    now = parse_time(facts.at)
    if ended is None or now is None or now - ended < PROOF_WITHIN:
        return None
    reason = facts.control_plane.restored_problem or "its sidecar did not tell what it restored"
    hint = "check that the sidecar is backupagent's and may patch its Lease; look at its log"
    return MigrationFailed(f"the new etcd cannot be shown to be the old one: {reason}", hint=hint)


def error_line(error: BackupAgentError) -> str:
    """Return an error's message in one line."""
    return " ".join(str(error).split())
