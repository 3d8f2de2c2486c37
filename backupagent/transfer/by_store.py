"""Copies that a store makes by itself: which objects, in which parts, and what became of the attempt."""

import logging
import threading
from collections.abc import Mapping

from backupagent.errors import BackupAgentError, ObjectChanged, ObjectNotFound, StoreError
from backupagent.stores.base import Copies, CopySource, ObjectStore, StoreLimits
from backupagent.transfer.items import ByStore
from backupagent.transfer.plan import fitting_part_size

_log = logging.getLogger(__name__)


def shared_service(source: ObjectStore, target: ObjectStore) -> Copies | None:
    """Tell how the target copies from the source by itself; None where they are not on one service."""
    there, here = source.features.copies, target.features.copies
    return here if here is not None and there is not None and there.service == here.service else None


def worth_copying(size: int, copies: Copies) -> bool:
    """Tell whether an object of that many bytes should, and can, be copied by the store."""
    return size >= copies.smallest and (size <= copies.whole or copies.part > 0)


def copy_part_size(source: CopySource, copies: Copies, limits: StoreLimits) -> int:
    """Choose the parts of a copy: those of the source, so that both have comparable digests, else large ones.

    Returns:
        Bytes of every part but the last; 0 to copy the object whole, in one request.
    """
    size, own = source.info.size, source.part_size
    if copies.part and own and limits.min_part <= own <= limits.max_part and size <= own * limits.max_parts:
        return own
    return 0 if size <= copies.whole else fitting_part_size(size, part_size=copies.part, limits=limits)


def digests_agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool | None:
    """Compare what two stores tell of a content; None when they tell nothing that can be compared."""
    common = one.keys() & other.keys()
    return all(one[name] == other[name] for name in common) if common else None


class Planner:
    """Finds out what the target is to copy by itself. Thread-safe.

    Args:
        source: The store with the objects.
        target: The store that may be able to copy them.
        wanted: Whether it should.

    Attributes:
        refusal: Why the target does not copy the source's objects; None while nothing speaks against it.
    """

    def __init__(self, source: ObjectStore, target: ObjectStore, *, wanted: bool) -> None:
        self._source = source
        self._limits = target.limits
        self._copies = shared_service(source, target) if wanted else None
        self.refusal: BackupAgentError | None = None

    def takes(self, size: int) -> bool:
        """Tell whether an object of that many bytes is a matter of the store."""
        return self._copies is not None and self.refusal is None and worth_copying(size, self._copies)

    def refused(self, refusal: BackupAgentError | None) -> None:
        """Take note of what a copy met: the target refuses, and is not asked again."""
        self.refusal = self.refusal or refusal

    def plan(self, key: str, size: int, etag: str) -> ByStore | None:
        """Describe an object for the target; None where its bytes have to go through here."""
        if self._copies is None or not self.takes(size):
            return None
        try:
            source = self._source.copy_source(key, etag=etag)
        except (ObjectNotFound, ObjectChanged):  # the ordinary way says so
            return None
        except StoreError as error:
            if error.retryable:
                raise
            _log.warning("the store cannot copy by itself, the bytes go through here: %s", error)
            self.refusal = error
            return None
        if source.info.size != size:  # a store that stores in another form than it lists
            return None
        return ByStore(source, copy_part_size(source, self._copies, self._limits))


class Attempt:
    """Whether the store copies by itself, as far as it is known. Thread-safe.

    Attributes:
        refusal: Why it does not; None while nothing speaks against it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._works = False
        self.refusal: BackupAgentError | None = None

    def succeeded(self) -> None:
        """Take note of something that the store copied."""
        self._works = True

    def failed(self, error: BackupAgentError) -> None:
        """Take note of an error. It need not be understood: whatever it was, the ordinary way finds it again.

        Before the store has copied anything, every error is a refusal. Afterwards one about a single object is that
        object's, and one that may pass is no refusal.

        Raises:
            BackupAgentError: the error itself, when the copy has to stop.
        """
        if self._works and error.retryable:
            raise error
        if self._works and isinstance(error, ObjectNotFound | ObjectChanged):
            return
        self.refuse(error)

    def refuse(self, error: BackupAgentError) -> None:
        """Give it up for the rest of the copy; the first reason counts."""
        with self._lock:
            # Without its traceback: an error that is kept must not keep its frames.
            self.refusal = self.refusal or error.with_traceback(None)
