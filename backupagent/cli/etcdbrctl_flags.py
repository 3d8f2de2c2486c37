"""The peer's flags as data: every one that its ``server``, ``copy`` and ``restore`` accept, and what it means here.

Source of names and defaults: etcd-backup-restore, cmd/ and pkg/types at debd95b.
"""

from collections.abc import Mapping
from dataclasses import replace

from backupagent.cli.pflag import Flag, Kind, Use

_T, _N, _C, _B, _D, _L, _R = Kind.TEXT, Kind.NUMBER, Kind.COUNT, Kind.BOOL, Kind.DURATION, Kind.LIST, Kind.REPEATED
_IDLE, _REFUSED = Use.IDLE, Use.REFUSED

_NO_REPLAY = "deltas are written into the database, no etcd is run for them"
_NO_SPOOL = "nothing is spooled to a disk"
_OWN_PARTS = "parts are sized and moved by our own rules"
_LATER = "not in this version"

ETCD = (
    Flag("endpoints", _L, "http://127.0.0.1:2379", short="e"),
    Flag("service-endpoints", _L, "", _IDLE, "the local member is asked for everything"),
    Flag("etcd-username", _T, ""),
    Flag(
        "etcd-password",
        _T,
        "",
        _REFUSED,
        "a command line is seen by everybody: name a file by BACKUPAGENT_PASSWORD_FILE",
    ),
    Flag("etcd-connection-timeout", _D, "30s"),
    Flag("etcd-snapshot-timeout", _D, "15m0s", _IDLE, "a stream has no deadline, only one for silence"),
    Flag("etcd-defrag-timeout", _D, "8m0s", _IDLE, "no defragmentation in this version"),
    Flag("insecure-transport", _B, "true", _IDLE, "the scheme of the endpoint decides"),
    Flag("insecure-skip-tls-verify", _B, "true", _IDLE, "a certificate is always verified"),
    Flag("cert", _T, ""),
    Flag("key", _T, ""),
    Flag("cacert", _T, ""),
)

SNAPSHOTS = (
    Flag("schedule", _T, "0 */1 * * *", short="s"),
    Flag("delta-snapshot-period", _D, "20s"),
    Flag("delta-snapshot-memory-limit", _C, "10485760", _IDLE, "a delta is cut at 10 MiB"),
    Flag("garbage-collection-period", _D, "1m0s", _IDLE, "nothing is deleted in this version"),
    Flag("garbage-collection-policy", _T, "Exponential", _IDLE, "nothing is deleted in this version"),
    Flag("max-backups", _C, "7", _IDLE, "nothing is deleted in this version", short="m"),
    Flag("delta-snapshot-retention-period", _D, "0s", _IDLE, "nothing is deleted in this version"),
)


def store_flags(prefix: str = "") -> tuple[Flag, ...]:
    """Return the flags of one store; ``source-`` and ``secondary-`` stand before the names of others."""
    return (
        Flag(f"{prefix}storage-provider", _T, ""),
        Flag(f"{prefix}store-container", _T, ""),
        Flag(f"{prefix}store-prefix", _T, ""),
        Flag(f"{prefix}store-endpoint-override", _T, ""),
        Flag(f"{prefix}max-parallel-chunk-uploads", _C, "5", _IDLE, _OWN_PARTS),
        Flag(f"{prefix}min-chunk-size", _N, "5242880", _IDLE, _OWN_PARTS),
        Flag(f"{prefix}snapstore-temp-directory", _T, "/tmp", _IDLE, _NO_SPOOL),  # noqa: S108 - never used
    )


COMPRESSION = (Flag("compress-snapshots", _B, "true"), Flag("compression-policy", _T, "gzip"))

