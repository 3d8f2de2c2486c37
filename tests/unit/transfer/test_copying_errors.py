"""A bad object fails alone and leaves nothing; a bad store stops everything; nobody waits for ever."""

import gc
import threading
import weakref
from collections.abc import Callable

import pytest
from transfer_fakes import (
    JOURNAL,
    LIMIT_S,
    Digest,
    Gate,
    HookedStore,
    Log,
    content,
    copy_item,
    fill,
    peak_size,
    transfer,
    unavailable,
)

from backupagent.errors import (
    BackupAgentError,
    ChecksumMismatch,
    ObjectChanged,
    ObjectNotFound,
    StoreUnavailable,
    TruncatedObject,
)
from backupagent.stores.base import Buffer, ObjectInfo, ObjectStore, PartTag, Upload
from backupagent.testing.faulty import Fault, FaultyStore
from backupagent.transfer.copying import CopyItem, CopyOutcome, copy_objects
from backupagent.transfer.journal import UploadJournal


def copy(
    source: ObjectStore, target: ObjectStore, items: list[CopyItem], workers: int = 3, window: int = 2
) -> CopyOutcome:
    return copy_objects(
        source, target, items, UploadJournal(target, JOURNAL), transfer(workers=workers, window=window, part_size=4)
    )


def assert_only_copied(target: HookedStore, objects: dict[str, bytes]) -> None:
    """Nothing but these objects is in the target: no other object, no upload, no journal."""
    assert {key: target.get(f"copy/{key}") for key in objects} == objects
    assert target.names() == sorted(f"copy/{key}" for key in objects)
    assert target.open_uploads() == []


def raising(error: BaseException, *, key: str, offset: int) -> Callable[[str, int], None]:
    def on_read(read_key: str, read_offset: int) -> None:
        if (read_key, read_offset) == (key, offset):
            raise error

    return on_read


ERRORS_OF_ONE_OBJECT: list[BackupAgentError] = [
    TruncatedObject("planned", key="1"),
    ObjectNotFound("planned", op="read", key="1"),
    ObjectChanged("planned", op="read", key="1"),
]


@pytest.mark.parametrize("error", ERRORS_OF_ONE_OBJECT, ids=lambda error: error.reason)
@pytest.mark.parametrize("offset", [0, 8, 20])
def test_an_object_that_cannot_be_read_fails_alone(error: BackupAgentError, offset: int) -> None:
    source, target = HookedStore(), HookedStore()
    objects = fill(source, [24, 24, 24, 3])
    source.on_read = raising(error, key="1", offset=offset)
    items = [copy_item(source, key) for key in objects]

    outcome = copy(source, target, items)

    assert outcome.failed == ((items[1], error),)
    del objects["1"]
    assert [copied.item.source_key for copied in outcome.copied] == list(objects)
    assert_only_copied(target, objects)


@pytest.mark.parametrize("error", ERRORS_OF_ONE_OBJECT, ids=lambda error: error.reason)
def test_a_small_object_that_cannot_be_read_fails_alone(error: BackupAgentError) -> None:
    source, target = HookedStore(), HookedStore()
    objects = fill(source, [3, 3, 3])
    source.on_read = raising(error, key="1", offset=0)
    items = [copy_item(source, key) for key in objects]
    assert copy(source, target, items).failed == ((items[1], error),)
    del objects["1"]
    assert_only_copied(target, objects)


@pytest.mark.parametrize("size", [3, 24])
def test_an_object_that_was_replaced_since_it_was_listed_fails_alone(size: int) -> None:
    source, target = HookedStore(), HookedStore()
    objects = fill(source, [size, size])
    items = [copy_item(source, key) for key in objects]
    source.put("0", content(size, seed=9))
    ((failed, error),) = copy(source, target, items).failed
    assert failed is items[0]
    assert isinstance(error, ObjectChanged)
    assert_only_copied(target, {"1": objects["1"]})


@pytest.mark.parametrize(("workers", "window"), [(2, 1), (3, 2), (8, 4)])
def test_objects_that_fail_in_the_middle_give_every_buffer_back(workers: int, window: int) -> None:
    """A part behind the one that fails waits for an inspection that never comes: twenty of them would use up all
    buffers there are.
    """
    behind = {f"copy/{key}": threading.Event() for key in range(21)}

    class Target(HookedStore):
        def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
            tag = super().upload_part(upload, number, data)
            if number == 3:
                behind[upload.key].set()
            return tag

    def on_read(key: str, offset: int) -> None:
        if offset == 4 and key != "20":
            assert behind[f"copy/{key}"].wait(LIMIT_S)
            raise TruncatedObject("planned", key=key)

    source, target = HookedStore(), Target()
    objects = fill(source, [24] * 21)
    source.on_read = on_read
    outcome = copy(source, target, [copy_item(source, key) for key in objects], workers, window)
    assert len(outcome.failed) == 20
    assert_only_copied(target, {"20": objects["20"]})
    assert peak_size() <= (workers + window) * 4


