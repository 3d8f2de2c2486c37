import ssl
from typing import Any

import pytest
import requests
from azure.core import exceptions as sdk

from backupagent.errors import (
    AccessDenied,
    BackupAgentError,
    ObjectChanged,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    StoreError,
    StoreUnavailable,
    TruncatedObject,
)
from backupagent.stores.azure_errors import SDK_ERRORS, Refusal, translate


class Answer:
    """What the SDK keeps of an answer."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status_code = status
        self.headers = headers
        self.reason = "the reason"
        self.content_type = ""

    def text(self, encoding: str | None = None) -> str:
        return ""


def answer(status: int, code: str, headers: dict[str, str] | None = None, **fields: Any) -> sdk.HttpResponseError:
    message = "the message\nRequestId:1\nAuthenticationErrorDetail:The MAC signature c2lnbmF0dXJl\nErrorCode:x"
    headers = {"x-ms-error-code": code} | (headers or {})
    return sdk.HttpResponseError(message=message, response=Answer(status, headers), **fields)


@pytest.mark.parametrize(
    ("op", "status", "code", "expected"),
    [
        ("read", 404, "BlobNotFound", ObjectNotFound),
        ("stat", 404, "", ObjectNotFound),
        ("list", 404, "ContainerNotFound", ObjectNotFound),
        ("list", 200, "", StoreUnavailable),
        ("list", 409, "ContainerBeingDeleted", ObjectNotFound),
        ("list", 403, "AuthenticationFailed", AccessDenied),
        ("list", 403, "AuthorizationPermissionMismatch", AccessDenied),
        ("list", 403, "KeyBasedAuthenticationNotPermitted", AccessDenied),
        ("list", 401, "NoAuthenticationInformation", AccessDenied),
        ("list", 400, "InvalidAuthenticationInfo", AccessDenied),
        ("put", 409, "BlobAlreadyExists", ObjectExists),
        ("put", 412, "ConditionNotMet", ObjectExists),
        ("complete upload", 409, "BlobAlreadyExists", ObjectExists),
        ("complete upload", 412, "ConditionNotMet", ObjectExists),
        ("read", 412, "ConditionNotMet", ObjectChanged),
        ("read", 416, "InvalidRange", TruncatedObject),
        ("put", 409, "BlobImmutableDueToPolicy", ObjectLocked),
        ("delete", 412, "LeaseIdMissing", ObjectLocked),
        ("put", 503, "ServerBusy", StoreUnavailable),
        ("put", 500, "InternalError", StoreUnavailable),
        ("put", 500, "OperationTimedOut", StoreUnavailable),
        ("list", 429, "", StoreUnavailable),
        ("list", 408, "", StoreUnavailable),
        ("put", 400, "Md5Mismatch", StoreUnavailable),
        ("complete upload", 400, "InvalidBlockList", StoreError),
        ("upload part", 400, "InvalidBlobOrBlock", StoreError),
        ("read", 409, "BlobArchived", StoreError),
        ("put", 413, "RequestBodyTooLarge", StoreError),
    ],
)
def test_answers(op: str, status: int, code: str, expected: type[BackupAgentError]) -> None:
    error = translate(answer(status, code), op, "v2/a", "az://c")
    assert type(error) is expected
    for named in ("v2/a", "az://c", code, "the message"):
        assert named in str(error)
    assert "c2lnbmF0dXJl" not in f"{error} {error.hint}"


def test_the_code_of_the_sdk_comes_first_and_is_a_word() -> None:
    given = answer(409, "Other")
    given.error_code = "BlobAlreadyExists"
    assert type(translate(given, "put", "a", "az://c")) is ObjectExists
    assert "<b>" not in str(translate(answer(400, "<b>"), "put", "a", "az://c"))


@pytest.mark.parametrize(
    ("header", "expected"), [("7", 7), ("", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-5", None), ("٣", None)]
)
def test_retry_after(header: str, expected: float | None) -> None:
    error = translate(answer(503, "ServerBusy", {"retry-after": header}), "put", "a", "az://c")
    assert isinstance(error, StoreUnavailable)
    assert error.retry_after_s == expected


@pytest.mark.parametrize("code", ["AuthenticationFailed", "InvalidBlockList", "BlobArchived", "AccountRequiresHttps"])
def test_hints_name_the_remedy(code: str) -> None:
    error = translate(answer(400, code), "put", "a", "az://c")
    assert error.hint not in {"", StoreError.default_hint, AccessDenied.default_hint}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (sdk.ServiceRequestError("refused"), StoreUnavailable),
        (sdk.ServiceResponseError("reset"), StoreUnavailable),
        (sdk.IncompleteReadError("cut"), StoreUnavailable),
        (sdk.HttpResponseError("the answer ended early"), StoreUnavailable),
        (sdk.ServiceRequestTimeoutError("slow"), StoreUnavailable),
        (requests.ConnectionError("reset"), StoreUnavailable),
        (ConnectionResetError("reset"), StoreUnavailable),
        (sdk.ClientAuthenticationError("no token"), AccessDenied),
        (sdk.AzureError("other"), StoreError),
        (sdk.ServiceRequestError(str(ssl.SSLError("CERTIFICATE_VERIFY_FAILED"))), StoreError),
    ],
)
def test_no_answer(error: Exception, expected: type[BackupAgentError]) -> None:
    assert isinstance(error, SDK_ERRORS)
    translated = translate(error, "read", "v2/a", "az://c")
    assert type(translated) is expected
    assert type(error).__name__ in str(translated)


XML = (
    b'\xef\xbb\xbf<?xml version="1.0"?><Error><Code>%s</Code><Message>%s\nRequestId:1\n'
    b"AuthenticationErrorDetail: the MAC signature c2lnbmF0dXJl</Message></Error>"
)


@pytest.mark.parametrize(
    ("op", "status", "headers", "body", "expected", "said"),
    [
        ("put", 400, {}, XML % (b"Crc64Mismatch", b"bad &amp; worse"), StoreUnavailable, "Crc64Mismatch: bad & worse"),
        ("stat", 404, {"x-ms-error-code": "BlobNotFound"}, b"", ObjectNotFound, "BlobNotFound"),
        ("put", 409, {}, XML % (b"BlobAlreadyExists", b"there"), ObjectExists, "BlobAlreadyExists: there"),
        ("read", 416, {}, XML % (b"InvalidRange", b"too far"), TruncatedObject, "InvalidRange: too far"),
        ("read", 403, {}, XML % (b"AuthenticationFailed", b"no"), AccessDenied, "AuthenticationFailed: no"),
        ("read", 502, {}, b"<html>a proxy\xff", StoreUnavailable, "HTTP status 502"),
        ("read", 307, {"x-ms-error-code": "<b>"}, b"", StoreError, "HTTP status 307"),
    ],
)
def test_refusals_of_direct_requests(
    op: str, status: int, headers: dict[str, str], body: bytes, expected: type[BackupAgentError], said: str
) -> None:
    refusal = Refusal(status, headers, body)
    assert isinstance(refusal, SDK_ERRORS)
    error = translate(refusal, op, "v2/a", "az://c")
    assert type(error) is expected
    assert said in str(error)
    assert "c2lnbmF0dXJl" not in f"{error}{refusal!r}"


def test_retry_after_of_direct_requests() -> None:
    error = translate(Refusal(503, {"retry-after": "7"}, b""), "put", "a", "az://c")
    assert isinstance(error, StoreUnavailable)
    assert error.retry_after_s == 7
