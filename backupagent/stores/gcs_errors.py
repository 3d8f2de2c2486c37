"""Errors of Google's libraries and of the service as errors of ours: the one place that knows their names."""

import json
from collections.abc import Mapping
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException
from typing import Any

import requests
import urllib3.exceptions
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


class Refusal(Exception):
    """An answer that is none of the successful ones.

    Args:
        status: Of HTTP.
        headers: Of the answer.
        body: Its beginning; JSON, text, or whatever a proxy may say.

    Attributes:
        status: Of HTTP.
        code: The service's reason, one word; empty when it gives none.
        message: Its explanation, one line.
        retry_after_s: How long it asks to wait.
    """

    def __init__(self, status: int, headers: Message, body: bytes) -> None:
        self.status = status
        self.retry_after_s = _retry_after_s(headers.get("retry-after", ""))
        self.code, self.message = _explanation(body)
        super().__init__(f"{status} {self.code}: {self.message}")


SDK_ERRORS = (
    Refusal, auth.GoogleAuthError, requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError,
)  # fmt: skip
"""Everything that a request, or one for a token, is known to raise."""

WRITES = frozenset({"put", "complete upload"})
"""Calls for which a failed precondition means that the object is there."""

# Source of the reasons: https://cloud.google.com/storage/docs/json_api/v1/status-codes
_BY_REASON: Mapping[str, type[StoreError]] = {
    **dict.fromkeys(("objectRetentionNotMet", "objectUnderActiveHold", "retentionPolicyNotMet"), ObjectLocked),
    **dict.fromkeys(("backendError", "rateLimitExceeded", "userRateLimitExceeded"), StoreUnavailable),
    **dict.fromkeys(("authError", "expired"), AccessDenied),
}
"""The reasons whose status does not tell what they mean."""

_BY_STATUS: Mapping[int, type[StoreError]] = {
    HTTPStatus.UNAUTHORIZED: AccessDenied,
    HTTPStatus.FORBIDDEN: AccessDenied,
    HTTPStatus.NOT_FOUND: ObjectNotFound,
    HTTPStatus.GONE: ObjectNotFound,
    HTTPStatus.REQUEST_TIMEOUT: StoreUnavailable,
    HTTPStatus.TOO_MANY_REQUESTS: StoreUnavailable,
    HTTPStatus.NOT_IMPLEMENTED: StoreError,
}

_HELD = ("retention policy", "active hold", "temporary hold", "event-based hold")
"""What the service says where it gives only ``forbidden`` as a reason."""

_BAD_CRC = "doesn't match calculated crc32c"
_CREDENTIALS_HINT = (
    "give credentials: ?credentials=PATH, GOOGLE_APPLICATION_CREDENTIALS, or as Google's libraries find them"
)
_TLS_HINT = "name the file with the certificates of the endpoint's CA in REQUESTS_CA_BUNDLE"


def translate(error: Exception, op: str, key: str, store: str) -> BackupAgentError:
    """Turn an error into one of ours.

    Args:
        error: One of ``SDK_ERRORS``.
        op: Name of the call; a failed precondition of one in ``WRITES`` means that the object is there.
        key: Key of the object, or the prefix of a listing.
        store: The store as shown to users.
    """
    if isinstance(error, Refusal):
        return _translate_refusal(error, op, key, store)
    name = type(error).__name__
    reason = f"{name}: {_first_line(str(error))}"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreError(reason, op=op, key=key, store=store, hint=_TLS_HINT)
    if isinstance(error, auth.GoogleAuthError):
        # The text of a refusal may repeat what was sent to get a token.
        reason = f"no token was given: {name}"
        if isinstance(error, auth.TransportError) or error.retryable:
            return StoreUnavailable(reason, op=op, key=key, store=store)
        return AccessDenied(reason, op=op, key=key, store=store, hint=_CREDENTIALS_HINT)
    return StoreUnavailable(reason, op=op, key=key, store=store)


def _translate_refusal(error: Refusal, op: str, key: str, store: str) -> BackupAgentError:
    reason = ": ".join(filter(None, (error.code, error.message))) or f"HTTP status {error.status}"
    if error.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return TruncatedObject(f"{reason} ({store})", key=key)
    return _class_of(error, op)(reason, op=op, key=key, store=store, retry_after_s=error.retry_after_s)


def _class_of(error: Refusal, op: str) -> type[StoreError]:
    message = error.message.lower()
    if error.code in _BY_REASON:
        return _BY_REASON[error.code]
    if error.status == HTTPStatus.FORBIDDEN and any(words in message for words in _HELD):
        return ObjectLocked
    if error.status == HTTPStatus.PRECONDITION_FAILED:
        return ObjectExists if op in WRITES else ObjectChanged
    if error.status == HTTPStatus.BAD_REQUEST and _BAD_CRC in message:
        return StoreUnavailable
    failed_there = StoreUnavailable if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR else StoreError
    return _BY_STATUS.get(error.status, failed_there)


def _explanation(body: bytes) -> tuple[str, str]:
    """Read reason and message; the service answers with JSON, to requests of content with text."""
    try:
        error: Any = json.loads(body)["error"]
        reason = str(error["errors"][0].get("reason", "")) if error.get("errors") else ""
        return reason, _first_line(str(error.get("message", "")))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError):
        return "", _first_line(body.decode(errors="replace"))[:200]


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "").strip()


def _retry_after_s(text: str) -> float | None:
    """Read Retry-After in seconds; its other form, a date, would need both clocks to agree."""
    return float(text) if text.isascii() and text.isdigit() else None
