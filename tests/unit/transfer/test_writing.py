"""A stream becomes one object, whole or not at all; whatever happens, all threads end."""

import hashlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transfer_fakes import (
    JOURNAL,
    LIMIT_S,
    CancelAtLook,
    Gate,
    HookedStore,
    Log,
    content,
    journal_of,
    open_at_close,
    peak_size,
    transfer,
    unavailable,
)

from backupagent import failpoints
from backupagent.errors import Cancelled, ConfigError, StoreUnavailable
from backupagent.stores.base import ObjectStore, StoreLimits, Upload
from backupagent.testing.faulty import Fault, FaultyStore
from backupagent.transfer.context import Transfer
from backupagent.transfer.journal import UploadJournal
from backupagent.transfer.writing import STREAM_MARKER, ObjectWriter, open_writer

POINT = "snapshot.publish"


def write(store: ObjectStore, chunks: list[bytes], how: Transfer) -> ObjectWriter:
    with open_writer(store, "key", UploadJournal(store, JOURNAL), how) as writer:
        for chunk in chunks:
            writer.write(chunk)
        info = writer.complete(POINT)
    assert info == store.stat("key")
    return writer


def write_and_fail(store: ObjectStore, size: int) -> None:
    with open_writer(store, "key", UploadJournal(store, JOURNAL), transfer()) as writer:
        writer.write(content(size))
        raise ZeroDivisionError


def assert_nothing_is_there(store: HookedStore) -> None:
    assert store.names() == []
    assert store.open_uploads() == []


@given(
    chunks=st.lists(st.binary(max_size=20), max_size=8),
    workers=st.integers(1, 5),
    window=st.integers(1, 4),
    part_size=st.integers(1, 12),
)
def test_every_byte_arrives_once_and_in_order(chunks: list[bytes], workers: int, window: int, part_size: int) -> None:
    store, how, data = HookedStore(), transfer(workers, window, part_size), b"".join(chunks)

    writer = write(store, chunks, how)

    assert store.get("key") == data
    assert writer.size == len(data)
    assert writer.sha256 == hashlib.sha256(data).hexdigest()
    assert store.names() == ["key"]
    assert store.open_uploads() == []
    assert how.progress.view().done == len(data)
    assert peak_size() <= (workers + window) * part_size


@given(order=st.permutations(range(6)))
def test_parts_may_end_in_any_order(order: list[int]) -> None:
    store, data = HookedStore(), content(23)
    turns = [threading.Event() for _ in range(7)]
    turns[0].set()
    turn_of = {part: turn for turn, part in enumerate(order)}

    def on_part(number: int) -> None:
        assert turns[turn_of[number - 1]].wait(LIMIT_S)

    store.on_part = on_part
    store.after_part = lambda number: turns[turn_of[number - 1] + 1].set()
    write(store, [data], transfer(workers=6, part_size=4))
    assert store.get("key") == data


@pytest.mark.parametrize(("size", "parts"), [(0, []), (1, []), (9, []), (10, []), (11, [1, 2]), (20, [1, 2])])
@pytest.mark.parametrize("chunk", [1, 3, 10, 50])
def test_a_stream_that_fits_into_one_part_is_put(size: int, parts: list[int], chunk: int) -> None:
    store, data = HookedStore(), content(size)
    write(store, [data[start : start + chunk] for start in range(0, size, chunk)], transfer(part_size=10))
    assert store.get("key") == data
    assert sorted(store.parts) == parts


def test_what_is_written_is_not_kept() -> None:
    store, chunk = HookedStore(), bytearray(b"first")
    with open_writer(store, "key", journal_of(store), transfer()) as writer:
        writer.write(chunk)
        chunk[:] = b"xxxxx"
        writer.write(memoryview(b"second"))
        writer.complete(POINT)
    assert store.get("key") == b"firstsecond"


def test_parts_keep_to_the_limits_of_the_store() -> None:
    store = HookedStore(limits=StoreLimits(min_part=8, max_part=50, max_parts=3))
    write(store, [content(24)], transfer(part_size=1))
    assert sorted(store.parts) == [1, 2, 3]


@pytest.mark.parametrize("chunks", [[content(25)], [content(24), b"x"]])
def test_a_stream_of_too_many_parts_is_refused(chunks: list[bytes]) -> None:
    store = HookedStore(limits=StoreLimits(max_parts=3))
    with pytest.raises(ConfigError, match="more than 3 parts of 8 bytes"):
        write(store, chunks, transfer(part_size=8))
    assert_nothing_is_there(store)


