"""How many parts are on their way at once: as many as help.

On a link with a long round trip many requests at once fill it; between servers on one machine a few do, and more only
cost. So the number grows while the measured rate grows with it, takes a step back when it did not help, and is halved
when the store shows that it is too much for it.
"""

import threading
from collections.abc import Callable

from backupagent.clock import Clock

FEWEST = 4
FIRST_LARGE, FIRST_SMALL = 8, 32
"""With how many a transfer begins: of parts of ``SMALL`` bytes and more, and of smaller ones, whose time is mostly the
round trip."""

FAR_S = 0.015
"""A longer round trip, that of source and target together, is one that many requests at once make good."""

FIRST_LARGE_FAR, FIRST_SMALL_FAR = 16, 64
"""With how many a transfer begins over a long round trip: finding out takes some of those (ADR 0011)."""

MOST = 64
"""More threads only cost here: 128 were 5 % faster than 64 with 2,000 objects of 20 KiB over 30 ms (reference
measurement, 2026-11)."""

SMALL = 1024 * 1024

GROWTH = 1.5
"""Factor by which the number grows."""

WORTH = 1.08
"""By how much the rate must have grown for the next step."""

ROUND_S = 0.15
"""Shortest time that is measured: below it a few slow answers decide."""

AGAIN_AFTER = 30
"""Rounds after which it is tried again whether more helps: other users of the link come and go."""

REQUEST_WEIGHT = 64 * 1024
"""Bytes that a request counts beside its content, so that the rate means something for small objects too."""


class Flow:
    """Lets so many parts go at once. Thread-safe.

    Args:
        parts: How many parts there are in all.
        size: Their bytes.
        clock: Measures.
        fixed: That many, always; 0 adapts.
        trouble: Counts retried requests, in all; a growing count means that the store is pressed too hard.
        round_trip_s: Of source and target together, where it is known.
    """

    def __init__(
        self,
        parts: int,
        size: int,
        clock: Clock,
        *,
        fixed: int = 0,
        trouble: Callable[[], int] = lambda: 0,
        round_trip_s: float | None = None,
    ) -> None:
        self._clock = clock
        self._fixed = bool(fixed)
        self._trouble = trouble
        small = size < SMALL * parts
        self.most = max(1, min(fixed or MOST, parts))
        far = round_trip_s is not None and round_trip_s > FAR_S
        many, few = (FIRST_SMALL_FAR, FIRST_LARGE_FAR) if far else (FIRST_SMALL, FIRST_LARGE)
        self._limit = min(self.most, fixed or (many if small else few))
        self._before = self._limit
        self._moving = 0
        self._closed = False
        self._changed = threading.Condition()
        self._rate = 0.0
        # -1: take a step without a comparison; 0: compare; else so many rounds without one. Between near stores the
        # first step would cost more than it tells.
        self._steady_rounds = 1 if round_trip_s is not None and not far else -1
        self._troubles = trouble()
        self._begin_round()

    @property
    def limit(self) -> int:
        """How many may move now."""
        return self._limit

    def enter(self) -> bool:
        """Wait for a turn to move a part.

        Returns:
            False when the flow was closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._moving < self._limit)
            self._moving += not self._closed
            return not self._closed

    def leave(self, size: int) -> None:
        """Say that a part has ended.

        Args:
            size: Its bytes; 0 when it failed.
        """
        with self._changed:
            self._moving -= 1
            self._parts += 1
            self._size += size + REQUEST_WEIGHT
            if not self._fixed:
                self._measure()
            self._changed.notify(max(0, self._limit - self._moving))  # waking those who must wait on costs CPU

    def close(self) -> None:
        """Let nobody go any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _begin_round(self) -> None:
        self._began_s = self._clock.monotonic_s()
        self._parts = self._size = 0

    def _measure(self) -> None:
        """End a round when every part that moved had its turn, and decide."""
        seconds = self._clock.monotonic_s() - self._began_s
        if self._parts < self._limit or seconds < ROUND_S:
            return
        rate, troubles = self._size / seconds, self._trouble()
        if troubles > self._troubles:
            self._troubles = troubles
            self._limit, self._steady_rounds = max(min(FEWEST, self.most), self._limit // 2), 1
        elif self._steady_rounds < 0:
            self._grow()
        elif self._steady_rounds:
            self._steady_rounds = -1 if self._steady_rounds == AGAIN_AFTER else self._steady_rounds + 1
        elif rate > WORTH * self._rate:
            self._grow()
        else:
            self._limit, self._steady_rounds = self._before, 1
        self._rate = rate
        self._begin_round()

    def _grow(self) -> None:
        self._before, self._steady_rounds = self._limit, 0
        self._limit = min(self.most, round(self._limit * GROWTH) + 1)
