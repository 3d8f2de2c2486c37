"""What the peer's flags and variables ask of our settings, druid's own words among them."""

from pathlib import Path

import pytest

from backupagent.cli.etcdbrctl_flags import COMMANDS
from backupagent.cli.etcdbrctl_settings import FOREVER_S, copy_settings, restore_settings, server_settings
from backupagent.cli.pflag import read_flags
from backupagent.errors import ConfigError
from backupagent.settings import ApiAuth, CopySettings, OnMissingFinal, RestoreSettings, ServerSettings
from backupagent.stores import Location, parse_location

S3 = ("--storage-provider=S3", "--store-container=to", "--store-prefix=p")
DAY_S = 86400.0

# What etcd-druid at 5b90b4a passes for a copy task, and for a member with TLS and a store; _ stands for a space.
DRUID_COPY = """
copy --snapstore-temp-directory=/home/nonroot/data/tmp
--storage-provider=S3 --store-prefix=shoot--dev--demo--uid/etcd-main --store-container=target-bucket
--store-endpoint-override=http://127.0.0.1:9002
--source-storage-provider=S3 --source-store-prefix=source--uid/etcd-main --source-store-container=source-bucket
--source-store-endpoint-override=http://127.0.0.1:9001
--max-backup-age=7 --max-backups-to-copy=3 --wait-for-final-snapshot=true --wait-for-final-snapshot-timeout=5m0s
"""
DRUID_COPY_VARIABLES = {
    "HOME": "/home/nonroot",
    "STORAGE_CONTAINER": "target-bucket",
    "SOURCE_STORAGE_CONTAINER": "source-bucket",
    "AWS_APPLICATION_CREDENTIALS": "/var/etcd-backup",
    "SOURCE_AWS_APPLICATION_CREDENTIALS": "/var/source-etcd-backup",
}
DRUID_SERVER = """
server --server-port=8080 --enable-snapshot-lease-renewal=true
--full-snapshot-lease-name=etcd-main-full-snap --delta-snapshot-lease-name=etcd-main-delta-snap
--storage-provider=S3 --store-prefix=shoot--dev--demo--uid/etcd-main --schedule=30_1_*_*_*
--delta-snapshot-period=5m0s --delta-snapshot-memory-limit=104857600
--garbage-collection-policy=Exponential --garbage-collection-period=12h0m0s --delta-snapshot-retention-period=360h0m0s
--compress-snapshots=true --compression-policy=gzip --etcd-snapshot-timeout=15m0s
--defragmentation-schedule=0_0_*_*_* --etcd-defrag-timeout=15m --max-backups=7
--auto-compaction-mode=periodic --auto-compaction-retention=30m
--cacert=/var/etcd/ssl/ca/bundle.crt --cert=/var/etcd/ssl/client/tls.crt --key=/var/etcd/ssl/client/tls.key
--insecure-transport=false --insecure-skip-tls-verify=false
--endpoints=https://etcd-main-local:2379 --service-endpoints=https://etcd-main-client:2379
--server-cert=/var/etcdbr/ssl/server/tls.crt --server-key=/var/etcdbr/ssl/server/tls.key
--data-dir=/var/etcd/data/new.etcd --restoration-temp-snapshots-dir=/var/etcd/data/restoration.temp
--snapstore-temp-directory=/var/etcd/data/temp --etcd-connection-timeout=5m --use-etcd-wrapper=true
--enable-member-lease-renewal=true --k8s-heartbeat-duration=10s --embedded-etcd-quota-bytes=8589934592
--enable-profiling=false --reelection-period=5s --etcd-connection-timeout-leader-election=5s
"""


def words_of(text: str) -> list[str]:
    return [word.replace("_", " ") if "schedule=" in word else word for word in text.split()]


def copy(*words: str, **variables: str) -> CopySettings:
    return copy_settings(read_flags(COMMANDS["copy"], words), variables)


def restore(*words: str, **variables: str) -> RestoreSettings:
    return restore_settings(read_flags(COMMANDS["restore"], words), variables)


def server(*words: str, **variables: str) -> ServerSettings:
    return server_settings(read_flags(COMMANDS["server"], words), variables)


