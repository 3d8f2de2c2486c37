import logging
import random

import pytest

from backupagent.cancel import Cancel
from backupagent.clock import FakeClock
from backupagent.errors import (
    AccessDenied,
    BackupAgentError,
    Cancelled,
    ObjectExists,
    ObjectNotFound,
    StoreError,
    StoreUnavailable,
    TruncatedObject,
)
from backupagent.stores.base import Copies
from backupagent.stores.memory import MemoryStore
from backupagent.stores.retrying import CLOCK_SKEW_S, Pulse, RetryingStore, RetryPolicy
from backupagent.testing.faulty import METHODS, Fault, FaultyStore

SEED = 7
POLICY = RetryPolicy(attempts=6, base_s=0.2, cap_s=10, budget_s=120)


def unavailable(retry_after_s: float | None = None) -> StoreUnavailable:
    return StoreUnavailable("planned", op="test", retry_after_s=retry_after_s)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def memory(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock=clock, copies=Copies("here", smallest=1, whole=4, part=4))


@pytest.fixture
def faulty(memory: MemoryStore) -> FaultyStore:
    return FaultyStore(memory)


@pytest.fixture
def store(faulty: FaultyStore, clock: FakeClock) -> RetryingStore:
    return RetryingStore(faulty, clock=clock, rng=random.Random(SEED), policy=POLICY)


def call(store: RetryingStore, method: str) -> object:
    """Make one call of a method that works on an object ``a`` and an upload of it."""
    upload = store.begin_upload("a", part_size=4)
    tag = store.upload_part(upload, 1, b"xy")
    calls = {
        "list_objects": lambda: list(store.list_objects("")),
        "stat": lambda: store.stat("a"),
        "read_into": lambda: store.read_into("a", memoryview(bytearray(3))),
        "put": lambda: store.put("a", b"abc"),
        "begin_upload": lambda: store.begin_upload("a", part_size=4),
        "upload_part": lambda: store.upload_part(upload, 1, b"xy"),
        "list_parts": lambda: store.list_parts(upload),
        "complete_upload": lambda: store.complete_upload(upload, [tag]),
        "abort_upload": lambda: store.abort_upload(upload),
        "list_uploads": lambda: store.list_uploads(""),
        "copy_source": lambda: store.copy_source("a"),
        "copy_object": lambda: store.copy_object(store.copy_source("a"), "b"),
        "copy_part": lambda: store.copy_part(upload, 1, store.copy_source("a"), offset=0, size=2),
        "delete": lambda: store.delete("a"),
    }
    return calls[method]()


class TestRepeats:
    @pytest.mark.parametrize("method", METHODS)
    def test_every_method_until_it_works(self, store, faulty, memory, method: str) -> None:
        memory.put("a", b"abc")
        nth = 2 if method in {"begin_upload", "upload_part"} else 1  # the first call prepares
        fault = Fault(method, nth=nth, times=5, error=unavailable())
        faulty.plan(fault)
        call(store, method)
        faulty.assert_all_hit()

    @pytest.mark.parametrize("method", METHODS)
    def test_every_method_gives_up_with_the_last_error(self, store, faulty, memory, method: str) -> None:
        memory.put("a", b"abc")
        nth = 2 if method in {"begin_upload", "upload_part"} else 1
        last = StoreUnavailable("the last", op="test")
        faulty.plan(Fault(method, nth=nth, times=5, error=unavailable()), Fault(method, nth=nth + 5, error=last))
        with pytest.raises(StoreUnavailable) as raised:
            call(store, method)
        assert raised.value is last
        faulty.assert_all_hit()
        assert faulty.calls[method] == nth + 5

    @pytest.mark.parametrize(
        "error",
        [AccessDenied("planned", op="test"), StoreError("planned", op="test"), ObjectNotFound("planned", op="test")],
    )
    def test_other_errors_never(self, store, faulty, clock, error: BackupAgentError) -> None:
        faulty.plan(Fault("stat", error=error))
        with pytest.raises(type(error)):
            store.stat("a")
        assert faulty.calls["stat"] == 1
        assert clock.monotonic_s() == 0

    def test_a_truncated_answer(self, store, faulty, memory) -> None:
        memory.put("a", b"abcd")
        faulty.plan(Fault("read_into", truncate=True, times=2))
        buffer = bytearray(4)
        store.read_into("a", memoryview(buffer))
        assert buffer == b"abcd"
        faulty.assert_all_hit()

    def test_an_object_that_is_too_short_in_the_end(self, store, memory) -> None:
        memory.put("a", b"abcd")
        with pytest.raises(TruncatedObject):
            store.read_into("a", memoryview(bytearray(5)))

    def test_each_is_logged(self, store, faulty, memory, caplog: pytest.LogCaptureFixture) -> None:
        memory.put("a", b"x")
        faulty.plan(Fault("stat", error=unavailable()))
        with caplog.at_level(logging.WARNING):
            store.stat("a")
        assert "attempt 1 of 6 failed" in caplog.text


