"""An etcd, a store and a snapshot operation that are made up, for the sidecar's parts."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from backupagent.errors import BackupAgentError
from backupagent.etcd.client import Status
from backupagent.operations.report import ListedChain, ListedSnapshot, ListReport, SnapshotReport
from backupagent.settings import SnapshotChoice

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOON_S = int(NOON.timestamp())
PATIENCE_S = 20.0


def status(revision: int = 9) -> Status:
    return Status("3.5.35", 1, 1, revision, 0x1F, 0x1F, 0xABC, 1, is_learner=False, errors=())


def report(name: str | None, *, last: int = 9, note: str = "", kind: str = "") -> SnapshotReport:
    return SnapshotReport(
        name=name,
        names=() if name is None else (name,),
        kind=kind or ("Incr" if name is None else name[:4]),
        final=name is not None and name.endswith(".final"),
        start_revision=0,
        last_revision=last,
        events=0,
        note=note,
        manifest={},
        seconds=0.5,
        phases=(),
    )


def listed(name: str) -> ListedSnapshot:
    kind, start, last, _rest = name.split("-")
    return ListedSnapshot(
        name=name,
        kind=kind,
        start_revision=int(start),
        last_revision=int(last),
        created="",
        size=1,
        final=name.endswith(".final"),
        manifest=True,
    )


def chain(full: str, *deltas: str) -> ListedChain:
    last = listed(deltas[-1] if deltas else full).last_revision
    return ListedChain(listed(full), tuple(listed(delta) for delta in deltas), last, (), 1)


def listing(*chains: ListedChain) -> ListReport:
    return ListReport(store="memory://m", chains=chains, orphans=(), unreadable=(), seconds=0.1, phases=())


class FakeSnapshots:
    """Takes snapshots of nothing: every answer but the last one is given once, errors are raised."""

    def __init__(self, *answers: SnapshotReport | BackupAgentError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, bool]] = []

    def __call__(self, kind: SnapshotChoice, final: bool) -> SnapshotReport:
        self.asked.append((kind.value, final))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BackupAgentError):
            raise answer
        return answer


async def until(condition: Callable[[], object]) -> None:
    """Let others run until something is so."""

    async def look() -> None:
        while not condition():  # noqa: ASYNC110 - threads bring it about
            await asyncio.sleep(0.001)

    await asyncio.wait_for(look(), PATIENCE_S)


def run(work: Awaitable[None]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(work, PATIENCE_S)

    asyncio.run(limited())
