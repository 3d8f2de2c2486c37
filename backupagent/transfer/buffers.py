"""A fixed number of buffers: the bound on what a transfer holds in memory."""

import threading


class BufferPool:
    """Buffers of one size, made when first needed and used again. Thread-safe.

    Args:
        count: How many there are.
        size: Bytes of each.
    """

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self._free: list[bytearray] = []
        self._unmade = count
        self._closed = False
        self._changed = threading.Condition()

    def acquire(self, timeout_s: float | None = None) -> bytearray | None:
        """Wait for a free buffer.

        Args:
            timeout_s: How long at most; for ever when None.

        Returns:
            A buffer with undefined content, or None when the pool was closed or the time is over.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._free or self._unmade, timeout_s)
            if self._closed:
                return None
            if self._free:
                return self._free.pop()
            if not self._unmade:
                return None
            self._unmade -= 1
        return bytearray(self.size)

    def release(self, buffer: bytearray) -> None:
        """Give a buffer back."""
        with self._changed:
            if not self._closed:
                self._free.append(buffer)
                self._changed.notify()

    def close(self) -> None:
        """Wake everybody who waits; nobody gets a buffer any more.

        The memory goes back at once: an error that is still being reported may hold on to the pool.
        """
        with self._changed:
            self._closed = True
            self._free.clear()
            self._changed.notify_all()
