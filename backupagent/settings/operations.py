"""Options of the commands that do one thing and end."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from backupagent.settings.option import option
from backupagent.units import MiB


class OutputFormat(StrEnum):
    """How a command reports: for people, or as one JSON document on stdout."""

    TEXT = "text"
    JSON = "json"


class SnapshotChoice(StrEnum):
    """Which snapshot to take."""

    FULL = "full"
    DELTA = "delta"


class OnMissingFinal(StrEnum):
    """What a copy does when no final snapshot appears in time."""

    ERROR = "error"
    COPY = "copy"


class VerifyMode(StrEnum):
    """How far a copy is checked before it becomes visible."""

    TRANSFER = "transfer"
    TRAILER = "trailer"
    READ_BACK = "read-back"


class LeasePolicy(StrEnum):
    """What a restore does with leases that are first seen in deltas."""

    SYNTHESIZE = "synthesize"
    KEEP = "keep"
    STRIP = "strip"


class ProgressStyle(StrEnum):
    """How running work shows itself on stderr."""

    AUTO = "auto"
    PLAIN = "plain"
    NONE = "none"


class DemoStore(StrEnum):
    """Where the demo keeps its buckets."""

    DIR = "dir"
    MINIO = "minio"


class DemoPlay(StrEnum):
    """What the demo shows."""

    BACKUP = "backup"
    MIGRATION = "migration"


class BenchKind(StrEnum):
    """What is measured."""

    RESTORE = "restore"
    COPY = "copy"


PROCESS_SIZE = 100 * MiB
"""What a process takes beside its buffers: interpreter, SDK, threads, connections, decompression. Measured over a far
link (2026-11-29): 62 MiB with one large object, 83 MiB where gzip is looked into, 95 MiB with eleven large ones."""


@dataclass(frozen=True, kw_only=True)
class TransferSettings:
    """How bytes move. What a transfer holds in memory is (workers + window) x part size."""

    workers: int = option("requests in flight at once; more help on links with a long round trip", default=8, minimum=1)
    window: int = option(
        "parts that may wait for a slow one, since digests need order; memory is (workers + window) x part size",
        default=4,
        minimum=1,
    )
    part_size: int = option(
        "size of a part of a large object; S3 wants at least 5MiB", default=8 * MiB, unit="size", minimum=1
    )

    @property
    def buffers_size(self) -> int:
        """Bytes that a transfer may hold in its buffers."""
        return (self.workers + self.window) * self.part_size


@dataclass(frozen=True, kw_only=True)
class EtcdSettings:
    """How to reach an etcd."""

    endpoints: tuple[str, ...] = option(
        "client URLs of the etcd, comma separated; the first that answers is used", default=("http://127.0.0.1:2379",)
    )
    cacert: Path | None = option("CA certificate (PEM) that the server's must be signed by", default=None)
    cert: Path | None = option("client certificate (PEM)", default=None)
    key: Path | None = option("key of the client certificate (PEM)", default=None)
    user: str = option("user name, when authentication is on", default="")
    password_file: Path | None = option("file that holds the user's password", default=None)
    connect_timeout: float = option("how long to wait for an endpoint", default=30.0, unit="duration")


@dataclass(frozen=True, kw_only=True)
class SnapshotSettings(EtcdSettings, TransferSettings):
    """One snapshot of a running etcd."""

    store: str = option("URI of the store, e.g. s3://bucket/prefix or file:///dir", metavar="URI")
    kind: SnapshotChoice = option(
        "full: the whole database; delta: every event since the newest snapshot",
        default=SnapshotChoice.FULL,
    )
    final: bool = option("mark a full as the last one of this etcd: the caller has stopped all writers", default=False)
    compression: str = option("gzip, zlib, zstd or none; the peer cannot read zstd", default="gzip")
    hash_kv: bool = option("record the source's HashKV in a full's manifest; it is a scan on the server", default=True)


@dataclass(frozen=True, kw_only=True)
class CopySettings(TransferSettings):
    """Snapshots from one store to another."""

    workers: int = option("parts on their way at once; 0 adapts to what is measured, 64 at most", default=0, minimum=0)
    window: int = option("not used: --max-memory is the bound", default=0, hidden=True)
    max_memory: int = option(
        "what the whole process may take; parts wait for each other within it", default=256 * MiB, unit="size"
    )

    source: str = option("URI of the store to copy from; needs List and Get only", metavar="URI")
    target: str = option("URI of the store to copy to", metavar="URI")
    newest_chain_only: bool = option("copy only the newest full and its deltas, no older history", default=False)
    max_backups: int = option(
        "copy at most this many fulls with their deltas, newest first; 0 is all", default=0, minimum=0
    )
    max_backup_age: float = option("leave out fulls older than this; 0 is all", default=0.0, unit="duration")
    wait_for_final: float = option(
        "wait at most this long for a final snapshot to appear in the source; 0 does not wait",
        default=0.0,
        unit="duration",
    )
    on_missing_final: OnMissingFinal = option(
        "when none appeared: error, or copy what is there and say which revisions that gives up",
        default=OnMissingFinal.ERROR,
    )
    follow: bool = option(
        "go on copying what the source gets, until a signal comes: the target stays in step; nothing is deleted there",
        default=False,
    )
    follow_interval: float = option("how often the source is listed with --follow", default=5.0, unit="duration")
    until_final: bool = option("end a --follow when a final snapshot of the source has been copied", default=False)
    max_bandwidth: int = option(
        "at most so many bytes a second are read from the source, and as many written to the target; 0 is no limit",
        default=0,
        unit="size",
        minimum=0,
    )
    max_requests: int = option(
        "at most so many requests a second to each of the two stores; 0 is no limit", default=0, minimum=0
    )
    server_side_copy: bool = option(
        "where both stores are on one service and the target may read the source, the store copies by itself",
        default=True,
    )
    shard: str = option(
        "copy only the i-th of n shares of the snapshots, from 0: for n processes or the indexes of a Job; together"
        " they copy everything, and any of them may be run again",
        default="",
        metavar="I/N",
    )
    verify: VerifyMode = option(
        "transfer: hash what passes; trailer: also check each snapshot's own sha256; read-back: also read the copy",
        default=VerifyMode.TRAILER,
    )

    @property
    def buffers_size(self) -> int:
        """Bytes that a transfer may hold in its buffers: never less than two parts, or it would not move."""
        return max(2 * self.part_size, self.max_memory - PROCESS_SIZE)


@dataclass(frozen=True, kw_only=True)
class RestoreSettings(TransferSettings):
    """A data directory from a store."""

    # A restore reads ahead only as far as it needs to keep writing; smaller parts keep its peak memory low.
    workers: int = option("requests in flight at once", default=4, minimum=1)
    window: int = option("parts read ahead of the one that is written", default=2, minimum=1)
    part_size: int = option("size of a ranged read", default=4 * MiB, unit="size", minimum=1)
    store: str = option("URI of the store to restore from", metavar="URI")
    data_dir: Path = option("directory to make; it must not exist, or be empty")
    name: str = option("name of this member", default="default")
    initial_cluster: str = option(
        "all members as NAME=PEER_URL, comma separated", default="default=http://localhost:2380"
    )
    initial_cluster_token: str = option("token of the new cluster", default="etcd-cluster")
    initial_advertise_peer_urls: str = option(
        "this member's peer URLs, comma separated; the default is what --initial-cluster says", default=""
    )
    leases: LeasePolicy = option(
        "leases first seen in deltas: synthesize makes them anew, keep leaves ids without a lease (the key stays"
        " for ever), strip removes the ids as the peer does (HashKV then differs from the source)",
        default=LeasePolicy.SYNTHESIZE,
    )
    lease_ttl: float = option(
        "time to live of a synthesized lease whose granted one is not recorded", default=3600.0, unit="duration"
    )
    hash_compact_revision: int = option(
        "print HashKV as if compacted at this revision; 0 takes the manifest's, else the database's", default=0
    )


@dataclass(frozen=True, kw_only=True)
class ListSettings:
    """What lies in a store."""

    store: str = option("URI of the store", metavar="URI")


@dataclass(frozen=True, kw_only=True)
class VerifySettings(TransferSettings):
    """Whether a store's objects and chains are whole."""

    workers: int = option("requests in flight at once", default=4, minimum=1)
    store: str = option("URI of the store to check", metavar="URI")
    newest_chain_only: bool = option("check only the newest full and its deltas", default=False)


