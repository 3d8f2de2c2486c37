"""The only loop that repeats calls of a store: exponential backoff with full jitter.

Source of the method:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from backupagent.cancel import Cancel
from backupagent.clock import Clock
from backupagent.errors import BackupAgentError, ObjectChanged, ObjectExists, ObjectNotFound, StoreError
from backupagent.stores.base import (
    NO_METADATA,
    Buffer,
    CopySource,
    ObjectInfo,
    ObjectStore,
    PartTag,
    StoreFacts,
    StoreFeatures,
    StoreLimits,
    Upload,
    facts_of,
)

T = TypeVar("T")

CLOCK_SKEW_S = 900
"""How far a store's clock and ours may be apart: S3 refuses requests beyond it (RequestTimeTooSkewed)."""

_COMPARE_SIZE = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a call is repeated.

    Attributes:
        attempts: How many times it is made at most.
        base_s: Upper bound of the first wait; it doubles each time.
        cap_s: Upper bound of every wait, unless the store asks for longer.
        budget_s: No repetition begins later than this after the first attempt.
    """

    attempts: int = 6
    base_s: float = 0.2
    cap_s: float = 10.0
    budget_s: float = 120.0


class Pulse:
    """What the requests to a store tell of it beside their answers. Thread-safe.

    Attributes:
        troubles: How often a request had to be made again.
        round_trip_s: The shortest time that an answer without content took; None before there was one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.troubles = 0
        self.round_trip_s: float | None = None

    def failed(self) -> None:
        """Count a request that has to be made again."""
        with self._lock:
            self.troubles += 1

    def answered(self, seconds: float) -> None:
        """Take in how long an answer without content took."""
        with self._lock:
            self.round_trip_s = seconds if self.round_trip_s is None else min(seconds, self.round_trip_s)


