"""Proving that a delta which overlaps what is already restored agrees with it."""

from collections.abc import Iterator, Sequence

from backupagent.errors import ConflictingDeltas
from backupagent.etcd.mvcc.keyvalue import encode_event
from backupagent.etcd.mvcc.revision import RevisionKey
from backupagent.etcd.restored_db import RestoredDb, StoredChange
from backupagent.model.event import DELETE, Event


class Overlap:
    """Compares the events of one delta, up to the last revision that is already there, with what is there.

    Make it before the delta's first ``append``, hand it every batch before that is appended, and call ``finish``.
    Revisions up to the base's compact revision cannot be compared and are passed over. Not thread safe.

    Args:
        db: The database.
        key: The delta, for messages.

    Attributes:
        compared: Number of events that were compared.
    """

    def __init__(self, db: RestoredDb, key: str) -> None:
        self.compared = 0
        self._db, self._key = db, key
        self._last = db.revision
        self._stored: Iterator[StoredChange] = iter(())
        self._revision = 0
        self._sub = 0

    def compare(self, events: Sequence[Event]) -> None:
        """Compare the next batch.

        Raises:
            ConflictingDeltas: the delta differs from what is there.
            MalformedContent: the file is malformed.
        """
        if not events or not self._last:
            return
        if events[0].etcdEvent.kv.mod_revision <= self._last:
            for event in events:
                if event.etcdEvent.kv.mod_revision > self._last:
                    break
                self._compare(event)
        if events[-1].etcdEvent.kv.mod_revision > self._last:
            self.finish()

    def finish(self) -> None:
        """Refuse a delta that holds only a part of the last compared revision.

        Raises:
            ConflictingDeltas: it does.
        """
        rest = next(self._stored, None) if self._revision else None
        if rest is not None and rest.revision.main == self._revision:
            raise self._conflict(self._revision)
        self._stored, self._revision, self._last = iter(()), 0, 0

    def _compare(self, event: Event) -> None:
        revision = event.etcdEvent.kv.mod_revision
        if revision <= self._db.base.compact_revision:
            return
        if not self._revision:
            self._stored = self._db.events_at(revision, self._last)
        self._sub = self._sub + 1 if revision == self._revision else 0
        self._revision = revision
        stored = next(self._stored, None)
        is_stripped = self._db.strips_leases and revision > self._db.base.revision
        change = StoredChange(
            RevisionKey(revision, self._sub, event.etcdEvent.type == DELETE),
            encode_event(event, with_lease=not is_stripped),
        )
        if stored != change:
            raise self._conflict(revision)
        self.compared += 1

    def _conflict(self, revision: int) -> ConflictingDeltas:
        message = f"revision {revision} differs from the same revision of the snapshots before it"
        return ConflictingDeltas(message, key=self._key)
