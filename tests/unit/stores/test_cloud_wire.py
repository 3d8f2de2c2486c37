"""The Azure and Google stores against a server that answers exactly the bytes a test wrote down."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import parse_qs, urlsplit

import google_crc32c
import pytest
from azure.core.credentials import AccessToken, AzureNamedKeyCredential
from google.auth.credentials import AnonymousCredentials, Credentials
from scripted import ScriptedServer, answer

from backupagent.clock import FakeClock
from backupagent.errors import (
    AccessDenied,
    BackupAgentError,
    ChecksumMismatch,
    ObjectChanged,
    ObjectExists,
    StoreError,
    StoreUnavailable,
    TruncatedObject,
)
from backupagent.stores.azure import AzureSettings, AzureStore, open_azure
from backupagent.stores.azure_direct import DirectRequests
from backupagent.stores.base import ObjectStore, PartTag
from backupagent.stores.gcs import GcsSettings, GcsStore, open_gcs

CRC64_OF_CONTENT = 0x96155D5F25504C61  # of b"content", computed bit by bit
KEY = base64.b64encode(b"hunter2 hunter2 hunter2").decode()
WRITTEN = b'ETag: "0x1"\r\nLast-Modified: Mon, 23 Nov 2026 17:42:40 GMT\r\n'


CHUNKED = (
    b"HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Range: bytes 3-6/9\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n%s\r\n0\r\n\r\n"
)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with closing(ScriptedServer()) as scripted:
        yield scripted


@pytest.fixture
def azure(server: ScriptedServer) -> Iterator[AzureStore]:
    url = f"http://127.0.0.1:{server.listener.getsockname()[1]}/account"
    credential = AzureNamedKeyCredential("account", KEY)
    with closing(open_azure(AzureSettings("cont", url, "az://cont", credential=credential))) as store:
        yield store


@pytest.fixture
def gcs(server: ScriptedServer) -> Iterator[GcsStore]:
    url = f"http://127.0.0.1:{server.listener.getsockname()[1]}"
    with closing(open_gcs(GcsSettings("bucket", AnonymousCredentials(), url))) as store:
        yield store


@pytest.fixture(params=["azure", "gcs"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    return request.getfixturevalue(request.param)


def read(store: ObjectStore, size: int = 4, *, offset: int = 0, etag: str = "") -> bytes:
    buffer = bytearray(size)
    store.read_into("v2/a b", memoryview(buffer), offset=offset, etag=etag)
    return bytes(buffer)


def crc(content: bytes) -> str:
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def resource(name: str, content: bytes, generation: int = 7, **metadata: str) -> bytes:
    """Describe an object as Google does."""
    described = {
        "name": name,
        "size": str(len(content)),
        "generation": str(generation),
        "crc32c": crc(content),
        "timeCreated": "2026-11-23T17:42:40.123Z",
        "metadata": metadata,
    }
    return answer("200 OK", b"Content-Type: application/json\r\n", json.dumps(described).encode())


CALLS: dict[str, Callable[[ObjectStore], object]] = {
    "list": lambda store: list(store.list_objects("")),
    "stat": lambda store: store.stat("a"),
    "read": read,
    "put": lambda store: store.put("a", b"x"),
    "begin": lambda store: store.begin_upload("a", part_size=1),
    "uploads": lambda store: store.list_uploads(""),
    "delete": lambda store: store.delete("a"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Busy", "429 Slow"])
def test_the_sdk_repeats_nothing(store: ObjectStore, server: ScriptedServer, call: str, status: str) -> None:
    server.answers = [answer(status, b"Retry-After: 7\r\n")] * 5
    with pytest.raises(StoreUnavailable) as raised:
        CALLS[call](store)
    assert raised.value.retry_after_s == 7
    assert len(server.requests) == 1


@pytest.mark.parametrize("call", CALLS)
def test_a_connection_that_breaks_is_unavailable(store: ObjectStore, server: ScriptedServer, call: str) -> None:
    server.answers = [b""] * 5
    with pytest.raises(StoreUnavailable):
        CALLS[call](store)
    assert len(server.requests) == 1


@pytest.mark.parametrize("call", CALLS)
def test_a_redirection_is_not_followed(store: ObjectStore, server: ScriptedServer, call: str) -> None:
    there = f"Location: http://127.0.0.1:{server.listener.getsockname()[1]}/elsewhere\r\n".encode()
    server.answers = [answer("307 Temporary Redirect", there), *[answer("200 OK")] * 3]
    with pytest.raises(StoreError):
        CALLS[call](store)
    assert [line for line, _, _ in server.requests if "elsewhere" in line] == []


@pytest.mark.parametrize(
    "said",
    [
        answer("206 Partial Content", b"Content-Range: bytes 3-6/100\r\n", b"ab", length=4),
        answer("206 Partial Content", b"Content-Range: bytes 3-4/5\r\n", b"ab"),
        answer("206 Partial Content", b"Content-Range: bytes 0-3/100\r\n", b"abcd"),
        answer("206 Partial Content", b"Content-Range: bytes 3-8/100\r\n", b"abcdef"),
        answer("200 OK", b"", b"abcd"),
        answer("204 No Content"),
        CHUNKED % b"2\r\nab",
        CHUNKED % b"6\r\nabcdef",
    ],
    ids=["cut", "short", "elsewhere", "long", "whole", "empty", "chunked short", "chunked long"],
)
def test_an_answer_that_is_not_the_range_is_refused(store: ObjectStore, server: ScriptedServer, said: bytes) -> None:
    server.answers = [said] * 3
    with pytest.raises((StoreError, TruncatedObject)):
        read(store, offset=3)
    assert len(server.requests) == 1


def test_content_is_read_as_it_is_stored(store: ObjectStore, server: ScriptedServer) -> None:
    headers = b"Content-Range: bytes 3-6/100\r\nContent-Encoding: gzip\r\n"
    server.answers = [answer("206 Partial Content", headers, b"abcd")]
    assert read(store, offset=3) == b"abcd"


LISTING = b"""<?xml version="1.0"?><EnumerationResults ServiceEndpoint="x" ContainerName="cont"><Blobs>%s</Blobs>
<NextMarker/></EnumerationResults>"""
BLOB = b"""<Blob><Name>%s</Name><Properties><Last-Modified>Mon, 23 Nov 2026 17:42:40 GMT</Last-Modified><Etag>0x1</Etag>
<Content-Length>1</Content-Length><BlobType>BlockBlob</BlobType></Properties></Blob>"""


class TestAzure:
    @pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "409 Conflict"])
    def test_who_may_not_see_tags_gets_everything(self, azure: AzureStore, server: ScriptedServer, status: str) -> None:
        listing = answer("200 OK", b"Content-Type: application/xml\r\n", LISTING % (BLOB % b"a"))
        server.answers = [answer(status), listing, listing]
        assert [info.key for _ in range(2) for info in azure.list_objects("")] == ["a", "a"]
        assert ["include=tags" in line for line, _, _ in server.requests] == [True, False, False]

    def test_who_may_not_list_at_all_is_told_so(self, azure: AzureStore, server: ScriptedServer) -> None:
        server.answers = [answer("403 Forbidden")] * 2
        with pytest.raises(AccessDenied):
            list(azure.list_objects(""))

    def test_a_put_is_one_signed_request_with_a_crc(self, azure: AzureStore, server: ScriptedServer) -> None:
        server.answers = [answer("201 Created", WRITTEN)]
        info = azure.put("v2/a b", b"content", if_absent=True, metadata={"name": "value"})
        assert (info.etag, info.modified_s, info.size) == ("0x1", 1795455760, 7)
        ((line, headers, body),) = server.requests
        assert (line, body) == ("PUT /account/cont/v2/a%20b HTTP/1.1", b"content")
        assert headers["x-ms-content-crc64"] == base64.b64encode(CRC64_OF_CONTENT.to_bytes(8, "little")).decode()
        assert headers["if-none-match"] == "*"
        assert headers["x-ms-meta-name"] == "value"
        assert headers["authorization"].startswith("SharedKey account:")
        assert KEY not in str(headers)

    def test_a_large_put_is_one_request_too(self, azure: AzureStore, server: ScriptedServer) -> None:
        server.answers = [answer("201 Created", WRITTEN)]
        azure.put("a", bytes(70 * 1024 * 1024))
        assert len(server.requests) == 1

    def test_a_read_asks_for_one_etag_and_range(self, azure: AzureStore, server: ScriptedServer) -> None:
        server.answers = [answer("412 Precondition Failed", b"x-ms-error-code: ConditionNotMet\r\n")]
        with pytest.raises(ObjectChanged, match="ConditionNotMet"):
            read(azure, offset=3, etag="0x1")
        ((line, headers, _),) = server.requests
        assert line == "GET /account/cont/v2/a%20b HTTP/1.1"
        assert (headers["if-match"], headers["x-ms-range"]) == ('"0x1"', "bytes=3-6")
        assert headers["authorization"].startswith("SharedKey account:")

    def test_a_list_of_blocks_is_committed_only_if_absent(self, azure: AzureStore, server: ScriptedServer) -> None:
        server.answers = [
            answer("201 Created", WRITTEN),
            answer("409 Conflict", b"x-ms-error-code: BlobAlreadyExists\r\n"),
            answer("200 OK", b"Content-Type: application/xml\r\n", b"<BlockList><CommittedBlocks/></BlockList>"),
        ]
        upload = azure.begin_upload("a", part_size=4)
        with pytest.raises(ObjectExists):
            azure.complete_upload(upload, [PartTag(1, 4, "block")], if_absent=True)
        assert server.requests[1][1]["if-none-match"] == "*"
        assert base64.b64encode(b"block") in server.requests[1][2]

    def test_a_token_is_sent_with_every_request(self, server: ScriptedServer) -> None:
        class Credential:
            def get_token(self, *_scopes: str, **_: object) -> AccessToken:
                return AccessToken("hunter2", 2**40)

        url = f"http://127.0.0.1:{server.listener.getsockname()[1]}"
        server.answers = [answer("200 OK"), answer("201 Created")]
        with closing(DirectRequests(url, "cont", Credential(), FakeClock())) as direct:
            with direct.send("HEAD", "a", {}):
                pass
            with direct.send("PUT", "a", {}, body=memoryview(b"x")):
                pass
        assert [headers["authorization"] for _, headers, _ in server.requests] == ["Bearer hunter2"] * 2

    @pytest.mark.parametrize("length", [b"", b"Content-Length: x\r\n"])
    def test_a_blob_without_a_size_is_refused(self, azure: AzureStore, server: ScriptedServer, length: bytes) -> None:
        server.answers = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + length + WRITTEN + b"\r\n"]
        with pytest.raises(StoreError, match="for a size"):
            azure.stat("a")


class Renewed(Credentials):
    """Credentials whose first token the service no longer takes."""

    def __init__(self) -> None:
        super().__init__()
        self.token = "first"
        self.count = 0

    def refresh(self, request: object) -> None:
        self.count += 1
        self.token = f"new{self.count}"


class TestGcs:
    @pytest.mark.parametrize("taken", [True, False])
    def test_a_refused_token_is_renewed_once(self, server: ScriptedServer, taken: bool) -> None:
        credentials = Renewed()
        url = f"http://127.0.0.1:{server.listener.getsockname()[1]}"
        server.answers = [answer("401 Unauthorized"), resource("a", b"x") if taken else answer("401 Unauthorized")]
        with closing(open_gcs(GcsSettings("bucket", credentials, url))) as store:
            if taken:
                store.put("a", b"x")
            else:
                with pytest.raises(AccessDenied):
                    store.put("a", b"x")
        assert [headers["authorization"] for _, headers, _ in server.requests] == ["Bearer first", "Bearer new1"]
        assert credentials.count == 1

    def test_a_put_is_one_request_with_a_crc(self, gcs: GcsStore, server: ScriptedServer) -> None:
        content = bytes(9 * 1024 * 1024)
        server.answers = [resource("v2/a b", content)]
        info = gcs.put("v2/a b", content, if_absent=True, metadata={"name": "value"})
        assert (info.key, info.etag, info.size, info.modified_s) == ("v2/a b", "7", len(content), 1795455760.123)
        ((line, headers, body),) = server.requests
        url = urlsplit(line.split()[1])
        assert (line.split()[0], url.path) == ("POST", "/upload/storage/v1/b/bucket/o")
        query = parse_qs(url.query)
        assert (query["uploadType"], query["ifGenerationMatch"]) == (["multipart"], ["0"])
        boundary = headers["content-type"].partition('boundary="')[2].rstrip('"').encode()
        _, described, sent, end = body.split(b"--" + boundary)
        assert json.loads(described.partition(b"\r\n\r\n")[2]) == {
            "name": "v2/a b", "crc32c": crc(content), "metadata": {"name": "value"},
        }  # fmt: skip
        assert sent.partition(b"\r\n\r\n")[2] == content + b"\r\n"
        assert end == b"--"

    def test_other_content_than_was_sent_is_noticed(self, gcs: GcsStore, server: ScriptedServer) -> None:
        server.answers = [resource("a", b"flipped")]
        with pytest.raises(StoreUnavailable, match="other content"):
            gcs.put("a", b"content")

    @pytest.mark.parametrize("said", [b"{}", b"[]", b"null", b'{"name": 1}', b"no JSON"])
    def test_an_answer_that_describes_nothing_is_refused(
        self, gcs: GcsStore, server: ScriptedServer, said: bytes
    ) -> None:
        server.answers = [answer("200 OK", b"Content-Type: application/json\r\n", said)]
        with pytest.raises(StoreError):
            gcs.put("a", b"content")

    def test_a_read_asks_for_one_generation_and_range(self, gcs: GcsStore, server: ScriptedServer) -> None:
        server.answers = [answer("412 Precondition Failed")]
        with pytest.raises(ObjectChanged):
            read(gcs, offset=3, etag="7")
        ((line, headers, _),) = server.requests
        url = urlsplit(line.split()[1])
        assert url.path == "/download/storage/v1/b/bucket/o/v2%2Fa%20b"
        assert parse_qs(url.query) == {"alt": ["media"], "ifGenerationMatch": ["7"]}
        assert (headers["range"], headers["accept-encoding"]) == ("bytes=3-6", "gzip")

    def test_another_generation_is_noticed_where_the_condition_was_not(
        self, gcs: GcsStore, server: ScriptedServer
    ) -> None:
        headers = b"Content-Range: bytes 0-3/4\r\nX-Goog-Generation: 8\r\n"
        server.answers = [answer("206 Partial Content", headers, b"abcd")]
        with pytest.raises(ObjectChanged):
            read(gcs, etag="7")

    def test_exactly_what_was_uploaded_is_composed_and_only_if_absent(
        self, gcs: GcsStore, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("backupagent.stores.upload_records.secrets.token_hex", lambda _: "0" * 32)
        record = b'{"key":"a","part_size":2,"metadata":{}}'
        server.answers = [
            answer("200 OK", b"", b"{}"),  # a bucket that keeps nothing of what is deleted
            resource("record", record),
            resource("part", b"ab", 11, crc="00000001"),
            resource("part", b"c", 12, crc="00000002"),
            answer("404 Not Found"),
            answer("412 Precondition Failed"),
        ]
        upload = gcs.begin_upload("a", part_size=2)
        tags = [gcs.upload_part(upload, 1, b"ab"), gcs.upload_part(upload, 2, b"c")]
        with pytest.raises(ObjectExists):
            gcs.complete_upload(upload, tags, if_absent=True)
        line, _, body = server.requests[5]
        url = urlsplit(line.split()[1])
        assert url.path == "/storage/v1/b/bucket/o/a/compose"
        assert parse_qs(url.query)["ifGenerationMatch"] == ["0"]
        folder = f"manifests/parts/{'0' * 32}/"
        assert [(source["name"], source["objectPreconditions"]) for source in json.loads(body)["sourceObjects"]] == [
            (f"{folder}00001", {"ifGenerationMatch": "11"}),
            (f"{folder}00002", {"ifGenerationMatch": "12"}),
        ]

    def test_what_was_composed_of_something_else_is_removed(
        self, gcs: GcsStore, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("backupagent.stores.upload_records.secrets.token_hex", lambda _: "0" * 32)
        server.answers = [
            answer("200 OK", b"", b"{}"),
            resource("record", b'{"key":"a","part_size":2,"metadata":{}}'),
            resource("part", b"ab", 11),
            resource("a", b"aX", 13),
            answer("204 No Content"),
        ]
        upload = gcs.begin_upload("a", part_size=2)
        with pytest.raises(ChecksumMismatch):
            gcs.complete_upload(upload, [gcs.upload_part(upload, 1, b"ab")])
        line = server.requests[4][0]
        assert line.startswith("DELETE /storage/v1/b/bucket/o/a?")
        assert "ifGenerationMatch=13" in line


def test_no_secret_is_shown(azure: AzureStore, server: ScriptedServer) -> None:
    server.answers = [answer("403 Forbidden", b"x-ms-error-code: AuthenticationFailed\r\n")]
    with pytest.raises(BackupAgentError) as raised:
        azure.put("a", b"x")
    settings = AzureSettings("c", "u", "d", credential=AzureNamedKeyCredential("account", KEY))
    for text in (str(raised.value), repr(raised.value), raised.value.hint, repr(azure), repr(settings)):
        assert KEY not in text