def test_parts_behind_a_failed_one_give_their_buffers_back_at_once() -> None:
    """Every other buffer waits behind the first part when that fails; the next object needs two at the same time."""
    source, target, uploaded, next_part = HookedStore(), HookedStore(), Log(), Log()
    objects = fill(source, [20, 8])

    def on_read(key: str, offset: int) -> None:
        if (key, offset) == ("0", 0):
            uploaded.wait_for(3)
            raise TruncatedObject("planned", key=key)
        if (key, offset) == ("1", 0):
            next_part.wait_for(1)
        if (key, offset) == ("1", 4):
            next_part.add(offset)

    source.on_read = on_read
    target.after_part = uploaded.add
    outcome = copy(source, target, [copy_item(source, key) for key in objects], workers=2, window=2)
    assert [error.reason for _item, error in outcome.failed] == ["TruncatedObject"]
    assert_only_copied(target, {"1": objects["1"]})


# ---- bad content


@pytest.mark.parametrize("size", [3, 24])
@pytest.mark.parametrize("bad", [{"bad_at": 1}, {"bad_end": True}], ids=["update", "finish"])
def test_an_object_with_bad_content_fails_alone(size: int, bad: dict[str, int]) -> None:
    source, target = HookedStore(), HookedStore()
    objects = fill(source, [size, size, 5])
    items = [copy_item(source, "0"), copy_item(source, "1", Digest(**bad)), copy_item(source, "2")]
    outcome = copy(source, target, items)
    assert [(item.source_key, error.reason) for item, error in outcome.failed] == [("1", "ChecksumMismatch")]
    del objects["1"]
    assert_only_copied(target, objects)


def test_bad_content_may_be_found_by_the_worker_of_another_part() -> None:
    """The second part waits for the first, whose worker then inspects both and finds the second bad."""
    source, target, second = HookedStore(), HookedStore(), Log()
    fill(source, [24])
    source.on_read = lambda _key, offset: second.wait_for(1) if offset == 0 else None
    target.on_part = second.add
    outcome = copy(source, target, [copy_item(source, "0", Digest(bad_at=8))], workers=2)
    assert [str(error) for _item, error in outcome.failed] == ["inspected: planned"]
    assert 1 not in target.parts
    assert_only_copied(target, {})


