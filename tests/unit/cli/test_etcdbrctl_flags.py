"""The peer's flags, each written out from its reference, and the rules by which they are read."""

import pytest

from backupagent.cli.etcdbrctl_flags import COMMANDS, OTHER_COMMANDS
from backupagent.cli.pflag import Flag, Kind, UsageError, Use, read_flags
from backupagent.errors import ConfigError


def flags_of(table: str) -> set[tuple[str, str, str, str]]:
    """Read rows of name, type, letter or -, default as the rest of the line."""
    rows = ([*line.split(maxsplit=3), ""] for line in table.splitlines() if line)
    return {(row[0], row[1], row[2].strip("-"), row[3]) for row in rows}


# Source: etcd-backup-restore debd95b, `etcdbrctl COMMAND --help` and cmd/: name, type, letter, default.
STORE = """
{0}storage-provider            string    -
{0}store-container             string    -
{0}store-prefix                string    -
{0}store-endpoint-override     string    -
{0}max-parallel-chunk-uploads  uint      -  5
{0}min-chunk-size              int       -  5242880
{0}snapstore-temp-directory    string    -  /tmp
"""
RESTORATION = """
data-dir                        string       d  default.etcd
restoration-temp-snapshots-dir  string       -  default.restoration.tmp
name                            string       -  default
initial-cluster                 string       -  default=http://localhost:2380
initial-cluster-token           string       -  etcd-cluster
initial-advertise-peer-urls     stringArray  -  http://localhost:2380
skip-hash-check                 bool         -  false
max-fetchers                    uint         -  6
max-call-send-message-size      int          -  10485760
max-request-bytes               uint         -  10485760
max-txn-ops                     uint         -  10240
embedded-etcd-quota-bytes       int          -  8589934592
auto-compaction-mode            string       -  periodic
auto-compaction-retention       string       -  30m
"""
SERVER = """
endpoints                                 strings   e  http://127.0.0.1:2379
service-endpoints                         strings   -
etcd-username                             string    -
etcd-password                             string    -
etcd-connection-timeout                   duration  -  30s
etcd-snapshot-timeout                     duration  -  15m0s
etcd-defrag-timeout                       duration  -  8m0s
insecure-transport                        bool      -  true
insecure-skip-tls-verify                  bool      -  true
cert                                      string    -
key                                       string    -
cacert                                    string    -
schedule                                  string    s  0 */1 * * *
delta-snapshot-period                     duration  -  20s
delta-snapshot-memory-limit               uint      -  10485760
garbage-collection-period                 duration  -  1m0s
garbage-collection-policy                 string    -  Exponential
max-backups                               uint      m  7
delta-snapshot-retention-period           duration  -  0s
compress-snapshots                        bool      -  true
compression-policy                        string    -  gzip
enable-snapshot-lease-renewal             bool      -  false
enable-member-lease-renewal               bool      -  false
k8s-heartbeat-duration                    duration  -  30s
full-snapshot-lease-name                  string    -  full-snapshot-revisions
delta-snapshot-lease-name                 string    -  delta-snapshot-revisions
reelection-period                         duration  -  5s
etcd-connection-timeout-leader-election   duration  -  5s
backoff-multiplier                        uint      -  2
backoff-attempt-limit                     uint      -  6
backoff-threshold-time                    duration  -  2m8s
secondary-backup-sync-enabled             bool      -  false
secondary-backup-sync-period              duration  -  1h0m0s
config-file                               string    -
log-level                                 uint      -  4
server-port                               uint      p  8080
server-cert                               string    -
server-key                                string    -
enable-profiling                          bool      -  false
use-etcd-wrapper                          bool      -  false
defragmentation-schedule                  string    -  0 0 */3 * *
"""
COPY = """
max-backups-to-copy              int       -  -1
max-backup-age                   int       -  -1
max-parallel-copy-operations     int       -  10
wait-for-final-snapshot          bool      -  false
wait-for-final-snapshot-timeout  duration  -  0s
"""
PEER = {
    "server": flags_of(SERVER + STORE.format("") + STORE.format("secondary-") + RESTORATION),
    "copy": flags_of(COPY + STORE.format("") + STORE.format("source-")),
    "restore": flags_of(RESTORATION + STORE.format("")),
}
EXAMPLES = {
    Kind.TEXT: "some text",
    Kind.NUMBER: "-12",
    Kind.COUNT: "12",
    Kind.BOOL: "false",
    Kind.DURATION: "1h2m3s",
    Kind.LIST: "http://a:1,http://b:2",
    Kind.REPEATED: "http://a:1,http://b:2",
}
EVERY_FLAG = [
    pytest.param(command, flag, id=f"{command} {flag.name}") for command in COMMANDS for flag in COMMANDS[command]
]


