"""The S3 store against a server that answers exactly the bytes a test wrote down."""

import base64
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from botocore.credentials import ReadOnlyCredentials
from scripted import ScriptedServer, answer

from backupagent.errors import StoreError, StoreUnavailable, TruncatedObject
from backupagent.stores.base import ObjectInfo, PartTag, Upload
from backupagent.stores.s3 import S3Store, open_s3
from backupagent.stores.s3_settings import S3Settings

MiB = 1024 * 1024
ETAG = b'ETag: "e"\r\nDate: Mon, 23 Nov 2026 17:42:40 GMT\r\n'


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with closing(ScriptedServer()) as scripted:
        yield scripted


@pytest.fixture
def store(server: ScriptedServer) -> Iterator[S3Store]:
    port = server.listener.getsockname()[1]
    settings = S3Settings(
        "bucket",
        endpoint=f"http://127.0.0.1:{port}",
        region="eu-1",
        path_style=True,
        access_key_id="AKIA",
        secret_access_key="hunter2",
    )
    with closing(open_s3(settings)) as opened:
        yield opened


def partial(body: bytes, first: int = 0, *, total: int = 100, length: int | None = None) -> bytes:
    last = first + (len(body) if length is None else length) - 1
    return answer(
        "206 Partial Content", ETAG + f"Content-Range: bytes {first}-{last}/{total}\r\n".encode(), body, length
    )


CHUNKED = b"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"


class TestRequests:
    def test_a_put_is_one_request_with_a_crc_and_no_hash(self, store, server) -> None:
        server.answers = [answer("200 OK", ETAG)]
        info = store.put("v2/a b", b"content", if_absent=True, metadata={"name": "value"})
        assert (info.etag, info.modified_s) == ('"e"', 1795455760)
        ((line, headers, body),) = server.requests
        assert line == "PUT /bucket/v2/a%20b HTTP/1.1"
        assert body == b"content"
        assert headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
        assert headers["x-amz-checksum-crc32"] == base64.b64encode(zlib.crc32(b"content").to_bytes(4, "big")).decode()
        assert headers["if-none-match"] == "*"
        assert headers["x-amz-meta-name"] == "value"
        assert "transfer-encoding" not in headers
        assert "expect" not in headers
        assert "hunter2" not in str(headers)

    def test_the_buffer_of_the_caller_goes_out_itself(self, store, server, monkeypatch: pytest.MonkeyPatch) -> None:
        server.answers = [answer("200 OK", ETAG)]
        buffer = bytearray(5 * MiB)
        sent = []
        original = socket.socket.sendall
        monkeypatch.setattr(socket.socket, "sendall", lambda sock, data: (sent.append(data), original(sock, data))[1])
        store.upload_part(Upload("a", "id", 5 * MiB), 1, memoryview(buffer))
        bodies = [data for data in sent if len(data) == 5 * MiB]
        assert len(bodies) == 1
        assert bodies[0].obj is buffer

    def test_a_read_asks_for_its_range_of_that_very_object(self, store, server) -> None:
        server.answers = [partial(b"abc", 7)]
        buffer = bytearray(3)
        store.read_into("a", memoryview(buffer), offset=7, etag='"e"')
        assert buffer == b"abc"
        ((line, headers, _),) = server.requests
        assert line == "GET /bucket/a HTTP/1.1"
        assert (headers["range"], headers["if-match"]) == ("bytes=7-9", '"e"')

    def test_a_part_is_named_in_the_query(self, store, server) -> None:
        crc = base64.b64encode(zlib.crc32(b"content").to_bytes(4, "big"))
        server.answers = [answer("200 OK", ETAG + b"x-amz-checksum-crc32: " + crc + b"\r\n")]
        tag = store.upload_part(Upload("a", "x/y+z=", 7), 3, b"content")
        assert tag == PartTag(3, 7, '"e"', zlib.crc32(b"content"))
        ((line, headers, body),) = server.requests
        assert line == "PUT /bucket/a?partNumber=3&uploadId=x%2Fy%2Bz%3D HTTP/1.1"
        assert headers["x-amz-checksum-crc32"] == crc.decode()
        assert body == b"content"

    def test_every_request_has_the_credentials_of_its_time(self, store, server, monkeypatch) -> None:
        class Refreshed:
            def __init__(self) -> None:
                self.serial = 0

            def get_frozen_credentials(self) -> ReadOnlyCredentials:
                self.serial += 1
                return ReadOnlyCredentials(f"ASIA{self.serial}", "hunter2", f"token{self.serial}")

        monkeypatch.setattr(store._direct, "_credentials", Refreshed())
        for serial in (1, 2):
            server.answers = [answer("200 OK", ETAG)]
            store.put("a", b"x")
            _, headers, _ = server.requests[-1]
            assert headers["authorization"].startswith(f"AWS4-HMAC-SHA256 Credential=ASIA{serial}/")
            assert headers["x-amz-security-token"] == f"token{serial}"

    def test_an_etag_that_is_no_header_is_not_sent(self, store, server) -> None:
        for etag in ("e\r\nx-amz-meta-a: b", "é"):
            with pytest.raises(StoreError, match="etag"):
                store.read_into("a", memoryview(bytearray(1)), etag=etag)
        assert server.requests == []

    def test_complete_sends_what_the_store_told(self, store, server) -> None:
        xml = b"<CompleteMultipartUploadResult><ETag>&quot;x-2&quot;</ETag></CompleteMultipartUploadResult>"
        server.answers = [answer("200 OK", body=xml)]
        upload = Upload("a", "id", 5)
        info = store.complete_upload(upload, [PartTag(1, 5, '"one"', 7), PartTag(2, 3, '"two"')], if_absent=True)
        assert (info.size, info.etag, info.modified_s) == (8, '"x-2"', 0)
        ((line, headers, body),) = server.requests
        assert line == "POST /bucket/a?uploadId=id HTTP/1.1"
        assert headers["if-none-match"] == "*"
        assert body.count(b"<ChecksumCRC32>AAAABw==</ChecksumCRC32>") == body.count(b"<ChecksumCRC32>") == 1

    def test_no_secret_is_shown(self, store, server) -> None:
        assert "hunter2" not in repr(S3Settings("b", access_key_id="AKIA", secret_access_key="hunter2"))
        assert "AKIA" not in repr(S3Settings("b", access_key_id="AKIA", secret_access_key="hunter2"))
        assert "hunter2" not in f"{store!r} {store.display}"