def source_of(*words: str, **variables: str) -> Location:
    return parse_location(copy(*S3, *words, **{"SOURCE_STORAGE_CONTAINER": "from"} | variables).source)


# ---- druid


def test_druids_copy() -> None:
    command, *words = words_of(DRUID_COPY)
    assert command == "copy"
    settings = copy(*words, **DRUID_COPY_VARIABLES)
    assert parse_location(settings.target) == Location(
        "s3",
        "target-bucket",
        "shoot--dev--demo--uid/etcd-main",
        {"endpoint": "http://127.0.0.1:9002", "credentials": "/var/etcd-backup"},
    )
    assert parse_location(settings.source) == Location(
        "s3",
        "source-bucket",
        "source--uid/etcd-main",
        {"endpoint": "http://127.0.0.1:9001", "credentials": "/var/source-etcd-backup"},
    )
    assert (settings.max_backups, settings.max_backup_age, settings.wait_for_final) == (3, 7 * DAY_S, 300.0)


def test_druids_server() -> None:
    command, *words = words_of(DRUID_SERVER)
    assert command == "server"
    settings = server(*words, STORAGE_CONTAINER="bucket", AWS_APPLICATION_CREDENTIALS="/var/etcd-backup")
    assert settings == ServerSettings(
        store="s3://bucket/shoot--dev--demo--uid/etcd-main?credentials=%2Fvar%2Fetcd-backup",
        data_dir=Path("/var/etcd/data/new.etcd"),
        endpoints=("https://etcd-main-local:2379",),
        cacert=Path("/var/etcd/ssl/ca/bundle.crt"),
        cert=Path("/var/etcd/ssl/client/tls.crt"),
        key=Path("/var/etcd/ssl/client/tls.key"),
        connect_timeout=300.0,
        port=8080,
        server_cert=Path("/var/etcdbr/ssl/server/tls.crt"),
        server_key=Path("/var/etcdbr/ssl/server/tls.key"),
        api_auth=ApiAuth.OFF,
        schedule="30 1 * * *",
        delta_period=300.0,
        compression="gzip",
        snapshot_leases=True,
        full_lease="etcd-main-full-snap",
        delta_lease="etcd-main-delta-snap",
        member_lease=True,
        heartbeat=10.0,
    )


# ---- stores


def test_the_source_takes_provider_and_prefix_of_the_target_and_nothing_else() -> None:
    settings = copy(*S3, "--store-endpoint-override=http://target", SOURCE_STORAGE_CONTAINER="from")
    assert parse_location(settings.source) == Location("s3", "from", "p")
    assert parse_location(settings.target) == Location("s3", "to", "p", {"endpoint": "http://target"})


def test_what_the_source_names_itself_comes_first() -> None:
    words = ("--source-storage-provider=GCS", "--source-store-prefix=q", "--source-store-container=flag")
    location = source_of(*words, "--source-store-endpoint-override=http://emulator")
    assert location == Location("gs", "flag", "q", {"endpoint": "http://emulator"})


def test_the_sources_container_is_not_the_targets() -> None:
    with pytest.raises(ConfigError, match="container name not specified"):
        copy(*S3, STORAGE_CONTAINER="to")


def test_a_containers_flag_comes_before_its_variable() -> None:
    assert parse_location(restore(*S3, STORAGE_CONTAINER="variable").store).bucket == "to"
    assert parse_location(restore("--storage-provider=S3", STORAGE_CONTAINER="variable").store).bucket == "variable"


@pytest.mark.parametrize(
    ("provider", "variables", "expected"),
    [
        ("S3", {"AWS_APPLICATION_CREDENTIALS": "/dir"}, "/dir"),
        ("S3", {"AWS_APPLICATION_CREDENTIALS": "/dir", "AWS_APPLICATION_CREDENTIALS_JSON": "/file"}, "/file"),
        ("ABS", {"AZURE_APPLICATION_CREDENTIALS": "/dir", "AWS_APPLICATION_CREDENTIALS": "/other"}, "/dir"),
        ("GCS", {"GOOGLE_APPLICATION_CREDENTIALS": "/file.json"}, "/file.json"),
        ("GCS", {"GOOGLE_APPLICATION_CREDENTIALS_JSON": '{"private_key": "secret"}'}, None),
        ("S3", {"SOURCE_AWS_APPLICATION_CREDENTIALS": "/dir"}, None),
        ("S3", {}, None),
    ],
)
def test_credentials_of_a_store(provider: str, variables: dict[str, str], expected: str | None) -> None:
    settings = restore(f"--storage-provider={provider}", "--store-container=b", **variables)
    assert parse_location(settings.store).options.get("credentials") == expected
    assert "secret" not in settings.store


