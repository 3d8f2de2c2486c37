"""The controller as a process at a real API server: a migration from beginning to end, with the controller killed."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from migration_flow import CONTROL_PLANE, NAMESPACE, PHASES, STEPS, Flow

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK
from backupagent.kube.client import KubeClient
from backupagent.kube.resources import NAMESPACES
from backupagent.model.migration import Phase
from backupagent.testing import crds
from backupagent.testing.kube_servers import KubeApiServer

pytestmark = pytest.mark.servers

WITHIN_S = 30.0


class ControllerProcess:
    """`backupagent controller`, started and watching.

    Args:
        kubeconfig: Of the garden.
        home: Where the buckets are.
        log: Where its log goes, appended.
    """

    def __init__(self, kubeconfig: Path, home: Path, log: Path) -> None:
        command = [sys.executable, "-m", "backupagent", "controller", "--kubeconfig", str(kubeconfig)]
        begins = len(log.read_text()) if log.exists() else 0
        with log.open("a") as output:
            self.process = subprocess.Popen(
                [*command, "--port", "0", "--poll", "100ms"], stderr=output, env={**os.environ, "HOME": str(home)}
            )
        wait_for("the controller watches", lambda: "watching Shoots" in log.read_text()[begins:])
        found = re.search(r"serving .*port=(\d+)", log.read_text()[begins:])
        assert found is not None
        self.port = int(found[1])

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def end(self, number: signal.Signals) -> int:
        """Send a signal; return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def api(server_binary: Callable[[str], Path]) -> Iterator[KubeApiServer]:
    server_binary("kube-apiserver")
    with KubeApiServer() as server:
        with server.client() as kube:
            crds.install(kube)
            for name in ("garden", NAMESPACE, CONTROL_PLANE):
                kube.apply(NAMESPACES, NAMESPACES.stub(name))
        yield server


@pytest.fixture
def kube(api: KubeApiServer) -> Iterator[KubeClient]:
    with api.client() as client:
        yield client


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    deadline_s = SYSTEM_CLOCK.monotonic_s() + WITHIN_S
    while not condition():
        assert SYSTEM_CLOCK.monotonic_s() < deadline_s, f"not within {WITHIN_S:g} s: {what}"
        Cancel().wait(0.05)


def has_come_to(flow: Flow, phase: Phase) -> bool:
    return bool(flow.data) and flow.report.phase is phase


def test_a_migration_with_the_controller_killed_on_its_way(
    api: KubeApiServer, kube: KubeClient, tmp_path: Path
) -> None:
    flow = Flow(kube, tmp_path, SYSTEM_CLOCK)
    kubeconfig = api.kubeconfig(tmp_path)
    with contextlib.ExitStack() as running:

        def start() -> ControllerProcess:
            started = ControllerProcess(kubeconfig, tmp_path, tmp_path / "log")
            running.callback(started.process.kill)
            return started

        controller = start()
        assert controller.get("/healthz") == controller.get("/readyz") == "ok\n"
        for name in flow.play(pause_s=0):
            wait_for(name, lambda name=name: has_come_to(flow, PHASES[name]))
            if name in {"stop_api_server", "start_restore", "tell_copied"}:
                assert controller.end(signal.SIGKILL) == -signal.SIGKILL
                controller = start()
        wait_for("the last event", lambda: flow.events[-1:] == [("Normal", "MigrationSucceeded")])
        wait_for("metrics", lambda: 'phase="Succeeded",shoot="demo"} 1.0' in controller.get("/metrics"))
        metrics = controller.get("/metrics")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            controller.get("/secrets")
        assert controller.end(signal.SIGTERM) == 0
    report = flow.report
    assert sorted((step.name, step.who) for step in report.steps) == sorted(STEPS)
    assert (report.source, report.destination, report.equal, report.reason) == ("seed-a", "seed-b", True, "")
    assert report.copy is not None
    assert (report.copy.complete, report.copy.expected) == (True, 4)
    assert report.downtime_s is not None
    assert sorted(flow.events) == sorted(("Normal", name) for name, _who in STEPS)
    assert 'backupagent_migration_phase{namespace="garden-dev",phase="Succeeded",shoot="demo"} 1.0' in metrics
    assert f'downtime_seconds{{namespace="garden-dev",shoot="demo"}} {report.downtime_s}' in metrics
    assert "backupagent_migrations_succeeded_total 1.0" in metrics


def test_a_cluster_without_shoots_is_no_garden(server_binary: Callable[[str], Path], tmp_path: Path) -> None:
    server_binary("kube-apiserver")
    with KubeApiServer() as empty:
        command = [sys.executable, "-m", "backupagent", "controller", "--port", "0"]
        done = subprocess.run(
            [*command, "--kubeconfig", str(empty.kubeconfig(tmp_path))],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 53
    assert "shoots" in done.stderr
