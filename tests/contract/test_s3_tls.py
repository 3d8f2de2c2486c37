"""A real S3 server over TLS: whom we trust, and keys of the customer's own (SSE-C), which need TLS."""

import base64
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_access import content, keys, part_size, read
from tls_minio import TlsMinioServer, make_certificate

from backupagent import wiring
from backupagent.cancel import Cancel
from backupagent.errors import ConfigError, StoreError
from backupagent.progress import Progress
from backupagent.settings import CopySettings, RestoreSettings
from backupagent.stores import open_store, parse_location
from backupagent.stores.base import ObjectStore

pytestmark = pytest.mark.servers

GOLDEN = Path(__file__).parent.parent / "golden" / "gzip"
KEY, OTHER_KEY = "0123456789abcdef0123456789abcdef", base64.b64encode(bytes(32)).decode()


@pytest.fixture(scope="module")
def tls(server_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsMinioServer]:
    certificates = make_certificate(tmp_path_factory.mktemp("tls") / "own", "own").parent
    with TlsMinioServer(certificates, binary=server_binary("minio")) as server:
        server.make_bucket("backups")
        yield server


@pytest.fixture
def uri(tls: TlsMinioServer) -> str:
    return f"s3://backups?endpoint={tls.endpoint_url}&region={tls.REGION}&path-style=true"


@contextlib.contextmanager
def opened(tls: TlsMinioServer, uri: str, **fields: str) -> Iterator[ObjectStore]:
    credentials = {"accessKeyID": tls.access_key, "secretAccessKey": tls.secret_key, **fields}
    with contextlib.closing(open_store(parse_location(uri), credentials=credentials)) as store:
        yield store


def use(store: ObjectStore) -> None:
    """Make requests of both kinds: direct ones and the SDK's."""
    store.put("a", b"content")
    assert "a" in keys(store)
    assert read(store, "a", 7) == b"content"
    store.delete("a")


class TestTrust:
    def test_a_ca_that_is_named(self, tls: TlsMinioServer, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with opened(tls, f"{uri}&ca-file={tls.ca}") as store:
            use(store)
        with opened(tls, uri, trustedCaCert=tls.ca.read_text()) as store:
            use(store)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tls.ca))
        with opened(tls, uri) as store:
            use(store)

    @pytest.mark.parametrize("given", ["nothing", "another"])
    def test_no_other(self, tls: TlsMinioServer, uri: str, tmp_path: Path, given: str) -> None:
        if given == "another":
            uri += f"&ca-file={make_certificate(tmp_path / 'other', 'other')}"
        with opened(tls, uri) as store:
            for call in (lambda: store.put("a", b"x"), lambda: list(store.list_objects(""))):
                with pytest.raises(StoreError, match="CERTIFICATE_VERIFY_FAILED") as raised:
                    call()
                assert not raised.value.retryable
                assert "?ca-file=PATH" in raised.value.hint
                assert "trustedCaCert" in raised.value.hint

    def test_nobody_is_asked_who_skips_that(self, tls: TlsMinioServer, uri: str, caplog) -> None:
        for _ in range(2):
            with opened(tls, f"{uri}&skip-verify=true") as store:
                use(store)
        assert caplog.text.count("certificates are not verified") == 1
        with opened(tls, uri, insecureSkipVerify="true") as store:
            use(store)

    def test_what_is_no_ca_is_refused_at_once(self, tls: TlsMinioServer, uri: str, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_text("hello")
        for location, fields, named in (
            (f"{uri}&ca-file={tmp_path / 'ca.pem'}", {}, "ca.pem"),
            (f"{uri}&ca-file={tmp_path / 'gone.pem'}", {}, "gone.pem"),
            (uri, {"trustedCaCert": "hello"}, "trustedCaCert"),
        ):
            with pytest.raises(ConfigError, match=named), opened(tls, location, **fields):
                pass


class TestCustomerKey:
    FIELDS = {"sseCustomerKey": KEY, "sseCustomerAlgorithm": "AES256"}  # noqa: RUF012 - not changed

    @pytest.fixture
    def trusting(self, tls: TlsMinioServer, uri: str) -> str:
        return f"{uri}&ca-file={tls.ca}"

    @pytest.mark.parametrize("checksums", ["when_supported", "when_required"])
    def test_all_that_is_written_is_read_with_the_key_only(self, tls, trusting: str, checksums: str) -> None:
        with opened(tls, f"{trusting}&request-checksums={checksums}", **self.FIELDS) as store:
            store.put("sse/a", b"content", metadata={"name": "value"})
            assert read(store, "sse/a", 7) == b"content"
            assert store.stat("sse/a").metadata == {"name": "value"}
            upload = store.begin_upload("sse/b", part_size=part_size(store))
            pieces = [content(part_size(store)), b"tail"]
            tags = [store.upload_part(upload, number, piece) for number, piece in enumerate(pieces, 1)]
            assert store.list_parts(upload) == tags
            assert [tag.crc32 is None for tag in tags] == [checksums == "when_required"] * 2
            store.complete_upload(upload, tags)
            assert read(store, "sse/b", 4, offset=part_size(store)) == b"tail"
        for fields in ({}, self.FIELDS | {"sseCustomerKey": OTHER_KEY}):
            with opened(tls, trusting, **fields) as store:
                with pytest.raises(StoreError) as raised:
                    read(store, "sse/a", 7)
                assert not raised.value.retryable
                assert "sseCustomerKey" in raised.value.hint
                with pytest.raises(StoreError):
                    store.stat("sse/a")
                assert KEY not in f"{raised.value} {raised.value.hint}"

    def test_copy_and_restore(self, tls, trusting: str, tmp_path: Path, caplog) -> None:
        caplog.set_level("DEBUG", "backupagent")
        fields = {"accessKeyID": tls.access_key, "secretAccessKey": tls.secret_key, **self.FIELDS}
        (tmp_path / "with.json").write_text(json.dumps(fields))
        uri = trusting.replace("s3://backups?", "s3://backups/p?") + f"&credentials={tmp_path / 'with.json'}"
        copied = wiring.run_copy(CopySettings(source=GOLDEN.as_uri(), target=uri), Progress(), Cancel())
        back = CopySettings(source=uri, target=(tmp_path / "back").as_uri())
        assert wiring.run_copy(back, Progress(), Cancel()).copied == copied.copied
        original = {path.name: path.read_bytes() for path in (GOLDEN / "v2").iterdir()}
        assert {path.name: path.read_bytes() for path in (tmp_path / "back" / "v2").iterdir()} == original
        wiring.run_restore(RestoreSettings(store=uri, data_dir=tmp_path / "etcd"), Progress(), Cancel())
        assert KEY not in caplog.text
        assert base64.b64encode(KEY.encode()).decode() not in caplog.text
