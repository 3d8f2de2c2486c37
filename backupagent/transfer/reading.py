"""Objects as one ordered stream of pieces, fetched by several ranged reads at a time."""

import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from backupagent.cancel import Cancel
from backupagent.settings import TransferSettings
from backupagent.stores.base import ObjectStore
from backupagent.transfer.buffers import BufferPool
from backupagent.transfer.context import LOOK_S, Transfer
from backupagent.transfer.crew import crew
from backupagent.transfer.plan import Part, plan_parts


@dataclass(frozen=True)
class ReadItem:
    """An object to read whole.

    Attributes:
        key: Its key.
        size: Its size as listed, bytes.
        etag: Only this very content is read; empty for whatever is there.
    """

    key: str
    size: int
    etag: str = ""


@dataclass(frozen=True)
class Piece:
    """The next bytes of an object.

    Attributes:
        index: Which of the items it belongs to.
        data: The bytes; valid until the next piece is asked for.
        last: Whether the object ends with it.
    """

    index: int
    data: memoryview
    last: bool


@dataclass(frozen=True)
class _Task:
    index: int
    part: Part
    last: bool


def read_objects(store: ObjectStore, items: Sequence[ReadItem], transfer: Transfer) -> Generator[Piece, None, None]:
    """Read objects one after the other, fetching ahead across their borders.

    Reads begin in order, so the piece that is wanted next always has its buffer; a slow one holds up the
    others only when all buffers are full. Close the generator when you stop early (``contextlib.closing``).

    Args:
        store: Where they are.
        items: The objects, in the order in which they are wanted.
        transfer: Its progress counts stored bytes as they are handed out.

    Yields:
        Every byte of every object in order; an empty object gives one empty piece.

    Raises:
        StoreError: from the store, at the place where the bytes would have come.
        Cancelled: the token was set.
    """
    tasks = [
        _Task(index, part, part.offset + part.size == item.size)
        for index, item in enumerate(items)
        for part in plan_parts(item.size, transfer.settings.part_size)
    ]
    fetcher = _Fetcher(store, items, tasks, transfer.settings)
    count = min(transfer.settings.workers, max(1, len(tasks)))
    with crew(count, fetcher.work, stop=fetcher.stop, fail=fetcher.fail):
        for number, task in enumerate(tasks):
            transfer.cancel.raise_if_set()
            buffer = fetcher.wait_for(number, transfer.cancel)
            view = memoryview(buffer)
            transfer.progress.add(task.part.size)
            yield Piece(task.index, view, task.last)
            view.release()
            fetcher.give_back(buffer)


def next_object(pieces: Iterator[Piece]) -> Iterator[memoryview]:
    """Give the bytes of the next object, and ask for nothing behind it, where an error would not be its own.

    Args:
        pieces: From ``read_objects``, at the start of an object.

    Yields:
        Its bytes in order, each valid until the next is asked for.
    """
    for piece in pieces:
        yield piece.data
        if piece.last:
            return


class _Fetcher:
    """Shared by the worker threads and the one consumer."""

    def __init__(
        self, store: ObjectStore, items: Sequence[ReadItem], tasks: Sequence[_Task], settings: TransferSettings
    ) -> None:
        self._store = store
        self._items = items
        self._tasks = tasks
        self._buffers = BufferPool(settings.buffers_size)
        self._order = threading.Lock()
        self._next = 0
        self._arrived: dict[int, bytearray | BaseException] = {}
        self._arrival = threading.Condition()

    def work(self) -> None:
        while True:
            # Buffer and task are taken together and in order: the earliest unread part always has a buffer.
            with self._order:
                number = self._next
                if number == len(self._tasks):
                    return
                buffer = self._buffers.acquire(self._tasks[number].part.size)
                if buffer is None:
                    return
                self._next += 1
            self._arrive(number, self._fetch(self._tasks[number], buffer))

    def _fetch(self, task: _Task, buffer: bytearray) -> bytearray | BaseException:
        item = self._items[task.index]
        try:
            if task.part.size:
                with memoryview(buffer) as view:
                    self._store.read_into(item.key, view, offset=task.part.offset, etag=item.etag)
        except BaseException as error:  # noqa: BLE001 - raised again where the consumer waits for this part
            return error
        return buffer

    def _arrive(self, number: int, what: bytearray | BaseException) -> None:
        with self._arrival:
            self._arrived[number] = what
            self._arrival.notify_all()

    def wait_for(self, number: int, cancel: Cancel) -> bytearray:
        with self._arrival:
            while not self._arrival.wait_for(lambda: number in self._arrived, timeout=LOOK_S):
                cancel.raise_if_set()
            what = self._arrived.pop(number)
        if isinstance(what, bytearray):
            return what
        try:
            raise what
        finally:
            del what  # else error and frame hold each other, and with them every buffer

    def give_back(self, buffer: bytearray) -> None:
        self._buffers.release(buffer)

    def stop(self) -> None:
        self._buffers.close()

    def fail(self, error: BaseException) -> None:
        self._arrive(self._next, error)  # a worker gets no further than the part that it would have taken
