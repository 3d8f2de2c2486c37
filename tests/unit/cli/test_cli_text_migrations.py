"""Migrations for people: the verdict first, all that matters, nothing that a ConfigMap could do to a terminal."""

import io
import sys

import pytest

from backupagent.cli import commands
from backupagent.cli.commands import COMMANDS
from backupagent.cli.document import Document, Tone, render_plain, render_terminal
from backupagent.cli.text_migrations import migrate, migrations
from backupagent.controller.outcome import End, MigrationOutcome
from backupagent.controller.overview import Migration, Overview
from backupagent.model.migration import CopyProof, FinalSnapshot, MigrationReport, Phase, RestoredEtcd, Step

FINAL = FinalSnapshot(name="Full-00000000-00000042-1.gz.final", revision=42, bytes=2048, hash_kv=7, hash_kv_revision=42)
COPY = CopyProof(expected=3, present=3, newest_chain_verified=True, bytes=4096)
STEPS = (
    Step(name="MigrateStarted", who="gardenlet", at="2026-01-01T00:00:01.000Z"),
    Step(name="ApiServerStopped", who="gardenlet", at="2026-01-01T00:00:05.500Z", detail="it is gone"),
)


def report(phase: Phase = Phase.SUCCEEDED, **changes: object) -> MigrationReport:
    fields: dict[str, object] = {
        "namespace": "garden-dev",
        "shoot": "demo",
        "source": "seed-a",
        "destination": "seed-b",
        "phase": phase,
        "steps": STEPS,
        "final": FINAL,
        "copy": COPY,
        "restored": RestoredEtcd(revision=42, hash_kv=7, compact_revision=3),
        "equal": True,
        "first_backup": "Full-00000000-00000044-2.gz",
        "downtime_s": 62.0,
        "message": "everything arrived",
    }
    return MigrationReport(**(fields | changes))


def outcome(content: MigrationReport | None, end: End = End.ENDED, **changes: object) -> MigrationOutcome:
    fields: dict[str, object] = {
        "namespace": "garden-dev",
        "shoot": "demo",
        "source": "seed-a",
        "destination": "seed-b",
        "end": end,
        "bound": True,
        "operation": "Restore Succeeded 100%",
        "report": content,
        "seconds": 90.0,
    }
    return MigrationOutcome(**(fields | changes))


def migration(content: MigrationReport | None, **changes: object) -> Migration:
    fields: dict[str, object] = {
        "namespace": "garden-dev",
        "shoot": "demo",
        "source": "seed-a",
        "destination": "seed-b",
        "phase": content.phase if content else None,
        "operation": "Restore Succeeded 100%",
        "since": "2026-01-01T00:00:01.000Z",
        "downtime_s": content.downtime_s if content else None,
        "down_since": "",
        "message": content.message if content else "no controller has reported this migration",
        "report": content,
    }
    return Migration(**(fields | changes))


def lines(document: Document) -> list[str]:
    return render_plain(document).splitlines()


def tone(document: Document) -> Tone:
    return document[0].cell.tone  # type: ignore[union-attr] # the first block is a line


def test_a_success_begins_with_the_verdict_and_proves_it() -> None:
    document = migrate(outcome(report()))
    assert lines(document) == [
        "garden-dev/demo is on seed-b: the new etcd EQUALS the old one",
        "  API server down  1m02s",
        "  final snapshot   Full-00000000-00000042-1.gz.final, revision 42, HashKV 7, 2.0 KiB",
        "  copied           3 of 3 snapshots, 4.0 KiB, newest chain read and right",
        "  new etcd         revision 42, HashKV 7",
        "  comparison       EQUAL to the final snapshot",
        "  first backup     Full-00000000-00000044-2.gz in the bucket of seed-b",
    ]
    assert tone(document) is Tone.GOOD


def test_equal_is_not_said_when_it_is_not_known() -> None:
    text = render_plain(migrate(outcome(report(equal=None, notes=("no HashKV is recorded",)))))
    assert "EQUAL" not in text
    assert "note: no HashKV is recorded\n" in text


def test_a_failure_names_its_reason_what_is_missing_and_what_to_do() -> None:
    lost = CopyProof(expected=3, present=2, missing=("Incr-1",), bytes=1024)
    fields = {"reason": "MigrationFailed", "message": "1 snapshot is missing", "hint": "keep the source", "copy": lost}
    document = migrate(outcome(report(Phase.FAILED, equal=False, **fields)))
    assert lines(document)[:2] == [
        "garden-dev/demo to seed-b: MigrationFailed: 1 snapshot is missing",
        "hint: keep the source",
    ]
    text = render_plain(document)
    assert "copied           2 of 3 snapshots, 1.0 KiB, newest chain not verified\n" in text
    assert "missing          Incr-1\n" in text
    assert "NOT EQUAL" in text
    assert tone(document) is Tone.BAD


@pytest.mark.parametrize(
    ("end", "reason", "first"),
    [
        (End.BOUND, "", "garden-dev/demo is bound to seed-b"),
        (End.ALREADY_THERE, "", "garden-dev/demo is on seed-b already"),
        (End.UNPROVEN, "MigrationFailed", "garden-dev/demo to seed-b: MigrationFailed: Gardener says that the move is"),
        (End.TIMEOUT, "MigrationFailed", "garden-dev/demo to seed-b: MigrationFailed: the move has not ended"),
    ],
)
def test_every_end_is_said(end: End, reason: str, first: str) -> None:
    ended = outcome(None, end, notes=("one", "one"))
    document = migrate(ended)
    assert ended.reason == reason
    assert bool(ended.hint) is bool(reason)
    assert lines(document)[0].startswith(first)
    assert lines(document).count("note: one") == 1
    assert tone(document) is (Tone.BAD if reason else Tone.GOOD)


