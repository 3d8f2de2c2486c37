"""One API server: read, watch, write; every error becomes one of ``backupagent.errors``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from backupagent.cancel import Cancel
from backupagent.kube.resources import Document, Resource

NOTHING: Mapping[str, str] = {}


class Change(StrEnum):
    """What a watch tells."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    SYNCED = "SYNCED"


@dataclass(frozen=True)
class WatchEvent:
    """One change.

    Attributes:
        change: What happened. ``SYNCED`` comes after every listing, without an object: all that exists was told.
        object: The object as it is now, or as it was last when it is gone; empty for ``SYNCED``.
    """

    change: Change
    object: Document


class Kube(Protocol):
    """What users of an API server need; ``KubeClient`` is the real one.

    Every method raises ``KubeUnavailable`` when the server cannot be reached and ``KubeForbidden`` when it refuses
    (its hint names the rule that is missing). Thread-safe, except that one iterator belongs to one thread.
    """

    def get(self, resource: Resource, name: str, namespace: str = "") -> Document:
        """Return an object.

        Raises:
            KubeNotFound: there is none.
        """
        ...

    def find(self, resource: Resource, name: str, namespace: str = "") -> Document | None:
        """Return an object, or None when there is none."""
        ...

    def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        labels: Mapping[str, str] = NOTHING,
        fields: Mapping[str, str] = NOTHING,
    ) -> list[Document]:
        """Return objects, of all namespaces when none is given, read in pages."""
        ...

    def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        labels: Mapping[str, str] = NOTHING,
        fields: Mapping[str, str] = NOTHING,
        cancel: Cancel,
    ) -> Iterator[WatchEvent]:
        """Tell every object that exists, then every change, until the token is set.

        Lists, then watches with bookmarks from where the listing ended. A closed watch is opened again where it
        was; when its resourceVersion is too old (410) it lists again, and tells objects that vanished meanwhile as
        DELETED. Trouble with the connection is waited out with a growing, jittered pause; only ``KubeForbidden``
        and ``KubeNotFound`` (no such kind) end it.
        """
        ...

    def create(self, resource: Resource, document: Document, *, subresource: str = "", parent: str = "") -> Document:
        """Make an object.

        Args:
            resource: Its kind, or that of its parent.
            document: The object; for a subresource what is posted to it.
            subresource: E.g. ``binding`` of a Pod, ``token`` of a ServiceAccount.
            parent: Name of the object that a subresource belongs to.

        Raises:
            KubeConflict: it exists.
            KubeInvalid: it is refused.
        """
        ...

    def apply(self, resource: Resource, document: Document) -> Document:
        """Make an object, or bring the fields in the document into it, by server-side apply with force."""
        ...

    def patch(
        self, resource: Resource, name: str, namespace: str, changes: Document, *, subresource: str = ""
    ) -> Document:
        """Change an object by a JSON merge patch.

        Raises:
            KubeNotFound: there is none.
            KubeConflict: ``changes`` names a resourceVersion that is not the newest.
            KubeInvalid: the change is refused.
        """
        ...

    def replace(self, resource: Resource, document: Document, *, subresource: str = "") -> Document:
        """Write a whole object that was read before.

        Raises:
            KubeNotFound: there is none.
            KubeConflict: it changed since it was read.
            KubeInvalid: it is refused.
        """
        ...

    def delete(self, resource: Resource, name: str, namespace: str = "", *, propagation: str = "") -> None:
        """Ask for an object's removal; a missing one is fine.

        Args:
            resource: Its kind.
            name: Its name.
            namespace: Its namespace.
            propagation: ``Foreground``, ``Background`` or ``Orphan``; the kind's default when empty.
        """
        ...


class KubeClient:
    """A connection to an API server; see ``Kube``. A context manager that closes it."""

    @classmethod
    def open(cls, kubeconfig: Path | None = None, *, field_manager: str = "backupagent") -> Self:
        """Find the way to an API server; nothing is sent.

        Args:
            kubeconfig: A kubeconfig file; by default what KUBECONFIG names, then the Pod's service account, then
                ``~/.kube/config``.
            field_manager: Name under which fields are owned.

        Raises:
            ConfigError: there is none, or it cannot be read.
        """
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
