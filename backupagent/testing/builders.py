"""Chains of snapshots made without an agent: for restores and copies of any size, the same bytes each time.

Deltas and random fulls need no server; a full that etcd can open comes from a real etcd that is started for it.
What is built is kept in a cache folder named by its parameters, so a benchmark pays for it once per machine.
"""

import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backupagent.codecs import CODECS
from backupagent.etcd.client import EtcdClient
from backupagent.etcd.connection import EtcdAccess
from backupagent.model.event import Change, Event, KeyValue, encode_event, format_time
from backupagent.model.snapshot import Revision, Snapshot, SnapshotKind
from backupagent.testing.keyspace import Put, commit
from backupagent.testing.servers import EtcdServer, find_binary, require
from backupagent.units import GiB, KiB, MiB

FORMAT = 2
"""Changes whenever the same parameters give other bytes; part of the cache's key."""

EPOCH_S = 1_760_000_000
"""When the full of every synthetic chain was taken, seconds since 1970."""

FULL_ETCD = "etcd-3.5"
"""Makes the fulls, where there is one: every newer etcd and the peer's embedded one can open them."""

DELTA_PERIOD_S = 20
PAGE = 4 * KiB
PIECE = MiB
TXN_BYTES = MiB
"""Values in one transaction; etcd's default limit of a request is 1.5 MiB."""
TXN_OPS = 128
"""etcd's default ``--max-txn-ops``."""


@dataclass(frozen=True)
class Deltas:
    """Consecutive deltas of single puts over a rotating set of keys.

    Attributes:
        count: How many deltas.
        per_delta: Events, and revisions, in each.
        value_size: Bytes of every value; half of them are entropy.
        keys: How many different keys.
        codec: Name of the compression.
        seed: Of the values.
    """

    count: int
    per_delta: int
    value_size: int
    keys: int = 20_000
    codec: str = "none"
    seed: int = 1

    @property
    def events(self) -> int:
        """Events in all deltas together."""
        return self.count * self.per_delta


@dataclass(frozen=True)
class Full:
    """A full that a real etcd made.

    Attributes:
        values: How many keys.
        value_size: Bytes of every value; half of them are entropy.
        codec: Name of the compression.
        seed: Of the values.
    """

    values: int
    value_size: int
    codec: str = "none"
    seed: int = 1


@dataclass(frozen=True)
class RandomFull:
    """A full with a valid trailer that no etcd can open: enough to be copied.

    Attributes:
        size: Bytes of content without the trailer, a multiple of 4 KiB; half of them are entropy.
        revision: The revision that its name promises.
        codec: Name of the compression.
        seed: Of the content.
    """

    size: int
    revision: int = 1
    codec: str = "none"
    seed: int = 1


def build_full(store_dir: Path, full: Full) -> Revision:
    """Fill a real etcd and keep the stream of its Snapshot call as a full under ``store_dir/v2``.

    Returns:
        The full's revision.

    Raises:
        ServerMissing: there is no etcd on this machine.
    """
    quota = f"--quota-backend-bytes={8 * GiB}"
    with (
        EtcdServer(find_binary(FULL_ETCD) or require("etcd"), extra_args=[quota]) as server,
        EtcdClient.open(EtcdAccess(endpoints=(server.endpoint,))) as client,
    ):
        revision = _fill(client, full)
        _write(store_dir, _full_name(revision, full.codec), client.snapshot_stream())
    return revision


