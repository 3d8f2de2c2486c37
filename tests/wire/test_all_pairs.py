"""From every kind of store to every kind: the same bytes, and the same etcd out of them. Its own kind: ``--long``."""

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from wire_stores import MAKERS, PREFIX, digests, file_digests

from backupagent.cancel import Cancel
from backupagent.progress import Progress
from backupagent.settings import CopySettings, RestoreSettings
from backupagent.stores import open_store, parse_location
from backupagent.testing.builders import Deltas, RandomFull, cached_chain
from backupagent.units import MiB
from backupagent.wiring import run_copy, run_restore

pytestmark = pytest.mark.servers

GOLDEN = Path(__file__).parents[1] / "golden" / "gzip"
KINDS = ("local", "memory", *MAKERS)
SIZES = [64, pytest.param(300, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
"""Of the full, MiB."""


class Stores:
    """Buckets of every kind, named by their URIs; sources are filled once."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self._request = request
        self._folder = folder
        self._sources: dict[tuple[str, int], str] = {}

    def make(self, kind: str, name: str) -> str:
        if kind == "local":
            return (self._folder / name).as_uri()
        if kind == "memory":
            return f"memory://{name}/{PREFIX}"
        fixture, maker = MAKERS[kind]
        return maker(self._request.getfixturevalue(fixture), self._folder).uri()

    def source(self, kind: str, size: int) -> str:
        """Return a bucket with a golden chain, and behind it, in a history of its own, a large full."""
        if (kind, size) not in self._sources:
            uri = self._sources[kind, size] = self.make(kind, f"source-{kind}-{size}")
            for below, place in (("golden", GOLDEN), ("large", large(size))):
                copy(place.as_uri(), inside(uri, below))
        return self._sources[kind, size]


@pytest.fixture(scope="module")
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    made = Stores(request, tmp_path_factory.mktemp("stores"))
    yield made
    for uri in made._sources.values():
        empty(uri)


def large(size: int) -> Path:
    return cached_chain(RandomFull(size * MiB), Deltas(count=2, per_delta=100, value_size=1000))


def inside(uri: str, folder: str) -> str:
    """Return the URI of a place below a store."""
    place, separator, options = uri.partition("?")
    return f"{place}/{folder}{separator}{options}"


def copy(source: str, target: str) -> int:
    settings = CopySettings(source=source, target=target)
    return run_copy(settings, Progress(), Cancel()).copied


def snapshots(uri: str) -> dict[str, tuple[int, str]]:
    location = parse_location(uri)
    with contextlib.closing(open_store(location)) as store:
        return digests(store, f"{location.prefix}/v2/".lstrip("/"))


def empty(uri: str) -> None:
    """Remove everything: memory is kept as long as the process lives."""
    location = parse_location(uri)
    with contextlib.closing(open_store(location)) as store:
        for info in list(store.list_objects("")):
            store.delete(info.key)


def restored_hash(uri: str, data_dir: Path) -> tuple[int, int]:
    """Restore, and return the HashKV and the one that the source etcd had at the same compaction."""
    [recorded] = json.loads((GOLDEN / "etcd-final-hashkv.json").read_text())
    compacted = recorded["HashKV"]["compact_revision"]
    settings = RestoreSettings(store=uri, data_dir=data_dir, hash_compact_revision=compacted)
    return run_restore(settings, Progress(), Cancel()).hash_kv, recorded["HashKV"]["hash"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("source", "target"),
    [
        pytest.param(source, target, marks=[pytest.mark.long] if source == target else [])
        for source, target in itertools.product(KINDS, KINDS)
    ],
)
def test_every_kind_of_store_to_every_kind(source: str, target: str, size: int, stores: Stores, tmp_path: Path) -> None:
    there = stores.make(target, f"target-{source}-{target}-{size}")
    for below, place in (("golden", GOLDEN), ("large", large(size))):
        wanted = file_digests(place)
        assert copy(inside(stores.source(source, size), below), inside(there, below)) == len(wanted) > 1
        assert snapshots(inside(there, below)) == wanted
    found, recorded = restored_hash(inside(there, "golden"), tmp_path / "data")
    assert found == recorded
    empty(there)
