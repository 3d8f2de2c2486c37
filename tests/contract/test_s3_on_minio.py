"""What only a real S3 server can say about the S3 store."""

import base64
import contextlib
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
from botocore.exceptions import ClientError
from stores import STORES, s3_settings

from backupagent.errors import AccessDenied, ObjectNotFound, StoreError, StoreUnavailable
from backupagent.stores import open_store, parse_location
from backupagent.stores.base import Upload
from backupagent.stores.s3 import S3Store, open_s3
from backupagent.stores.s3_settings import Checksums
from backupagent.testing.servers import MinioServer
from backupagent.units import MiB

pytestmark = pytest.mark.servers


@pytest.fixture
def s3(request: pytest.FixtureRequest) -> Iterator[S3Store]:
    with STORES["minio"](request) as store:
        assert isinstance(store, S3Store)
        yield store


def test_the_server_refuses_a_body_that_does_not_match_its_crc(s3: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = s3.begin_upload("a", part_size=5 * MiB)
    monkeypatch.setattr("backupagent.stores.s3.isal_zlib.crc32", lambda _: 0)
    with pytest.raises(StoreUnavailable, match="Checksum"):
        s3.put("a", b"content")
    with pytest.raises(StoreUnavailable, match="Checksum"):
        s3.upload_part(upload, 1, b"content")
    assert list(s3.list_objects("")) == []
    assert s3.list_parts(upload) == []


def test_the_object_keeps_the_crc_of_its_parts(s3: S3Store) -> None:
    upload = s3.begin_upload("a", part_size=5 * MiB)
    pieces = [bytes(5 * MiB), b"tail"]
    s3.complete_upload(upload, [s3.upload_part(upload, number, piece) for number, piece in enumerate(pieces, 1)])
    answer = s3._client.head_object(Bucket=s3._bucket, Key="a", ChecksumMode="ENABLED")
    parts = b"".join(zlib.crc32(piece).to_bytes(4, "big") for piece in pieces)
    assert answer["ChecksumCRC32"] == base64.b64encode(zlib.crc32(parts).to_bytes(4, "big")).decode() + "-2"


def test_small_parts_fail_at_the_end_as_on_aws(s3: S3Store) -> None:
    upload = s3.begin_upload("a", part_size=5 * MiB)
    small = Upload("a", upload.id, 3)
    tags = [s3.upload_part(small, number, b"abc") for number in (1, 2)]
    with pytest.raises(StoreError, match="EntityTooSmall"):
        s3.complete_upload(small, tags)


def test_a_bucket_that_does_not_exist(minio: MinioServer) -> None:
    store = open_s3(s3_settings(minio, "not-there"))
    for call in (
        lambda: list(store.list_objects("")),
        lambda: store.put("a", b""),
        lambda: store.list_uploads(""),
        lambda: store.begin_upload("a", part_size=5 * MiB),
    ):
        with pytest.raises(ObjectNotFound, match="NoSuchBucket"):
            call()
    store.close()


def test_wrong_credentials(minio: MinioServer, s3: S3Store, tmp_path) -> None:
    for name, value in (("accessKeyID", minio.access_key), ("secretAccessKey", "hunter2")):
        (tmp_path / name).write_text(value)
    uri = f"s3://{s3._bucket}?endpoint={minio.endpoint_url}&region=us-east-1&path-style=true&credentials={tmp_path}"
    store = open_store(parse_location(uri))
    for call in (lambda: list(store.list_objects("")), lambda: store.put("a", b"x"), lambda: store.stat("a")):
        with pytest.raises(AccessDenied) as raised:
            call()
        assert "hunter2" not in str(raised.value)
    store.close()


def test_uploads_are_found_by_their_key_after_a_restart_of_the_server(minio: MinioServer, s3: S3Store) -> None:
    upload = s3.begin_upload("v2/a", part_size=5 * MiB)
    tag = s3.upload_part(upload, 1, b"x")
    minio.restart()
    assert [(found.key, found.id) for found in s3.list_uploads("v2/a")] == [("v2/a", upload.id)]
    assert s3.list_parts(upload) == [tag]
    s3.complete_upload(upload, [tag])


def test_locked_objects(minio: MinioServer) -> None:
    minio.make_bucket("locked-bucket", object_lock=True)
    store = open_s3(s3_settings(minio, "locked-bucket"))
    store.put("a", b"x")
    store._client.put_object_legal_hold(Bucket="locked-bucket", Key="a", LegalHold={"Status": "ON"})
    (version,) = store._client.list_object_versions(Bucket="locked-bucket")["Versions"]
    with pytest.raises(StoreError) as raised, store._translating("delete", "a"):
        store._client.delete_object(Bucket="locked-bucket", Key="a", VersionId=version["VersionId"])
    assert raised.value.reason == "ObjectLocked"
    assert isinstance(raised.value.__cause__, ClientError)
    store.close()


def test_the_storage_class_of_what_is_written(minio: MinioServer) -> None:
    minio.make_bucket("classes")
    settings = replace(s3_settings(minio, "classes"), storage_class="REDUCED_REDUNDANCY")
    with contextlib.closing(open_s3(settings)) as store:
        store.put("a", b"x")
        upload = store.begin_upload("b", part_size=5 * MiB)
        store.complete_upload(upload, [store.upload_part(upload, 1, b"x")])
        listed = store._client.list_objects_v2(Bucket="classes")["Contents"]
        assert [entry["StorageClass"] for entry in listed] == ["REDUCED_REDUNDANCY"] * 2


def test_without_other_checksums_the_server_checks_an_md5(minio: MinioServer, monkeypatch: pytest.MonkeyPatch) -> None:
    minio.make_bucket("md5")
    settings = replace(s3_settings(minio, "md5"), request_checksums=Checksums.WHEN_REQUIRED)
    with contextlib.closing(open_s3(settings)) as store:
        upload = store.begin_upload("b", part_size=5 * MiB)
        tag = store.upload_part(upload, 1, b"x")
        assert tag.crc32 is None
        assert store.complete_upload(upload, [tag]).size == 1
        digest = store._digest(memoryview(b"content"))
        assert digest == {"content-md5": base64.b64encode(hashlib.md5(b"content").digest()).decode()}
        monkeypatch.setattr(store, "_digest", lambda _: digest)
        store.put("a", b"content")
        with pytest.raises(StoreUnavailable, match="BadDigest"):
            store.put("a", b"flipped")
