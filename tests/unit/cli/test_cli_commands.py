"""The commands as a user runs them, on buckets that the peer wrote; and what each passes on."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from backupagent import bench, wiring
from backupagent.bench import demo
from backupagent.cli import main
from backupagent.controller import overview, trigger
from backupagent.settings import MigrateKind, MigrateSettings

GOLDEN = Path(__file__).parents[2] / "golden"
QUIET = ["--progress", "none", "--output", "json"]


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """A copy of a bucket with one full and five deltas, revisions 6 to 30."""
    return Path(shutil.copytree(GOLDEN / "gzip", tmp_path / "bucket"))


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, object]]:
    code = main([*map(str, arguments), *QUIET])
    return code, json.loads(capsys.readouterr().out)


def test_list_shows_the_chain(bucket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = run(capsys, "list", "--store", f"file://{bucket}")
    assert code == 0
    (chain,) = report["chains"]  # type: ignore[misc] # JSON
    assert (chain["last_revision"], len(chain["deltas"]), chain["gaps"]) == (30, 5, [])


def test_list_of_nothing_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = run(capsys, "list", "--store", f"file://{tmp_path}")
    assert (code, report["error"]["reason"]) == (25, "EmptySource")  # type: ignore[index] # JSON


def test_copy_moves_everything_once(bucket: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "target").mkdir()
    stores = ("--source", f"file://{bucket}", "--target", f"file://{tmp_path}/target")
    code, first = run(capsys, "copy", *stores)
    assert (code, first["copied"], first["skipped"]) == (0, 6, 0)
    code, second = run(capsys, "copy", *stores)
    assert (code, second["copied"], second["skipped"]) == (0, 0, 6)


def test_verify_of_a_whole_store_ends_with_zero(bucket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = run(capsys, "verify", "--store", f"file://{bucket}")
    assert (code, report["ok"], report["checked"]) == (0, True, 6)


def test_verify_ends_with_the_code_of_the_problem(bucket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bucket / "v2" / "Incr-00000012-00000017-1795400593.gz").unlink()
    code, report = run(capsys, "verify", "--store", f"file://{bucket}")
    assert (code, report["ok"]) == (24, False)
    assert {problem["reason"] for problem in report["problems"]} == {"RevisionGap"}  # type: ignore[attr-defined] # JSON


def test_verify_ends_with_40_when_problems_differ(bucket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bucket / "v2" / "Incr-00000012-00000017-1795400593.gz").unlink()
    broken = bucket / "v2" / "Incr-00000026-00000030-1795400600.gz"
    broken.write_bytes(broken.read_bytes()[:-20])
    code, report = run(capsys, "verify", "--store", f"file://{bucket}")
    assert (code, report["ok"]) == (40, False)


def test_restore_makes_a_data_directory(bucket: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = run(capsys, "restore", "--store", f"file://{bucket}", "--data-dir", tmp_path / "new.etcd")
    assert (code, report["revision"], report["data_dirs"]) == (0, 30, [str(tmp_path / "new.etcd")])
    assert (tmp_path / "new.etcd" / "member" / "snap" / "db").is_file()


@pytest.mark.parametrize(
    ("arguments", "runner"),
    [
        (["snapshot", "--store", "memory://b"], "run_snapshot"),
        (["copy", "--source", "memory://a", "--target", "memory://b"], "run_copy"),
        (["restore", "--store", "memory://b", "--data-dir", "d"], "run_restore"),
        (["list", "--store", "memory://b"], "run_list"),
        (["verify", "--store", "memory://b"], "run_verify"),
    ],
)
def test_each_command_calls_its_operation(
    arguments: list[str], runner: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(*_: object) -> SimpleNamespace:
        return SimpleNamespace(ok=True, to_json=lambda: {"runner": runner})

    monkeypatch.setattr(wiring, runner, fake)
    assert run(capsys, *arguments) == (0, {"runner": runner})


def test_migrate_gets_its_options(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[MigrateSettings] = []

    def fake(settings: MigrateSettings, *_: object) -> SimpleNamespace:
        seen.append(settings)
        return SimpleNamespace(reason="", to_json=lambda: {"end": "bound"})

    monkeypatch.setattr(trigger, "run_migrate", fake)
    code = main(["migrate", "shoot", "garden-dev/demo", "--to", "seed-b", "--no-follow", "-o", "json"])
    assert (code, json.loads(capsys.readouterr().out)) == (0, {"end": "bound"})
    assert (seen[0].kind, seen[0].name, seen[0].to) == (MigrateKind.SHOOT, "garden-dev/demo", "seed-b")
    assert (seen[0].follow, seen[0].timeout) == (False, 3600.0)


@pytest.mark.parametrize(
    ("arguments", "name"), [(["migrations"], ""), (["migrations", "garden-dev/demo"], "garden-dev/demo")]
)
def test_migrations_may_name_a_shoot(
    arguments: list[str], name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        overview, "run_migrations", lambda settings: SimpleNamespace(to_json=lambda: {"name": settings.name})
    )
    assert run(capsys, *arguments) == (0, {"name": name})


def test_the_demo_gets_its_options_and_gives_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, object]] = []

    def fake(**options: object) -> int:
        seen.append(options)
        return 1

    monkeypatch.setattr(demo, "run_demo", fake)
    assert main(["demo", "--store", "minio", "--objects", "7", "--keep", "/k"]) == 1
    assert {name: seen[0][name] for name in ("store", "objects", "keep")} == {
        "store": "minio",
        "objects": 7,
        "keep": Path("/k"),
    }


def test_the_bench_gets_its_options_and_gives_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def fake(*arguments: object, **options: object) -> int:
        seen.extend([arguments, options])
        return 1

    monkeypatch.setattr(bench, "run", fake)
    assert main(["bench", "copy", "--only", "big*", "--runs", "2", "--json", "/f", "--check"]) == 1
    assert seen == [("copy", "big*", 2, Path("/f")), {"check": True, "quick": False}]