def test_a_part_that_was_read_while_its_object_failed_needs_no_inspection(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target, read, failed = HookedStore(), HookedStore(), Gate(), Log()
    objects = fill(source, [8, 3])
    inspector = Digest()

    def on_read(key: str, offset: int) -> None:
        if (key, offset) == ("0", 0):
            read.wait_for(1)
            raise TruncatedObject("planned", key=key)
        if key == "1":  # the same worker goes on
            read.open()

    def hit(_name: str) -> None:
        if not failed.seen:
            failed.add("second part of the first object")
            read.hold()

    source.on_read = on_read
    monkeypatch.setattr("backupagent.failpoints.hit", hit)
    outcome = copy(source, target, [copy_item(source, "0", inspector), copy_item(source, "1")], workers=2)
    assert len(outcome.failed) == 1
    assert inspector.size == 0
    assert_only_copied(target, {"1": objects["1"]})


def test_an_object_is_thrown_away_only_when_none_of_its_parts_is_on_its_way() -> None:
    """A store may keep a part that lands after its upload was aborted."""
    source, target, events, uploading = HookedStore(), HookedStore(), Log(), Gate()
    fill(source, [12, 3])

    def on_part(number: int) -> None:
        uploading.hold()
        events.add(number)

    def on_read(key: str, offset: int) -> None:
        if (key, offset) == ("0", 4):
            uploading.wait_for(1)
            raise TruncatedObject("planned", key=key)
        if key == "1":
            uploading.open()

    class Store(HookedStore):
        def abort_upload(self, upload: Upload) -> None:
            events.add("abort")
            super().abort_upload(upload)

    target = Store()
    source.on_read, target.on_part = on_read, on_part
    outcome = copy(source, target, [copy_item(source, "0"), copy_item(source, "1")], workers=2)
    assert len(outcome.failed) == 1
    assert events.seen[0] == 1
    assert events.seen[-1] == "abort"
    assert events.seen.count("abort") == 1


def test_what_an_earlier_run_uploaded_of_a_bad_object_is_thrown_away_too() -> None:
    source, target = HookedStore(), HookedStore()
    fill(source, [12])
    item = copy_item(source, "0")
    upload = target.begin_upload(item.target_key, part_size=4)
    UploadJournal(target, JOURNAL).remember(item.journal_name, upload, now_s=0)
    source.on_read = raising(ObjectNotFound("planned", op="read"), key="0", offset=0)
    assert len(copy(source, target, [item], workers=1).failed) == 1
    assert_only_copied(target, {})


def test_an_upload_that_cannot_be_thrown_away_is_told_and_stops_nothing() -> None:
    source, inner = HookedStore(), HookedStore()
    objects = fill(source, [24, 24])
    target = FaultyStore(inner, Fault("abort_upload", error=unavailable("abort")))
    outcome = copy(source, target, [copy_item(source, "0", Digest(bad_at=24)), copy_item(source, "1")])
    ((_item, error),) = outcome.failed
    assert error.__notes__ == ["the upload stays open until the next run: abort '': planned"]
    assert inner.get("copy/1") == objects["1"]
    assert inner.open_uploads() == ["copy/0"]
    assert inner.names(JOURNAL) == [f"{JOURNAL}name-0.json"]
    target.assert_all_hit()


def test_an_unexpected_error_while_throwing_away_is_raised_and_no_hang() -> None:
    class Broken(HookedStore):
        def abort_upload(self, upload: Upload) -> None:
            raise OSError("planned")

    source, target = HookedStore(), Broken()
    fill(source, [24])
    with pytest.raises(OSError, match="planned"):
        copy(source, target, [copy_item(source, "0", Digest(bad_end=True))])


# ---- errors that stop everything


@pytest.mark.parametrize("method", ["read_into", "begin_upload", "put", "upload_part", "complete_upload", "delete"])
def test_a_store_that_fails_stops_the_copy_and_the_next_run_ends_it(method: str) -> None:
    inner, target_inner = HookedStore(), HookedStore()
    objects = fill(inner, [24, 3, 24])
    fault = Fault(method, error=unavailable(method))
    source = FaultyStore(inner, *([fault] if method == "read_into" else []))
    target = FaultyStore(target_inner, *([] if method == "read_into" else [fault]))

    with pytest.raises(StoreUnavailable, match=f"{method} '': planned"):
        copy(source, target, [copy_item(inner, key) for key in objects])
    source.assert_all_hit()
    target.assert_all_hit()
    assert copy(source, target, [copy_item(inner, key) for key in objects]).failed == ()
    assert_only_copied(target_inner, objects)


def test_the_targets_not_found_is_not_about_one_object() -> None:
    source, target = HookedStore(), HookedStore()
    fill(source, [24])
    gone = FaultyStore(target, Fault("upload_part", nth=2, error=ObjectNotFound("the upload is gone", op="upload")))
    with pytest.raises(ObjectNotFound, match="the upload is gone"):
        copy(source, gone, [copy_item(source, "0")])


def test_an_upload_that_cannot_begin_is_tried_by_one_worker_only() -> None:
    """Else each of them would retry for as long as the first one did, one after the other."""
    source, inner, read = HookedStore(), HookedStore(), Log()
    fill(source, [16])

    class Target(FaultyStore):
        def stat(self, key: str) -> ObjectInfo:  # the journal is asked first: by then all four parts are read
            read.wait_for(4)
            return super().stat(key)

    target = Target(inner, Fault("begin_upload", times=4, error=unavailable("begin")))
    source.on_read = lambda _key, offset: read.add(offset)
    with pytest.raises(StoreUnavailable, match="begin"):
        copy(source, target, [copy_item(source, "0")], workers=4)
    assert target.calls["begin_upload"] == 1


def test_an_upload_that_cannot_be_remembered_is_thrown_away() -> None:
    source, inner = HookedStore(), HookedStore()
    fill(source, [24])
    target = FaultyStore(inner, Fault("put", nth=2, error=unavailable("put")))
    with pytest.raises(StoreUnavailable, match="put"):
        copy(source, target, [copy_item(source, "0")])
    target.assert_all_hit()
    assert inner.open_uploads() == []
    assert inner.parts == []


def test_an_upload_that_can_be_neither_remembered_nor_thrown_away_is_told() -> None:
    source, inner = HookedStore(), HookedStore()
    fill(source, [24])
    target = FaultyStore(
        inner, Fault("put", nth=2, error=unavailable("put")), Fault("abort_upload", error=unavailable("abort"))
    )
    with pytest.raises(StoreUnavailable, match="put") as caught:
        copy(source, target, [copy_item(source, "0")])
    assert caught.value.__notes__ == ["an upload of copy/0 stays open: abort '': planned"]


@pytest.mark.parametrize("size", [3, 24])
def test_a_bug_in_an_inspector_stops_the_copy(size: int) -> None:
    class Broken(Digest):
        def update(self, data: memoryview) -> None:
            raise ZeroDivisionError("planned")

    source, target = HookedStore(), HookedStore()
    fill(source, [size])
    with pytest.raises(ZeroDivisionError, match="planned"):
        copy(source, target, [copy_item(source, "0", Broken())])
    assert target.names("copy/") == []


# ---- memory


def test_memory_comes_back_with_the_error_and_needs_no_garbage_collection() -> None:
    source, target = HookedStore(), HookedStore()
    fill(source, [24])

    def on_read(_key: str, offset: int) -> None:
        if offset == 8:
            raise unavailable("read")

    source.on_read = on_read
    gc.disable()
    try:
        try:
            copy(source, target, [copy_item(source, "0")])
        except StoreUnavailable as error:
            alive = weakref.ref(error)
        assert alive() is None
    finally:
        gc.enable()


def test_the_error_of_a_bad_object_keeps_no_frames() -> None:
    source, target = HookedStore(), HookedStore()
    fill(source, [24])
    ((_item, error),) = copy(source, target, [copy_item(source, "0", Digest(bad_at=1))]).failed
    assert isinstance(error, ChecksumMismatch)
    assert error.__traceback__ is None
