"""Objects from one store to another: one pool of part workers over all of them.

Parts are taken in the order of the objects, but finish in any order; the digest of an object needs them in
order. A part's buffer is free again when it was both uploaded and inspected, so a slow part holds up its
object's digest, and the other workers only when all memory is full of parts that wait behind it.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from backupagent import failpoints
from backupagent.errors import (
    BackupAgentError,
    IntegrityError,
    ObjectChanged,
    ObjectNotFound,
)
from backupagent.stores.base import NO_METADATA, ObjectStore
from backupagent.transfer.buffers import BufferPool
from backupagent.transfer.context import LOOK_S, Transfer
from backupagent.transfer.crew import crew
from backupagent.transfer.flow import Flow
from backupagent.transfer.items import Copied, CopyItem, CopyOutcome
from backupagent.transfer.journal import UploadJournal
from backupagent.transfer.object_state import ObjectState, Slot
from backupagent.transfer.plan import Part, fitting_part_size, plan_parts
from backupagent.transfer.store_copier import StoreCopier
from backupagent.transfer.target import PartedObject, PartTarget

_log = logging.getLogger(__name__)


def copy_objects(
    source: ObjectStore,
    target: ObjectStore,
    items: Sequence[CopyItem],
    journal: UploadJournal,
    transfer: Transfer,
    *,
    published: Callable[[Copied], None] = lambda _copied: None,
) -> CopyOutcome:
    """Copy objects, the first ones first.

    An object whose content is bad, or which is gone or replaced since it was listed, fails alone, and nothing
    of it stays in the target. Any other error stops the whole copy; open uploads stay remembered in the
    journal, and the next run goes on from their parts.

    What the target is to copy by itself, and refuses, goes the ordinary way, and so does all that comes after it.

    Args:
        source: List and Get are enough.
        target: Where the objects go.
        items: In the order in which they are needed.
        journal: Remembers uploads in parts.
        transfer: Its progress counts bytes that the target has taken.
        published: Called from a worker thread when an object has become visible.

    Returns:
        What became of each item.

    Raises:
        BackupAgentError: the first error that is not about one object's content.
        Cancelled: the token was set.
    """
    copied: dict[str, Copied] = {}
    failed: list[tuple[CopyItem, BackupAgentError]] = []
    refusal: BackupAgentError | None = None
    left = items
    while True:
        copy = _Copy(source, target, left, journal, transfer, published)
        with crew(copy.flow.most, copy.work, stop=copy.stop, fail=copy.fail):
            copy.wait()
        outcome = copy.outcome()
        copied |= {done.item.target_key: done for done in outcome.copied}
        failed += outcome.failed
        if outcome.refusal is not None:
            refusal = outcome.refusal
            _log.warning("the store does not copy by itself, the bytes go through here: %s", refusal)
        left = copy.left()
        if not left:
            order = (copied[item.target_key] for item in items if item.target_key in copied)
            return CopyOutcome(tuple(order), tuple(failed), refusal)


class _Copy:
    def __init__(
        self,
        source: ObjectStore,
        target: ObjectStore,
        items: Sequence[CopyItem],
        journal: UploadJournal,
        transfer: Transfer,
        published: Callable[[Copied], None],
    ) -> None:
        self._published = published
        self._source = source
        self._target = target
        self._transfer = transfer
        self._by_store = StoreCopier(target, transfer.progress, self._publish)
        self._states = [self._plan(item, journal) for item in items]
        self._tasks = [(state, part) for state in self._states for part in state.parts]
        self.part_count = len(self._tasks)
        size = sum(part.size for _state, part in self._tasks)
        self.flow = Flow(
            self.part_count,
            size,
            transfer.clock,
            fixed=transfer.settings.workers,
            trouble=transfer.trouble,
            round_trip_s=transfer.round_trip_s(),
        )
        self._buffers = BufferPool(transfer.settings.buffers_size)
        self._order = threading.Lock()
        self._next = 0
        self._done = threading.Condition()
        self._ended_parts = 0
        self._fatal: BaseException | None = None

    def _plan(self, item: CopyItem, journal: UploadJournal) -> ObjectState:
        if item.by_store is None:
            wanted = self._transfer.settings.part_size
            part_size = fitting_part_size(item.size, part_size=wanted, limits=self._target.limits)
        else:
            part_size = item.by_store.part_size
        parts = plan_parts(item.size, part_size or item.size)
        if len(parts) == 1 and not (item.by_store and part_size):
            return ObjectState(item, parts, None)
        parted = PartedObject(item.target_key, part_size, item.journal_name, item.by_store is not None)
        transfer = self._transfer
        upload = PartTarget(self._target, parted, journal, transfer.clock, trouble=transfer.trouble)
        return ObjectState(item, parts, upload)

    # ---- driven by copy_objects

    def wait(self) -> None:
        with self._done:
            while not self._done.wait_for(self._ended, timeout=LOOK_S):
                self._transfer.cancel.raise_if_set()
            error, self._fatal = self._fatal, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # else error and frame hold each other, and with them every buffer

    def _ended(self) -> bool:
        return self._fatal is not None or self._ended_parts == self.part_count

    def stop(self) -> None:
        self.flow.close()
        self._buffers.close()

    def fail(self, error: BaseException) -> None:
        with self._done:
            self._fatal = self._fatal or error
            self._done.notify_all()
        self.stop()

    def outcome(self) -> CopyOutcome:
        return CopyOutcome(
            tuple(state.copied for state in self._states if state.copied is not None),
            tuple((state.item, state.error) for state in self._states if state.error is not None),
            self._by_store.refusal,
        )

    def left(self) -> list[CopyItem]:
        """Return what is to go the ordinary way in the next round."""
        return [replace(state.item, by_store=None) for state in self._states if state.left and not state.error]

    # ---- worker threads

    def work(self) -> None:
        while self.flow.enter():
            if not self._work_on_one():
                self.flow.close()  # there is nothing left for the others either
                return

    def _work_on_one(self) -> bool:
        """Move a part; false when there is none left.

        A frame of its own: one that waited for the next part with this one's buffer in a variable would hold memory
        that the pool has given to others.
        """
        claim = self._claim()
        if claim is None:
            return False
        state, part, buffer = claim
        self._transfer.cancel.raise_if_set()
        try:
            if state.item.by_store is None:
                self._move(state, part, buffer)
            else:
                self._by_store.move(state, part, state.item.by_store)
        except IntegrityError as error:
            self._fail_object(state, error)
        self.flow.leave(part.size)
        self._end_part(state)
        return True

    def _claim(self) -> tuple[ObjectState, Part, bytearray] | None:
        """Take a part and its buffer, together and in order: so the part that a digest waits for always has one.

        A part that the store copies needs none. After a refusal only what has begun the ordinary way goes on.
        """
        with self._order:
            while self._next < self.part_count:
                state, part = self._tasks[self._next]
                by_store = state.item.by_store is not None
                if state.left or (self._by_store.refusal is not None and (by_store or not state.begun)):
                    self._next += 1
                    self._by_store.leave(state)
                    self._end_part(state)
                    continue
                buffer = self._buffers.acquire(0 if by_store else part.size)
                if buffer is None:
                    return None
                self._next += 1
                state.begun = True
                return state, part, buffer
        return None

    def _move(self, state: ObjectState, part: Part, buffer: bytearray) -> None:
        slot = Slot(buffer, memoryview(buffer))
        try:
            self._read(state, part, slot.view)
            if state.error is not None:
                return
            failpoints.hit("transfer.part")
            if state.upload is None:
                self._put_whole(state, slot.view)
            else:
                in_order = state.upload.in_order()
                self._inspect_in_order(state, part, slot, write=in_order)
                if in_order:
                    return  # it is written, and counted, by whoever inspects it
                state.upload.write(part.number, slot.view)
        finally:
            self._let_go(slot)
        self._transfer.progress.add(part.size)

    def _read(self, state: ObjectState, part: Part, view: memoryview) -> None:
        """Fill the buffer. The same errors from the target would not be about this object alone."""
        if state.error is not None or not part.size:
            return
        try:
            metadata = self._source.read_into(state.item.source_key, view, offset=part.offset, etag=state.item.etag)
            if state.upload is None:
                state.item.arrived(metadata)
        except (IntegrityError, ObjectNotFound, ObjectChanged) as error:
            self._fail_object(state, error)

    def _put_whole(self, state: ObjectState, view: memoryview) -> None:
        """A small object is inspected whole before the target sees any of it."""
        state.item.inspector.update(view)
        state.item.inspector.finish()
        failpoints.hit("transfer.complete")
        metadata = state.item.metadata()
        info = self._target.put(state.item.target_key, view, metadata=metadata)
        self._publish(state, Copied(state.item, info, metadata, reread=0))

    def _inspect_in_order(self, state: ObjectState, part: Part, slot: Slot, *, write: bool) -> None:
        """Queue the part; whoever finds nobody inspecting inspects every part that is due.

        Where the target takes parts in order only, the same one writes them too. So nobody waits for a turn: a part
        that came early waits without a worker, and the part that it waits for has a buffer already.
        """
        with state.lock:
            if state.error is not None:
                return
            slot.holders += 1
            state.waiting[part.number] = slot
            if state.inspecting:
                return
            state.inspecting = True
        while True:
            with state.lock:
                due = state.waiting.pop(state.inspected + 1, None)
                if due is None:
                    state.inspecting = False
                    return
                state.inspected += 1
                number = state.inspected
            try:
                state.item.inspector.update(due.view)
                if write and state.upload is not None:
                    state.upload.write(number, due.view)
                    self._transfer.progress.add(len(due.view))
            finally:
                self._let_go(due)

    def _end_part(self, state: ObjectState) -> None:
        """The last part to end settles its object: visible, or thrown away.

        Whoever inspects has not yet ended its own part; so when no part is left, all are inspected.
        """
        with state.lock:
            state.open_parts -= 1
            last = not state.open_parts
        if last and state.upload is not None:
            self._settle(state, state.upload)
        with self._done:
            self._ended_parts += 1
            if self._ended():
                self._done.notify_all()

    def _settle(self, state: ObjectState, upload: PartTarget) -> None:
        if state.item.by_store is not None and self._by_store.settle(state, upload, state.item.by_store):
            return
        if state.item.by_store is None and not state.left and self._settle_seen(state, upload):
            return
        try:
            upload.abandon(earlier=state.error is not None)
        except BackupAgentError as second:
            if state.error is not None:  # else whoever uploads it the ordinary way meets the same
                state.error.add_note(f"the upload stays open until the next run: {second}")

    def _settle_seen(self, state: ObjectState, upload: PartTarget) -> bool:
        if state.error is None:
            try:
                state.item.inspector.finish()
            except IntegrityError as error:
                self._fail_object(state, error)
        if state.error is None:
            failpoints.hit("transfer.complete")
            state.item.ready()
            self._publish(state, Copied(state.item, upload.complete(), NO_METADATA, upload.reread))
        return state.error is None

    def _publish(self, state: ObjectState, copied: Copied) -> None:
        state.copied = copied
        self._published(copied)

    def _fail_object(self, state: ObjectState, error: BackupAgentError) -> None:
        """Give an object up; parts that wait for their inspection need none any more."""
        with state.lock:
            # Without its traceback: an error that is kept must not keep the buffers of its frames.
            state.error = state.error or error.with_traceback(None)
            waiting = list(state.waiting.values())
            state.waiting.clear()
        for slot in waiting:
            self._let_go(slot)

    def _let_go(self, slot: Slot) -> None:
        with self._done:
            slot.holders -= 1
            free = not slot.holders
        if free:
            slot.view.release()
            self._buffers.release(slot.buffer)
