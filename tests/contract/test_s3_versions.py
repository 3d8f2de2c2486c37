"""Buckets of a real S3 server that keep versions: the oldest one of a snapshot counts."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from store_access import content, keys, read
from stores import s3_settings

from backupagent import wiring
from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK
from backupagent.errors import ObjectChanged, ObjectLocked, ObjectNotFound
from backupagent.progress import Progress
from backupagent.settings import CopySettings, RestoreSettings
from backupagent.stores.keys import EXCLUDED
from backupagent.stores.s3 import S3Store, open_s3
from backupagent.stores.s3_versions import is_rewritten
from backupagent.testing.servers import MinioServer
from backupagent.units import MiB

pytestmark = pytest.mark.servers

GOLDEN = Path(__file__).parent.parent / "golden" / "gzip"
_serial = itertools.count(1)


@contextlib.contextmanager
def opened(minio: MinioServer, *, object_lock: bool) -> Iterator[S3Store]:
    bucket = f"versions-{next(_serial)}"
    minio.make_bucket(bucket, object_lock=object_lock)
    with contextlib.closing(open_s3(s3_settings(minio, bucket))) as store:
        if not object_lock:
            store._client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        yield store


@pytest.fixture(params=[True, False], ids=["object-lock", "versioning"])
def s3(minio: MinioServer, request: pytest.FixtureRequest) -> Iterator[S3Store]:
    with opened(minio, object_lock=request.param) as store:
        yield store


@pytest.fixture
def locked(minio: MinioServer) -> Iterator[S3Store]:
    """A bucket where everything is kept for a day."""
    with opened(minio, object_lock=True) as store:
        rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
        configuration = {"ObjectLockEnabled": "Enabled", "Rule": rule}
        store._client.put_object_lock_configuration(Bucket=store._bucket, ObjectLockConfiguration=configuration)
        yield store


def attack(store: S3Store, key: str) -> None:
    """Do what anybody with the right to write can do to an object, retention or not."""
    store._client.put_object(Bucket=store._bucket, Key=key, Body=b"something else")
    store._client.delete_object(Bucket=store._bucket, Key=key)


class TestOldest:
    def test_whatever_is_done_later_the_first_content_is_what_is_read(self, s3: S3Store) -> None:
        written = s3.put("v2/a", b"first", metadata={"name": "value"})
        (before,) = s3.list_objects("v2/")
        attack(s3, "v2/a")
        (after,) = s3.list_objects("v2/")
        assert after == before
        found = s3.stat("v2/a")
        assert (found.etag, found.size, found.metadata) == (written.etag, 5, {"name": "value"})
        assert after.etag == written.etag
        assert read(s3, "v2/a", 5) == read(s3, "v2/a", 5, etag=after.etag) == b"first"
        buffer = memoryview(bytearray(2))
        assert s3.read_into("v2/a", buffer, offset=3, etag=after.etag) == {"name": "value"}
        assert bytes(buffer) == b"st"

    def test_an_object_in_parts_too(self, s3: S3Store) -> None:
        upload = s3.begin_upload("v2/a", part_size=5 * MiB)
        written = s3.complete_upload(upload, [s3.upload_part(upload, 1, b"first")])
        attack(s3, "v2/a")
        assert s3.stat("v2/a").etag == written.etag
        assert read(s3, "v2/a", 5, etag=written.etag) == b"first"

    def test_content_from_before_versions_were_kept(self, minio: MinioServer) -> None:
        bucket = f"versions-{next(_serial)}"
        minio.make_bucket(bucket)
        with contextlib.closing(open_s3(s3_settings(minio, bucket))) as store:
            store.put("v2/a", b"first")
            store._client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
            attack(store, "v2/a")
            with contextlib.closing(open_s3(s3_settings(minio, bucket))) as later:
                assert read(later, "v2/a", 5) == b"first"
                assert keys(later) == ["v2/a"]

    def test_more_versions_than_fit_on_a_page(self, minio: MinioServer) -> None:
        with opened(minio, object_lock=False) as store:
            self.check_pages(store)

    def check_pages(self, s3: S3Store) -> None:
        s3.put("v2/a", b"first")
        for number in range(1010):
            s3._client.put_object(Bucket=s3._bucket, Key="v2/a", Body=b"%d" % number)
        s3.put("v2/b", b"second")
        assert [(info.key, info.size) for info in s3.list_objects("")] == [("v2/a", 5), ("v2/b", 6)]
        assert read(s3, "v2/a", 5) == b"first"

    def test_an_excluded_object_is_not_listed(self, s3: S3Store) -> None:
        for key in ("v2/a", "v2/b", "v2/c"):
            version = s3._client.put_object(Bucket=s3._bucket, Key=key, Body=b"x")["VersionId"]
            value = "true" if key != "v2/c" else "false"
            tags = {"TagSet": [{"Key": EXCLUDED, "Value": value}]}
            s3._client.put_object_tagging(Bucket=s3._bucket, Key=key, VersionId=version, Tagging=tags)
        for key in ("v2/a", "v2/c"):  # the peer looks at the tag of an object only when it has a delete marker
            s3._client.delete_object(Bucket=s3._bucket, Key=key)
        assert keys(s3) == ["v2/b", "v2/c"]

    def test_what_is_rewritten_on_purpose_is_read_as_it_is_now(self, s3: S3Store) -> None:
        for text in (b"one", b"two"):
            s3.put("p/manifests/uploads/a.json", text)
        assert read(s3, "p/manifests/uploads/a.json", 3) == b"two"
        (found,) = s3.list_objects("p/")
        assert found.etag == s3.stat("p/manifests/uploads/a.json").etag
        assert read(s3, found.key, 3, etag=found.etag) == b"two"
        s3.delete("p/manifests/uploads/a.json")
        assert keys(s3) == []
        with pytest.raises(ObjectNotFound):
            s3.stat("p/manifests/uploads/a.json")

    def test_below_manifests_there_may_be_snapshots(self) -> None:
        assert is_rewritten("manifests/a.json")
        assert is_rewritten("p/v2/q/manifests/parts/1/2")
        assert not is_rewritten("manifests/p/v2/Full-0-1-2")
        assert not is_rewritten("p/v1/Backup-1/Full-0-1-2")
        assert not is_rewritten("p/v2/manifests")


class TestWriting:
    def test_what_replaces_an_object_counts(self, s3: S3Store) -> None:
        before = s3.put("v2/a", b"first")
        after = s3.put("v2/a", b"second")
        assert read(s3, "v2/a", 6) == b"second"
        assert s3.stat("v2/a").etag == after.etag
        with pytest.raises(ObjectChanged):
            read(s3, "v2/a", 5, etag=before.etag)

    def test_a_removed_object_is_gone_with_all_its_versions(self, s3: S3Store) -> None:
        s3.put("v2/a", b"first")
        attack(s3, "v2/a")
        s3.delete("v2/a")
        answer = s3._client.list_object_versions(Bucket=s3._bucket)
        assert (answer.get("Versions"), answer.get("DeleteMarkers")) == (None, None)
        with pytest.raises(ObjectNotFound):
            read(s3, "v2/a", 5)

    def test_retention_is_named_when_it_refuses(self, locked: S3Store) -> None:
        locked.put("v2/a", b"first")
        with pytest.raises(ObjectLocked, match="delete 'v2/a'"):
            locked.delete("v2/a")
        with pytest.raises(ObjectLocked, match="older version") as raised:
            locked.put("v2/a", b"second")
        assert "another prefix" in raised.value.hint
        assert read(locked, "v2/a", 5) == b"first"

    def test_the_same_content_again_is_no_trouble(self, locked: S3Store) -> None:
        """So a copy that was killed between an object and its manifest can be run again."""
        first = locked.put("v2/a", b"first")
        assert locked.put("v2/a", b"first").etag == first.etag
        locked.put("manifests/a.json", b"1")
        locked.put("manifests/a.json", b"2")
        locked.delete("manifests/a.json")
        assert keys(locked) == ["v2/a"]


def test_the_store_copies_the_version_that_counts(s3: S3Store) -> None:
    s3.put("v2/a", b"first")
    upload = s3.begin_upload("v2/b", part_size=5 * MiB)
    data = bytes(5 * MiB) + b"tail"
    tags = [s3.upload_part(upload, 1, data[: 5 * MiB]), s3.upload_part(upload, 2, b"tail")]
    s3.complete_upload(upload, tags)
    for key in ("v2/a", "v2/b"):
        attack(s3, key)
    listed = {info.key: info.etag for info in s3.list_objects("v2/")}
    sources = {key: s3.copy_source(key, etag=etag) for key, etag in listed.items()}
    assert {key: source.info.etag for key, source in sources.items()} == listed
    s3.put("p/v2/a", b"older")
    copied = s3.copy_object(sources["v2/a"], "p/v2/a")
    assert read(s3, "p/v2/a", 5, etag=copied.etag) == read(s3, "p/v2/a", 5) == b"first"
    upload = s3.begin_upload("p/v2/b", part_size=5 * MiB, copied=True)
    tags = [
        s3.copy_part(upload, 1, sources["v2/b"], offset=0, size=5 * MiB),
        s3.copy_part(upload, 2, sources["v2/b"], offset=5 * MiB, size=4),
    ]
    copied = s3.complete_upload(upload, tags)
    assert copied.digests == sources["v2/b"].info.digests != {}
    assert read(s3, "p/v2/b", len(data), etag=copied.etag) == data


def test_copy_and_restore(locked: S3Store, minio: MinioServer, tmp_path: Path) -> None:
    """Into such a bucket, and after an attack out of it again."""
    for name, value in {
        "accessKeyID": minio.access_key, "secretAccessKey": minio.secret_key, "region": minio.REGION,
        "endpoint": minio.endpoint_url, "s3ForcePathStyle": "true",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(value)
    uri = f"s3://{locked._bucket}/p?credentials={tmp_path}"
    original = {path.name: path.read_bytes() for path in (GOLDEN / "v2").iterdir()}
    assert wiring.run_copy(CopySettings(source=GOLDEN.as_uri(), target=uri), Progress(), Cancel()).copied > 1
    for name in original:
        attack(locked, f"p/v2/{name}")
    again = wiring.run_copy(CopySettings(source=GOLDEN.as_uri(), target=uri), Progress(), Cancel())
    assert again.copied == 0
    target = tmp_path / "copy"
    wiring.run_copy(CopySettings(source=uri, target=target.as_uri()), Progress(), Cancel())
    assert {path.name: path.read_bytes() for path in (target / "v2").iterdir()} == original
    report = wiring.run_restore(RestoreSettings(store=uri, data_dir=tmp_path / "etcd"), Progress(), Cancel())
    assert report.matches_manifest is not False


@contextlib.contextmanager
def counted(store: S3Store) -> Iterator[Counter[str]]:
    """Count the requests of the SDK; the direct ones are those for objects."""
    calls: Counter[str] = Counter()

    def count(event_name: str, **_: object) -> None:
        calls.update([event_name.rpartition(".")[2]])

    store._client.meta.events.register("before-send.s3", count)
    yield calls
    store._client.meta.events.unregister("before-send.s3", count)
    del calls["HeadObject"]  # made to learn the way, and never sent


def test_another_bucket_is_asked_once_and_no_object_at_all(minio: MinioServer) -> None:
    bucket = f"versions-{next(_serial)}"
    minio.make_bucket(bucket)
    with contextlib.closing(open_s3(s3_settings(minio, bucket))) as store, counted(store) as calls:
        for number in range(5):
            store.put(f"v2/{number}", content(10))
        for info in list(store.list_objects("")):
            assert read(store, info.key, 10) == read(store, info.key, 10, etag=info.etag) == content(10)
            store.stat(info.key)
            store.delete(info.key)
    assert calls == {"GetBucketVersioning": 1, "ListObjectsV2": 1, "DeleteObject": 5}


def test_what_versions_cost(s3: S3Store) -> None:
    s3.put("v2/a", b"x")  # the bucket is asked
    with counted(s3) as calls:
        s3.put("v2/b", b"x")
    assert calls == {"ListObjectVersions": 1}
    with counted(s3) as calls:
        listed = list(s3.list_objects(""))
    assert calls == {"ListObjectVersions": 1}
    with counted(s3) as calls:
        assert [read(s3, info.key, 1, etag=info.etag) for info in listed] == [b"x", b"x"]
        s3.put("manifests/a.json", b"x")
    assert calls == {}
    with counted(s3) as calls:
        s3.stat("v2/a")
        read(s3, "v2/a", 1)
    assert calls == {"ListObjectVersions": 2}


def test_who_may_not_ask_reads_the_newest(s3: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    def refuse(**_: str) -> None:
        answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise ClientError(answer, "GetBucketVersioning")  # type: ignore[arg-type]

    monkeypatch.setattr(s3._client, "get_bucket_versioning", refuse)
    s3.put("v2/a", b"first")
    s3._client.put_object(Bucket=s3._bucket, Key="v2/a", Body=b"second")
    assert read(s3, "v2/a", 6) == b"second"
    assert [info.size for info in s3.list_objects("")] == [6]


def test_a_retention_of_one_object(minio: MinioServer) -> None:
    until = SYSTEM_CLOCK.now() + timedelta(days=1)
    with opened(minio, object_lock=True) as store:
        store.put("v2/a", b"x")
        store._client.put_object_retention(
            Bucket=store._bucket, Key="v2/a", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until}
        )
        with pytest.raises(ObjectLocked) as raised:
            store.delete("v2/a")
    assert raised.value.hint
