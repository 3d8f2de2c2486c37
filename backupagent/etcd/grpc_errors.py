"""Errors of gRPC and etcd3 as errors of backupagent: the only place that knows them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from backupagent.errors import EtcdError, EtcdUnavailable, RevisionCompacted
from backupagent.etcd.shim import etcd3

ADAPTER_ERRORS = (grpc.RpcError, etcd3.exceptions.Etcd3Exception)
"""What calls of this package's SDKs raise."""

COMPACTED = "required revision has been compacted"
"""Source: etcd v3.5, api/v3rpc/rpctypes/error.go, ErrGRPCCompacted."""

STALE_TOKEN = ("invalid auth token", "revision of auth store is old")
"""Logging in again helps. Source: the same file, ErrGRPCInvalidAuthToken and ErrGRPCAuthOldRevision."""

_UNAVAILABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,  # by the server: whoever cancels here does not ask for a translation
    grpc.StatusCode.ABORTED,
}
_HINTS = (
    ("permission denied", "the user needs the role root: a backup reads all keys"),
    ("user name is empty", "this etcd has authentication on: give a user name and a password, or a client certificate"),
    ("authentication failed", "check user name and password"),
    ("authentication is not enabled", "this etcd has authentication off: give no user name and no password"),
    ("invalid auth token", "log in again; with --auth-token=jwt the token may have expired"),
    ("database space exceeded", "compact and defragment, then disarm the alarm: etcdctl alarm disarm"),
    ("handshake", "check that the endpoint talks TLS, the CA, and that the certificate has the endpoint's name"),
    ("certificate", "check the CA, the client certificate and the name in the server's certificate"),
)


@contextmanager
def translated(endpoint: str) -> Iterator[None]:
    """Run a block that calls etcd and raise what it raises as our errors.

    Args:
        endpoint: ``host:port``, for messages.

    Raises:
        EtcdUnavailable: unreachable, no leader, timed out.
        RevisionCompacted: the revision asked for is gone.
        EtcdError: any other refusal.
    """
    try:
        yield
    except ADAPTER_ERRORS as error:
        raise translate(error, endpoint) from error


def translate(error: BaseException, endpoint: str) -> EtcdError:
    """Return the error of backupagent for one of ``ADAPTER_ERRORS``.

    Args:
        error: What the SDK raised. etcd3 raises its own class while it handles gRPC's, which then says more.
        endpoint: ``host:port``, for the message.
    """
    cause = error.__context__
    if isinstance(error, etcd3.exceptions.Etcd3Exception) and isinstance(cause, grpc.RpcError):
        return translate(cause, endpoint)
    if isinstance(error, etcd3.exceptions.RevisionCompactedError):
        return RevisionCompacted(f"compacted at revision {error.compacted_revision}", endpoint=endpoint)
    code, details = code_of(error), details_of(error)
    if COMPACTED in details:
        return RevisionCompacted(details, endpoint=endpoint)
    transient = code in _UNAVAILABLE or "too many requests" in details or "RST_STREAM" in details
    kind = EtcdUnavailable if transient else EtcdError
    hint = next((hint for words, hint in _HINTS if words in details.lower()), None)
    return kind(details, endpoint=endpoint, hint=hint)


def code_of(error: BaseException) -> Any:  # noqa: ANN401 - grpc has no types
    """Return the ``grpc.StatusCode`` of an error; etcd3's exceptions stand for one each."""
    if isinstance(error, grpc.Call):
        return error.code()
    lost = (etcd3.exceptions.ConnectionFailedError, etcd3.exceptions.ConnectionTimeoutError)
    return grpc.StatusCode.UNAVAILABLE if isinstance(error, lost) else grpc.StatusCode.UNKNOWN


def details_of(error: BaseException) -> str:
    """Return what the server, or gRPC, says about an error, on one line."""
    told = error.details() if isinstance(error, grpc.Call) else str(error)
    text = " ".join((told or "").split()).removeprefix("etcdserver: ").removeprefix("mvcc: ")
    return text or f"failed with {getattr(code_of(error), 'name', code_of(error))} and no reason"