def test_credentials_of_a_source_have_names_of_their_own() -> None:
    both = {"AWS_APPLICATION_CREDENTIALS": "/to", "SOURCE_AWS_APPLICATION_CREDENTIALS": "/from"}
    assert source_of(**both).options == {"credentials": "/from"}
    json_first = both | {"SOURCE_AWS_APPLICATION_CREDENTIALS_JSON": "/from.json"}
    assert source_of(**json_first).options == {"credentials": "/from.json"}
    assert source_of().options == {}


def test_the_targets_credentials_are_never_used_for_the_source() -> None:
    with pytest.raises(ConfigError, match="SOURCE_AWS_APPLICATION_CREDENTIALS is not set"):
        source_of(AWS_APPLICATION_CREDENTIALS="/to")
    elsewhere = ("--source-storage-provider=Local", "--source-store-container=dir")
    assert source_of(*elsewhere, AWS_APPLICATION_CREDENTIALS="/to", HOME="/h").bucket == "/h/dir/p"


def test_local_lies_below_home() -> None:
    words = ("--storage-provider=Local", "--store-prefix=shoot/etcd-main")
    assert (
        restore(*words, HOME="/home/nonroot", STORAGE_CONTAINER="c").store == "file:///home/nonroot/c/shoot/etcd-main"
    )
    assert restore(*words, HOME="/home/nonroot").store == "file:///home/nonroot/default.bkp/shoot/etcd-main"


def test_a_prefix_is_cleaned_as_the_peer_cleans_it() -> None:
    words = ("--storage-provider=S3", "--store-container=b")
    assert restore(*words, "--store-prefix=a//b/").store == restore(*words, "--store-prefix=a/b").store == "s3://b/a/b"
    assert restore(*words).store == "s3://b/"


def test_without_a_provider_a_server_has_no_backups_and_others_refuse() -> None:
    assert server().store == ""
    with pytest.raises(ConfigError, match="--storage-provider is missing"):
        restore("--store-container=b")
    with pytest.raises(ConfigError, match="--source-storage-provider is missing"):
        copy("--store-container=b")


# ---- copy


@pytest.mark.parametrize(
    ("words", "wait_s"),
    [
        ([], 0.0),
        (["--wait-for-final-snapshot-timeout=5m"], 0.0),
        (["--wait-for-final-snapshot=false", "--wait-for-final-snapshot-timeout=5m"], 0.0),
        (["--wait-for-final-snapshot", "--wait-for-final-snapshot-timeout=5m"], 300.0),
        (["--wait-for-final-snapshot"], FOREVER_S),
        (["--wait-for-final-snapshot", "--wait-for-final-snapshot-timeout=0s"], FOREVER_S),
    ],
)
def test_waiting_for_a_final_snapshot(words: list[str], wait_s: float) -> None:
    assert copy(*S3, *words, SOURCE_STORAGE_CONTAINER="from").wait_for_final == wait_s
    assert FOREVER_S > 365 * DAY_S


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], (0, 0.0, False)),
        (["--max-backups-to-copy=-1", "--max-backup-age=-1"], (0, 0.0, False)),
        (["--max-backups-to-copy=-5", "--max-backup-age=-5"], (0, 0.0, False)),
        (["--max-backups-to-copy=4"], (4, 0.0, False)),
        (["--max-backup-age=2"], (0, 2 * DAY_S, False)),
        (["--max-backup-age=0"], (0, 0.0, True)),
    ],
)
def test_how_much_is_copied(words: list[str], expected: tuple[int, float, bool]) -> None:
    settings = copy(*S3, *words, SOURCE_STORAGE_CONTAINER="from")
    assert (settings.max_backups, settings.max_backup_age, settings.newest_chain_only) == expected


