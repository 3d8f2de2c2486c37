"""The pace: never faster than asked for, whoever asks; a wait ends when work is cancelled."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK, FakeClock
from backupagent.errors import Cancelled
from backupagent.stores.base import Copies
from backupagent.stores.memory import MemoryStore
from backupagent.stores.throttled import BURST_S, PAGE, Pace, ThrottledStore


class WaitingCancel(Cancel):
    """Waits on a fake clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout_s: float) -> bool:
        self._clock.sleep(timeout_s)
        return self.is_set


def paced(rate: float) -> tuple[Pace, FakeClock]:
    clock = FakeClock()
    return Pace(rate, clock, WaitingCancel(clock)), clock


@given(
    rate=st.integers(1, 10_000),
    amounts=st.lists(st.integers(1, 5_000), min_size=1, max_size=40),
    idle_s=st.floats(0, 9),
)
def test_the_rate_is_never_exceeded_beyond_one_amount_and_the_burst(
    rate: int, amounts: list[int], idle_s: float
) -> None:
    pace, clock = paced(rate)
    clock.sleep(idle_s)
    began_s = clock.monotonic_s()
    for number, amount in enumerate(amounts):
        pace.take(amount)
        taken_before = sum(amounts[:number])
        assert taken_before <= rate * (clock.monotonic_s() - began_s + BURST_S) + 1e-6


def test_the_rate_is_reached() -> None:
    pace, clock = paced(100)
    for _ in range(1000):
        pace.take(10)
    assert clock.monotonic_s() == pytest.approx(1000 * 10 / 100, rel=0.01)


def test_no_rate_is_no_wait() -> None:
    pace, clock = paced(0)
    pace.take(10**12)
    assert clock.monotonic_s() == 0


def test_a_wait_ends_when_the_work_is_cancelled() -> None:
    cancel = Cancel()
    pace = Pace(1, SYSTEM_CLOCK, cancel)
    pace.take(10_000)
    threading.Timer(0.05, cancel.set, ["SIGTERM"]).start()
    with pytest.raises(Cancelled, match="SIGTERM"):
        pace.take(1)


def test_content_and_requests_are_counted() -> None:
    class Counter(Pace):
        total = 0

        def take(self, amount: int) -> None:
            self.total += amount

    clock = FakeClock()
    content, requests = (Counter(1, clock, Cancel()) for _ in range(2))
    copies = Copies("here", smallest=1, whole=4, part=4)
    store = ThrottledStore(MemoryStore(copies=copies), bandwidth=content, requests=requests)
    store.put("a", b"12345")
    buffer = bytearray(3)
    store.read_into("a", memoryview(buffer), offset=1)
    upload = store.begin_upload("b", part_size=4)
    tag = store.upload_part(upload, 1, b"1234")
    assert list(store.list_parts(upload)) == [tag]
    store.complete_upload(upload, [tag])
    assert content.total == 5 + 3 + 4
    assert requests.total == 6
    upload = store.begin_upload("c", part_size=4, copied=True)
    source = store.copy_source("a")
    store.copy_part(upload, 1, source, offset=0, size=4)
    store.copy_object(source, "d")
    assert content.total == 5 + 3 + 4
    assert requests.total == 10
    assert bytes(buffer) == b"234"


def test_each_page_of_a_listing_is_a_request() -> None:
    pace, clock = paced(1)
    inner = MemoryStore()
    for number in range(2 * PAGE):
        inner.put(f"k{number:05}", b"")
    store = ThrottledStore(inner, bandwidth=Pace(0, clock, Cancel()), requests=pace)
    assert len(list(store.list_objects(""))) == 2 * PAGE
    assert clock.monotonic_s() == pytest.approx(2 - BURST_S, abs=BURST_S)
