"""Stores and directories that cannot be used: one documented exit code each, and nothing half-made left behind."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from buckets import COMPACT_REVISION, Bucket, golden, source_hash
from command import Ended, assert_blamed, backupagent
from minio_buckets import MinioBuckets, s3_uri
from place import Place

from backupagent.testing.servers import EtcdServer, free_ports


@pytest.fixture(scope="module")
def etcd(server_binary: Callable[[str], Path]) -> Iterator[EtcdServer]:
    with EtcdServer(binary=server_binary("etcd")) as server:
        yield server


def readers(store: str, place: Place) -> Iterator[tuple[str, ...]]:
    """Give every command that reads a store."""
    yield "copy", "--source", store, "--target", place.target.as_uri()
    yield "restore", "--store", store, "--data-dir", str(place.data_dir)
    yield "verify", "--store", store
    yield "list", "--store", store


def assert_nobody_reads(store: str, place: Place, reason: str, *words: str) -> list[Ended]:
    """Run every reader, at the same time: some of them try again for a while."""
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda command: backupagent(*command), readers(store, place)))
    for each in ended:
        assert_blamed(each, reason, *words)
    place.assert_nothing_restored()
    assert not place.target.exists()
    return ended


# ---- no snapshot


def test_an_empty_source(place: Place) -> None:
    place.source.mkdir()
    assert_nobody_reads(place.source.as_uri(), place, "EmptySource", place.source.as_uri(), "there is no snapshot")


def test_a_source_without_a_full(place: Place) -> None:
    bucket = golden("gzip", place.source)
    bucket.full.unlink()
    for ended in (place.copy(), place.restore(), place.verify()):
        assert_blamed(ended, "EmptySource", place.source.as_uri(), "5 delta snapshots but no full one")
    place.assert_nothing_restored()
    assert not place.target.exists()


def test_a_prefix_never_matches_its_sibling(minio: MinioBuckets, place: Place) -> None:
    bucket = minio.make()
    for name, data in golden("gzip", place.source).objects().items():
        minio.put(bucket, f"a/bc/v2/{name}", data)
    for ended in assert_nobody_reads(minio.uri(bucket, "a/b"), place, "EmptySource", "a/b/v2/"):
        assert "'a/bc'" in ended.document["error"]["hint"]
    assert backupagent("list", "--store", minio.uri(bucket, "a/bc")).report()["chains"][0]["last_revision"] == 30


# ---- no store


@pytest.mark.parametrize("made", [False, True], ids=["missing", "file"])
def test_a_source_that_is_no_directory(made: bool, place: Place) -> None:
    if made:
        place.source.write_bytes(b"")
    reason = "not a directory" if made else "no such file or directory"
    assert_nobody_reads(place.source.as_uri(), place, "ObjectNotFound", place.source.as_uri(), reason)
    assert place.source.exists() == made


def test_a_target_that_is_a_file(place: Place) -> None:
    golden("gzip", place.source)
    place.target.write_bytes(b"mine")
    assert_blamed(place.copy(), "ObjectNotFound", place.target.as_uri(), "not a directory")
    assert place.target.read_bytes() == b"mine"


def test_a_target_that_is_not_there_yet_is_made_for_its_owner_alone(place: Place) -> None:
    bucket = golden("gzip", place.source)
    place.target = place.root / "new" / "target"
    place.copy().report()
    assert Bucket(place.target).objects() == bucket.objects()
    assert {path.stat().st_mode & 0o777 for path in (place.target.parent, place.target)} == {0o700}


def test_a_bucket_that_does_not_exist(minio: MinioBuckets, place: Place) -> None:
    assert_nobody_reads(minio.uri("no-such-bucket", "a"), place, "ObjectNotFound", "no-such-bucket")


def test_an_endpoint_where_nobody_listens(place: Place, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    for name in ("accessKeyID", "secretAccessKey"):
        (tmp_path / name).write_text("name")
        (tmp_path / name).chmod(0o600)
    store = s3_uri(f"http://127.0.0.1:{port}", "bucket/a", tmp_path)
    assert_nobody_reads(store, place, "StoreUnavailable", "bucket")


def test_credentials_that_are_wrong(minio: MinioBuckets, place: Place) -> None:
    bucket, server = minio.make(), minio.server
    wrong = minio.credentials(server.access_key, "not the secret")
    unknown = minio.credentials("nobody", server.secret_key)
    for credentials in (wrong, unknown):
        store = minio.uri(bucket, "a", credentials)
        for ended in assert_nobody_reads(store, place, "AccessDenied", bucket):
            assert "not the secret" not in ended.stderr
            assert server.secret_key not in ended.stderr
    golden("gzip", place.source)
    copied = backupagent("copy", "--source", place.source.as_uri(), "--target", minio.uri(bucket, "a", wrong))
    assert_blamed(copied, "AccessDenied", bucket)
    assert minio.objects(bucket) == {}


# ---- the data directory


@pytest.mark.parametrize("held", ["file-in-it", "file"])
def test_a_data_directory_that_is_not_empty(held: str, place: Place) -> None:
    golden("gzip", place.source)
    mine = place.data_dir / "mine" if held == "file-in-it" else place.data_dir
    mine.parent.mkdir(exist_ok=True)
    mine.write_bytes(b"mine")
    assert_blamed(place.restore(), "DataDirNotEmpty", str(place.data_dir))
    assert mine.read_bytes() == b"mine"
    assert [path for path in place.root.iterdir() if path not in (place.source, place.data_dir)] == []


def test_an_empty_data_directory_is_taken(place: Place) -> None:
    golden("gzip", place.source)
    place.data_dir.mkdir()
    report = place.restore("--hash-compact-revision", str(COMPACT_REVISION)).report()
    assert report["hash_kv"] == source_hash("gzip")


# ---- no space


@pytest.mark.parametrize(
    "point", ["restore.base", "restore.delta", "restore.finish", "restore.raft", "restore.publish"]
)
def test_no_space_for_a_restore(point: str, place: Place) -> None:
    golden("gzip", place.source)
    assert_blamed(place.restore(armed=f"{point}=nospace"), "NoSpace", str(place.data_dir))
    place.assert_nothing_restored()


@pytest.mark.parametrize(
    ("armed", "copied"),
    [
        ("local.write=nospace", 0),
        ("local.write=nospace*4", 2),
        ("local.rename=nospace", 0),
        ("local.rename=nospace*3", 1),
    ],
)
def test_no_space_for_a_copy(armed: str, copied: int, place: Place) -> None:
    """Every object is two files in a directory: itself and its manifest."""
    bucket = golden("gzip", place.source)
    assert_blamed(place.copy("--workers", "1", armed=armed), "NoSpace", place.target.as_uri())
    target = Bucket(place.target)
    assert target.unfinished() == []
    assert target.objects().items() <= bucket.objects().items()
    assert len(target.objects()) == copied


def test_no_space_for_the_parts_of_a_copy(place: Place) -> None:
    """The parts that found room stay, as after any other failure: the next run goes on with them."""
    bucket = golden("none", place.source)
    parts = ("--part-size", "4KiB", "--workers", "1")
    assert_blamed(place.copy(*parts, armed="local.write=nospace*9"), "NoSpace", place.target.as_uri())
    target = Bucket(place.target)
    assert target.objects() == {}
    assert target.unfinished() != []
    assert place.copy(*parts).report()["bytes_reread"] > 0
    assert target.objects() == bucket.objects()
    assert target.unfinished() == []


@pytest.mark.parametrize("point", ["local.write", "local.rename"])
@pytest.mark.parametrize("parts", ["one", "several"])
def test_no_space_for_a_snapshot(point: str, parts: str, place: Place, etcd: EtcdServer) -> None:
    size = "8MiB" if parts == "one" else "4KiB"
    options = ("--endpoints", etcd.url, "--store", place.target.as_uri(), "--compression", "none", "--part-size", size)
    ended = backupagent("snapshot", *options, armed=f"{point}=nospace")
    assert_blamed(ended, "NoSpace", place.target.as_uri())
    target = Bucket(place.target)
    assert target.objects() == {}
    assert target.unfinished() == []
