"""How long work is stopped: one token, passed down, looked at between pieces of work."""

import threading

from backupagent.errors import Cancelled


class Cancel:
    """Says whether work must stop. Thread-safe; setting it twice is harmless."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._why = ""

    def set(self, why: str) -> None:
        """Ask everybody who holds this token to stop.

        Args:
            why: For the message, e.g. ``SIGTERM``.
        """
        if not self._event.is_set():
            self._why = why
            self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether work must stop."""
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for at most that long.

        Returns:
            Whether work must stop.
        """
        return self._event.wait(timeout_s)

    def raise_if_set(self) -> None:
        """Stop here when asked to.

        Raises:
            Cancelled: the token was set.
        """
        if self._event.is_set():
            message = f"stopped by {self._why}"
            raise Cancelled(message)
