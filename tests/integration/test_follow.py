"""A source that is written to while a follower copies it: on real servers, through a link that breaks, as a process."""

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK
from backupagent.model.snapshot import Revision, Snapshot, SnapshotKind, without_final
from backupagent.operations.copier import Copier
from backupagent.operations.follower import Follower
from backupagent.operations.report import FollowEnd, FollowReport
from backupagent.progress import Progress
from backupagent.settings import CopySettings
from backupagent.snapstore import SnapStore
from backupagent.stores.base import ObjectStore
from backupagent.stores.local import LocalStore
from backupagent.stores.retrying import RetryingStore, RetryPolicy
from backupagent.stores.s3 import S3Settings, open_s3
from backupagent.testing.faulty import FaultyStore
from backupagent.testing.servers import MinioServer
from backupagent.testing.toxiproxy import Link, Toxiproxy
from backupagent.testing.waiting import Patience
from backupagent.transfer.context import Transfer
from backupagent.units import MiB

Find = Callable[[str], Path]
LIMIT_S = 90


class Writer:
    """An agent that writes a chain: a full, deltas, now and then another full.

    Args:
        source: Where to.
    """

    def __init__(self, source: SnapStore) -> None:
        self.source = source
        self.written: dict[str, bytes] = {}
        self.revision = 1
        self._random = random.Random(7)

    def full(self, size: int = 200_000, *, final: bool = False) -> str:
        return self._put(0, self.revision, SnapshotKind.FULL, size, final=final)

    def delta(self, size: int = 20_000) -> str:
        first, self.revision = self.revision + 1, self.revision + 5
        return self._put(first, self.revision, SnapshotKind.DELTA, size)

    def _put(self, first: int, last: int, kind: SnapshotKind, size: int, *, final: bool = False) -> str:
        content = self._random.randbytes(size)
        name = Snapshot(Revision(last), Revision(first), 1_795_400_000 + last, kind, final=final).name
        data = content + hashlib.sha256(content).digest()
        self.written[name] = data
        self.source.store.put(self.source.layout.snapshot(name), data)
        return name


