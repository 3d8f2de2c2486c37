"""Everything that exists of a kind, then every change: list, watch, and go on after whatever ends a watch."""

import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from backupagent.cancel import Cancel
from backupagent.errors import KubeError, KubeForbidden, KubeNotFound, KubeUnavailable
from backupagent.kube.resources import Document

LOG = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
TOLD = ("ADDED", "MODIFIED", "DELETED")

REFUSALS = 6
"""How often in a row a watch that once worked may be refused before it ends: over at least 3 s.

An API server that starts refuses everybody but ``system:masters`` until it has read its roles (seen with
kube-apiserver 1.36.3, within its first second).
"""


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


class TooOld(KubeUnavailable):
    """A resourceVersion or a page is no longer there (410): list anew. Does not leave this package."""


class Source(Protocol):
    """Where the objects come from."""

    def listed(self) -> tuple[list[Document], str]:
        """Return all objects and the resourceVersion of the listing.

        Raises:
            KubeError: it failed.
        """
        ...

    def changes(self, version: str, cancel: Cancel) -> Iterator[tuple[str, Document]]:
        """Give type and object of every change after a resourceVersion, bookmarks among them, until it is closed.

        Raises:
            TooOld: the history no longer reaches back to that resourceVersion.
            KubeError: it failed.
        """
        ...


Identity = tuple[str, str, str]


def _identity(document: Document) -> Identity:
    metadata = document["metadata"]
    return metadata.get("namespace", ""), metadata["name"], metadata.get("uid", "")


def _version(document: Document) -> str:
    return str(document["metadata"].get("resourceVersion", ""))


class Follower:
    """One watch over all its connections. Used by one thread.

    Args:
        source: Where the objects come from.
        cancel: Ends it.
    """

    def __init__(self, source: Source, cancel: Cancel) -> None:
        self._source = source
        self._cancel = cancel
        self._known: dict[Identity, Document] = {}
        self._version = ""
        self._failures = 0
        self._refusals = 0
        self._worked = False

    def events(self) -> Iterator[WatchEvent]:
        """Tell every object that exists, then every change, until the token is set.

        Raises:
            KubeForbidden: the API server refuses.
            KubeNotFound: there is no such kind.
            KubeInvalid: the selectors are refused.
        """
        while not self._cancel.is_set:
            try:
                for event in self._connected():
                    if self._cancel.is_set:
                        return
                    yield event
                self._failures = self._refusals = 0  # a server closes every watch after some minutes
            except KubeUnavailable as error:
                self._refusals = 0
                self._lost(error)
            except (KubeForbidden, KubeNotFound) as error:
                self._refusals += 1
                if not self._worked or self._refusals >= REFUSALS:
                    raise
                self._lost(error)
            self._cancel.wait(pause_s(self._failures))

    def _lost(self, error: KubeError) -> None:
        self._failures += 1
        if isinstance(error, TooOld):
            self._version = ""
        fields = {"what": error.what, "reason": error.cause, "attempt": self._failures}
        LOG.warning("watch lost", extra={"fields": fields})

    def _connected(self) -> Iterator[WatchEvent]:
        """Tell what one connection brings, and before it a listing when there is nothing to go on from."""
        if not self._version:
            yield from self._list()
        for kind, document in self._source.changes(self._version, self._cancel):
            self._failures = self._refusals = 0
            self._version = _version(document)
            if kind in TOLD:
                yield self._changed(Change(kind), document)

    def _list(self) -> Iterator[WatchEvent]:
        documents, version = self._source.listed()
        found = {_identity(document): document for document in documents}
        for identity in [identity for identity in self._known if identity not in found]:
            yield WatchEvent(Change.DELETED, self._known.pop(identity))
        for identity, document in found.items():
            before = self._known.get(identity)
            self._known[identity] = document
            if before is None or _version(before) != _version(document):
                yield WatchEvent(Change.ADDED if before is None else Change.MODIFIED, document)
        self._version = version
        self._worked = True
        yield WatchEvent(Change.SYNCED, {})

    def _changed(self, change: Change, document: Document) -> WatchEvent:
        if change is Change.DELETED:
            self._known.pop(_identity(document), None)
        else:
            self._known[_identity(document)] = document
        return WatchEvent(change, document)


def pause_s(failures: int) -> float:
    """Return how long to wait before the next connection, seconds: doubled with every failure in a row, and jittered.

    Without jitter, all clients would come back to a restarted server at once.
    """
    longest = min(FIRST_PAUSE_S * 2 ** min(failures, 16), LONGEST_PAUSE_S)
    return random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, guards nothing


def follow(source: Source, cancel: Cancel) -> Iterator[WatchEvent]:
    """Tell every object that exists, then every change, until the token is set; see ``Kube.watch``."""
    return Follower(source, cancel).events()
