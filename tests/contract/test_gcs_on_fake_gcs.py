"""What only a server of Google's protocol can say about the Google Cloud Storage store.

fake-gcs-server cannot prove: credentials, the refusal of a wrong CRC-32C, preconditions of compose and delete,
retention and holds; a session's state cannot be asked for, and none is cancelled. What is asked for is tested in
``tests/unit/stores/test_cloud_wire.py`` and ``test_gcs_sessions.py``.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from killed import leave_an_upload
from store_access import content, keys, read
from stores import STORES, gcs_settings

from backupagent.cancel import Cancel
from backupagent.errors import ChecksumMismatch, ObjectNotFound, StoreError, StoreUnavailable
from backupagent.progress import Progress
from backupagent.settings import TransferSettings
from backupagent.stores import open_store, parse_location
from backupagent.stores.base import Upload
from backupagent.stores.gcs import COMPOSE_LIMIT, GcsStore, open_gcs
from backupagent.stores.memory import MemoryStore
from backupagent.testing.store_servers import FakeGcsServer
from backupagent.transfer.context import Transfer
from backupagent.transfer.copying import CopyItem, copy_objects
from backupagent.transfer.journal import UploadJournal

pytestmark = pytest.mark.servers


class Seen:
    def update(self, data: memoryview) -> None:
        """Take it."""

    def finish(self) -> None:
        """Agree."""


@pytest.fixture
def gcs(request: pytest.FixtureRequest) -> Iterator[GcsStore]:
    with STORES["fake-gcs"](request) as store:
        assert isinstance(store, GcsStore)
        yield store


@pytest.fixture
def uri(fake_gcs: FakeGcsServer, gcs: GcsStore) -> str:
    return f"gs://{gcs.display.removeprefix('gs://').partition('?')[0]}/p?endpoint={fake_gcs.endpoint_url}"


@pytest.mark.parametrize("count", [1, COMPOSE_LIMIT, COMPOSE_LIMIT + 1, 70, 3 * COMPOSE_LIMIT])
def test_any_number_of_parts_becomes_one_object(gcs: GcsStore, count: int) -> None:
    data = content(1000 * (count - 1) + 7)
    upload = gcs.begin_upload("a", part_size=1000, metadata={"kind": "full"})
    pieces = [data[start : start + 1000] for start in range(0, len(data), 1000)]
    tags = [gcs.upload_part(upload, number, piece) for number, piece in enumerate(pieces, 1)]
    info = gcs.complete_upload(upload, tags)
    assert read(gcs, "a", len(data), etag=info.etag) == data
    assert gcs.stat("a").metadata == {"kind": "full"}
    assert keys(gcs) == ["a"]
    assert keys(gcs, "manifests/parts/") == []


@pytest.mark.parametrize("kind", ["fake-gcs", "fake-gcs-sessions"])
def test_a_copy_by_many_workers(request: pytest.FixtureRequest, kind: str) -> None:
    source, data = MemoryStore(), content(9 * 1024 * 1024 + 5)
    for key in "ab":
        source.put(key, data)
    items = [
        CopyItem(info.key, info.size, info.etag, f"copy/{info.key}", Seen(), dict, f"name-{info.key}")
        for info in source.list_objects("")
    ]
    how = Transfer(TransferSettings(workers=8, window=2, part_size=1024 * 1024), Cancel(), Progress())
    with STORES[kind](request) as store:
        copy_objects(source, store, items, UploadJournal(store, "journal/"), how)
        assert keys(store) == ["copy/a", "copy/b"]
        assert [read(store, key, len(data)) for key in keys(store)] == [data, data]
        assert list(store.list_uploads("")) == []


def test_an_upload_survives_the_death_of_its_process(uri: str) -> None:
    leave_an_upload(uri)
    with closing(open_store(parse_location(uri))) as store:
        assert keys(store) == []
        (upload,) = store.list_uploads("p/v2/")
        assert (upload.key, upload.part_size) == ("p/v2/big", 4)
        held = store.list_parts(upload)
        assert [(tag.number, tag.size, tag.crc32) for tag in held] == [
            (1, 4, zlib.crc32(b"one1")),
            (2, 4, zlib.crc32(b"two2")),
        ]
        assert len(keys(store, "p/manifests/parts/")) == 3
        store.complete_upload(upload, [*held, store.upload_part(upload, 3, b"3")])
        assert read(store, "p/v2/big", 9) == b"one1two23"
        assert store.stat("p/v2/big").metadata == {"kind": "full"}
        assert list(store.list_uploads("")) == keys(store, "p/manifests/") == []


def test_parts_without_a_record_are_found_and_removed(gcs: GcsStore) -> None:
    upload = gcs.begin_upload("v2/a", part_size=4)
    gcs.upload_part(upload, 1, b"data")
    folder = "manifests/parts/"
    gcs.delete(f"{folder}{upload.id}.json")
    assert list(gcs.list_uploads("v2/")) == []
    assert gcs.list_uploads("") == gcs.list_uploads("manifests/") == [Upload(f"{folder}{upload.id}", upload.id, 0)]
    gcs.abort_upload(gcs.list_uploads("")[0])
    assert list(gcs.list_uploads("")) == keys(gcs, folder) == []


def test_records_that_make_no_sense_are_listed_to_be_aborted(gcs: GcsStore) -> None:
    folder = "manifests/parts/"
    for number, record in enumerate(
        [b"", b"{}", b"[" * 5000, b'{"key":"/","part_size":4,"metadata":{}}', bytes(20000)]
    ):
        gcs.put(f"{folder}{number:032x}.json", record)
    found = gcs.list_uploads("")
    assert [(upload.key, upload.part_size) for upload in found] == [(f"{folder}{n:032x}", 0) for n in range(5)]
    for upload in found:
        with pytest.raises(ObjectNotFound):
            gcs.list_parts(upload)
        gcs.abort_upload(upload)
    assert keys(gcs, folder) == []


@pytest.mark.parametrize("if_absent", [False, True])
def test_completing_again_after_a_lost_answer(gcs: GcsStore, monkeypatch: pytest.MonkeyPatch, if_absent: bool) -> None:
    upload = gcs.begin_upload("a", part_size=4)
    tag = gcs.upload_part(upload, 1, b"data")
    with monkeypatch.context() as patched:
        patched.setattr(gcs._records, "forget", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            gcs.complete_upload(upload, [tag], if_absent=if_absent)
    assert gcs.list_parts(upload) == [tag]
    info = gcs.complete_upload(upload, [tag], if_absent=if_absent)
    assert info.etag == gcs.stat("a").etag
    assert list(gcs.list_uploads("")) == []


def test_a_part_that_changed_behind_our_back_is_noticed(gcs: GcsStore) -> None:
    upload = gcs.begin_upload("a", part_size=4)
    tag = gcs.upload_part(upload, 1, b"data")
    gcs.put(f"manifests/parts/{upload.id}/00001", b"tada")
    with pytest.raises((ChecksumMismatch, StoreError)):  # the service itself refuses the other generation
        gcs.complete_upload(upload, [tag])
    assert keys(gcs) == []
    gcs.list_parts(upload)
    with pytest.raises(StoreError, match="replaced"):
        gcs.complete_upload(upload, [tag])


def test_a_part_that_is_gone_is_an_error(gcs: GcsStore) -> None:
    upload = gcs.begin_upload("a", part_size=4)
    tag = gcs.upload_part(upload, 1, b"data")
    gcs.delete(f"manifests/parts/{upload.id}/00001")
    with pytest.raises(StoreError):
        gcs.complete_upload(upload, [tag])
    assert keys(gcs) == []


@pytest.mark.parametrize(("value", "listed"), [("true", ["b"]), ("false", ["a", "b"])])
def test_what_its_metadata_excludes_is_not_listed(gcs: GcsStore, value: str, listed: list[str]) -> None:
    gcs._service.insert("a", memoryview(b"x"), {"x-etcd-snapshot-exclude": value})
    gcs.put("b", b"x")
    assert keys(gcs) == listed
    assert read(gcs, "a", 1) == b"x"


def test_metadata_of_the_largest_size(gcs: GcsStore) -> None:
    metadata = {"backupagent": "x" * (2048 - 11)}
    gcs.put("a", b"x", metadata=metadata)
    assert gcs.stat("a").metadata == metadata


CALLS: list[Callable[[GcsStore], object]] = [
    lambda store: list(store.list_objects("")),
    lambda store: store.put("a", b"x"),
    lambda store: store.stat("a"),
    lambda store: read(store, "a", 1),
    lambda store: store.list_uploads(""),
    lambda store: store.begin_upload("a", part_size=4),
]


def test_a_bucket_that_does_not_exist(fake_gcs: FakeGcsServer) -> None:
    with closing(open_gcs(gcs_settings(fake_gcs, "not-there"))) as store:
        for call in CALLS:
            with pytest.raises(ObjectNotFound):
                call(store)


def test_a_server_that_was_killed(server_binary: Callable[[str], Path]) -> None:
    with FakeGcsServer(binary=server_binary("fake-gcs-server")) as server:
        server.make_bucket("backups")
        with closing(open_gcs(gcs_settings(server, "backups"))) as store:
            store.put("a", b"x")
            server.kill()
            for call in CALLS:
                with pytest.raises(StoreUnavailable):
                    call(store)
            server.start()
            server.make_bucket("backups")
            store.put("a", b"x")
