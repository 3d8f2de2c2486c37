"""Buffers within a budget of bytes: the bound on what a transfer holds in memory."""

import threading
from collections import deque

KEPT = 64
"""How many free buffers are kept for parts of their size: making a large one anew costs page faults."""


class BufferPool:
    """Buffers of any size, all of them together within a budget. Thread-safe.

    Who waits is served in the order of arrival, so a large buffer is not passed over by small ones for ever.

    Args:
        budget: Bytes of all buffers that are held or kept; a single larger one is given when nothing else is held.

    Attributes:
        peak: Most bytes that were held at once.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held = self.peak = 0
        self._kept: list[bytearray] = []
        self._queue: deque[object] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def acquire(self, size: int, timeout_s: float | None = None) -> bytearray | None:
        """Wait for a buffer.

        Args:
            size: Bytes of it.
            timeout_s: How long at most; for ever when None.

        Returns:
            A buffer with undefined content, or None when the pool was closed or the time is over.
        """
        me = object()
        with self._changed:
            self._queue.append(me)
            try:
                self._changed.wait_for(lambda: self._closed or (self._queue[0] is me and self._fits(size)), timeout_s)
                if self._closed or self._queue[0] is not me or not self._fits(size):
                    return None
                buffer = self._take_kept(size)
                self._held += size
                self.peak = max(self.peak, self._held)
            finally:
                self._queue.remove(me)
                self._changed.notify_all()
        return bytearray(size) if buffer is None else buffer

    def release(self, buffer: bytearray) -> None:
        """Give a buffer back."""
        with self._changed:
            if self._closed:
                return
            self._held -= len(buffer)
            self._kept.append(buffer)
            del self._kept[:-KEPT]
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many wait for a buffer."""
        return len(self._queue)

    def close(self) -> None:
        """Wake everybody who waits; nobody gets a buffer any more.

        The memory goes back at once: an error that is still being reported may hold on to the pool.
        """
        with self._changed:
            self._closed = True
            self._kept.clear()
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self._held or self._held + size <= self._budget

    def _take_kept(self, size: int) -> bytearray | None:
        """Take a kept buffer of that size; else let go of kept ones until a new one is within the budget."""
        for index, buffer in enumerate(self._kept):
            if len(buffer) == size:
                return self._kept.pop(index)
        while self._kept and self._held + size + sum(map(len, self._kept)) > self._budget:
            self._kept.pop(0)
        return None
