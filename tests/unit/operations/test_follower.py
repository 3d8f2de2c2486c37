"""A target that is kept in step: what is copied when, what ends it, what it survives, and what it says."""

import pytest
from following import World, nothing
from snapshot_fakes import (
    NOW_S,
    add_chain,
    add_delta,
    add_full,
    damage,
    names,
    read,
)

from backupagent.model.manifest import FORMAT, Manifest
from backupagent.operations import follower
from backupagent.operations.copier import Copier
from backupagent.operations.report import Behind, FollowEnd
from backupagent.settings import VerifyMode


@pytest.fixture
def world() -> World:
    return World()


# ---- keeping in step


def test_what_comes_is_copied_once_and_the_target_is_listed_once(world: World) -> None:
    add_chain(world.source, 5, 7)
    report = world.follow(
        lambda: add_delta(world.source, 8, 9), nothing, lambda: add_chain(world.source, 9, 11), nothing, nothing
    )
    assert set(world.reads.reads.values()) == {1}
    assert len(world.recording.snapshots_written()) == len(set(world.recording.snapshots_written())) == 5
    assert (report.copied, report.skipped, report.ended, report.in_step) == (5, 0, FollowEnd.STOPPED, True)
    assert report.behind == Behind(0, 0, 0.0)
    assert report.newest_chain is not None
    assert (report.newest_chain.last_revision, report.listings, report.problems) == (11, 6, ())
    assert world.cancel.waits == [5.0] * 6
    one_listing = 3
    assert world.target_faults.calls["list_objects"] == one_listing
    assert world.source_faults.calls["list_objects"] == 6 * one_listing
    assert world.target_faults.calls["delete"] == 0
    assert names(world.target) == names(world.source)


def test_what_the_target_has_already_is_not_read(world: World) -> None:
    add_chain(world.source, 5, 7)
    world.follow()
    again = World()
    again.source, again.target = world.source, world.target
    before = world.reads.reads.total()
    report = again.follow(nothing)
    assert (report.copied, report.skipped, report.in_step) == (0, 2, True)
    assert world.reads.reads.total() == before


def test_what_vanishes_from_the_source_stays_at_the_target_and_is_forgotten(world: World) -> None:
    old = add_chain(world.source, 5, 7)

    def collect() -> None:
        add_full(world.source, 9)
        for name in old:
            world.source.store.delete(world.source.layout.snapshot(name))

    report = world.follow(collect, nothing)
    assert set(old) < set(names(world.target))
    assert report.behind.snapshots == 0
    assert world.follower is not None
    assert [stored.snapshot.last for stored in world.follower._done] == [9]


def test_an_object_that_is_replaced_is_copied_again(world: World) -> None:
    name = add_full(world.source, 5)
    report = world.follow(lambda: add_full(world.source, 5, pages=2))
    assert report.copied == 2
    assert read(world.target, f"p/v2/{name}") == read(world.source, f"p/v2/{name}")


def test_a_full_that_comes_while_history_is_copied_goes_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "SHARE_COUNT", 1)
    old = add_chain(world.source, 5, 7)
    first = add_full(world.source, 9)
    later: list[str] = []
    put = world.recording.put

    def slow(key: str, data, **given):
        info = put(key, data, **given)
        world.clock.sleep(3)
        if key.endswith(first):
            later.extend(add_chain(world.source, 20, 22))
        return info

    world.recording.put = slow  # type: ignore[method-assign]
    report = world.follow(follow_interval=5.0)
    assert world.recording.snapshots_written() == [first, *later, *old]
    assert report.listings >= 3
    assert report.in_step


def test_a_share_takes_as_much_as_the_link_moves_in_one_interval(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "SHARE_SIZE", 1)
    shares: list[int] = []
    copying = Copier.copy

    def copy(self, snapshots, listing, arrived) -> None:
        shares.append(len(snapshots))
        world.clock.sleep(1)
        copying(self, snapshots, listing, arrived)

    monkeypatch.setattr(Copier, "copy", copy)
    for last in range(10, 30):
        add_full(world.source, last)
    assert world.follow(follow_interval=5.0).copied == 20
    assert shares == [1, 5, 14]


def test_the_settings_of_a_copy_count(world: World) -> None:
    add_chain(world.source, 5, 7)
    new = add_chain(world.source, 9, 12)
    report = world.follow(newest_chain_only=True, verify=VerifyMode.READ_BACK)
    assert (names(world.target), report.in_step) == (new, True)


def test_shares_follow_together(world: World) -> None:
    for last in (10, 20, 30):
        add_chain(world.source, last, last + 1)
    copied = 0
    for index in range(2):
        part = World()
        part.source, part.target = world.source, world.target
        report = part.follow(shard=f"{index}/2")
        assert report.newest_chain is not None
        assert report.newest_chain.restorable_after_s is None
        copied += report.copied
        assert "restorable" not in part.kinds()
    assert copied == 6
    assert names(world.target) == names(world.source)


def test_a_manifest_that_comes_after_its_full_follows_it(world: World) -> None:
    name = add_full(world.source, 5)

    def manifest() -> None:
        world.source.save_manifest(Manifest(format=FORMAT, name=name, kind="Full", hash_kv=77))

    report = world.follow(manifest, nothing)
    (there,) = world.target.list().snapshots
    known = world.target.manifest(there, world.target.list())
    assert known is not None
    assert (known.hash_kv, report.copied, report.in_step) == (77, 1, True)
    assert world.reads.reads[name] == 1


# ---- the end


