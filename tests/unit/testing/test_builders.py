"""Synthetic chains are what the names say, in the format, and built once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from backupagent.codecs import codec_for_suffix
from backupagent.model.chain import build_chains
from backupagent.model.event import Event, decode_events
from backupagent.model.snapshot import Snapshot, SnapshotKind, StoredSnapshot
from backupagent.model.trailer import TrailerCheck
from backupagent.testing.builders import (
    Deltas,
    RandomFull,
    build_chain,
    build_deltas,
    build_random_full,
    cache_root,
    cached,
)

DELTAS = Deltas(count=3, per_delta=10, value_size=50, keys=7)


def content_of(path: Path) -> bytes:
    """Decompress an object, check its trailer, and return what is before it."""
    snapshot = Snapshot.parse(path.name)
    decoder = codec_for_suffix(snapshot.suffix, path.name).decoder(path.name)
    check = TrailerCheck(snapshot.kind, path.name)
    content = b"".join(bytes(part) for piece in decoder.feed(path.read_bytes()) for part in check.split(piece))
    decoder.finish()
    check.finish()
    return content


def events_of(folder: Path) -> Iterator[Event]:
    for path in sorted((folder / "v2").glob("Incr-*")):
        for events in decode_events([content_of(path)], path.name):
            yield from events


def chain_of(folder: Path) -> list[StoredSnapshot]:
    paths = (folder / "v2").iterdir()
    return [StoredSnapshot(Snapshot.parse(path.name), path.name, path.stat().st_size, "") for path in paths]


@pytest.mark.parametrize("codec", ["none", "gzip", "zlib", "zstd"])
def test_the_deltas_hold_every_revision_once_with_the_versions_that_etcd_would_give(tmp_path: Path, codec: str) -> None:
    deltas = Deltas(count=3, per_delta=10, value_size=50, keys=7, codec=codec)

    assert build_deltas(tmp_path, 100, deltas) == 130

    created: dict[bytes, int] = {}
    versions: dict[bytes, int] = {}
    for revision, event in enumerate(events_of(tmp_path), start=101):
        kv = event.etcdEvent.kv
        versions[kv.key] = versions.get(kv.key, 0) + 1
        assert (kv.mod_revision, kv.version) == (revision, versions[kv.key])
        assert kv.create_revision == created.setdefault(kv.key, revision)
        assert len(kv.value) == 50
    assert sum(versions.values()) == deltas.events
    assert len(created) == deltas.keys


def test_the_names_make_one_chain_without_a_gap(tmp_path: Path) -> None:
    last = build_chain(tmp_path, RandomFull(size=8192, revision=5), DELTAS)

    chain = build_chains(chain_of(tmp_path))[0]
    chain.require_contiguous()
    assert (chain.full.snapshot.last, chain.last, len(chain.deltas)) == (5, last, 3)


@pytest.mark.parametrize(("codec", "suffix"), [("none", ""), ("gzip", ".gz")])
def test_a_random_full_has_the_size_and_the_trailer_of_a_real_one(tmp_path: Path, codec: str, suffix: str) -> None:
    build_random_full(tmp_path, RandomFull(size=3 * 4096, revision=9, codec=codec))

    (path,) = (tmp_path / "v2").iterdir()
    snapshot = Snapshot.parse(path.name)
    assert (snapshot.kind, snapshot.last, snapshot.suffix) == (SnapshotKind.FULL, 9, suffix)
    assert len(content_of(path)) == 3 * 4096


def test_the_seed_alone_decides_the_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build_deltas(tmp_path / name, 1, Deltas(count=1, per_delta=5, value_size=50, seed=seed))

    a, b, c = (next((tmp_path / name / "v2").iterdir()).read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.usefixtures("_own_cache")
def test_the_same_parameters_are_built_once() -> None:
    built: list[Path] = []

    assert cached({"size": 1}, built.append) == cached({"size": 1}, built.append)
    assert cached({"size": 2}, built.append) != cached({"size": 1}, built.append)
    assert len(built) == 2


@pytest.mark.usefixtures("_own_cache")
def test_a_build_that_fails_leaves_nothing() -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("made")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cached({}, fail)
    assert list(cache_root().iterdir()) == []


@pytest.mark.usefixtures("_own_cache")
def test_the_first_of_two_builds_at_the_same_time_wins() -> None:
    def build_while_another_does(folder: Path) -> None:
        (folder / "late").touch()
        cached({}, lambda other: (other / "early").touch())

    folder = cached({}, build_while_another_does)

    assert (folder / "early").exists()
    assert [path for path in cache_root().iterdir() if path != folder] == []
