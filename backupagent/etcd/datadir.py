"""Whether a data directory is one that etcd can start from, and up to which revision its database goes. Read only.

What stands in the write-ahead log behind the database is not read yet: the revision is the least that an etcd which
starts there will have.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from backupagent.errors import EtcdError, IntegrityError
from backupagent.etcd.boltfile.reader import BoltReader
from backupagent.etcd.boltfile.tree import check_file
from backupagent.etcd.boltfile.writer import storage_error
from backupagent.etcd.mvcc.meta import read_state

DB = Path("member", "snap", "db")
WAL = Path("member", "wal")


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
        deep: Also read every page of the database: order, bounds, no page twice. Without it only its metas, the
            small ``meta`` bucket and the last keys are read (``sanity``).

    Raises:
        EtcdError: an etcd has it open, or the file system does not let us look: nothing is known then.
    """
    try:
        if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
            return DataDirVerdict(DataDirState.MISSING)
        lacking = _lacking(directory)
        if lacking:
            return DataDirVerdict(DataDirState.INVALID, f"{lacking} is missing")
        with _not_in_use(directory / DB) as file:
            return _inspect_db(file, directory / DB, deep=deep)
    except OSError as error:
        raise storage_error(error, str(directory)) from error


def _lacking(directory: Path) -> str:
    """Name what a member always has and this directory has not."""
    if not (directory / DB).is_file():
        return str(DB)
    if not any((directory / WAL).glob("*.wal")):
        return f"{WAL}/*.wal"
    return ""


@contextmanager
def _not_in_use(path: Path) -> Iterator[int]:
    """Open a database that no etcd has open, and keep etcds away meanwhile.

    A running one writes while we read: what it has half written would look like damage. It holds an exclusive lock.
    Source: bbolt, bolt_unix.go at v1.4.3, ``flock``.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            hint = "wait until the etcd that uses it has ended"
            raise EtcdError("the database is in use", endpoint=str(path), hint=hint) from error
        yield file
    finally:
        os.close(file)


def _inspect_db(file: int, path: Path, *, deep: bool) -> DataDirVerdict:
    try:
        with BoltReader(file, name=str(path)) as reader:
            state = read_state(reader)
            if deep:
                check_file(reader)
    except IntegrityError as error:
        return DataDirVerdict(DataDirState.INVALID, str(error))
    return DataDirVerdict(DataDirState.VALID, revision=state.revision)
