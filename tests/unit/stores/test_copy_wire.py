"""What is asked of a service that copies by itself, and what its answers mean: no emulator checks all of it."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from azure.core.credentials import AccessToken, AzureNamedKeyCredential
from google.auth.credentials import AnonymousCredentials
from scripted import ScriptedServer, answer

from backupagent.clock import FakeClock
from backupagent.errors import AccessDenied, ObjectChanged, StoreError, StoreUnavailable
from backupagent.stores.azure import AzureSettings, AzureStore, open_azure
from backupagent.stores.azure_copy import copies_of
from backupagent.stores.base import CopySource, ObjectInfo, ObjectStore, Upload
from backupagent.stores.gcs import GcsSettings, GcsStore, open_gcs
from backupagent.stores.s3 import S3Store, open_s3
from backupagent.stores.s3_copy import service_of
from backupagent.stores.s3_settings import CustomerKey, S3Settings
from backupagent.stores.s3_values import digests_of
from backupagent.stores.s3_versions import mark

KEY = base64.b64encode(b"hunter2 hunter2 hunter2").decode()
MD5 = "9fc91faa40788b8f40da1ca697408b8d"
SOURCE = CopySource("from", ObjectInfo("v2/ä b+", 9, f'"{MD5}"', 0.0))
XML = b"Content-Type: application/xml\r\n"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with closing(ScriptedServer()) as scripted:
        yield scripted


@pytest.fixture
def url(server: ScriptedServer) -> str:
    return f"http://127.0.0.1:{server.listener.getsockname()[1]}"


@pytest.fixture
def s3(url: str) -> Iterator[S3Store]:
    with closing(
        open_s3(S3Settings("bucket", url, "eu-1", path_style=True, access_key_id="A", secret_access_key="s"))
    ) as store:
        yield store


@pytest.fixture
def azure(url: str) -> Iterator[AzureStore]:
    credential = AzureNamedKeyCredential("account", KEY)
    with closing(open_azure(AzureSettings("cont", f"{url}/account", "az://cont", credential=credential))) as store:
        yield store


@pytest.fixture
def gcs(url: str) -> Iterator[GcsStore]:
    with closing(open_gcs(GcsSettings("bucket", AnonymousCredentials(), url))) as store:
        yield store


def copied_object(etag: str = MD5, more: str = "", headers: bytes = b"") -> bytes:
    told = f'<ETag>"{etag}"</ETag><LastModified>2026-11-23T17:42:40Z</LastModified>{more}'
    return answer("200 OK", XML + headers, f"<CopyObjectResult>{told}</CopyObjectResult>".encode())


# ---- S3


def test_s3_asks_for_this_very_object_without_its_metadata(s3: S3Store, server: ScriptedServer) -> None:
    server.answers = [copied_object(more="<ChecksumCRC32>AAAAAQ==</ChecksumCRC32>")]
    info = s3.copy_object(SOURCE, "v2/c")
    line, headers, body = server.requests[0]
    assert line.startswith("PUT /bucket/v2/c HTTP")
    assert unquote(headers["x-amz-copy-source"]) == "from/v2/ä b+"
    assert "%2B" in headers["x-amz-copy-source"]
    assert headers["x-amz-copy-source-if-match"] == SOURCE.info.etag
    assert (headers["x-amz-metadata-directive"], headers["x-amz-tagging-directive"]) == ("REPLACE", "REPLACE")
    assert (headers["x-amz-checksum-algorithm"], body) == ("CRC32", b"")
    assert not any(name.startswith("x-amz-meta-") for name in headers)
    assert (info.key, info.size, info.etag) == ("v2/c", 9, SOURCE.info.etag)
    assert info.digests == {"md5": MD5, "crc32": "AAAAAQ=="}


def test_s3_asks_for_a_range(s3: S3Store, server: ScriptedServer) -> None:
    body = f'<CopyPartResult><ETag>"{MD5}"</ETag><ChecksumCRC32>AAAAAQ==</ChecksumCRC32></CopyPartResult>'
    server.answers = [answer("200 OK", XML, body.encode())]
    tag = s3.copy_part(Upload("c", "u", 4, copied=True), 2, SOURCE, offset=4, size=4)
    line, headers, _ = server.requests[0]
    assert parse_qs(urlsplit(line.split()[1]).query) == {"partNumber": ["2"], "uploadId": ["u"]} | (
        {"x-id": ["UploadPartCopy"]} if "x-id" in line else {}
    )
    assert headers["x-amz-copy-source-range"] == "bytes=4-7"
    assert headers["x-amz-copy-source-if-match"] == SOURCE.info.etag
    assert (tag.number, tag.size, tag.etag, tag.crc32) == (2, 4, f'"{MD5}"', 1)


def test_an_upload_that_is_copied_asks_for_no_check_sums(s3: S3Store, server: ScriptedServer) -> None:
    begun = answer("200 OK", XML, b"<R><UploadId>u</UploadId></R>")
    server.answers = [begun, begun]
    for copied in (False, True):
        assert s3.begin_upload("a", part_size=5 * 1024**2, copied=copied).copied is copied
    assert ["x-amz-checksum-algorithm" in headers for _, headers, _ in server.requests] == [True, False]


@pytest.mark.parametrize(("code", "error"), [("InternalError", StoreUnavailable), ("SlowDown", StoreUnavailable)])
def test_an_error_in_an_answer_that_says_200(s3: S3Store, server: ScriptedServer, code: str, error: type) -> None:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>"
    server.answers = [answer("200 OK", XML, body.encode())] * 2
    with pytest.raises(error):
        s3.copy_object(SOURCE, "c")
    with pytest.raises(error):
        s3.copy_part(Upload("c", "u", 4), 1, SOURCE, offset=0, size=4)


def test_the_digest_of_what_a_key_service_encrypts_is_none(s3: S3Store, server: ScriptedServer) -> None:
    server.answers = [copied_object(headers=b"x-amz-server-side-encryption: aws:kms\r\n")]
    assert s3.copy_object(SOURCE, "c").digests == {}


HEAD_FIRST = (
    b'ETag: "'
    + MD5.encode()
    + b'-3"\r\nContent-Range: bytes 0-4/12\r\nLast-Modified: Mon, 23 Nov 2026 17:42:40 GMT\r\n'
    b"x-amz-meta-backupagent: known\r\nx-amz-checksum-crc32: AAAAAQ==\r\n"
)


def test_one_head_tells_all_of_an_object_in_parts(s3: S3Store, server: ScriptedServer) -> None:
    server.answers = [answer("206 Partial Content", HEAD_FIRST, length=5)]
    source = s3.copy_source("v2/a", etag=f'"{MD5}-3"')
    line, headers, _ = server.requests[0]
    assert line.startswith("HEAD /bucket/v2/a?partNumber=1 ")
    assert (headers["if-match"], headers["x-amz-checksum-mode"]) == (f'"{MD5}-3"', "ENABLED")
    assert (source.container, source.info.size, source.part_size) == ("bucket", 12, 5)
    assert source.info.metadata == {"backupagent": "known"}
    assert source.info.digests == {"md5 of parts of 5 bytes": MD5}


@pytest.mark.parametrize(
    ("headers", "size", "digests"),
    [
        (f'ETag: "{MD5}"\r\nx-amz-checksum-crc32: AAAAAQ==\r\n', 9, {"md5": MD5, "crc32": "AAAAAQ=="}),
        (f'ETag: "{MD5}"\r\nx-amz-server-side-encryption: AES256\r\n', 9, {"md5": MD5}),
        (f'ETag: "{MD5}"\r\nx-amz-server-side-encryption: aws:kms\r\n', 9, {}),
        (f'ETag: "{MD5}-2"\r\nContent-Range: bytes 0-4/12\r\n', 12, {}),  # three parts of 5, not two
        (f'ETag: "{MD5}-2"\r\nContent-Range: bytes 0-4/*\r\n', 5, {}),
        ('ETag: "of another kind"\r\n', 9, {}),
    ],
)
def test_what_a_source_tells_of_its_content(
    s3: S3Store, server: ScriptedServer, headers: str, size: int, digests: dict[str, str]
) -> None:
    server.answers = [answer("200 OK", headers.encode(), length=5 if "Range" in headers else 9)]
    source = s3.copy_source("a")
    assert (source.info.size, source.part_size, source.info.digests) == (size, 0, digests)
    assert "if-match" not in server.requests[0][1]


def test_a_source_without_a_size_is_an_error(s3: S3Store, server: ScriptedServer) -> None:
    server.answers = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"]
    with pytest.raises(StoreError, match="says '' for a size"):
        s3.copy_source("a")


@pytest.mark.parametrize(
    ("etag", "part_size", "crc32", "digests"),
    [
        (MD5, 0, "", {"md5": MD5}),
        (f'"{MD5}-2"', 0, "", {}),
        (f'"{MD5}-2"', 7, "", {"md5 of parts of 7 bytes": MD5}),
        (MD5, 7, "", {}),
        ("", 0, "AAAAAQ==-2", {}),
        ("", 0, "AAAAAQ==", {"crc32": "AAAAAQ=="}),
    ],
)
def test_only_sums_that_can_be_compared_are_told(
    etag: str, part_size: int, crc32: str, digests: dict[str, str]
) -> None:
    assert digests_of(etag, "", part_size=part_size, crc32=crc32) == digests


def test_with_a_key_of_the_customer_the_store_does_not_copy(url: str) -> None:
    settings = S3Settings("bucket", url, "eu-1", access_key_id="A", secret_access_key="s")
    for key, able in ((None, True), (CustomerKey(bytes(32)), False)):
        with closing(open_s3(replace(settings, customer_key=key))) as store:
            assert (store.features.copies is not None) is able


def test_the_storage_class_and_the_version_go_with_a_copy(url: str, server: ScriptedServer) -> None:
    settings = S3Settings("b", url, "eu-1", path_style=True, access_key_id="A", secret_access_key="s")
    source = replace(SOURCE, info=replace(SOURCE.info, etag=mark(SOURCE.info.etag, "v1")))
    with closing(open_s3(replace(settings, storage_class="STANDARD_IA"))) as store:
        server.answers = [copied_object()]
        store.copy_object(source, "manifests/c")
    headers = server.requests[0][1]
    assert headers["x-amz-storage-class"] == "STANDARD_IA"
    assert headers["x-amz-copy-source"].endswith("?versionId=v1")
    assert headers["x-amz-copy-source-if-match"] == SOURCE.info.etag


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://s3.eu-central-1.amazonaws.com", "https://s3.amazonaws.com", True),
        ("https://s3.us-east-1.amazonaws.com", "https://s3.dualstack.eu-west-1.amazonaws.com", True),
        ("https://s3.us-east-1.amazonaws.com", "https://s3.cn-north-1.amazonaws.com.cn", False),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/", True),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9001", False),
        ("https://Minio.example", "https://minio.example", True),
        ("https://s3.amazonaws.com.evil.example", "https://s3.amazonaws.com", False),
    ],
)
def test_which_endpoints_are_one_service(one: str, other: str, same: bool) -> None:
    assert (service_of(one) == service_of(other)) is same


# ---- Google


def rewritten(done: bool, **more: object) -> bytes:
    return answer("200 OK", b"Content-Type: application/json\r\n", json.dumps({"done": done, **more}).encode())


def test_google_is_asked_again_until_it_is_done(gcs: GcsStore, server: ScriptedServer) -> None:
    resource = {
        "name": "v2/c", "size": "9", "generation": "12", "crc32c": "AAAAAQ==", "timeCreated": "2026-11-23T17:42:40Z",
    }  # fmt: skip
    server.answers = [rewritten(False, rewriteToken="t/1"), rewritten(True, resource=resource)]
    info = gcs.copy_object(CopySource("from", ObjectInfo("v2/a b", 9, "7", 0.0)), "v2/c")
    assert (info.key, info.size, info.etag, info.digests) == ("v2/c", 9, "12", {"crc32c": "00000001"})
    urls = [urlsplit(line.split()[1]) for line, _, _ in server.requests]
    assert {url.path for url in urls} == {"/storage/v1/b/from/o/v2%2Fa%20b/rewriteTo/b/bucket/o/v2%2Fc"}
    queries = [parse_qs(url.query) for url in urls]
    assert [query["ifSourceGenerationMatch"] for query in queries] == [["7"], ["7"]]
    assert [query.get("rewriteToken") for query in queries] == [None, ["t/1"]]
    assert json.loads(server.requests[0][2])["metadata"] == {"copied": "true"}


def test_google_copies_no_ranges(gcs: GcsStore) -> None:
    copies = gcs.features.copies
    assert copies is not None
    assert copies.part == 0
    with pytest.raises(StoreError, match="copies nothing by itself"):
        gcs.copy_part(Upload("c", "u", 4), 1, SOURCE, offset=0, size=4)


def test_another_generation_is_another_content(gcs: GcsStore, server: ScriptedServer) -> None:
    server.answers = [answer("412 Precondition Failed")]
    with pytest.raises(ObjectChanged):
        gcs.copy_object(SOURCE, "c")


# ---- Azure

WRITTEN = b'ETag: "0x1"\r\nLast-Modified: Mon, 23 Nov 2026 17:42:40 GMT\r\n'


def azure_source(**digests: str) -> CopySource:
    return CopySource(
        "from", ObjectInfo("v2/a", 9, "0x7", 0.0, {}, digests), url=lambda: "http://there/from/v2/a?sig=x"
    )


def test_azure_is_given_a_url_and_what_the_content_must_be(azure: AzureStore, server: ScriptedServer) -> None:
    server.answers = [answer("202 Accepted", WRITTEN + b"x-ms-copy-status: success\r\n")]
    info = azure.copy_object(azure_source(md5=MD5), "v2/c")
    line, headers, _ = server.requests[0]
    assert line.startswith("PUT /account/cont/v2/c ")
    assert headers["x-ms-copy-source"] == "http://there/from/v2/a?sig=x"
    assert (headers["x-ms-requires-sync"].lower(), headers["x-ms-source-if-match"]) == ("true", '"0x7"')
    assert base64.b64decode(headers["x-ms-source-content-md5"]).hex() == MD5
    assert headers["x-ms-meta-copied"] == "true", "without metadata it would copy those of the source"
    assert (info.key, info.size, info.etag, info.digests) == ("v2/c", 9, "0x1", {"md5": MD5})


def test_azure_tells_nothing_of_a_content_that_nobody_knows(azure: AzureStore, server: ScriptedServer) -> None:
    server.answers = [answer("202 Accepted", WRITTEN + b"x-ms-copy-status: success\r\n")]
    assert azure.copy_object(azure_source(), "v2/c").digests == {}
    assert "x-ms-source-content-md5" not in server.requests[0][1]


def test_a_copy_that_azure_only_promises_is_none(azure: AzureStore, server: ScriptedServer) -> None:
    server.answers = [answer("202 Accepted", WRITTEN + b"x-ms-copy-status: pending\r\n")]
    with pytest.raises(StoreError, match="the copy is pending"):
        azure.copy_object(azure_source(), "v2/c")


def test_azure_needs_a_url(azure: AzureStore) -> None:
    with pytest.raises(StoreError, match="no URL"):
        azure.copy_object(SOURCE, "c")


def test_azure_is_asked_for_a_range(azure: AzureStore, server: ScriptedServer) -> None:
    server.answers = [answer("201 Created", WRITTEN), answer("201 Created", WRITTEN)]
    upload = azure.begin_upload("c", part_size=4, copied=True)
    tag = azure.copy_part(upload, 2, azure_source(), offset=4, size=4)
    line, headers, _ = server.requests[1]
    block = base64.b64decode(parse_qs(urlsplit(line.split()[1]).query)["blockid"][0]).decode()
    assert block == tag.etag
    assert (headers["x-ms-source-range"], headers["x-ms-source-if-match"]) == ("bytes=4-7", '"0x7"')
    assert (tag.number, tag.size, tag.crc32) == (2, 4, None)


BLOB = WRITTEN + b"x-ms-blob-type: BlockBlob\r\nContent-MD5: " + base64.b64encode(bytes.fromhex(MD5)) + b"\r\n"


def test_the_url_is_signed_when_it_is_needed_and_never_shown(url: str, server: ScriptedServer) -> None:
    clock = FakeClock(datetime(2026, 11, 23, tzinfo=UTC))
    settings = AzureSettings("c", f"{url}/account", "az://c", credential=AzureNamedKeyCredential("account", KEY))
    with closing(open_azure(settings, clock)) as store:
        server.answers = [answer("200 OK", BLOB, length=9)]
        source = store.copy_source("v2/a b")
        assert (source.info.size, source.info.digests) == (9, {"md5": MD5})
        clock.sleep(7200)
        assert source.url is not None
        query = parse_qs(urlsplit(source.url()).query)
    assert (query["se"], query["sp"], query["sr"]) == (["2026-11-23T03:00:00Z"], ["r"], ["b"])
    assert query["sig"][0] not in repr(source)
    assert KEY not in repr(source)


@pytest.mark.parametrize("md5", ["", "no base64"])
def test_a_blob_in_blocks_has_no_digest(azure: AzureStore, server: ScriptedServer, md5: str) -> None:
    server.answers = [answer("200 OK", WRITTEN + f"Content-MD5: {md5}\r\n".encode() * bool(md5), length=9)]
    assert azure.copy_source("a").info.digests == {}


def test_a_source_without_a_key_cannot_sign(url: str, server: ScriptedServer) -> None:
    class Token:
        def get_token(self, *_scopes: str, **_: object) -> AccessToken:
            return AccessToken("token", 2**40)

    settings = AzureSettings("c", f"{url}/account", "az://c", credential=AzureNamedKeyCredential("account", KEY))
    with closing(open_azure(settings)) as store:
        store._credential = Token()
        server.answers = [answer("200 OK", BLOB, length=9)]
        with pytest.raises(AccessDenied, match="signed with the key of the account") as raised:
            store.copy_source("a")
    assert "storageKey" in raised.value.hint


@pytest.mark.parametrize(
    ("account_url", "service"),
    [
        ("https://one.blob.core.windows.net", "https://blob.core.windows.net"),
        ("https://other.blob.core.windows.net/", "https://blob.core.windows.net"),
        ("https://one.blob.core.chinacloudapi.cn", "https://blob.core.chinacloudapi.cn"),
        ("http://127.0.0.1:10000/account", "http://127.0.0.1:10000"),
        ("http://[::1]:10000/account", "http://[::1]:10000"),
        ("http://localhost:10000/account", "http://localhost:10000"),
        ("https://storage.example:8443/account", "https://storage.example:8443"),
        ("https://account.storage.example:8443", "https://storage.example:8443"),
    ],
)
def test_the_accounts_of_one_cloud_are_one_service(account_url: str, service: str) -> None:
    assert copies_of(account_url).service == service


# ---- all


COPY: dict[str, Callable[[ObjectStore], object]] = {
    "s3": lambda store: store.copy_object(SOURCE, "c"),
    "azure": lambda store: store.copy_object(azure_source(), "c"),
    "gcs": lambda store: store.copy_object(SOURCE, "c"),
}


@pytest.mark.parametrize("name", COPY)
@pytest.mark.parametrize(
    ("status", "retryable"), [("501 Not Implemented", False), ("503 Busy", True), ("403 No", False)]
)
def test_what_a_service_does_not_know_is_not_asked_again(
    request: pytest.FixtureRequest, server: ScriptedServer, name: str, status: str, retryable: bool
) -> None:
    store = request.getfixturevalue(name)
    server.answers = [answer(status)]
    with pytest.raises(StoreError) as raised:
        COPY[name](store)
    assert raised.value.retryable is retryable
    assert len(server.requests) == 1
