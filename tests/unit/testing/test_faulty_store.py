import threading

import pytest

from backupagent.errors import StoreUnavailable, TruncatedObject
from backupagent.stores.memory import MemoryStore
from backupagent.testing.faulty import Fault, FaultyStore

ERROR = StoreUnavailable("planned", op="test")


@pytest.fixture
def memory() -> MemoryStore:
    store = MemoryStore()
    store.put("a", b"abcd")
    return store


def test_the_nth_call_and_no_other_fails(memory: MemoryStore) -> None:
    store = FaultyStore(memory, Fault("stat", nth=2, times=2, error=ERROR))
    outcomes = []
    for _ in range(5):
        try:
            outcomes.append(store.stat("a").size)
        except StoreUnavailable:
            outcomes.append("failed")
    assert outcomes == [4, "failed", "failed", 4, 4]
    assert store.calls["stat"] == 5
    store.assert_all_hit()


def test_a_fault_that_no_call_meets_fails_the_test(memory: MemoryStore) -> None:
    store = FaultyStore(memory, Fault("stat", error=ERROR), Fault("put", nth=2, error=ERROR))
    with pytest.raises(StoreUnavailable):
        store.stat("a")
    store.put("b", b"")
    with pytest.raises(AssertionError, match="method='put'"):
        store.assert_all_hit()


def test_an_error_comes_before_the_call_and_a_lost_answer_after_it(memory: MemoryStore) -> None:
    store = FaultyStore(memory, Fault("put", error=ERROR), Fault("delete", lost_answer=ERROR))
    with pytest.raises(StoreUnavailable):
        store.put("b", b"x")
    with pytest.raises(StoreUnavailable):
        store.delete("a")
    assert list(memory.list_objects("")) == []


def test_a_listing_fails_after_some_entries(memory: MemoryStore) -> None:
    memory.put("b", b"")
    store = FaultyStore(memory, Fault("list_objects", error=ERROR, after_entries=1))
    listing = store.list_objects("")
    assert next(listing).key == "a"
    with pytest.raises(StoreUnavailable):
        next(listing)


def test_content_that_is_read(memory: MemoryStore) -> None:
    store = FaultyStore(memory, Fault("read_into", truncate=True), Fault("read_into", nth=2, flip=True))
    buffer = bytearray(4)
    with pytest.raises(TruncatedObject):
        store.read_into("a", memoryview(buffer))
    assert buffer == b"ab\0\0"
    store.read_into("a", memoryview(buffer))
    assert buffer == b"abbd"
    store.read_into("a", memoryview(buffer))
    assert buffer == b"abcd"


def test_content_that_is_written(memory: MemoryStore) -> None:
    store = FaultyStore(memory, Fault("put", truncate=True), Fault("upload_part", flip=True))
    data = b"abcd"
    assert store.put("b", data).size == 2
    upload = store.begin_upload("c", part_size=4)
    store.complete_upload(upload, [store.upload_part(upload, 1, data)])
    buffer = bytearray(4)
    memory.read_into("c", memoryview(buffer))
    assert (buffer, data) == (b"abbd", b"abcd")


def test_a_hang_ends_when_the_test_says_so(memory: MemoryStore) -> None:
    release = threading.Event()
    store = FaultyStore(memory, Fault("stat", hang=release))
    done = threading.Event()
    thread = threading.Thread(target=lambda: (store.stat("a"), done.set()))
    thread.start()
    store.stat("a")
    assert not done.is_set()
    release.set()
    thread.join(10)
    assert done.is_set()


def test_faults_planned_later_count_from_then(memory: MemoryStore) -> None:
    store = FaultyStore(memory)
    store.stat("a")
    store.plan(Fault("stat", nth=2, error=ERROR))
    store.stat("a")
    with pytest.raises(StoreUnavailable):
        store.stat("a")


@pytest.mark.parametrize(
    "wrong",
    [{"method": "read", "error": ERROR}, {"method": "stat"}, {"method": "stat", "flip": True}],
)
def test_a_senseless_fault_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"no such method|nothing|no content"):
        Fault(**wrong)
