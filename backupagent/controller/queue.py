"""What is looked at next: keys with a due time, each handled by one worker at a time."""

import random
import threading

from backupagent.clock import Clock

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
"""Pauses after failures, seconds: doubled each time, half of each is chance."""

LOOK_S = 0.5
"""How often an idle worker looks whether a key is due when nobody wakes it, seconds."""


class WorkQueue:
    """Keys to be handled. Thread-safe.

    A key that is added while it waits keeps its earliest time; one that is added while it is handled is handled once
    more afterwards.

    Args:
        clock: Source of time.
        rng: Source of chance.
    """

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._changed = threading.Condition()
        self._due_s: dict[str, float] = {}
        self._handled: set[str] = set()
        self._failures: dict[str, int] = {}
        self._closed = False

    def add(self, key: str, *, after_s: float = 0.0) -> None:
        """Ask for a key to be handled."""
        with self._changed:
            due_s = self._clock.monotonic_s() + after_s
            self._due_s[key] = min(due_s, self._due_s.get(key, due_s))
            self._changed.notify()

    def take(self) -> str | None:
        """Wait for a key that is due; ``done`` or ``retry`` must follow.

        Returns:
            The key, or None when the queue is closed.
        """
        with self._changed:
            while not self._closed:
                now_s = self._clock.monotonic_s()
                waiting = {key: due_s for key, due_s in self._due_s.items() if key not in self._handled}
                key = min(waiting, key=waiting.__getitem__, default=None)
                if key is not None and waiting[key] <= now_s:
                    del self._due_s[key]
                    self._handled.add(key)
                    return key
                pause_s = LOOK_S if key is None else min(LOOK_S, waiting[key] - now_s)
                self._changed.wait(pause_s)
            return None

    def done(self, key: str, *, again_after_s: float | None = None) -> None:
        """Say that a key was handled.

        Args:
            key: The key.
            again_after_s: When it wants to be handled again; None for not before somebody asks.
        """
        with self._changed:
            self._failures.pop(key, None)
            self._release(key)
        if again_after_s is not None:
            self.add(key, after_s=again_after_s)

    def retry(self, key: str) -> float:
        """Say that handling a key failed.

        Returns:
            After how many seconds it is tried again.
        """
        with self._changed:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            longest_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures, 30))
            pause_s = longest_s * (0.5 + 0.5 * self._rng.random())
            self._release(key)
        self.add(key, after_s=pause_s)
        return pause_s

    def _release(self, key: str) -> None:
        self._handled.discard(key)
        self._changed.notify()

    def close(self) -> None:
        """Let every worker go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._due_s)
