"""Streaming calls that can be stopped, and that do not wait for ever."""

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from backupagent.cancel import Cancel
from backupagent.errors import EtcdUnavailable
from backupagent.etcd.grpc_errors import translate
from backupagent.etcd.shim import etcdrpc

_POLL_S = 0.2
"""How long a stream may outlive the wish to stop it."""

_EVERYTHING = b"\0"
"""As ``key`` and as ``range_end``: the whole key space. Source: etcd v3.5, api/etcdserverpb/rpc.proto."""


class GuardedStream:
    """The responses of a streaming call; a context manager that ends the call.

    A blocked read of gRPC has no timeout and looks at no token, so a thread watches over it. Responses are read on
    demand: whoever reads slowly slows the server down (HTTP/2 flow control). One reader at a time.

    Args:
        call: What a stub's method returned.
        endpoint: ``host:port``, for messages.
        cancel: Ends the call when it is set.
        stall_timeout_s: How long to wait for a response.
    """

    def __init__(self, call: Any, *, endpoint: str, cancel: Cancel, stall_timeout_s: float) -> None:  # noqa: ANN401
        self._call = call
        self._endpoint = endpoint
        self._cancel = cancel
        self._stall_timeout_s = stall_timeout_s
        self._reads = 0
        self._waiting = False
        self._stalled = False
        self._finished = threading.Event()
        self._guard = threading.Thread(target=self._watch_over, name="etcd-stream-guard", daemon=True)
        self._guard.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the call. Harmless when it has ended."""
        self._call.cancel()
        self._finished.set()
        self._guard.join()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - protobuf messages
        """Wait for the next response.

        Raises:
            Cancelled: the token was set.
            EtcdUnavailable: the connection was lost, or nothing came in time.
            EtcdError: etcd refused.
        """
        self._cancel.raise_if_set()
        self._waiting = True
        try:
            return next(self._call)
        except grpc.RpcError as error:
            self._cancel.raise_if_set()
            if self._stalled:
                message = f"sent nothing for {self._stall_timeout_s:g} s"
                raise EtcdUnavailable(message, endpoint=self._endpoint) from error
            raise translate(error, self._endpoint) from error
        finally:
            self._waiting = False
            self._reads += 1

    def _watch_over(self) -> None:
        silent_s, seen = 0.0, -1
        while not self._finished.wait(_POLL_S):
            silent_s = silent_s + _POLL_S if self._waiting and self._reads == seen else 0.0
            seen = self._reads
            self._stalled = silent_s >= self._stall_timeout_s
            if self._stalled or self._cancel.is_set:
                self._call.cancel()
                return


class WatchStream(GuardedStream):
    """One Watch call, with any number of watchers of the whole key space on it.

    Args:
        stub: A ``WatchStub``.
        metadata: Of the call: the token, or None.
        endpoint: ``host:port``, for messages.
        cancel: Ends the call when it is set.
        stall_timeout_s: How long to wait for a response.
    """

    def __init__(self, stub: Any, metadata: Any, *, endpoint: str, cancel: Cancel, stall_timeout_s: float) -> None:  # noqa: ANN401
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = stub.Watch(iter(self._requests.get, None), metadata=metadata)
        super().__init__(call, endpoint=endpoint, cancel=cancel, stall_timeout_s=stall_timeout_s)

    def create(self, watch_id: int, start_revision: int) -> None:
        """Ask for a watcher.

        Args:
            watch_id: Positive, unused on this stream; its responses carry it.
            start_revision: First revision that it sends, positive.
        """
        create = etcdrpc.WatchCreateRequest(
            key=_EVERYTHING, range_end=_EVERYTHING, start_revision=start_revision, watch_id=watch_id, fragment=True
        )
        self._requests.put(etcdrpc.WatchRequest(create_request=create))

    def cancel(self, watch_id: int) -> None:
        """Ask that a watcher ends. What it sent before may still come."""
        self._requests.put(etcdrpc.WatchRequest(cancel_request=etcdrpc.WatchCancelRequest(watch_id=watch_id)))

    def close(self) -> None:
        """End the call and the thread that sends its requests."""
        self._requests.put(None)
        super().close()
