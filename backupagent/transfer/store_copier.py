"""Lets the store copy, compares what it made, and leaves to the ordinary way what it refuses."""

from collections.abc import Callable
from typing import TypeVar

from backupagent import failpoints
from backupagent.errors import BackupAgentError, Cancelled, ChecksumMismatch
from backupagent.progress import Progress
from backupagent.stores.base import NO_METADATA, ObjectInfo, ObjectStore
from backupagent.transfer.by_store import Attempt, digests_agree
from backupagent.transfer.items import ByStore, Copied, StoreCopy
from backupagent.transfer.object_state import ObjectState
from backupagent.transfer.plan import Part
from backupagent.transfer.target import PartTarget

T = TypeVar("T")


class StoreCopier:
    """The copies of one round. Thread-safe.

    Args:
        target: The store.
        progress: Counts bytes that it has copied.
        publish: Told of every object that has become visible and is right.
    """

    def __init__(self, target: ObjectStore, progress: Progress, publish: Callable[[ObjectState, Copied], None]) -> None:
        self._target = target
        self._progress = progress
        self._publish = publish
        self._attempt = Attempt()

    @property
    def refusal(self) -> BackupAgentError | None:
        """Why the store does not copy; None while nothing speaks against it."""
        return self._attempt.refusal

    def move(self, state: ObjectState, part: Part, by_store: ByStore) -> None:
        """Let the store copy a part, or the whole object.

        Raises:
            IntegrityError: the object must not pass unseen.
            BackupAgentError: the copy has to stop.
        """
        if state.left or state.error is not None:
            return
        if part.number == 1:
            state.item.inspector.pass_unseen()
        failpoints.hit("transfer.part")
        if state.upload is None:
            info = self._asked(state, lambda: self._target.copy_object(by_store.source, state.item.target_key))
            if info is not None:
                self._count(state, part.size, part.size)
                self._compare(state, by_store, info)
            return
        upload = state.upload
        moved = self._asked(state, lambda: upload.copy(part, by_store.source))
        if moved is not None:
            self._count(state, part.size, moved)

    def settle(self, state: ObjectState, upload: PartTarget, by_store: ByStore) -> bool:
        """Make an object of its parts, when all of them were copied.

        Returns:
            Whether it is done with; else nothing of it may stay.
        """
        if state.error is not None or state.left:
            return False
        failpoints.hit("transfer.complete")
        info = self._asked(state, upload.complete)
        if info is not None:
            self._compare(state, by_store, info)
        return info is not None

    def leave(self, state: ObjectState) -> None:
        """Leave an object to the ordinary way, in the next round."""
        with state.lock:
            if not state.left:
                self._progress.add(-state.counted)
            state.left = True

    def _asked(self, state: ObjectState, call: Callable[[], T]) -> T | None:
        """Ask the store; None when it refuses, and the object was left."""
        try:
            answer = call()
        except Cancelled:
            raise
        except BackupAgentError as error:
            self._attempt.failed(error)
            self.leave(state)
            return None
        self._attempt.succeeded()
        return answer

    def _count(self, state: ObjectState, size: int, moved: int) -> None:
        with state.lock:
            state.moved += moved
            state.counted += size
            if not state.left:
                self._progress.add(size)

    def _compare(self, state: ObjectState, by_store: ByStore, info: ObjectInfo) -> None:
        """Publish a copy whose digest is the source's, or at least its size; another one is removed again."""
        agreed = digests_agree(by_store.source.info.digests, info.digests)
        same = self._target.stat(info.key).size == state.item.size if agreed is None else agreed
        if same:
            self._publish(state, Copied(state.item, info, NO_METADATA, 0, StoreCopy(state.moved, agreed is True)))
            return
        self._target.delete(info.key)
        message = f"the store's copy has another digest or size than the source: {dict(info.digests)}"
        self._attempt.refuse(ChecksumMismatch(message, key=info.key))
        self.leave(state)
