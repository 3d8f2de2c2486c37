"""etcd's configuration as druid writes it, and as etcd reads it. Pure.

Druid's file is ordinary but for ``initial-advertise-peer-urls`` and ``advertise-client-urls``, which are maps of member
names to lists of URLs, and ``member-name-prefix``. Source: etcd-backup-restore, pkg/server/httpAPI.go and
pkg/miscellaneous at debd95b.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from backupagent.errors import ConfigError

MAX_SIZE = 1024 * 1024

_URLS = ("initial-advertise-peer-urls", "advertise-client-urls")


@dataclass(frozen=True)
class MemberConfig:
    """What one member reads out of the configuration.

    Attributes:
        name: Of the member.
        document: Everything, as it was read.
        peer_urls: The member's own peer URLs.
        client_urls: Its own client URLs.
    """

    name: str
    document: Mapping[str, Any]
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]

    @property
    def initial_cluster(self) -> str:
        """All members as ``name=url,...``."""
        return str(self.document["initial-cluster"])

    @property
    def initial_cluster_token(self) -> str:
        """Token of the cluster."""
        return str(self.document.get("initial-cluster-token") or "etcd-cluster")

    @property
    def tls_peers(self) -> bool:
        """Whether members talk to each other by TLS."""
        return bool(self.peer_urls) and all(url.startswith("https://") for url in self.peer_urls)

    def for_etcd(self) -> str:
        """Return the YAML that this member's etcd starts with."""
        mine = {
            "name": self.name,
            "initial-advertise-peer-urls": ",".join(self.peer_urls),
            "advertise-client-urls": ",".join(self.client_urls),
            "initial-cluster-state": "new",
        }
        return yaml.safe_dump(dict(self.document) | mine, sort_keys=True)


def read_config(text: str, *, pod: str, where: str) -> MemberConfig:
    """Read druid's configuration for one member.

    Args:
        text: The YAML.
        pod: Name of the Pod; with the prefix of the file, if any, it is the member's name.
        where: The file, for messages.

    Raises:
        ConfigError: it is not such a configuration, or does not know the member.
    """
    if len(text) > MAX_SIZE:
        raise ConfigError(f"{where}: {len(text)} characters are too many", hint="mend the file")
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}", hint="mend the file") from error
    if not isinstance(document, dict) or not isinstance(document.get("initial-cluster"), str):
        raise ConfigError(f"{where}: initial-cluster is missing", hint="it is etcd's configuration file that is wanted")
    prefix = document.get("member-name-prefix")
    if prefix and not pod:
        raise ConfigError(f"{where}: member-name-prefix needs the Pod's name", hint="set POD_NAME, or give --member")
    name = f"{prefix}-{pod}" if prefix else pod or str(document.get("name", "default"))
    peer, client = (_urls(document.get(field), name, f"{where}: {field}") for field in _URLS)
    return MemberConfig(name, document, peer, client)


def _urls(value: object, member: str, where: str) -> tuple[str, ...]:
    """Return a member's URLs out of a map, a list or a comma-separated text."""
    if isinstance(value, dict):
        if member not in value:
            raise ConfigError(f"{where} does not name member {member!r}", hint="check POD_NAME and member-name-prefix")
        value = value[member]
    if isinstance(value, str):
        return tuple(url.strip() for url in value.split(",") if url.strip())
    if isinstance(value, list) and all(isinstance(url, str) for url in value):
        return tuple(value)
    if value is None:
        return ()
    raise ConfigError(f"{where} is neither a map of member names nor a list of URLs", hint="mend the file")
