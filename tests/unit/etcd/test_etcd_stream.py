"""A stream that is stopped, and one that falls silent."""

import threading
from typing import Any

import grpc
import pytest

from backupagent.cancel import Cancel
from backupagent.errors import Cancelled, EtcdUnavailable
from backupagent.etcd.stream import GuardedStream


class FakeError(grpc.RpcError):
    def code(self) -> Any:
        return grpc.StatusCode.CANCELLED

    def details(self) -> str:
        return "Locally cancelled by application!"


grpc.Call.register(FakeError)


class SilentCall:
    """Gives its responses, then nothing until it is cancelled, as gRPC's blocking read."""

    def __init__(self, *responses: str) -> None:
        self._responses = list(responses)
        self.cancelled = threading.Event()
        self.silent = threading.Event()

    def __next__(self) -> str:
        if self._responses:
            return self._responses.pop(0)
        self.silent.set()
        self.cancelled.wait()
        raise FakeError

    def cancel(self) -> None:
        self.cancelled.set()


def guarded(call: Any, cancel: Cancel, stall_timeout_s: float = 3600) -> GuardedStream:
    return GuardedStream(call, endpoint="etcd:2379", cancel=cancel, stall_timeout_s=stall_timeout_s)


def test_silence_ends_the_call() -> None:
    call = SilentCall("a")
    with guarded(call, Cancel(), stall_timeout_s=0.2) as stream:
        assert next(stream) == "a"
        with pytest.raises(EtcdUnavailable, match=r"^etcd etcd:2379: sent nothing for 0.2 s$"):
            next(stream)


def test_cancel_ends_a_blocked_read() -> None:
    call, cancel = SilentCall(), Cancel()
    stopper = threading.Thread(target=lambda: (call.silent.wait(), cancel.set("SIGTERM")))
    stopper.start()
    with guarded(call, cancel) as stream, pytest.raises(Cancelled, match="SIGTERM"):
        next(stream)
    stopper.join()


def test_cancel_before_the_first_read() -> None:
    cancel = Cancel()
    cancel.set("SIGINT")
    with guarded(SilentCall("a"), cancel) as stream, pytest.raises(Cancelled):
        next(stream)


def test_leaving_the_block_ends_the_call_and_the_guard() -> None:
    before = threading.active_count()
    call = SilentCall("a")
    with guarded(call, Cancel()) as stream:
        assert threading.active_count() == before + 1
        assert next(stream) == "a"
    assert call.cancelled.is_set()
    assert threading.active_count() == before
