"""Pairs of a sidecar and an etcd for tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sidecar_pair import Pair

Find = Callable[[str], Path]
MakePair = Callable[..., Pair]


@pytest.fixture
def make_pair(server_binary: Find, tmp_path: Path) -> Iterator[MakePair]:
    """Make pairs that are stopped at the end; all have the same store unless told otherwise."""
    pairs: list[Pair] = []

    def make(store: str | None = None, etcd: str = "etcd-3.5") -> Pair:
        folder = tmp_path / f"pair-{len(pairs)}"
        folder.mkdir()
        pair = Pair(folder, server_binary(etcd), (tmp_path / "store").as_uri() if store is None else store)
        pairs.append(pair)
        return pair

    yield make
    for pair in pairs:
        pair.close()


@pytest.fixture
def pair(make_pair: MakePair) -> Pair:
    return make_pair()


@pytest.fixture
def backed_up(make_pair: MakePair) -> Pair:
    """A pair that has written a full and a delta, and was stopped in order."""
    made = make_pair()
    made.start()
    made.put("a", "b", "c")
    made.sidecar.json("/snapshot/delta")
    made.stop()
    return made


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
