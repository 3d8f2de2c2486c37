import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backupagent import failpoints
from backupagent.errors import (
    AccessDenied,
    BackupAgentError,
    ConfigError,
    NoSpace,
    ObjectExists,
    ObjectNotFound,
    StoreError,
)
from backupagent.stores import local_files
from backupagent.stores.base import Upload
from backupagent.stores.local import LocalStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root)


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def keys(store: LocalStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list_objects(prefix)]


class TestFiles:
    def test_modes_are_private(self, tmp_path: Path) -> None:
        root = tmp_path / "new/root"
        store = LocalStore(root)
        store.put("v2/a", b"x")
        upload = store.begin_upload("v2/b", part_size=1)
        modes = {path.name: path.stat().st_mode & 0o777 for path in root.rglob("*")} | {
            "root": root.stat().st_mode & 0o777
        }
        assert modes == {
            "root": 0o700, "v2": 0o700, "a": 0o600, f"b.{upload.id}.part": 0o600, f"b.{upload.id}.part.log": 0o600,
        }  # fmt: skip

    def test_listing_what_does_not_exist_is_an_error(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path / "gone")
        with pytest.raises(ObjectNotFound):
            keys(store)
        with pytest.raises(ObjectNotFound):
            store.list_uploads("")
        assert not (tmp_path / "gone").exists()

    def test_content_and_directory_are_synced_around_the_rename(
        self, store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        happened = []
        fsync, replace = os.fsync, Path.replace
        monkeypatch.setattr(
            os, "fsync", lambda fd: (happened.append(Path(f"/proc/self/fd/{fd}").readlink()), fsync(fd))
        )
        monkeypatch.setattr(Path, "replace", lambda old, new: (happened.append("rename"), replace(old, new))[1])
        store.put("a", b"x")
        assert [getattr(step, "suffix", step) or step for step in happened] == [".part", "rename", root]

    def test_a_name_that_is_too_long_is_an_error_of_the_store(self, store: LocalStore) -> None:
        with pytest.raises(StoreError, match="file name too long"):
            store.put("k" * 250, b"x")
        assert keys(store) == []

    @pytest.mark.parametrize("key", ["a.part", "v2/a.part.log"])
    def test_keys_of_unfinished_objects_are_refused(self, store: LocalStore, key: str) -> None:
        for call in (lambda: store.put(key, b"x"), lambda: store.stat(key), lambda: store.delete(key)):
            with pytest.raises(ConfigError):
                call()

    def test_an_object_cannot_lie_below_another(self, store: LocalStore) -> None:
        store.put("a", b"x")
        with pytest.raises(StoreError, match="cannot hold both"):
            store.put("a/b", b"x")
        store.put("d/e", b"x")
        with pytest.raises(StoreError, match="cannot hold both"):
            store.put("d", b"x")
        with pytest.raises(ObjectExists):
            store.put("d", b"x", if_absent=True)
        assert keys(store) == ["a", "d/e"]

    def test_what_is_removed_during_a_listing_is_left_out(self, store: LocalStore, root: Path) -> None:
        for key in ("a", "b", "c/d", "e"):
            store.put(key, b"x")
        listing = store.list_objects("")
        assert next(listing).key == "a"
        store.delete("b")
        store.delete("c/d")
        (root / "c").rmdir()
        assert [info.key for info in listing] == ["e"]

    def test_names_that_are_no_keys_are_not_listed(self, store: LocalStore, root: Path) -> None:
        (root / "new\nline").touch()
        Path(os.fsdecode(bytes(root) + b"/not-utf8-\xff")).touch()
        os.mkfifo(root / "pipe")
        assert keys(store) == []
        with pytest.raises(ObjectNotFound):
            store.stat("pipe")
        with pytest.raises(ObjectNotFound):
            store.read_into("pipe", memoryview(bytearray(1)))


class TestSymbolicLinks:
    def test_none_leads_out(self, store: LocalStore, root: Path, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside/secret").write_text("x")
        (root / "dir").symlink_to(tmp_path / "outside")
        (root / "file").symlink_to(tmp_path / "outside/secret")
        assert keys(store) == []
        for call in (
            lambda: store.read_into("dir/secret", memoryview(bytearray(1))),
            lambda: store.put("dir/new", b"x"),
            lambda: store.delete("dir/secret"),
            lambda: store.begin_upload("dir/new", part_size=1),
        ):
            with pytest.raises(AccessDenied, match="symbolic link"):
                call()
        with pytest.raises(StoreError):
            store.read_into("file", memoryview(bytearray(1)))
        assert names(tmp_path / "outside") == ["secret"]

    def test_the_root_may_be_one(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(root)
        store = LocalStore(tmp_path / "link")
        store.put("v2/a", b"x")
        store.put("b", b"x")
        assert keys(store) == ["b", "v2/a"]


class TestFaults:
    @pytest.mark.parametrize("if_absent", [False, True])
    @pytest.mark.parametrize("point", ["local.write", "local.rename"])
    def test_a_failed_put_leaves_nothing(self, store: LocalStore, root: Path, point: str, *, if_absent: bool) -> None:
        failpoints.arm(f"{point}=nospace")
        with pytest.raises(NoSpace, match=f"'v2/a' in file://{root}: no space left"):
            store.put("v2/a", b"x", if_absent=if_absent)
        assert names(root) == []

    def test_a_failed_begin_leaves_nothing(self, store: LocalStore, root: Path) -> None:
        failpoints.arm("local.write=nospace*2")
        with pytest.raises(NoSpace):
            store.begin_upload("v2/a", part_size=1)
        assert names(root) == []

    @pytest.mark.parametrize("hit", [1, 2])
    def test_a_failed_part_can_be_sent_again(self, store: LocalStore, hit: int) -> None:
        upload = store.begin_upload("a", part_size=4)
        failpoints.arm(f"local.write=nospace*{hit}")
        with pytest.raises(NoSpace):
            store.upload_part(upload, 1, b"part")
        failpoints.arm("")
        assert store.list_parts(upload) == []
        store.complete_upload(upload, [store.upload_part(upload, 1, b"part")])
        assert store.stat("a").size == 4

    def test_a_failed_complete_can_be_repeated(self, store: LocalStore) -> None:
        upload = store.begin_upload("a", part_size=4)
        tag = store.upload_part(upload, 1, b"part")
        failpoints.arm("local.rename=nospace")
        with pytest.raises(NoSpace):
            store.complete_upload(upload, [tag])
        assert keys(store) == []
        failpoints.arm("")
        assert store.complete_upload(upload, store.list_parts(upload)).size == 4

    def test_half_a_record_is_a_failed_part(self, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
        upload = store.begin_upload("a", part_size=4)
        write = os.write
        monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:5]))
        with pytest.raises(NoSpace):
            store.upload_part(upload, 1, b"part")
        monkeypatch.undo()
        assert store.list_parts(upload) == []
        assert [store.upload_part(upload, 1, b"part")] == store.list_parts(upload)

    @pytest.mark.parametrize(
        ("number", "op", "expected"),
        [
            (errno.ENOSPC, "put", NoSpace),
            (errno.EDQUOT, "put", NoSpace),
            (errno.ENOENT, "stat", ObjectNotFound),
            (errno.ENOTDIR, "read", ObjectNotFound),
            (errno.ENOTDIR, "put", StoreError),
            (errno.EISDIR, "put", StoreError),
            (errno.EEXIST, "put", ObjectExists),
            (errno.EACCES, "put", AccessDenied),
            (errno.EPERM, "delete", AccessDenied),
            (errno.EROFS, "put", AccessDenied),
            (errno.EIO, "read", StoreError),
        ],
    )
    def test_errors_of_the_system(self, number: int, op: str, expected: type[BackupAgentError]) -> None:
        error = local_files.translate(OSError(number, os.strerror(number)), op, "v2/a", "file:///dir")
        assert type(error) is expected
        assert "v2/a" in str(error)
        assert "file:///dir" in str(error)


class TestUploads:
    def test_another_process_goes_on(self, store: LocalStore, root: Path) -> None:
        upload = store.begin_upload("v2/a", part_size=4)
        store.upload_part(upload, 3, b"cc")
        store.upload_part(upload, 1, b"aaaa")
        other = LocalStore(root)
        assert other.list_uploads("v2/") == [upload]
        assert [(part.number, part.size) for part in other.list_parts(upload)] == [(1, 4), (3, 2)]
        other.upload_part(upload, 2, b"bbbb")
        other.complete_upload(upload, other.list_parts(upload))
        assert (root / "v2/a").read_bytes() == b"aaaabbbbcc"
        assert names(root) == ["v2/a"]

    def test_a_part_that_did_not_reach_the_disk_is_not_listed(self, store: LocalStore, root: Path) -> None:
        upload = store.begin_upload("a", part_size=4)
        for number, piece in enumerate((b"aaaa", b"bbbb", b"cccc"), 1):
            store.upload_part(upload, number, piece)
        data = root / f"a.{upload.id}.part"
        data.write_bytes(b"aaaa" + bytes(4) + b"cc")
        assert [part.number for part in store.list_parts(upload)] == [1]

    @pytest.mark.parametrize("cut", range(1, 12))
    def test_a_record_that_was_cut_short_costs_one_part(self, store: LocalStore, root: Path, cut: int) -> None:
        upload = store.begin_upload("a", part_size=4)
        for number, piece in enumerate((b"aaaa", b"bbbb"), 1):
            store.upload_part(upload, number, piece)
        log = root / f"a.{upload.id}.part.log"
        log.write_bytes(log.read_bytes()[:-cut])
        assert [part.number for part in store.list_parts(upload)] == [1]
        store.upload_part(upload, 3, b"c")
        assert [part.number for part in store.list_parts(upload)] == [1, 3]

    def test_a_damaged_record_is_an_upload_to_throw_away(self, store: LocalStore, root: Path) -> None:
        upload = store.begin_upload("a", part_size=4)
        (root / f"a.{upload.id}.part.log").write_bytes(b"\xff\x00 no JSON")
        assert store.list_uploads("") == [Upload("a", upload.id, 0)]
        with pytest.raises(ObjectNotFound):
            store.list_parts(upload)
        store.abort_upload(upload)
        assert names(root) == []

    def test_another_part_size_than_at_the_beginning_is_refused(self, store: LocalStore) -> None:
        upload = store.begin_upload("a", part_size=4)
        store.upload_part(upload, 1, b"aaaa")
        wrong = Upload("a", upload.id, 5)
        for call in (lambda: store.upload_part(wrong, 2, b"x"), lambda: store.list_parts(wrong)):
            with pytest.raises(ObjectNotFound, match="parts of 5 bytes"):
                call()

    def test_a_longer_attempt_leaves_no_bytes_behind(self, store: LocalStore, root: Path) -> None:
        upload = store.begin_upload("a", part_size=8)
        store.upload_part(upload, 1, b"12345678")
        store.upload_part(upload, 2, b"too long")
        parts = [store.list_parts(upload)[0], store.upload_part(upload, 2, b"end")]
        store.complete_upload(upload, parts)
        assert (root / "a").read_bytes() == b"12345678end"

    def test_a_kill_between_link_and_cleaning_does_not_touch_the_object(self, store: LocalStore, root: Path) -> None:
        upload = store.begin_upload("a", part_size=4)
        tag = store.upload_part(upload, 1, b"good")
        os.link(root / f"a.{upload.id}.part", root / "a")
        with pytest.raises(ObjectNotFound, match="completed"):
            store.upload_part(upload, 1, b"evil")
        with pytest.raises(ObjectNotFound, match="completed"):
            store.complete_upload(upload, [tag])
        assert store.list_uploads("") == [upload]
        store.abort_upload(upload)
        assert names(root) == ["a"]
        assert (root / "a").read_bytes() == b"good"

    def test_what_a_killed_put_left_can_be_aborted_and_what_a_running_put_writes_is_left_alone(
        self, store: LocalStore, root: Path
    ) -> None:
        (root / "a.0123456789abcdef.part").write_bytes(b"left")
        (root / "foreign.part").write_bytes(b"not ours")
        with (root / "b.fedcba9876543210.part").open("wb") as running:
            fcntl.flock(running, fcntl.LOCK_EX)
            assert store.list_uploads("") == [Upload("a", "0123456789abcdef", 0)]
        store.abort_upload(Upload("a", "0123456789abcdef", 0))
        assert [upload.key for upload in store.list_uploads("")] == ["b"]
        assert names(root) == ["b.fedcba9876543210.part", "foreign.part"]


def test_a_put_in_progress_is_not_an_upload_to_abort(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = local_files.publish
    seen = []

    def watched(unfinished: Path, final: Path, *, if_absent: bool) -> None:
        seen.append((LocalStore(root).list_uploads(""), unfinished.exists()))
        publish(unfinished, final, if_absent=if_absent)

    monkeypatch.setattr(local_files, "publish", watched)
    store.put("a", b"x")
    assert seen == [([], True)]


KILLED = """
import sys
from pathlib import Path
from backupagent.stores.local import LocalStore
store = LocalStore(Path(sys.argv[1]))
if sys.argv[2] == "put":
    store.put("v2/a", b"new!")
else:
    upload = store.begin_upload("v2/a", part_size=2)
    tags = [store.upload_part(upload, number, b"ne" if number == 1 else b"w!") for number in (1, 2)]
    store.complete_upload(upload, tags)
raise SystemExit("was not killed")
"""


@pytest.mark.parametrize(
    ("how", "point"),
    [
        ("put", "local.write=sigkill"),
        ("put", "local.rename=sigkill"),
        ("upload", "local.write=sigkill*1"),
        ("upload", "local.write=sigkill*2"),
        ("upload", "local.write=sigkill*4"),
        ("upload", "local.rename=sigkill"),
    ],
)
def test_a_kill_leaves_the_old_object_and_what_can_be_aborted(
    store: LocalStore, root: Path, how: str, point: str
) -> None:
    store.put("v2/a", b"old")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, root, how],
        env={**os.environ, "BACKUPAGENT_FAILPOINTS": point, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -9, killed.stderr
    assert (root / "v2/a").read_bytes() == b"old"
    assert keys(store) == ["v2/a"]
    (left,) = store.list_uploads("v2/")
    if (how, point) == ("upload", "local.rename=sigkill"):
        store.complete_upload(left, store.list_parts(left))
        assert (root / "v2/a").read_bytes() == b"new!"
    else:
        store.abort_upload(left)
    assert names(root) == ["v2/a"]
