"""`migrate`: refuses before it changes anything, changes one field, never calls success what is not proven."""

from collections.abc import Callable

import pytest
from scripted_kube import (
    KEY,
    NAMESPACE,
    SHOOT,
    Play,
    ScriptedKube,
    landscape,
    put_report,
    report,
    seed,
    shoot,
    step,
)

from backupagent.clock import FakeClock
from backupagent.controller import follow
from backupagent.controller.outcome import End, MigrationOutcome
from backupagent.controller.trigger import ATTEMPTS, Trigger
from backupagent.errors import (
    Cancelled,
    ConfigError,
    KubeConflict,
    KubeForbidden,
    KubeNotFound,
    KubeUnavailable,
    MigrationFailed,
    PreflightFailed,
)
from backupagent.kube.resources import SEEDS, SHOOT_STATES, SHOOTS
from backupagent.model.migration import Phase
from backupagent.progress import Progress
from backupagent.settings import MigrateKind, MigrateSettings

Act = Callable[[], object]


class Bench:
    """A landscape, and `migrate` run in it."""

    def __init__(self) -> None:
        self.kube = landscape()
        self.clock = FakeClock()
        self.progress = Progress(self.clock)

    def migrate(self, *acts: Act, follow: bool = True, timeout: float = 0.0, name: str = KEY) -> MigrationOutcome:
        settings = MigrateSettings(kind=MigrateKind.SHOOT, name=name, to="seed-b", follow=follow, timeout=timeout)
        return Trigger(self.kube, settings, self.progress, self.clock).run(Play(self.clock, *acts))

    def shoot(self, *state: str) -> Act:
        """An act: the Shoot changes."""
        return lambda: self.kube.put(SHOOTS, shoot(*state))

    def report(self, phase: Phase, *steps: str, **fields: object) -> Act:
        """An act: the controller writes a report."""
        content = report(phase, *(step(name, second) for second, name in enumerate(steps)), **fields)
        return lambda: put_report(self.kube, content)

    @property
    def told(self) -> list[str]:
        return [milestone.what for milestone in self.progress.view().milestones]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def spec_seed(kube: ScriptedKube) -> str:
    return str(kube.get(SHOOTS, SHOOT, NAMESPACE)["spec"]["seedName"])


# ---- binding


def test_only_the_seed_is_changed_and_by_the_binding(bench: Bench) -> None:
    before = bench.kube.get(SHOOTS, SHOOT, NAMESPACE)
    outcome = bench.migrate(follow=False)
    ((sent, subresource),) = bench.kube.replaced
    assert subresource == "binding"
    assert sent == before | {"spec": before["spec"] | {"seedName": "seed-b"}}
    assert (outcome.end, outcome.bound, outcome.reason) == (End.BOUND, True, "")
    assert (outcome.source, outcome.destination) == ("seed-a", "seed-b")


def test_a_shoot_that_was_written_to_meanwhile_is_read_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, calls = bench.kube.replace, []

    def interfering(*arguments: object, **keywords: object) -> object:
        calls.append(1)
        if len(calls) < ATTEMPTS:
            bench.kube.put(SHOOTS, shoot())
        return replace(*arguments, **keywords)

    monkeypatch.setattr(bench.kube, "replace", interfering)
    assert bench.migrate(follow=False).bound
    assert len(calls) == ATTEMPTS


def test_a_shoot_that_never_rests_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def conflict(*_: object, **__: object) -> object:
        calls.append(1)
        raise KubeConflict("modified", what="update shoots/binding")

    monkeypatch.setattr(bench.kube, "replace", conflict)
    with pytest.raises(KubeConflict, match="modified"):
        bench.migrate(follow=False)
    assert len(calls) == ATTEMPTS


def test_after_a_conflict_a_shoot_that_others_move_is_left_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(*_: object, **__: object) -> object:
        bench.kube.put(SHOOTS, shoot("seed-c"))
        raise KubeConflict("modified", what="update shoots/binding")

    monkeypatch.setattr(bench.kube, "replace", overtaken)
    with pytest.raises(KubeConflict, match="somebody bound it to seed-c meanwhile"):
        bench.migrate(follow=False)
    assert spec_seed(bench.kube) == "seed-c"


