"""What is known about one migration: its steps, its proof, its end. Pure values, and their JSON."""

from enum import StrEnum

import msgspec

from backupagent.errors import MalformedContent

FORMAT = "backupagent.migration/v1"

LABEL = "backupagent.io/migration"
"""Label of the ConfigMap that holds a report; its value is ``true``."""

REPORT_KEY = "report.json"
"""Key of the report in the ConfigMap."""


class Phase(StrEnum):
    """How far a migration is; in the order of the flow. The last two are ends."""

    REQUESTED = "Requested"  # spec.seedName differs from status.seedName, or a preflight is under way
    PREPARING = "Preparing"  # lastOperation Migrate: the source control plane is taken down
    FINAL_TAKEN = "FinalTaken"  # the final snapshot lies verified in the source bucket
    RELEASED = "Released"  # the source Seed has let go: status.seedName is null or the destination
    COPYING = "Copying"  # lastOperation Restore: the destination bucket does not hold everything yet
    COPIED = "Copied"  # our own check of the destination bucket found everything
    RESTORED = "Restored"  # the new etcd has the final manifest's revision and HashKV
    SUCCEEDED = "Succeeded"  # the first new backup lies in the destination bucket
    FAILED = "Failed"  # less than everything arrived, or the migration must not begin


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened.

    Attributes:
        name: Short, stable, CamelCase: also the reason of the Event, e.g. ``FinalSnapshotVerified``.
        who: Who did it: ``operator``, ``gardenlet``, ``druid``, ``sidecar``, ``controller``.
        at: When it was seen, RFC 3339 with milliseconds, UTC.
        detail: For a person, one line.
    """

    name: str
    who: str
    at: str
    detail: str = ""


class FinalSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The final full snapshot, as found and verified.

    Attributes:
        name: Its name at the source.
        revision: Last revision inside.
        bytes: Stored size.
        hash_kv: Recorded HashKV at ``hash_kv_revision``; None when none is recorded.
        hash_kv_revision: See ``hash_kv``.
        compact_revision: The compact revision that ``hash_kv`` belongs to.
        stored_sha256: Of the stored object, hex.
    """

    name: str
    revision: int
    bytes: int
    hash_kv: int | None = None
    hash_kv_revision: int | None = None
    compact_revision: int | None = None
    stored_sha256: str | None = None


class CopyProof(msgspec.Struct, frozen=True, kw_only=True):
    """What our own check of the destination bucket found.

    Attributes:
        expected: Snapshots that the source held.
        present: Those of them that the destination is proven to hold.
        missing: Names of those that it does not hold, at most ten.
        newest_chain_verified: Whether every byte of the newest chain at the destination was read and is right.
        bytes: Stored bytes of what is present.
    """

    expected: int
    present: int
    missing: tuple[str, ...] = ()
    newest_chain_verified: bool = False
    bytes: int = 0

    @property
    def complete(self) -> bool:
        """Whether everything arrived."""
        return self.expected > 0 and self.present == self.expected and self.newest_chain_verified


class RestoredEtcd(msgspec.Struct, frozen=True, kw_only=True):
    """What the new etcd's sidecar reported; see ``model.restored``."""

    revision: int
    hash_kv: int
    compact_revision: int


class MigrationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known about one migration; the content of its ConfigMap.

    Attributes:
        format: ``FORMAT``.
        namespace: Of the Shoot.
        shoot: Name of the Shoot.
        source: Name of the source Seed; empty when it can no longer be told.
        destination: Name of the destination Seed.
        phase: How far it is.
        reason: Of a failure: the name of the class of ``errors``; else empty.
        message: For a person, one line: what is waited for, or what went wrong.
        hint: What the operator can do about a failure; else empty.
        operation: ``lastOperation`` as ``Migrate Processing 42%``.
        steps: What happened, in order of time.
        final: The final snapshot.
        copy: What was found in the destination bucket.
        restored: The new etcd.
        equal: Whether the new etcd equals the final manifest; None until that is known.
        first_backup: Name of the first new snapshot in the destination bucket.
        downtime_s: From the API server's end to its new beginning, seconds; None until both were seen.
        notes: What the operator should know beside the phase, e.g. what could not be compared.
    """

    format: str = FORMAT
    namespace: str
    shoot: str
    source: str
    destination: str
    phase: Phase
    reason: str = ""
    message: str = ""
    hint: str = ""
    operation: str = ""
    steps: tuple[Step, ...] = ()
    final: FinalSnapshot | None = None
    copy: CopyProof | None = None
    restored: RestoredEtcd | None = None
    equal: bool | None = None
    first_backup: str | None = None
    downtime_s: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether nothing more is expected to happen."""
        return self.phase in {Phase.SUCCEEDED, Phase.FAILED}


_decoder = msgspec.json.Decoder(MigrationReport)


def config_map_name(shoot: str) -> str:
    """Return the name of the ConfigMap that holds a Shoot's report, in the Shoot's namespace."""
    return f"{shoot}.backupagent-migration"


def encode_report(report: MigrationReport) -> str:
    """Write a report as JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def decode_report(text: str, where: str) -> MigrationReport:
    """Read a report; fields that this version does not know are ignored.

    Args:
        text: The JSON.
        where: Its ConfigMap, for messages.

    Raises:
        MalformedContent: it is not a report of this format.
    """
    try:
        report = _decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise MalformedContent(f"not a migration report: {error}", key=where) from error
    if report.format != FORMAT:
        raise MalformedContent(f"report format {report.format!r}, this program reads {FORMAT!r}", key=where)
    return report