def read(command: str, *arguments: str):
    return read_flags(COMMANDS[command], arguments)


@pytest.mark.parametrize("command", PEER)
def test_a_command_has_the_peers_flags_with_their_types_letters_and_defaults(command: str) -> None:
    ours = [(flag.name, flag.kind.value, flag.short, flag.default) for flag in COMMANDS[command]]
    assert len(ours) == len(set(ours))
    assert set(ours) == PEER[command]


def test_the_peers_commands_are_known() -> None:
    assert {*COMMANDS, *OTHER_COMMANDS} == {"server", "copy", "restore", "snapshot", "initialize", "compact"}


@pytest.mark.parametrize(("command", "flag"), EVERY_FLAG)
def test_every_flag_is_read_in_every_form_or_refused_by_name(command: str, flag: Flag) -> None:
    value = EXAMPLES[flag.kind]
    forms = [[f"--{flag.name}={value}"]]
    if flag.kind is not Kind.BOOL:
        forms += [[f"--{flag.name}", value]]
    if flag.short:
        forms += [[f"-{flag.short}", value], [f"-{flag.short}{value}"], [f"-{flag.short}={value}"]]
    for form in forms:
        if flag.use is Use.REFUSED and flag.kind is not Kind.BOOL:
            with pytest.raises(ConfigError, match=rf"^--{flag.name}\b"):
                read(command, *form)
        else:
            assert read(command, *form).text(flag.name) == value
    assert flag.note or flag.use is Use.HONOURED


@pytest.mark.parametrize(("command", "flag"), EVERY_FLAG)
def test_every_default_can_be_given_and_read(command: str, flag: Flag) -> None:
    given = read(command, f"--{flag.name}={flag.default}")
    values = {
        Kind.NUMBER: given.number,
        Kind.COUNT: given.number,
        Kind.DURATION: given.seconds,
        Kind.LIST: given.list,
        Kind.REPEATED: given.list,
        Kind.BOOL: given.flag,
        Kind.TEXT: given.text,
    }
    assert values[flag.kind](flag.name) is not None
    assert given.text(flag.name) == read(command).text(flag.name)


# ---- pflag's rules


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], False),
        (["--wait-for-final-snapshot"], True),
        *[([f"--wait-for-final-snapshot={word}"], True) for word in ("1", "t", "T", "TRUE", "true", "True")],
        *[([f"--wait-for-final-snapshot={word}"], False) for word in ("0", "f", "F", "FALSE", "false", "False")],
        (["--wait-for-final-snapshot", "--wait-for-final-snapshot=false"], False),
        (["--wait-for-final-snapshot=false", "--wait-for-final-snapshot"], True),
    ],
)
def test_a_truth(words: list[str], expected: bool) -> None:
    assert read("copy", *words).flag("wait-for-final-snapshot") is expected


def test_the_last_one_counts_and_a_value_may_look_like_a_flag_or_be_empty() -> None:
    given = read("restore", "--name=a", "--name", "--name=b", "-d", "-x", "--store-prefix=", "--")
    assert given.text("name") == "--name=b"
    assert given.text("data-dir") == "-x"
    assert given.text("store-prefix") == ""


def test_an_equals_sign_of_a_letter_without_a_value_is_the_value() -> None:
    assert read("restore", "-d=").text("data-dir") == "="  # so it is in pflag


def test_lists_are_separated_by_commas_and_add_up_while_arrays_take_each_text_whole() -> None:
    given = read("server", "-ehttp://a:1,http://b:2", '--endpoints="http://c,d",http://e')
    assert given.list("endpoints") == ("http://a:1", "http://b:2", "http://c,d", "http://e")
    given = read("restore", "--initial-advertise-peer-urls=http://a,b", "--initial-advertise-peer-urls", "http://c")
    assert given.list("initial-advertise-peer-urls") == ("http://a,b", "http://c")
    assert read("server").list("endpoints") == ("http://127.0.0.1:2379",)
    assert read("server", "--endpoints=").list("endpoints") == ()


