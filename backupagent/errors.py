"""Every error that backupagent raises on purpose, with its exit code.

::

    BackupAgentError                exit  HTTP
    ├─ ConfigError                     2   400  nothing was attempted
    ├─ Cancelled                     130   499  SIGTERM or SIGINT
    ├─ StoreError                     10   500  op, key, store
    │  ├─ ObjectNotFound              11   404
    │  ├─ ObjectExists                12   409  create-only write
    │  ├─ AccessDenied                13   403  credentials or policy
    │  ├─ ObjectLocked                14   409  retention
    │  ├─ StoreUnavailable            15   503  retryable
    │  └─ ObjectChanged               16   409  not the object that was listed
    ├─ IntegrityError                 20   500  key
    │  ├─ ChecksumMismatch            21   502
    │  ├─ TruncatedObject             22   502  retryable
    │  ├─ BadSnapshotName             23   422
    │  ├─ RevisionGap                 24   422
    │  ├─ EmptySource                 25   404
    │  ├─ ConflictingDeltas           26   422
    │  ├─ NameMismatch                27   422
    │  ├─ TrailerMissing              28   422
    │  └─ MalformedContent            29   422
    ├─ EtcdError                      30   500  endpoint
    │  ├─ EtcdUnavailable             31   503  retryable
    │  ├─ RevisionCompacted           32   409
    │  └─ DataDirInvalid              33   500
    ├─ DataDirNotEmpty                34   409
    ├─ NoSpace                        35   507
    ├─ PartialFailure                 40   500  holds every error
    ├─ FinalSnapshotMissing           41   404
    ├─ NotEqual                       42   409
    ├─ PreflightFailed                43   409  a migration must not begin
    ├─ MigrationFailed                44   500  a migration did not arrive whole
    └─ KubeError                      50   500  what was asked of which object
       ├─ KubeUnavailable             51   503  retryable
       ├─ KubeForbidden               52   403  RBAC
       ├─ KubeNotFound                53   404
       ├─ KubeConflict                54   409  somebody changed the object in between, or it exists
       └─ KubeInvalid                 55   422  validation or admission refused it

One class per reason, the same class for fulls and deltas. A message names the object and the reason
(lowercase, no full stop); ``hint`` names the remedy. Adapters translate the errors of their SDK into
these in one place and chain the original; nobody above an adapter sees an SDK's error.
"""

from collections.abc import Sequence
from typing import ClassVar


