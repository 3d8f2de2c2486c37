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
       ├─ KubeConflict                54   409  retryable; changed in between, or it exists
       └─ KubeInvalid                 55   422  validation or admission refused it

One class per reason, the same class for fulls and deltas. A message names the object and the reason
(lowercase, no full stop); ``hint`` names the remedy. Adapters translate the errors of their SDK into
these in one place and chain the original; nobody above an adapter sees an SDK's error.
"""

from backupagent.errors.base import (
    BackupAgentError,
    Cancelled,
    ConfigError,
    DataDirNotEmpty,
    FinalSnapshotMissing,
    MigrationFailed,
    NoSpace,
    NotEqual,
    PartialFailure,
    PreflightFailed,
)
from backupagent.errors.contents import (
    AccessDenied,
    BadSnapshotName,
    ChecksumMismatch,
    ConflictingDeltas,
    EmptySource,
    IntegrityError,
    MalformedContent,
    NameMismatch,
    ObjectChanged,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    RevisionGap,
    StoreError,
    StoreUnavailable,
    TrailerMissing,
    TruncatedObject,
)
from backupagent.errors.servers import (
    DataDirInvalid,
    EtcdError,
    EtcdUnavailable,
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeInvalid,
    KubeNotFound,
    KubeUnavailable,
    RevisionCompacted,
)

__all__ = [
    "AccessDenied",
    "BackupAgentError",
    "BadSnapshotName",
    "Cancelled",
    "ChecksumMismatch",
    "ConfigError",
    "ConflictingDeltas",
    "DataDirInvalid",
    "DataDirNotEmpty",
    "EmptySource",
    "EtcdError",
    "EtcdUnavailable",
    "FinalSnapshotMissing",
    "IntegrityError",
    "KubeConflict",
    "KubeError",
    "KubeForbidden",
    "KubeInvalid",
    "KubeNotFound",
    "KubeUnavailable",
    "MalformedContent",
    "MigrationFailed",
    "NameMismatch",
    "NoSpace",
    "NotEqual",
    "ObjectChanged",
    "ObjectExists",
    "ObjectLocked",
    "ObjectNotFound",
    "PartialFailure",
    "PreflightFailed",
    "RevisionCompacted",
    "RevisionGap",
    "StoreError",
    "StoreUnavailable",
    "TrailerMissing",
    "TruncatedObject",
]
