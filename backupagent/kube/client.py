"""One API server: read, watch, write; every error becomes one of ``backupagent.errors``."""

import contextlib
from collections.abc import Iterator, Mapping
from http import HTTPMethod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from backupagent.cancel import Cancel
from backupagent.errors import KubeNotFound
from backupagent.kube.call import Call, selectors
from backupagent.kube.resources import Document, Resource
from backupagent.kube.selection import Selection
from backupagent.kube.watching import Change, WatchEvent, follow

if TYPE_CHECKING:
    from backupagent.kube.connection import Connection

__all__ = ["NOTHING", "Change", "Kube", "KubeClient", "WatchEvent"]

NOTHING: Mapping[str, str] = {}
FIELD_MANAGER = "backupagent"


class Kube(Protocol):
    """What users of an API server need; ``KubeClient`` is the real one.

    Every method raises ``KubeUnavailable`` when the server cannot be reached, ``KubeForbidden`` when it does not know
    the caller or its authorizer refuses (the hint names the rule that is missing), and ``ConfigError`` when the
    credentials cannot be had. Thread-safe, except that one iterator belongs to one thread.

    An API server that was just started refuses everybody but ``system:masters`` until it has read its roles.
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
        DELETED. Trouble with the connection is waited out with a growing, jittered pause. ``KubeForbidden`` and
        ``KubeNotFound`` (no such kind) end it: at once when it never worked, later only when they last for seconds.

        A set token ends it within moments, also while nothing is told; while a connection is being opened, within
        its time limits.
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
            KubeInvalid: validation or admission refuses it.
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

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        propagation: str = "",
        grace_period_s: int | None = None,
    ) -> None:
        """Ask for an object's removal; a missing one is fine.

        Args:
            resource: Its kind.
            name: Its name.
            namespace: Its namespace.
            propagation: ``Foreground``, ``Background`` or ``Orphan``; the kind's default when empty.
            grace_period_s: Seconds that a Pod gets to end; 0 removes it at once. Its own wish when None.
        """
        ...


class KubeClient:
    """A connection to an API server; see ``Kube``. A context manager that closes it. Thread-safe.

    An ordinary call has time limits and is not repeated (but for a read whose connection broke): who calls looks
    again. Documents of a listing carry apiVersion and kind like any other.

    Args:
        connection: The connections.
        field_manager: Name under which fields are owned.
    """

    def __init__(self, connection: "Connection", field_manager: str = FIELD_MANAGER) -> None:
        self._connection = connection
        self._manager = {"fieldManager": field_manager}

    def __repr__(self) -> str:
        return f"KubeClient({self._connection.where})"

    @classmethod
    def open(cls, kubeconfig: Path | None = None, *, field_manager: str = FIELD_MANAGER) -> Self:
        """Find the way to an API server; nothing is sent.

        Args:
            kubeconfig: A kubeconfig file; by default what KUBECONFIG names, then the Pod's service account, then
                ``~/.kube/config``. A service account's token is read again when it was rotated.
            field_manager: Name under which fields are owned.

        Raises:
            ConfigError: there is none, or it cannot be used.
        """
        from backupagent.kube.connection import Connection  # noqa: PLC0415 - lightkube takes 0.2 s

        return cls(Connection.open(kubeconfig), field_manager)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def get(self, resource: Resource, name: str, namespace: str = "") -> Document:
        """See ``Kube.get``."""
        return self._connection.ask(HTTPMethod.GET, Call("get", resource, namespace, name))

    def find(self, resource: Resource, name: str, namespace: str = "") -> Document | None:
        """See ``Kube.find``."""
        try:
            return self.get(resource, name, namespace)
        except KubeNotFound:
            return None

    def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        labels: Mapping[str, str] = NOTHING,
        fields: Mapping[str, str] = NOTHING,
    ) -> list[Document]:
        """See ``Kube.list``."""
        return Selection(self._connection, resource, namespace, selectors(labels, fields)).listed()[0]

    def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        labels: Mapping[str, str] = NOTHING,
        fields: Mapping[str, str] = NOTHING,
        cancel: Cancel,
    ) -> Iterator[WatchEvent]:
        """See ``Kube.watch``."""
        return follow(Selection(self._connection, resource, namespace, selectors(labels, fields)), cancel)

    def create(self, resource: Resource, document: Document, *, subresource: str = "", parent: str = "") -> Document:
        """See ``Kube.create``."""
        namespace = document.get("metadata", {}).get("namespace", "")
        call = Call("create", resource, namespace, parent, subresource)
        return self._connection.ask(HTTPMethod.POST, call, parameters=self._manager, body=document)

    def apply(self, resource: Resource, document: Document) -> Document:
        """See ``Kube.apply``."""
        return self._connection.ask(
            HTTPMethod.PATCH,
            Call.about("patch", resource, document),
            parameters={**self._manager, "force": "true"},
            body=document,
            content_type="application/apply-patch+yaml",  # of which JSON is a part
        )

    def patch(
        self, resource: Resource, name: str, namespace: str, changes: Document, *, subresource: str = ""
    ) -> Document:
        """See ``Kube.patch``."""
        return self._connection.ask(
            HTTPMethod.PATCH,
            Call("patch", resource, namespace, name, subresource),
            parameters=self._manager,
            body=changes,
            content_type="application/merge-patch+json",
        )

    def replace(self, resource: Resource, document: Document, *, subresource: str = "") -> Document:
        """See ``Kube.replace``."""
        call = Call.about("update", resource, document, subresource)
        return self._connection.ask(HTTPMethod.PUT, call, parameters=self._manager, body=document)

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        propagation: str = "",
        grace_period_s: int | None = None,
    ) -> None:
        """See ``Kube.delete``."""
        parameters = {"propagationPolicy": propagation} if propagation else {}
        if grace_period_s is not None:
            parameters["gracePeriodSeconds"] = str(grace_period_s)
        with contextlib.suppress(KubeNotFound):
            self._connection.ask(HTTPMethod.DELETE, Call("delete", resource, namespace, name), parameters=parameters)
