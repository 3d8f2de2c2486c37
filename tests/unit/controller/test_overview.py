"""`migrations`: everything that runs or has run, whether or not a controller reported it."""

import msgspec
import pytest
from scripted_kube import KEY, NAMESPACE, SHOOT, ScriptedKube, put_report, report, shoot, step

from backupagent.controller.overview import UNREPORTED, Overview, one, overview
from backupagent.controller.standing import Standing, is_moving, standing
from backupagent.errors import ConfigError, KubeForbidden, KubeNotFound
from backupagent.kube.resources import CONFIG_MAPS, SHOOTS
from backupagent.model.gardener import Shoot
from backupagent.model.migration import MigrationReport, Phase, config_map_name

MOVING = ("seed-b", "seed-a", "Migrate Processing 40")
ARRIVED = ("seed-b", "seed-b", "Restore Succeeded 100")


def put(kube: ScriptedKube, name: str, state: tuple[str, ...], content: MigrationReport | None = None) -> None:
    document = shoot(*state)
    document["metadata"]["name"] = name
    kube.put(SHOOTS, document)
    if content is not None:
        put_report(kube, msgspec.structs.replace(content, shoot=name))


def names(found: Overview) -> list[str]:
    return [migration.shoot for migration in found.migrations]


@pytest.mark.parametrize(
    ("state", "moving"),
    [
        (("seed-a", "seed-a"), False),
        (("seed-b", "seed-a"), True),  # bound, not begun
        (("seed-b", "seed-a", "Migrate Error 40"), True),
        (("seed-b", "seed-b", "Migrate Succeeded 100"), True),  # released, as the code does it
        (("seed-b", "", "Migrate Succeeded 100"), True),  # released, as the documents say
        (("seed-b", "seed-b", "Restore Processing 5"), True),
        (("seed-b", "seed-b", "Restore Failed 5"), True),
        (ARRIVED, False),
        (("seed-b", "", "Create Processing 5"), False),
    ],
)
def test_when_a_shoot_is_on_its_way(state: tuple[str, ...], moving: bool) -> None:
    read = Shoot.read(shoot(*state))
    assert is_moving(read) is moving
    there = Standing.MOVING if moving else Standing.THERE
    assert standing(read, state[0]) is there
    assert standing(read, "seed-z") is Standing.ELSEWHERE


def test_running_ones_come_first_then_failures_then_successes() -> None:
    kube = ScriptedKube()
    put(kube, "done", ARRIVED, report(Phase.SUCCEEDED))
    put(kube, "broken", MOVING, report(Phase.FAILED, reason="NotEqual"))
    put(kube, "web", MOVING, report(Phase.PREPARING))
    put(kube, "alone", MOVING)
    put(kube, "quiet", ("seed-a", "seed-a"))
    assert names(overview(kube)) == ["alone", "web", "broken", "done"]


def test_what_is_told_of_each() -> None:
    kube = ScriptedKube()
    steps = (step("MigrateStarted", 1), step("ApiServerStopped", 5))
    put(kube, "web", MOVING, report(Phase.PREPARING, *steps, operation="Migrate Processing 1%", message="waiting"))
    (migration,) = overview(kube).migrations
    told = migration.to_json()
    assert told.pop("report")["steps"][1]["name"] == "ApiServerStopped"
    assert told == {
        "namespace": NAMESPACE,
        "shoot": "web",
        "source": "seed-a",
        "destination": "seed-b",
        "phase": "Preparing",
        "operation": "Migrate Processing 40%",  # the Shoot's own, newer than the report's
        "since": "2026-01-01T00:00:01.000Z",
        "downtime_s": None,
        "down_since": "2026-01-01T00:00:05.000Z",
        "message": "waiting",
    }


def test_an_api_server_that_is_up_again_is_not_down() -> None:
    kube = ScriptedKube()
    steps = (step("ApiServerStopped", 5), step("ApiServerStarted", 9))
    put(kube, "web", ARRIVED, report(Phase.RESTORED, *steps, downtime_s=4.0))
    (migration,) = overview(kube).migrations
    assert (migration.down_since, migration.downtime_s) == ("", 4.0)


@pytest.mark.parametrize("state", [MOVING, ("seed-b", "seed-b", "Migrate Succeeded 100")])
def test_a_migration_that_nobody_reported(state: tuple[str, ...]) -> None:
    kube = ScriptedKube()
    put(kube, "web", state)
    (migration,) = overview(kube).migrations
    assert (migration.phase, migration.message, migration.report) == (None, UNREPORTED, None)
    assert migration.source == ("seed-a" if state is MOVING else "")


def test_a_report_of_an_earlier_migration_is_not_that_of_the_running_one() -> None:
    kube = ScriptedKube()
    put(kube, "web", ("seed-a", "seed-b", "Migrate Processing 3"), report(Phase.SUCCEEDED))
    (migration,) = overview(kube).migrations
    assert (migration.phase, migration.source, migration.destination) == (None, "seed-b", "seed-a")


def test_the_last_migration_is_shown_long_after() -> None:
    kube = ScriptedKube()
    put(kube, "web", ("seed-b", "seed-b", "Reconcile Succeeded 100"), report(Phase.SUCCEEDED))
    put(kube, "back", ("seed-a", "seed-a", "Reconcile Succeeded 100"), report(Phase.SUCCEEDED))
    assert names(overview(kube)) == ["back", "web"]


def test_a_report_outlives_its_shoot() -> None:
    kube = ScriptedKube()
    put_report(kube, report(Phase.SUCCEEDED, operation="Restore Succeeded 100%"))
    (migration,) = overview(kube).migrations
    assert (migration.shoot, migration.operation) == (SHOOT, "Restore Succeeded 100%")


def test_an_unreadable_report_hides_no_other() -> None:
    kube = ScriptedKube()
    put(kube, "web", MOVING, report(Phase.PREPARING))
    put(kube, SHOOT, ("seed-a", "seed-a"))
    put_report(kube, '{"format": "other"}')
    broken, web = overview(kube).migrations
    assert broken.shoot == SHOOT
    assert "not a migration report" in broken.message
    assert web.phase is Phase.PREPARING


def test_a_config_map_without_a_report_is_nothing() -> None:
    kube = ScriptedKube()
    put_report(kube, report(Phase.PREPARING))
    kube.objects[CONFIG_MAPS.plural, NAMESPACE, config_map_name(SHOOT)].pop("data")
    assert overview(kube).migrations == []


def test_one_namespace_alone() -> None:
    kube = ScriptedKube()
    put(kube, "web", MOVING)
    assert overview(kube, "garden-prod").migrations == []
    assert names(overview(kube, NAMESPACE)) == ["web"]


def test_one_shoot_alone() -> None:
    kube = ScriptedKube()
    put(kube, SHOOT, MOVING, report(Phase.PREPARING))
    put(kube, "web", MOVING)
    found = one(kube, KEY)
    assert (names(found), found.asked) == ([SHOOT], KEY)


def test_a_shoot_that_never_moved_has_nothing_to_show() -> None:
    kube = ScriptedKube()
    put(kube, SHOOT, ("seed-a", "seed-a"))
    assert one(kube, KEY).to_json() == {"migrations": []}


def test_what_cannot_be_asked_is_an_error() -> None:
    kube = ScriptedKube()
    with pytest.raises(ConfigError):
        one(kube, "demo")
    with pytest.raises(KubeNotFound):
        one(kube, KEY)
    kube.refuse("list", "shoots")
    with pytest.raises(KubeForbidden):
        overview(kube)
