"""The peer's flags as data, and its rules for reading them.

Source of names, defaults and rules: etcd-backup-restore, cmd/ and pkg/types at debd95b; spf13/pflag.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from backupagent.errors import BackupAgentError
from backupagent.units import parse_duration


class Kind(Enum):
    """How the text of a flag is read."""

    TEXT = "string"
    NUMBER = "int"
    BOOL = "bool"
    DURATION = "duration"
    LIST = "strings"
    REPEATED = "stringArray"


class Use(Enum):
    """What a flag means here."""

    HONOURED = "honoured"
    IDLE = "accepted, without meaning here"
    REFUSED = "refused when it asks for something"


@dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        name: Without dashes.
        kind: How its text is read.
        default: Its default, as text.
        use: What it means here.
        note: Why it has no meaning, or why it is refused.
        short: Its letter, or empty.
    """

    name: str
    kind: Kind
    default: str
    use: Use = Use.HONOURED
    note: str = ""
    short: str = ""


class UsageError(BackupAgentError):
    """The command line is wrong; said as the peer says it, with exit status 1.

    Args:
        message: What is wrong.
    """

    default_hint = "see docs/etcdbrctl.md for what is honoured, accepted and refused"

    def __init__(self, message: str) -> None:
        super().__init__(message)


_T, _N, _B, _D, _L, _R = Kind.TEXT, Kind.NUMBER, Kind.BOOL, Kind.DURATION, Kind.LIST, Kind.REPEATED
_IDLE, _REFUSED = Use.IDLE, Use.REFUSED

_NO_REPLAY = "deltas are written into the database, no etcd is run for them"
_NO_SPOOL = "nothing is spooled to a disk"
_OWN_PARTS = "parts are sized and moved by our own rules"
_LATER = "not in this version"

ETCD = (
    Flag("endpoints", _L, "http://127.0.0.1:2379", short="e"),
    Flag("service-endpoints", _L, "", _IDLE, "the local member is asked for everything"),
    Flag("etcd-username", _T, ""),
    Flag("etcd-password", _T, "", _REFUSED, "a password on a command line is seen by everybody; " + _LATER),
    Flag("etcd-connection-timeout", _D, "30s"),
    Flag("etcd-snapshot-timeout", _D, "15m0s", _IDLE, "a stream has no deadline, only one for silence"),
    Flag("etcd-defrag-timeout", _D, "8m0s", _IDLE, "no defragmentation in this version"),
    Flag("insecure-transport", _B, "true", _IDLE, "the scheme of the endpoint decides"),
    Flag("insecure-skip-tls-verify", _B, "true", _IDLE, "certificates are always verified"),
    Flag("cert", _T, ""),
    Flag("key", _T, ""),
    Flag("cacert", _T, ""),
)

SNAPSHOTS = (
    Flag("schedule", _T, "0 */1 * * *", short="s"),
    Flag("delta-snapshot-period", _D, "20s"),
    Flag("delta-snapshot-memory-limit", _N, "10485760", _IDLE, "a delta is cut at 10 MiB"),
    Flag("garbage-collection-period", _D, "1m0s", _IDLE, "nothing is deleted in this version"),
    Flag("garbage-collection-policy", _T, "Exponential", _IDLE, "nothing is deleted in this version"),
    Flag("max-backups", _N, "7", _IDLE, "nothing is deleted in this version", short="m"),
    Flag("delta-snapshot-retention-period", _D, "0s", _IDLE, "nothing is deleted in this version"),
)


