import ssl
from http.client import BadStatusLine, IncompleteRead

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
from backupagent.stores.s3_errors import SDK_ERRORS, refusal, translate


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


@pytest.mark.parametrize(
    ("status", "headers", "body", "region"),
    [
        (301, {"X-Amz-Bucket-Region": "eu-west-1"}, b"", "eu-west-1"),
        (307, {"X-Amz-Bucket-Region": "eu-west-1"}, b"<Error><Code>TemporaryRedirect</Code></Error>", "eu-west-1"),
        (301, {}, b"<Error><Code>PermanentRedirect</Code><Message>m</Message></Error>", "REGION"),
        (400, {}, b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>cn-north-1</Region></Error>", "cn-north-1"),
        (301, {"x-amz-bucket-region": "rm -rf /; echo"}, b"", "REGION"),
    ],
)
def test_the_region_of_the_bucket_is_named(status: int, headers: dict[str, str], body: bytes, region: str) -> None:
    error = translate(refusal(status, headers, body), "read", "a", "s3://b")
    assert type(error) is StoreError
    assert error.hint == f"name the region of the bucket: ?region={region}"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, b"<?xml version='1.0'?><Error><Code>NoSuchUpload</Code><Message>m</Message></Error>", ObjectNotFound),
        (400, b"<Error><Code>ExpiredToken</Code></Error>", AccessDenied),
        (503, b"<html>a proxy says this</html>", StoreUnavailable),
        (403, b"<Error><Code>cut in the midd", AccessDenied),
        (502, b"\xff\xfe no XML", StoreUnavailable),
        (412, b"", ObjectChanged),
        (416, b"<Error><Code>InvalidRange</Code></Error>", TruncatedObject),
        (400, b"<Error><Code><a><b/></a></Code></Error>", StoreError),
        (400, b"<Other/>", StoreError),
    ],
)
def test_refusals_of_direct_requests(status: int, body: bytes, expected: type[BackupAgentError]) -> None:
    assert type(translate(refusal(status, {"Retry-After": "3"}, body), "read", "a", "s3://b")) is expected


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
        (sdk.NoCredentialsError(), AccessDenied),
        (sdk.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), AccessDenied),
        (sdk.CredentialRetrievalError(provider="iam", error_msg="x"), AccessDenied),
        (sdk.NoRegionError(), StoreError),
        (urllib3.exceptions.ProtocolError("x"), StoreUnavailable),
        (IncompleteRead(b"", 7), StoreUnavailable),
        (BadStatusLine("x"), StoreUnavailable),
        (ConnectionResetError("x"), StoreUnavailable),
        (TimeoutError("x"), StoreUnavailable),
        (CERTIFICATE, StoreError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_failures_without_an_answer(error: Exception, expected: type[BackupAgentError]) -> None:
    assert isinstance(error, SDK_ERRORS)
    translated = translate(error, "read", "v2/a", "s3://b")
    assert type(translated) is expected
    assert "s3://b" in str(translated)
