"""The peer's way to name a store - provider, container, prefix, endpoint - as the URI of ours.

Source of the names: etcd-druid, internal/store at 5b90b4a (infrastructure and store names); for ``Local``
etcd-backup-restore, pkg/snapstore/utils.go at debd95b (everything lies below HOME).
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from urllib.parse import quote

from backupagent.errors import ConfigError

SCHEMES: Mapping[str, str] = {
    "s3": "s3",
    "aws": "s3",
    "stackit": "s3",
    "ecs": "s3",
    "dell": "s3",
    "ocs": "s3",
    "openshift": "s3",
    "oss": "s3",
    "alicloud": "s3",
    "abs": "az",
    "azure": "az",
    "gcs": "gs",
    "gcp": "gs",
    "local": "file",
}
"""Scheme by provider, lower case; druid takes infrastructure names as well as store names."""

SERVICES: Mapping[str, str] = {
    "ecs": "ecs", "dell": "ecs", "ocs": "ocs", "openshift": "ocs", "oss": "oss", "alicloud": "oss",
}  # fmt: skip
"""Option ``service`` of the URI, by provider: those that speak S3 and have credentials of their own."""

PROVIDER_NAMES: Mapping[str, tuple[str, ...]] = {
    "S3": ("aws", "stackit"),
    "ABS": ("azure",),
    "GCS": ("gcp",),
    "OSS": ("alicloud",),
    "ECS": ("dell",),
    "OCS": ("openshift",),
    "Local": (),
}
"""The peer's own names of the providers that can be used here, each with the names of infrastructures."""

SWIFT = ("swift", "openstack")

DEFAULT_LOCAL_CONTAINER = "default.bkp"


def peer_uri(
    provider: str, container: str, prefix: str, *, endpoint: str = "", credentials: str = "", home: str = ""
) -> str:
    """Return the URI of a store that the peer's flags name.

    Args:
        provider: Provider of a store or of an infrastructure, e.g. ``S3``, ``aws``, ``Local``; any case.
        container: Bucket or container; for ``Local`` a directory below ``home``.
        prefix: What stands before ``/v2/``. The peer's keys would begin with a slash when it does, and ours never
            do: such a prefix is refused, because nothing would be found below it.
        endpoint: URL of the service, when it is not the provider's own.
        credentials: Directory or file with the credentials.
        home: The directory that ``Local`` stores lie below; absolute.

    Raises:
        ConfigError: there is no such provider, or no store for it here; or no container is named; or the prefix
            begins with a slash.
    """
    scheme = SCHEMES.get(provider.lower())
    if scheme is None:
        raise _unsupported(provider)
    if scheme == "file":
        path = PurePosixPath(home or "/", (container or DEFAULT_LOCAL_CONTAINER).lstrip("/"), prefix.lstrip("/"))
        return f"file://{quote(str(path))}"
    if not container:
        raise ConfigError("storage container name not specified", hint="give --store-container or STORAGE_CONTAINER")
    if prefix.startswith("/"):
        raise ConfigError(f"the prefix {prefix!r} begins with a slash", hint="no key of a snapshot here ever does")
    given = {"service": SERVICES.get(provider.lower(), ""), "endpoint": endpoint, "credentials": credentials}
    options = "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items() if value)
    return f"{scheme}://{quote(container, safe='')}/{quote(prefix.strip('/'))}{'?' if options else ''}{options}"


def _unsupported(provider: str) -> ConfigError:
    if provider.lower() in SWIFT:
        return ConfigError(
            f"storage provider {provider!r} is not supported: Swift is reached by its S3 interface",
            hint="--storage-provider=S3 --store-endpoint-override=https://HOST:PORT, and AWS_APPLICATION_CREDENTIALS"
            " with EC2 credentials (openstack ec2 credentials create) and s3ForcePathStyle=true",
        )
    return ConfigError(
        f"storage provider {provider!r} is not supported; known: {', '.join(PROVIDER_NAMES)}",
        hint="others are reached by their S3 interface: --storage-provider=S3 with an endpoint",
    )
