"""Errors of the Azure SDK and of the service as errors of ours: the one place that knows their names."""

import html
import re
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPException
from typing import Any

import requests
import urllib3.exceptions
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


class Refusal(Exception):
    """An answer to a direct request that is none of the successful ones.

    Args:
        status: Of HTTP.
        headers: Of the answer.
        body: Its beginning; XML, or whatever a proxy may say.

    Attributes:
        status: Of HTTP.
        code: The service's name of the error; empty when it gives none.
        message: Its explanation; may have several lines.
        retry_after_s: How long it asks to wait.
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        text = body.decode(errors="replace")
        found = _MESSAGE.search(text)
        self.message = html.unescape(found[1]) if found else ""
        named = _XML_CODE.search(text)
        self.code = _checked(headers.get("x-ms-error-code", "") or (named[1] if named else ""))
        self.retry_after_s = _retry_after_s(headers.get("retry-after", ""))
        super().__init__(f"{status} {self.code}")  # not the message, which may hold what was signed


SDK_ERRORS = (sdk.AzureError, Refusal, requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError)
"""Everything that a call of the SDK or a direct request is known to raise."""

WRITES = frozenset({"put", "complete upload"})
"""Calls for which a failed precondition means that the object is there."""

# Source of the codes: https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes and
# .../common-rest-api-error-codes
_BY_CODE: Mapping[str, type[StoreError]] = {
    **dict.fromkeys(("BlobNotFound", "ContainerBeingDeleted", "ContainerNotFound", "ResourceNotFound"), ObjectNotFound),
    **dict.fromkeys(("InvalidAuthenticationInfo", "NoAuthenticationInformation"), AccessDenied),
    **dict.fromkeys(("BlobAlreadyExists", "UnauthorizedBlobOverwrite"), ObjectExists),
    **dict.fromkeys(("BlobImmutableDueToPolicy", "BlobImmutableDueToLegalHold"), ObjectLocked),
    **dict.fromkeys(("LeaseIdMismatchWithBlobOperation", "LeaseIdMissing", "LeaseLost"), ObjectLocked),
    **dict.fromkeys(("Crc64Mismatch", "Md5Mismatch", "OperationTimedOut", "ServerBusy"), StoreUnavailable),
    "BlobOverwritten": ObjectChanged,
    "OutOfRangeInput": StoreError,
}
"""The codes whose status does not tell what they mean."""

_BY_STATUS: Mapping[int, type[StoreError]] = {
    HTTPStatus.UNAUTHORIZED: AccessDenied,
    HTTPStatus.FORBIDDEN: AccessDenied,
    HTTPStatus.NOT_FOUND: ObjectNotFound,
    HTTPStatus.REQUEST_TIMEOUT: StoreUnavailable,
    HTTPStatus.TOO_MANY_REQUESTS: StoreUnavailable,
    HTTPStatus.NOT_IMPLEMENTED: StoreError,
}

_BROKEN = (
    sdk.ServiceRequestError, sdk.ServiceResponseError, sdk.IncompleteReadError, requests.RequestException,
    urllib3.exceptions.HTTPError, HTTPException, OSError, sdk.HttpResponseError,
)  # fmt: skip
"""Failures of the network: no answer, or not the whole of it; the last one is raised without an answer then."""

_CREDENTIALS_HINT = "give credentials: ?credentials=PATH, AZURE_APPLICATION_CREDENTIALS, or what azure-identity finds"
_HINTS: Mapping[str, str] = {
    "AccountRequiresHttps": "write https:// in the endpoint",
    "AuthenticationFailed": "check storageAccount and storageKey, and the clock of this machine: within 15 minutes",
    "BlobArchived": "bring the object back from the archive tier, then run the command again",
    "InvalidBlobOrBlock": "another program left an upload of this object: it goes after a week, or by writing it once",
    "InvalidBlockList": "another upload of the same object was completed first: run the command again",
    "KeyBasedAuthenticationNotPermitted": "the account wants tokens: leave storageKey out, azure-identity finds one",
}
_TLS_HINT = "name the file with the certificates of the endpoint's CA in REQUESTS_CA_BUNDLE"
_CODE = re.compile(r"[A-Za-z0-9]{1,64}")
_XML_CODE = re.compile(r"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)")


def translate(error: Exception, op: str, key: str, store: str) -> BackupAgentError:
    """Turn an error of the SDK into one of ours.

    Args:
        error: One of ``SDK_ERRORS``.
        op: Name of the call; a failed precondition of one in ``WRITES`` means that the object is there.
        key: Key of the object, or the prefix of a listing.
        store: The store as shown to users.
    """
    if isinstance(error, sdk.HttpResponseError) and error.response is not None:
        headers: Any = getattr(error.response, "headers", None) or {}
        error = _refusal(int(error.status_code or 0), code_of(error), error.message or "", headers)
    if isinstance(error, Refusal):
        return _translate_refusal(error, op, key, store)
    reason = f"{type(error).__name__}: {_first_line(str(error))}"
    if isinstance(error, sdk.ClientAuthenticationError):
        return AccessDenied(reason, op=op, key=key, store=store, hint=_CREDENTIALS_HINT)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreError(reason, op=op, key=key, store=store, hint=_TLS_HINT)
    if isinstance(error, _BROKEN):
        return StoreUnavailable(reason, op=op, key=key, store=store)
    return StoreError(reason, op=op, key=key, store=store)


def code_of(error: sdk.HttpResponseError) -> str:
    """Return the service's name of an error; empty where it gives none."""
    headers: Any = getattr(error.response, "headers", None) or {}
    code = getattr(error, "error_code", None) or headers.get("x-ms-error-code", "")
    return _checked(str(getattr(code, "value", code)))


def _checked(code: str) -> str:
    return code if _CODE.fullmatch(code) else ""


def _refusal(status: int, code: str, message: str, headers: Mapping[str, str]) -> Refusal:
    """Make of the SDK's error what a direct request would have raised."""
    refusal = Refusal(status, {"retry-after": str(headers.get("retry-after", ""))}, b"")
    refusal.code, refusal.message = code, message
    return refusal


def _translate_refusal(error: Refusal, op: str, key: str, store: str) -> BackupAgentError:
    # The lines that follow the first one hold ids of the request, and of a bad signature what was signed.
    message = _first_line(error.message)
    reason = ": ".join(filter(None, (error.code, message))) or f"HTTP status {error.status}"
    if error.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return TruncatedObject(f"{reason} ({store})", key=key)
    return _class_of(error.code, error.status, op)(
        reason, op=op, key=key, store=store, hint=_HINTS.get(error.code), retry_after_s=error.retry_after_s
    )


def _class_of(code: str, status: int, op: str) -> type[StoreError]:
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status == HTTPStatus.PRECONDITION_FAILED:
        return ObjectExists if op in WRITES else ObjectChanged
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:  # it was done, and the answer broke on its way
        return StoreUnavailable
    failed_there = StoreUnavailable if status >= HTTPStatus.INTERNAL_SERVER_ERROR else StoreError
    return _BY_STATUS.get(status, failed_there)


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "").strip()


def _retry_after_s(text: str) -> float | None:
    """Read Retry-After in seconds; its other form, a date, would need both clocks to agree."""
    return float(text) if text.isascii() and text.isdigit() else None
