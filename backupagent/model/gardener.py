"""What is read out of Gardener's and druid's objects.

The documents come from clusters that others write to: whatever is missing or odd becomes empty, nothing raises.

Source of the fields: gardener, pkg/apis/core/v1beta1 at b312835; etcd-druid, api/core/v1alpha1 at 5b90b4a.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Document: TypeAlias = Mapping[str, Any]

SOURCE_ENTRY_PREFIX = "source-"
"""What stands before the name of the BackupEntry that points at the bucket that a Shoot comes from."""

ETCD_MAIN = "etcd-main"
"""Name of the Etcd that is backed up, and of the prefix of its snapshots below the BackupEntry's name."""

API_SERVER = "kube-apiserver"
"""Name of the Deployment of a Shoot's API server, in its control plane's namespace."""

ENCRYPTION_KEY = "kube-apiserver-etcd-encryption-key"
"""Value of the label ``name`` of the Secret without which nobody can read a restored etcd."""

MIGRATE = "Migrate"
RESTORE = "Restore"
SUCCEEDED = "Succeeded"
ABORTED = "Aborted"
FAILED = "Failed"
ERROR = "Error"
"""Types and states of ``lastOperation``."""


def _at(document: object, *path: str) -> object:
    found = document
    for name in path:
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found


def _text(document: object, *path: str) -> str:
    found = _at(document, *path)
    return found if isinstance(found, str) else ""


def _number(document: object, *path: str) -> int:
    found = _at(document, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def _items(document: object, *path: str) -> list[Document]:
    found = _at(document, *path)
    if not isinstance(found, Sequence) or isinstance(found, str | bytes):
        return []
    return [item for item in found if isinstance(item, Mapping)]


def _conditions(document: Document) -> Mapping[str, str]:
    return {_text(item, "type"): _text(item, "status") for item in _items(document, "status", "conditions")}


@dataclass(frozen=True, kw_only=True)
class LastOperation:
    """What gardenlet did last, or is doing.

    Attributes:
        type: ``Create``, ``Reconcile``, ``Delete``, ``Migrate``, ``Restore``; empty when there is none.
        state: ``Processing``, ``Succeeded``, ``Error``, ``Failed``, ``Pending``, ``Aborted``.
        progress: 0 to 100.
        description: For a person; while a flow runs, the names of its running tasks.
        updated: When it was written, RFC 3339.
    """

    type: str = ""
    state: str = ""
    progress: int = 0
    description: str = ""
    updated: str = ""

    @classmethod
    def read(cls, document: Document) -> "LastOperation":
        """Read ``status.lastOperation`` of an object."""
        found = _at(document, "status", "lastOperation")
        return cls(
            type=_text(found, "type"),
            state=_text(found, "state"),
            progress=_number(found, "progress"),
            description=_text(found, "description"),
            updated=_text(found, "lastUpdateTime"),
        )

    def __str__(self) -> str:
        return f"{self.type} {self.state} {self.progress}%" if self.type else ""


@dataclass(frozen=True, kw_only=True)
class Shoot:
    """A Shoot.

    Attributes:
        namespace: Of its project.
        name: Its name.
        uid: ``metadata.uid``.
        technical_id: Namespace of its control plane in a Seed.
        status_uid: ``status.uid``; part of the name of its backups.
        spec_seed: The Seed that it shall be on.
        status_seed: The Seed that it is on; empty when nobody owns it.
        operation: What gardenlet did last.
        deleting: Whether it is being deleted.
        hibernated: Whether it is hibernated.
        hibernation_wanted: Whether it shall be.
    """

    namespace: str
    name: str
    uid: str = ""
    technical_id: str = ""
    status_uid: str = ""
    spec_seed: str = ""
    status_seed: str = ""
    operation: LastOperation = LastOperation()
    deleting: bool = False
    hibernated: bool = False
    hibernation_wanted: bool = False

    @classmethod
    def read(cls, document: Document) -> "Shoot":
        """Read a Shoot."""
        return cls(
            namespace=_text(document, "metadata", "namespace"),
            name=_text(document, "metadata", "name"),
            uid=_text(document, "metadata", "uid"),
            technical_id=_text(document, "status", "technicalID"),
            status_uid=_text(document, "status", "uid"),
            spec_seed=_text(document, "spec", "seedName"),
            status_seed=_text(document, "status", "seedName"),
            operation=LastOperation.read(document),
            deleting=bool(_text(document, "metadata", "deletionTimestamp")),
            hibernated=_at(document, "status", "hibernated") is True,
            hibernation_wanted=_at(document, "spec", "hibernation", "enabled") is True,
        )

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @property
    def backup_entry_name(self) -> str:
        """Name of its BackupEntry; empty while it has no control plane."""
        uid = self.status_uid or self.uid
        return f"{self.technical_id}--{uid}" if self.technical_id and uid else ""

    @property
    def snapshots_prefix(self) -> str:
        """What stands before ``/v2/`` in the keys of its snapshots, in every bucket."""
        return f"{self.backup_entry_name}/{ETCD_MAIN}"

    @property
    def must_migrate(self) -> bool:
        """Whether it is on one Seed and shall be on another; gardenlet's own rule."""
        return bool(self.spec_seed and self.status_seed) and self.spec_seed != self.status_seed


@dataclass(frozen=True, kw_only=True)
class Seed:
    """A Seed.

    Attributes:
        name: Its name.
        uid: Also the name of its BackupBucket.
        backup_provider: Of its backups; empty when it has none configured.
        deleting: Whether it is being deleted.
        generation: Of what it shall be.
        observed_generation: Of what gardenlet has seen.
        gardener_version: Of its gardenlet.
        conditions: Status, ``True`` or ``False`` or ``Unknown``, by type.
    """

    name: str
    uid: str = ""
    backup_provider: str = ""
    deleting: bool = False
    generation: int = 0
    observed_generation: int = 0
    gardener_version: str = ""
    conditions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, document: Document) -> "Seed":
        """Read a Seed."""
        return cls(
            name=_text(document, "metadata", "name"),
            uid=_text(document, "metadata", "uid"),
            backup_provider=_text(document, "spec", "backup", "provider"),
            deleting=bool(_text(document, "metadata", "deletionTimestamp")),
            generation=_number(document, "metadata", "generation"),
            observed_generation=_number(document, "status", "observedGeneration"),
            gardener_version=_text(document, "status", "gardener", "version"),
            conditions=_conditions(document),
        )


