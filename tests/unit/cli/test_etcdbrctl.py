"""etcdbrctl as a program: how it ends, what it tells, and what it leaves to Kubernetes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent import wiring
from backupagent.cli import etcdbrctl
from backupagent.errors import ConfigError, EmptySource, FinalSnapshotMissing, PartialFailure, RevisionGap
from backupagent.operations.report import ChainEnd, CopyReport
from backupagent.server import run as server_run
from backupagent.settings import CopySettings, ServerSettings

COPIED = CopyReport(
    seconds=1.0,
    phases=(),
    copied=3,
    skipped=0,
    bytes=100,
    bytes_reread=0,
    server_side_bytes=0,
    trailers_unchecked=0,
    newest_chain=ChainEnd("Full-00000000-00000006-1795400591.gz", 30),
    given_up_revisions=None,
)


@pytest.fixture(autouse=True)
def _no_other_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TERMINATION_LOG", raising=False)


@pytest.fixture
def termination_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setattr(etcdbrctl, "TERMINATION_LOG", path)
    return path


@pytest.fixture
def copying(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], list[CopySettings]]:
    """Replace what ``copy`` does; an error that is given is raised."""

    def install(outcome: object) -> list[CopySettings]:
        asked: list[CopySettings] = []

        def run_copy(settings: CopySettings, progress: object, cancel: object) -> object:
            asked.append(settings)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr(wiring, "run_copy", run_copy)
        return asked

    return install


COPY_WORDS = [
    "copy",
    "--storage-provider=S3",
    "--store-prefix=p",
    "--store-container=to",
    "--source-store-container=from",
]


def test_a_copy_tells_its_report_to_the_log_and_to_kubernetes(
    copying: Callable[[object], list[CopySettings]], termination_log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = copying(COPIED)
    assert etcdbrctl.main(COPY_WORDS) == 0
    assert [settings.target for settings in asked] == ["s3://to/p"]
    told = json.loads(termination_log.read_text())
    assert (told["copied"], told["newest_chain"]["last_revision"]) == (3, 30)
    assert "Full-00000000-00000006-1795400591.gz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("c"), 2),
        (EmptySource("e", key="k"), 25),
        (FinalSnapshotMissing("f"), 41),
        (RuntimeError("a bug"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_a_failure_has_its_exit_code_and_leaves_its_reason(
    error: BaseException,
    code: int,
    copying: Callable[[object], list[CopySettings]],
    termination_log: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copying(error)
    assert etcdbrctl.main(COPY_WORDS) == code
    told = json.loads(termination_log.read_text())["error"]
    assert told["exit_code"] == code
    assert told["message"] in capsys.readouterr().err


def test_a_wrong_command_line_leaves_its_reason_too(termination_log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert etcdbrctl.main(["copy", "--frob"]) == 1
    assert json.loads(termination_log.read_text())["error"]["message"] == "unknown flag: --frob"
    told = capsys.readouterr().err
    assert told.startswith("Error: unknown flag: --frob\nUsage:\n  etcdbrctl copy [flags]\n")
    assert "hint: " in told


def test_many_errors_are_shortened_to_what_kubernetes_takes(
    copying: Callable[[object], list[CopySettings]], termination_log: Path
) -> None:
    gaps = [RevisionGap(f"gap {serial}" * 9, key=f"k{serial}") for serial in range(200)]
    copying(PartialFailure("200 of 300 snapshots were not copied", gaps))
    assert etcdbrctl.main(COPY_WORDS) == 40
    text = termination_log.read_text()
    assert len(text.encode()) <= 4096
    told = json.loads(text)["error"]
    assert (told["reason"], told["exit_code"]) == ("PartialFailure", 40)
    assert told["message"] == "200 of 300 snapshots were not copied"


TEXTS = st.text(max_size=9000)
ERRORS = st.fixed_dictionaries(
    {"reason": TEXTS, "message": TEXTS, "hint": TEXTS, "errors": st.lists(TEXTS, max_size=3)}
)


@given(ERRORS)
def test_last_words_always_fit_and_are_json(error: dict[str, object]) -> None:
    text = etcdbrctl.last_words({"error": error})
    assert len(text.encode()) <= 4096
    assert set(json.loads(text)["error"]) >= {"reason", "message", "hint"}


def test_short_last_words_are_whole() -> None:
    document = {"phases": [{"name": "copy"}], "text": "x" * 2000}
    assert json.loads(etcdbrctl.last_words(document)) == document
    worst = "\U0001f600" * 2500
    assert len(etcdbrctl.last_words({"error": {"message": worst, "hint": worst, "reason": worst}})) <= 4096


@pytest.mark.parametrize("place", ["missing", "missing/below", "folder"])
def test_without_a_place_for_last_words_the_exit_code_is_the_same(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copying: Callable[[object], list[CopySettings]]
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(etcdbrctl, "TERMINATION_LOG", tmp_path / place)
    copying(COPIED)
    assert etcdbrctl.main(COPY_WORDS) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


def test_a_place_that_cannot_be_written_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, copying: Callable[[object], list[CopySettings]], capsys: pytest.CaptureFixture[str]
) -> None:
    full = Path("/dev/full")
    monkeypatch.setattr(etcdbrctl, "TERMINATION_LOG", full)
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    copying(COPIED)
    assert etcdbrctl.main(COPY_WORDS) == 0
    assert "the report is not at /dev/full" in capsys.readouterr().err


def test_a_variable_names_another_place_for_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copying: Callable[[object], list[CopySettings]]
) -> None:
    monkeypatch.setenv("TERMINATION_LOG", str(tmp_path / "words"))
    copying(COPIED)
    assert etcdbrctl.main(COPY_WORDS) == 0
    assert json.loads((tmp_path / "words").read_text())["copied"] == 3


def test_a_missing_final_snapshot_names_the_way_back(
    copying: Callable[[object], list[CopySettings]], capsys: pytest.CaptureFixture[str]
) -> None:
    copying(FinalSnapshotMissing("no final snapshot appeared"))
    assert etcdbrctl.main(COPY_WORDS) == 41
    assert "BACKUPAGENT_ON_MISSING_FINAL=copy" in capsys.readouterr().err


def test_zero_backups_are_copied_when_that_is_asked_for(
    copying: Callable[[object], list[CopySettings]], termination_log: Path
) -> None:
    asked = copying(COPIED)
    assert etcdbrctl.main([*COPY_WORDS, "--max-backups-to-copy=0"]) == 0
    assert asked == []
    assert json.loads(termination_log.read_text()) == {"copied": 0}


def test_a_server_is_started_with_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ServerSettings] = []

    def run_server(settings: ServerSettings, cancel: object) -> int:
        asked.append(settings)
        return 0

    monkeypatch.setattr(server_run, "run_server", run_server)
    monkeypatch.setenv("STORAGE_CONTAINER", "bucket")
    assert etcdbrctl.main(["server", "--storage-provider=S3", "-p", "9999"]) == 0
    assert [(settings.store, settings.port) for settings in asked] == [("s3://bucket/", 9999)]


def test_a_restore_that_cannot_be_done_has_our_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "default.bkp" / "v2").mkdir(parents=True)
    assert etcdbrctl.main(["restore", "--storage-provider=Local", f"--data-dir={tmp_path / 'new.etcd'}"]) == 25


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 0, "Available Commands:\n  server  copy  restore"),
        (["help"], 0, "Available Commands"),
        (["--help"], 0, "Available Commands"),
        (["-h"], 0, "Available Commands"),
        (["help", "copy"], 0, "etcdbrctl copy [flags]"),
        (["copy", "--help"], 0, "--max-backup-age int (default '-1')"),
        (["server", "-h"], 0, "-p, --server-port uint (default '8080')"),
        (["-v"], 0, "Version: backupagent"),
        (["--version"], 0, "Version: backupagent"),
        (["frob"], 1, 'Error: unknown command "frob" for "etcdbrctl"'),
        (["--frob"], 1, "Error: unknown flag: --frob"),
        (["compact"], 2, 'command "compact" is not in this version'),
        (["copy", "--storage-provider=Swift"], 2, "not supported"),
        (["restore", "--skip-hash-check"], 2, "error: --skip-hash-check"),
        (["restore", "--storage-provider=S3"], 2, "container name not specified"),
    ],
)
def test_the_command_line(words: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert etcdbrctl.main(words) == code
    captured = capsys.readouterr()
    assert told in (captured.err if code else captured.out)
    assert not (captured.out if code else captured.err)
