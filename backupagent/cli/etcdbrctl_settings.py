"""From the peer's flags and environment variables to our settings.

Source of precedence: etcd-backup-restore, pkg/types/snapstore.go and pkg/snapstore/utils.go at debd95b.
"""

from collections.abc import Mapping
from pathlib import Path
from posixpath import normpath

from backupagent.cli.options import VARIABLE_PREFIX
from backupagent.cli.pflag import Given
from backupagent.codecs import CODECS
from backupagent.errors import ConfigError
from backupagent.settings import ApiAuth, CopySettings, OnMissingFinal, RestoreSettings, ServerSettings
from backupagent.stores.opening import SERVICES
from backupagent.stores.peer import SCHEMES, peer_uri
from backupagent.stores.peer import SERVICES as OPTIONS_OF_SERVICES
from backupagent.units import MiB

FOREVER_S = 10 * 365 * 24 * 3600.0
"""Wait for a final snapshot without a limit: the peer's 0."""

DAY_S = 24 * 3600.0

ON_MISSING_FINAL = f"{VARIABLE_PREFIX}ON_MISSING_FINAL"
"""Druid's arguments are fixed, so the way back to the peer's behaviour is a variable."""

PASSWORD_FILE = f"{VARIABLE_PREFIX}PASSWORD_FILE"
"""The peer takes etcd's password on the command line only, where everybody sees it."""

ADVERTISED = "initial-advertise-peer-urls"

MAX_PORT = 65535

COPY_MEMORY = 192 * MiB
"""What a copy may take, so that it fits into a Pod of 256 MiB with room for what its estimate does not see."""

Environment = Mapping[str, str]


def store_of(given: Given, environment: Environment, *, source: bool = False) -> str:
    """Return the URI of the store that flags and variables name; empty when no provider is named.

    A copy's source takes provider and prefix of the target where it names none of its own, but neither container,
    endpoint nor credentials.

    Raises:
        ConfigError: the provider is not supported, no container is named, or the prefix cannot be used; or a source
            without credentials of its own would be opened with the target's.
    """
    flags = "source-" if source else ""
    variables = "SOURCE_" if source else ""
    provider = given.text(f"{flags}storage-provider") or given.text("storage-provider")
    if not provider:
        return ""
    prefix = given.text(f"{flags}store-prefix") or given.text("store-prefix")
    credentials = _credentials(provider, variables, environment)
    if source and not credentials and _credentials(provider, "", environment):
        name = f"SOURCE_{_service(provider)}_APPLICATION_CREDENTIALS"
        raise ConfigError(f"{name} is not set, and the target's credentials are not the source's", hint=f"set {name}")
    return peer_uri(
        provider,
        given.text(f"{flags}store-container") or environment.get(f"{variables}STORAGE_CONTAINER", ""),
        normpath(prefix) if prefix else "",
        endpoint=given.text(f"{flags}store-endpoint-override"),
        credentials=credentials,
        home=environment.get("HOME", "/"),
    )


def _service(provider: str) -> str:
    name = provider.lower()
    return SERVICES.get(OPTIONS_OF_SERVICES.get(name, SCHEMES.get(name, "")), "")


def _credentials(provider: str, prefix: str, environment: Environment) -> str:
    """Return the file or directory of credentials that the peer's variables name.

    The peer knows no ``GOOGLE_APPLICATION_CREDENTIALS_JSON``; elsewhere that variable often holds the secret itself.
    """
    service = _service(provider)
    endings = ("",) if service == "GOOGLE" else ("_JSON", "")
    names = [f"{prefix}{service}_APPLICATION_CREDENTIALS{ending}" for ending in endings if service]
    return next((environment[name] for name in names if environment.get(name)), "")


def copy_settings(given: Given, environment: Environment) -> CopySettings:
    """Return what ``copy`` shall do.

    The newest full with its deltas is copied whatever its age: an age of 0 days leaves nothing else.

    Raises:
        ConfigError: a store or a variable cannot be used.
    """
    wait_s = 0.0
    if given.flag("wait-for-final-snapshot"):
        wait_s = given.seconds("wait-for-final-snapshot-timeout") or FOREVER_S
    age_days = given.number("max-backup-age")
    try:
        on_missing = OnMissingFinal(environment.get(ON_MISSING_FINAL) or OnMissingFinal.ERROR.value)
    except ValueError as error:
        raise ConfigError(f"{ON_MISSING_FINAL}: {error}", hint="it is error or copy") from error
    return CopySettings(
        source=_needed(store_of(given, environment, source=True), "--source-storage-provider"),
        target=_needed(store_of(given, environment), "--storage-provider"),
        newest_chain_only=age_days == 0,
        max_backups=max(0, given.number("max-backups-to-copy")),
        max_backup_age=max(0, age_days) * DAY_S,
        wait_for_final=wait_s,
        on_missing_final=on_missing,
        max_memory=COPY_MEMORY,
    )


