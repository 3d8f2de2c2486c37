"""How an etcd is reached: endpoints, certificates, credentials, timeouts. Imports no gRPC."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from backupagent.errors import ConfigError

DEFAULT_PORT = 2379
"""etcd's port for clients, registered with IANA."""


@dataclass(frozen=True)
class EtcdAccess:
    """How to reach and use an etcd cluster.

    Attributes:
        endpoints: ``http://host:port``, ``https://host:port`` or ``host:port``; the latter means TLS when there is a
            CA or a client certificate, as etcdctl reads it. Tried in this order.
        ca_cert: PEM file with the CAs that servers are checked against; None for the system's.
        cert: PEM file with the client certificate, together with ``key``.
        key: PEM file with the private key of ``cert``.
        username: User of etcd's own authentication, empty for none.
        password: Its password.
        connect_timeout_s: How long one endpoint may take to answer the first request.
        request_timeout_s: Deadline of an ordinary request.
        slow_request_timeout_s: Deadline of requests that walk the whole database: HashKV, physical compaction.
        stall_timeout_s: How long a stream may stay silent while we wait for it. Longer than any pause of a busy
            server: while watchers catch up it reads its whole backlog before it sends anything.

    Raises:
        ConfigError: no endpoint, or half of a pair is missing.
    """

    endpoints: tuple[str, ...] = (f"http://127.0.0.1:{DEFAULT_PORT}",)
    ca_cert: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    connect_timeout_s: float = 30.0
    request_timeout_s: float = 30.0
    slow_request_timeout_s: float = 600.0
    stall_timeout_s: float = 120.0

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ConfigError("no etcd endpoint is given")
        if (self.cert is None) != (self.key is None):
            raise ConfigError("a client certificate for etcd needs its private key, and a key its certificate")
        if bool(self.username) != bool(self.password):
            raise ConfigError("a user name for etcd needs a password, and a password a user name")

    def parsed_endpoints(self) -> list["Endpoint"]:
        """Return the endpoints in order.

        Raises:
            ConfigError: one of them is not an endpoint.
        """
        has_tls_files = self.ca_cert is not None or self.cert is not None
        return [parse_endpoint(text, tls_by_default=has_tls_files) for text in self.endpoints]


@dataclass(frozen=True)
class Endpoint:
    """One member's address for clients.

    Attributes:
        host: Name or address, IPv6 without brackets.
        port: TCP port.
        tls: Whether to talk TLS.
    """

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        """Return ``host:port``, as in messages and as gRPC wants it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str, *, tls_by_default: bool = False) -> Endpoint:
    """Read an endpoint.

    Args:
        text: ``http://host:port``, ``https://host:port`` or ``host:port``; without a port, etcd's.
        tls_by_default: What an endpoint without a scheme means.

    Raises:
        ConfigError: not an endpoint. A user name or password in it is not repeated.
    """
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{_without_userinfo(text)!r} is not an etcd endpoint: {error}") from error
    if parts.username is not None:
        raise ConfigError(
            f"endpoint {_without_userinfo(text)!r} has a user name in it",
            hint="give user name and password on their own",
        )
    if parts.scheme not in ("", "http", "https") or not parts.hostname:
        raise ConfigError(f"{text!r} is not an etcd endpoint: write for example https://host:{DEFAULT_PORT}")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(f"{text!r} is not an etcd endpoint: nothing may follow the port")
    tls = parts.scheme == "https" or (not parts.scheme and tls_by_default)
    return Endpoint(parts.hostname, DEFAULT_PORT if port is None else port, tls)


def _without_userinfo(text: str) -> str:
    scheme, separator, rest = text.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
