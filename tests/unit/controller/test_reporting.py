"""Events and metrics: each told once, in the form that the API server takes."""

import pytest
from garden_kube import GardenFlow
from scripted_kube import NAMESPACE, report, shoot, step

from backupagent.clock import FakeClock
from backupagent.controller.memory import Memory, config_map
from backupagent.controller.metrics import METRICS, Metrics
from backupagent.controller.reporting import COMPONENT, MAX_MESSAGE, Reporter
from backupagent.kube.resources import CONFIG_MAPS
from backupagent.model.gardener import Shoot
from backupagent.model.migration import MigrationReport, Phase

SHOOT = Shoot.read(shoot())


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def reporter(flow: GardenFlow, metrics: Metrics) -> Reporter:
    return Reporter(flow.kube, metrics, FakeClock())


def publish(reporter: Reporter, content: MigrationReport, before: MigrationReport | None = None) -> None:
    reporter.publish(SHOOT, Memory(report=before), content, None)


def scraped(metrics: Metrics) -> dict[str, float]:
    lines = [line for line in metrics.scrape().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _space, value in (line.rpartition(" ") for line in lines)}


def test_an_event_for_each_step(flow: GardenFlow, reporter: Reporter) -> None:
    publish(reporter, report(Phase.FAILED, step("MigrateStarted", 1), step("NotEqual", 2, "controller", "x is not y")))
    started, failed = (event for event in flow.kube.created if event["kind"] == "Event")
    assert (started["type"], started["reason"], started["message"]) == (
        "Normal",
        "MigrateStarted",
        "MigrateStarted by gardenlet",
    )
    assert (failed["type"], failed["message"]) == ("Warning", "NotEqual by controller: x is not y")
    assert started["involvedObject"] == {
        "apiVersion": "core.gardener.cloud/v1beta1",
        "kind": "Shoot",
        "namespace": NAMESPACE,
        "name": "demo",
        "uid": "shoot-uid",
    }
    assert started["metadata"]["namespace"] == NAMESPACE
    assert started["source"] == {"component": COMPONENT}
    assert started["firstTimestamp"] == "2026-01-01T00:00:01Z"


def test_an_event_is_told_once_by_several_controllers_too(
    flow: GardenFlow, metrics: Metrics, reporter: Reporter
) -> None:
    content = report(Phase.PREPARING, step("MigrateStarted", 1))
    for each in (reporter, reporter, Reporter(flow.kube, metrics, FakeClock())):
        publish(each, content)
    assert flow.events == [("Normal", "MigrateStarted")]


def test_steps_of_long_ago_are_not_told_again(flow: GardenFlow, metrics: Metrics) -> None:
    clock = FakeClock()
    clock.sleep(3601)
    publish(Reporter(flow.kube, metrics, clock), report(Phase.PREPARING, step("MigrateStarted", 1), step("B", 59)))
    assert flow.events == [("Normal", "B")]


def test_a_long_message_is_cut_where_the_api_server_would_refuse_it(flow: GardenFlow, reporter: Reporter) -> None:
    publish(reporter, report(Phase.FAILED, step("NotEqual", 1, "controller", "é" * 2000)))
    (event,) = flow.kube.created
    assert MAX_MESSAGE - 1 <= len(event["message"].encode()) <= MAX_MESSAGE


def test_a_report_that_says_nothing_new_is_not_written(flow: GardenFlow, reporter: Reporter) -> None:
    content = report(Phase.PREPARING)
    publish(reporter, content)
    version = flow.kube.version
    data = config_map(SHOOT, content, None)["data"]
    reporter.publish(SHOOT, Memory(report=content, data=data), content, None)
    assert flow.kube.version == version
    assert flow.kube.find(CONFIG_MAPS, "demo.backupagent-migration", NAMESPACE) is not None


def test_metrics_of_a_migration(metrics: Metrics, reporter: Reporter) -> None:
    publish(reporter, report(Phase.RESTORED, downtime_s=12.5))
    found = scraped(metrics)
    phases = {name: value for name, value in found.items() if name.startswith("backupagent_migration_phase")}
    assert len(phases) == len(Phase)
    assert [name for name, value in phases.items() if value] == [
        'backupagent_migration_phase{namespace="garden-dev",phase="Restored",shoot="demo"}'
    ]
    assert found['backupagent_migration_downtime_seconds{namespace="garden-dev",shoot="demo"}'] == 12.5


def test_ends_are_counted_once(metrics: Metrics, reporter: Reporter) -> None:
    failed = report(Phase.FAILED, reason="NotEqual")
    publish(reporter, failed)
    publish(reporter, failed, before=failed)
    publish(reporter, report(Phase.SUCCEEDED), before=failed)
    found = scraped(metrics)
    assert found['backupagent_migration_failures_total{reason="NotEqual"}'] == 1
    assert found["backupagent_migrations_succeeded_total"] == 1


def test_a_shoot_that_is_gone_is_shown_no_longer(metrics: Metrics, reporter: Reporter) -> None:
    publish(reporter, report(Phase.RESTORED, downtime_s=1.0))
    reporter.forget(SHOOT.key)
    reporter.forget(SHOOT.key)
    assert not [name for name in scraped(metrics) if "demo" in name]


def test_every_metric_of_the_table_is_scraped(metrics: Metrics, reporter: Reporter) -> None:
    publish(reporter, report(Phase.FAILED, reason="NotEqual", downtime_s=1.0))
    metrics.reconcile_failed("KubeForbidden")
    text = metrics.scrape().decode()
    assert [metric.name for metric in METRICS if f"# HELP {metric.name.removesuffix('_total')}" not in text] == []
