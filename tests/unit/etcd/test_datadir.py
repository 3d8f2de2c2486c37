"""What a data directory is, by looking at it; a running etcd is never taken for a broken one."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backupagent.errors import EtcdError
from backupagent.etcd import datadir
from backupagent.etcd.boltfile.layout import PAGE_HEADER
from backupagent.etcd.datadir import DataDirState, DataDirVerdict, inspect_data_dir
from backupagent.etcd.mvcc.keyvalue import encode_event
from backupagent.etcd.mvcc.revision import RevisionKey
from backupagent.model.event import Change, Event, KeyValue

MakeDb = Callable[..., Path]
LAST = 900


@pytest.fixture
def data_dir(make_etcd_db: MakeDb, tmp_path: Path) -> Path:
    """A directory as etcd leaves it, whose database has many pages."""
    revisions = range(2, LAST + 1)
    events = [Event(Change(kv=KeyValue(b"k", 2, revision, revision - 1, b"v" * 90))) for revision in revisions]
    keys = [RevisionKey(revision, 0, False).encode() for revision in revisions]
    directory = tmp_path / "data"
    (directory / "member" / "snap").mkdir(parents=True)
    (directory / "member" / "wal").mkdir()
    (directory / "member" / "wal" / "0000000000000000-0000000000000000.wal").touch()
    make_etcd_db(zip(keys, map(encode_event, events), strict=True)).rename(directory / "member" / "snap" / "db")
    return directory


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("deep", [False, True])
def test_a_valid_directory(data_dir: Path, *, deep: bool) -> None:
    before = tree(data_dir)
    assert inspect_data_dir(data_dir, deep=deep) == DataDirVerdict(DataDirState.VALID, revision=LAST)
    assert tree(data_dir) == before


def test_a_missing_or_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("none", "empty"):
        assert inspect_data_dir(tmp_path / name, deep=True).state is DataDirState.MISSING


def db_is_gone(directory: Path) -> None:
    (directory / "member" / "snap" / "db").unlink()


def db_is_a_directory(directory: Path) -> None:
    db_is_gone(directory)
    (directory / "member" / "snap" / "db").mkdir()


def db_is_empty(directory: Path) -> None:
    os.truncate(directory / "member" / "snap" / "db", 0)


def db_is_cut(directory: Path) -> None:
    os.truncate(directory / "member" / "snap" / "db", 5 * 4096)


def db_is_noise(directory: Path) -> None:
    (directory / "member" / "snap" / "db").write_bytes(os.urandom(64 * 4096))


def wal_is_empty(directory: Path) -> None:
    (directory / "member" / "wal" / "0000000000000000-0000000000000000.wal").unlink()


def wal_is_gone(directory: Path) -> None:
    wal_is_empty(directory)
    (directory / "member" / "wal").rmdir()


def a_file_stands_in_its_place(directory: Path) -> None:
    directory.rename(directory.with_name("aside"))
    directory.write_text("x")


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (db_is_gone, "member/snap/db is missing"),
        (db_is_a_directory, "member/snap/db is missing"),
        (db_is_empty, "not a bbolt file"),
        (db_is_cut, "its meta page says"),
        (db_is_noise, "not a bbolt file"),
        (wal_is_empty, "member/wal/*.wal is missing"),
        (wal_is_gone, "member/wal/*.wal is missing"),
        (a_file_stands_in_its_place, "member/snap/db is missing"),
    ],
)
def test_an_invalid_directory(data_dir: Path, damage: Callable[[Path], None], reason: str, *, deep: bool) -> None:
    damage(data_dir)
    verdict = inspect_data_dir(data_dir, deep=deep)
    assert verdict.state is DataDirState.INVALID
    assert reason in verdict.reason
    assert verdict.revision == 0


def test_only_the_deep_look_reads_every_page(data_dir: Path) -> None:
    db = data_dir / "member" / "snap" / "db"
    data = bytearray(db.read_bytes())
    leaf = next(at for at in range(2 * 4096, len(data), 4096) if PAGE_HEADER.unpack_from(data, at)[2] > 1)
    data[leaf + 16 : leaf + 4096] = bytes(4080)
    db.write_bytes(data)
    assert inspect_data_dir(data_dir, deep=False).state is DataDirState.VALID
    verdict = inspect_data_dir(data_dir, deep=True)
    assert verdict.state is DataDirState.INVALID
    assert str(db) in verdict.reason


@pytest.fixture
def running_etcd(data_dir: Path) -> Iterator[None]:
    """Hold the lock that an etcd holds."""
    with (data_dir / "member" / "snap" / "db").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.usefixtures("running_etcd")
@pytest.mark.parametrize("damage", [lambda _directory: None, db_is_noise, db_is_empty])
def test_a_database_in_use_is_not_judged(data_dir: Path, damage: Callable[[Path], None]) -> None:
    damage(data_dir)
    with pytest.raises(EtcdError, match="the database is in use") as raised:
        inspect_data_dir(data_dir, deep=True)
    assert "wait until" in raised.value.hint


def test_no_etcd_starts_meanwhile(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def check(_reader: object) -> None:
        with (data_dir / "member" / "snap" / "db").open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tried.append("refused")

    monkeypatch.setattr(datadir, "check_file", check)
    inspect_data_dir(data_dir, deep=True)
    assert tried == ["refused"]
    with (data_dir / "member" / "snap" / "db").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("call", ["open", "pread"])
def test_a_disk_that_does_not_answer_says_nothing_about_the_content(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_arguments: object, **_options: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(EtcdError, match="Input/output error"):
        inspect_data_dir(data_dir, deep=False)
