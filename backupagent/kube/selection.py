"""The objects of one kind that a listing or a watch is about."""

import random
from collections.abc import Iterator, Mapping
from http import HTTPMethod
from typing import Any, Protocol

from backupagent.cancel import Cancel
from backupagent.errors import KubeError
from backupagent.kube.call import Call
from backupagent.kube.resources import Document, Resource
from backupagent.kube.watching import TooOld

PAGE = 500
"""Objects in one answer.

Source:
    ``defaultPageSize`` of k8s.io/client-go v0.36.3, tools/pager/pager.go.
"""

LISTINGS = 3
"""How often a listing is begun when its pages become too old to be gone through."""

WATCH_S = (240, 480)
"""After how long the server closes a watch: random, so that the watches of many clients are not renewed at once."""


class Asking(Protocol):
    """What is needed of a ``Connection``."""

    def ask(self, method: HTTPMethod, call: Call, *, parameters: Mapping[str, str]) -> dict[str, Any]:
        """Make a request and return the document that is answered."""
        ...

    def changes(self, call: Call, parameters: Mapping[str, str], cancel: Cancel) -> Iterator[tuple[str, Document]]:
        """Give what a watch tells."""
        ...


class Selection:
    """Objects of one kind, in one namespace or in all, chosen by labels and fields. A ``watching.Source``.

    Args:
        connection: The API server.
        resource: The kind.
        namespace: Where; empty for all.
        chosen: Parameters with the selectors.
    """

    def __init__(self, connection: Asking, resource: Resource, namespace: str, chosen: Mapping[str, str]) -> None:
        self._connection = connection
        self._resource = resource
        self._namespace = namespace
        self._chosen = chosen

    def listed(self) -> tuple[list[Document], str]:
        """Return all objects and the resourceVersion of the listing, read in pages.

        Raises:
            KubeError: it failed.
        """
        for _ in range(LISTINGS - 1):
            try:
                return self._pages()
            except TooOld:
                continue
        return self._pages()

    def changes(self, version: str, cancel: Cancel) -> Iterator[tuple[str, Document]]:
        """Give type and object of every change after a resourceVersion; see ``watching.Source``."""
        parameters = {
            **self._chosen,
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(random.randint(*WATCH_S)),  # noqa: S311 - spreads load, guards nothing
        }
        return self._connection.changes(Call("watch", self._resource, self._namespace), parameters, cancel)

    def _pages(self) -> tuple[list[Document], str]:
        call = Call("list", self._resource, self._namespace)
        kind = {"apiVersion": self._resource.api_version, "kind": self._resource.kind}
        found: list[Document] = []
        next_page: dict[str, str] = {}
        while True:
            parameters = {**self._chosen, "limit": str(PAGE), **next_page}
            answer = self._connection.ask(HTTPMethod.GET, call, parameters=parameters)
            items, metadata = answer.get("items"), answer.get("metadata")
            if not isinstance(metadata, dict) or not isinstance(items, list | None):
                raise KubeError("the answer is not a listing", what=call.what)
            found += [kind | item for item in items or ()]  # items of built-in kinds do not say their kind
            if not metadata.get("continue"):
                return found, str(metadata.get("resourceVersion", ""))
            next_page = {"continue": str(metadata["continue"])}
