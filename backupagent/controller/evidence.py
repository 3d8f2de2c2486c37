"""What must be looked at in the buckets, and the looks, which take their time in threads of their own."""

import base64
import binascii
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from backupagent import wiring
from backupagent.cancel import Cancel
from backupagent.controller.facts import Facts, Stage, parse_time
from backupagent.errors import (
    BackupAgentError,
    Cancelled,
    ConfigError,
    EmptySource,
    FinalSnapshotMissing,
    IntegrityError,
    MigrationFailed,
)
from backupagent.kube.client import Kube
from backupagent.kube.resources import SECRETS
from backupagent.model.gardener import BackupBucket, Shoot
from backupagent.model.migration import FinalSnapshot, MigrationReport
from backupagent.model.snapshot import without_final
from backupagent.operations.arrival import Arrival, Backups, Remembered, SourceSnapshot, source_snapshots
from backupagent.stores.peer import peer_uri

CLOCK_SKEW_S = 300.0
"""How far the clocks of two clusters may be apart when a final snapshot is told from that of an earlier attempt;
Kubernetes itself tolerates no more than minutes in its certificates and tokens."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to be found out in the buckets. Equal questions have the same answer until a bucket changes.

    Attributes:
        shoot: The Shoot, as it was when it was asked.
        source: Bucket to list and to look for the final snapshot in; None when it no longer holds everything.
        destination: Bucket to look for what arrived in; None when it is too early for that.
        final: The final snapshot, when it is known already.
        final_answered: Whether the final snapshot must be there; one without a manifest counts from then on.
        not_before_s: A final snapshot that is older belongs to an earlier attempt; seconds since 1970.
        expected: What the source held when it was seen last; None when nobody saw it.
        released: Whether the source has let go: nothing may vanish from its bucket any more.
        settled: Whether the copy is said to be done.
        copied: Whether everything has been found to be there.
        restored_at_s: When the new etcd had been restored, seconds since 1970; None while it is too early to look
            for a new backup.
    """

    shoot: Shoot
    source: BackupBucket | None = None
    destination: BackupBucket | None = None
    final: FinalSnapshot | None = None
    final_answered: bool = False
    not_before_s: float = 0.0
    expected: tuple[SourceSnapshot, ...] | None = None
    released: bool = False
    settled: bool = False
    copied: bool = False
    restored_at_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was found in the buckets.

    Attributes:
        final: The final snapshot, read whole.
        final_problem: Why there is none.
        source: What the source holds, and what it held when it let go; None when it was not looked at, or not all of
            it was there any more.
        vanished: Names of what it held when it let go and does not hold now.
        lost: Why something can arrive no more: it is neither here nor there.
        arrival: What the destination holds of it.
        history_unknown: Whether only the final snapshot was looked for, since nobody knows what else there was.
        first_backup: The first snapshot that the new etcd made itself.
        unreadable: Why a bucket could not be looked at; else empty.
    """

    final: FinalSnapshot | None = None
    final_problem: BackupAgentError | None = None
    source: tuple[SourceSnapshot, ...] | None = None
    vanished: frozenset[str] = frozenset()
    lost: BackupAgentError | None = None
    arrival: Arrival | None = None
    history_unknown: bool = False
    first_backup: str | None = None
    unreadable: str = ""


def question(
    facts: Facts, report: MigrationReport | None, expected: tuple[SourceSnapshot, ...] | None
) -> Question | None:
    """Return what must be found out next; None when the buckets cannot tell anything now.

    Args:
        facts: What the API says.
        report: What is known.
        expected: What the source held when it was seen last.
    """
    if facts.stage is Stage.REQUESTED or (facts.stage is Stage.MIGRATING and facts.control_plane.api_server):
        return None
    final = report.final if report is not None else None
    copied = report is not None and report.copy is not None and report.copy.complete
    arriving = facts.stage >= Stage.RESTORING
    restored = facts.control_plane.restored
    restored_at = parse_time(restored.at) if restored is not None else None
    wants_backup = report is not None and copied and report.first_backup is None
    # lastOperation and the like change all the time, and are nothing to the buckets.
    shoot = facts.shoot
    asked = Question(
        shoot=Shoot(
            namespace=shoot.namespace,
            name=shoot.name,
            uid=shoot.uid,
            technical_id=shoot.technical_id,
            status_uid=shoot.status_uid,
        ),
        source=facts.source_bucket if facts.source_intact and not (copied and final) else None,
        destination=facts.destination_bucket if arriving else None,
        final=final,
        final_answered=facts.final_answered,
        not_before_s=_not_before_s(report),
        expected=expected,
        released=facts.stage >= Stage.RELEASED,
        settled=facts.copy_settled,
        copied=copied,
        restored_at_s=restored_at.timestamp() if wants_backup and restored_at is not None else None,
    )
    nothing_left = copied and final is not None and asked.restored_at_s is None
    return None if nothing_left else asked


def _not_before_s(report: MigrationReport | None) -> float:
    """Return a moment before which no final snapshot of this migration was taken: it had not been asked for."""
    steps = report.steps if report is not None else ()
    requested: list[datetime] = [
        moment for step in steps if step.name == "MigrationRequested" and (moment := parse_time(step.at)) is not None
    ]
    return requested[0].timestamp() - CLOCK_SKEW_S if requested else 0.0


class Inspector:
    """Looks into the buckets. Thread-safe.

    Args:
        garden: Where the credentials are.
        cancel: Ends a look.
    """

    def __init__(self, garden: Kube, cancel: Cancel) -> None:
        self._garden = garden
        self._cancel = cancel
        self._remembered = Remembered()

    def look(self, asked: Question) -> Evidence:
        """Answer a question; what cannot be read is told, not raised.

        Raises:
            Cancelled: the token was set.
        """
        found = Evidence()
        try:
            if asked.source is not None:
                found = self._look_at_source(asked, asked.source)
            if asked.destination is not None:
                found = self._look_at_destination(asked, asked.destination, found)
        except Cancelled:
            raise
        except BackupAgentError as error:
            return replace(found, unreadable=str(error))
        return found

    def _look_at_source(self, asked: Question, bucket: BackupBucket) -> Evidence:
        with self._open(asked.shoot, bucket) as backups:
            listing = backups.list()
            now = source_snapshots(listing)
            vanished = _vanished(now, asked)
            found = Evidence(
                final=asked.final,
                source=(*now, *(known for known in asked.expected or () if known.name in vanished)),
                vanished=vanished,
            )
            if asked.final is not None:
                return found
            stored = backups.find_final(listing, not_before_s=asked.not_before_s)
            if stored is None:
                missing = FinalSnapshotMissing(f"the source bucket {bucket.name} holds no final snapshot")
                return replace(found, final_problem=missing if now else backups.empty(listing))
            if not asked.final_answered and not backups.has_manifest(stored, listing):
                return replace(found, final_problem=FinalSnapshotMissing(f"{stored.name} is being described"))
            try:
                return replace(found, final=backups.verify_final(stored, listing))
            except IntegrityError as error:
                return replace(found, final_problem=error)

    def _look_at_destination(self, asked: Question, bucket: BackupBucket, found: Evidence) -> Evidence:
        with self._open(asked.shoot, bucket) as backups:
            if asked.source is None:
                found = self._final_at_destination(asked, backups, bucket)
            final = found.final
            if final is None:
                return found
            known = found.source if found.source is not None else asked.expected
            expected = _with_digest(known, final)
            if not asked.copied:
                arrival = backups.check_copy(expected, settled=asked.settled)
                lost = _lost(found, arrival, asked.source)
                found = replace(found, arrival=arrival, history_unknown=known is None, lost=lost)
            if asked.restored_at_s is not None:
                copied = frozenset(snapshot.name for snapshot in expected)
                first = backups.first_new_backup(copied, revision=final.revision, since_s=asked.restored_at_s)
                found = replace(found, first_backup=first)
        return found

    def _final_at_destination(self, asked: Question, backups: Backups, bucket: BackupBucket) -> Evidence:
        """Find the final snapshot where it was copied to: the source's backups are gone."""
        if asked.final is not None:
            return Evidence(final=asked.final)
        listing = backups.list()
        stored = backups.find_copy_of_final(listing)
        if stored is None:
            missing = f"the source's backups are gone, and nothing in {bucket.name} is known to be a final snapshot"
            return Evidence(final_problem=FinalSnapshotMissing(missing))
        try:
            return Evidence(final=backups.verify_final(stored, listing))
        except IntegrityError as error:
            return Evidence(final_problem=error)

    @contextmanager
    def _open(self, shoot: Shoot, bucket: BackupBucket) -> Iterator[Backups]:
        """Open the Shoot's backups in a bucket, with credentials that are read anew each time."""
        fields = self._credentials(bucket)
        uri = peer_uri(
            bucket.provider,
            fields.get("bucketName") or bucket.name,
            shoot.snapshots_prefix,
            endpoint=fields.get("endpoint", ""),
            home=str(Path.home()),
        )
        with wiring.open_backups(uri, fields, self._remembered, self._cancel) as backups:
            yield backups

    def _credentials(self, bucket: BackupBucket) -> Mapping[str, str]:
        what = f"BackupBucket {bucket.name}"
        if bucket.secret is None:
            raise ConfigError(f"{what}: its credentials do not lie in a Secret", hint="use a Secret for this bucket")
        found = self._garden.get(SECRETS, bucket.secret.name, bucket.secret.namespace).get("data")
        try:
            pairs = found.items() if isinstance(found, Mapping) else ()
            return {str(name): base64.b64decode(value, validate=True).decode() for name, value in pairs}
        except (binascii.Error, ValueError, TypeError):
            # Not chained: the original shows the content.
            raise ConfigError(f"{what}: the Secret {bucket.secret.name} holds a field that is no text") from None


