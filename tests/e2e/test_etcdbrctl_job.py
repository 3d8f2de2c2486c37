"""etcdbrctl in druid's Job: between two real MinIO servers, and in a container that can write nowhere."""

import json
import os
import queue
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from buckets import GOLDEN, LAST_REVISION, flip_byte, golden
from druid_job import PROGRAM, Job, run
from minio_buckets import MinioBuckets

from backupagent.testing.builders import Deltas, RandomFull, cached_chain
from backupagent.testing.container import Container, ContainerRun, Ended, Mount, RuntimePolicy, require_namespaces
from backupagent.testing.servers import MinioServer, ServerMissing
from backupagent.units import MiB

pytestmark = pytest.mark.servers

WITH_FINAL = GOLDEN / "zlib-final"
MEMORY_LIMIT = 256 * MiB


@pytest.fixture(scope="module")
def other_minio(
    server_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MinioBuckets]:
    with MinioServer(binary=server_binary("minio")) as server:
        yield MinioBuckets(server, tmp_path_factory.mktemp("other-credentials"))


@pytest.fixture
def job(minio: MinioBuckets, other_minio: MinioBuckets, tmp_path: Path) -> Job:
    return Job.between(minio, other_minio, tmp_path)


def last_words(job: Job) -> dict:
    words = job.termination_log.read_text()
    assert len(words.encode()) <= 4096
    return json.loads(words)


def test_everything_is_copied_and_a_second_run_copies_nothing(job: Job) -> None:
    expected = job.put_all(WITH_FINAL)

    done = job.run()

    assert done.returncode == 0, done.stderr
    assert job.arrived() == expected
    assert (last_words(job)["copied"], last_words(job)["skipped"]) == (len(expected), 0)
    assert last_words(job)["newest_chain"]["last_revision"] == 31
    for secret in (job.source.server.secret_key, job.target.server.secret_key):
        assert secret not in done.stdout + done.stderr + json.dumps(last_words(job))

    again = job.run()

    assert again.returncode == 0, again.stderr
    assert (last_words(job)["copied"], last_words(job)["skipped"]) == (0, len(expected))
    assert job.arrived() == expected
    assert job.source.open_uploads() == job.target.open_uploads() == set()


def test_half_an_object_at_the_target_is_copied_again(job: Job) -> None:
    expected = job.put_all(WITH_FINAL)
    assert job.run().returncode == 0
    name, data = next((name, data) for name, data in expected.items() if name.startswith("Incr"))
    job.target.put(job.target_bucket, f"{job.prefix}/v2/{name}", data[: len(data) // 2])

    done = job.run()

    assert done.returncode == 0, done.stderr
    assert (last_words(job)["copied"], last_words(job)["skipped"]) == (1, len(expected) - 1)
    assert job.arrived() == expected


def test_an_empty_source_is_no_success(job: Job) -> None:
    variables = {"BACKUPAGENT_ON_MISSING_FINAL": "copy"}
    done = job.run(wait="1ms", **variables)
    assert done.returncode == 25, done.stderr
    assert last_words(job)["error"]["reason"] == "EmptySource"
    assert job.target.objects(job.target_bucket) == {}


def test_a_missing_final_snapshot_is_no_success_unless_it_is_asked_for(job: Job, tmp_path: Path) -> None:
    expected = job.put_all(golden("gzip", tmp_path / "bucket").root)

    done = job.run(wait="1ms")

    assert done.returncode == 41, done.stderr
    told = last_words(job)["error"]
    assert told["reason"] == "FinalSnapshotMissing"
    assert max(expected, key=lambda name: name.split("-")[2]) in told["message"]
    assert "BACKUPAGENT_ON_MISSING_FINAL" in done.stderr
    assert job.arrived() == {}

    variables = {"BACKUPAGENT_ON_MISSING_FINAL": "copy"}
    done = job.run(wait="1ms", **variables)

    assert done.returncode == 0, done.stderr
    assert job.arrived() == expected
    assert last_words(job)["given_up_revisions"] == [LAST_REVISION + 1, -1]


def test_a_damaged_snapshot_is_named_in_the_last_words_and_the_others_arrive(job: Job, tmp_path: Path) -> None:
    bucket = golden("none", tmp_path / "bucket")
    flip_byte(bucket.deltas[1])
    expected = job.put_all(bucket.root)
    expected.pop(bucket.deltas[1].name)
    variables = {"BACKUPAGENT_ON_MISSING_FINAL": "copy"}

    done = job.run(wait="1ms", **variables)

    assert done.returncode == 21, done.stderr
    told = last_words(job)["error"]
    assert told["exit_code"] == 21
    assert bucket.deltas[1].name in told["message"]
    assert told["hint"]
    assert job.arrived() == expected


def test_a_store_that_refuses_is_told(job: Job) -> None:
    secret = job.source_secret.folder / "..data" / "secretAccessKey"
    secret.write_text("wrong-" + job.source.server.secret_key[::-1])
    done = job.run()
    assert done.returncode == 13, done.stderr
    assert last_words(job)["error"]["reason"] == "AccessDenied"
    assert secret.read_text() not in done.stderr


def test_a_restore_makes_a_data_directory(tmp_path: Path) -> None:
    bucket = golden("gzip", tmp_path / "home" / "bucket" / "shoot" / "etcd-main")
    words = ["restore", "--storage-provider=Local", "--store-container=bucket", "--store-prefix=shoot/etcd-main"]
    place = [f"--data-dir={tmp_path / 'new.etcd'}", f"--restoration-temp-snapshots-dir={tmp_path / 'scratch'}"]
    variables = {"HOME": str(tmp_path / "home"), "TERMINATION_LOG": str(tmp_path / "log")}

    done = run([*words, *place], variables)

    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "log").read_text())
    assert (report["revision"], report["full"], report["deltas"]) == (LAST_REVISION, bucket.full.name, 5)
    assert (tmp_path / "new.etcd" / "member" / "snap" / "db").stat().st_mode & 0o077 == 0
    assert not (tmp_path / "scratch").exists()
    assert run([*words, *place], variables).returncode == 34


