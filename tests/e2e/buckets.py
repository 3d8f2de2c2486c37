"""Copies of the golden buckets, and ways to damage them."""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from backupagent.codecs import CODECS, codec_for_suffix
from backupagent.model.snapshot import Revision, Snapshot, SnapshotKind
from backupagent.model.trailer import TRAILER_SIZE
from backupagent.testing.lzw_writer import compress_lzw

GOLDEN = Path(__file__).parents[1] / "golden"
FOLDERS = {"none": "none", "gzip": "gzip", "zlib": "zlib-final", "lzw": "lzw-final"}
FULL_REVISION, LAST_REVISION, COMPACT_REVISION = 6, 30, 25
"""Of every golden chain: its first full, its end, and where the source was compacted."""


@dataclass(frozen=True)
class Bucket:
    """A directory as a store.

    Attributes:
        root: The directory.
    """

    root: Path

    @property
    def uri(self) -> str:
        return self.root.as_uri()

    @property
    def full(self) -> Path:
        """The oldest full."""
        return min(self.root.glob("v2/Full-*"))

    @property
    def deltas(self) -> list[Path]:
        return sorted(self.root.glob("v2/Incr-*"))

    @property
    def manifest(self) -> Path:
        """The full's manifest."""
        return self.root / "manifests" / f"{self.full.name}.json"

    def objects(self) -> dict[str, bytes]:
        """Every snapshot by its name, in their order; none when there is no such directory."""
        return {path.name: path.read_bytes() for path in sorted(self.root.glob("v2/*")) if not is_unfinished(path)}

    def unfinished(self) -> list[Path]:
        """What is not whole: files on their way, and the journal's entries."""
        return [path for path in self.root.rglob("*") if is_unfinished(path) or path.parent.name == "uploads"]


def is_unfinished(path: Path) -> bool:
    return ".part" in path.suffixes


def golden(compression: str, root: Path, *, whole: bool = False) -> Bucket:
    """Copy a golden bucket.

    Args:
        compression: Of its snapshots.
        root: Where the copy is made.
        whole: Also what came after the chain that all buckets have: a second, final full and a delta.
    """
    (root / "v2").mkdir(parents=True)
    for path in (GOLDEN / FOLDERS[compression] / "v2").iterdir():
        snapshot = Snapshot.parse(path.name)
        if whole or snapshot.start in range(1, LAST_REVISION) or snapshot.last == FULL_REVISION:
            shutil.copy(path, root / "v2")
    return Bucket(root)


def source_hash(compression: str) -> int:
    """Return the HashKV of the etcd that a golden bucket came from, compacted at ``COMPACT_REVISION``."""
    (answer,) = json.loads((GOLDEN / FOLDERS[compression] / "etcd-final-hashkv.json").read_text())
    return int(answer["HashKV"]["hash"])


def content(path: Path) -> bytes:
    """Decompress a snapshot, trailer included."""
    decoder = codec_for_suffix(Snapshot.parse(path.name).suffix, path.name).decoder(path.name)
    return b"".join(bytes(piece) for piece in decoder.feed(path.read_bytes()))


def write(path: Path, data: bytes) -> None:
    """Compress as the name says."""
    snapshot = Snapshot.parse(path.name)
    codec = codec_for_suffix(snapshot.suffix, path.name)
    if codec is CODECS["lzw"]:
        path.write_bytes(compress_lzw(data))
        return
    assert codec.encoder is not None
    encoder = codec.encoder(1)
    path.write_bytes(b"".join(bytes(piece) for half in (encoder.feed(data), encoder.finish()) for piece in half))
    encoder.close()


def events(delta: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(content(delta)[:-TRAILER_SIZE])
    return found


def revision(event: dict[str, Any]) -> Revision:
    return Revision(event["etcdEvent"]["kv"]["mod_revision"])


def write_delta(bucket: Bucket, held: Iterable[dict[str, Any]]) -> Path:
    """Add an uncompressed delta of these events."""
    kept = list(held)
    first, last = revision(kept[0]), revision(kept[-1])
    name = Snapshot(last=last, start=first, created_s=1_795_400_700, kind=SnapshotKind.DELTA).name
    data = json.dumps(kept, separators=(",", ":")).encode()
    path = bucket.root / "v2" / name
    path.write_bytes(data + sha256(data).digest())
    return path


# ---- damages: each changes one object in place


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x08
    path.write_bytes(data)


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def drop_trailer(path: Path) -> None:
    write(path, content(path)[:-TRAILER_SIZE])


Damage = Callable[[Path], None]