class TestAnswers:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (partial(b"ab", total=2), TruncatedObject),
            (partial(b"ab", length=4), StoreUnavailable),
            (partial(b"abcd", 1), StoreError),
            (answer("200 OK", ETAG, b"abcdefgh"), TruncatedObject),
            (answer("503 Slow Down", b"Retry-After: 9\r\n"), StoreUnavailable),
            (CHUNKED, TruncatedObject),
            (answer("300 Multiple Choices", b"", b"abcd"), StoreUnavailable),
            (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", StoreUnavailable),
            (b"", StoreUnavailable),
            (b"HTTP/1.1 ", StoreUnavailable),
            (b"no HTTP at all\r\n\r\n", StoreUnavailable),
        ],
        ids=[
            "short object",
            "cut",
            "other range",
            "range ignored",
            "busy",
            "no length",
            "choices",
            "switch",
            "closed",
            "half a line",
            "not HTTP",
        ],
    )
    def test_wrong_answers_to_a_read(self, store, server, given: bytes, expected: type[Exception]) -> None:
        server.answers = [given]
        with pytest.raises(expected) as raised:
            store.read_into("a", memoryview(bytearray(4)))
        assert type(raised.value) is expected
        assert len(server.requests) == 1, "the SDK must not repeat requests by itself"

    def test_a_whole_object_may_come_without_a_range(self, store, server) -> None:
        server.answers = [answer("200 OK", ETAG, b"abcd")]
        buffer = bytearray(4)
        store.read_into("a", memoryview(buffer))
        assert buffer == b"abcd"

    def test_what_stat_tells(self, store, server) -> None:
        headers = b"Last-Modified: Mon, 23 Nov 2026 17:42:40 GMT\r\nX-Amz-Meta-Backupagent: {}\r\nx-amz-meta-b: \r\n"
        server.answers = [answer("200 OK", ETAG + headers, length=1234)]
        metadata = {"backupagent": "{}", "b": ""}
        assert store.stat("a") == ObjectInfo("a", 1234, '"e"', 1795455760, metadata)
        ((line, _, _),) = server.requests
        assert line == "HEAD /bucket/a HTTP/1.1"

    @pytest.mark.parametrize("size", [b"", b"-1", b"x", "\u0663".encode()])
    def test_a_size_that_is_none(self, store, server, size: bytes) -> None:
        server.answers = [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " + size + b"\r\n\r\n"]
        with pytest.raises(StoreError, match="size"):
            store.stat("a")

    def test_what_cannot_be_read_of_an_answer_is_left_out(self, store, server) -> None:
        headers = b"Date: yesterday\r\nx-amz-checksum-crc32: ?\r\n"
        server.answers = [answer("200 OK", headers), answer("200 OK", headers)]
        assert store.put("a", b"x") == ObjectInfo("a", 1, "", 0)
        assert store.upload_part(Upload("a", "id", 5), 1, b"x") == PartTag(1, 1, "", None)

    @pytest.mark.parametrize("call", [lambda store: store.stat("a"), lambda store: store.put("a", b"x")])
    def test_another_region_is_named(self, store, server, call: Callable[[S3Store], object]) -> None:
        server.answers = [answer("301 Moved Permanently", b"x-amz-bucket-region: ap-south-2\r\n")]
        with pytest.raises(StoreError) as raised:
            call(store)
        assert "?region=ap-south-2" in raised.value.hint
        assert len(server.requests) == 1

    def test_retry_after_is_passed_on(self, store, server) -> None:
        server.answers = [answer("503 Slow Down", b"Retry-After: 9\r\n", b"<Error><Code>SlowDown</Code></Error>")]
        with pytest.raises(StoreUnavailable) as raised:
            store.put("a", b"x")
        assert raised.value.retry_after_s == 9
        assert len(server.requests) == 1

    def test_an_error_that_says_200_is_an_error(self, store, server) -> None:
        server.answers = [answer("200 OK", body=b"<Error><Code>InternalError</Code><Message>m</Message></Error>")]
        with pytest.raises(StoreUnavailable, match="InternalError"):
            store.complete_upload(Upload("a", "id", 5), [PartTag(1, 5, '"one"')])
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        "call",
        [
            lambda store: list(store.list_objects("")),
            lambda store: store.stat("a"),
            lambda store: store.delete("a"),
            lambda store: store.begin_upload("a", part_size=5 * MiB),
            lambda store: store.list_parts(Upload("a", "id", 5)),
            lambda store: store.list_uploads(""),
            lambda store: store.abort_upload(Upload("a", "id", 5)),
            lambda store: store.upload_part(Upload("a", "id", 5), 1, b"x"),
        ],
    )
    def test_a_closed_connection_is_one_failed_request(self, store, server, call: Callable[[S3Store], object]) -> None:
        server.answers = [b""]
        with pytest.raises(StoreUnavailable):
            call(store)
        assert len(server.requests) == 1

    def test_folder_markers_are_not_listed(self, store, server) -> None:
        entry = (
            "<Contents><Key>{}</Key><LastModified>2026-11-23T00:00:00.000Z</LastModified>"
            "<ETag>&quot;e&quot;</ETag><Size>1</Size></Contents>"
        )
        names = ("dir/", "dir/a%20b", "dir//c", "/d")
        xml = "<ListBucketResult><EncodingType>url</EncodingType>{}</ListBucketResult>"
        server.answers = [answer("200 OK", body=xml.format("".join(map(entry.format, names))).encode())]
        assert [info.key for info in store.list_objects("dir")] == ["dir/a b"]


def test_settings_that_the_sdk_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    with pytest.raises(StoreError, match="InvalidRegionError"):
        open_s3(S3Settings("b", region="no region"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "missing")
    with pytest.raises(StoreError, match="missing"):
        open_s3(S3Settings("b", region="r"))


def test_nobody_listens() -> None:
    settings = S3Settings(
        "b", endpoint="http://127.0.0.1:1", region="r", path_style=True, access_key_id="a", secret_access_key="s"
    )
    with closing(open_s3(settings)) as store, pytest.raises(StoreUnavailable):
        store.stat("a")


def test_without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    settings = S3Settings("b", endpoint="http://127.0.0.1:1", region="r")
    with closing(open_s3(settings)) as store, pytest.raises(StoreError) as raised:
        store.stat("a")
    assert raised.value.reason == "AccessDenied"
    assert "credentials" in raised.value.hint
