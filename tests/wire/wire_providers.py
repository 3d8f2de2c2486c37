"""How the requests of each provider look on the wire, and how it refuses them. By the scheme of its URIs."""

import json
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus

from wire_faults import Answer, Fault

PART = 1_000_000
"""Only a part of a large object has a body of so many bytes in these tests."""

LIST, READ, WRITE_PART, COMPLETE = "list", "read", "part", "complete"

REQUESTS: Mapping[str, Mapping[str, Fault]] = {
    "s3": {
        LIST: Fault("GET", "^/[^/]+/?$", "list-type=2"),
        READ: Fault("GET", "/v2/Full-"),
        WRITE_PART: Fault("PUT", "/v2/Full-", "partNumber=", body=PART),
        COMPLETE: Fault("POST", "/v2/Full-", "uploadId="),
    },
    "az": {
        LIST: Fault("GET", "", "comp=list"),
        READ: Fault("GET", "/v2/Full-", "^(?!.*comp=)"),
        WRITE_PART: Fault("PUT", "/v2/Full-", "comp=block&|comp=block$", body=PART),
        COMPLETE: Fault("PUT", "/v2/Full-", "comp=blocklist"),
    },
    "gs": {
        LIST: Fault("GET", "/o$", "prefix="),
        READ: Fault("GET", "^/download/.*Full-"),
        WRITE_PART: Fault("POST", "^/upload/", body=PART),
        COMPLETE: Fault("POST", "Full-.*/compose$"),
    },
}
"""The requests that faults are planned for: of a full that goes in parts, named by what they do."""

_MEANINGS: Mapping[int, tuple[str, str, str]] = {
    500: ("InternalError", "InternalError", "backendError"),
    503: ("SlowDown", "ServerBusy", "backendError"),
    403: ("AccessDenied", "AuthorizationFailure", "forbidden"),
    404: ("NoSuchKey", "BlobNotFound", "notFound"),
}
"""What S3, Azure and Google call a status.

Source:
    https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html,
    https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes,
    https://cloud.google.com/storage/docs/json_api/v1/status-codes
"""


def refusal(scheme: str, status: int, retry_after_s: int | None = None) -> Answer:
    """Make the answer with which a provider refuses."""
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    s3, azure, google = _MEANINGS[status]
    phrase = HTTPStatus(status).phrase
    if scheme == "s3":
        body = f"<Error><Code>{s3}</Code><Message>planned: {phrase}</Message></Error>"
        return Answer(status, {**headers, "Content-Type": "application/xml"}, body.encode())
    if scheme == "az":
        body = f"<Error><Code>{azure}</Code><Message>planned: {phrase}</Message></Error>"
        headers |= {"Content-Type": "application/xml", "x-ms-error-code": azure}
        return Answer(status, headers, body.encode())
    error = {"code": status, "message": f"planned: {phrase}", "errors": [{"reason": google, "message": "planned"}]}
    return Answer(status, {**headers, "Content-Type": "application/json"}, json.dumps({"error": error}).encode())


def fault(scheme: str, request: str, **does: object) -> Fault:
    """Make the fault of a request of a provider."""
    return replace(REQUESTS[scheme][request], **does)  # type: ignore[arg-type]
