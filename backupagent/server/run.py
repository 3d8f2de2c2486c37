"""The sidecar as a process: its settings are completed and checked, then it serves until it is stopped."""

import asyncio
import logging
import os
import ssl
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import fields, replace
from ipaddress import ip_address
from pathlib import Path

from backupagent import wiring
from backupagent.cancel import Cancel
from backupagent.errors import ConfigError
from backupagent.kube.client import Kube
from backupagent.logs import log_to
from backupagent.server.etcd_config import MAX_SIZE, MemberConfig, read_config
from backupagent.server.schedule import Schedule
from backupagent.server.sidecar import Sidecar
from backupagent.settings import ApiAuth, ServerSettings

_log = logging.getLogger(__name__)


def run_server(settings: ServerSettings, cancel: Cancel) -> int:
    """Serve until the token is set.

    Args:
        settings: What to serve; what is empty is taken from POD_NAME, POD_NAMESPACE and ETCD_CONF.
        cancel: Set by SIGTERM.

    Returns:
        0.

    Raises:
        ConfigError: the settings or etcd's configuration are wrong.
    """
    log_to()
    settings = resolved(settings, os.environ)
    require_auth(settings)
    Schedule(settings.schedule)
    if settings.store:
        wiring.snapshots_prefix(settings.store)
    config = _read_etcd_config(settings)
    tls = _tls(settings)
    with ExitStack() as opened:
        kube = _open_kube(settings, opened)
        asyncio.run(Sidecar(settings, config, kube, cancel).run(tls))
    return 0


def resolved(settings: ServerSettings, environment: Mapping[str, str]) -> ServerSettings:
    """Fill what was not given from the variables that druid sets on the container."""
    given: dict[str, object] = {}
    if not settings.member:
        given["member"] = environment.get("POD_NAME", "")
    if not settings.namespace:
        given["namespace"] = environment.get("POD_NAMESPACE", "")
    default = next(field.default for field in fields(ServerSettings) if field.name == "etcd_config")
    if environment.get("ETCD_CONF") and settings.etcd_config == default:
        given["etcd_config"] = Path(environment["ETCD_CONF"])
    return replace(settings, **given)  # type: ignore[arg-type] # names and types are those above


def require_auth(settings: ServerSettings) -> None:
    """Refuse to let anybody who reaches the port take snapshots.

    Raises:
        ConfigError: nobody would be asked who he is, and ``--api-auth`` does not say that this is meant.
    """
    if settings.api_auth is ApiAuth.ON and settings.api_token_file is None and not _is_loopback(settings.host):
        raise ConfigError(
            f"whoever reaches {settings.host or 'any address'} could take snapshots and start a restore",
            hint="give --api-token-file, or --host 127.0.0.1, or --api-auth off where the network is closed",
        )


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _tls(settings: ServerSettings) -> ssl.SSLContext | None:
    """Return how to serve with a certificate; None for plain HTTP.

    Raises:
        ConfigError: one of certificate and key is missing or of no use; plain HTTP would not be what was meant.
    """
    cert, key = settings.server_cert, settings.server_key
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise ConfigError("a certificate to serve with needs its key, and a key its certificate", hint="give both")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot serve with {cert} and {key}: {error}", hint="both are PEM files") from error
    return context


def _read_etcd_config(settings: ServerSettings) -> MemberConfig:
    path = settings.etcd_config
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_SIZE + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read etcd's configuration {path}: {error}", hint="name it by ETCD_CONF") from error
    return read_config(text, pod=settings.member, where=str(path))


def _open_kube(settings: ServerSettings, opened: ExitStack) -> Kube | None:
    """Connect to Kubernetes when something is to be told there; backups go on without it."""
    if not (settings.member_lease or settings.snapshot_leases):
        return None
    if not settings.namespace:
        _log.warning("no Leases are written: their namespace is not known (--namespace or POD_NAMESPACE)")
        return None
    try:
        return opened.enter_context(wiring.open_kube(settings))
    except ConfigError as error:
        _log.warning("no Leases are written: %s", error)
        return None
