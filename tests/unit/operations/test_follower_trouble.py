"""What a follower survives, what ends it, and what it says about it."""

import pytest
from following import World, nothing
from snapshot_fakes import (
    add_chain,
    add_delta,
    add_full,
    damage,
)

from backupagent.errors import AccessDenied, ChecksumMismatch, ConfigError, EmptySource, StoreUnavailable
from backupagent.operations.report import FollowEnd
from backupagent.testing.faulty import Fault

DOWN = StoreUnavailable("connection refused", op="list")


@pytest.fixture
def world() -> World:
    return World()


def test_a_source_that_is_away_for_long_is_waited_for(world: World) -> None:
    add_chain(world.source, 5, 7)

    def away() -> None:
        world.source_faults.plan(Fault("list_objects", times=6, error=DOWN))
        add_delta(world.source, 8, 9)

    report = world.follow(away, *[nothing] * 7)
    world.source_faults.assert_all_hit()
    assert world.cancel.waits == [5, 5, 10, 20, 40, 60, 60, 5, 5]
    assert report.in_step
    assert report.copied == 3
    assert world.kinds() == ["restorable", "copied", "unavailable", "available", "copied"]
    assert world.target_faults.calls["list_objects"] == 2 * 3, "after trouble nobody knows what the target holds"
    assert set(world.reads.reads.values()) == {1}


def test_a_source_that_is_away_from_the_beginning_is_waited_for(world: World) -> None:
    add_full(world.source, 5)
    world.source_faults.plan(Fault("list_objects", error=DOWN))
    assert world.follow(nothing).in_step


def test_a_target_that_is_away_in_the_middle_gets_only_what_it_lacks(world: World) -> None:
    first, second = add_chain(world.source, 5, 7)
    world.target_faults.plan(Fault("put", nth=3, error=StoreUnavailable("slow down", op="put", retry_after_s=33)))
    report = world.follow(nothing)
    assert (report.copied, report.in_step) == (2, True)
    assert world.recording.snapshots_written() == [first, second]
    assert world.cancel.waits[0] == 33


def test_a_stop_while_a_store_is_away_is_no_success(world: World) -> None:
    add_full(world.source, 5)
    report = world.follow(lambda: world.source_faults.plan(Fault("list_objects", times=99, error=DOWN)), nothing)
    assert (report.ended, report.in_step) == (FollowEnd.STOPPED, False)
    assert [problem.reason for problem in report.problems] == ["StoreUnavailable"]
    assert report.unlisted_s == 20


def test_access_that_is_taken_away_ends_it_with_what_was_done(world: World) -> None:
    add_full(world.source, 5)
    denied = AccessDenied("no", op="list", key="p/v2/")
    report = world.follow(lambda: world.source_faults.plan(Fault("list_objects", error=denied)))
    assert (report.ended, report.copied) == (FollowEnd.FAILED, 1)
    assert [(problem.reason, problem.key) for problem in report.problems] == [("AccessDenied", "p/v2/")]
    assert "needs List and Get" in report.problems[0].hint


def test_what_is_wrong_from_the_beginning_is_an_error(world: World) -> None:
    with pytest.raises(EmptySource):
        world.follow()
    add_full(world.source, 5)
    world.target_faults.plan(Fault("put", error=AccessDenied("no", op="put")))
    with pytest.raises(AccessDenied):
        world.follow()
    with pytest.raises(ConfigError, match="--until-final"):
        world.follow(wait_for_final=5.0)
    with pytest.raises(ConfigError, match="--follow-interval"):
        world.follow(follow_interval=0.0)


def test_a_bad_object_does_not_stop_the_others_and_is_told_at_the_end(world: World) -> None:
    _full, delta = add_chain(world.source, 5, 7)
    damage(world.source, delta)
    world.reads.reads.clear()
    report = world.follow(lambda: add_delta(world.source, 8, 9), nothing, nothing)
    assert [problem.key for problem in report.problems] == [f"p/v2/{delta}"]
    assert report.problems[0].reason == ChecksumMismatch.__name__
    assert (report.copied, report.behind.snapshots) == (2, 1)
    assert report.newest_chain is not None
    assert report.newest_chain.last_revision == 5, "behind the hole nothing can be restored"
    assert world.kinds().count("ChecksumMismatch") == 1
    assert world.reads.reads[delta] == 2


def test_a_byte_that_was_changed_on_the_way_is_read_again(world: World) -> None:
    add_full(world.source, 5)
    world.source_faults.plan(Fault("read_into", flip=True))
    report = world.follow(nothing)
    world.source_faults.assert_all_hit()
    assert (report.copied, report.in_step) == (1, True)


def test_a_bad_object_that_is_replaced_or_removed_is_no_problem_any_more(world: World) -> None:
    full, delta = add_chain(world.source, 5, 7)
    damage(world.source, full)
    damage(world.source, delta)

    def mend() -> None:
        add_full(world.source, 5)
        world.source.store.delete(world.source.layout.snapshot(delta))

    report = world.follow(nothing, mend, nothing)
    assert (report.in_step, report.copied) == (True, 1)


def test_a_gap_is_told_once_and_is_a_problem_until_a_full_comes(world: World) -> None:
    add_full(world.source, 5)
    add_delta(world.source, 8, 9)
    report = world.follow(nothing)
    assert [problem.reason for problem in report.problems] == ["RevisionGap"]
    assert (report.copied, world.kinds().count("gap")) == (2, 1)
    again = World()
    again.source, again.target = world.source, world.target
    assert again.follow(lambda: add_full(again.source, 20)).in_step