def test_a_missing_final_snapshot_is_an_error_unless_the_variable_says_otherwise() -> None:
    def asked(**variables: str) -> OnMissingFinal:
        return copy(*S3, SOURCE_STORAGE_CONTAINER="from", **variables).on_missing_final

    assert asked() is asked(BACKUPAGENT_ON_MISSING_FINAL="") is OnMissingFinal.ERROR
    assert asked(BACKUPAGENT_ON_MISSING_FINAL="copy") is OnMissingFinal.COPY
    with pytest.raises(ConfigError, match="BACKUPAGENT_ON_MISSING_FINAL"):
        asked(BACKUPAGENT_ON_MISSING_FINAL="ignore")


# ---- restore and server


def test_a_restore() -> None:
    defaults = restore(*S3)
    assert (defaults.data_dir, defaults.name, defaults.initial_cluster) == (
        Path("default.etcd"),
        "default",
        "default=http://localhost:2380",
    )
    assert defaults.initial_cluster_token == "etcd-cluster"
    assert defaults.initial_advertise_peer_urls == ""  # what the cluster says, which is the peer's default
    words = ("-d", "/data", "--name=m", "--initial-cluster=m=http://m:1,n=http://n:1", "--initial-cluster-token=t")
    urls = ("--initial-advertise-peer-urls=http://m:1", "--initial-advertise-peer-urls=http://m:2")
    assert restore(*S3, *words, *urls) == RestoreSettings(
        store="s3://to/p",
        data_dir=Path("/data"),
        name="m",
        initial_cluster="m=http://m:1,n=http://n:1",
        initial_cluster_token="t",
        initial_advertise_peer_urls="http://m:1,http://m:2",
    )


def test_a_servers_defaults_are_the_peers() -> None:
    assert server() == ServerSettings(data_dir=Path("default.etcd"), api_auth=ApiAuth.OFF)


def test_compression_may_be_off() -> None:
    assert server("--compression-policy=zlib").compression == "zlib"
    assert server("--compress-snapshots=false", "--compression-policy=lzw").compression == "none"


def test_etcds_password_is_in_a_file() -> None:
    settings = server("--etcd-username=root", BACKUPAGENT_PASSWORD_FILE="/var/password")
    assert (settings.user, settings.password_file) == ("root", Path("/var/password"))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--endpoints="], "--endpoints is empty"),
        (["--etcd-connection-timeout=0s"], "--etcd-connection-timeout"),
        (["--server-port=65536"], "--server-port=65536 is no port"),
        (["--k8s-heartbeat-duration=0"], "--k8s-heartbeat-duration"),
        (["--compression-policy=lzw"], "compression-policy=lzw cannot be written"),
        (["--compression-policy=GZIP"], "compression-policy=GZIP"),
        (["--enable-snapshot-lease-renewal", "--full-snapshot-lease-name="], "name of a Lease"),
        (["--server-cert=/c"], "only one is given"),
        (["--server-key=/k"], "only one is given"),
        (["--etcd-username=root"], "without a password"),
    ],
)
def test_a_server_does_not_start_with_what_would_fail_later(words: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as refused:
        server(*words)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("provider", "service", "variable"), [("OCS", "ocs", "OPENSHIFT"), ("OSS", "oss", "ALICLOUD"), ("ECS", "ecs", "")]
)
def test_services_with_credentials_of_their_own(provider: str, service: str, variable: str) -> None:
    variables = {f"{side}{variable}_APPLICATION_CREDENTIALS": f"/{side}dir" for side in ("", "SOURCE_") if variable}
    settings = copy(
        f"--storage-provider={provider}", "--store-container=b", SOURCE_STORAGE_CONTAINER="from", **variables
    )
    for uri, path in ((settings.source, "/SOURCE_dir"), (settings.target, "/dir")):
        wanted = {"service": service} | ({"credentials": path} if variable else {})
        assert parse_location(uri).options == wanted


def test_swift_is_refused_with_exit_code_2() -> None:
    with pytest.raises(ConfigError, match="S3 interface") as raised:
        copy("--storage-provider=Swift", "--store-container=b", SOURCE_STORAGE_CONTAINER="from")
    assert raised.value.exit_code == 2