def store_flags(prefix: str = "") -> tuple[Flag, ...]:
    """Return the flags of one store; ``source-`` and ``secondary-`` stand before the names of others."""
    return (
        Flag(f"{prefix}storage-provider", _T, ""),
        Flag(f"{prefix}store-container", _T, ""),
        Flag(f"{prefix}store-prefix", _T, ""),
        Flag(f"{prefix}store-endpoint-override", _T, ""),
        Flag(f"{prefix}max-parallel-chunk-uploads", _N, "5", _IDLE, _OWN_PARTS),
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
    Flag("max-fetchers", _N, "6", _IDLE, _OWN_PARTS),
    Flag("max-call-send-message-size", _N, "10485760", _IDLE, _NO_REPLAY),
    Flag("max-request-bytes", _N, "10485760", _IDLE, _NO_REPLAY),
    Flag("max-txn-ops", _N, "10240", _IDLE, _NO_REPLAY),
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

_ONE_MEMBER = "this version serves one member"
LEADER_ELECTION = (
    Flag("reelection-period", _D, "5s", _IDLE, _ONE_MEMBER),
    Flag("etcd-connection-timeout-leader-election", _D, "5s", _IDLE, _ONE_MEMBER),
)

BACKOFF = (
    Flag("backoff-multiplier", _N, "2", _IDLE, "pauses double"),
    Flag("backoff-attempt-limit", _N, "6", _IDLE, "pauses end at 128 s"),
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
    *RESTORATION,
    *HEALTH,
    *LEADER_ELECTION,
    *BACKOFF,
    *SECONDARY,
    Flag("config-file", _T, "", _REFUSED, _LATER + ": give flags"),
    Flag("log-level", _N, "4", _IDLE, "what matters is logged"),
    Flag("server-port", _N, "8080", short="p"),
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

_TRUE, _FALSE = {"1", "t", "T", "TRUE", "true", "True"}, {"0", "f", "F", "FALSE", "false", "False"}


@dataclass(frozen=True)
class Given:
    """The flags of one command line.

    Attributes:
        flags: All flags of the command, by name.
        texts: What was given, by name; several texts for a flag that may be repeated.
    """

    flags: Mapping[str, Flag]
    texts: Mapping[str, tuple[str, ...]]

    def text(self, name: str) -> str:
        """Return a flag's text; the last one counts."""
        return self.texts[name][-1] if name in self.texts else self.flags[name].default

    def number(self, name: str) -> int:
        """Return a whole number."""
        return int(self.text(name))

    def flag(self, name: str) -> bool:
        """Return a truth."""
        return self.text(name) in _TRUE

    def seconds(self, name: str) -> float:
        """Return a duration in seconds."""
        return parse_duration(self.text(name))

    def list(self, name: str) -> tuple[str, ...]:
        """Return the elements of a list."""
        texts = self.texts.get(name, (self.flags[name].default,))
        separate = self.flags[name].kind is Kind.LIST
        return tuple(part for text in texts for part in (text.split(",") if separate else [text]) if part)


def read_flags(flags: Sequence[Flag], arguments: Sequence[str]) -> Given:
    """Read a command's arguments by pflag's rules.

    ``--flag=value``, ``--flag value``, ``-f value``, ``-fvalue``, ``-f=value``; a truth needs no value and takes one
    only after ``=``.

    Raises:
        UsageError: a flag is unknown, lacks its value, has one that cannot be read, or asks for what is refused here.
    """
    by_name = {flag.name: flag for flag in flags}
    by_letter = {flag.short: flag for flag in flags if flag.short}
    texts: dict[str, tuple[str, ...]] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        flag, value = _split(word, by_name, by_letter)
        if value is None and flag.kind is Kind.BOOL:
            value = "true"
        elif value is None:
            if not rest:
                raise UsageError(f"flag needs an argument: {word}")
            value = rest.pop(0)
        _check(flag, value)
        texts[flag.name] = (*texts.get(flag.name, ()), value)
    return Given(by_name, texts)


def _split(word: str, by_name: Mapping[str, Flag], by_letter: Mapping[str, Flag]) -> tuple[Flag, str | None]:
    """Return the flag that a word names, and the value behind it, if any."""
    if word.startswith("--") and len(word) > len("--"):
        name, equals, value = word[2:].partition("=")
        if name not in by_name:
            raise UsageError(f"unknown flag: --{name}")
        return by_name[name], value if equals else None
    if word.startswith("-") and len(word) > 1:
        letter, value = word[1], word[2:]
        if letter not in by_letter:
            raise UsageError(f"unknown shorthand flag: {letter!r} in {word}")
        return by_letter[letter], value.removeprefix("=") or None
    raise UsageError(f"unexpected argument {word!r}")


def _check(flag: Flag, value: str) -> None:
    try:
        if flag.kind is Kind.NUMBER:
            int(value)
        elif flag.kind is Kind.DURATION:
            parse_duration(value)
        elif flag.kind is Kind.BOOL and value not in _TRUE | _FALSE:
            raise UsageError(f'invalid argument "{value}" for "--{flag.name}" flag: not a truth value')
    except ValueError as error:
        raise UsageError(f'invalid argument "{value}" for "--{flag.name}" flag: {error}') from error
    if flag.use is Use.REFUSED and value and value not in _FALSE:
        raise UsageError(f"--{flag.name}: {flag.note}")
