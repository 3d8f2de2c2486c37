"""The raft side of a restored member: its WAL and its ``.snap`` file, and who is in the cluster.

Byte for byte what ``etcdutl snapshot restore`` of etcd 3.5.1 writes. Source: etcd at v3.5.1,
etcdutl/snapshot/v3_snapshot.go (saveWALAndSnap), server/wal/wal.go and encoder.go, server/etcdserver/api/snap,
api/membership (member.go, cluster.go, store.go) and api/v2store.
"""

import hashlib
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from backupagent.crc32c import extend
from backupagent.errors import ConfigError
from backupagent.etcd.boltfile.writer import storage_error
from backupagent.etcd.protowire import encode_bytes, encode_number
from backupagent.failpoints import hit

DEFAULT_TOKEN = "etcd-cluster"  # noqa: S105 - the name of a cluster, not a secret
TERM = 1
"""Raft term of a restored cluster."""

WAL_SIZE = 64_000_000
"""Bytes that etcd allocates for a segment of the WAL in advance."""

WAL_NAME = "0000000000000000-0000000000000000.wal"

_METADATA, _ENTRY, _STATE, _CRC, _SNAPSHOT = range(1, 6)  # types of WAL records
_CONF_CHANGE = 1  # raftpb.EntryConfChange
_ADD_NODE = 0  # raftpb.ConfChangeAddNode
_PADDED = 0x80
_FRAME = struct.Struct("<Q")
_ID = struct.Struct(">Q")
_HISTORY_SIZE = 1000
_ZERO_TIME = "0001-01-01T00:00:00Z"
_STORE_COUNTERS = (
    "getsSuccess", "getsFail", "setsSuccess", "setsFail", "deleteSuccess", "deleteFail", "updateSuccess",
    "updateFail", "createSuccess", "createFail", "compareAndSwapSuccess", "compareAndSwapFail",
    "compareAndDeleteSuccess", "compareAndDeleteFail", "expireCount", "watchers",
)  # fmt: skip


@dataclass(frozen=True, order=True)
class Member:
    """A member of the restored cluster; ordered by id, as etcd orders them.

    Attributes:
        id: Member id.
        name: Member name.
        peer_urls: Its peer URLs, sorted.
    """

    id: int
    name: str
    peer_urls: tuple[str, ...]

    @property
    def hex_id(self) -> str:
        """The id as etcd writes it in keys and paths: without leading zeros."""
        return f"{self.id:x}"

    def encode(self) -> bytes:
        """Write it as etcd keeps it in its ``members`` bucket and in raft entries."""
        return _json({"id": self.id, "peerURLs": list(self.peer_urls), "name": self.name})


@dataclass(frozen=True)
class Cluster:
    """The members of a restored cluster.

    Attributes:
        id: Cluster id.
        members: In the order of their ids.
    """

    id: int
    members: tuple[Member, ...]

    def member(self, name: str) -> Member:
        """Return the member of a name.

        Raises:
            ConfigError: there is none.
        """
        for member in self.members:
            if member.name == name:
                return member
        names = ", ".join(sorted(member.name for member in self.members))
        message = f"the initial cluster has no member {name!r}, it has {names}"
        raise ConfigError(message)

    def encode_conf_state(self) -> bytes:
        """Write the raft configuration as etcd keeps it in its ``meta`` bucket."""
        return _json({"voters": [member.id for member in self.members], "auto_leave": False})


def parse_initial_cluster(text: str, *, token: str = DEFAULT_TOKEN) -> Cluster:
    """Read ``name=url,name=url``; a name may come several times, with a URL each.

    Args:
        text: The value of ``--initial-cluster``.
        token: The value of ``--initial-cluster-token``; different tokens make different ids.

    Raises:
        ConfigError: it names no members, or a URL is not one, or two members share a URL.
    """
    urls_of: dict[str, list[str]] = {}
    for part in filter(None, text.split(",")):
        name, separator, url = part.partition("=")
        if not separator or not name:
            message = f"initial cluster: {part!r} is not of the form name=url"
            raise ConfigError(message)
        urls_of.setdefault(name, []).append(_peer_url(url))
    urls = [url for one in urls_of.values() for url in one]
    if not urls:
        message = "initial cluster: no member is named, write for example default=http://localhost:2380"
        raise ConfigError(message)
    if len(set(urls)) < len(urls):
        message = f"initial cluster: a URL occurs twice in {text!r}"
        raise ConfigError(message)
    members = tuple(sorted(_member(name, tuple(sorted(one)), token) for name, one in urls_of.items()))
    return Cluster(_id_of(b"".join(_ID.pack(member.id) for member in members)), members)