class BackupAgentError(Exception):
    """Base of all errors raised on purpose.

    Attributes:
        exit_code: Exit status of the command line, stable, documented in ``docs/errors.md``.
        http_status: Status of an HTTP answer that reports this error.
        retryable: Whether the same call may succeed when it is made again.
        hint: What the operator can do about it.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint

    @property
    def reason(self) -> str:
        """Name of the class: also the reason in a report or a Kubernetes condition."""
        return type(self).__name__


class ConfigError(BackupAgentError):
    """An option, a URI or a file of settings is wrong; nothing was attempted."""

    exit_code = 2
    http_status = 400
    default_hint = "see `backupagent COMMAND --help`"


class Cancelled(BackupAgentError):
    """Stopped by SIGTERM, SIGINT or a caller; whatever was half made is undone."""

    exit_code = 130
    http_status = 499
    default_hint = "run the same command again: finished work is not repeated"


class StoreError(BackupAgentError):
    """A call to an object store failed.

    Args:
        message: The reason, without the object's name.
        op: Name of the call, e.g. ``read``.
        key: Key of the object, or the prefix of a listing.
        store: The store as shown to users, without secrets.
        hint: What the operator can do about it.
        retry_after_s: How long the store asked to wait, seconds, or None.
    """

    exit_code = 10
    default_hint = "check the store's URI, its reachability and its logs"

    def __init__(
        self,
        message: str,
        *,
        op: str,
        key: str = "",
        store: str = "",
        hint: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        where = f" in {store}" if store else ""
        super().__init__(f"{op} {key!r}{where}: {message}", hint=hint)
        self.op = op
        self.key = key
        self.store = store
        self.cause = message
        self.retry_after_s = retry_after_s


class ObjectNotFound(StoreError):
    """No object, bucket or upload of that name."""

    exit_code = 11
    http_status = 404
    default_hint = "check bucket and prefix with `backupagent list`"


class ObjectExists(StoreError):
    """A create-only write met an existing object."""

    exit_code = 12
    http_status = 409
    default_hint = "another writer was first; list the store and decide which object stays"


class AccessDenied(StoreError):
    """Credentials are missing, wrong or not allowed to do this."""

    exit_code = 13
    http_status = 403
    default_hint = "check the credentials and the policy: a source needs List and Get, a target also Put"


class ObjectLocked(StoreError):
    """Retention or a lock forbids the change."""

    exit_code = 14
    http_status = 409
    default_hint = "wait until the retention of the object ends"


class StoreUnavailable(StoreError):
    """Throttled, reset, timed out, unreachable, or a 5xx answer."""

    exit_code = 15
    http_status = 503
    retryable = True
    default_hint = "check that the endpoint is right and reachable, then run the command again"


class ObjectChanged(StoreError):
    """The object is not the one that was listed: somebody replaced it in between."""

    exit_code = 16
    http_status = 409
    default_hint = "run the command again so that the object is listed anew"


class IntegrityError(BackupAgentError):
    """The content of a bucket is not what it must be.

    Args:
        message: The reason, without the object's name.
        key: Key of the object, or the store when it is about several.
        hint: What the operator can do about it.
    """

    exit_code = 20
    default_hint = "run `backupagent verify` on the store to see which chains are whole"

    def __init__(self, message: str, *, key: str, hint: str | None = None) -> None:
        super().__init__(f"{key}: {message}", hint=hint)
        self.key = key
        self.cause = message


class ChecksumMismatch(IntegrityError):
    """Content and digest differ: a byte was changed."""

    exit_code = 21
    http_status = 502
    default_hint = "the object is damaged: copy it again from its source, or restore from another chain"


class TruncatedObject(IntegrityError):
    """The content ends too early."""

    exit_code = 22
    http_status = 502
    retryable = True
    default_hint = "the object is incomplete: copy it again from its source, or restore from another chain"


class BadSnapshotName(IntegrityError):
    """A name under the snapshots' prefix does not follow the grammar of snapshot names."""

    exit_code = 23
    http_status = 422
    default_hint = "names look like Full-00000000-00000042-1795400591.gz; move other objects elsewhere"


class RevisionGap(IntegrityError):
    """Revisions are missing between two snapshots, or inside one."""

    exit_code = 24
    http_status = 422
    default_hint = "bring the missing delta back into the bucket, or take a new full snapshot"


class EmptySource(IntegrityError):
    """There is no snapshot to work with."""

    exit_code = 25
    http_status = 404
    default_hint = "check bucket and prefix: snapshots lie under PREFIX/v2/, and PREFIX ends at a path boundary"


class ConflictingDeltas(IntegrityError):
    """Two deltas hold the same revision with different events."""

    exit_code = 26
    http_status = 422
    default_hint = "two writers wrote into one prefix; remove the deltas that do not belong to this etcd"


class NameMismatch(IntegrityError):
    """The revisions inside an object are not those in its name."""

    exit_code = 27
    http_status = 422
    default_hint = "the object was renamed or belongs to another etcd; copy it again from its source"


class TrailerMissing(IntegrityError):
    """The content has no sha256 at its end."""

    exit_code = 28
    http_status = 422
    default_hint = "a snapshot ends with the 32 bytes of its sha256; a plain copy of a db file is not a snapshot"


class MalformedContent(IntegrityError):
    """The content cannot be decoded: compression, JSON, bbolt or protobuf."""

    exit_code = 29
    http_status = 422
    default_hint = "the object is damaged: copy it again from its source, or restore from another chain"


class EtcdError(BackupAgentError):
    """A call to an etcd server failed.

    Args:
        message: The reason.
        endpoint: ``host:port`` of the server, or the data directory.
        hint: What the operator can do about it.
    """

    exit_code = 30
    default_hint = "check the endpoint, its certificates and the user's permissions"

    def __init__(self, message: str, *, endpoint: str = "", hint: str | None = None) -> None:
        super().__init__(f"etcd {endpoint}: {message}" if endpoint else f"etcd: {message}", hint=hint)
        self.endpoint = endpoint
        self.cause = message