@dataclass(frozen=True, kw_only=True)
class GcSettings:
    """What is removed from a store."""

    store: str = option("URI of the store to clean", metavar="URI")
    incomplete: bool = option(
        "remove what is left of uploads that did not come to their end: open uploads, their parts, journal entries",
        default=False,
    )
    older_than: float = option(
        "only what has given no sign of life for so long; a copy that runs must not lose what it has uploaded",
        default=24 * 3600.0,
        unit="duration",
    )
    dry_run: bool = option("remove nothing, only say what would be removed", default=False)


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    """Stores that are to be checked."""

    source: str = option("URI of a store to copy from: it is listed and read, nothing else", default="", metavar="URI")
    target: str = option(
        "URI of a store to copy to: a small object and a few parts are written and removed again",
        default="",
        metavar="URI",
    )
    sample: int = option(
        "bytes that are read from the source to see how fast it is", default=64 * MiB, unit="size", minimum=1
    )


@dataclass(frozen=True, kw_only=True)
class ReportingSettings:
    """How a command tells what it does and what it did."""

    output: OutputFormat = option(
        "text: a report for people; json: exactly one document on stdout, also when the command fails",
        default=OutputFormat.TEXT,
        short="-o",
    )
    progress: ProgressStyle = option(
        "on stderr; auto: a display on a terminal, log lines otherwise; plain: log lines; none: silence",
        default=ProgressStyle.AUTO,
    )


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """The main job on this machine."""

    play: DemoPlay = option(
        "backup: back up, copy, restore and compare an etcd; migration: move a Shoot between two Seeds, on a real API"
        " server (always with MinIO)",
        default=DemoPlay.BACKUP,
    )
    store: DemoStore = option(
        "where the two buckets lie: dir, two directories; minio, two MinIO servers", default=DemoStore.DIR
    )
    objects: int = option("keys that the demo writes before its first snapshot", default=50_000, minimum=1)
    keep: Path | None = option("keep buckets and data directories in this directory", default=None)


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """Measured runs."""

    kind: BenchKind = option("what to measure", positional=True)
    only: str = option("run only the scenarios whose name matches this glob", default="*")
    runs: int = option("how often each scenario is run; the median counts", default=5, minimum=1)
    json: Path | None = option("write every run to this file as JSON", default=None)
    check: bool = option("fail when a scenario misses its target", default=False)
    quick: bool = option("run tiny scenarios instead, to see that the bench itself works", default=False)