def test_without_the_right_to_bind_nothing_is_changed(bench: Bench) -> None:
    bench.kube.refuse("update", "shoots/binding")
    with pytest.raises(KubeForbidden, match='User "jane" cannot update resource "shoots/binding"'):
        bench.migrate()
    assert (spec_seed(bench.kube), bench.told) == ("seed-a", [])


@pytest.mark.parametrize("name", ["demo", "/demo", "garden-dev/", "a/b/c", ""])
def test_a_shoot_is_named_with_its_namespace(bench: Bench, name: str) -> None:
    with pytest.raises(ConfigError, match="names no Shoot"):
        bench.migrate(name=name)


def test_a_shoot_that_does_not_exist(bench: Bench) -> None:
    with pytest.raises(KubeNotFound):
        bench.migrate(name="garden-dev/other")


# ---- preflight


def test_a_refusal_is_told_on_the_shoot_and_changes_nothing(bench: Bench) -> None:
    bench.kube.put(SEEDS, seed("seed-b", spec={}))
    del bench.kube.objects[SHOOT_STATES.plural, NAMESPACE, SHOOT]
    with pytest.raises(PreflightFailed) as caught:
        bench.migrate()
    (event,) = bench.kube.created
    assert (event["type"], event["reason"]) == ("Warning", "PreflightFailed")
    for reason in ("DestinationSeedWithoutBackup", "ShootStateMissing"):
        assert reason in caught.value.message
        assert reason in event["message"]
    about = event["involvedObject"]
    assert (about["kind"], about["namespace"], about["name"], about["uid"]) == ("Shoot", NAMESPACE, SHOOT, "shoot-uid")
    assert spec_seed(bench.kube) == "seed-a"
    assert bench.kube.replaced == []


def test_the_same_refusal_is_told_once(bench: Bench) -> None:
    bench.kube.put(SEEDS, seed("seed-b", spec={}))
    bench.kube.errors["create", "events"] = KubeConflict("already exists", what="create events")
    with pytest.raises(PreflightFailed):
        bench.migrate()
    assert bench.told == []


def test_an_event_that_may_not_be_written_changes_no_verdict(bench: Bench) -> None:
    bench.kube.put(SEEDS, seed("seed-b", spec={}))
    bench.kube.refuse("create", "events")
    with pytest.raises(PreflightFailed):
        bench.migrate()
    assert bench.told == ["EventNotWritten"]


def test_what_may_not_be_checked_is_said_and_is_no_refusal(bench: Bench) -> None:
    del bench.kube.objects[SHOOT_STATES.plural, NAMESPACE, SHOOT]
    bench.kube.refuse("get", "shootstates")
    outcome = bench.migrate(follow=False)
    assert outcome.bound
    assert bench.told == ["Unchecked", "Bound"]
    (note,) = outcome.notes
    assert note.startswith("ShootState garden-dev/demo could not be checked: ")


# ---- nothing to do, or begun by somebody else


def test_a_shoot_that_is_there_already(bench: Bench) -> None:
    bench.kube.put(SHOOTS, shoot("seed-b", "seed-b"))
    outcome = bench.migrate()
    assert (outcome.end, outcome.bound, outcome.reason) == (End.ALREADY_THERE, False, "")
    assert outcome.message == "garden-dev/demo is on seed-b already"
    assert bench.kube.replaced == []


def test_a_shoot_that_got_there_without_everything_is_no_success(bench: Bench) -> None:
    bench.kube.put(SHOOTS, shoot("seed-b", "seed-b", "Restore Succeeded 100"))
    bench.report(Phase.FAILED, reason="NotEqual", message="other HashKV", hint="restore again")()
    outcome = bench.migrate()
    assert (outcome.end, outcome.reason, outcome.hint) == (End.ALREADY_THERE, "NotEqual", "restore again")


