"""What an operation says when it has ended. The fields are those of the JSON documents of ``--output json``."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from backupagent.progress import PhaseReport


@dataclass(frozen=True, kw_only=True)
class Report:
    """Every report.

    Attributes:
        seconds: Whole run of the operation.
        phases: Its phases in order.
    """

    seconds: float
    phases: tuple[PhaseReport, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what ``--output json`` prints, ready for a JSON encoder."""
        document: dict[str, Any] = asdict(self)
        return document


@dataclass(frozen=True, kw_only=True)
class SnapshotReport(Report):
    """One snapshot was taken, or none was needed.

    Attributes:
        name: Of the newest object written; None when a delta had nothing to hold.
        names: Of all objects written: a large backlog becomes several deltas.
        kind: ``Full`` or ``Incr``.
        final: Whether it is marked final.
        start_revision: First revision of a delta (of the first of several); 0 for a full.
        last_revision: Last revision that the name promises.
        events: Events in the deltas; 0 for a full.
        note: Something the operator should know, e.g. why a full was taken instead of a delta; or empty.
        manifest: The manifest's fields (of the newest object), None where unknown; they are merged into the JSON.
    """

    name: str | None
    names: tuple[str, ...]
    kind: str
    final: bool
    start_revision: int
    last_revision: int
    events: int
    note: str
    manifest: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the report with the manifest's fields beside its own."""
        document: dict[str, Any] = asdict(self)
        del document["manifest"]
        return self.manifest | document


@dataclass(frozen=True)
class ChainEnd:
    """A chain in a report.

    Attributes:
        full: Name of its full.
        last_revision: Last revision that can be restored from it.
        restorable_after_s: Seconds from the start until all of it was at the target, checked as asked, with its
            manifests. None where one process cannot know it: it copies one share of several.
    """

    full: str
    last_revision: int
    restorable_after_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class CopyCounts(Report):
    """What was copied.

    Attributes:
        copied: Snapshots that were copied.
        skipped: Snapshots that the target is proven to have already.
        bytes: Bytes that were moved.
        bytes_reread: Bytes that were read although the target had their parts already.
        server_side_bytes: Bytes that the store copied by itself.
        server_side_refused: Why the store did not copy by itself, or not to the end; None when nothing was refused.
        trailers_unchecked: Snapshots that were proven by nothing: neither by their own sha256 nor by a manifest's, nor,
            where the store copied by itself, by its digests of source and copy.
    """

    copied: int
    skipped: int
    bytes: int
    bytes_reread: int
    server_side_bytes: int
    server_side_refused: str | None = None
    trailers_unchecked: int


@dataclass(frozen=True, kw_only=True)
class CopyReport(CopyCounts):
    """Snapshots were copied.

    Attributes:
        newest_chain: The chain that the target can be restored from now.
        given_up_revisions: First and last revision lost by going on without a final snapshot; -1 for a last one that
            nobody can know.
    """

    newest_chain: ChainEnd
    given_up_revisions: tuple[int, int] | None


@dataclass(frozen=True)
class LeaseCount:
    """What became of leases.

    Attributes:
        kept: Leases of the full.
        synthesized: Leases made anew because keys of deltas are attached to them.
        guessed_ttl: Those of them whose time to live is not recorded and is ``--lease-ttl``.
        dangling: Ids on keys without a lease.
    """

    kept: int
    synthesized: int
    guessed_ttl: int
    dangling: int


@dataclass(frozen=True, kw_only=True)
class RestoreReport(Report):
    """A data directory was made.

    Attributes:
        revision: Its last revision.
        hash_kv: HashKV at that revision.
        compact_revision: The compact revision that ``hash_kv`` belongs to.
        events: Events that came from deltas.
        matches_manifest: Whether the full's recorded HashKV was found again; None when none is recorded.
        full: Name of the full.
        deltas: How many deltas were read.
        leases: What became of leases.
        data_dirs: The directories that were made.
        cluster_id: Of the new cluster, hex.
    """

    revision: int
    hash_kv: int
    compact_revision: int
    events: int
    matches_manifest: bool | None
    full: str
    deltas: int
    leases: LeaseCount
    data_dirs: tuple[str, ...]
    cluster_id: str