# ---- a container as druid's: read-only root, no folder for temporary files, Secrets at their paths


@pytest.fixture
def in_container(tmp_path: Path, server_binary: Callable[[str], Path], request: pytest.FixtureRequest):
    """Run a job in a container; return how it ended and what it told on stderr."""
    server_binary("unshare")
    try:
        require_namespaces(tmp_path / "probe")
    except ServerMissing as error:
        if request.config.getoption("--require") == "all":
            raise
        pytest.skip(str(error))

    def start(job: Job, **variables: str) -> tuple[Ended, str]:
        job.termination_log.write_text("")
        mounts = [
            Mount(job.source_secret.folder, "/var/source-etcd-backup", read_only=True),
            Mount(job.target_secret.folder, "/var/etcd-backup", read_only=True),
            Mount(job.termination_log, "/var/termination-log"),
        ]
        secrets = {"source_secret": Path("/var/source-etcd-backup"), "target_secret": Path("/var/etcd-backup")}
        told = {"PATH": os.defpath, "TERMINATION_LOG": "/var/termination-log"}
        environment = {**told, **job.variables(**secrets), **variables}
        policy = RuntimePolicy(read_only_root=True, temp_folder=False)
        log = tmp_path / "container.log"
        words = [*PROGRAM, *job.arguments(wait="1ms")]
        ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        container = Container(ContainerRun(words, environment, log, mounts, policy), tmp_path / "scratch", ended.put)
        try:
            return ended.get(timeout=100), log.read_text()
        finally:
            container.close()

    return start


@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_a_large_copy_needs_no_disk_and_little_memory(
    codec: str, job: Job, in_container: Callable[..., tuple[Ended, str]]
) -> None:
    deltas = Deltas(count=20, per_delta=500, value_size=1024, codec=codec)
    expected = job.put_all(cached_chain(RandomFull(size=300 * MiB, codec=codec), deltas))
    assert len(expected) == 21
    variables = {"BACKUPAGENT_ON_MISSING_FINAL": "copy"}

    ended, told = in_container(job, **variables)

    assert ended.exit_code == 0, told
    assert job.arrived() == expected
    assert last_words(job)["copied"] == 21
    assert ended.peak_memory < MEMORY_LIMIT


def test_a_failure_in_a_container_leaves_its_reason(job: Job, in_container: Callable[..., tuple[Ended, str]]) -> None:
    ended, told = in_container(job)
    assert ended.exit_code == 41, told
    assert last_words(job)["error"]["reason"] == "FinalSnapshotMissing"
