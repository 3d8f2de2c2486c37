"""What the engine promises to everybody above it; each test would fail without the promise."""

import threading
from collections.abc import Callable

import pytest
from transfer_fakes import Digest, Gate, HookedStore, content, copy_item, fill, journal_of, peak_size, transfer

from backupagent.errors import Cancelled
from backupagent.settings import TransferSettings
from backupagent.stores.base import Buffer, Upload
from backupagent.transfer.context import Transfer
from backupagent.transfer.copying import copy_objects
from backupagent.transfer.reading import ReadItem, read_objects
from backupagent.transfer.writing import open_writer
from backupagent.units import KiB

WORKERS, WINDOW, PART = 4, 2, 1 * KiB


def read(source: HookedStore, _target: HookedStore) -> None:
    items = [ReadItem(info.key, info.size, info.etag) for info in source.list_objects("")]
    for _piece in read_objects(source, items, transfer(WORKERS, WINDOW, PART)):
        pass


def copy(source: HookedStore, target: HookedStore) -> None:
    items = [copy_item(source, key) for key in source.names()]
    assert not copy_objects(source, target, items, journal_of(target), transfer(WORKERS, WINDOW, PART)).failed


def write(source: HookedStore, target: HookedStore) -> None:
    with open_writer(target, "key", journal_of(target), transfer(WORKERS, WINDOW, PART)) as writer:
        for key in source.names():
            writer.write(source.get(key))
        writer.complete("snapshot.publish")


@pytest.mark.parametrize("move", [read, copy, write])
@pytest.mark.parametrize("scale", [1, 20])
def test_bounded_memory_is_workers_and_window_times_part_size(
    move: Callable[[HookedStore, HookedStore], None], scale: int
) -> None:
    """However large and many the objects are; and everything passes through these buffers."""
    source, target = HookedStore(), HookedStore()
    fill(source, [scale * 10 * KiB, 100, 0, scale * 3 * KiB + 1] * scale)
    move(source, target)
    buffers = source.buffers | target.buffers
    assert buffers
    assert max(len(buffer) for buffer in buffers.values()) == PART
    assert 0 < peak_size() <= (WORKERS + WINDOW) * PART


def test_bounded_memory_is_less_for_small_objects() -> None:
    source, target = HookedStore(), HookedStore()
    fill(source, [100] * 50)
    copy(source, target)
    assert {len(buffer) for buffer in source.buffers.values()} == {100}


@pytest.mark.parametrize("done", range(1, 8))
def test_resumable_a_copy_that_is_stopped_anywhere_goes_on_where_it_was(done: int) -> None:
    """Finished parts are not uploaded twice, and the result is the same bytes."""
    source, target, how = HookedStore(), HookedStore(), transfer(workers=1, part_size=4)
    objects = fill(source, [11, 15])

    def after_part(_number: int) -> None:
        if len(target.parts) == done:
            how.cancel.set("a test")

    target.after_part = after_part
    items = [copy_item(source, key) for key in objects]
    if done < 7:
        with pytest.raises(Cancelled):
            copy_objects(source, target, items, journal_of(target), how)
    else:
        copy_objects(source, target, items, journal_of(target), how)
    todo = [copy_item(source, key) for key in objects if f"copy/{key}" not in target.names()]
    outcome = copy_objects(source, target, todo, journal_of(target), transfer(part_size=4))
    assert len(target.parts) == 7
    assert sum(copied.reread for copied in outcome.copied) == {1: 4, 2: 8, 3: 0, 4: 4, 5: 8, 6: 12, 7: 0}[done]
    assert {key: target.get(f"copy/{key}") for key in objects} == objects
    assert target.names() == ["copy/0", "copy/1"]
    assert target.open_uploads() == []


@pytest.mark.parametrize("size", [3, 4, 23])
def test_atomic_nothing_is_visible_before_every_byte_passed_the_inspection(size: int) -> None:
    source, target, ending = HookedStore(), HookedStore(), Gate()
    objects = fill(source, [size])

    class Held(Digest):
        def finish(self) -> None:
            ending.hold()
            super().finish()

    inspector = Held()
    arguments = (source, target, [copy_item(source, "0", inspector)], journal_of(target), transfer(part_size=4))
    copying = threading.Thread(target=copy_objects, args=arguments)
    copying.start()
    ending.wait_for(1)
    assert inspector.size == size
    assert target.names("copy/") == []
    ending.open()
    copying.join()
    assert target.get("copy/0") == objects["0"]


def test_atomic_an_object_that_is_replaced_stays_whole_until_its_successor_is() -> None:
    target = HookedStore()
    target.put("key", b"old and whole")
    with open_writer(target, "key", journal_of(target), transfer(part_size=4)) as writer:
        writer.write(content(100))
        assert target.get("key") == b"old and whole"  # and the block does not complete
    assert target.get("key") == b"old and whole"


def test_exact_a_byte_that_the_store_holds_wrong_from_an_earlier_run_does_not_get_into_the_object() -> None:
    source, target = HookedStore(), HookedStore()
    objects = fill(source, [12])
    item = copy_item(source, "0")
    upload = target.begin_upload(item.target_key, part_size=4)
    journal_of(target).remember(item.journal_name, upload, now_s=0)
    for number in (1, 2, 3):
        target.upload_part(upload, number, b"evil")
    copy_objects(source, target, [item], journal_of(target), transfer(part_size=4))
    assert target.get("copy/0") == objects["0"]


def test_gentle_the_source_is_only_read() -> None:
    class Source(HookedStore):
        def put(self, key: str, data: Buffer, **options: object) -> object:
            raise AssertionError(key)

        def delete(self, key: str) -> None:
            raise AssertionError(key)

        def begin_upload(self, key: str, **options: object) -> Upload:
            raise AssertionError(key)

        def stat(self, key: str) -> object:
            raise AssertionError(key)

    full = HookedStore()
    objects = fill(full, [3, 23, 0])
    items = [copy_item(full, key) for key in objects]
    source = Source()
    source._objects = full._objects
    target = HookedStore()
    assert not copy_objects(source, target, items, journal_of(target), Transfer(TransferSettings(part_size=4))).failed
    assert {key: target.get(f"copy/{key}") for key in objects} == objects
