"""The doctor on real servers, by the command line."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backupagent.cli import main
from backupagent.stores import open_store, parse_location
from backupagent.testing.servers import MinioServer
from backupagent.testing.store_servers import AzuriteServer, FakeGcsServer

pytestmark = pytest.mark.servers

Find = Callable[[str], Path]
GOLDEN = Path(__file__).parent.parent / "golden" / "gzip"

# What an emulator cannot prove: Azurite has no immutability policies, fake-gcs-server no retention, and none of the
# three refuses to tell about a bucket whose objects may be used.


def credentials(folder: Path, **fields: str) -> Path:
    folder.mkdir()
    for name, value in fields.items():
        (folder / name).write_text(value)
    return folder


@pytest.fixture(scope="module")
def minio(server_binary: Find) -> Iterator[MinioServer]:
    with MinioServer(binary=server_binary("minio")) as server:
        server.make_bucket("plain")
        server.make_bucket("locked", object_lock=True)
        yield server


def s3_uri(server: MinioServer, bucket: str, folder: Path) -> str:
    path = credentials(folder / bucket, accessKeyID=server.access_key, secretAccessKey=server.secret_key)
    return f"s3://{bucket}/a/b?endpoint={server.endpoint_url}&region={server.REGION}&path-style=true&credentials={path}"


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


@pytest.fixture
def examine(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    def run(*words: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main(["doctor", *words, "--output", "json", "--progress", "none"])
        report = json.loads(capsys.readouterr().out)
        return code, {f"{check['side']} {check['name']}": check for check in report["checks"]}

    return run


def objects(uri: str) -> list[str]:
    location = parse_location(uri)
    store = open_store(location)
    try:
        uploads = [upload.key for upload in store.list_uploads(f"{location.prefix}/")]
        return [*(info.key for info in store.list_objects("")), *uploads]
    finally:
        store.close()


def copy(source: str, target: str) -> None:
    assert main(["copy", "--source", source, "--target", target, "--progress", "none"]) == 0


@pytest.mark.parametrize("kind", ["minio", "azurite", "fake_gcs"])
def test_a_bucket_as_target_and_as_source(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, examine: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    server = request.getfixturevalue(kind)
    uri = s3_uri(server, "plain", tmp_path) if isinstance(server, MinioServer) else server
    code, checks = examine("--source", GOLDEN.as_uri(), "--target", uri)
    assert code == 0
    assert {check["status"] for check in checks.values()} == {"ok"}
    assert "not possible" in checks["both server-side copy"]["detail"]
    assert ("removes them within a week" in checks["target multipart"]["detail"]) == (kind == "azurite")
    assert objects(uri) == []
    copy(GOLDEN.as_uri(), uri)
    code, checks = examine("--source", uri)
    assert code == 0
    clock = {"fake_gcs": "untested"}.get(kind, "ok")  # the answers of Google's listings carry no time of their own
    assert checks.pop("source clock")["status"] == clock
    assert {check["status"] for check in checks.values()} == {"ok"}
    assert "up to revision 30" in checks["source chains"]["detail"]


def test_a_bucket_with_object_lock_keeps_the_probe(
    minio: MinioServer, tmp_path: Path, examine: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    uri = s3_uri(minio, "locked", tmp_path)
    for _ in range(2):
        code, checks = examine("--target", uri)
        assert code == 0
        assert checks["target retention"]["status"] == "ok"
        assert "what is deleted stays" in checks["target retention"]["detail"]
        assert checks["target delete"]["status"] == "untested"
        assert objects(uri) == ["a/b/manifests/doctor-probe"]


def test_wrong_credentials_and_a_bucket_that_is_not_there(
    minio: MinioServer, tmp_path: Path, examine: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    uri = s3_uri(minio, "plain", tmp_path)
    code, checks = examine("--source", uri.replace("//plain", "//nothing"))
    assert (code, checks["source list"]["reason"]) == (11, "ObjectNotFound")
    (tmp_path / "plain" / "secretAccessKey").write_text("wrong")
    code, checks = examine("--source", GOLDEN.as_uri(), "--target", uri)
    assert (code, checks["target put"]["reason"]) == (13, "AccessDenied")
    assert checks["target put"]["hint"]
