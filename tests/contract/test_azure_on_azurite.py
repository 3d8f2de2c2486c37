"""What only a server of Azure's protocol can say about the Azure store.

Azurite cannot prove: immutability policies and their errors, tokens, archive tiers, the week after which blocks go,
accounts with a hierarchical namespace, names whose elements end with a dot; of a URL that it copies from it looks at
neither signature nor MD5.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from azure.core.credentials import AzureNamedKeyCredential
from killed import leave_an_upload
from store_access import keys, read
from stores import STORES, azure_settings

from backupagent.clock import FakeClock
from backupagent.errors import AccessDenied, ObjectNotFound, StoreError, StoreUnavailable
from backupagent.stores import open_store, parse_location
from backupagent.stores.azure import AzureStore, open_azure
from backupagent.stores.base import Upload
from backupagent.testing.server_process import http_get
from backupagent.testing.store_servers import AzuriteServer

pytestmark = pytest.mark.servers


@pytest.fixture
def azure(request: pytest.FixtureRequest) -> Iterator[AzureStore]:
    with STORES["azurite"](request) as store:
        assert isinstance(store, AzureStore)
        yield store


@pytest.fixture
def uri(azurite: AzuriteServer, azure: AzureStore, tmp_path: Path) -> str:
    for name, value in (("storageAccount", azurite.account), ("storageKey", azurite.key)):
        (tmp_path / name).write_text(value)
    return f"az://{azure._container.container_name}/p?endpoint={azurite.endpoint_url}&credentials={tmp_path}"


def uncommitted(azure: AzureStore, key: str) -> int:
    _, blocks = azure._container.get_blob_client(key).get_block_list("uncommitted")
    return len(blocks)


def test_an_upload_survives_the_death_of_its_process(azure: AzureStore, uri: str) -> None:
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
        assert uncommitted(azure, "p/v2/big") == 3
        store.complete_upload(upload, [*held, store.upload_part(upload, 3, b"3")])
        assert read(store, "p/v2/big", 9) == b"one1two23"
        assert store.stat("p/v2/big").metadata == {"kind": "full"}
        assert list(store.list_uploads("")) == keys(store, "p/manifests/") == []


def test_a_part_sent_again_counts_although_the_clock_went_back(azure: AzureStore, uri: str) -> None:
    leave_an_upload(uri)
    with closing(open_store(parse_location(uri))) as store:
        assert isinstance(store, AzureStore)
        (upload,) = store.list_uploads("")
        first, _ = store.list_parts(upload)
        store._clock = FakeClock(start=datetime(2001, 1, 1, tzinfo=UTC))
        new = store.upload_part(upload, 2, b"new2")
        assert store.list_parts(upload) == [first, new]


def test_a_commit_of_another_upload_throws_blocks_away_and_that_is_noticed(azure: AzureStore) -> None:
    first, second = (azure.begin_upload("a", part_size=4) for _ in range(2))
    tags = [azure.upload_part(upload, 1, b"data") for upload in (first, second)]
    azure.complete_upload(first, tags[:1])
    assert list(azure.list_parts(second)) == []
    with pytest.raises(StoreError, match="InvalidBlockList") as raised:
        azure.complete_upload(second, tags[1:])
    assert "run the command again" in raised.value.hint
    assert [upload.id for upload in azure.list_uploads("")] == [second.id]


@pytest.mark.parametrize("if_absent", [False, True])
def test_completing_again_after_a_lost_answer(
    azure: AzureStore, monkeypatch: pytest.MonkeyPatch, if_absent: bool
) -> None:
    upload = azure.begin_upload("a", part_size=4)
    tag = azure.upload_part(upload, 1, b"data")
    with monkeypatch.context() as patched:
        patched.setattr(azure._records, "forget", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            azure.complete_upload(upload, [tag], if_absent=if_absent)
    assert azure.list_parts(upload) == [tag]
    assert azure.complete_upload(upload, [tag], if_absent=if_absent).etag == azure.stat("a").etag
    assert list(azure.list_uploads("")) == []


def test_blocks_of_other_programs_are_not_ours(azure: AzureStore) -> None:
    upload = azure.begin_upload("a", part_size=4)
    tag = azure.upload_part(upload, 1, b"data")
    client = azure._container.get_blob_client("a")
    for block in (f"{'0' * 32}.{tag.etag.partition('.')[2]}", tag.etag.replace(".", "-")):
        client.stage_block(block, b"x")
    assert azure.list_parts(upload) == [tag]


def test_the_server_refuses_a_body_that_does_not_match_its_crc(
    azure: AzureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = azure.begin_upload("a", part_size=7)
    monkeypatch.setattr("backupagent.stores.azure_direct.crc64", lambda _: 0)
    for call in (lambda: azure.put("a", b"content"), lambda: azure.upload_part(upload, 1, b"content")):
        with pytest.raises(StoreUnavailable, match="Crc64Mismatch"):
            call()
    assert keys(azure) == list(azure.list_parts(upload)) == []


@pytest.mark.parametrize(("value", "listed"), [("true", ["b"]), ("false", ["a", "b"])])
def test_what_a_tag_excludes_is_not_listed(azure: AzureStore, value: str, listed: list[str]) -> None:
    azure.put("a", b"x")
    azure.put("b", b"x")
    azure._container.get_blob_client("a").set_blob_tags({"x-etcd-snapshot-exclude": value})
    assert keys(azure) == listed
    assert read(azure, "a", 1) == b"x"


def test_metadata_of_the_largest_size(azure: AzureStore) -> None:
    metadata = {"backupagent": "x" * (2048 - 11)}
    azure.put("a", b"x", metadata=metadata)
    assert azure.stat("a").metadata == metadata


CALLS: list[Callable[[AzureStore], object]] = [
    lambda store: list(store.list_objects("")),
    lambda store: store.put("a", b"x"),
    lambda store: store.stat("a"),
    lambda store: read(store, "a", 1),
    lambda store: store.list_uploads(""),
    lambda store: store.begin_upload("a", part_size=4),
]


def test_a_container_that_does_not_exist(azurite: AzuriteServer) -> None:
    with closing(open_azure(azure_settings(azurite, "not-there"))) as store:
        for call in CALLS:
            with pytest.raises(ObjectNotFound):
                call(store)


def test_a_wrong_key(azurite: AzuriteServer, azure: AzureStore) -> None:
    name = azure._container.container_name
    wrong = AzureNamedKeyCredential(azurite.account, azurite.key.swapcase())
    settings = azure_settings(azurite, name)
    with closing(open_azure(type(settings)(name, settings.account_url, settings.display, credential=wrong))) as store:
        for call in CALLS:
            with pytest.raises(AccessDenied) as raised:
                call(store)
            assert azurite.key.swapcase() not in f"{raised.value}{raised.value.__cause__}"


def test_a_server_that_goes_and_comes_back(server_binary: Callable[[str], Path]) -> None:
    with AzuriteServer(binary=server_binary("azurite-blob")) as server:
        server.make_container("backups")
        with closing(open_azure(azure_settings(server, "backups"))) as store:
            store.put("a", b"x")
            upload = store.begin_upload("b", part_size=4)
            tag = store.upload_part(upload, 1, b"data")
            server.stop()  # killed, Azurite loses what it wrote in its last five seconds
            for call in CALLS:
                with pytest.raises(StoreUnavailable):
                    call(store)
            server.start()
            assert store.list_parts(upload) == [tag]
            store.complete_upload(upload, [tag])
            assert read(store, "b", 4) == b"data"


def test_the_url_for_a_copy_opens_this_blob_and_no_other(azure: AzureStore, azurite: AzuriteServer) -> None:
    for key in ("v2/ä b+", "other"):
        azure.put(key, b"content")
    sign = azure.copy_source("v2/ä b+").url
    assert sign is not None
    signed = urlsplit(sign())
    opened = http_get(azurite.host, azurite.port("blob"), f"{signed.path}?{signed.query}")
    assert opened == (HTTPStatus.OK, b"content")
    other = urlsplit(azure._container.get_blob_client("other").url).path
    for target in (signed.path, f"{other}?{signed.query}"):
        assert http_get(azurite.host, azurite.port("blob"), target)[0] >= HTTPStatus.BAD_REQUEST


def test_an_id_of_another_upload_is_refused(azure: AzureStore) -> None:
    upload = azure.begin_upload("a", part_size=4)
    for other in (Upload("b", upload.id, 4), Upload("a", upload.id, 5)):
        with pytest.raises(ObjectNotFound):
            azure.upload_part(other, 1, b"x")
