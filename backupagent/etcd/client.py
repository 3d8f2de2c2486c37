"""A live etcd: ordinary requests, the snapshot stream, and what proofs need.

gRPC and etcd3 are imported when a client is opened, not when this module is.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from backupagent.cancel import Cancel
from backupagent.etcd.connection import EtcdAccess

if TYPE_CHECKING:
    from backupagent.etcd.session import Session
    from backupagent.etcd.stream import WatchStream

MAX_LEASE_REQUESTS = 64
"""LeaseTimeToLive requests under way at once: hides the round trip, and is no burden for the server."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a member says of itself.

    Attributes:
        version: Of the server, e.g. ``3.5.35``.
        db_size: Bytes of the database file.
        db_size_in_use: Bytes of it that hold data.
        revision: Newest revision that this member has applied; other members may be ahead.
        leader: Member id of the leader, 0 when there is none.
        member_id: Of this member.
        cluster_id: Of the cluster.
        raft_term: Its term.
        is_learner: Whether the member has no vote yet.
        errors: Alarms and other trouble, e.g. ``etcdserver: no leader``.
    """

    version: str
    db_size: int
    db_size_in_use: int
    revision: int
    leader: int
    member_id: int
    cluster_id: int
    raft_term: int
    is_learner: bool
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HashKV:
    """etcd's hash over all revisions up to one.

    Attributes:
        hash: crc32c over the ``key`` bucket, as etcd defines it.
        compact_revision: Newest compacted revision, -1 when never compacted: the hash depends on it.
        revision: Newest revision that went into the hash.
    """

    hash: int
    compact_revision: int
    revision: int


class EtcdClient:
    """A connection to one member of an etcd cluster; a context manager that closes it.

    Thread safe, except that one iterator belongs to one thread. Every method raises ``EtcdUnavailable`` when the
    member cannot be reached or has no leader, and ``EtcdError`` when it refuses.

    Args:
        session: The connection; use ``open``.
        settings: The settings that it was opened with.
    """

    def __init__(self, session: "Session", settings: EtcdAccess) -> None:
        self.etcd3 = session
        self._settings = settings

    @classmethod
    def open(cls, settings: EtcdAccess) -> Self:
        """Connect to the first endpoint that answers.

        Raises:
            EtcdUnavailable: none answers.
            EtcdError: the login is refused.
            ConfigError: the settings are wrong.
        """
        from backupagent.etcd.session import connect  # noqa: PLC0415 - imports gRPC

        return cls(connect(settings), settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; running calls end."""
        self.etcd3.close()

    @property
    def endpoint(self) -> str:
        """``host:port`` of the member in use."""
        return self.etcd3.endpoint

    def errors(self) -> AbstractContextManager[None]:
        """Return a block in which calls of ``etcd3`` (``client.etcd3.put``, ...) raise errors of backupagent."""
        from backupagent.etcd.grpc_errors import translated  # noqa: PLC0415 - imports gRPC

        return translated(self.endpoint)

    def status(self) -> Status:
        """Ask the member how it is. It answers without a leader, too."""
        answer = self.etcd3.call(self.etcd3.maintenancestub.Status, self.etcd3.messages.StatusRequest())
        return Status(
            version=answer.version,
            db_size=answer.dbSize,
            db_size_in_use=answer.dbSizeInUse,
            revision=answer.header.revision,
            leader=answer.leader,
            member_id=answer.header.member_id,
            cluster_id=answer.header.cluster_id,
            raft_term=answer.raftTerm,
            is_learner=answer.isLearner,
            errors=tuple(answer.errors),
        )

    def revision(self) -> int:
        """Return the newest revision of the cluster, linearizable: at least that of every finished write."""
        request = self.etcd3.messages.RangeRequest(key=b"\0", count_only=True)
        answer = self.etcd3.call(self.etcd3.kvstub.Range, request)
        return int(answer.header.revision)

    def snapshot_stream(self, cancel: Cancel | None = None) -> Iterator[bytes]:
        """Stream the database file, and behind it the 32 bytes of its sha256.

        Pieces are as etcd sends them, at most 32 KiB. There is no deadline for the whole, only for silence
        (``stall_timeout_s``). A slow reader slows the server down. Close the iterator to end the call early. The
        caller checks the trailer: nothing else tells a cut stream from a complete one.

        Args:
            cancel: Ends the stream when it is set.

        Yields:
            Pieces, in order, none empty.

        Raises:
            Cancelled: the token was set.
            EtcdUnavailable: the stream was cut or fell silent.
            EtcdError: etcd refused, e.g. for want of permission.
        """
        with self.etcd3.open_snapshot(cancel or Cancel()) as responses:
            for response in responses:
                blob = response.blob
                if blob:
                    yield blob

    def hash_kv(self, revision: int = 0) -> HashKV:
        """Have the member hash its history. Reads the whole database there.

        Args:
            revision: Newest revision to hash, 0 for the newest there is.

        Raises:
            RevisionCompacted: the revision is older than the compact revision.
        """
        request = self.etcd3.messages.HashKVRequest(revision=revision)
        answer = self.etcd3.call(
            self.etcd3.maintenancestub.HashKV, request, timeout_s=self._settings.slow_request_timeout_s
        )
        # hash_revision came with 3.6. Before, the header's revision is the store's when it hashed, which is what
        # was hashed unless another revision was asked for.
        hashed = answer.hash_revision or revision or answer.header.revision
        return HashKV(hash=answer.hash, compact_revision=answer.compact_revision, revision=hashed)

    def leases(self) -> list[int]:
        """Return the ids of all leases, signed."""
        answer = self.etcd3.call(self.etcd3.leasestub.LeaseLeases, self.etcd3.messages.LeaseLeasesRequest())
        return [lease.ID for lease in answer.leases]

    def lease_ttls(self, ids: Iterable[int]) -> dict[int, int]:
        """Return the granted time to live of leases, in seconds.

        Args:
            ids: Lease ids, signed; thousands are fine.

        Returns:
            For each id that etcd still knows; leases that expired or were revoked are absent.
        """
        stub, messages = self.etcd3.leasestub, self.etcd3.messages
        self.etcd3.log_in()  # requests sent ahead cannot be tried again when the token is too old
        waiting: deque[Any] = deque()
        granted: dict[int, int] = {}

        def take() -> None:
            answer = waiting[0].result()
            waiting.popleft()
            if answer.grantedTTL > 0:
                granted[answer.ID] = answer.grantedTTL

        try:
            with self.errors():
                for lease_id in ids:
                    if len(waiting) == MAX_LEASE_REQUESTS:
                        take()
                    request = messages.LeaseTimeToLiveRequest(ID=lease_id)
                    waiting.append(
                        stub.LeaseTimeToLive.future(
                            request, timeout=self._settings.request_timeout_s, metadata=self.etcd3.metadata
                        )
                    )
                while waiting:
                    take()
        finally:
            for future in waiting:
                future.cancel()
        return granted

    def compact(self, revision: int, *, physical: bool = True) -> None:
        """Throw away history.

        Args:
            revision: Newest revision whose superseded versions go.
            physical: Return only when the database no longer holds them.

        Raises:
            RevisionCompacted: it already was.
        """
        request = self.etcd3.messages.CompactionRequest(revision=revision, physical=physical)
        self.etcd3.call(self.etcd3.kvstub.Compact, request, timeout_s=self._settings.slow_request_timeout_s)

    def open_watch(self, cancel: Cancel) -> "WatchStream":
        """Open a Watch call; see ``backupagent.etcd.watch.events`` for what to do with it."""
        return self.etcd3.open_watch(cancel)