class TestWaits:
    def waits(self, faulty: FaultyStore, policy: RetryPolicy, seed: int, retry_after_s: float | None = None) -> float:
        clock = FakeClock()
        store = RetryingStore(faulty, clock=clock, rng=random.Random(seed), policy=policy)
        faulty.plan(Fault("stat", times=2, error=unavailable(retry_after_s)))
        store.stat("a")
        return clock.monotonic_s()

    def test_full_jitter_between_nothing_and_a_doubling_bound(self, faulty, memory) -> None:
        memory.put("a", b"x")
        policy = RetryPolicy(base_s=1, cap_s=100)
        totals = [self.waits(faulty, policy, seed) for seed in range(300)]
        # Of two waits, uniform in [0, 1] and [0, 2].
        assert min(totals) < 0.3
        assert 2.7 < max(totals) <= 3
        assert 1.35 < sum(totals) / len(totals) < 1.65

    def test_never_more_than_the_cap(self, faulty, memory) -> None:
        memory.put("a", b"x")
        policy = RetryPolicy(base_s=64, cap_s=0.5)
        assert max(self.waits(faulty, policy, seed) for seed in range(50)) <= 1

    def test_as_long_as_the_store_asks(self, faulty, memory) -> None:
        memory.put("a", b"x")
        assert self.waits(faulty, POLICY, SEED, retry_after_s=30) == 60

    def test_gives_up_when_the_store_asks_for_more_than_the_budget(self, store, faulty, clock) -> None:
        faulty.plan(Fault("stat", error=unavailable(retry_after_s=POLICY.budget_s + 1)))
        with pytest.raises(StoreUnavailable):
            store.stat("a")
        assert clock.monotonic_s() == 0
        assert faulty.calls["stat"] == 1

    def test_gives_up_when_the_budget_is_used_up(self, faulty, clock) -> None:
        store = RetryingStore(
            faulty, clock=clock, rng=random.Random(SEED), policy=RetryPolicy(attempts=1000, budget_s=60)
        )
        faulty.plan(Fault("stat", times=1000, error=unavailable()))
        with pytest.raises(StoreUnavailable):
            store.stat("a")
        assert 50 < clock.monotonic_s() <= 60

    def test_a_cancel_ends_the_wait(self, faulty, clock) -> None:
        cancel = Cancel()
        store = RetryingStore(faulty, clock=clock, rng=random.Random(SEED), cancel=cancel)
        faulty.plan(Fault("stat", error=unavailable()))
        cancel.set("SIGTERM")
        with pytest.raises(Cancelled, match="SIGTERM"):
            store.stat("a")
        assert faulty.calls["stat"] == 1

    def test_a_cancel_that_is_not_set_only_waits(self, faulty, memory, clock) -> None:
        memory.put("a", b"x")
        policy = RetryPolicy(base_s=0)
        store = RetryingStore(faulty, clock=clock, rng=random.Random(SEED), policy=policy, cancel=Cancel())
        faulty.plan(Fault("stat", times=3, error=unavailable()))
        assert store.stat("a").size == 1
        faulty.assert_all_hit()


