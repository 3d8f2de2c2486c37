"""`gc` and `doctor` as a user runs them, and their reports for people."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from backupagent import wiring
from backupagent.cli import main, text_care
from backupagent.cli.document import render_plain
from backupagent.operations.report_care import Check, CheckStatus, CollectReport, DoctorReport, Remains
from backupagent.stores.local import LocalStore
from backupagent.units import MiB

QUIET = ["--progress", "none", "--output", "json"]

COLLECTED = CollectReport(
    seconds=1.0,
    phases=(),
    store="s3://bucket",
    dry_run=False,
    removed=(Remains("upload", "v2/Full-1", 90_000.0, 8 * MiB), Remains("journal entry", "m/u.json", 90_001.0, None)),
    kept=(Remains("upload", "v2/Full-2", None, None, "the store does not tell how old it is"),),
    bytes=8 * MiB,
)


def test_gc_says_what_it_removed_and_what_stays() -> None:
    page = render_plain(text_care.collection(COLLECTED))
    assert page.startswith("s3://bucket: 2 unfinished uploads removed, 8.0 MiB\n")
    words = " ".join(page.split())
    assert "REMOVED WHAT AGE SIZE v2/Full-1 upload 25h00m 8.0 MiB m/u.json journal entry 25h00m unknown " in words
    assert "KEPT WHAT AGE SIZE v2/Full-2 upload unknown unknown the store does not tell how old it is" in words


def test_a_dry_run_says_that_it_is_one() -> None:
    page = render_plain(text_care.collection(replace(COLLECTED, dry_run=True, kept=())))
    assert "2 unfinished uploads would be removed" in page
    assert "WOULD BE REMOVED" in page
    assert "KEPT" not in page
    nothing = replace(COLLECTED, removed=(), kept=(), bytes=0)
    assert render_plain(text_care.collection(nothing)).startswith("s3://bucket: 0 unfinished uploads removed\n")


def test_gc_removes_an_old_upload_of_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LocalStore(tmp_path).begin_upload("v2/Full-00000000-00000005-1", part_size=4)
    gc = ["gc", "--store", tmp_path.as_uri(), "--incomplete", *QUIET]
    assert main(gc) == 0
    assert len(json.loads(capsys.readouterr().out)["kept"]) == 1
    assert main([*gc, "--older-than", "0", "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["dry_run"] is True
    assert main([*gc, "--older-than", "0"]) == 0
    assert [each["kind"] for each in json.loads(capsys.readouterr().out)["removed"]] == ["upload"]
    assert list((tmp_path / "v2").iterdir()) == []


def test_gc_of_snapshots_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc", "--store", tmp_path.as_uri(), *QUIET]) == 2
    assert "--incomplete" in json.loads(capsys.readouterr().out)["error"]["message"]


# ---- doctor

GOLDEN = Path(__file__).parents[2] / "golden" / "gzip"
CHECKED = DoctorReport(
    seconds=1.0,
    phases=(),
    ok=False,
    checks=(
        Check("list", "source", CheckStatus.OK, "6 snapshots"),
        Check("clock", "source", CheckStatus.WARNING, "2m00s ahead", "set the clock right"),
        Check("put", "target", CheckStatus.FAILED, "put 'x': no", "check the policy", "AccessDenied"),
        Check("delete", "target", CheckStatus.UNTESTED, "the probe could not be written"),
        Check("multipart", "target", CheckStatus.FAILED, "away", "run it again", "StoreUnavailable"),
    ),
    expected_s=None,
)


def test_doctor_shows_what_is_wrong_and_then_what_to_do() -> None:
    page = render_plain(text_care.checks(CHECKED))
    assert page.startswith("5 checks: 2 failed, 1 to look at, 1 untested\n\n  WHERE   CHECK      RESULT    FOUND\n")
    assert "  target  put        failed    put 'x': no\n" in page
    assert "what to do:\n  source clock: set the clock right\n  target put: check the policy\n" in page
    well = replace(CHECKED, ok=True, checks=CHECKED.checks[:1])
    assert render_plain(text_care.checks(well)).startswith("1 check: all well\n")
    assert "what to do" not in render_plain(text_care.checks(well))


def test_doctor_ends_with_the_code_of_the_first_check_that_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wiring, "run_doctor", lambda *_: CHECKED)
    assert main(["doctor", "--source", "memory://x", *QUIET]) == 13
    first = json.loads(capsys.readouterr().out)["checks"][1]
    assert first == {
        "name": "clock",
        "side": "source",
        "status": "warning",
        "detail": "2m00s ahead",
        "hint": "set the clock right",
        "reason": "",
    }


def test_doctor_of_two_directories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "target"
    both = ["--source", GOLDEN.as_uri(), "--target", target.as_uri()]
    assert main(["doctor", *both, *QUIET]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert {check["status"] for check in report["checks"]} == {"ok"}
    assert [path for path in target.rglob("*") if path.is_file()] == []
    assert main(["doctor", "--source", (tmp_path / "nothing").as_uri(), *QUIET]) == 11
    assert json.loads(capsys.readouterr().out)["checks"][0]["reason"] == "ObjectNotFound"


def test_doctor_of_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *QUIET]) == 2
    assert "--source" in json.loads(capsys.readouterr().out)["error"]["message"]
