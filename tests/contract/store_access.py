"""How the contract tests write and read."""

import random

from backupagent.stores.base import ObjectStore, Upload
from backupagent.units import KiB

SEED = 20261123


def content(size: int, seed: int = SEED) -> bytes:
    return random.Random(seed).randbytes(size)


def read(store: ObjectStore, key: str, size: int, *, offset: int = 0, etag: str = "") -> bytes:
    buffer = bytearray(size)
    store.read_into(key, memoryview(buffer), offset=offset, etag=etag)
    return bytes(buffer)


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list_objects(prefix)]


def part_size(store: ObjectStore) -> int:
    return max(store.limits.min_part, 64 * KiB)


def begin(store: ObjectStore, key: str = "big") -> Upload:
    return store.begin_upload(key, part_size=part_size(store))