def _vanished(now: tuple[SourceSnapshot, ...], asked: Question) -> frozenset[str]:
    """Name what the source held when it let go and does not hold now; before, its own sidecar may delete."""
    if not asked.released:
        return frozenset()
    return frozenset(known.name for known in asked.expected or ()) - {snapshot.name for snapshot in now}


def _lost(found: Evidence, arrival: Arrival, source: BackupBucket | None) -> BackupAgentError | None:
    """Return that something is neither in the source's bucket any more nor at the destination."""
    lost = found.vanished & arrival.absent
    if not lost or source is None:
        return None
    hint = "stop the migration and bring the objects back into the bucket, from its versions or another copy"
    if found.source is not None and len(found.vanished) == len(found.source):
        return EmptySource("every snapshot is gone, and was not copied before", key=f"bucket {source.name}", hint=hint)
    names = ", ".join(sorted(lost)[:3])
    message = f"{len(lost)} snapshots vanished from bucket {source.name} before they were copied: {names}"
    return MigrationFailed(message, hint=hint)


def _with_digest(known: tuple[SourceSnapshot, ...] | None, final: FinalSnapshot) -> tuple[SourceSnapshot, ...]:
    """Add what is known about the final snapshot; it is all that is expected when nobody saw the source."""
    name = without_final(final.name)
    described = SourceSnapshot(name, final.bytes, sha256=final.stored_sha256 or "")
    others = [snapshot for snapshot in known or () if snapshot.name != name]
    return (described, *others)