RESTORATION = (
    Flag("data-dir", _T, "default.etcd", short="d"),
    Flag("restoration-temp-snapshots-dir", _T, "default.restoration.tmp", _IDLE, _NO_SPOOL),
    Flag("name", _T, "default"),
    Flag("initial-cluster", _T, "default=http://localhost:2380"),
    Flag("initial-cluster-token", _T, "etcd-cluster"),
    Flag("initial-advertise-peer-urls", _R, "http://localhost:2380"),
    Flag("skip-hash-check", _B, "false", _REFUSED, "a database without its digest proves nothing; " + _LATER),
    Flag("max-fetchers", _C, "6", _IDLE, _OWN_PARTS),
    Flag("max-call-send-message-size", _N, "10485760", _IDLE, _NO_REPLAY),
    Flag("max-request-bytes", _C, "10485760", _IDLE, _NO_REPLAY),
    Flag("max-txn-ops", _C, "10240", _IDLE, _NO_REPLAY),
    Flag("embedded-etcd-quota-bytes", _N, "8589934592", _IDLE, _NO_REPLAY),
    Flag("auto-compaction-mode", _T, "periodic", _IDLE, _NO_REPLAY),
    Flag("auto-compaction-retention", _T, "30m", _IDLE, _NO_REPLAY),
)

HEALTH = (
    Flag("enable-snapshot-lease-renewal", _B, "false"),
    Flag("enable-member-lease-renewal", _B, "false"),
    Flag("k8s-heartbeat-duration", _D, "30s"),
    Flag("full-snapshot-lease-name", _T, "full-snapshot-revisions"),
    Flag("delta-snapshot-lease-name", _T, "delta-snapshot-revisions"),
)

_MEMBERSHIP = ("name", "initial-cluster", "initial-cluster-token", "initial-advertise-peer-urls")

INITIALIZATION = tuple(
    replace(flag, use=_IDLE, note="etcd's configuration file says it") if flag.name in _MEMBERSHIP else flag
    for flag in RESTORATION
)
"""The same flags where the sidecar restores."""

_ONE_MEMBER = "this version serves one member"
LEADER_ELECTION = (
    Flag("reelection-period", _D, "5s", _IDLE, _ONE_MEMBER),
    Flag("etcd-connection-timeout-leader-election", _D, "5s", _IDLE, _ONE_MEMBER),
)

BACKOFF = (
    Flag("backoff-multiplier", _C, "2", _IDLE, "pauses double"),
    Flag("backoff-attempt-limit", _C, "6", _IDLE, "pauses end at 128 s"),
    Flag("backoff-threshold-time", _D, "2m8s", _IDLE, "pauses end at 128 s"),
)

SECONDARY = (
    Flag("secondary-backup-sync-enabled", _B, "false", _REFUSED, _LATER),
    Flag("secondary-backup-sync-period", _D, "1h0m0s", _IDLE, "no second store in this version"),
    *(
        Flag(flag.name, flag.kind, flag.default, _IDLE, "no second store in this version")
        for flag in store_flags("secondary-")
    ),
)

SERVER = (
    *ETCD,
    *SNAPSHOTS,
    *store_flags(),
    *COMPRESSION,
    *INITIALIZATION,
    *HEALTH,
    *LEADER_ELECTION,
    *BACKOFF,
    *SECONDARY,
    Flag("config-file", _T, "", _REFUSED, _LATER + ": give flags"),
    Flag("log-level", _C, "4", _IDLE, "what matters is logged"),
    Flag("server-port", _C, "8080", short="p"),
    Flag("server-cert", _T, ""),
    Flag("server-key", _T, ""),
    Flag("enable-profiling", _B, "false", _IDLE, "there is no profiler"),
    Flag("use-etcd-wrapper", _B, "false", _IDLE, "the wrapper's protocol is always spoken"),
    Flag("defragmentation-schedule", _T, "0 0 */3 * *", _IDLE, "no defragmentation in this version"),
)

COPY = (
    *store_flags(),
    *store_flags("source-"),
    Flag("max-backups-to-copy", _N, "-1"),
    Flag("max-backup-age", _N, "-1"),
    Flag("max-parallel-copy-operations", _N, "10", _IDLE, _OWN_PARTS),
    Flag("wait-for-final-snapshot", _B, "false"),
    Flag("wait-for-final-snapshot-timeout", _D, "0s"),
)

RESTORE = (*RESTORATION, *store_flags())

COMMANDS: Mapping[str, tuple[Flag, ...]] = {"server": SERVER, "copy": COPY, "restore": RESTORE}
"""The commands of this version, with every flag that the peer's command accepts."""

OTHER_COMMANDS: Mapping[str, str] = {
    "snapshot": "backupagent snapshot takes one; server takes them by a schedule",
    "initialize": "server initializes, and restore makes a data directory",
    "compact": "nothing is compacted in this version",
}
"""Commands of the peer that are not in this version, and what there is instead."""
