"""Rights that are not given, and prefixes without snapshots: the documented error, at once, and nothing written."""

from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import pytest
from command import DOCUMENTED
from wire_copies import SCHEMES, copy
from wire_faults import Fault
from wire_providers import LIST, READ, fault, refusal
from wire_proxy import WireProxy
from wire_stores import PREFIX, Store, fill

from backupagent.errors import BackupAgentError

pytestmark = [pytest.mark.servers, pytest.mark.parametrize("scheme", SCHEMES)]

MOST_REQUESTS = 16
"""Of a copy that is denied: a listing of each place, once more with credentials that were read again, nothing over and
over."""


def assert_refused(source: str, target: str, reason: str, *words: str) -> BackupAgentError:
    """Copy, and hold the error against its promise: the documented exit code, what it is about, and a remedy."""
    with pytest.raises(BackupAgentError) as caught:
        copy(source, target, workers=1)
    error = caught.value
    assert (type(error).__name__, error.exit_code) == (reason, DOCUMENTED[reason])
    assert error.hint
    assert not [word for word in words if word not in str(error)], str(error)
    return error


def denied(scheme: str, method: str) -> Fault:
    """Deny every request of a method."""
    return Fault(method, times=0, answer=refusal(scheme, 403))


def denials(proxy: WireProxy) -> int:
    return sum(seen.status == HTTPStatus.FORBIDDEN for seen in proxy.requests)


@pytest.mark.parametrize("request_kind", [LIST, READ])
def test_a_source_without_a_right(
    scheme: str, request_kind: str, source: Callable[[str], Store], history: Path, tmp_path: Path
) -> None:
    target, store = tmp_path / "target", source(scheme)
    full = next(path.name for path in (history / "v2").glob("Full-*"))
    with WireProxy(store.server.endpoint) as proxy:
        proxy.plan(fault(scheme, request_kind, times=0, answer=refusal(scheme, 403)))
        named = f"{PREFIX}/v2/" + ("" if request_kind == LIST else full)
        assert_refused(store.uri(proxy.endpoint), target.as_uri(), "AccessDenied", store.bucket, named)
        proxy.assert_all_hit()
    assert len(proxy.requests) <= MOST_REQUESTS
    assert not target.exists()


def test_a_target_without_put(scheme: str, make_store: Callable[[str], Store], history: Path) -> None:
    store = make_store(scheme)
    with WireProxy(store.server.endpoint) as proxy:
        proxy.plan(
            denied(scheme, "PUT" if scheme != "gs" else "POST"), *([denied(scheme, "POST")] if scheme == "s3" else [])
        )
        assert_refused(history.as_uri(), store.uri(proxy.endpoint), "AccessDenied", store.bucket, PREFIX)
    assert denials(proxy) == 2
    assert len(proxy.requests) <= MOST_REQUESTS
    assert (store.keys(), store.unfinished()) == ([], [])


def test_a_target_that_may_not_be_listed(scheme: str, make_store: Callable[[str], Store], history: Path) -> None:
    store = make_store(scheme)
    with WireProxy(store.server.endpoint) as proxy:
        proxy.plan(fault(scheme, LIST, times=0, answer=refusal(scheme, 403)))
        assert_refused(history.as_uri(), store.uri(proxy.endpoint), "AccessDenied", store.bucket, PREFIX)
        proxy.assert_all_hit()
    assert (store.keys(), store.unfinished()) == ([], [])


@pytest.mark.parametrize("sibling", [False, True], ids=["empty", "sibling"])
def test_a_source_without_snapshots(
    scheme: str, sibling: bool, make_store: Callable[[str], Store], history: Path, tmp_path: Path
) -> None:
    """``a/b`` is not a prefix of ``a/bc``."""
    store, target = make_store(scheme), tmp_path / "target"
    if sibling:
        fill(store, history, f"{PREFIX}c")
    error = assert_refused(store.uri(), target.as_uri(), "EmptySource", f"{PREFIX}/v2/", "there is no snapshot")
    assert (f"{PREFIX}c" in error.hint) == sibling
    assert not target.exists()
