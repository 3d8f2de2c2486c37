"""What a watch tells over connections that end in every way."""

from collections.abc import Iterator
from typing import Any

import pytest

from backupagent.cancel import Cancel
from backupagent.errors import KubeError, KubeForbidden, KubeInvalid, KubeNotFound, KubeUnavailable
from backupagent.kube.resources import CONFIG_MAPS, Document
from backupagent.kube.watching import FIRST_PAUSE_S, LONGEST_PAUSE_S, REFUSALS, TooOld, follow, pause_s

Told = tuple[str, str]
UNAVAILABLE = KubeUnavailable("gone", what="watch")
TOO_OLD = TooOld("compacted", what="watch")
FORBIDDEN = KubeForbidden("no", what="watch")


def thing(name: str, version: int, uid: str = "") -> Document:
    document = CONFIG_MAPS.stub(name, "n")
    document["metadata"] |= {"uid": uid or name, "resourceVersion": str(version)}
    return document


class Pauses(Cancel):
    """A token that remembers the pauses instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def wait(self, timeout_s: float) -> bool:
        self.pauses.append(timeout_s)
        return self.is_set


class Script:
    """A source with prepared answers; when they are used up it sets the token."""

    def __init__(self, *, listings: list[Any], streams: list[Any]) -> None:
        self.cancel = Pauses()
        self.asked: list[str] = []
        self._listings = listings
        self._streams = streams

    def listed(self) -> tuple[list[Document], str]:
        self.asked.append("list")
        answer = self._next(self._listings)
        if isinstance(answer, Exception):
            raise answer
        return answer or ([], "0")

    def changes(self, version: str, cancel: Cancel) -> Iterator[tuple[str, Document]]:
        self.asked.append(version)
        for step in self._next(self._streams) or []:
            if isinstance(step, Exception):
                raise step
            yield step

    def _next(self, answers: list[Any]) -> Any:
        if answers:
            return answers.pop(0)
        self.cancel.set("the script is over")
        return None

    def told(self) -> list[Told]:
        return [(event.change, event.object.get("metadata", {}).get("name", "")) for event in follow(self, self.cancel)]


def test_a_listing_then_changes() -> None:
    stream = [("ADDED", thing("b", 6)), ("MODIFIED", thing("a", 7)), ("DELETED", thing("b", 8))]
    script = Script(listings=[([thing("a", 3)], "5")], streams=[stream])
    assert script.told() == [
        ("ADDED", "a"),
        ("SYNCED", ""),
        ("ADDED", "b"),
        ("MODIFIED", "a"),
        ("DELETED", "b"),
    ]


def test_a_closed_or_broken_watch_goes_on_where_it_was() -> None:
    bookmark = ("BOOKMARK", thing("", 9))
    streams = [[("ADDED", thing("a", 6))], [bookmark, UNAVAILABLE], [UNAVAILABLE], []]
    script = Script(listings=[([], "5")], streams=streams)
    assert script.told() == [("SYNCED", ""), ("ADDED", "a")]
    assert script.asked == ["list", "5", "6", "9", "9", "9"]


def test_a_version_that_is_too_old_is_followed_by_a_listing_that_tells_what_vanished() -> None:
    before = [thing("gone", 1), thing("same", 2), thing("changed", 3), thing("replaced", 4, "first")]
    after = [thing("same", 2), thing("changed", 12), thing("replaced", 13, "second"), thing("new", 14)]
    script = Script(listings=[(before, "5"), (after, "20")], streams=[[TOO_OLD], []])
    told = script.told()
    assert told[5:] == [
        ("DELETED", "gone"),
        ("DELETED", "replaced"),
        ("MODIFIED", "changed"),
        ("ADDED", "replaced"),
        ("ADDED", "new"),
        ("SYNCED", ""),
    ]
    assert script.asked == ["list", "5", "list", "20", "20"]


def test_what_was_deleted_in_a_stream_is_not_told_again() -> None:
    streams = [[("ADDED", thing("b", 6)), ("DELETED", thing("a", 7)), TOO_OLD], []]
    script = Script(listings=[([thing("a", 1)], "5"), ([thing("b", 6)], "9")], streams=streams)
    assert script.told() == [("ADDED", "a"), ("SYNCED", ""), ("ADDED", "b"), ("DELETED", "a"), ("SYNCED", "")]


def test_a_vanished_object_is_told_as_it_was_last() -> None:
    streams = [[("MODIFIED", thing("a", 6)), TOO_OLD], []]
    script = Script(listings=[([thing("a", 1)], "5"), ([], "9")], streams=streams)
    [deleted] = [event.object for event in follow(script, script.cancel) if event.change == "DELETED"]
    assert deleted == thing("a", 6)


def test_an_unreachable_server_is_waited_for_with_growing_pauses() -> None:
    script = Script(listings=[UNAVAILABLE] * 9 + [([], "5")], streams=[[("ADDED", thing("a", 6)), UNAVAILABLE], []])
    assert script.told() == [("SYNCED", ""), ("ADDED", "a")]
    pauses = script.cancel.pauses
    assert all(pauses[n + 1] >= pauses[n] / 2 for n in range(8))
    assert LONGEST_PAUSE_S / 2 <= pauses[8] <= LONGEST_PAUSE_S
    assert pauses[9] <= 2 * FIRST_PAUSE_S  # a change that came through ended the growth


@pytest.mark.parametrize("failures", range(40))
def test_a_pause_is_jittered_and_bounded(failures: int) -> None:
    longest = min(FIRST_PAUSE_S * 2**failures, LONGEST_PAUSE_S)
    drawn = {pause_s(failures) for _ in range(20)}
    assert len(drawn) > 1
    assert longest / 2 <= min(drawn) <= max(drawn) <= longest


@pytest.mark.parametrize("error", [FORBIDDEN, KubeNotFound("no kind", what="list"), KubeInvalid("what?", what="list")])
def test_a_watch_that_never_worked_ends_when_it_is_refused(error: KubeError) -> None:
    script = Script(listings=[error], streams=[])
    with pytest.raises(type(error)):
        script.told()


def test_a_watch_that_worked_outlasts_the_refusals_of_a_server_that_starts() -> None:
    streams: list[Any] = [[FORBIDDEN]] * (REFUSALS - 1) + [[("ADDED", thing("a", 6))]]
    streams += [[FORBIDDEN]] * (REFUSALS - 1)
    script = Script(listings=[([], "5")], streams=streams)
    assert script.told() == [("SYNCED", ""), ("ADDED", "a")]


def test_a_watch_whose_right_was_taken_ends() -> None:
    script = Script(listings=[([], "5")], streams=[[FORBIDDEN]] * REFUSALS)
    with pytest.raises(KubeForbidden):
        script.told()
    assert sum(script.cancel.pauses) >= 3.0


def test_a_set_token_ends_it_between_two_objects() -> None:
    script = Script(listings=[([thing("a", 1), thing("b", 2)], "5")], streams=[])
    events = follow(script, script.cancel)
    next(events)
    script.cancel.set("test")
    assert list(events) == []


def test_a_set_token_asks_for_nothing() -> None:
    script = Script(listings=[], streams=[])
    script.cancel.set("test")
    assert script.told() == []
    assert script.asked == []
