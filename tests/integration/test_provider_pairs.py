"""One bucket through every provider, by the real command line, and a restore from the last one."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from backupagent.stores import open_store, parse_location
from backupagent.testing.servers import MinioServer
from backupagent.testing.store_servers import AzuriteServer, FakeGcsServer

pytestmark = pytest.mark.servers

Find = Callable[[str], Path]
GOLDEN = Path(__file__).parent.parent / "golden" / "gzip"


def backupagent(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "backupagent", *words, "--output", "json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def credentials(folder: Path, **fields: str) -> Path:
    folder.mkdir()
    for name, value in fields.items():
        (folder / name).write_text(value)
    return folder


@pytest.fixture
def minio(server_binary: Find, tmp_path: Path) -> Iterator[str]:
    with MinioServer(binary=server_binary("minio")) as server:
        server.make_bucket("backups")
        path = credentials(tmp_path / "minio", accessKeyID=server.access_key, secretAccessKey=server.secret_key)
        options = f"endpoint={server.endpoint_url}&region={server.REGION}&path-style=true&credentials={path}"
        yield f"s3://backups/a/b?{options}"


@pytest.fixture
def azurite(server_binary: Find, tmp_path: Path) -> Iterator[str]:
    with AzuriteServer(binary=server_binary("azurite-blob")) as server:
        server.make_container("backups")
        path = credentials(tmp_path / "azurite", storageAccount=server.account, storageKey=server.key)
        yield f"az://backups/a/b?endpoint={server.endpoint_url}&credentials={path}"


@pytest.fixture
def fake_gcs(server_binary: Find) -> Iterator[str]:
    with FakeGcsServer(binary=server_binary("fake-gcs-server")) as server:
        server.make_bucket("backups")
        yield f"gs://backups/a/b?endpoint={server.endpoint_url}"


def objects(uri: str) -> dict[str, bytes]:
    """Return name and content of every object below ``v2/``."""
    location = parse_location(uri)
    store = open_store(location)
    start = f"{location.prefix}/v2/".lstrip("/")
    found = {}
    for info in store.list_objects(start):
        content = bytearray(info.size)
        store.read_into(info.key, memoryview(content), etag=info.etag)
        found[info.key.removeprefix(start)] = bytes(content)
    store.close()
    return found


def test_around_all_providers(minio: str, azurite: str, fake_gcs: str, tmp_path: Path) -> None:
    places = [GOLDEN.as_uri(), azurite, fake_gcs, minio, (tmp_path / "end").as_uri()]
    original = objects(places[0])
    for source, target in pairwise(places):
        assert backupagent("copy", "--source", source, "--target", target)["copied"] == len(original) > 1
        assert objects(target) == original
        assert backupagent("copy", "--source", source, "--target", target)["copied"] == 0
    [recorded] = json.loads((GOLDEN / "etcd-final-hashkv.json").read_text())
    compacted = str(recorded["HashKV"]["compact_revision"])
    restore = ("restore", "--store", places[-1], "--data-dir", str(tmp_path / "data"))
    assert backupagent(*restore, "--hash-compact-revision", compacted)["hash_kv"] == recorded["HashKV"]["hash"]


@pytest.mark.parametrize("name", ["azurite", "fake_gcs"])
def test_a_large_object_goes_in_parts_and_comes_back(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    uri = request.getfixturevalue(name)
    full = next(path for path in (GOLDEN / "v2").iterdir() if path.name.startswith("Full-"))
    large = tmp_path / "large" / "v2" / full.name.removesuffix(".gz")
    large.parent.mkdir(parents=True)
    large.write_bytes(bytes(range(256)) * (80 * 1024))
    options = ("--part-size", "5MiB", "--verify", "transfer")
    there = backupagent("copy", "--source", (tmp_path / "large").as_uri(), "--target", uri, *options)
    back = backupagent("copy", "--source", uri, "--target", (tmp_path / "back").as_uri(), *options)
    assert there["bytes"] == back["bytes"] == large.stat().st_size
    assert (tmp_path / "back" / "v2" / large.name).read_bytes() == large.read_bytes()
    beside = uri.replace("/a/b?", "/a/c?")
    again = backupagent("copy", "--source", uri, "--target", beside, *options)
    assert (again["bytes"], again["server_side_bytes"], again["server_side_refused"]) == (0, large.stat().st_size, None)
    assert objects(beside) == {large.name: large.read_bytes()}
    location = parse_location(uri)
    store = open_store(location)
    unfinished = [*store.list_objects("a/b/manifests/parts/"), *store.list_objects("a/b/manifests/uploads/")]
    assert list(store.list_uploads("")) == unfinished == []
    store.close()