@pytest.mark.parametrize(
    ("text", "number"), [("0x10", 16), ("010", 8), ("0o17", 15), ("0b11", 3), ("1_000", 1000), ("-3", -3), ("+3", 3)]
)
def test_numbers_are_read_as_go_reads_them(text: str, number: int) -> None:
    assert read("copy", f"--max-backup-age={text}").number("max-backup-age") == number


def test_durations_are_gos() -> None:
    given = read("copy", "--wait-for-final-snapshot-timeout", "1h0m2.5s")
    assert given.seconds("wait-for-final-snapshot-timeout") == 3602.5


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["--help=true"], ["-hh"], ["-h", "--config-file=x"]])
def test_help_comes_before_what_is_refused(words: list[str]) -> None:
    assert read("server", *words).flag("help")


def test_help_as_a_value_is_no_call_for_help() -> None:
    assert not read("restore", "--name", "-h").flag("help")
    assert not read("restore", "--help=false").flag("help")


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("copy", ["--frob"], "unknown flag: --frob"),
        ("copy", ["--schedule=x"], "unknown flag: --schedule"),
        ("copy", ["-x"], "unknown shorthand flag: 'x' in -x"),
        ("copy", ["-hx"], "unknown shorthand flag: 'x' in -x"),
        ("copy", ["---a"], "bad flag syntax: ---a"),
        ("copy", ["--=a"], "bad flag syntax: --=a"),
        ("copy", ["--max-backups-to-copy"], "flag needs an argument: --max-backups-to-copy"),
        ("server", ["-p"], "flag needs an argument: 'p' in -p"),
        ("server", ["-px"], 'invalid argument "x" for "-p, --server-port" flag'),
        ("server", ["-p=-1"], 'invalid argument "-1" for "-p, --server-port" flag'),
        ("restore", ["--max-fetchers=-1"], 'invalid argument "-1" for "--max-fetchers" flag'),
        *[
            ("copy", [f"--max-backup-age={text}"], "invalid argument")
            for text in ("", "x", "1.5", " 5", "٣", "0x", "08")
        ],
        ("copy", ["--max-backup-age=9223372036854775808"], "does not fit"),
        ("copy", ["--wait-for-final-snapshot-timeout=5"], 'invalid argument "5"'),
        ("copy", ["--wait-for-final-snapshot-timeout=-5s"], 'invalid argument "-5s"'),
        ("copy", ["--wait-for-final-snapshot=maybe"], 'invalid argument "maybe"'),
        ("copy", ["--wait-for-final-snapshot="], 'invalid argument ""'),
        ("server", ['--endpoints="http://a'], "invalid argument"),
        # The peer passes over these words, and so does the opposite of what was asked for.
        ("copy", ["--wait-for-final-snapshot", "false"], 'unexpected argument "false"'),
        ("copy", ["-"], 'unexpected argument "-"'),
        ("copy", ["--", "--help"], 'unexpected argument "--help"'),
    ],
)
def test_what_cannot_be_read_is_told_as_pflag_tells_it(command: str, words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(command, *words)
    assert message in str(refused.value)
    assert refused.value.exit_code == 1
    assert "docs/etcdbrctl.md" in refused.value.hint


@pytest.mark.parametrize(
    "words",
    [["--skip-hash-check"], ["--etcd-password=0"], ["--etcd-password", "f"], ["--secondary-backup-sync-enabled=1"]],
)
def test_what_is_refused_is_refused_when_it_asks_for_something(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=words[0].partition("=")[0]):
        read("server", *words)


def test_what_is_refused_may_be_turned_off() -> None:
    read("server", "--skip-hash-check=false", "--etcd-password=", "--secondary-backup-sync-enabled=F", "--config-file=")
    read("restore", "--skip-hash-check", "--skip-hash-check=false")


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as refused:
        read("server", "--etcd-password=hunter2")
    assert "hunter2" not in f"{refused.value} {refused.value.hint}"
