"""What goes wrong between us and a store, by request and provider: the copy ends right, or says what is wrong.

The scripted proxy stands before the source or the target; the other side is a directory. Every planned fault is met.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from wire_copies import SCHEMES, copy
from wire_faults import Fault
from wire_providers import COMPLETE, LIST, READ, WRITE_PART, fault, refusal
from wire_proxy import WireProxy
from wire_stores import PREFIX, Store, file_digests

from backupagent.errors import BackupAgentError, ChecksumMismatch
from backupagent.units import MiB

pytestmark = pytest.mark.servers

MIDDLE = MiB
"""A place within every part, also the last one."""
RETRY_AFTER_S = 1


@dataclass(frozen=True)
class Row:
    """One fault, and what becomes of the copy.

    Attributes:
        name: For the test's id.
        request: Which request meets it.
        does: Fields of the fault.
        refused: Status with which the request is refused; 0 when it is not.
        retry_after_s: What the refusal asks for.
        error: What the copy ends with; None when it ends right.
        schemes: Providers to which it can happen.
    """

    name: str
    request: str
    does: Mapping[str, Any] = field(default_factory=dict)
    refused: int = 0
    retry_after_s: int | None = None
    error: type[BackupAgentError] | None = None
    schemes: tuple[str, ...] = SCHEMES

    def fault(self, scheme: str) -> Fault:
        does = dict(self.does)
        if self.refused:
            does["answer"] = refusal(scheme, self.refused, self.retry_after_s)
        return fault(scheme, self.request, **does)


AT_THE_SOURCE = [
    Row("list-503", LIST, refused=503, retry_after_s=RETRY_AFTER_S),
    Row("list-500", LIST, refused=500),
    Row("list-ends-early", LIST, {"shorter": 20}),
    Row("list-is-cut", LIST, {"cut_answered": 100}),
    Row("read-503", READ, {"nth": 2}, refused=503, retry_after_s=RETRY_AFTER_S),
    Row("read-500", READ, {"nth": 2}, refused=500),
    Row("read-too-short", READ, {"nth": 2, "shorter": 10}),
    Row("read-too-long", READ, {"nth": 2, "longer": 10}),
    Row("read-longer-than-it-says", READ, {"nth": 2, "surplus": 10}),
    Row("read-is-cut", READ, {"nth": 2, "cut_answered": MIDDLE}),
    Row("read-not-answered", READ, {"lost_answer": True}),
    Row("read-with-a-flipped-byte", READ, {"flip_answered": MIDDLE}, error=ChecksumMismatch),
]

AT_THE_TARGET = [
    Row("list-500", LIST, refused=500),
    Row("part-503", WRITE_PART, {"nth": 2}, refused=503, retry_after_s=RETRY_AFTER_S),
    Row("part-500", WRITE_PART, {"nth": 2}, refused=500),
    Row("part-is-cut", WRITE_PART, {"cut_sent": 500_000}),
    Row("part-not-answered", WRITE_PART, {"nth": 2, "lost_answer": True}),
    Row("part-with-a-flipped-byte", WRITE_PART, {"flip_sent": 500_000}),
    # Azure signs the length.
    Row("part-too-short", WRITE_PART, {"sent_shorter": 10}, schemes=("s3", "gs")),
    Row("complete-500", COMPLETE, refused=500),
    Row("complete-not-answered", COMPLETE, {"lost_answer": True}),
]


def for_each(rows: list[Row]) -> pytest.MarkDecorator:
    cases = [
        pytest.param(scheme, row, id=f"{scheme}-{row.name}")
        for scheme in SCHEMES
        for row in rows
        if scheme in row.schemes
    ]
    return pytest.mark.parametrize(("scheme", "row"), cases)


def meet(proxy: WireProxy, row: Row, source: str, target: str) -> BackupAgentError | None:
    """Copy with one worker where a wait is looked at, so that the refused request is the next one again."""
    error = None
    try:
        copy(source, target, workers=1 if row.retry_after_s else 4)
    except BackupAgentError as raised:
        error = raised
    proxy.assert_all_hit()
    if row.retry_after_s:
        (number,) = [number for number, seen in enumerate(proxy.requests) if seen.status == row.refused]
        assert proxy.requests[number + 1].at_s - proxy.requests[number].at_s >= row.retry_after_s
    assert type(error) is (row.error or type(None)), error
    return error


@for_each(AT_THE_SOURCE)
def test_a_fault_at_the_source(
    scheme: str, row: Row, source: Callable[[str], Store], history: Path, tmp_path: Path
) -> None:
    wanted, target = file_digests(history), tmp_path / "target"
    with WireProxy(source(scheme).server.endpoint) as proxy:
        proxy.plan(row.fault(scheme))
        error = meet(proxy, row, source(scheme).uri(proxy.endpoint), target.as_uri())
    if error is not None:
        full = next(name for name in wanted if name.startswith("Full-"))
        assert f"{PREFIX}/v2/{full}" in str(error)
        assert error.hint
        del wanted[full]
    assert file_digests(target) == wanted
    assert not list(target.glob("manifests/uploads/*"))


@for_each(AT_THE_TARGET)
def test_a_fault_at_the_target(
    scheme: str, row: Row, make_store: Callable[[str], Store], history: Path, tmp_path: Path
) -> None:
    target = make_store(scheme)
    with WireProxy(target.server.endpoint) as proxy:
        proxy.plan(row.fault(scheme))
        meet(proxy, row, history.as_uri(), target.uri(proxy.endpoint))
    assert target.snapshots() == file_digests(history)
    assert target.unfinished() == []