class ReadLog(FaultyStore):
    """A store that counts the bytes that were read of each object."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.read: Counter[str] = Counter()

    def read_into(self, key, buffer, *, offset=0, etag=""):
        metadata = super().read_into(key, buffer, offset=offset, etag=etag)
        self.read[key.rpartition("/")[2]] += buffer.nbytes
        return metadata


def objects(where: SnapStore) -> dict[str, bytes]:
    found = {}
    for stored in where.list().snapshots:
        data = bytearray(stored.size)
        where.store.read_into(stored.key, memoryview(data))
        found[stored.name] = bytes(data)
    return found


def patience() -> Patience:
    return Patience(cancel=Cancel(), timeout_s=LIMIT_S, poll_s=0.05)


# ---- real servers


@pytest.fixture
def link(server_binary: Find, minio: MinioServer) -> Iterator[Link]:
    with Toxiproxy(binary=server_binary("toxiproxy")) as toxiproxy:
        yield toxiproxy.add_link(minio.endpoint)


@pytest.fixture
def minio(server_binary: Find) -> Iterator[MinioServer]:
    with MinioServer(binary=server_binary("minio")) as server:
        for bucket in ("source", "target"):
            server.make_bucket(bucket)
        yield server


@contextlib.contextmanager
def opened(minio: MinioServer, bucket: str, endpoint: str) -> Iterator[ObjectStore]:
    settings = S3Settings(bucket, f"http://{endpoint}", minio.REGION, True, minio.access_key, minio.secret_key)
    with contextlib.closing(open_s3(settings)) as store:
        yield store


@pytest.mark.servers
def test_a_source_that_is_written_to_and_away_for_a_while(minio: MinioServer, link: Link) -> None:
    cancel, progress = Cancel(), Progress()
    with (
        opened(minio, "source", minio.endpoint) as near,
        opened(minio, "source", link.endpoint) as far,
        opened(minio, "target", minio.endpoint) as target_store,
    ):
        writer, reads = Writer(SnapStore(near, "p")), ReadLog(far)
        impatient = RetryPolicy(attempts=2, base_s=0.05)
        source = SnapStore(
            RetryingStore(reads, clock=SYSTEM_CLOCK, rng=random.Random(1), policy=impatient, cancel=cancel), "p"
        )
        target = SnapStore(target_store, "p")
        settings = CopySettings(
            source="s", target="t", follow=True, until_final=True, follow_interval=0.2, part_size=5 * MiB
        )
        transfer = Transfer(settings, cancel, progress)
        reports: list[FollowReport] = []

        def follow() -> None:
            reports.append(Follower(Copier(source, target, settings, transfer), settings, transfer).run())

        def told(what: str) -> bool:
            return any(milestone.what == what for milestone in progress.view().milestones)

        writer.full()
        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        for number in range(20):
            writer.delta()
            if number == 6:
                patience().until(lambda: told("copied"), "something is copied")
                link.cut()
            if number == 12:
                patience().until(lambda: told("unavailable"), "the follower sees that the source is away")
                link.heal()
            if number == 15:
                writer.full(12 * MiB)
        writer.full(6 * MiB, final=True)
        thread.join(LIMIT_S)
        (report,) = reports
        assert (report.ended, report.in_step, report.problems) == (FollowEnd.FINAL, True, ())
        assert (report.copied, report.behind.snapshots) == (23, 0)
        assert objects(target) == {without_final(name): data for name, data in writer.written.items()}
        assert told("available")
        assert reads.read == {name: len(data) for name, data in writer.written.items()}, "nothing was read twice"
        assert list(target_store.list_uploads("")) == []


# ---- a process


class Following:
    """A follower as a process, between two directories."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.source = SnapStore(LocalStore(folder / "source", create=True), "")
        self.target = SnapStore(LocalStore(folder / "target", create=True), "")
        self.words = ["--source", (folder / "source").as_uri(), "--target", (folder / "target").as_uri()]
        self.writer = Writer(self.source)
        self._options = options

    def start(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "backupagent", "copy", *self.words, "--follow", "--follow-interval", "100ms"]
        return subprocess.Popen(
            [*command, *self._options, "--output", "json", "--progress", "plain"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, count: int) -> None:
        """Wait until so many snapshots, and their manifests, are at the target."""
        patience().until(lambda: len(self.target.list().manifests) >= count, f"{count} snapshots at the target")


def ended(process: "subprocess.Popen[str]") -> tuple[int, dict[str, Any], str]:
    out, err = process.communicate(timeout=LIMIT_S)
    assert "Traceback" not in err
    return process.returncode, json.loads(out), err


def test_sigterm_ends_a_process_that_is_in_step_as_a_success(tmp_path: Path) -> None:
    following = Following(tmp_path)
    following.writer.full()
    process = following.start()
    following.wait_for(1)
    following.writer.delta()
    following.wait_for(2)
    Cancel().wait(0.5)  # rounds without news
    os.kill(process.pid, signal.SIGTERM)
    code, report, err = ended(process)
    assert (code, report["ended"], report["copied"]) == (0, "stopped", 2), err
    assert report["behind"] == {"snapshots": 0, "bytes": 0, "seconds": 0.0}
    assert report["newest_chain"]["last_revision"] == 6
    assert objects(following.target) == following.writer.written
    lines = [line.partition(" ")[2] for line in err.splitlines()]
    assert sum(line.startswith("copy restorable at file://") for line in lines) == 1
    assert sum(line.startswith("follow copied 1 snapshot") for line in lines) == 2
    assert len([line for line in lines if line.startswith("follow ")]) == 4, "it begins, two lines with news, its end"


def test_sigterm_in_the_middle_says_what_is_missing_and_a_copy_goes_on(tmp_path: Path) -> None:
    following = Following(tmp_path, "--max-bandwidth", "1MiB", "--part-size", "1MiB", "--newest-chain-only")
    following.writer.full()
    process = following.start()
    following.wait_for(1)
    following.writer.delta(20 * MiB)
    # It is looked for only when the full is there and counted.
    patience().until(lambda: following.target.store.list_uploads(""), "the delta is on its way")
    os.kill(process.pid, signal.SIGTERM)
    code, report, err = ended(process)
    assert (code, report["ended"]) == (130, "stopped"), err
    assert report["behind"]["snapshots"] == 1
    assert report["behind"]["bytes"] == 20 * MiB + 32
    newest = report["newest_chain"]
    assert (newest["full"], newest["last_revision"]) == (next(iter(following.writer.written)), 1)
    assert newest["restorable_after_s"] > 0, "as far as the full goes"
    assert len(following.target.list().snapshots) == 1
    finished = subprocess.run(
        [sys.executable, "-m", "backupagent", "copy", *following.words, "--part-size", "1MiB", "--output", "json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT_S,
    )
    assert json.loads(finished.stdout)["skipped"] == 1
    assert objects(following.target) == following.writer.written


def test_a_final_snapshot_ends_a_process(tmp_path: Path) -> None:
    following = Following(tmp_path, "--until-final")
    following.writer.full()
    process = following.start()
    following.wait_for(1)
    following.writer.delta()
    final = following.writer.full(final=True)
    code, report, err = ended(process)
    assert (code, report["ended"], report["final"]) == (0, "final", final), err
    assert objects(following.target).keys() == {without_final(name) for name in following.writer.written}


def test_an_empty_source_is_an_error_at_once(tmp_path: Path) -> None:
    following = Following(tmp_path)
    (tmp_path / "source").mkdir()
    code, document, _err = ended(following.start())
    assert (code, document["error"]["reason"]) == (25, "EmptySource")
    assert not (tmp_path / "target").exists()
