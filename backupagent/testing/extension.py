"""The provider's extension in a Seed as a script: credentials of buckets, removal of objects, answers to annotations.

Source: gardener b312835, extensions/pkg/controller/backupentry/genericactuator.
"""

from backupagent.clock import Clock
from backupagent.errors import KubeInvalid
from backupagent.kube.client import Kube
from backupagent.kube.manifests import timestamp
from backupagent.kube.resources import (
    BACKUP_BUCKETS,
    BACKUP_ENTRIES,
    EXTENSION_BACKUP_ENTRIES,
    SECRETS,
    Document,
    Resource,
)
from backupagent.model.gardener import SUCCEEDED, BackupBucket
from backupagent.stores import open_store, parse_location
from backupagent.stores.peer import peer_uri
from backupagent.testing import garden
from backupagent.testing.control_plane import extension_backup_entry
from backupagent.testing.landscape import tell


class Extension:
    """What an extension does when gardenlet asks for it.

    Args:
        kube: The API server, as an administrator.
        clock: Source of time.
    """

    def __init__(self, kube: Kube, clock: Clock) -> None:
        self._kube = kube
        self._clock = clock

    def operate(self, resource: Resource, name: str, namespace: str, operation: str) -> None:
        """Be asked by annotation, remove it when done, and report.

        Args:
            resource: Kind of an extension object.
            name: Its name.
            namespace: Its namespace.
            operation: ``migrate`` or ``restore``.
        """
        self.annotate(resource, name, namespace, operation)
        document = self.annotate(resource, name, namespace, None)
        tell(self._kube, resource, document, {"lastOperation": self._succeeded(operation.capitalize())})

    def annotate(self, resource: Resource, name: str, namespace: str, operation: str | None) -> Document:
        """Write the annotation that asks for an operation, or remove it."""
        changes = {"metadata": {"annotations": {garden.OPERATION: operation}}}
        return self._kube.patch(resource, name, namespace, changes)

    def reconcile_entry(self, entry: Document, kind: str) -> None:
        """Give the control plane the credentials that a BackupEntry stands for, and tell its status.

        Args:
            entry: The BackupEntry, as the API server gave it.
            kind: Type of the operation: ``Create``, ``Restore``.
        """
        name, spec = entry["metadata"]["name"], entry["spec"]
        fields = self.credentials(spec["bucketName"])
        extension = extension_backup_entry(name, spec["bucketName"], fields["region"])
        self._kube.apply(EXTENSION_BACKUP_ENTRIES, extension)
        secret = garden.secret(garden.backup_secret_name(name), garden.TECHNICAL_ID, fields)
        secret["metadata"]["annotations"] = {"backup.gardener.cloud/created-by": name}
        self._kube.apply(SECRETS, secret)
        generation = entry["metadata"]["generation"]
        status = {"observedGeneration": generation, "seedName": spec["seedName"]}
        tell(self._kube, BACKUP_ENTRIES, entry, {"lastOperation": self._succeeded(kind), **status})

    def credentials(self, bucket: str) -> dict[str, str]:
        """Return the credentials of a bucket.

        Raises:
            KubeInvalid: its BackupBucket names no Secret.
        """
        where = BackupBucket.read(self._kube.get(BACKUP_BUCKETS, bucket)).secret
        if where is None:
            raise KubeInvalid("it names no Secret", what=f"read BackupBucket {bucket}")
        return garden.secret_fields(self._kube.get(SECRETS, where.name, where.namespace))

    def delete_objects(self, bucket: str, entry: str) -> None:
        """Delete everything that a bucket holds for a BackupEntry."""
        fields = self.credentials(bucket)
        location = parse_location(peer_uri(garden.PROVIDER, bucket, "", endpoint=fields["endpoint"]))
        store = open_store(location, clock=self._clock, credentials=fields)
        try:
            for each in list(store.list_objects(f"{entry}/")):
                store.delete(each.key)
        finally:
            store.close()

    def _succeeded(self, kind: str) -> Document:
        return garden.last_operation(kind, SUCCEEDED, timestamp(self._clock.now()))
