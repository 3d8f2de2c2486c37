"""Whether a data directory is one that etcd can start from, and up to which revision its database goes. Read only.

What stands in the write-ahead log behind the database is not read yet: the revision is the least that an etcd which
starts there will have.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from backupagent.errors import EtcdError, IntegrityError
from backupagent.etcd.boltfile.reader import BoltReader
from backupagent.etcd.boltfile.tree import check_file
from backupagent.etcd.boltfile.writer import storage_error
from backupagent.etcd.mvcc.meta import read_state


class DataDirState(StrEnum):
    """What a data directory is."""

    MISSING = "missing"
    VALID = "valid"
    INVALID = "invalid"


@dataclass(frozen=True)
class DataDirVerdict:
    """What was found.

    Attributes:
        state: What it is.
        reason: Why it is invalid; else empty.
        revision: Last revision in the database of a valid one; else 0.
    """

    state: DataDirState
    reason: str = ""
    revision: int = 0


def inspect_data_dir(directory: Path, *, deep: bool) -> DataDirVerdict:
    """Look at a data directory that no etcd uses.

    Args:
        directory: The data directory, which holds ``member``.
        deep: Also read every page of the database: order, bounds, no page twice.

    Raises:
        EtcdError: the file system does not let us look.
    """
    try:
        if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
            return DataDirVerdict(DataDirState.MISSING)
        lacking = _lacking(directory)
        if lacking:
            return DataDirVerdict(DataDirState.INVALID, f"{lacking} is missing")
        return _inspect_db(directory / "member" / "snap" / "db", deep=deep)
    except OSError as error:
        raise storage_error(error, str(directory)) from error


def _lacking(directory: Path) -> str:
    """Name what a member always has and this directory has not."""
    if not (directory / "member" / "snap" / "db").is_file():
        return "member/snap/db"
    if not any((directory / "member" / "wal").glob("*.wal")):
        return "member/wal/*.wal"
    return ""


def _inspect_db(path: Path, *, deep: bool) -> DataDirVerdict:
    try:
        with BoltReader(path) as reader:
            state = read_state(reader)
            if deep:
                check_file(reader)
    except (IntegrityError, EtcdError) as error:
        return DataDirVerdict(DataDirState.INVALID, str(error))
    return DataDirVerdict(DataDirState.VALID, revision=state.revision)
