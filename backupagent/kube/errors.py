"""What an API server answers and what goes wrong on the way, as errors of ``backupagent.errors``."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import httpx2

from backupagent.errors import (
    BackupAgentError,
    ConfigError,
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeInvalid,
    KubeNotFound,
    KubeUnavailable,
)
from backupagent.kube.call import Call
from backupagent.kube.watching import TooOld
from backupagent.logs import without_secrets

LONGEST_MESSAGE = 1000
"""Characters of a server's message that are kept: an admission webhook may say anything."""

BY_RBAC = re.compile(
    r'cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)
"""How an authorizer's refusal differs from that of admission, which has the same code.

Source:
    ``forbiddenMessage`` of k8s.io/apiserver v0.36.3, pkg/endpoints/handlers/responsewriters/errors.go.
"""

CLASSES: Mapping[int, type[KubeError]] = {
    HTTPStatus.NOT_FOUND: KubeNotFound,
    HTTPStatus.CONFLICT: KubeConflict,
    HTTPStatus.REQUEST_TIMEOUT: KubeUnavailable,
    HTTPStatus.TOO_MANY_REQUESTS: KubeUnavailable,
    HTTPStatus.BAD_REQUEST: KubeInvalid,
    HTTPStatus.METHOD_NOT_ALLOWED: KubeInvalid,
    HTTPStatus.NOT_ACCEPTABLE: KubeInvalid,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: KubeInvalid,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: KubeInvalid,
    HTTPStatus.UNPROCESSABLE_ENTITY: KubeInvalid,
}
"""The class for a code; other codes from 500 on are ``KubeUnavailable``, the rest is ``KubeError``."""

UNKNOWN_CALLER = "the credentials are unknown to this API server, or no longer valid"
WRONG_CA = "the certificate-authority in the kubeconfig is not that of this API server"


def kube_error(cause: Exception | Mapping[str, Any], call: Call) -> BackupAgentError:
    """Return the error for a failed call, to be raised from its cause.

    Args:
        cause: What the HTTP client or lightkube's authentication raised, or the Status document that the API server
            answered (its ``code``, ``reason`` and ``message``).
        call: What was asked.

    Returns:
        A ``KubeError``, or a ``ConfigError`` when the credentials cannot be had.
    """
    if isinstance(cause, Mapping):
        return _refused(cause, call)
    if isinstance(cause, httpx2.LocalProtocolError):
        # Its text quotes the header, which is the token.
        return ConfigError("the credentials cannot be sent in a header", hint="check the token in the kubeconfig")
    text = _short(str(cause) or type(cause).__name__)
    if isinstance(cause, httpx2.HTTPError):
        hint = WRONG_CA if "CERTIFICATE_VERIFY_FAILED" in text else None
        late = isinstance(cause, httpx2.TimeoutException)
        return KubeUnavailable(f"no answer in time: {text}" if late else text, what=call.what, hint=hint)
    return ConfigError(f"the credentials cannot be had: {text}", hint="check the user in the kubeconfig")


def _refused(status: Mapping[str, Any], call: Call) -> KubeError:
    code = status.get("code")
    code = code if isinstance(code, int) else HTTPStatus.INTERNAL_SERVER_ERROR
    message = _short(str(status.get("message") or status.get("reason") or f"answered {code}"))
    if code == HTTPStatus.GONE:
        return TooOld(message, what=call.what)
    if code == HTTPStatus.UNAUTHORIZED:
        return KubeForbidden(message, what=call.what, hint=UNKNOWN_CALLER)
    if code == HTTPStatus.FORBIDDEN:
        missing = BY_RBAC.search(message)
        if missing is None:
            return KubeInvalid(message, what=call.what)
        return KubeForbidden(
            message, what=call.what, hint=f"ask for a role with the rule that is missing: {_rule(missing)}"
        )
    if code == HTTPStatus.NOT_FOUND and "details" not in status:
        kind = call.resource
        hint = f"check that the cluster is the right one: it has no {kind.plural} of {kind.api_version}"
        return KubeNotFound(message, what=call.what, hint=hint)
    unavailable = code >= HTTPStatus.INTERNAL_SERVER_ERROR
    return CLASSES.get(code, KubeUnavailable if unavailable else KubeError)(message, what=call.what)


def _rule(missing: re.Match[str]) -> str:
    rule = f'apiGroups: ["{missing["group"]}"], resources: ["{missing["resource"]}"], verbs: ["{missing["verb"]}"]'
    namespace = missing["namespace"]
    return f"{rule} in namespace {namespace}" if namespace else f"{rule} for the whole cluster"


def _short(text: str) -> str:
    line = without_secrets(" ".join(text.split()))
    return line if len(line) <= LONGEST_MESSAGE else f"{line[:LONGEST_MESSAGE]}..."
