"""A program whose commands do what the test says."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from backupagent.cancel import Cancel
from backupagent.cli.commands import COMMANDS, Outcome
from backupagent.operations.report import LeaseCount, RestoreReport
from backupagent.progress import PhaseReport, Progress

Do = Callable[[Any, Progress, Cancel], Any]

RESTORED = RestoreReport(
    seconds=3.4,
    phases=(PhaseReport("base", 3.01, 300_000_000), PhaseReport("verify", 0.3, 0)),
    revision=91,
    hash_kv=3433856483,
    compact_revision=25,
    events=1234,
    matches_manifest=True,
    full="Full-00000000-00000006-1795400591.gz",
    deltas=5,
    leases=LeaseCount(kept=3, synthesized=2, guessed_ttl=1, dangling=0),
    data_dirs=("/var/lib/etcd/new.etcd",),
    cluster_id="cdf818194e3a8c32",
)


@pytest.fixture
def restored() -> RestoreReport:
    """A report of a restore."""
    return RESTORED


@pytest.fixture
def restoring(monkeypatch: pytest.MonkeyPatch) -> Callable[[Do], None]:
    """Replace what ``restore`` does; an error that it returns is raised."""

    def install(do: Do) -> None:
        def run(settings: object, progress: Progress, cancel: Cancel) -> Outcome:
            answer = do(settings, progress, cancel)
            if isinstance(answer, BaseException):
                raise answer
            return Outcome(answer)

        monkeypatch.setitem(COMMANDS, "restore", replace(COMMANDS["restore"], run=run))

    return install
