"""What is remembered of a restore until Kubernetes knows it."""

import logging
from pathlib import Path

import msgspec
import pytest

from backupagent.model.restored import MAX_SIZE, Restored
from backupagent.server.untold import UntoldRestore

RESTORED = Restored(
    revision=9, hash_kv=7, compact_revision=-1, full="Full-1", deltas=0, matches_manifest=None, seconds=1.0, at="now"
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "new.etcd"


def test_another_process_recalls_it_until_it_is_forgotten(data_dir: Path) -> None:
    UntoldRestore(data_dir).remember(RESTORED)
    assert UntoldRestore(data_dir).recall() == RESTORED
    assert [path.name for path in data_dir.parent.iterdir()] == ["new.etcd.restored"]
    UntoldRestore(data_dir).forget(RESTORED)
    assert UntoldRestore(data_dir).recall() is None
    assert list(data_dir.parent.iterdir()) == []


def test_a_newer_one_is_not_forgotten_with_an_older_one(data_dir: Path) -> None:
    newer = msgspec.structs.replace(RESTORED, at="later")
    untold = UntoldRestore(data_dir)
    untold.remember(newer)
    untold.forget(RESTORED)
    assert untold.recall() == newer


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b" " * (MAX_SIZE + 1)])
def test_what_cannot_be_read_is_told_in_the_log_only(
    data_dir: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    data_dir.with_name("new.etcd.restored").write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="backupagent"):
        assert UntoldRestore(data_dir).recall() is None
    assert "a restore that was not told is lost" in caplog.text


def test_a_volume_that_cannot_be_written_to_is_told_in_the_log_only(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data_dir.with_name("new.etcd.restored").mkdir()
    with caplog.at_level(logging.WARNING, logger="backupagent"):
        UntoldRestore(data_dir).remember(RESTORED)
    assert "a restore is not remembered" in caplog.text
