"""Errors of gRPC and etcd3 become ours, with endpoint, reason and remedy."""

from typing import Any

import grpc
import pytest

from backupagent.errors import EtcdError, EtcdUnavailable, RevisionCompacted
from backupagent.etcd.grpc_errors import translate, translated
from backupagent.etcd.shim import etcd3

Code = grpc.StatusCode


class FakeError(grpc.RpcError):
    def __init__(self, code: Any, details: str | None) -> None:
        super().__init__()
        self._answer = (code, details)

    def code(self) -> Any:
        return self._answer[0]

    def details(self) -> str | None:
        return self._answer[1]


grpc.Call.register(FakeError)


@pytest.mark.parametrize(
    ("code", "details", "kind", "hint"),
    [
        (Code.UNAVAILABLE, "etcdserver: no leader", EtcdUnavailable, "check that etcd runs"),
        (Code.UNAVAILABLE, "failed to connect to all addresses", EtcdUnavailable, "endpoint is right"),
        (Code.UNAVAILABLE, "Ssl handshake failed", EtcdUnavailable, "the endpoint talks TLS"),
        (Code.UNAVAILABLE, "CERTIFICATE_VERIFY_FAILED", EtcdUnavailable, "check the CA"),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", EtcdUnavailable, ""),
        (Code.CANCELLED, "etcdserver: watch canceled", EtcdUnavailable, ""),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests", EtcdUnavailable, ""),
        (Code.INTERNAL, "Received RST_STREAM with error code 2", EtcdUnavailable, ""),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", EtcdError, "alarm disarm"),
        (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", RevisionCompacted, "new full"),
        (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision", EtcdError, ""),
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", EtcdError, "role root"),
        (Code.UNAUTHENTICATED, "etcdserver: invalid auth token", EtcdError, "log in again"),
        (Code.INVALID_ARGUMENT, "etcdserver: user name is empty", EtcdError, "authentication on"),
        (
            Code.INVALID_ARGUMENT,
            "etcdserver: authentication failed, invalid user ID or password",
            EtcdError,
            "check user",
        ),
        (Code.DATA_LOSS, "etcdserver: corrupt cluster", EtcdError, ""),
    ],
)
def test_grpc_errors(code: Any, details: str, kind: type[EtcdError], hint: str) -> None:
    error = translate(FakeError(code, details), "etcd:2379")
    assert type(error) is kind
    assert str(error) == f"etcd etcd:2379: {details.removeprefix('etcdserver: ').removeprefix('mvcc: ')}"
    assert hint in error.hint


def test_error_without_details_names_its_code() -> None:
    assert str(translate(FakeError(Code.UNKNOWN, None), "e:1")) == "etcd e:1: failed with UNKNOWN and no reason"


def test_details_become_one_line() -> None:
    assert str(translate(FakeError(Code.UNKNOWN, "a\n  b"), "e:1")) == "etcd e:1: a b"


def test_etcd3_error_says_what_grpc_said() -> None:
    def call() -> None:
        with translated("e:1"):
            try:
                raise FakeError(Code.UNAVAILABLE, "etcdserver: leader changed")
            except grpc.RpcError:
                raise etcd3.exceptions.ConnectionFailedError from None

    with pytest.raises(EtcdUnavailable, match=r"^etcd e:1: leader changed$") as caught:
        call()
    assert isinstance(caught.value.__cause__, etcd3.exceptions.ConnectionFailedError)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (etcd3.exceptions.ConnectionFailedError(), EtcdUnavailable),
        (etcd3.exceptions.ConnectionTimeoutError(), EtcdUnavailable),
        (etcd3.exceptions.WatchTimedOut(), EtcdError),
        (etcd3.exceptions.RevisionCompactedError(42), RevisionCompacted),
    ],
)
def test_etcd3_errors_of_their_own(error: Exception, kind: type[EtcdError]) -> None:
    assert type(translate(error, "e:1")) is kind


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="mine"), translated("e:1"):
        raise ValueError("mine")