def restore_settings(given: Given, environment: Environment) -> RestoreSettings:
    """Return what ``restore`` shall do.

    Raises:
        ConfigError: the store cannot be used.
    """
    return RestoreSettings(
        store=_needed(store_of(given, environment), "--storage-provider"),
        data_dir=Path(given.text("data-dir")),
        name=given.text("name"),
        initial_cluster=given.text("initial-cluster"),
        initial_cluster_token=given.text("initial-cluster-token"),
        # The peer's default fits its default cluster only; without one the cluster's own word counts.
        initial_advertise_peer_urls=",".join(given.list(ADVERTISED)) if given.named(ADVERTISED) else "",
    )


def server_settings(given: Given, environment: Environment) -> ServerSettings:
    """Return what ``server`` shall do; its callers send no certificate and no token.

    Raises:
        ConfigError: a store or a variable cannot be used, or values do not fit together.
    """
    settings = ServerSettings(
        endpoints=given.list("endpoints"),
        cacert=_path(given.text("cacert")),
        cert=_path(given.text("cert")),
        key=_path(given.text("key")),
        user=given.text("etcd-username"),
        password_file=_path(environment.get(PASSWORD_FILE, "")),
        connect_timeout=given.seconds("etcd-connection-timeout"),
        store=store_of(given, environment),
        data_dir=Path(given.text("data-dir")),
        port=given.number("server-port"),
        server_cert=_path(given.text("server-cert")),
        server_key=_path(given.text("server-key")),
        api_auth=ApiAuth.OFF,
        schedule=given.text("schedule"),
        delta_period=given.seconds("delta-snapshot-period"),
        compression=given.text("compression-policy") if given.flag("compress-snapshots") else "none",
        snapshot_leases=given.flag("enable-snapshot-lease-renewal"),
        full_lease=given.text("full-snapshot-lease-name"),
        delta_lease=given.text("delta-snapshot-lease-name"),
        member_lease=given.flag("enable-member-lease-renewal"),
        heartbeat=given.seconds("k8s-heartbeat-duration"),
    )
    for reason, hint in _contradictions(settings):
        raise ConfigError(reason, hint=hint)
    return settings


def _contradictions(settings: ServerSettings) -> list[tuple[str, str]]:
    """Return what would fail only later, when a snapshot is taken or a Lease is due; each with its remedy."""
    writable = [name for name, codec in CODECS.items() if codec.encoder is not None]
    rules = [
        (settings.endpoints, "--endpoints is empty", "name the local member's client URL"),
        (settings.connect_timeout > 0, "--etcd-connection-timeout is not above 0", "the peer's default is 30s"),
        (settings.port <= MAX_PORT, f"--server-port={settings.port} is no port", f"the last one is {MAX_PORT}"),
        (settings.heartbeat > 0, "--k8s-heartbeat-duration is not above 0", "the peer's default is 30s"),
        (
            settings.compression in writable,
            f"--compression-policy={settings.compression} cannot be written",
            f"one of {', '.join(writable)}; everything that the peer wrote can be read",
        ),
        (
            not settings.snapshot_leases or (settings.full_lease and settings.delta_lease),
            "the name of a Lease is empty",
            "give --full-snapshot-lease-name and --delta-snapshot-lease-name",
        ),
        (
            (settings.server_cert is None) == (settings.server_key is None),
            "of --server-cert and --server-key only one is given",
            "give both, or none for plain HTTP",
        ),
        (
            not settings.user or settings.password_file,
            "--etcd-username is given without a password",
            f"name a file that holds it by {PASSWORD_FILE}",
        ),
    ]
    return [(reason, hint) for holds, reason, hint in rules if not holds]


def _needed(uri: str, flag: str) -> str:
    if not uri:
        raise ConfigError(f"{flag} is missing", hint="the peer takes none for Local; say --storage-provider=Local")
    return uri


def _path(text: str) -> Path | None:
    return Path(text) if text else None