def test_a_failure_without_a_reason_is_a_failure_all_the_same() -> None:
    assert outcome(report(Phase.FAILED)).reason == "MigrationFailed"


def test_the_outcome_as_json() -> None:
    told = outcome(report()).to_json()
    assert told["report"]["final"]["hash_kv"] == 7
    del told["report"]
    assert told == {
        "namespace": "garden-dev",
        "shoot": "demo",
        "source": "seed-a",
        "destination": "seed-b",
        "end": "ended",
        "bound": True,
        "reason": "",
        "message": "everything arrived",
        "hint": "",
        "operation": "Restore Succeeded 100%",
        "seconds": 90.0,
        "notes": [],
    }
    assert outcome(None, End.BOUND).to_json()["report"] is None


def test_all_migrations_stand_in_a_table() -> None:
    running = migration(
        report(Phase.PREPARING, downtime_s=None, message="waiting"), down_since="2026-01-01T00:00:05.500Z"
    )
    document = migrations(Overview(migrations=[running, migration(report()), migration(None, since="", source="")]))
    title, first, second, third = lines(document)
    assert title.split() == ["SHOOT", "FROM", "TO", "PHASE", "OPERATION", "DOWN", "SINCE", "MESSAGE"]
    assert "Preparing" in first
    assert "since 00:00:05Z" in first
    assert first.endswith("2026-01-01 00:00Z  waiting")
    assert "1m02s" in second
    assert "unreported" in third


def test_one_migration_is_shown_with_its_timeline() -> None:
    failed = report(Phase.FAILED, reason="NotEqual", message="other HashKV", hint="restore again", notes=("late",))
    document = migrations(Overview(migrations=[migration(failed)], asked="garden-dev/demo"))
    text = lines(document)
    assert text[0] == "garden-dev/demo: seed-a to seed-b: Failed"
    assert "  reason           NotEqual: other HashKV" in text
    assert "  hint             restore again" in text
    assert "note: late" in text
    assert text[-3:] == [
        "  TIME        AFTER  WHO        STEP",
        "  00:00:01Z  0.00 s  gardenlet  MigrateStarted",
        "  00:00:05Z  4.50 s  gardenlet  ApiServerStopped  it is gone",
    ]


def test_times_that_are_none_are_shown_as_they_are() -> None:
    odd = report(steps=(Step(name="A", who="b", at="yesterday"),))
    document = migrations(Overview(migrations=[migration(odd, since="yesterday")], asked="garden-dev/demo"))
    assert lines(document)[-1] == "  yesterday         b    A"
    assert "yesterday" in lines(migrations(Overview(migrations=[migration(odd, since="yesterday")])))[1]


def test_an_unreported_migration_alone() -> None:
    document = migrations(Overview(migrations=[migration(None, source="")], asked="garden-dev/demo"))
    assert lines(document) == [
        "garden-dev/demo: ? to seed-b: unreported",
        "  operation  Restore Succeeded 100%",
        "  message    no controller has reported this migration",
    ]


def test_nothing_is_said_too() -> None:
    assert lines(migrations(Overview(migrations=[]))) == ["no migration is known"]
    asked = Overview(migrations=[], asked="garden-dev/demo")
    assert lines(migrations(asked)) == ["no migration of garden-dev/demo is known"]


def test_the_commands_show_with_these() -> None:
    show_outcome, show_overview = COMMANDS["migrate"].show, COMMANDS["migrations"].show
    assert show_outcome is not None
    assert show_overview is not None
    assert show_outcome(outcome(report())) == migrate(outcome(report()))
    assert show_overview(Overview(migrations=[])) == migrations(Overview(migrations=[]))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (report(), 0),
        (report(Phase.FAILED, reason="PreflightFailed"), 43),
        (report(Phase.FAILED, reason="FinalSnapshotMissing"), 41),
        (report(Phase.FAILED, reason="NotEqual"), 42),
        (report(Phase.FAILED, reason="MigrationFailed"), 44),
        (report(Phase.FAILED, reason="EmptySource"), 25),
    ],
)
def test_the_exit_code_is_that_of_the_reason(
    content: MigrationReport, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backupagent.controller.trigger.run_migrate", lambda *_: outcome(content))
    assert commands._migrate(None, None, None).exit_code == code  # type: ignore[arg-type] # not looked at


def test_prose_is_wrapped_inside_its_column_and_nothing_trails(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "160")
    words = " ".join(["word"] * 40)
    render_terminal(migrations(Overview(migrations=[migration(report(message=words), since="x\x1b[2J")])))
    written = out.getvalue()
    shown = written.splitlines()
    assert len(shown) > 2
    assert max(map(len, shown)) <= 160
    column = shown[1].index("word")
    assert all(line[:column].strip() == "" and line[column:].startswith("word") for line in shown[2:])
    assert all(line == line.rstrip() for line in shown)
    assert "\x1b" not in written
