import json
from email.message import Message
from http.client import BadStatusLine, IncompleteRead

import pytest
import requests
import urllib3
from google.auth import exceptions as auth

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
from backupagent.stores.gcs_errors import SDK_ERRORS, Refusal, translate
from backupagent.stores.gcs_requests import MAX_REFUSAL


def refusal(status: int, body: bytes, headers: dict[str, str] | None = None) -> Refusal:
    answered = Message()
    for name, value in (headers or {}).items():
        answered[name] = value
    return Refusal(status, answered, body)


def explained(reason: str, message: str = "the message") -> bytes:
    return json.dumps({"error": {"code": 1, "message": message, "errors": [{"reason": reason}]}}).encode()


@pytest.mark.parametrize(
    ("op", "status", "reason", "expected"),
    [
        ("read", 404, "notFound", ObjectNotFound),
        ("list", 404, "notFound", ObjectNotFound),
        ("list", 410, "gone", ObjectNotFound),
        ("list", 401, "authError", AccessDenied),
        ("list", 403, "forbidden", AccessDenied),
        ("list", 403, "accountDisabled", AccessDenied),
        ("put", 412, "conditionNotMet", ObjectExists),
        ("complete upload", 412, "conditionNotMet", ObjectExists),
        ("read", 412, "conditionNotMet", ObjectChanged),
        ("upload part", 412, "conditionNotMet", ObjectChanged),
        ("read", 416, "requestedRangeNotSatisfiable", TruncatedObject),
        ("delete", 403, "retentionPolicyNotMet", ObjectLocked),
        ("delete", 403, "objectUnderActiveHold", ObjectLocked),
        ("put", 403, "rateLimitExceeded", StoreUnavailable),
        ("put", 429, "rateLimitExceeded", StoreUnavailable),
        ("put", 408, "uploadBrokenConnection", StoreUnavailable),
        ("put", 503, "backendError", StoreUnavailable),
        ("list", 500, "", StoreUnavailable),
        ("put", 400, "invalid", StoreError),
        ("put", 307, "", StoreError),
    ],
)
def test_refusals(op: str, status: int, reason: str, expected: type[BackupAgentError]) -> None:
    error = translate(refusal(status, explained(reason)), op, "v2/a", "gs://b")
    assert type(error) is expected
    for named in ("v2/a", "gs://b", reason, "the message"):
        assert named in str(error)


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (403, "Object 'b/a' is subject to bucket's retention policy or object retention", ObjectLocked),
        (403, "Object 'b/a' is under active Temporary hold and cannot be deleted", ObjectLocked),
        (400, 'Provided CRC32C "AAAAAA==" doesn\'t match calculated CRC32C "x"', StoreUnavailable),
    ],
)
def test_some_are_told_by_their_words(status: int, message: str, expected: type[BackupAgentError]) -> None:
    assert type(translate(refusal(status, explained("forbidden", message)), "put", "a", "gs://b")) is expected


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "HTTP status 500"),
        (b"Not Found\nand more", "Not Found"),
        (b"<html>\xff", "<html>"),
        (b'{"error": "text"}', "text"),
        (b'{"error": {"errors": []}}', "500"),
        (b'{"error": {"errors": [1]}}', "errors"),
        (b"[" * MAX_REFUSAL * 2, "[[["),
    ],
)
def test_bodies_of_any_kind(body: bytes, said: str) -> None:
    error = translate(refusal(500, body), "put", "a", "gs://b")
    assert type(error) is StoreUnavailable
    assert said in str(error)
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    ("header", "expected"), [("7", 7), ("", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-5", None), ("٣", None)]
)
def test_retry_after(header: str, expected: float | None) -> None:
    error = translate(refusal(503, b"", {"retry-after": header}), "put", "a", "gs://b")
    assert isinstance(error, StoreUnavailable)
    assert error.retry_after_s == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (requests.ConnectionError("refused"), StoreUnavailable),
        (requests.Timeout("slow"), StoreUnavailable),
        (requests.exceptions.ChunkedEncodingError("cut"), StoreUnavailable),
        (urllib3.exceptions.ProtocolError("cut"), StoreUnavailable),
        (ConnectionResetError("reset"), StoreUnavailable),
        (IncompleteRead(b""), StoreUnavailable),
        (BadStatusLine("x"), StoreUnavailable),
        (requests.exceptions.SSLError("CERTIFICATE_VERIFY_FAILED"), StoreError),
        (auth.TransportError("no route"), StoreUnavailable),
        (auth.RefreshError("invalid_grant", retryable=True), StoreUnavailable),
        (auth.RefreshError("invalid_grant: hunter2"), AccessDenied),
        (auth.DefaultCredentialsError("none"), AccessDenied),
    ],
)
def test_no_answer(error: Exception, expected: type[BackupAgentError]) -> None:
    assert isinstance(error, SDK_ERRORS)
    translated = translate(error, "read", "v2/a", "gs://b")
    assert type(translated) is expected
    assert type(error).__name__ in str(translated)
    assert "hunter2" not in str(translated)