class _Attempts:
    """Counts the failures of one call and waits between its attempts."""

    def __init__(
        self, clock: Clock, rng: random.Random, policy: RetryPolicy, cancel: Cancel | None, pulse: Pulse
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._policy = policy
        self._cancel = cancel
        self._pulse = pulse
        self._began_s = clock.monotonic_s()
        self.failed = 0

    def after(self, error: BackupAgentError) -> None:
        """Wait for the next attempt.

        Raises:
            BackupAgentError: the error itself, when there is no next attempt.
            Cancelled: somebody asked to stop.
        """
        self.failed += 1
        if not error.retryable or self.failed >= self._policy.attempts:
            raise error
        wait_s = self._rng.uniform(0, min(self._policy.cap_s, self._policy.base_s * 2 ** (self.failed - 1)))
        if isinstance(error, StoreError) and error.retry_after_s is not None:
            wait_s = max(wait_s, error.retry_after_s)
        if self._clock.monotonic_s() - self._began_s + wait_s > self._policy.budget_s:
            raise error
        self._pulse.failed()
        _log.warning("attempt %d of %d failed, next in %.1f s: %s", self.failed, self._policy.attempts, wait_s, error)
        if self._cancel is None:
            self._clock.sleep(wait_s)
        elif self._cancel.wait(wait_s):
            self._cancel.raise_if_set()


class RetryingStore:
    """A store whose calls are repeated while they fail with a retryable error. Thread-safe.

    A call that failed may have been done all the same, its answer being lost. So after a failure

    * ``put(if_absent=True)`` that meets an object takes it for its own when its content is the same;
    * ``complete_upload`` that meets no upload takes the object for its own when its size is that of the parts and
      it was modified since the first attempt, give or take ``CLOCK_SKEW_S``.

    Args:
        inner: The store.
        clock: Waits, and measures the budget.
        rng: Source of the jitter.
        policy: How often and how long.
        cancel: Ends a wait, and with it the call.
        pulse: Is told of every repetition, and of the round trip.
    """

    def __init__(
        self,
        inner: ObjectStore,
        *,
        clock: Clock,
        rng: random.Random,
        policy: RetryPolicy | None = None,
        cancel: Cancel | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._rng = rng
        self._policy = policy or RetryPolicy()
        self._cancel = cancel
        self._pulse = pulse or Pulse()

    @property
    def display(self) -> str:
        """The store as shown to users."""
        return self._inner.display

    @property
    def limits(self) -> StoreLimits:
        """Hard limits of an upload in parts."""
        return self._inner.limits

    @property
    def features(self) -> StoreFeatures:
        """Optional abilities."""
        return self._inner.features

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects; after a failure the listing begins anew and leaves out what was given already.

        Keys come in order, so nothing is given twice and nothing is lost but what is removed meanwhile. Each
        failure before which the listing came further begins a new count of attempts.
        """
        last, came_further = "", True
        while True:
            asked_s: float | None = self._clock.monotonic_s()
            try:
                for info in self._inner.list_objects(prefix):
                    if asked_s is not None:
                        self._pulse.answered(self._clock.monotonic_s() - asked_s)
                        asked_s = None
                    if info.key > last:  # code points of Unicode are in the same order as their bytes in UTF-8
                        last, came_further = info.key, True
                        yield info
            except BackupAgentError as error:
                if came_further:
                    attempts, came_further = self._attempts(), False
                attempts.after(error)
            else:
                if asked_s is not None:  # an empty list is an answer, too
                    self._pulse.answered(self._clock.monotonic_s() - asked_s)
                return

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object."""
        return self._retry(lambda: self._asked(lambda: self._inner.stat(key)))

    def read_into(self, key: str, buffer: memoryview, *, offset: int = 0, etag: str = "") -> Mapping[str, str]:
        """Read exactly ``len(buffer)`` bytes from ``offset``."""
        return self._retry(lambda: self._inner.read_into(key, buffer, offset=offset, etag=etag))

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = False, metadata: Mapping[str, str] = NO_METADATA
    ) -> ObjectInfo:
        """Write a whole object."""

        def settle(error: StoreError) -> ObjectInfo:
            found = self._same_content(key, memoryview(data).cast("B")) if isinstance(error, ObjectExists) else None
            if found is None:
                raise error
            return found

        return self._retry(lambda: self._inner.put(key, data, if_absent=if_absent, metadata=metadata), settle)

    def begin_upload(
        self, key: str, *, part_size: int, metadata: Mapping[str, str] = NO_METADATA, copied: bool = False
    ) -> Upload:
        """Begin an object that arrives in parts; a lost answer leaves an empty upload behind."""
        return self._retry(lambda: self._inner.begin_upload(key, part_size=part_size, metadata=metadata, copied=copied))

    def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
        """Write one part."""
        return self._retry(lambda: self._inner.upload_part(upload, number, data))

    def list_parts(self, upload: Upload) -> Sequence[PartTag]:
        """List the parts that the store holds."""
        return self._retry(lambda: self._inner.list_parts(upload))

    def complete_upload(self, upload: Upload, parts: Sequence[PartTag], *, if_absent: bool = False) -> ObjectInfo:
        """Make the object visible."""
        begun_s = self._clock.now().timestamp()

        def settle(error: StoreError) -> ObjectInfo:
            if not isinstance(error, ObjectNotFound | ObjectExists) or self._is_open(upload):
                raise error
            try:
                found = self.stat(upload.key)
            except ObjectNotFound:
                raise error from None
            if found.size != sum(part.size for part in parts) or found.modified_s < begun_s - CLOCK_SKEW_S:
                raise error
            return found

        return self._retry(lambda: self._inner.complete_upload(upload, parts, if_absent=if_absent), settle)

    def abort_upload(self, upload: Upload) -> None:
        """Throw an upload and its parts away."""
        self._retry(lambda: self._inner.abort_upload(upload))

    def list_uploads(self, prefix: str) -> Sequence[Upload]:
        """List open uploads."""
        return self._retry(lambda: self._inner.list_uploads(prefix))

    def copy_source(self, key: str, *, etag: str = "") -> CopySource:
        """Describe an object for a store that is to copy it."""
        return self._retry(lambda: self._inner.copy_source(key, etag=etag))

    def copy_object(self, source: CopySource, key: str) -> ObjectInfo:
        """Copy an object whole; one that was copied after all is copied once more."""
        return self._retry(lambda: self._inner.copy_object(source, key))

    def copy_part(self, upload: Upload, number: int, source: CopySource, *, offset: int, size: int) -> PartTag:
        """Copy a range of an object as one part."""
        return self._retry(lambda: self._inner.copy_part(upload, number, source, offset=offset, size=size))

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._retry(lambda: self._inner.delete(key))

    def facts(self) -> StoreFacts:
        """Ask the store about itself."""
        return self._retry(lambda: facts_of(self._inner))

    def close(self) -> None:
        """Close the store."""
        self._inner.close()

    def _retry(self, call: Callable[[], T], settle: Callable[[StoreError], T] | None = None) -> T:
        """Repeat a call while its error is retryable.

        Args:
            call: The call.
            settle: Gets the error of another kind that a repetition met; returns the result when the first
                attempt was done after all, else raises.
        """
        attempts = self._attempts()
        while True:
            try:
                return call()
            except StoreError as error:
                if settle is not None and attempts.failed and not error.retryable:
                    return settle(error)
                attempts.after(error)
            except BackupAgentError as error:
                attempts.after(error)

    def _asked(self, call: Callable[[], T]) -> T:
        """Make a call whose answer has no content, and measure the round trip."""
        asked_s = self._clock.monotonic_s()
        answer = call()
        self._pulse.answered(self._clock.monotonic_s() - asked_s)
        return answer

    def _attempts(self) -> _Attempts:
        return _Attempts(self._clock, self._rng, self._policy, self._cancel, self._pulse)

    def _is_open(self, upload: Upload) -> bool:
        try:
            self.list_parts(upload)
        except ObjectNotFound:
            return False
        return True

    def _same_content(self, key: str, data: memoryview) -> ObjectInfo | None:
        """Describe the object when its content is that data."""
        try:
            found = self.stat(key)
            if found.size != len(data):
                return None
            buffer = memoryview(bytearray(min(len(data), _COMPARE_SIZE)))
            for offset in range(0, len(data), _COMPARE_SIZE):
                wanted = data[offset : offset + _COMPARE_SIZE]
                self.read_into(key, buffer[: len(wanted)], offset=offset, etag=found.etag)
                if buffer[: len(wanted)] != wanted:
                    return None
        except (ObjectNotFound, ObjectChanged):
            return None
        return found
