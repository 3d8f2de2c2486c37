import ssl

import pytest
import urllib3.exceptions
from botocore import exceptions as sdk

from backupagent.errors import (
    AccessDenied,
    BackupAgentError,
    NoSpace,
    ObjectChanged,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    StoreError,
    StoreUnavailable,
    TruncatedObject,
)
from backupagent.stores.s3_errors import SDK_ERRORS, translate


def answer(status: int, code: str, message: str = "", headers: dict[str, str] | None = None) -> sdk.ClientError:
    response = {
        "Error": {"Code": code, "Message": message, "AWSAccessKeyId": "AKIASECRET", "StringToSign": "AKIASECRET"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}},
    }
    return sdk.ClientError(response, "Operation")


@pytest.mark.parametrize(
    ("op", "status", "code", "expected"),
    [
        ("read", 404, "NoSuchKey", ObjectNotFound),
        ("stat", 404, "404", ObjectNotFound),
        ("list", 404, "NoSuchBucket", ObjectNotFound),
        ("upload part", 404, "NoSuchUpload", ObjectNotFound),
        ("list", 403, "AccessDenied", AccessDenied),
        ("stat", 403, "403", AccessDenied),
        ("list", 401, "Unauthorized", AccessDenied),
        ("list", 403, "InvalidAccessKeyId", AccessDenied),
        ("list", 403, "SignatureDoesNotMatch", AccessDenied),
        ("list", 400, "ExpiredToken", AccessDenied),
        ("list", 403, "RequestTimeTooSkewed", AccessDenied),
        ("put", 412, "PreconditionFailed", ObjectExists),
        ("put", 409, "ConditionalRequestConflict", ObjectExists),
        ("complete upload", 412, "PreconditionFailed", ObjectExists),
        ("read", 412, "PreconditionFailed", ObjectChanged),
        ("read", 412, "412", ObjectChanged),
        ("read", 416, "InvalidRange", TruncatedObject),
        ("put", 503, "SlowDown", StoreUnavailable),
        ("put", 503, "SlowDownWrite", StoreUnavailable),
        ("list", 500, "InternalError", StoreUnavailable),
        ("complete upload", 500, "InternalError", StoreUnavailable),
        ("list", 502, "502", StoreUnavailable),
        ("list", 429, "TooManyRequests", StoreUnavailable),
        ("put", 400, "RequestTimeout", StoreUnavailable),
        ("put", 400, "BadDigest", StoreUnavailable),
        ("put", 400, "XAmzContentChecksumMismatch", StoreUnavailable),
        ("put", 409, "OperationAborted", StoreUnavailable),
        ("put", 507, "XMinioStorageFull", NoSpace),
        ("put", 507, "", NoSpace),
        ("complete upload", 400, "EntityTooSmall", StoreError),
        ("put", 400, "EntityTooLarge", StoreError),
        ("list", 301, "PermanentRedirect", StoreError),
        ("list", 400, "AuthorizationHeaderMalformed", StoreError),
    ],
)
def test_answers(op: str, status: int, code: str, expected: type[BackupAgentError]) -> None:
    error = translate(answer(status, code, "the message"), op, "v2/a", "s3://b")
    assert type(error) is expected
    for named in ("v2/a", "s3://b", code):
        assert named in str(error)
    assert "AKIASECRET" not in f"{error} {error.hint}"


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("AccessDenied", 403, "Access Denied because object protected by object lock."),
        ("InvalidRequest", 400, "Object is WORM protected and cannot be overwritten"),
    ],
)
def test_locks_are_told_by_their_words(code: str, status: int, message: str) -> None:
    assert type(translate(answer(status, code, message), "delete", "a", "s3://b")) is ObjectLocked


@pytest.mark.parametrize(
    ("header", "expected"), [("7", 7), ("", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-5", None), ("٣", None)]
)
def test_retry_after(header: str, expected: float | None) -> None:
    error = translate(answer(503, "SlowDown", headers={"retry-after": header}), "put", "a", "s3://b")
    assert isinstance(error, StoreUnavailable)
    assert error.retry_after_s == expected


@pytest.mark.parametrize(
    ("code", "word"), [("PermanentRedirect", "region"), ("RequestTimeTooSkewed", "clock"), ("AccessDenied", "policy")]
)
def test_hints_name_the_remedy(code: str, word: str) -> None:
    assert word in translate(answer(403, code), "list", "", "s3://b").hint


URL = "http://127.0.0.1:1/b"
CERTIFICATE = ssl.SSLCertVerificationError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (sdk.EndpointConnectionError(endpoint_url=URL), StoreUnavailable),
        (sdk.ConnectTimeoutError(endpoint_url=URL), StoreUnavailable),
        (sdk.ReadTimeoutError(endpoint_url=URL), StoreUnavailable),
        (sdk.ConnectionClosedError(endpoint_url=URL), StoreUnavailable),
        (sdk.ProxyConnectionError(proxy_url=URL), StoreUnavailable),
        (sdk.ResponseStreamingError(error="x"), StoreUnavailable),
        (sdk.IncompleteReadError(actual_bytes=1, expected_bytes=2), StoreUnavailable),
        (sdk.HTTPClientError(error="x"), StoreUnavailable),
        (sdk.SSLError(endpoint_url=URL, error="EOF occurred in violation of protocol"), StoreUnavailable),
        (sdk.SSLError(endpoint_url=URL, error=CERTIFICATE), StoreError),
        (sdk.UnseekableStreamError(stream_object=b""), StoreUnavailable),
        (sdk.NoCredentialsError(), AccessDenied),
        (sdk.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), AccessDenied),
        (sdk.CredentialRetrievalError(provider="iam", error_msg="x"), AccessDenied),
        (sdk.NoRegionError(), StoreError),
        (urllib3.exceptions.ProtocolError("x"), StoreUnavailable),
        (ConnectionResetError("x"), StoreUnavailable),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_failures_without_an_answer(error: Exception, expected: type[BackupAgentError]) -> None:
    assert isinstance(error, SDK_ERRORS)
    translated = translate(error, "read", "v2/a", "s3://b")
    assert type(translated) is expected
    assert "s3://b" in str(translated)
