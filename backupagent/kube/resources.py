"""The kinds of objects that are used, as data: a new one is a line here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Document: TypeAlias = Mapping[str, Any]
"""An object of the API as its JSON document."""


@dataclass(frozen=True)
class Resource:
    """A kind of object.

    Attributes:
        group: API group; empty for the core group.
        version: Version of the group.
        kind: Name of the kind.
        plural: Name in paths.
        namespaced: Whether its objects lie in namespaces.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``group/version``, or the version alone for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def stub(self, name: str, namespace: str = "") -> dict[str, Any]:
        """Return the beginning of a document: apiVersion, kind, metadata with name and namespace."""
        metadata: dict[str, Any] = {"name": name}
        if self.namespaced:
            metadata["namespace"] = namespace
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata}


CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps")
EVENTS = Resource("", "v1", "Event", "events")
NAMESPACES = Resource("", "v1", "Namespace", "namespaces", namespaced=False)
PODS = Resource("", "v1", "Pod", "pods")
SECRETS = Resource("", "v1", "Secret", "secrets")
SERVICE_ACCOUNTS = Resource("", "v1", "ServiceAccount", "serviceaccounts")
DEPLOYMENTS = Resource("apps", "v1", "Deployment", "deployments")
JOBS = Resource("batch", "v1", "Job", "jobs")
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases")
ROLES = Resource("rbac.authorization.k8s.io", "v1", "Role", "roles")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")
CLUSTER_ROLES = Resource("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", namespaced=False)
CLUSTER_ROLE_BINDINGS = Resource(
    "rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False
)
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)

GARDEN_GROUP = "core.gardener.cloud"
SHOOTS = Resource(GARDEN_GROUP, "v1beta1", "Shoot", "shoots")
SEEDS = Resource(GARDEN_GROUP, "v1beta1", "Seed", "seeds", namespaced=False)
BACKUP_BUCKETS = Resource(GARDEN_GROUP, "v1beta1", "BackupBucket", "backupbuckets", namespaced=False)
BACKUP_ENTRIES = Resource(GARDEN_GROUP, "v1beta1", "BackupEntry", "backupentries")
SHOOT_STATES = Resource(GARDEN_GROUP, "v1beta1", "ShootState", "shootstates")

DRUID_GROUP = "druid.gardener.cloud"
ETCDS = Resource(DRUID_GROUP, "v1alpha1", "Etcd", "etcds")
ETCD_COPY_BACKUPS_TASKS = Resource(DRUID_GROUP, "v1alpha1", "EtcdCopyBackupsTask", "etcdcopybackupstasks")

EXTENSIONS_GROUP = "extensions.gardener.cloud"
EXTENSION_BACKUP_ENTRIES = Resource(EXTENSIONS_GROUP, "v1alpha1", "BackupEntry", "backupentries", namespaced=False)
INFRASTRUCTURES = Resource(EXTENSIONS_GROUP, "v1alpha1", "Infrastructure", "infrastructures")
CONTROL_PLANES = Resource(EXTENSIONS_GROUP, "v1alpha1", "ControlPlane", "controlplanes")
