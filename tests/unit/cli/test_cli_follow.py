"""What `copy --follow` prints, and the exit code it ends with."""

import json
from dataclasses import replace

import pytest

from backupagent import wiring
from backupagent.cli import main, text
from backupagent.cli.document import Document, render_plain
from backupagent.operations.report import Behind, ChainEnd, FollowEnd, FollowReport, Problem
from backupagent.progress import PhaseReport
from backupagent.units import MiB

IN_STEP = FollowReport(
    seconds=60.0,
    phases=(PhaseReport("follow", 60.0, 8 * MiB),),
    copied=12,
    skipped=1,
    bytes=8 * MiB,
    bytes_reread=0,
    server_side_bytes=0,
    trailers_unchecked=0,
    newest_chain=ChainEnd("Full-1.gz", 91, 3.0),
    ended=FollowEnd.STOPPED,
    final=None,
    behind=Behind(0, 0, 0.0),
    unlisted_s=2.5,
    listings=13,
    problems=(),
)
BEHIND = replace(IN_STEP, behind=Behind(3, 2 * MiB, 7.0))
PROBLEM = Problem("p/v2/Incr-1", "ChecksumMismatch", "p/v2/Incr-1: sha256 is another", "copy it again")
DAMAGED = replace(BEHIND, problems=(PROBLEM,))
AWAY = replace(IN_STEP, problems=(replace(PROBLEM, reason="StoreUnavailable", key=""),))
FOLLOW = ["copy", "--source", "memory://a", "--target", "memory://b", "--follow", "--progress", "none"]


def plain(document: Document) -> str:
    return render_plain(document)


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (IN_STEP, 0),
        (replace(IN_STEP, ended=FollowEnd.FINAL, final="Full-9.final"), 0),
        (BEHIND, 130),
        (DAMAGED, 21),
        (AWAY, 15),
        (replace(DAMAGED, problems=(*DAMAGED.problems, *AWAY.problems)), 40),
    ],
)
def test_the_exit_code_says_whether_the_target_is_in_step(
    report: FollowReport, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wiring, "run_follow", lambda *_: report)
    assert main([*FOLLOW, "--output", "json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["ended"] == report.ended.value
    assert document["behind"]["snapshots"] == report.behind.snapshots
    assert len(document["problems"]) == len(report.problems)


def test_a_follow_that_is_in_step() -> None:
    page = plain(text.copy(IN_STEP))
    assert page.startswith("in step\n")
    for needle in (
        "ended          stopped as asked",
        "copied         12 snapshots, 8.0 MiB",
        "behind         nothing; the source was last listed 2.50 s ago",
        "newest chain   Full-1.gz",
        "restorable to  revision 91",
    ):
        assert needle in page


def test_a_follow_that_is_behind() -> None:
    page = plain(text.copy(replace(DAMAGED, ended=FollowEnd.FAILED)))
    assert page.startswith("NOT in step\n")
    assert "ended          ended by a problem" in page
    assert "behind         3 snapshots, 2.0 MiB, 7.00 s; the source was last listed" in page
    assert "ChecksumMismatch: p/v2/Incr-1: sha256 is another\n  hint: copy it again" in page


def test_a_target_with_nothing_to_restore() -> None:
    page = plain(text.copy(replace(BEHIND, newest_chain=None, behind=Behind(3, 2 * MiB, 0.0))))
    assert "restorable to  nothing yet" in page
    assert "behind         3 snapshots, 2.0 MiB; the source" in page


def test_a_final_snapshot_is_named() -> None:
    page = plain(text.copy(replace(IN_STEP, ended=FollowEnd.FINAL, final="Full-9.final")))
    assert "ended          a final snapshot was copied: Full-9.final" in page


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--until-final"], "--until-final is for --follow"),
        (["--follow", "--wait-for-final", "5m"], "--wait-for-final is for a copy that ends"),
        (["--follow", "--follow-interval", "0s"], "--follow-interval must be longer than 0s"),
    ],
)
def test_options_that_contradict_each_other(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FOLLOW[:5], *options]) == 2
    assert words in capsys.readouterr().err