class TestListing:
    @pytest.fixture(autouse=True)
    def _objects(self, memory: MemoryStore) -> None:
        for number in range(10):
            memory.put(f"{number}", b"")

    def keys(self, store: RetryingStore) -> list[str]:
        return [info.key for info in store.list_objects("")]

    @pytest.mark.parametrize("after", range(11))
    def test_a_failure_in_the_middle_neither_repeats_nor_loses(self, store, faulty, after: int) -> None:
        faulty.plan(Fault("list_objects", error=unavailable(), after_entries=after, times=2))
        assert self.keys(store) == [str(number) for number in range(10)]
        faulty.assert_all_hit()

    def test_each_step_forward_counts_anew(self, store, faulty) -> None:
        for after in range(10):
            faulty.plan(Fault("list_objects", nth=1 + 5 * after, times=5, error=unavailable(), after_entries=after))
        assert self.keys(store) == [str(number) for number in range(10)]
        faulty.assert_all_hit()

    def test_a_listing_that_comes_no_further_ends(self, store, faulty) -> None:
        faulty.plan(Fault("list_objects", error=unavailable(), after_entries=4, times=100))
        with pytest.raises(StoreUnavailable):
            self.keys(store)
        assert faulty.calls["list_objects"] == POLICY.attempts

    def test_time_that_the_consumer_takes_is_not_in_the_budget(self, store, faulty, clock) -> None:
        faulty.plan(Fault("list_objects", error=unavailable(), after_entries=3))
        for _ in store.list_objects(""):
            clock.sleep(POLICY.budget_s)
        faulty.assert_all_hit()
        assert faulty.calls["list_objects"] == 2

    def test_is_lazy(self, store, faulty) -> None:
        listing = store.list_objects("")
        assert next(listing).key == "0"
        listing.close()
        assert faulty.calls["list_objects"] == 1


class TestLostAnswers:
    def lose(self, faulty: FaultyStore, method: str) -> None:
        faulty.plan(Fault(method, lost_answer=unavailable()))

    def test_of_create_only(self, store, faulty, memory) -> None:
        self.lose(faulty, "put")
        info = store.put("a", b"mine", if_absent=True)
        assert info == memory.stat("a")
        assert faulty.calls["put"] == 2

    def test_of_create_only_of_nothing(self, store, faulty) -> None:
        self.lose(faulty, "put")
        assert store.put("a", b"", if_absent=True).size == 0

    @pytest.mark.parametrize("theirs", [b"ours", b"longer", b""])
    def test_another_writer_is_not_taken_for_us(self, store, faulty, memory, theirs: bytes) -> None:
        faulty.plan(Fault("put", error=unavailable()))
        memory.put("a", theirs)
        with pytest.raises(ObjectExists):
            store.put("a", b"mine", if_absent=True)

    def test_without_a_failure_an_object_is_never_ours(self, store, faulty, memory) -> None:
        memory.put("a", b"mine")
        with pytest.raises(ObjectExists):
            store.put("a", b"mine", if_absent=True)
        assert faulty.calls["read_into"] == 0

    def test_an_object_that_is_gone_again_is_not_ours(self, store, faulty) -> None:
        faulty.plan(Fault("put", error=unavailable()), Fault("put", nth=2, error=ObjectExists("planned", op="test")))
        with pytest.raises(ObjectExists):
            store.put("a", b"mine", if_absent=True)
        faulty.assert_all_hit()

    def test_a_difference_far_inside_is_seen(self, store, faulty, memory) -> None:
        mine = bytes(3_000_000)
        theirs = bytearray(mine)
        theirs[2_999_999] = 1
        faulty.plan(Fault("put", error=unavailable()))
        memory.put("a", theirs)
        with pytest.raises(ObjectExists):
            store.put("a", mine, if_absent=True)

    @pytest.mark.parametrize("if_absent", [False, True])
    def test_of_complete(self, store, faulty, memory, *, if_absent: bool) -> None:
        upload = store.begin_upload("a", part_size=4)
        tags = [store.upload_part(upload, 1, b"mine"), store.upload_part(upload, 2, b"!")]
        self.lose(faulty, "complete_upload")
        assert store.complete_upload(upload, tags, if_absent=if_absent) == memory.stat("a")
        assert faulty.calls["complete_upload"] == 2

    def test_of_complete_when_the_store_looks_at_the_object_first(self, store, faulty, memory) -> None:
        """As MinIO does: the repetition says that there is an object, not that there is no upload."""
        upload = store.begin_upload("a", part_size=4)
        tag = store.upload_part(upload, 1, b"mine")
        self.lose(faulty, "complete_upload")
        faulty.plan(Fault("complete_upload", nth=2, error=ObjectExists("planned", op="test")))
        assert store.complete_upload(upload, [tag], if_absent=True) == memory.stat("a")
        faulty.assert_all_hit()

    def test_a_complete_that_another_writer_beat(self, store, faulty, memory) -> None:
        upload = store.begin_upload("a", part_size=4)
        tag = store.upload_part(upload, 1, b"mine")
        faulty.plan(Fault("complete_upload", error=unavailable()))
        memory.put("a", b"ours")
        with pytest.raises(ObjectExists):
            store.complete_upload(upload, [tag], if_absent=True)
        assert store.list_parts(upload) == [tag]

    @pytest.mark.parametrize("there", ["nothing", "another size", "old"])
    def test_an_upload_that_somebody_aborted(self, store, faulty, memory, clock, there: str) -> None:
        if there != "nothing":
            memory.put("a", b"ours" if there == "old" else b"other")
        clock.sleep(CLOCK_SKEW_S + 1 if there == "old" else 1)
        upload = store.begin_upload("a", part_size=4)
        tag = store.upload_part(upload, 1, b"mine")
        faulty.plan(Fault("complete_upload", error=unavailable()))
        memory.abort_upload(upload)
        with pytest.raises(ObjectNotFound):
            store.complete_upload(upload, [tag])
        faulty.assert_all_hit()

    def test_without_a_failure_a_missing_upload_is_missing(self, store, memory) -> None:
        upload = store.begin_upload("a", part_size=4)
        tag = store.upload_part(upload, 1, b"mine")
        memory.abort_upload(upload)
        memory.put("a", b"ours")
        with pytest.raises(ObjectNotFound):
            store.complete_upload(upload, [tag])

    def test_of_the_rest_is_harmless(self, store, faulty, memory) -> None:
        memory.put("a", b"abc")
        for method in ("upload_part", "abort_upload", "delete"):
            self.lose(faulty, method)
        upload = store.begin_upload("a", part_size=4)
        assert store.upload_part(upload, 1, b"xy") == store.list_parts(upload)[0]
        store.abort_upload(upload)
        store.delete("a")
        faulty.assert_all_hit()
        assert list(memory.list_objects("")) == []
        assert memory.list_uploads("") == []