class Desk:
    """Runs looks in threads: a reconciliation asks, goes on, and is called again when there is an answer.

    An answer counts only when the same question is asked again, from facts that are newer than the look. So what was
    listed of the source is never part of what was there: had somebody begun to delete it meanwhile, the BackupEntry
    would be gone or going, and the source would not be asked for any more.

    Args:
        look: Answers a question.
        answered: Told the key of a question when its answer is there.
        pool: Where the looks run; closed with the desk.
    """

    def __init__(self, look: Callable[[Question], Evidence], answered: Callable[[str], None], pool: Executor) -> None:
        self._look = look
        self._answered = answered
        self._pool = pool
        self._lock = threading.Lock()
        self._running: dict[str, tuple[Question, Future[Evidence]]] = {}

    def ask(self, key: str, asked: Question) -> Evidence | None:
        """Take the answer to this very question, or begin to look for it.

        Returns:
            The answer, once; None while there is none.

        Raises:
            BackupAgentError: the look was stopped.
        """
        with self._lock:
            question_before, future = self._running.get(key, (asked, None))
            if future is not None and not future.done():
                return None
            if future is not None:
                del self._running[key]
                if question_before == asked:
                    return future.result()
            begun = self._pool.submit(self._look, asked)
            self._running[key] = (asked, begun)
        begun.add_done_callback(lambda _done: self._answered(key))
        return None

    def forget(self, key: str) -> None:
        """Drop an answer that nobody will take."""
        with self._lock:
            self._running.pop(key, None)

    def close(self) -> None:
        """Begin nothing any more, and wait for what runs; its token ends it."""
        self._pool.shutdown(cancel_futures=True)
