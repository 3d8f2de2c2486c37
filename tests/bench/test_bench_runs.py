"""The harness runs: with stand-ins that are right or wrong, and with our own commands and the baselines."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backupagent import bench
from backupagent.bench import runner
from backupagent.bench.contender import Contender
from backupagent.bench.scenarios import QUICK
from backupagent.bench.targets import Metric, Target

RIGHT = 'mkdir -p "$1/member/snap"; : >"$1/member/snap/db"; echo \'{"revision": 62}\''
"""Makes what a restore of the quick chain makes, as far as the harness looks: 2 revisions in the full, 60 in deltas."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture
def restore_by(monkeypatch: pytest.MonkeyPatch, server_binary: Callable[[str], Path]) -> Callable[..., None]:
    """Let shell scripts restore instead of backupagent and its peers."""
    server_binary("etcd-3.5")

    def use(*scripts: str, targets: tuple[Target, ...] = ()) -> None:
        contenders = [
            Contender(
                name,
                "restore",
                "sh",
                ("-ec", script.replace("{", "{{").replace("}", "}}"), "sh", "{data_dir}"),
                reports_json=name == "backupagent",
            )
            for name, script in zip(("backupagent", "peer"), scripts, strict=False)
        ]
        scenario = dataclasses.replace(QUICK[0], contenders=tuple(contenders), targets=targets)
        monkeypatch.setattr(runner, "QUICK", (scenario,))

    return use


def run(tmp_path: Path, kind: str = "restore", **options: Any) -> tuple[int, dict[str, Any]]:
    path = tmp_path / "report.json"
    code = bench.run(kind, json=path, quick=True, **options)
    return code, json.loads(path.read_text())


def test_every_run_of_every_contender_is_in_the_json(tmp_path: Path, restore_by: Callable[..., None]) -> None:
    restore_by(RIGHT, RIGHT)

    code, report = run(tmp_path, runs=3)

    (scenario,) = report["scenarios"]
    assert code == 0
    assert [(each["name"], len(each["runs"])) for each in scenario["contenders"]] == [("backupagent", 3), ("peer", 3)]
    assert set(scenario["wall_ratios"]) == {"peer"}
    ours = scenario["contenders"][0]
    walls_s = sorted(each["wall_s"] for each in ours["runs"])
    assert ours["median"]["wall_s"] == walls_s[1]
    assert [each["report"] for each in ours["runs"]] == [{"revision": 62}] * 3
    assert {"git_commit", "versions", "host", "policy", "created"} <= set(report)
    assert report["host"]["memory"] > 0
    assert len(report["host"]["load_before"]) == len(report["host"]["load_after"]) == 3


def test_the_figures_are_printed_with_what_they_belong_to(
    tmp_path: Path, restore_by: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    restore_by(RIGHT, RIGHT)

    _code, report = run(tmp_path, runs=2)

    shown = capsys.readouterr().out
    assert shown.count("restore-quick #") == 4
    assert f"commit {report['git_commit'] or 'unknown'}; python {report['versions']['python']}" in shown
    assert f"{report['host']['cores']} cores" in shown
    assert ", load " in shown


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (":", "not one JSON document"),
        ("echo '{}'", "there is no"),
        (RIGHT.replace("62", "61"), "reports revision 61, the chain ends at 62"),
        ("echo wrong >&2; exit 7", "exit code 7: wrong"),
    ],
)
def test_a_command_that_did_not_do_its_work_fails_the_benchmark(
    tmp_path: Path, restore_by: Callable[..., None], capsys: pytest.CaptureFixture[str], script: str, problem: str
) -> None:
    restore_by(script, RIGHT)

    code, report = run(tmp_path, runs=1)

    ours, peer = report["scenarios"][0]["contenders"]
    assert code == 1
    assert problem in ours["runs"][0]["problem"]
    assert problem in capsys.readouterr().out
    assert ours["median"]["wall_s"] is None
    assert peer["runs"][0]["problem"] is None


def test_a_peer_that_failed_is_not_compared_with(tmp_path: Path, restore_by: Callable[..., None]) -> None:
    restore_by(RIGHT, "exit 1", targets=(Target(Metric.WALL_RATIO, 0, against="peer"),))

    code, report = run(tmp_path, runs=1, check=True)

    assert code == 0
    assert report["scenarios"][0]["targets"][0]["met"] is None


@pytest.mark.parametrize(("check", "code"), [(True, 1), (False, 0)])
def test_a_missed_target_fails_only_a_check(
    tmp_path: Path,
    restore_by: Callable[..., None],
    check: bool,
    code: int,
) -> None:
    restore_by(RIGHT, targets=(Target(Metric.PEAK_MEMORY, 1),))

    ended, report = run(tmp_path, runs=1, check=check)

    assert ended == code
    assert report["scenarios"][0]["targets"][0]["met"] is False


def test_a_peer_that_is_not_here_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restore_by: Callable[..., None]
) -> None:
    restore_by(RIGHT)
    peer = Contender("stranger", "restore", "backupagent-no-such-program", ())
    scenario = runner.QUICK[0]
    monkeypatch.setattr(runner, "QUICK", (dataclasses.replace(scenario, contenders=(*scenario.contenders, peer)),))

    code, report = run(tmp_path, runs=1)

    assert code == 0
    assert report["scenarios"][0]["contenders"][1]["missing"] == "no backupagent-no-such-program on PATH"


def test_nothing_but_the_chain_is_left(tmp_path: Path, restore_by: Callable[..., None], cache: Path) -> None:
    restore_by(RIGHT)

    run(tmp_path, runs=1)

    left = {path.name for chain in (cache / "backupagent/bench").iterdir() for path in chain.iterdir()}
    assert left == {"v2", "parameters.json"}


@pytest.mark.parametrize(
    ("kind", "server", "baseline"), [("restore", "etcd-3.5", "cp+fsync"), ("copy", "minio", "boto3-loop")]
)
def test_our_own_command_and_the_baseline_do_the_work(
    tmp_path: Path, server_binary: Callable[[str], Path], kind: str, server: str, baseline: str
) -> None:
    server_binary(server)

    code, report = run(tmp_path, kind, runs=1)

    runs = {each["name"]: each["runs"] for each in report["scenarios"][0]["contenders"]}
    assert runs["backupagent"][0]["problem"] is None
    assert runs[baseline][0]["problem"] is None
    assert code == 0