def require_advertised(member: Member, peer_urls: Sequence[str]) -> None:
    """Refuse ``--initial-advertise-peer-urls`` that differ from what the initial cluster says of the member.

    Host names are not resolved: etcd would also take a name and an address of the same host.

    Raises:
        ConfigError: they differ, or one is not a URL.
    """
    advertised = tuple(sorted(_peer_url(url) for url in peer_urls))
    if advertised != member.peer_urls:
        message = (
            f"the initial cluster names {', '.join(member.peer_urls)} for member {member.name!r}, "
            f"its advertised peer URLs are {', '.join(advertised) or 'none'}"
        )
        raise ConfigError(message)


def write_raft_files(data_dir: Path, cluster: Cluster, name: str) -> None:
    """Write WAL and ``.snap`` of a member below ``data_dir/member``, and sync them and their directories.

    Args:
        data_dir: The data directory; its ``member/snap`` may hold the database already.
        cluster: The members.
        name: Name of the member that the directory is for.

    Raises:
        ConfigError: the cluster has no such member.
        NoSpace: the file system is full.
        EtcdError: a file is there already, or cannot be written.
    """
    member = cluster.member(name)
    wal_dir, snap_dir = data_dir / "member" / "wal", data_dir / "member" / "snap"
    try:
        hit("restore.raft")
        for folder in (wal_dir, snap_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        snap_name = f"{TERM:016x}-{len(cluster.members):016x}.snap"
        _write_new(snap_dir / snap_name, encode_snap(cluster), allocate=0)
        _write_new(wal_dir / WAL_NAME, encode_wal(cluster, member), allocate=WAL_SIZE)
        for folder in (wal_dir, snap_dir, wal_dir.parent, data_dir):
            _sync_directory(folder)
    except OSError as error:
        raise storage_error(error, str(data_dir)) from error


def encode_wal(cluster: Cluster, member: Member) -> bytes:
    """Write the start of a member's WAL; zeros follow."""
    wal = _Wal()
    commit = len(cluster.members)
    wal.add(_CRC, None)
    wal.add(_METADATA, encode_number(1, member.id) + encode_number(2, cluster.id))
    wal.add(_SNAPSHOT, encode_number(1, 0) + encode_number(2, 0))
    for index, each in enumerate(cluster.members, 1):
        change = (encode_number(1, 0), encode_number(2, _ADD_NODE), encode_number(3, each.id))
        entry = (encode_number(1, _CONF_CHANGE), encode_number(2, TERM), encode_number(3, index))
        wal.add(_ENTRY, b"".join((*entry, encode_bytes(4, b"".join((*change, encode_bytes(4, each.encode())))))))
    wal.add(_STATE, encode_number(1, TERM) + encode_number(2, cluster.members[0].id) + encode_number(3, commit))
    snapshot = (encode_number(1, commit), encode_number(2, TERM), encode_bytes(3, _conf_state(cluster)))
    wal.add(_SNAPSHOT, b"".join(snapshot))
    return b"".join(wal.frames)


def encode_snap(cluster: Cluster) -> bytes:
    """Write the ``.snap`` file."""
    metadata = (encode_bytes(1, _conf_state(cluster)), encode_number(2, len(cluster.members)), encode_number(3, TERM))
    snapshot = encode_bytes(1, _v2_store(cluster)) + encode_bytes(2, b"".join(metadata))
    return encode_number(1, extend(0, snapshot)) + encode_bytes(2, snapshot)


class _Wal:
    """Frames of a WAL: a length whose top byte tells the padding to eight bytes, and a record with a rolling CRC."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self._crc = 0

    def add(self, kind: int, data: bytes | None) -> None:
        if data is not None:
            self._crc = extend(self._crc, data)
        record = encode_number(1, kind) + encode_number(2, self._crc)
        record += b"" if data is None else encode_bytes(3, data)
        padding = -len(record) % _FRAME.size
        length = len(record) | ((_PADDED | padding) << 56 if padding else 0)
        self.frames.append(_FRAME.pack(length) + record + bytes(padding))


def _conf_state(cluster: Cluster) -> bytes:
    auto_leave = encode_number(5, 0)
    return b"".join(encode_number(1, member.id) for member in cluster.members) + auto_leave


def _v2_store(cluster: Cluster) -> bytes:
    """Write etcd's v2 store, which nobody reads but which holds the members for old versions."""
    members: dict[str, object] = {}
    events: list[object] = []
    for index, member in enumerate(cluster.members, 1):
        path = f"/0/members/{member.hex_id}"
        attributes_path = f"{path}/raftAttributes"
        attributes = _json({"peerURLs": list(member.peer_urls)}).decode()
        children: dict[str, object] = {"raftAttributes": _v2_node(attributes_path, index, attributes, None)}
        members[member.hex_id] = _v2_node(path, index, "", children)
        node = {"key": attributes_path, "value": attributes, "modifiedIndex": index, "createdIndex": index}
        events.append({"action": "create", "node": node})
    count = len(events)
    roots: dict[str, object] = {
        "0": _v2_node("/0", 0, "", {"members": _v2_node("/0/members", 1, "", dict(sorted(members.items())))}),
        "1": _v2_node("/1", 0, "", {}),
    }
    queue = {
        "Events": events + [None] * (_HISTORY_SIZE - count),
        "Size": count,
        "Front": 0,
        "Back": count,
        "Capacity": _HISTORY_SIZE,
    }
    return _json({
        "Root": _v2_node("/", 0, "", roots),
        "WatcherHub": {"EventHistory": {"Queue": queue, "StartIndex": 1, "LastIndex": count}},
        "CurrentIndex": count,
        "Stats": {counter: count if counter == "createSuccess" else 0 for counter in _STORE_COUNTERS},
        "CurrentVersion": 2,
    })  # fmt: skip


def _v2_node(path: str, index: int, value: str, children: dict[str, object] | None) -> dict[str, object]:
    return {
        "Path": path,
        "CreatedIndex": index,
        "ModifiedIndex": index,
        "ExpireTime": _ZERO_TIME,
        "Value": value,
        "Children": children,
    }


def _json(value: object) -> bytes:
    """Write JSON as Go's encoding/json does: no white space, UTF-8, and what HTML could misread escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


def _member(name: str, urls: tuple[str, ...], token: str) -> Member:
    return Member(_id_of(("".join(urls) + token).encode()), name, urls)


def _id_of(data: bytes) -> int:
    # Not for security: etcd takes the first eight bytes of a SHA-1 as an id.
    return int.from_bytes(hashlib.sha1(data, usedforsecurity=False).digest()[: _ID.size], "big")


def _peer_url(text: str) -> str:
    url = text.strip()
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        message = f"{url!r} is not a peer URL: {error}"
        raise ConfigError(message) from error
    if parts.username is not None:
        message = "a peer URL must not hold a user name"
        raise ConfigError(message)
    if parts.scheme in {"unix", "unixs"} and (parts.netloc or parts.path):
        return url
    if parts.scheme not in {"http", "https"} or port is None:
        message = f"{url!r} is not a peer URL: write for example http://127.0.0.1:2380"
        raise ConfigError(message)
    if parts.path or parts.query or parts.fragment:
        message = f"{url!r} is not a peer URL: nothing may follow the port"
        raise ConfigError(message)
    return url


def _write_new(path: Path, content: bytes, *, allocate: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if allocate:
            os.posix_fallocate(fd, 0, allocate)
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
