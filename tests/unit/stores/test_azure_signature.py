"""What authorizes direct requests to Azure, beside what the SDK itself would send."""

import base64
from datetime import UTC, datetime

import pytest
from azure.core.credentials import AccessToken, AzureNamedKeyCredential
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.pipeline.transport import HttpRequest
from azure.storage.blob._shared.authentication import SharedKeyCredentialPolicy

from backupagent.clock import FakeClock
from backupagent.stores.azure_direct import crc64
from backupagent.stores.azure_signature import RENEW_BEFORE_S, SCOPE, Anonymous, SharedKey, Tokens, authorization

KEY = base64.b64encode(b"hunter2 hunter2 hunter2").decode()
OTHER = base64.b64encode(b"another key").decode()
HEADERS = {"x-ms-date": "Mon, 23 Nov 2026 17:42:40 GMT", "x-ms-version": "2021-12-02"}


def of_the_sdk(method: str, path: str, query: dict[str, str], headers: dict[str, str], key: str = KEY) -> str:
    request = HttpRequest(method, f"https://account.blob.core.windows.net{path}", headers=headers)
    request.format_parameters(query)
    SharedKeyCredentialPolicy("account", key).on_request(PipelineRequest(request, PipelineContext(None)))
    return request.headers["Authorization"]


@pytest.mark.parametrize(
    ("method", "path", "query", "headers"),
    [
        ("HEAD", "/cont/v2/a%20b", {}, {}),
        ("GET", "/cont/a", {}, {"x-ms-range": "bytes=3-6", "if-match": '"0x1"'}),
        (
            "PUT",
            "/account/cont/a%2Bb%C3%A4",
            {},
            {
                "content-length": "7",
                "content-type": "application/octet-stream",
                "if-none-match": "*",
                "x-ms-blob-type": "BlockBlob",
                "x-ms-content-crc64": "AAAAAAAAAAA=",
                "x-ms-meta-sha": "a b",
                "x-ms-meta-sharevision": "7",
            },
        ),
        ("PUT", "/cont/a", {"blockid": "YS5iLmM/Kw==", "comp": "block"}, {"content-length": "1"}),
    ],
)
def test_requests_are_signed_as_the_sdk_signs_them(
    method: str, path: str, query: dict[str, str], headers: dict[str, str]
) -> None:
    ours = SharedKey(AzureNamedKeyCredential("account", KEY)).header(method, path, query, HEADERS | headers)
    assert ours == of_the_sdk(method, path, query, HEADERS | headers)


def test_a_replaced_key_counts_at_once() -> None:
    credential = AzureNamedKeyCredential("account", KEY)
    signer = SharedKey(credential)
    assert signer.header("GET", "/c/a", {}, HEADERS) == of_the_sdk("GET", "/c/a", {}, HEADERS)
    credential.update("account", OTHER)
    assert signer.header("GET", "/c/a", {}, HEADERS) == of_the_sdk("GET", "/c/a", {}, HEADERS, OTHER)


class Credential:
    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.scopes: list[tuple[str, ...]] = []

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        self.scopes.append(scopes)
        return AccessToken(f"token{len(self.scopes)}", int(self.clock.now().timestamp()) + 3600)


def test_a_token_is_asked_for_once_and_renewed_before_it_ends() -> None:
    clock = FakeClock(start=datetime(2026, 11, 23, tzinfo=UTC))
    credential = Credential(clock)
    tokens = Tokens(credential, clock)
    assert [tokens.header("GET", "/c/a", {}, {}) for _ in range(2)] == ["Bearer token1"] * 2
    clock.sleep(3600 - RENEW_BEFORE_S)
    assert tokens.header("GET", "/c/a", {}, {}) == "Bearer token1"
    clock.sleep(1)
    assert tokens.header("GET", "/c/a", {}, {}) == "Bearer token2"
    assert credential.scopes == [(SCOPE,)] * 2


def test_each_credential_has_its_way() -> None:
    clock = FakeClock()
    assert isinstance(authorization(AzureNamedKeyCredential("account", KEY), clock), SharedKey)
    assert isinstance(authorization(Credential(clock), clock), Tokens)
    assert isinstance(authorization(None, clock), Anonymous)
    assert authorization(None, clock).header("GET", "/c/a", {}, {}) == ""


@pytest.mark.parametrize(
    ("content", "header"),
    [
        (b"Hello World", "YeJLfssylmU="),  # the service's answer in the recorded tests of Azure's SDK for JavaScript
        (b"Hello Azure!", "DtjZpL9/o8c="),  # a test vector of Azure's SDK for C++
        (b"", "AAAAAAAAAAA="),
    ],
)
def test_the_crc_is_that_of_the_service(content: bytes, header: str) -> None:
    assert base64.b64encode(crc64(memoryview(content)).to_bytes(8, "little")).decode() == header
