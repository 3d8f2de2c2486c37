"""Object stores, as a table of providers: a new one is a module, an opener, a line in ``PROVIDERS`` and its options.

Only the module of the store that is opened is imported: an SDK costs a tenth of a second and more.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.errors import ConfigError
from backupagent.stores.base import ObjectStore
from backupagent.stores.location import Location, parse_location
from backupagent.stores.opening import Opening, credentials_path, service_of

__all__ = ["PROVIDERS", "Location", "credentials_path", "open_store", "parse_location", "service_of"]


Opener = Callable[[Opening], ObjectStore]


def open_store(
    location: Location,
    *,
    clock: Clock = SYSTEM_CLOCK,
    variable_prefix: str = "",
    create: bool = False,
    credentials: Mapping[str, str] | None = None,
) -> ObjectStore:
    """Open a store, without any wrapper and without a request to it.

    Args:
        location: From ``parse_location``; its prefix is the caller's to put before the keys.
        clock: Source of time.
        variable_prefix: What the peer puts before the names of its environment variables: ``SOURCE_`` for the
            source of a copy, ``SECONDARY_``, else empty. Where those are not set the names without it count.
        create: A directory that does not exist yet is an empty store, which the first write makes. Buckets are
            never made.
        credentials: The peer's credential fields, e.g. ``accessKeyID``, where they do not lie in files: they come
            before anything that the URI or the environment names.

    Raises:
        ConfigError: the provider is unknown, or the credentials cannot be read.
    """
    if location.provider not in PROVIDERS:
        raise ConfigError(f"unknown provider {location.provider!r}; known: {', '.join(PROVIDERS)}")
    return PROVIDERS[location.provider](Opening(location, clock, variable_prefix, create, credentials))


def _open_file(opening: Opening) -> ObjectStore:
    from backupagent.stores.local import LocalStore  # noqa: PLC0415

    return LocalStore(Path(opening.location.bucket), create=opening.create)


def _open_memory(opening: Opening) -> ObjectStore:
    from backupagent.stores.memory import named_memory_store  # noqa: PLC0415

    return named_memory_store(opening.location.bucket, opening.clock)


def _open_s3(opening: Opening) -> ObjectStore:
    from backupagent.stores.opening_s3 import open_location  # noqa: PLC0415 - boto3 takes 0.2 s

    return open_location(opening)


def _open_azure(opening: Opening) -> ObjectStore:
    from backupagent.stores.opening_azure import open_location  # noqa: PLC0415 - the SDK takes 0.4 s

    return open_location(opening)


def _open_gcs(opening: Opening) -> ObjectStore:
    from backupagent.stores.opening_gcs import open_location  # noqa: PLC0415 - the SDK takes 0.3 s

    return open_location(opening)


PROVIDERS: Mapping[str, Opener] = {
    "file": _open_file,
    "memory": _open_memory,
    "s3": _open_s3,
    "az": _open_azure,
    "gs": _open_gcs,
}
