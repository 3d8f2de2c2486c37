"""Watches of a real API server: nothing is missed, whatever ends a connection."""

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from backupagent.cancel import Cancel
from backupagent.errors import KubeForbidden, KubeNotFound
from backupagent.etcd.client import EtcdClient
from backupagent.etcd.connection import EtcdAccess
from backupagent.kube import connection as connection_module
from backupagent.kube import selection
from backupagent.kube.client import Change, KubeClient, WatchEvent
from backupagent.kube.connection import Connection
from backupagent.kube.manifests import config_map
from backupagent.kube.resources import (
    CONFIG_MAPS,
    NAMESPACES,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    SHOOTS,
    Document,
)
from backupagent.kube.selection import Selection
from backupagent.kube.watching import TooOld
from backupagent.testing.kube_servers import KubeApiServer

pytestmark = pytest.mark.servers
WITHIN_S = 60


@pytest.fixture(scope="module")
def api(server_binary: Callable[[str], Path]) -> Iterator[KubeApiServer]:
    server_binary("kube-apiserver")
    server_binary("etcd")
    with KubeApiServer() as server:
        yield server


@pytest.fixture
def kube(api: KubeApiServer) -> Iterator[KubeClient]:
    with api.client() as client:
        yield client


@pytest.fixture
def place(kube: KubeClient, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own."""
    name = request.node.name.replace("_", "-")[:60].rstrip("-")
    kube.create(NAMESPACES, NAMESPACES.stub(name))
    return name


class Watching:
    """A watch in a thread of its own."""

    def __init__(self, kube: KubeClient, place: str, **chosen: Any) -> None:
        self.cancel = Cancel()
        self.error: Exception | None = None
        self._told: queue.Queue[WatchEvent] = queue.Queue()
        self._events = kube.watch(CONFIG_MAPS, place, cancel=self.cancel, **chosen)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            for event in self._events:
                self._told.put(event)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def until(self, change: Change, name: str = "") -> list[tuple[str, str]]:
        """Return everything that is told up to a change of an object."""
        told = []
        while not told or told[-1] != (change, name):
            event = self._told.get(timeout=WITHIN_S)
            told.append((event.change, event.object.get("metadata", {}).get("name", "")))
        return told

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.cancel.set("the end of the test")
        self.thread.join(WITHIN_S)
        assert not self.thread.is_alive()


def make(kube: KubeClient, place: str, *names: str) -> None:
    for name in names:
        kube.create(CONFIG_MAPS, CONFIG_MAPS.stub(name, place))


def test_what_exists_is_told_then_every_change(kube: KubeClient, place: str) -> None:
    make(kube, place, "a", "b")
    with Watching(kube, place) as watch:
        assert watch.until(Change.SYNCED) == [("ADDED", "a"), ("ADDED", "b"), ("SYNCED", "")]
        make(kube, place, "c")
        kube.patch(CONFIG_MAPS, "a", place, {"data": {"x": "1"}})
        kube.delete(CONFIG_MAPS, "b", place)
        assert watch.until(Change.DELETED, "b") == [("ADDED", "c"), ("MODIFIED", "a"), ("DELETED", "b")]


def test_labels_and_fields_choose_and_what_loses_its_label_is_gone(kube: KubeClient, place: str) -> None:
    kube.create(CONFIG_MAPS, config_map("mine", place, {}, labels={"watched": "yes"}))
    make(kube, place, "other")
    with Watching(kube, place, labels={"watched": "yes"}) as by_label:
        assert by_label.until(Change.SYNCED) == [("ADDED", "mine"), ("SYNCED", "")]
        with Watching(kube, place, fields={"metadata.name": "other"}) as by_field:
            assert by_field.until(Change.SYNCED) == [("ADDED", "other"), ("SYNCED", "")]
        kube.patch(CONFIG_MAPS, "mine", place, {"metadata": {"labels": {"watched": "no"}}})
        assert by_label.until(Change.DELETED, "mine") == [("DELETED", "mine")]


def test_a_watch_that_the_server_closes_goes_on_without_a_listing(
    kube: KubeClient, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "WATCH_S", (1, 1))
    ended: list[int] = []
    changes = Connection.changes

    def counted(self: Connection, *arguments: Any) -> Iterator[tuple[str, Document]]:
        yield from changes(self, *arguments)
        ended.append(1)
        if len(ended) == 2:
            make(kube, place, "late")

    monkeypatch.setattr(Connection, "changes", counted)
    with Watching(kube, place) as watch:
        assert watch.until(Change.ADDED, "late") == [("SYNCED", ""), ("ADDED", "late")]


def test_a_silent_watch_is_opened_again(kube: KubeClient, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "SILENCE_S", 0.3)
    lost: list[str] = []
    logged = "backupagent.kube.watching.LOG.warning"
    monkeypatch.setattr(logged, lambda *_, extra: lost.append(extra["fields"]["reason"]))
    with Watching(kube, place) as watch:
        watch.until(Change.SYNCED)
        cancel = Cancel()
        while len(lost) < 2:
            cancel.wait(0.05)
        make(kube, place, "late")
        assert watch.until(Change.ADDED, "late") == [("ADDED", "late")]
    assert set(lost) == {"no answer in time: The read operation timed out"}


def test_a_silent_watch_ends_when_it_is_cancelled(kube: KubeClient, place: str) -> None:
    with Watching(kube, place) as watch:
        watch.until(Change.SYNCED)
        watch.cancel.set("test")
        watch.thread.join(connection_module.SILENCE_S / 3)
        assert not watch.thread.is_alive()
    assert watch.error is None


def test_nothing_is_missed_over_a_restart(api: KubeApiServer, kube: KubeClient, place: str) -> None:
    make(kube, place, "before")
    with Watching(kube, place) as watch:
        watch.until(Change.SYNCED)
        api.kill()
        api.start()
        make(kube, place, "after")
        told = [told for told in watch.until(Change.ADDED, "after") if told[1]]
        assert told == [("ADDED", "after")]


def test_a_server_that_has_not_read_its_roles_yet_does_not_end_a_watch(
    api: KubeApiServer, kube: KubeClient, place: str, tmp_path: Path
) -> None:
    kube.create(SERVICE_ACCOUNTS, SERVICE_ACCOUNTS.stub("reader", place))
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]}]
    kube.create(ROLES, ROLES.stub("reader", place) | {"rules": rules})
    role = {"apiGroup": ROLES.group, "kind": ROLES.kind, "name": "reader"}
    subjects = [{"kind": "ServiceAccount", "name": "reader", "namespace": place}]
    kube.create(ROLE_BINDINGS, ROLE_BINDINGS.stub("reader", place) | {"roleRef": role, "subjects": subjects})
    config = api.kubeconfig(tmp_path, token=api.token_for(place, "reader"))
    with KubeClient.open(config) as reader, Watching(reader, place) as watch:
        watch.until(Change.SYNCED)
        api.kill()
        api.start()
        make(kube, place, "after")
        watch.until(Change.ADDED, "after")
    assert watch.error is None


def test_what_vanished_while_the_watch_was_down_is_told(api: KubeApiServer, kube: KubeClient, place: str) -> None:
    make(kube, place, "gone", "replaced", "changed", "same")
    with Watching(kube, place) as watch:
        watch.until(Change.SYNCED)
        api.kill()
        with KubeApiServer(api.etcd) as other, other.client() as meanwhile:
            for name in ("gone", "replaced"):
                meanwhile.delete(CONFIG_MAPS, name, place)
            make(meanwhile, place, "new", "replaced")
            meanwhile.patch(CONFIG_MAPS, "changed", place, {"data": {"x": "1"}})
            compact(api)
        api.start()
        told = watch.until(Change.SYNCED)
    assert sorted(told[:2]) == [("DELETED", "gone"), ("DELETED", "replaced")]
    assert sorted(told[2:-1]) == [("ADDED", "new"), ("ADDED", "replaced"), ("MODIFIED", "changed")]


def test_a_compacted_resource_version_is_too_old(api: KubeApiServer, kube: KubeClient, place: str) -> None:
    # Without its cache the server passes etcd's own answer on: an ERROR in the stream instead of a status.
    with (
        KubeApiServer(api.etcd, extra_args=["--watch-cache=false"]) as direct,
        direct.client() as other,
    ):
        source = Selection(other._connection, CONFIG_MAPS, place, {})
        _, version = source.listed()
        make(other, place, "a", "b")
        compact(api)
        with pytest.raises(TooOld):
            list(source.changes(version, Cancel()))


def compact(api: KubeApiServer) -> None:
    with EtcdClient.open(EtcdAccess((api.etcd.url,))) as etcd:
        etcd.compact(etcd.revision())


def test_a_refused_or_unknown_watch_ends(api: KubeApiServer, kube: KubeClient, tmp_path: Path) -> None:
    with KubeClient.open(api.kubeconfig(tmp_path, token="wrong")) as stranger, pytest.raises(KubeForbidden):
        next(stranger.watch(CONFIG_MAPS, cancel=Cancel()))
    with pytest.raises(KubeNotFound):
        next(kube.watch(SHOOTS, cancel=Cancel()))


def test_only_newlines_end_a_change(kube: KubeClient, place: str) -> None:
    odd = "next line \u0085, vertical tab \u000b, line separator \u2028"
    cancel = Cancel()
    events = kube.watch(CONFIG_MAPS, place, cancel=cancel)
    assert next(events).change is Change.SYNCED
    kube.create(CONFIG_MAPS, config_map("odd", place, {"text": odd}))
    assert next(events).object["data"]["text"] == odd
    cancel.set("the end of the test")
    assert list(events) == []
