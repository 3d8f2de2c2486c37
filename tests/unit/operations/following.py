"""A follower between two stores that are made up, and a clock that moves when it waits."""

from collections import Counter
from collections.abc import Callable

from snapshot_fakes import (
    NOW,
    RecordingStore,
    WaitingCancel,
    store,
)

from backupagent.clock import FakeClock
from backupagent.operations.copier import Copier
from backupagent.operations.follower import Follower
from backupagent.operations.report import FollowReport
from backupagent.progress import Progress
from backupagent.settings import CopySettings, TransferSettings
from backupagent.stores.memory import MemoryStore
from backupagent.testing.faulty import FaultyStore
from backupagent.transfer.context import Transfer

Step = Callable[[], object]


class CountingStore(MemoryStore):
    """A source that counts how often each object is read."""

    def __init__(self) -> None:
        super().__init__("source")
        self.reads: Counter[str] = Counter()

    def read_into(self, key, buffer, *, offset=0, etag=""):
        self.reads[key.rpartition("/")[2]] += 1
        return super().read_into(key, buffer, offset=offset, etag=etag)


class World:
    """A source, a target, and what happens while the follower waits between its rounds; after that it is stopped."""

    def __init__(self) -> None:
        self.clock = FakeClock(NOW)
        self.cancel = WaitingCancel(self.clock)
        self.cancel.waited = self._waited  # type: ignore[method-assign]
        self.reads = CountingStore()
        self.source_faults = FaultyStore(self.reads)
        self.source = store(self.source_faults)
        self.recording = RecordingStore()
        self.target_faults = FaultyStore(self.recording)
        self.target = store(self.target_faults)
        self.progress = Progress(self.clock)
        self.steps: list[Step] = []
        self.follower: Follower | None = None

    def _waited(self) -> None:
        if self.steps:
            self.steps.pop(0)()
        else:
            self.cancel.set("SIGTERM")

    def follow(self, *steps: Step, **options) -> FollowReport:
        self.steps = list(steps)
        settings = CopySettings(source="s", target="t", follow=True, **options)
        transfer = Transfer(
            TransferSettings(workers=1, window=2, part_size=64 * 1024), self.cancel, self.progress, self.clock
        )
        self.follower = Follower(Copier(self.source, self.target, settings, transfer), settings, transfer)
        return self.follower.run()

    def told(self) -> list[str]:
        return [f"{milestone.what} {milestone.detail}" for milestone in self.progress.view().milestones]

    def kinds(self) -> list[str]:
        return [milestone.what for milestone in self.progress.view().milestones]


def nothing() -> None:
    """Let a round pass."""