def test_a_final_snapshot_ends_it_when_everything_is_there(world: World) -> None:
    add_chain(world.source, 5, 7)
    report = world.follow(nothing, lambda: add_full(world.source, 9, final=True), nothing, until_final=True)
    assert (report.ended, report.final) == (FollowEnd.FINAL, "Full-00000000-00000009-1767225600.final")
    assert report.in_step
    assert names(world.target)[1] == "Full-00000000-00000009-1767225600"
    assert len(world.steps) == 1, "it did not wait any longer"


def test_without_being_asked_it_goes_on_after_a_final_one(world: World) -> None:
    add_full(world.source, 5, final=True)
    report = world.follow(lambda: add_full(world.source, 9))
    assert (report.ended, report.final, report.copied) == (FollowEnd.STOPPED, None, 2)


def test_the_manifest_of_a_final_snapshot_is_waited_for_where_others_have_one(world: World) -> None:
    first = add_full(world.source, 5)
    world.source.save_manifest(Manifest(format=FORMAT, name=first, kind="Full", hash_kv=7))
    final = add_full(world.source, 9, final=True)

    def manifest() -> None:
        world.source.save_manifest(Manifest(format=FORMAT, name=final, kind="Full", final=True, hash_kv=77))

    report = world.follow(nothing, manifest, nothing, until_final=True)
    assert (report.ended, len(world.steps)) == (FollowEnd.FINAL, 1)
    there = world.target.list()
    known = next(world.target.manifest(one, there) for one in there.snapshots if one.snapshot.last == 9)
    assert known is not None
    assert (known.hash_kv, known.final, known.final_at_source) == (77, False, True)


def test_it_is_not_waited_for_for_ever(world: World) -> None:
    first = add_full(world.source, 5)
    world.source.save_manifest(Manifest(format=FORMAT, name=first, kind="Full"))
    add_full(world.source, 9, final=True)
    report = world.follow(*[nothing] * 10, until_final=True)
    assert report.ended is FollowEnd.FINAL
    assert sum(world.cancel.waits) == follower.MANIFEST_PATIENCE_S


def test_a_final_snapshot_that_is_bad_ends_it_as_a_failure(world: World) -> None:
    add_full(world.source, 5)
    final = add_full(world.source, 9, final=True)
    damage(world.source, final)
    world.reads.reads.clear()
    report = world.follow(nothing, nothing, until_final=True)
    assert (report.ended, report.final, report.in_step) == (FollowEnd.FAILED, None, False)
    assert [problem.reason for problem in report.problems] == ["ChecksumMismatch"]
    assert world.reads.reads[final] == 2


def test_a_stop_in_the_middle_says_how_far_behind_it_is(world: World) -> None:
    add_chain(world.source, 5, 7)
    add_full(world.source, 9, age_s=60)
    put = world.recording.put

    def stop(key: str, data, **given):
        world.cancel.set("SIGTERM")
        return put(key, data, **given)

    world.recording.put = stop  # type: ignore[method-assign]
    delta = add_delta(world.source, 10, 12, age_s=40)
    report = world.follow()
    size = sum(stored.size for stored in world.source.list().snapshots) - world.source.list().snapshots[1].size
    assert (report.ended, report.in_step, report.copied) == (FollowEnd.STOPPED, False, 1)
    assert report.behind == Behind(3, size, 40.0)
    assert report.newest_chain is not None
    assert (report.newest_chain.last_revision, report.newest_chain.restorable_after_s) == (9, None)
    assert delta not in names(world.target)


def test_before_anything_is_there_nothing_can_be_restored(world: World) -> None:
    add_full(world.source, 5)
    world.cancel.set("SIGTERM")
    report = world.follow()
    assert (report.ended, report.newest_chain, report.listings) == (FollowEnd.STOPPED, None, 0)


# ---- what it says


def test_a_line_only_when_something_changed(world: World) -> None:
    add_chain(world.source, 5, 7)
    world.follow(*[nothing] * 5, lambda: add_delta(world.source, 8, 9), *[nothing] * 5)
    assert world.told() == [
        "restorable at memory://recording up to revision 7: Full-00000000-00000005-1767225600 and 1 delta, after 0.0 s",
        "copied 2 snapshots, 4.3 KiB: in step, up to revision 7",
        "copied 1 snapshot, 293 B: in step, up to revision 9",
    ]


def test_a_new_full_is_told_when_it_can_be_restored(world: World) -> None:
    add_full(world.source, 5)
    report = world.follow(nothing, nothing, lambda: add_full(world.source, 9), nothing)
    assert world.kinds() == ["restorable", "copied", "restorable", "copied"]
    assert report.newest_chain is not None
    assert report.newest_chain.restorable_after_s == 0.0, "counted from when it was first listed"


def test_memory_does_not_grow_with_time(world: World) -> None:
    live = [add_full(world.source, 5)]

    def turn() -> None:
        world.source.store.delete(world.source.layout.snapshot(live.pop()))
        live.append(add_full(world.source, 6 + len(world.cancel.waits)))

    report = world.follow(*[turn] * 40)
    assert report.copied == 41
    assert world.follower is not None
    assert len(world.follower._done) == 1
    assert len(world.follower._copying._there._by_name) <= 2  # type: ignore[attr-defined]
    assert len(world.follower._copying._passages) <= 1  # type: ignore[attr-defined]
    assert len(world.progress.phases) == 1
    assert report.behind.seconds == 0.0
    assert int(world.clock.now().timestamp()) > NOW_S
