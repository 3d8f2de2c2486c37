"""Rights that are not given, and prefixes without snapshots: the documented error, at once, and nothing written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from command import assert_blamed, backupagent
from wire_copies import SCHEMES
from wire_faults import Fault
from wire_providers import LIST, READ, fault, refusal
from wire_proxy import WireProxy
from wire_stores import PREFIX, Store, fill

pytestmark = [pytest.mark.servers, pytest.mark.parametrize("scheme", SCHEMES)]

MOST_REQUESTS = 16
"""Of a copy that is denied: a listing of each place, once more with credentials that were read again, nothing over and
over."""


def denied(scheme: str, method: str) -> Fault:
    """Deny every request of a method."""
    return Fault(method, times=0, answer=refusal(scheme, 403))


@pytest.mark.parametrize("request_kind", [LIST, READ])
def test_a_source_without_a_right(
    scheme: str, request_kind: str, source: Callable[[str], Store], history: Path, tmp_path: Path
) -> None:
    target, store = tmp_path / "target", source(scheme)
    full = next(path.name for path in (history / "v2").glob("Full-*"))
    with WireProxy(store.server.endpoint) as proxy:
        proxy.plan(fault(scheme, request_kind, times=0, answer=refusal(scheme, 403)))
        uris = ("--source", store.uri(proxy.endpoint), "--target", target.as_uri())
        ended = backupagent("copy", *uris, "--newest-chain-only", "--part-size", "5MiB", "--workers", "1")
        proxy.assert_all_hit()
    assert_blamed(ended, "AccessDenied", store.bucket, f"{PREFIX}/v2/" + ("" if request_kind == LIST else full))
    assert len(proxy.requests) <= MOST_REQUESTS
    assert not target.exists()


def test_a_target_without_put(scheme: str, make_store: Callable[[str], Store], history: Path) -> None:
    store = make_store(scheme)
    with WireProxy(store.server.endpoint) as proxy:
        proxy.plan(
            denied(scheme, "PUT" if scheme != "gs" else "POST"), *([denied(scheme, "POST")] if scheme == "s3" else [])
        )
        uris = ("--source", history.as_uri(), "--target", store.uri(proxy.endpoint))
        ended = backupagent("copy", *uris, "--part-size", "5MiB", "--workers", "1")
    assert_blamed(ended, "AccessDenied", store.bucket, PREFIX)
    assert len(proxy.requests) <= MOST_REQUESTS
    assert (store.keys(), store.unfinished()) == ([], [])


def test_a_target_that_may_not_be_listed(scheme: str, make_store: Callable[[str], Store], history: Path) -> None:
    store = make_store(scheme)
    with WireProxy(store.server.endpoint) as proxy:
        proxy.plan(fault(scheme, LIST, times=0, answer=refusal(scheme, 403)))
        ended = backupagent("copy", "--source", history.as_uri(), "--target", store.uri(proxy.endpoint))
        proxy.assert_all_hit()
    assert_blamed(ended, "AccessDenied", store.bucket, PREFIX)
    assert (store.keys(), store.unfinished()) == ([], [])


@pytest.mark.parametrize("sibling", [False, True], ids=["empty", "sibling"])
def test_a_source_without_snapshots(
    scheme: str, sibling: bool, make_store: Callable[[str], Store], history: Path, tmp_path: Path
) -> None:
    """``a/b`` is not a prefix of ``a/bc``."""
    store, target = make_store(scheme), tmp_path / "target"
    if sibling:
        fill(store, history, f"{PREFIX}c")
    ended = backupagent("copy", "--source", store.uri(), "--target", target.as_uri())
    assert_blamed(ended, "EmptySource", f"{PREFIX}/v2/", "there is no snapshot")
    assert (f"{PREFIX}c" in ended.document["error"]["hint"]) == sibling
    assert not target.exists()
