"""A store that denies access in the middle of a copy: credentials are read again once; then it goes on, or stops.

fake-gcs-server asks nobody for credentials, so that rotated keys are proven with MinIO and Azurite only.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from wire_copies import PART_SIZE, SCHEMES, copy
from wire_faults import Fault
from wire_providers import READ, WRITE_PART, fault, refusal
from wire_proxy import WireProxy
from wire_stores import MAKERS, PREFIX, Store, file_digests, fill, write_credentials

from backupagent.errors import AccessDenied
from backupagent.testing.servers import MinioServer
from backupagent.testing.store_servers import AzuriteServer

pytestmark = pytest.mark.servers

READ_AGAIN = "credentials were read again"


def times_read_again(caplog: pytest.LogCaptureFixture) -> int:
    return sum(READ_AGAIN in message for message in caplog.messages)


def denials(proxy: WireProxy) -> int:
    return sum(seen.status == 403 for seen in proxy.requests)


def denied(scheme: str, request: str, times: int) -> Fault:
    """Deny a request and so many fitting ones in all, behind the first one that fits; 0 for all."""
    return fault(scheme, request, nth=2, times=times, answer=refusal(scheme, 403))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_denial_of_the_source_that_passes(
    scheme: str, source: Callable[[str], Store], history: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with WireProxy(source(scheme).server.endpoint) as proxy:
        proxy.plan(denied(scheme, READ, 1))
        copy(source(scheme).uri(proxy.endpoint), (tmp_path / "target").as_uri())
        proxy.assert_all_hit()
    assert times_read_again(caplog) == 1
    assert file_digests(tmp_path / "target") == file_digests(history)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_source_that_denies_from_the_middle_on(
    scheme: str, source: Callable[[str], Store], history: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, target = source(scheme), tmp_path / "target"
    with WireProxy(store.server.endpoint) as proxy:
        proxy.plan(denied(scheme, READ, 0))
        with pytest.raises(AccessDenied, match=f"{PREFIX}/v2/Full-") as caught:
            copy(store.uri(proxy.endpoint), target.as_uri(), workers=1)
        proxy.assert_all_hit()
        assert (denials(proxy), times_read_again(caplog)) == (2, 1)
        assert proxy.requests[-1].status == 403
        assert caught.value.hint
        assert all(".part" in path.suffixes for path in target.glob("v2/*"))
        proxy.heal()
        copy(store.uri(proxy.endpoint), target.as_uri())
    assert file_digests(target) == file_digests(history)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_denial_of_the_target_that_passes(
    scheme: str, make_store: Callable[[str], Store], history: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(scheme)
    with WireProxy(store.server.endpoint) as proxy:
        proxy.plan(denied(scheme, WRITE_PART, 1))
        copy(history.as_uri(), store.uri(proxy.endpoint))
        proxy.assert_all_hit()
    assert times_read_again(caplog) == 1
    assert (store.snapshots(), store.unfinished()) == (file_digests(history), [])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_target_that_denies_from_the_middle_on(
    scheme: str, make_store: Callable[[str], Store], history: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(scheme)
    with WireProxy(store.server.endpoint) as proxy:
        proxy.plan(denied(scheme, WRITE_PART, 0))
        with pytest.raises(AccessDenied, match=f"{PREFIX}/v2/Full-"):
            copy(history.as_uri(), store.uri(proxy.endpoint), workers=1)
        proxy.assert_all_hit()
        assert (denials(proxy), times_read_again(caplog)) == (2, 1)
        assert proxy.requests[-1].status == 403
        assert store.snapshots() == {}
        proxy.heal()
        copy(history.as_uri(), store.uri(proxy.endpoint))
        content = sum(size for size, _sha256 in file_digests(history).values())
        assert content <= proxy.bodies() < content + PART_SIZE
    assert (store.snapshots(), store.unfinished()) == (file_digests(history), [])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_target_without_delete_is_cleaned_by_the_next_run(
    scheme: str, make_store: Callable[[str], Store], history: Path
) -> None:
    """What stays is what a kill leaves right behind a completion: nothing of the object is moved again."""
    store = make_store(scheme)
    with WireProxy(store.server.endpoint) as proxy:
        proxy.plan(Fault("DELETE", times=0, answer=refusal(scheme, 403)))
        with pytest.raises(AccessDenied, match=f"{PREFIX}/"):
            copy(history.as_uri(), store.uri(proxy.endpoint), workers=1)
        proxy.assert_all_hit()
        assert store.unfinished()
        assert [name.partition("-")[0] for name in store.snapshots()] == ["Full"]
        proxy.heal()
        before = proxy.bodies()
        assert copy(history.as_uri(), store.uri(proxy.endpoint)).skipped == 1
        assert proxy.bodies() - before < PART_SIZE
    assert (store.snapshots(), store.unfinished()) == (file_digests(history), [])


# ---- rotated keys


@contextmanager
def rotating(scheme: str, server_binary: Callable[[str], Path], folder: Path) -> Iterator[Store]:
    """Start a server whose keys may change."""
    started = (
        MinioServer(binary=server_binary("minio"))
        if scheme == "s3"
        else AzuriteServer(binary=server_binary("azurite-blob"))
    )
    with started as server:
        yield MAKERS[scheme][1](server, folder)


def rotate(store: Store) -> None:
    """Let the server take another key only, which lies in the files then."""
    server = store.server
    assert store.credentials is not None
    if isinstance(server, MinioServer):
        server.secret_key = "the-next-secret-key"
        server.restart()
        write_credentials(store.credentials, {"secretAccessKey": server.secret_key})
    elif isinstance(server, AzuriteServer):
        server.key = "dGhlIG5leHQga2V5IG9mIHRoZSBhY2NvdW50IQ=="
        server.restart()
        write_credentials(store.credentials, {"storageKey": server.key})


@pytest.mark.parametrize("scheme", ["s3", "az"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_keys_that_are_rotated_half_way(
    scheme: str,
    side: str,
    server_binary: Callable[[str], Path],
    history: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    local = tmp_path / "target"
    with rotating(scheme, server_binary, tmp_path / "credentials") as store:
        if side == "source":
            fill(store, history)
        with WireProxy(store.server.endpoint) as proxy:
            proxy.plan(fault(scheme, READ if side == "source" else WRITE_PART, nth=2, first=lambda: rotate(store)))
            behind = store.uri(proxy.endpoint)
            uris = (behind, local.as_uri()) if side == "source" else (history.as_uri(), behind)
            copy(*uris, workers=1)
            proxy.assert_all_hit()
            assert (denials(proxy), times_read_again(caplog)) == (1, 1)
        found = file_digests(local) if side == "source" else store.snapshots()
        assert found == file_digests(history)
