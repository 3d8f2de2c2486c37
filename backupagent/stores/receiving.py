"""Answers of HTTP into the buffers of callers."""

from collections.abc import Mapping
from email.message import Message
from http.client import HTTPResponse

from backupagent.errors import StoreError, TruncatedObject
from backupagent.stores.connections import fill


def receive(answer: HTTPResponse, view: memoryview, key: str, offset: int) -> None:
    """Receive the range that was asked for, straight into a buffer.

    Args:
        answer: Its body was not read yet.
        view: As many bytes as were asked for.
        key: The object.
        offset: First byte that was asked for.

    Raises:
        StoreError: the answer begins elsewhere, or goes on behind.
        TruncatedObject: it is shorter.
        http.client.IncompleteRead: the connection ended before.
    """
    check_range(answer.headers, key, offset, len(view))
    fill(view, answer)
    if answer.read(1):  # only where no length was given
        raise StoreError(f"the answer has more than {len(view)} bytes", op="read", key=key)


def check_range(headers: Mapping[str, str] | Message, key: str, offset: int, size: int) -> None:
    """Refuse an answer that is not the range asked for, before a byte of it is read.

    Args:
        headers: Of the answer.
        key: The object.
        offset: First byte that was asked for.
        size: Bytes that were asked for.

    Raises:
        StoreError: it begins elsewhere.
        TruncatedObject: it is shorter.
    """
    first = headers.get("content-range", "bytes 0-").removeprefix("bytes ").partition("-")[0]
    if first != str(offset):
        raise StoreError(f"the answer begins at byte {first}, not {offset}", op="read", key=key)
    length = headers.get("content-length", str(size))
    if length != str(size):
        raise TruncatedObject(f"the answer has {length} of {size} bytes", key=key)
