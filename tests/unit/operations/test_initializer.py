"""What becomes of a volume before its etcd starts; nothing that exists is ever deleted."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backupagent.clock import FakeClock
from backupagent.errors import DataDirInvalid, EtcdError, NoSpace, StoreUnavailable
from backupagent.etcd.datadir import DataDirState, DataDirVerdict
from backupagent.operations import initializer
from backupagent.operations.initializer import GUARD, Action, Initialization, Initializer

NOW_S = 1_767_225_600
RESTORED = "what the restore reports"


MISSING = DataDirVerdict(DataDirState.MISSING)
INVALID = DataDirVerdict(DataDirState.INVALID, "member/snap/db is missing")
VALID = DataDirVerdict(DataDirState.VALID, revision=7)


@dataclass
class Volume:
    """A volume whose data directory is what a test says.

    Attributes:
        folder: Where it is mounted.
        found: What looking at the directory gives.
        backups: Whether the store has any.
        failure: What the restore raises.
    """

    folder: Path
    found: DataDirVerdict = MISSING
    backups: bool | Exception = True
    failure: Exception | None = None
    done: list[str] = field(default_factory=list)

    @property
    def data_dir(self) -> Path:
        return self.folder / "new.etcd"

    def has_backups(self) -> bool:
        self.done.append("asked the store")
        if isinstance(self.backups, Exception):
            raise self.backups
        return self.backups

    def restore(self) -> str:
        assert not self.data_dir.exists(), "a restore makes it"
        self.done.append("restored")
        if self.failure is not None:
            raise self.failure
        self.data_dir.mkdir()
        return RESTORED

    def initialize(
        self, *, namespace: str = "shoot--dev--demo", store: bool = True, deep: bool = False
    ) -> Initialization[str]:
        return Initializer(
            self.data_dir,
            namespace=namespace,
            has_backups=self.has_backups if store else None,
            restore=self.restore,
            clock=FakeClock(),
        ).run(deep=deep)


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Volume:
    made = Volume(tmp_path / "volume")

    def inspect(directory: Path, *, deep: bool) -> DataDirVerdict:
        assert directory == made.data_dir
        made.done.append(f"looked {'deep' if deep else 'briefly'}")
        return made.found

    monkeypatch.setattr(initializer, "inspect_data_dir", inspect)
    return made


def with_content(volume: Volume, found: DataDirVerdict) -> Volume:
    volume.found = found
    volume.data_dir.mkdir(parents=True)
    (volume.data_dir / "precious").write_text("data")
    return volume


def test_a_fresh_volume_is_restored(volume: Volume) -> None:
    result = volume.initialize(deep=True)
    assert (result.action, result.restored, result.moved_to) == (Action.RESTORED, RESTORED, None)
    assert volume.done == ["looked deep", "asked the store", "restored"]


@pytest.mark.parametrize("store", [True, False])
def test_a_fresh_volume_and_no_backup_is_a_new_etcd(volume: Volume, *, store: bool) -> None:
    volume.backups = False
    result = volume.initialize(store=store)
    assert (result.action, result.restored) == (Action.NOTHING, None)
    assert "restored" not in volume.done
    assert not volume.data_dir.exists()


def test_an_unreadable_store_is_not_an_empty_one(volume: Volume) -> None:
    volume.backups = StoreUnavailable("connection refused", key="s3://b/p", op="list")
    with pytest.raises(StoreUnavailable):
        volume.initialize()
    assert not volume.data_dir.exists()


def test_a_valid_directory_is_kept_and_the_store_is_not_waited_for(volume: Volume) -> None:
    result = with_content(volume, VALID).initialize()
    assert (result.action, result.revision, result.restored) == (Action.KEPT, 7, None)
    assert volume.done == ["looked briefly"]
    assert (volume.data_dir / "precious").read_text() == "data"


def test_an_invalid_directory_is_moved_aside_and_restored(volume: Volume) -> None:
    result = with_content(volume, INVALID).initialize()
    aside = volume.folder / f"new.etcd.bad-{NOW_S}"
    assert (result.action, result.moved_to, result.reason) == (Action.RESTORED, aside, INVALID.reason)
    assert (aside / "precious").read_text() == "data"


@pytest.mark.parametrize("store", [True, False])
def test_an_invalid_directory_without_a_backup_is_refused_and_kept(volume: Volume, *, store: bool) -> None:
    volume.backups = False
    with pytest.raises(DataDirInvalid, match="member/snap/db is missing, and there is no backup to restore"):
        with_content(volume, INVALID).initialize(store=store)
    assert (volume.data_dir / "precious").read_text() == "data"
    assert sorted(path.name for path in volume.folder.iterdir()) == ["new.etcd", GUARD]


def test_a_restore_that_fails_leaves_what_was_moved_aside(volume: Volume) -> None:
    volume.failure = NoSpace("no space left")
    with pytest.raises(NoSpace):
        with_content(volume, INVALID).initialize()
    assert (volume.folder / f"new.etcd.bad-{NOW_S}" / "precious").read_text() == "data"


def test_a_directory_that_cannot_be_moved_is_kept(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    with_content(volume, INVALID)
    (volume.folder / f"new.etcd.bad-{NOW_S}").mkdir()
    (volume.folder / f"new.etcd.bad-{NOW_S}" / "older").touch()
    with pytest.raises(EtcdError, match=r"new\.etcd: Directory not empty"):
        volume.initialize()
    assert "restored" not in volume.done
    assert (volume.data_dir / "precious").read_text() == "data"


# ---- safe_guard


def test_the_volume_is_marked_with_its_namespace(volume: Volume) -> None:
    volume.initialize()
    assert (volume.folder / GUARD).read_text() == "shoot--dev--demo"
    assert (volume.folder / GUARD).stat().st_mode & 0o077 == 0
    again = with_marked(volume, "shoot--dev--demo").initialize()
    assert again.action is Action.RESTORED


def with_marked(volume: Volume, text: str) -> Volume:
    volume.folder.mkdir(exist_ok=True)
    (volume.folder / GUARD).write_text(text)
    if volume.data_dir.exists():
        volume.data_dir.rmdir()
    return volume


@pytest.mark.parametrize("text", ["shoot--dev--other", "", "shoot--dev--demo" * 1000, "\ufffd"])
def test_the_volume_of_another_namespace_is_refused_before_anything_is_read(volume: Volume, text: str) -> None:
    with pytest.raises(DataDirInvalid, match="the volume belongs to namespace") as raised:
        with_marked(volume, text).initialize()
    assert "wrong volume is mounted" in raised.value.hint
    assert volume.done == []
    assert (volume.folder / GUARD).read_text() == text


def test_a_final_newline_of_the_mark_does_not_count(volume: Volume) -> None:
    assert with_marked(volume, "shoot--dev--demo\n").initialize().action is Action.RESTORED


def test_without_a_namespace_nothing_is_marked(volume: Volume) -> None:
    with_marked(volume, "whatever").initialize(namespace="")
    assert (volume.folder / GUARD).read_text() == "whatever"


def test_a_mark_is_there_whole_or_not_at_all(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", killed)
        with pytest.raises(NoSpace):
            volume.initialize()
    assert not (volume.folder / GUARD).exists()
    assert volume.initialize().action is Action.RESTORED
