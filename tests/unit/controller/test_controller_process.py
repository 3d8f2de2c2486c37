"""The threads of the controller: what wakes it, what ends it, what it answers to probes."""

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import pytest
from garden_kube import GardenFlow, GardenKube
from migration_flow import NAMESPACE, SHOOT

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK
from backupagent.controller.facts import Clusters
from backupagent.controller.health import serving
from backupagent.controller.run import Controller, seed_kubeconfigs
from backupagent.errors import ConfigError, KubeForbidden
from backupagent.kube.client import Change, Kube, WatchEvent
from backupagent.kube.resources import SHOOTS, Resource
from backupagent.model.migration import Phase
from backupagent.settings import ControllerSettings

WITHIN_S = 20.0
SETTINGS = ControllerSettings(port=0, poll=0.01, workers=2)


class WatchedKube(GardenKube):
    """Tells every Shoot once, then what a test wants."""

    def __init__(self, *changes: WatchEvent) -> None:
        super().__init__()
        self.changes = changes

    def watch(self, resource: Resource, namespace: str = "", *, cancel: Cancel) -> Iterator[WatchEvent]:
        self._may("watch", resource.plural)
        for document in self.list(resource, namespace):
            yield WatchEvent(Change.ADDED, document)
        yield WatchEvent(Change.SYNCED, {})
        yield from self.changes
        cancel.wait(WITHIN_S)


@contextmanager
def running(kube: Kube) -> Iterator[Cancel]:
    """Run a controller beside the block."""
    cancel = Cancel()
    thread = threading.Thread(target=Controller(Clusters(kube), SETTINGS, cancel).run)
    thread.start()
    try:
        yield cancel
    finally:
        cancel.set("the end of the test")
        thread.join(WITHIN_S)
        assert not thread.is_alive()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = SYSTEM_CLOCK.monotonic_s() + WITHIN_S
    while not condition():
        assert SYSTEM_CLOCK.monotonic_s() < deadline_s
        Cancel().wait(0.01)


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GardenFlow:
    monkeypatch.setenv("HOME", str(tmp_path))
    return GardenFlow(tmp_path, kube=WatchedKube(), clock=SYSTEM_CLOCK)


def test_a_shoot_that_is_moving_is_looked_at_until_it_has_arrived(flow: GardenFlow) -> None:
    for _name in flow.play(until="stop_api_server", pause_s=0):
        pass
    with running(flow.kube):
        wait_for(lambda: bool(flow.data) and flow.report.phase is Phase.PREPARING)
        for _name in flow.play(after="stop_api_server", pause_s=0):
            pass
        wait_for(lambda: flow.report.phase is Phase.SUCCEEDED)
    assert flow.report.equal is True


def test_a_report_that_has_not_ended_is_looked_at_whatever_its_shoot_does_now(flow: GardenFlow) -> None:
    """Gardener reconciled the Shoot while no controller ran: only the report says that something is open."""
    with flow.controller() as controller:
        for _name in flow.play(until="end_restore", pause_s=0):
            controller.look()
    flow.operation("Reconcile", "Succeeded", 100)
    flow.back_up()
    with running(flow.kube):
        wait_for(lambda: flow.report.phase is Phase.SUCCEEDED)


def test_one_shoot_that_cannot_be_looked_at_does_not_keep_others_waiting(flow: GardenFlow) -> None:
    flow.bind()
    broken = dict(flow.kube.get(SHOOTS, SHOOT, NAMESPACE))
    flow.kube.put(SHOOTS, {**broken, "metadata": {"name": "broken", "namespace": "garden-other"}})
    find = flow.kube.find

    def find_or_fail(resource: Resource, name: str, namespace: str = "") -> Mapping[str, object] | None:
        if name == "broken":
            raise RuntimeError("a bug")
        return find(resource, name, namespace)

    flow.kube.find = find_or_fail  # type: ignore[method-assign]
    with running(flow.kube):
        wait_for(lambda: bool(flow.data) and flow.report.phase is Phase.REQUESTED)


def test_a_watch_that_is_refused_ends_the_controller() -> None:
    kube = WatchedKube()
    kube.refuse("watch", "shoots")
    with pytest.raises(KubeForbidden):
        Controller(Clusters(kube), SETTINGS, Cancel()).run()


# ---- settings and probes


def test_kubeconfigs_of_seeds() -> None:
    assert seed_kubeconfigs(["a=/x/a=1", "b=b.yaml"]) == {"a": Path("/x/a=1"), "b": Path("b.yaml")}


@pytest.mark.parametrize("given", [["a"], ["=f"], ["a="], ["a=1", "a=2"]])
def test_kubeconfigs_of_seeds_that_make_no_sense(given: list[str]) -> None:
    with pytest.raises(ConfigError, match="SEED=FILE"):
        seed_kubeconfigs(given)


def fetch(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_probes_are_answered() -> None:
    answers = {
        "/healthz": lambda: (HTTPStatus.OK, b"ok\n"),
        "/readyz": lambda: (HTTPStatus.SERVICE_UNAVAILABLE, b"not yet\n"),
    }
    with serving("127.0.0.1", 0, answers) as port:
        assert fetch(port, "/healthz?verbose") == (200, b"ok\n")
        assert fetch(port, "/readyz") == (503, b"not yet\n")
        assert fetch(port, "/") == (404, b"not found\n")
        with pytest.raises(ConfigError, match=f"cannot serve on 127.0.0.1 port {port}"), serving("127.0.0.1", port, {}):
            pytest.fail("two servers on one port")
