"""Answers of HTTP into the buffers of callers."""

from collections.abc import Iterable, Mapping

from backupagent.errors import StoreError, TruncatedObject

CHUNK_SIZE = 256 * 1024
"""Bytes that are taken from a connection at a time, and held besides the buffer."""


def check_range(headers: Mapping[str, str], key: str, offset: int, size: int) -> None:
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


def receive(chunks: Iterable[bytes], view: memoryview, key: str) -> None:
    """Fill a buffer.

    Raises:
        TruncatedObject: the content ends before.
        StoreError: it goes on behind.
    """
    filled = 0
    for chunk in chunks:
        end = filled + len(chunk)
        if end > len(view):
            raise StoreError(f"the answer has more than {len(view)} bytes", op="read", key=key)
        view[filled:end] = chunk
        filled = end
    if filled < len(view):
        raise TruncatedObject(f"the answer ended after {filled} of {len(view)} bytes", key=key)
