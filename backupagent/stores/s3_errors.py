"""Errors of boto3, botocore, urllib3 and HTTP as errors of ours: the one place that knows their names."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPException
from typing import Any

import urllib3.exceptions
from botocore import exceptions as sdk
from botocore.parsers import create_parser

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

SDK_ERRORS = (sdk.BotoCoreError, sdk.ClientError, urllib3.exceptions.HTTPError, HTTPException, OSError)
"""Everything that a call of the SDK or a direct request is known to raise."""

_BROKEN = (
    sdk.ConnectionError, sdk.HTTPClientError, sdk.IncompleteReadError, urllib3.exceptions.HTTPError, HTTPException,
    OSError,
)  # fmt: skip
"""Failures of the network: no answer, or not the whole of it."""

WRITES = frozenset({"put", "complete upload"})
"""Calls for which a failed precondition means that the object is there."""

# Source of the codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and MinIO's
# cmd/api-errors.go at the version that the tests run.
_BY_CODE: Mapping[str, type[StoreError]] = {
    **dict.fromkeys(
        ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"), StoreError
    ),
    **dict.fromkeys(("MethodNotAllowed", "NotImplemented"), StoreError),
    **dict.fromkeys(("NoSuchBucket", "NoSuchKey", "NoSuchUpload"), ObjectNotFound),
    **dict.fromkeys(
        (
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidAccessKeyId",
            "InvalidIdentityToken",
            "InvalidToken",
            "TokenRefreshRequired",
        ),
        AccessDenied,
    ),
    **dict.fromkeys(("BadDigest", "XAmzContentChecksumMismatch", "IncompleteBody", "RequestTimeout"), StoreUnavailable),
    **dict.fromkeys(
        ("IDPCommunicationError", "OperationAborted", "SlowDown", "Throttling", "ThrottlingException"),
        StoreUnavailable,
    ),
}
"""The codes whose status does not tell what they mean."""

_BY_STATUS: Mapping[int, type[StoreError]] = {
    HTTPStatus.UNAUTHORIZED: AccessDenied,
    HTTPStatus.FORBIDDEN: AccessDenied,
    HTTPStatus.NOT_FOUND: ObjectNotFound,
    HTTPStatus.TOO_MANY_REQUESTS: StoreUnavailable,
    HTTPStatus.NOT_IMPLEMENTED: StoreError,
}
_LOCKED = ("object lock", "worm protected")
"""AWS answers AccessDenied and MinIO InvalidRequest: only the words tell."""

_WRONG_REGION = frozenset({
    "301", "307", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect",
    "TemporaryRedirect",
})  # fmt: skip
_REGION = re.compile(r"[a-z0-9-]{1,63}")
_HINTS = {"RequestTimeTooSkewed": "set the clock of this machine right: signatures hold for 15 minutes"}
_TLS_HINT = (
    "name the CA that signed the endpoint's certificate: ?ca-file=PATH, trustedCaCert in the credentials, or"
    " AWS_CA_BUNDLE; and the endpoint by a name that is in the certificate"
)
_ENCRYPTED = ("server side encryption", "encryption parameters", "customer key", "encryption key", "sse-c")
_KEY_HINT = "give the key it was written with: sseCustomerKey and sseCustomerAlgorithm in the credentials"
_CREDENTIALS_HINT = "give credentials: ?credentials=PATH, AWS_APPLICATION_CREDENTIALS, or as the AWS SDK finds them"


def translate(error: Exception, op: str, key: str, store: str) -> BackupAgentError:
    """Turn an error of the SDK into one of ours.

    Args:
        error: One of ``SDK_ERRORS``.
        op: Name of the call; a failed precondition of one in ``WRITES`` means that the object is there.
        key: Key of the object, or the prefix of a listing.
        store: The store as shown to users.
    """
    if isinstance(error, sdk.ClientError):
        return _translate_answer(error.response, op, key, store)
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, sdk.NoCredentialsError | sdk.PartialCredentialsError | sdk.CredentialRetrievalError):
        return AccessDenied(reason, op=op, key=key, store=store, hint=_CREDENTIALS_HINT)
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return StoreError(reason, op=op, key=key, store=store, hint=_TLS_HINT)
    if isinstance(error, _BROKEN):
        return StoreUnavailable(reason, op=op, key=key, store=store)
    return StoreError(reason, op=op, key=key, store=store)


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> sdk.ClientError:
    """Read a refused direct request as the SDK reads those it made itself.

    Args:
        status: Above 300.
        headers: Of the answer.
        body: Its beginning; XML, or whatever a proxy may say.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    raw = {"status_code": status, "headers": lower, "body": body}
    answer = create_parser("rest-xml").parse(raw, None)  # type: ignore[arg-type]  # errors have no shape
    return sdk.ClientError(answer, "direct request")


def _translate_answer(answer: Any, op: str, key: str, store: str) -> BackupAgentError:  # noqa: ANN401 - parsed XML
    error = answer.get("Error", {})
    code, message = str(error.get("Code", "")), str(error.get("Message", ""))
    metadata = answer.get("ResponseMetadata", {})
    headers = metadata.get("HTTPHeaders", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    reason = f"{code}: {message}" if message else code or f"HTTP status {status}"
    if status == HTTPStatus.INSUFFICIENT_STORAGE or code == "XMinioStorageFull":
        return NoSpace(f"{op} {key!r} in {store}: {reason}", hint="free space in the store, then run the command again")
    if code == "InvalidRange":
        return TruncatedObject(f"{reason} ({store})", key=key)
    return _class_of(code, message, status, op)(
        reason,
        op=op,
        key=key,
        store=store,
        hint=_region_hint(error, headers) if code in _WRONG_REGION else _hint(code, message),
        retry_after_s=_retry_after_s(headers),
    )


def _class_of(code: str, message: str, status: int, op: str) -> type[StoreError]:
    if any(words in message.lower() for words in _LOCKED):
        return ObjectLocked
    if code == "ConditionalRequestConflict" or status == HTTPStatus.PRECONDITION_FAILED:
        return ObjectExists if op in WRITES else ObjectChanged
    failed_there = StoreUnavailable if status >= HTTPStatus.INTERNAL_SERVER_ERROR else StoreError
    return _BY_CODE.get(code) or _BY_STATUS.get(status) or failed_there


def _hint(code: str, message: str) -> str | None:
    encrypted = any(words in message.lower() for words in _ENCRYPTED)
    return _KEY_HINT if encrypted else _HINTS.get(code)


def _region_hint(error: Any, headers: Any) -> str:  # noqa: ANN401 - as the SDK gives it
    region = str(headers.get("x-amz-bucket-region") or error.get("Region"))
    return f"name the region of the bucket: ?region={region if _REGION.fullmatch(region) else 'REGION'}"


def _retry_after_s(headers: Any) -> float | None:  # noqa: ANN401 - as the SDK gives it
    """Read Retry-After in seconds; its other form, a date, would need both clocks to agree."""
    text = str(headers.get("retry-after", ""))
    return float(text) if text.isascii() and text.isdigit() else None