def test_passes_on_what_the_store_says(store, memory) -> None:
    assert (store.display, store.limits, store.features) == (memory.display, memory.limits, memory.features)
    store.close()


class TestPulse:
    class Slow(MemoryStore):
        """Takes half a second less for every answer that it gives."""

        def __init__(self, clock: FakeClock) -> None:
            super().__init__(clock=clock)
            self.clock, self.next_s = clock, 2.0

        def pause(self) -> None:
            self.clock.sleep(self.next_s)
            self.next_s -= 0.5

        def stat(self, key: str):
            self.pause()
            return super().stat(key)

        def list_objects(self, prefix: str):
            self.pause()
            yield from super().list_objects(prefix)

    def test_the_shortest_answer_without_content_is_the_round_trip(self, clock: FakeClock) -> None:
        pulse, slow = Pulse(), self.Slow(clock)
        store = RetryingStore(slow, clock=clock, rng=random.Random(SEED), pulse=pulse)
        assert pulse.round_trip_s is None
        store.put("a", b"abc")
        assert pulse.round_trip_s is None
        for expected in (2.0, 1.5):
            store.stat("a")
            assert pulse.round_trip_s == expected
        assert [info.key for info in store.list_objects("")] == ["a"]
        assert pulse.round_trip_s == 1.0
        assert list(store.list_objects("nothing")) == []
        assert pulse.round_trip_s == 0.5
        slow.next_s = 9.0
        store.stat("a")
        assert pulse.round_trip_s == 0.5

    def test_the_time_that_a_listing_is_looked_at_does_not_count(self, clock: FakeClock) -> None:
        pulse, slow = Pulse(), self.Slow(clock)
        for key in ("a", "b"):
            slow.put(key, b"x")
        for _info in RetryingStore(slow, clock=clock, rng=random.Random(SEED), pulse=pulse).list_objects(""):
            clock.sleep(10)
        assert pulse.round_trip_s == 2.0

    def test_requests_that_are_made_again_are_counted(self, store, faulty, clock: FakeClock) -> None:
        pulse = Pulse()
        faulty.plan(Fault("delete", times=2, error=unavailable()))
        RetryingStore(faulty, clock=clock, rng=random.Random(SEED), pulse=pulse).delete("a")
        assert pulse.troubles == 2
