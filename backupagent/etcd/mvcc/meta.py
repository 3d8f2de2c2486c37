"""The ``meta`` bucket and what follows from it and from the ``key`` bucket: the true revision of a database.

Source: etcd, server/storage/schema (bucket.go, cindex.go, confstate.go, storage_version.go) and
server/storage/mvcc/kvstore.go (restore) at v3.7.1.
"""

import struct
from dataclasses import dataclass

from backupagent.errors import MalformedContent
from backupagent.etcd.boltfile.layout import BUCKET_FLAG
from backupagent.etcd.boltfile.reader import BoltReader, Element
from backupagent.etcd.boltfile.tree import Tree, bucket, root_bucket
from backupagent.etcd.mvcc.revision import KEY_BUCKET, PUT_SIZE, RevisionKey

META_BUCKET = b"meta"
CONSISTENT_INDEX = b"consistent_index"
TERM = b"term"
CONF_STATE = b"confState"
SCHEDULED_COMPACT = b"scheduledCompactRev"
FINISHED_COMPACT = b"finishedCompactRev"
STORAGE_VERSION = b"storageVersion"

_UINT64 = struct.Struct(">Q")
_AUTH_BUCKET, _AUTH_ENABLED = b"auth", b"authEnabled"
FIRST_REVISION = 1
"""Revision of an empty etcd."""

NEVER_COMPACTED = -1
"""Compact revision of an etcd that was never compacted, as HashKV reports it."""


@dataclass(frozen=True)
class DbState:
    """Where a database stands.

    Attributes:
        revision: Its last revision, 1 when empty. The highest of the last key's and the compact revisions, because
            a compaction may have removed the last keys.
        compact_revision: The one that an etcd started from it reports: of the last compaction, finished or not;
            -1 when there was none.
        finished_compact_revision: Up to here every key has at most its live version left; -1 when there was no
            compaction.
        consistent_index: Index of the last applied raft entry; 0 when absent.
        term: Its term; 0 when absent (3.4).
        storage_version: ``3.6.0`` and the like; empty before 3.6.
        auth_enabled: Whether clients must log in.
    """

    revision: int
    compact_revision: int
    finished_compact_revision: int
    consistent_index: int
    term: int
    storage_version: str
    auth_enabled: bool


def read_state(reader: BoltReader) -> DbState:
    """Read where a database stands: a few pages, however large it is.

    Raises:
        MalformedContent: not a database of etcd.
        TruncatedObject: the file ends too early.
    """
    root = root_bucket(reader)
    meta = {element.key: element.value for element in named_bucket(reader, root, META_BUCKET).small().values()}
    finished = _compact_revision(meta, FINISHED_COMPACT, reader.name)
    compacted = max(finished, _compact_revision(meta, SCHEDULED_COMPACT, reader.name))
    auth = root.get(_AUTH_BUCKET)
    enabled = bucket(reader, auth.value).get(_AUTH_ENABLED) if auth else None
    return DbState(
        revision=max(FIRST_REVISION, compacted, _last_main(reader, named_bucket(reader, root, KEY_BUCKET))),
        compact_revision=compacted,
        finished_compact_revision=finished,
        consistent_index=_number(meta, CONSISTENT_INDEX, reader.name),
        term=_number(meta, TERM, reader.name),
        storage_version=meta.get(STORAGE_VERSION, b"").decode("ascii", "replace"),
        auth_enabled=enabled is not None and enabled.value == b"\x01",
    )


def encode_number(number: int) -> bytes:
    """Write a value of ``consistent_index`` or ``term``."""
    return _UINT64.pack(number)


def named_bucket(reader: BoltReader, root: Tree, name: bytes) -> Tree:
    """Return a bucket that every database of etcd has.

    Raises:
        MalformedContent: there is none of that name.
    """
    element: Element | None = root.get(name)
    if element is None or element.flags != BUCKET_FLAG:
        raise reader.malformed(f"not a database of etcd: it has no bucket {name.decode()!r}")
    return bucket(reader, element.value)


def _last_main(reader: BoltReader, keys: Tree) -> int:
    last = None
    for element in reader.elements(keys.spine().last_leaf):
        last = element
    return RevisionKey.decode(last.key, reader.name).main if last else 0


def _compact_revision(meta: dict[bytes, bytes], name: bytes, where: str) -> int:
    value = meta.get(name)
    # Written without the mark of a deletion, but into a buffer that has room for it (3.4).
    return NEVER_COMPACTED if value is None else RevisionKey.decode(value[:PUT_SIZE], where).main


def _number(meta: dict[bytes, bytes], name: bytes, where: str) -> int:
    value = meta.get(name)
    if value is None:
        return 0
    if len(value) != _UINT64.size:
        message = f"{name.decode()} in the meta bucket is not a number"
        raise MalformedContent(message, key=where)
    (number,) = _UINT64.unpack(value)
    return int(number)
