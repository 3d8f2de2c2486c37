"""Options of the commands that run until they are stopped, and of those that talk to Kubernetes."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from backupagent.settings.operations import EtcdSettings, TransferSettings
from backupagent.settings.option import option


class ApiAuth(StrEnum):
    """Whether mutating routes ask who calls."""

    ON = "on"
    OFF = "off"


class MigrateKind(StrEnum):
    """What is migrated."""

    SHOOT = "shoot"


@dataclass(frozen=True, kw_only=True)
class KubeSettings:
    """How to reach Kubernetes."""

    kubeconfig: Path | None = option(
        "kubeconfig file; the default is KUBECONFIG, then the Pod's service account, then ~/.kube/config", default=None
    )


@dataclass(frozen=True, kw_only=True)
class ServerSettings(EtcdSettings, TransferSettings, KubeSettings):
    """The sidecar of one etcd member."""

    store: str = option(
        "URI of the store for backups, e.g. s3://bucket/prefix; without one nothing is backed up or restored",
        default="",
        metavar="URI",
    )
    data_dir: Path = option("the member's data directory; made by a restore when it is missing or invalid")
    etcd_config: Path = option(
        "etcd's configuration, in which advertised URLs are maps of member names; its initial-cluster says what a"
        " restore makes",
        default=Path("/var/etcd/config/etcd.conf.yaml"),
        flag="etcd-config",
    )
    member: str = option("name of the member, and of its Lease", default="", flag="member", metavar="NAME")
    host: str = option("address to serve on; empty is all", default="")
    port: int = option("port to serve on; 0 is any free one", default=8080, minimum=0)
    server_cert: Path | None = option("certificate (PEM) to serve with; without one, plain HTTP", default=None)
    server_key: Path | None = option("key of that certificate (PEM)", default=None)
    api_auth: ApiAuth = option(
        "whether routes that do something ask for a bearer token; a loopback address does without", default=ApiAuth.ON
    )
    api_token_file: Path | None = option("file that holds the bearer token; read again when it changes", default=None)
    schedule: str = option("when to take full snapshots: cron with 5 fields, UTC", default="0 */1 * * *")
    delta_period: float = option("time between deltas; 0 takes none", default=20.0, unit="duration")
    compression: str = option("gzip, zlib, zstd or none; the peer cannot read zstd", default="gzip")
    snapshot_leases: bool = option("tell the newest full and delta revision on Leases", default=False)
    full_lease: str = option("name of the Lease of fulls", default="full-snapshot-revisions")
    delta_lease: str = option("name of the Lease of deltas", default="delta-snapshot-revisions")
    member_lease: bool = option("renew the member's Lease and tell a restore on it", default=False)
    heartbeat: float = option("time between renewals of the member's Lease", default=30.0, unit="duration")
    namespace: str = option("namespace of the Leases", default="")


@dataclass(frozen=True, kw_only=True)
class ControllerSettings(KubeSettings):
    """The migration controller; its kubeconfig is that of the garden cluster."""

    seed_kubeconfig: tuple[str, ...] = option(
        "kubeconfig files of Seeds as SEED=FILE, comma separated; a Seed without one is the garden cluster itself",
        default=(),
    )
    namespace: str = option("watch Shoots of this namespace only; all by default", default="")
    poll: float = option("time between two looks at the buckets of a running migration", default=2.0, unit="duration")
    workers: int = option("migrations looked at side by side", default=4, minimum=1)
    host: str = option("address of /healthz, /readyz and /metrics; empty is all", default="127.0.0.1")
    port: int = option("port of /healthz, /readyz and /metrics; 0 is any free one", default=8081, minimum=0)


@dataclass(frozen=True, kw_only=True)
class MigrateSettings(KubeSettings):
    """Move a control plane."""

    kind: MigrateKind = option("what to migrate", positional=True)
    name: str = option("the Shoot", positional=True, metavar="NAMESPACE/NAME")
    to: str = option("name of the destination Seed", metavar="SEED")
    follow: bool = option("wait until the migration has ended, and show how it goes", default=True)
    timeout: float = option("how long to follow it; 0 is for ever", default=3600.0, unit="duration")


@dataclass(frozen=True, kw_only=True)
class MigrationsSettings(KubeSettings):
    """Migrations that run or have run."""

    name: str = option("only this Shoot; all by default", default="", positional=True, metavar="NAMESPACE/NAME")
    namespace: str = option("only Shoots of this namespace", default="")