def test_a_slow_part_stalls_the_stream_only_when_all_buffers_are_full() -> None:
    store, slow, uploaded = HookedStore(), Gate(), Log()
    store.on_part = lambda number: slow.hold() if number == 1 else None
    store.after_part = uploaded.add
    with open_writer(store, "key", journal_of(store), transfer(workers=2, window=1, part_size=4)) as writer:
        writer.write(content(41))  # ten parts pass the slow one through the other two buffers; one byte is the last
        uploaded.wait_for(9)
        slow.open()
        writer.complete(POINT)
    assert store.get("key") == content(41)
    assert peak_size() == 3 * 4


# ---- nothing half-made


@pytest.mark.parametrize("size", [0, 3, 9, 100])
def test_a_block_that_does_not_complete_leaves_nothing(size: int) -> None:
    store = HookedStore()
    with open_writer(store, "key", journal_of(store), transfer()) as writer:
        writer.write(content(size))
    assert_nothing_is_there(store)


@pytest.mark.parametrize("size", [0, 3, 9, 100])
def test_a_block_that_fails_leaves_nothing(size: int) -> None:
    store = HookedStore()
    with pytest.raises(ZeroDivisionError):
        write_and_fail(store, size)
    assert_nothing_is_there(store)


@pytest.mark.parametrize("size", [3, 9])
def test_the_failpoint_is_passed_before_anything_is_visible(size: int) -> None:
    store = HookedStore()
    failpoints.arm(f"{POINT}=unavailable")
    with pytest.raises(StoreUnavailable, match="failpoint"):
        write(store, [content(size)], transfer())
    assert_nothing_is_there(store)


def test_the_failpoint_of_parts_is_passed() -> None:
    store = HookedStore()
    failpoints.arm("transfer.part=unavailable*2")
    with pytest.raises(StoreUnavailable, match="failpoint"):
        write(store, [content(30)], transfer())
    assert_nothing_is_there(store)


@pytest.mark.parametrize("method", ["begin_upload", "put", "upload_part", "complete_upload"])
def test_a_store_that_fails_fails_the_stream_and_leaves_nothing(method: str) -> None:
    inner = HookedStore()
    store = FaultyStore(inner, Fault(method, error=unavailable(method)))
    with pytest.raises(StoreUnavailable, match=f"{method} '': planned"):
        write(store, [content(5)] * 20, transfer())
    store.assert_all_hit()
    assert_nothing_is_there(inner)


def test_the_last_part_may_be_the_one_that_fails() -> None:
    inner = HookedStore()
    store = FaultyStore(inner, Fault("upload_part", nth=3, error=unavailable("part")))
    with pytest.raises(StoreUnavailable):
        write(store, [content(9)], transfer())
    store.assert_all_hit()
    assert_nothing_is_there(inner)


def test_an_error_ends_the_wait_for_a_buffer_and_no_more_parts_are_sent() -> None:
    """The first part fails when the second and the third have filled the pool and the stream needs a fourth."""
    store, failing = HookedStore(), Gate()

    def on_part(_number: int) -> None:
        failing.hold()
        raise unavailable("part")

    store.on_part = on_part
    with open_writer(store, "key", journal_of(store), transfer(workers=1, window=2, part_size=4)) as writer:
        writer.write(content(12))
        failing.wait_for(1)
        failing.open()
        with pytest.raises(StoreUnavailable, match="part"):
            writer.write(content(12))
    assert store.parts == [1]
    assert_nothing_is_there(store)


def test_an_error_is_raised_again_by_complete() -> None:
    """A block that goes on after an error cannot publish what is left."""
    inner = HookedStore()
    store = FaultyStore(inner, Fault("upload_part", error=unavailable("part")))
    with open_writer(store, "key", UploadJournal(store, JOURNAL), transfer()) as writer:
        with pytest.raises(StoreUnavailable):
            writer.write(content(1000))
        with pytest.raises(StoreUnavailable):
            writer.complete(POINT)
    assert_nothing_is_there(inner)


