"""What happens before an etcd starts: its data directory is kept, or made from the newest backup."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeVar

from backupagent.clock import Clock
from backupagent.errors import DataDirInvalid
from backupagent.etcd.boltfile.writer import storage_error
from backupagent.etcd.datadir import DataDirState, inspect_data_dir

Restored = TypeVar("Restored")

GUARD = "safe_guard"
"""File beside the data directory that names the namespace it belongs to.

Source: etcd-backup-restore, pkg/initializer/validator at debd95b.
"""

MAX_GUARD_SIZE = 4096


class Action(StrEnum):
    """What an initialization did."""

    KEPT = "kept"
    RESTORED = "restored"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Initialization(Generic[Restored]):
    """How a data directory was made ready.

    Attributes:
        action: What was done; ``nothing`` when there is neither a directory nor a backup: a new etcd begins.
        reason: Why, for a person.
        restored: What the restore returned; None without one.
        moved_to: Where an invalid directory was moved to; None when there was none.
        revision: Last revision in the database of a directory that was kept; else 0.
    """

    action: Action
    reason: str
    restored: Restored | None = None
    moved_to: Path | None = None
    revision: int = 0


class Initializer(Generic[Restored]):
    """Makes a data directory ready for an etcd that does not run yet.

    A valid directory is always kept, also when its database is behind the newest backup. etcd flushes its database
    only every 100 ms or 10,000 writes, so what is missing there may stand in its write-ahead log, together with writes
    that no backup has: to restore over it could lose those. An etcd that is behind the store once it runs, its log
    replayed, is found by the first snapshot, which is refused and told until somebody decides.

    Args:
        data_dir: The data directory.
        namespace: What ``safe_guard`` beside it must say; empty skips that check.
        has_backups: Tells whether the store holds anything to restore; None without a store.
        restore: Makes the data directory, which does not exist then, from the newest chain.
        clock: Names what is moved away.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        namespace: str,
        has_backups: Callable[[], bool] | None,
        restore: Callable[[], Restored],
        clock: Clock,
    ) -> None:
        self._data_dir = data_dir
        self._namespace = namespace
        self._has_backups = has_backups
        self._restore = restore
        self._clock = clock

    def run(self, *, deep: bool) -> Initialization[Restored]:
        """Make it ready.

        Args:
            deep: Read every page of an existing database.

        Raises:
            DataDirInvalid: the volume is another one's, or the directory is invalid and there is no backup.
            EtcdError: an etcd uses the directory, or the file system does not let us look.
            BackupAgentError: the restore failed; what was there is still there, moved aside when it was invalid.
        """
        self._check_guard()
        found = inspect_data_dir(self._data_dir, deep=deep)
        if found.state is DataDirState.VALID:
            reason = f"the data directory is valid, at revision {found.revision} or later"
            return Initialization(Action.KEPT, reason, revision=found.revision)
        backups = self._has_backups() if self._has_backups is not None else False
        if found.state is DataDirState.MISSING:
            if not backups:
                return Initialization(Action.NOTHING, "neither a data directory nor a backup: a new etcd begins")
            return Initialization(Action.RESTORED, "there was no data directory", self._restore())
        if not backups:
            raise DataDirInvalid(
                f"{found.reason}, and there is no backup to restore",
                endpoint=str(self._data_dir),
                hint="it was left as it is; check the store, or move the directory away to begin with an empty etcd",
            )
        moved_to = self._move_away()
        return Initialization(Action.RESTORED, found.reason, self._restore(), moved_to)

    def _check_guard(self) -> None:
        """Refuse a volume that belongs to another namespace."""
        if not self._namespace:
            return
        guard = self._data_dir.parent / GUARD
        try:
            guard.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not guard.exists():
                _write_whole(guard, self._namespace)
                return
            with guard.open(encoding="utf-8", errors="replace") as file:
                found = file.read(MAX_GUARD_SIZE).strip()
        except OSError as error:
            raise storage_error(error, str(guard)) from error
        if found != self._namespace:
            raise DataDirInvalid(
                f"the volume belongs to namespace {found!r}, this is {self._namespace!r}",
                endpoint=str(guard),
                hint="the wrong volume is mounted; if it is the right one, remove the file",
            )

    def _move_away(self) -> Path:
        """Keep what is invalid: somebody may want to look at it."""
        place = self._data_dir.with_name(f"{self._data_dir.name}.bad-{int(self._clock.now().timestamp())}")
        try:
            self._data_dir.rename(place)
        except OSError as error:
            raise storage_error(error, str(self._data_dir)) from error
        return place


def _write_whole(path: Path, text: str) -> None:
    """Write a small file that is there with all of its content or not at all."""
    half_made = path.with_name(f"{path.name}.part")
    with half_made.open("w", encoding="utf-8") as file:
        half_made.chmod(0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    half_made.replace(path)
