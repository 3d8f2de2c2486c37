"""How many parts move at once: more while it helps, fewer when it does not or when the store is in trouble."""

import threading

from backupagent.clock import FakeClock
from backupagent.transfer.flow import (
    AGAIN_AFTER,
    FAR_S,
    FEWEST,
    FIRST_LARGE,
    FIRST_LARGE_FAR,
    FIRST_SMALL,
    FIRST_SMALL_FAR,
    MOST,
    SMALL,
    Flow,
)

LARGE = 8 * SMALL


class Link:
    """A made-up link: ``rate(n)`` parts a second when n move at once."""

    def __init__(self, flow: Flow, clock: FakeClock, rate) -> None:
        self.flow, self.clock, self.rate = flow, clock, rate

    def move(self, rounds: int, size: int = LARGE) -> list[int]:
        limits = []
        for _ in range(rounds):
            count = self.flow.limit
            for _ in range(count):
                assert self.flow.enter()
            # Long enough to be measured, and a whole number of turns.
            turns = max(1, round(self.rate(count) / count))
            self.clock.sleep(turns * count / self.rate(count))
            for _ in range(count):
                self.flow.leave(turns * size)
            limits.append(self.flow.limit)
        return limits


def flow_of(parts: int = 10_000, size: int = LARGE, **options) -> tuple[Flow, FakeClock]:
    clock = FakeClock()
    return Flow(parts, parts * size, clock, **options), clock


def test_it_begins_with_few_large_parts_and_many_small_ones() -> None:
    assert flow_of()[0].limit == FIRST_LARGE
    assert flow_of(size=20_000)[0].limit == FIRST_SMALL
    assert flow_of(parts=3)[0].limit == 3


def test_a_long_round_trip_lets_it_begin_with_more() -> None:
    assert flow_of(round_trip_s=2 * FAR_S)[0].limit == FIRST_LARGE_FAR
    assert flow_of(size=20_000, round_trip_s=2 * FAR_S)[0].limit == FIRST_SMALL_FAR
    assert flow_of(round_trip_s=FAR_S)[0].limit == FIRST_LARGE
    assert flow_of(round_trip_s=2 * FAR_S, fixed=5)[0].limit == 5


def test_between_near_stores_no_step_is_taken_before_there_is_time_for_it() -> None:
    flow, clock = flow_of(round_trip_s=0.001)
    link = Link(flow, clock, lambda moving: moving / 0.5)
    assert set(link.move(AGAIN_AFTER - 1)) == {FIRST_LARGE}
    assert link.move(12)[-1] == MOST


def test_on_a_long_link_it_grows_until_all_move() -> None:
    flow, clock = flow_of(size=20_000)
    assert Link(flow, clock, lambda moving: moving / 0.06).move(20, 20_000)[-1] == MOST


def test_it_grows_only_as_far_as_it_helps() -> None:
    flow, clock = flow_of()
    limits = Link(flow, clock, lambda moving: min(moving, 20) / 0.5).move(20)
    assert 18 <= limits[-1] <= 30


def test_where_more_does_not_help_it_goes_back_to_what_it_was() -> None:
    flow, clock = flow_of()
    assert Link(flow, clock, lambda _moving: 8 / 0.5).move(10)[-1] == FIRST_LARGE


def test_after_a_while_it_tries_again() -> None:
    flow, clock = flow_of()
    link = Link(flow, clock, lambda _moving: 8 / 0.5)
    link.move(5)
    link.rate = lambda moving: moving / 0.5  # the others have left the link
    assert link.move(AGAIN_AFTER + 12)[-1] == MOST


def test_trouble_halves_it_down_to_a_few() -> None:
    troubles = 0
    flow, clock = flow_of(trouble=lambda: troubles)
    link = Link(flow, clock, lambda moving: moving / 0.5)
    grown = link.move(4)[-1]
    troubles = 1
    assert link.move(1) == [grown // 2]
    for _ in range(10):
        troubles += 1
        link.move(1)
    assert flow.limit == FEWEST


def test_a_fixed_number_stays() -> None:
    flow, clock = flow_of(fixed=5)
    assert set(Link(flow, clock, lambda moving: moving / 0.5).move(10)) == {5}


def test_a_short_time_decides_nothing() -> None:
    flow, _clock = flow_of()
    for _ in range(1000):
        assert flow.enter()
        flow.leave(LARGE)
    assert flow.limit == FIRST_LARGE


def test_nobody_passes_above_the_limit_and_closing_wakes_who_waits() -> None:
    flow, _clock = flow_of(fixed=1)
    assert flow.enter()
    passed: list[bool] = []
    waiting = threading.Thread(target=lambda: passed.append(flow.enter()))
    waiting.start()
    flow.close()
    waiting.join()
    assert passed == [False]