@dataclass(frozen=True)
class Problem:
    """Something is wrong with a store.

    Attributes:
        key: The object.
        reason: Name of the error class.
        detail: Its message.
        hint: What to do about it.
    """

    key: str
    reason: str
    detail: str
    hint: str = ""


@dataclass(frozen=True)
class VerifiedChain:
    """A chain that was checked.

    Attributes:
        full: Name of its full.
        last_revision: Last revision that can be restored from it.
        deltas: How many deltas it has.
        ok: Whether every object of it is whole and no revision is missing.
    """

    full: str
    last_revision: int
    deltas: int
    ok: bool


@dataclass(frozen=True, kw_only=True)
class VerifyReport(Report):
    """A store was checked.

    Attributes:
        ok: Whether there is no problem.
        problems: What is wrong, in the order of the chains.
        chains: All chains, newest first.
        checked: Objects that were read whole.
        bytes: Their stored bytes.
    """

    ok: bool
    problems: tuple[Problem, ...]
    chains: tuple[VerifiedChain, ...]
    checked: int
    bytes: int


class FollowEnd(StrEnum):
    """Why a follow ended."""

    FINAL = "final"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Behind:
    """How far a target is behind its source, as it was listed last.

    Attributes:
        snapshots: Snapshots that the target does not have.
        bytes: Their stored bytes.
        seconds: Age of the oldest one of the newest chain, by the time in its name; 0 when only older history, or
            nothing, is missing.
    """

    snapshots: int
    bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class FollowReport(CopyCounts):
    """A target was kept in step.

    Attributes:
        newest_chain: The newest chain that the target can be restored from now; None when there is none.
        ended: Why it ended.
        final: Name of the final snapshot that ended it, at the source; None for another end.
        behind: How far the target is behind.
        unlisted_s: Seconds since the source was last listed: what was written since is not in ``behind``.
        listings: How often the source was listed.
        problems: What is bad and still there, and what ended it or kept it from going on.
    """

    newest_chain: ChainEnd | None
    ended: FollowEnd
    final: str | None
    behind: Behind
    unlisted_s: float
    listings: int
    problems: tuple[Problem, ...]

    @property
    def in_step(self) -> bool:
        """Whether nothing was missing at the target and nothing is wrong."""
        return not self.behind.snapshots and not self.problems


@dataclass(frozen=True)
class ListedSnapshot:
    """One line of a listing.

    Attributes:
        name: Of the object.
        kind: ``Full`` or ``Incr``.
        start_revision: 0 for a full.
        last_revision: As named.
        created: RFC 3339, UTC.
        size: Stored bytes.
        final: Whether it is marked final.
        manifest: Whether it has a manifest.
    """

    name: str
    kind: str
    start_revision: int
    last_revision: int
    created: str
    size: int
    final: bool
    manifest: bool


@dataclass(frozen=True)
class ListedChain:
    """A chain in a listing.

    Attributes:
        full: Its base.
        deltas: In order.
        last_revision: Last revision that can be restored from it, i.e. before its first gap.
        gaps: First and last missing revision of each hole.
        size: Stored bytes in all.
    """

    full: ListedSnapshot
    deltas: tuple[ListedSnapshot, ...]
    last_revision: int
    gaps: tuple[tuple[int, int], ...]
    size: int


@dataclass(frozen=True, kw_only=True)
class ListReport(Report):
    """What lies in a store.

    Attributes:
        store: Its URI.
        chains: Newest first.
        orphans: Deltas that no full can carry.
        unreadable: Keys among the snapshots whose name is none.
    """

    store: str
    chains: tuple[ListedChain, ...]
    orphans: tuple[ListedSnapshot, ...]
    unreadable: tuple[str, ...]
