"""`gc` and `doctor` as a user runs them, and their reports for people."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from backupagent.cli import main, text_care
from backupagent.cli.document import render_plain
from backupagent.operations.report import CollectReport, Remains
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
    assert "v2/Full-1  upload         25h00m   8.0 MiB\n" in page
    assert "v2/Full-2  upload  unknown  unknown  the store does not tell how old it is" in page


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