def test_an_upload_that_cannot_be_thrown_away_is_told_and_stays_in_the_journal() -> None:
    inner = HookedStore()
    store = FaultyStore(inner, Fault("abort_upload", error=unavailable("abort")))
    with pytest.raises(ZeroDivisionError) as caught:
        write_and_fail(store, 9)
    assert caught.value.__notes__ == ["the upload stays open until the next run: abort '': planned"]
    (entry,) = inner.names()
    assert entry.startswith(JOURNAL + STREAM_MARKER)
    assert inner.open_uploads() == ["key"]


def test_an_object_that_is_complete_stays_though_its_journal_fails() -> None:
    inner = HookedStore()
    store = FaultyStore(inner, Fault("delete", error=unavailable("delete")))
    with pytest.raises(StoreUnavailable, match="delete"):
        write(store, [content(9)], transfer())
    assert inner.get("key") == content(9)
    assert inner.names() == ["key"]
    assert inner.open_uploads() == []


# ---- the journal


def test_the_upload_is_remembered_before_its_first_part() -> None:
    store, remembered = HookedStore(), Log()
    store.on_part = lambda _number: remembered.add(len(store.names(JOURNAL + STREAM_MARKER)))
    write(store, [content(9)], transfer())
    assert remembered.seen == [1, 1, 1]
    assert store.names() == ["key"]


def test_what_a_killed_run_left_for_the_same_key_is_still_found() -> None:
    store = HookedStore()
    killed = store.begin_upload("key", part_size=4)
    other = HookedStore()
    with open_writer(other, "key", journal_of(other), transfer()) as writer:
        writer.write(content(9))
        (name,) = other.names()
    journal_of(store).remember(name[len(JOURNAL) : -len(".json")], killed, now_s=0)
    store.begin_upload("another", part_size=4)  # ids of uploads are never the same twice

    write(store, [content(9)], transfer())

    assert len(store.names(JOURNAL)) == 1
    journal_of(store).abort_abandoned(now_s=1e9, older_than_s=1, stream_marker=STREAM_MARKER)
    assert store.open_uploads() == ["another"]


# ---- misuse and cancelling


def test_nothing_is_written_or_completed_after_the_end() -> None:
    store = HookedStore()
    with open_writer(store, "key", journal_of(store), transfer()) as writer:
        writer.write(content(9))
        writer.complete(POINT)
        with pytest.raises(ValueError, match="write after the end"):
            writer.write(b"more")
        with pytest.raises(ValueError, match="complete after the end"):
            writer.complete(POINT)
    assert store.get("key") == content(9)


@pytest.mark.parametrize("size", [3, 9])
def test_a_set_token_stops_complete(size: int) -> None:
    store, how = HookedStore(), transfer()
    with open_writer(store, "key", journal_of(store), how) as writer:
        writer.write(content(size))
        how.cancel.set("a test")
        with pytest.raises(Cancelled):
            writer.complete(POINT)
    assert_nothing_is_there(store)


def test_a_set_token_is_seen_while_the_stream_waits_for_a_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    store, uploading = HookedStore(), Gate()
    open_at_close(uploading, monkeypatch)
    store.on_part = lambda _number: uploading.hold()
    # Looks 1 to 3 are before the parts that fit into the three buffers, look 4 before the wait for a fourth.
    how = transfer(workers=2, window=1, part_size=4, cancel=CancelAtLook(5))
    with pytest.raises(Cancelled, match="look 5"):
        write(store, [content(13)], how)
    assert_nothing_is_there(store)


def test_a_set_token_is_seen_while_the_last_parts_are_uploaded(monkeypatch: pytest.MonkeyPatch) -> None:
    store, uploading = HookedStore(), Gate()
    open_at_close(uploading, monkeypatch)
    store.on_part = lambda _number: uploading.hold()
    # Looks 1 to 3 are before the three parts, look 4 is at the beginning of complete.
    how = transfer(workers=2, window=1, part_size=4, cancel=CancelAtLook(5))
    with pytest.raises(Cancelled, match="look 5"):
        write(store, [content(12)], how)
    assert_nothing_is_there(store)


def test_the_store_sees_the_key_and_the_part_size_of_the_stream() -> None:
    begun: list[Upload] = []

    class Store(HookedStore):
        def begin_upload(self, key, *, part_size, metadata=None) -> Upload:
            begun.append(super().begin_upload(key, part_size=part_size))
            return begun[-1]

    write(Store(), [content(9)], transfer(part_size=4))
    assert [(upload.key, upload.part_size) for upload in begun] == [("key", 4)]