def test_a_shoot_that_is_there_may_have_an_unreadable_or_forbidden_report(bench: Bench) -> None:
    bench.kube.put(SHOOTS, shoot("seed-b", "seed-b"))
    put_report(bench.kube, "{")
    assert bench.migrate().report is None
    bench.kube.refuse("get", "configmaps")
    assert bench.migrate().report is None


def test_a_migration_that_somebody_else_began_is_followed(bench: Bench) -> None:
    bench.kube.put(SHOOTS, shoot("seed-b", "seed-a", "Migrate Processing 20"))
    outcome = bench.migrate(
        bench.shoot("seed-b", "seed-b", "Restore Succeeded 100"),
        bench.report(Phase.SUCCEEDED, "MigrateStarted", message="done"),
    )
    assert (outcome.end, outcome.bound, outcome.message) == (End.ENDED, False, "done")
    assert bench.kube.replaced == []


# ---- following


def test_every_step_is_told_once_as_it_happens(bench: Bench) -> None:
    outcome = bench.migrate(
        bench.report(Phase.PREPARING, "MigrateStarted"),
        bench.shoot("seed-b", "seed-a", "Migrate Processing 40"),
        bench.report(Phase.PREPARING, "MigrateStarted", "ApiServerStopped", message="waiting"),
        bench.shoot("seed-b", "seed-b", "Restore Succeeded 100"),
        bench.report(Phase.SUCCEEDED, "MigrateStarted", "ApiServerStopped", "ApiServerStarted", equal=True),
    )
    assert bench.told == ["Bound", "MigrateStarted", "ApiServerStopped", "ApiServerStarted"]
    assert outcome.report is not None
    assert (outcome.reason, outcome.operation) == ("", "Restore Succeeded 100%")
    assert (outcome.source, outcome.notes) == ("seed-a", ())


def test_one_line_says_how_it_is_now(bench: Bench) -> None:
    lines: list[str] = []
    bench.migrate(
        bench.shoot("seed-b", "seed-a", "Migrate Processing 40"),
        bench.report(Phase.PREPARING, "MigrateStarted", "ApiServerStopped", message="waiting for the final snapshot"),
        lambda: None,
        lambda: lines.append(bench.progress.view().detail),
        bench.report(Phase.FAILED, reason="MigrationFailed"),
    )
    # The API server went at 00:00:01, the last look was at 00:00:03.
    assert lines == ["Preparing, Migrate Processing 40%, API server down for 2.00 s, waiting for the final snapshot"]


def test_a_failure_ends_with_its_reason(bench: Bench) -> None:
    outcome = bench.migrate(
        bench.report(Phase.FAILED, "FinalSnapshotMissing", reason="FinalSnapshotMissing", message="none", hint="look")
    )
    assert (outcome.end, outcome.reason, outcome.message, outcome.hint) == (
        End.ENDED,
        "FinalSnapshotMissing",
        "none",
        "look",
    )
    assert bench.progress.view().milestones[-1].bad


def test_the_report_of_the_last_migration_is_not_the_news_of_this_one(bench: Bench) -> None:
    bench.report(Phase.FAILED, "PreflightFailed", reason="PreflightFailed", message="of yesterday")()
    outcome = bench.migrate(lambda: None, bench.report(Phase.FAILED, "NotEqual", reason="NotEqual", message="of today"))
    assert outcome.message == "of today"


def test_success_is_not_believed_while_the_shoot_still_moves(bench: Bench) -> None:
    """It moved to seed-b once before, came back without a controller, and moves there again."""
    bench.kube.put(SHOOTS, shoot("seed-b", "seed-a", "Migrate Processing 20"))
    bench.report(Phase.SUCCEEDED, message="of last year")()
    with pytest.raises(Cancelled):
        bench.migrate(lambda: None, lambda: None)


def test_a_report_about_another_seed_is_not_ours(bench: Bench) -> None:
    with pytest.raises(Cancelled):
        bench.migrate(bench.report(Phase.FAILED, reason="NotEqual", destination="seed-c"), lambda: None)