@dataclass(frozen=True, kw_only=True)
class SecretRef:
    """Where a Secret is."""

    namespace: str
    name: str


@dataclass(frozen=True, kw_only=True)
class BackupBucket:
    """A BackupBucket.

    Attributes:
        name: Its name: the uid of its Seed.
        provider: Of the object store, e.g. ``S3`` or ``aws``.
        seed: The Seed that writes to it.
        secret: Where its credentials are; None when they do not lie in a Secret.
        trouble: What its extension complained of last; empty when it is healthy.
    """

    name: str
    provider: str = ""
    seed: str = ""
    secret: SecretRef | None = None
    trouble: str = ""

    @classmethod
    def read(cls, document: Document) -> "BackupBucket":
        """Read a BackupBucket."""
        operation = LastOperation.read(document)
        trouble = _text(document, "status", "lastError", "description")
        if not trouble and _at(document, "status", "lastError"):
            trouble = "it has a lastError"
        if not trouble and operation.state in {ERROR, FAILED}:
            trouble = f"{operation.type} {operation.state}: {operation.description}"
        return cls(
            name=_text(document, "metadata", "name"),
            provider=_text(document, "spec", "provider", "type"),
            seed=_text(document, "spec", "seedName"),
            secret=_secret(document),
            trouble=trouble,
        )


def _secret(bucket: Document) -> SecretRef | None:
    """Find the credentials: what the extension made comes before what the operator gave."""
    generated = _at(bucket, "status", "generatedSecretRef")
    given = _at(bucket, "spec", "credentialsRef")
    if not _text(generated, "name") and _text(given, "kind") != "Secret":
        return None
    found = generated if _text(generated, "name") else given
    name, namespace = _text(found, "name"), _text(found, "namespace")
    return SecretRef(namespace=namespace, name=name) if name and namespace else None


@dataclass(frozen=True, kw_only=True)
class BackupEntry:
    """A BackupEntry of the garden cluster.

    Attributes:
        name: Its name.
        bucket: The BackupBucket that it points at.
        seed: The Seed that shall look after it.
        status_seed: The Seed that looks after it; empty when none does.
        deleting: Whether it is being deleted, and with it the objects in the bucket.
    """

    name: str
    bucket: str = ""
    seed: str = ""
    status_seed: str = ""
    deleting: bool = False

    @classmethod
    def read(cls, document: Document) -> "BackupEntry":
        """Read a BackupEntry."""
        return cls(
            name=_text(document, "metadata", "name"),
            bucket=_text(document, "spec", "bucketName"),
            seed=_text(document, "spec", "seedName"),
            status_seed=_text(document, "status", "seedName"),
            deleting=bool(_text(document, "metadata", "deletionTimestamp")),
        )


@dataclass(frozen=True, kw_only=True)
class CopyTask:
    """An EtcdCopyBackupsTask.

    Attributes:
        succeeded: Whether druid says that its Job completed.
        failed: Whether druid says that its Job failed.
        message: Of that condition, or the last error.
    """

    succeeded: bool = False
    failed: bool = False
    message: str = ""

    @classmethod
    def read(cls, document: Document) -> "CopyTask":
        """Read an EtcdCopyBackupsTask."""
        conditions = _conditions(document)
        failed = conditions.get("Failed") == "True"
        messages = [
            _text(i, "message") for i in _items(document, "status", "conditions") if _text(i, "type") == "Failed"
        ]
        return cls(
            succeeded=conditions.get("Succeeded") == "True",
            failed=failed,
            message=(messages[0] if failed and messages else "") or _text(document, "status", "lastError"),
        )


def holds_encryption_key(shoot_state: Document) -> bool:
    """Whether a ShootState holds the key that etcd's content is encrypted with."""
    for entry in _items(shoot_state, "spec", "gardener"):
        if _text(entry, "type") == "secret" and _text(entry, "labels", "name") == ENCRYPTION_KEY:
            data = _at(entry, "data")
            return isinstance(data, Mapping) and bool(data)
    return False


def created_at(document: Document) -> str:
    """When an object was made, RFC 3339; empty when that is not told."""
    return _text(document, "metadata", "creationTimestamp")


def annotation(document: Document, name: str) -> str:
    """Return an annotation's value; empty when there is none."""
    return _text(document, "metadata", "annotations", name)


def name_of(document: Document) -> str:
    """Return an object's name; empty when it has none."""
    return _text(document, "metadata", "name")
