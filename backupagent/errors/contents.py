"""What stores answer, and what is wrong with the content of a bucket."""

from backupagent.errors.base import BackupAgentError


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