def test_without_a_controller_gardeners_word_is_shown_and_success_is_unproven(bench: Bench) -> None:
    waiting: list[Act] = [lambda: None] * int(follow.REPORT_WITHIN_S)
    outcome = bench.migrate(
        bench.shoot("seed-b", "seed-a", "Migrate Processing 20"),
        *waiting,
        bench.shoot("seed-b", "seed-b", "Restore Processing 20"),
        bench.shoot("seed-b", "seed-b", "Restore Succeeded 100"),
        *([lambda: None] * int(follow.PROOF_WITHIN_S)),
    )
    assert bench.told == ["Bound", "NoController", "MigrateProcessing", "RestoreProcessing", "RestoreSucceeded"]
    assert (outcome.end, outcome.reason) == (End.UNPROVEN, "MigrationFailed")
    assert outcome.notes == (follow.NO_CONTROLLER,)


def test_a_controller_that_comes_late_is_believed(bench: Bench) -> None:
    bench.kube.put(SHOOTS, shoot("seed-b", "seed-b", "Restore Processing 99"))
    outcome = bench.migrate(
        bench.shoot("seed-b", "seed-b", "Restore Succeeded 100"),
        *([lambda: None] * int(follow.PROOF_WITHIN_S - 2)),
        bench.report(Phase.RESTORED),
        *([lambda: None] * 5),
        bench.report(Phase.SUCCEEDED, equal=True),
    )
    assert (outcome.end, outcome.reason) == (End.ENDED, "")


@pytest.mark.parametrize("forbidden", [True, False])
def test_a_report_that_cannot_be_read_is_told_once(bench: Bench, forbidden: bool) -> None:
    if forbidden:
        bench.kube.refuse("get", "configmaps")
    else:
        put_report(bench.kube, "{")
    outcome = bench.migrate(lambda: None, lambda: None, timeout=1.5)
    assert bench.told == ["Bound", "ReportUnreadable"]
    assert len(outcome.notes) == 1


def test_the_end_of_the_time_is_no_success(bench: Bench) -> None:
    outcome = bench.migrate(*([lambda: None] * 5), timeout=3.0)
    assert (outcome.end, outcome.reason, outcome.seconds) == (End.TIMEOUT, "MigrationFailed", 3.0)
    assert "backupagent migrations garden-dev/demo" in outcome.hint


def test_an_api_server_that_is_away_is_waited_for(bench: Bench) -> None:
    lines: list[str] = []

    def away() -> None:
        bench.kube.errors["get", "shoots"] = KubeUnavailable("refused", what="get shoots")

    def back() -> None:
        lines.append(bench.progress.view().detail)
        bench.kube.errors.clear()

    outcome = bench.migrate(away, back, bench.report(Phase.FAILED, reason="NotEqual"))
    assert lines == ["get shoots: refused; trying again"]
    assert outcome.reason == "NotEqual"


def test_an_api_server_that_stays_away_ends_with_the_time(bench: Bench) -> None:
    def away() -> None:
        bench.kube.errors["get", "configmaps"] = KubeUnavailable("refused", what="get configmaps")

    bench.kube.put(SHOOTS, shoot("seed-b", "seed-a", "Migrate Processing 20"))
    away()
    outcome = bench.migrate(lambda: None, lambda: None, timeout=2.0)
    assert (outcome.end, outcome.source, outcome.operation) == (End.TIMEOUT, "seed-a", "Migrate Processing 20%")


def test_a_shoot_that_is_bound_elsewhere_meanwhile_is_not_followed(bench: Bench) -> None:
    with pytest.raises(MigrationFailed, match="garden-dev/demo was bound to seed-c meanwhile"):
        bench.migrate(bench.shoot("seed-c", "seed-a"))


def test_following_can_be_stopped(bench: Bench) -> None:
    with pytest.raises(Cancelled, match="the move goes on"):
        bench.migrate()
    assert spec_seed(bench.kube) == "seed-b", "the migration goes on"
