"""Slow, cut and reset connections, at the source and at the target: the copy ends right, or says what is wrong."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from wire_copies import PART_SIZE, SCHEMES, copy
from wire_stores import PREFIX, Store, file_digests

from backupagent.clock import SYSTEM_CLOCK
from backupagent.errors import StoreUnavailable
from backupagent.testing.toxiproxy import Link, Toxiproxy

pytestmark = pytest.mark.servers

ROUND_TRIP_MS = 40
LIMIT_S = 60


@dataclass(frozen=True)
class Row:
    """One fault of a link.

    Attributes:
        name: For the test's id.
        break_link: Makes it.
        repeats: Whether requests must be made again.
        heals: Whether it is gone after the first request that failed.
        seconds: The copy takes at least that long.
    """

    name: str
    break_link: Callable[[Link], None]
    repeats: bool = False
    heals: bool = False
    seconds: float = 0.0


def cut_within_the_second_part(link: Link) -> None:
    link.limit_data(PART_SIZE * 3 // 2, stream="downstream")
    link.limit_data(PART_SIZE * 3 // 2, stream="upstream")


ROWS = [
    # One after the other at least: the listings of the source or of the target, and a read or a write.
    Row("latency", lambda link: link.latency(ROUND_TRIP_MS), seconds=3 * ROUND_TRIP_MS / 1000),
    Row("cut-after-bytes", cut_within_the_second_part, repeats=True),
    Row("reset", lambda link: link.reset(), repeats=True, heals=True),
    Row("refused", lambda link: link.cut(), repeats=True, heals=True),
    Row("slow-close", lambda link: link.slow_close(300)),
]

for_each = pytest.mark.parametrize(
    ("scheme", "row"), [pytest.param(scheme, row, id=f"{scheme}-{row.name}") for scheme in SCHEMES for row in ROWS]
)


def copy_over(link: Link, row: Row, source: str, target: str, caplog: pytest.LogCaptureFixture) -> None:
    """Copy, and check that the fault was met: by the repetitions that are logged, or by the time."""
    row.break_link(link)
    caplog.clear()
    healer = threading.Thread(target=heal_at_the_first_failure, args=(link, caplog)) if row.heals else None
    if healer is not None:
        healer.start()
    report = copy(source, target, workers=1)
    if healer is not None:
        healer.join()
    assert report.seconds >= row.seconds
    assert bool(repetitions(caplog)) == row.repeats, caplog.text


def heal_at_the_first_failure(link: Link, caplog: pytest.LogCaptureFixture) -> None:
    deadline_s = SYSTEM_CLOCK.monotonic_s() + LIMIT_S
    while not repetitions(caplog) and SYSTEM_CLOCK.monotonic_s() < deadline_s:
        SYSTEM_CLOCK.sleep(0.005)
    link.heal()


def repetitions(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if "failed, next in" in message]


@for_each
def test_a_broken_link_to_the_source(
    scheme: str,
    row: Row,
    source: Callable[[str], Store],
    toxiproxy: Toxiproxy,
    history: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    link, target = toxiproxy.add_link(source(scheme).server.endpoint), tmp_path / "target"
    copy_over(link, row, source(scheme).uri(link.endpoint), target.as_uri(), caplog)
    assert file_digests(target) == file_digests(history)


@for_each
def test_a_broken_link_to_the_target(
    scheme: str,
    row: Row,
    make_store: Callable[[str], Store],
    toxiproxy: Toxiproxy,
    history: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    target = make_store(scheme)
    link = toxiproxy.add_link(target.server.endpoint)
    copy_over(link, row, history.as_uri(), target.uri(link.endpoint), caplog)
    assert target.snapshots() == file_digests(history)
    assert target.unfinished() == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_link_that_never_carries_a_whole_part(
    scheme: str, source: Callable[[str], Store], toxiproxy: Toxiproxy, history: Path, tmp_path: Path
) -> None:
    link, target = toxiproxy.add_link(source(scheme).server.endpoint), tmp_path / "target"
    link.limit_data(PART_SIZE // 2)
    with pytest.raises(StoreUnavailable) as caught:
        copy(source(scheme).uri(link.endpoint), target.as_uri(), workers=1)
    full = next(name for name in file_digests(history) if name.startswith("Full-"))
    assert f"{PREFIX}/v2/{full}" in str(caught.value)
    assert caught.value.hint
    assert not list(target.glob("v2/*"))