class EtcdUnavailable(EtcdError):
    """The server cannot be reached, has no leader, or closed the stream."""

    exit_code = 31
    http_status = 503
    retryable = True
    default_hint = "check that etcd runs and that the endpoint is right, then run the command again"


class RevisionCompacted(EtcdError):
    """The revisions asked for are gone from the server's history."""

    exit_code = 32
    http_status = 409
    default_hint = "take a new full snapshot"


class DataDirInvalid(EtcdError):
    """A data directory is not one that etcd can start from."""

    exit_code = 33
    default_hint = "restore it again from a snapshot"


class DataDirNotEmpty(BackupAgentError):
    """A restore never writes into an existing data directory."""

    exit_code = 34
    http_status = 409
    default_hint = "name a directory that does not exist, or move the old one away"


class NoSpace(BackupAgentError):
    """The file system is full."""

    exit_code = 35
    http_status = 507
    default_hint = "free space on the file system that holds the path, then run the command again"


class PartialFailure(BackupAgentError):
    """Some objects were handled and some were not.

    Args:
        message: What was attempted and how much of it failed.
        errors: Every error, in the order in which they occurred, at least one.
        hint: What the operator can do; by default the hint of the first error.

    Attributes:
        summary: The message without those of the errors.
    """

    exit_code = 40

    def __init__(self, message: str, errors: Sequence[BackupAgentError], *, hint: str | None = None) -> None:
        super().__init__(
            "; ".join([message, *(str(error) for error in errors)]), hint=errors[0].hint if hint is None else hint
        )
        self.summary = message
        self.errors = tuple(errors)


class FinalSnapshotMissing(BackupAgentError):
    """No final snapshot appeared in time."""

    exit_code = 41
    http_status = 404
    default_hint = "check that the source took it; --on-missing-final=copy goes on with less"


class NotEqual(BackupAgentError):
    """Two sides that had to be equal are not."""

    exit_code = 42
    http_status = 409
    default_hint = "do not use the copy; verify both sides to see which one is wrong"


class PreflightFailed(BackupAgentError):
    """A migration must not begin: something that it needs is missing or unhealthy.

    Args:
        message: Every reason, in one line.
        hint: What the operator can do about the first one.
    """

    exit_code = 43
    http_status = 409
    default_hint = "mend what is named, then ask for the migration again"


class MigrationFailed(BackupAgentError):
    """A migration ended with less than everything, or cannot be shown to have arrived whole."""

    exit_code = 44
    default_hint = "keep the source's backups; `backupagent migrations` shows what is known"


class KubeError(BackupAgentError):
    """A request to a Kubernetes API server failed.

    Args:
        message: The reason, as the API server gave it.
        what: What was asked of which object, e.g. ``get shoots garden-dev/demo``.
        hint: What the operator can do about it.
    """

    exit_code = 50
    default_hint = "check the kubeconfig and the API server's logs"

    def __init__(self, message: str, *, what: str, hint: str | None = None) -> None:
        super().__init__(f"{what}: {message}", hint=hint)
        self.what = what
        self.cause = message


class KubeUnavailable(KubeError):
    """The API server cannot be reached, is overloaded, or closed the connection."""

    exit_code = 51
    http_status = 503
    retryable = True
    default_hint = "check that the API server runs and that the kubeconfig's address is right"


class KubeForbidden(KubeError):
    """The API server refuses: not known, or not allowed by RBAC."""

    exit_code = 52
    http_status = 403
    default_hint = "ask for a role with the rule that is missing"


class KubeNotFound(KubeError):
    """There is no such object, or no such kind of object."""

    exit_code = 53
    http_status = 404
    default_hint = "check name and namespace, and that the cluster is the right one"


class KubeConflict(KubeError):
    """Somebody changed the object in between, or it exists already."""

    exit_code = 54
    http_status = 409
    retryable = True
    default_hint = "run the command again"


class KubeInvalid(KubeError):
    """Validation or admission refused the object."""

    exit_code = 55
    http_status = 422
    default_hint = "the API server's message says what it does not accept"