def build_random_full(store_dir: Path, full: RandomFull) -> Revision:
    """Write a full of random pages under ``store_dir/v2``.

    Returns:
        The revision that its name promises.
    """
    rng = random.Random(full.seed)
    pages = (rng.randbytes(PAGE // 2) + bytes(PAGE // 2) for _ in range(full.size // PAGE))
    name = _full_name(Revision(full.revision), full.codec)
    _write(store_dir, name, _with_trailer(_regroup(pages)))
    return name.last


def build_deltas(store_dir: Path, base_revision: int, deltas: Deltas) -> Revision:
    """Write deltas that go on from a revision under ``store_dir/v2``.

    Every event is a put in a revision of its own, with the create revision and version that etcd would have given
    it, so the peer's restorer accepts them after a base that has none of the keys ``/bench/...``.

    Returns:
        The last revision.
    """
    rng = random.Random(deltas.seed)
    keys = [f"/bench/objects/{number:08d}".encode() for number in range(deltas.keys)]
    for index in range(deltas.count):
        first = index * deltas.per_delta
        events = (_event(number, base_revision, keys, deltas, rng) for number in range(first, first + deltas.per_delta))
        name = Snapshot(
            last=Revision(base_revision + first + deltas.per_delta),
            start=Revision(base_revision + first + 1),
            created_s=EPOCH_S + DELTA_PERIOD_S * (index + 1),
            kind=SnapshotKind.DELTA,
            suffix=CODECS[deltas.codec].suffix,
        )
        _write(store_dir, name, _with_trailer(_regroup(_array(events))))
    return Revision(base_revision + deltas.events)


def build_chain(store_dir: Path, full: Full | RandomFull, deltas: Deltas) -> Revision:
    """Write a full and the deltas that go on from it.

    Returns:
        The last revision.
    """
    base = build_full(store_dir, full) if isinstance(full, Full) else build_random_full(store_dir, full)
    return build_deltas(store_dir, base, deltas)


def cached_chain(full: Full | RandomFull, deltas: Deltas) -> Path:
    """Return a folder with a chain, which is built when there is none yet."""
    parameters = {type(full).__name__: asdict(full), "Deltas": asdict(deltas)}
    return cached(parameters, lambda folder: build_chain(folder, full, deltas))


def cached(parameters: object, build: Callable[[Path], object]) -> Path:
    """Return the folder that belongs to parameters; it is built aside and appears whole, by a rename.

    Args:
        parameters: Anything that JSON can hold.
        build: Fills an empty folder.
    """
    text = json.dumps([FORMAT, parameters], sort_keys=True)
    folder = cache_root() / hashlib.sha256(text.encode()).hexdigest()[:16]
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        build(building)
        (building / "parameters.json").write_text(text + "\n")
        try:
            building.rename(folder)
        except OSError:
            if not folder.exists():  # else another process built the same at the same time
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def cache_root() -> Path:
    """Return the folder that holds what was built, ``$XDG_CACHE_HOME/backupagent/bench``."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "backupagent" / "bench"


def _fill(client: EtcdClient, full: Full) -> Revision:
    rng = random.Random(full.seed)
    per_txn = max(1, min(TXN_OPS, TXN_BYTES // full.value_size))
    revision = 1
    for first in range(0, full.values, per_txn):
        numbers = range(first, min(first + per_txn, full.values))
        puts = [Put(f"/registry/base/{number:08d}".encode(), text(rng, full.value_size)) for number in numbers]
        revision = commit(client, puts)
    return Revision(revision)


def text(rng: random.Random, size: int) -> bytes:
    """Return printable bytes that compress to about half, as the values of a real etcd do."""
    return rng.randbytes((size + 1) // 2).hex().encode()[:size]


def _event(number: int, base_revision: int, keys: list[bytes], deltas: Deltas, rng: random.Random) -> bytes:
    rounds, place = divmod(number, len(keys))
    kv = KeyValue(
        key=keys[place],
        create_revision=base_revision + 1 + place,
        mod_revision=base_revision + 1 + number,
        version=rounds + 1,
        value=text(rng, deltas.value_size),
    )
    seen = datetime.fromtimestamp(EPOCH_S, UTC) + timedelta(milliseconds=number)
    return encode_event(Event(Change(kv=kv), format_time(seen)))


def _array(events: Iterable[bytes]) -> Iterator[bytes]:
    before = b"["
    for event in events:
        yield before
        yield event
        before = b","
    yield b"]"


def _regroup(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join small pieces to large ones: hashing and compressing many small ones would take the time."""
    joined = bytearray()
    for piece in pieces:
        joined += piece
        if len(joined) >= PIECE:
            yield bytes(joined)
            joined.clear()
    yield bytes(joined)


def _with_trailer(content: Iterable[bytes]) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for piece in content:
        digest.update(piece)
        yield piece
    yield digest.digest()


def _full_name(revision: Revision, codec: str) -> Snapshot:
    return Snapshot(revision, Revision(0), EPOCH_S, SnapshotKind.FULL, CODECS[codec].suffix)


def _write(store_dir: Path, name: Snapshot, content: Iterable[bytes]) -> None:
    make_encoder = next(codec.encoder for codec in CODECS.values() if codec.suffix == name.suffix)
    if make_encoder is None:
        message = f"nothing writes snapshots that end in {name.suffix}"
        raise ValueError(message)
    folder = store_dir / "v2"
    folder.mkdir(parents=True, exist_ok=True)
    encoder = make_encoder(1)
    try:
        with (folder / name.name).open("wb") as target:
            for piece in content:
                target.writelines(encoder.feed(piece))
            target.writelines(encoder.finish())
    finally:
        encoder.close()
