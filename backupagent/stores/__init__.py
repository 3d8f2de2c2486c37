"""Object stores, as a table of providers: a new one is a module, an opener, a line in ``PROVIDERS`` and its options.

Only the module of the store that is opened is imported: an SDK costs a tenth of a second and more.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.errors import ConfigError
from backupagent.stores.base import ObjectStore
from backupagent.stores.credentials import read_credentials
from backupagent.stores.location import Location, parse_location

__all__ = ["PROVIDERS", "Location", "open_store", "parse_location"]


@dataclass(frozen=True)
class Opening:
    """What an opener gets: the arguments of ``open_store``."""

    location: Location
    clock: Clock
    variable_prefix: str
    create: bool
    credentials: Mapping[str, str] | None


Opener = Callable[[Opening], ObjectStore]

_S3_UNSUPPORTED = ("roleARN", "sseCustomerKey", "sseCustomerAlgorithm", "trustedCaCert")
"""Fields of the peer's credentials that cannot be left out without doing something else than asked for."""


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
            source of a copy, ``SECONDARY_``, else empty.
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
    from backupagent.stores.s3 import S3Settings, open_s3  # noqa: PLC0415 - boto3 takes 0.2 s

    location = opening.location
    fields = opening.credentials
    if fields is None:
        fields = _credentials(location, f"{opening.variable_prefix}AWS")
    _refuse_unsupported(fields)
    path_style = location.options.get("path-style", fields.get("s3ForcePathStyle", "").lower())
    return open_s3(
        S3Settings(
            bucket=location.bucket,
            endpoint=location.options.get("endpoint", fields.get("endpoint", "")),
            region=location.options.get("region", fields.get("region", "")),
            path_style={"true": True, "false": False}.get(path_style),
            access_key_id=fields.get("accessKeyID", ""),
            secret_access_key=fields.get("secretAccessKey", ""),
        )
    )


def _credentials(location: Location, variables: str) -> Mapping[str, str]:
    """Read the files that the URI names, else those that the peer's variables name; empty for the SDK's chain."""
    candidates = (
        location.options.get("credentials"),
        os.environ.get(f"{variables}_APPLICATION_CREDENTIALS_JSON"),
        os.environ.get(f"{variables}_APPLICATION_CREDENTIALS"),
    )
    path = next(filter(None, candidates), None)
    if path is None:
        return {}
    return read_credentials(Path(path))


def _refuse_unsupported(fields: Mapping[str, str]) -> None:
    unsupported = [name for name in _S3_UNSUPPORTED if fields.get(name)]
    if fields.get("insecureSkipVerify", "").lower() == "true":
        unsupported.append("insecureSkipVerify")
    if unsupported:
        raise ConfigError(
            f"the credentials ask for what this version does not do: {', '.join(unsupported)}",
            hint="a CA goes into AWS_CA_BUNDLE; a role into AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE",
        )
    if fields and not (fields.get("accessKeyID") and fields.get("secretAccessKey")):
        raise ConfigError("the credentials lack accessKeyID or secretAccessKey")


PROVIDERS: Mapping[str, Opener] = {"file": _open_file, "memory": _open_memory, "s3": _open_s3}
