"""What the openers of all providers get, and where they find credentials."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backupagent.clock import Clock
from backupagent.stores.credentials import read_credentials
from backupagent.stores.location import Location

SERVICES: Mapping[str, str] = {
    "s3": "AWS",
    "az": "AZURE",
    "gs": "GOOGLE",
    "ecs": "ECS",
    "ocs": "OPENSHIFT",
    "oss": "ALICLOUD",
}
"""What stands before ``_APPLICATION_CREDENTIALS`` in the peer's environment variables, by scheme of our URIs or by
their option ``service``; a scheme that is not here asks nobody for credentials."""


@dataclass(frozen=True)
class Opening:
    """The arguments of ``open_store``, which describes them."""

    location: Location
    clock: Clock
    variable_prefix: str
    create: bool
    credentials: Mapping[str, str] | None = field(repr=False)

    def credentials_path(self, service: str) -> Path | None:
        """Return the file or directory that the URI names, else the one that the peer's variables name.

        Args:
            service: What stands before ``_APPLICATION_CREDENTIALS`` in their names.
        """
        return credentials_path(self.location, service, self.variable_prefix)

    def fields(self, service: str) -> Mapping[str, str]:
        """Return the peer's credential fields, from memory or from files; empty for the SDK's own chain.

        Raises:
            ConfigError: they cannot be read.
        """
        if self.credentials is not None:
            return self.credentials
        path = self.credentials_path(service)
        return {} if path is None else read_credentials(path)


def service_of(location: Location) -> str:
    """Return what stands before ``_APPLICATION_CREDENTIALS`` for a store; empty when it asks for no credentials."""
    return SERVICES.get(location.options.get("service", location.provider), "")


def credentials_path(location: Location, service: str, variable_prefix: str) -> Path | None:
    """Return the file or directory that a URI names, else the one that the peer's variables name.

    Args:
        location: The URI.
        service: What stands before ``_APPLICATION_CREDENTIALS`` in the names of the variables.
        variable_prefix: What stands before that; without it they are looked for next: a copy inside of one account
            needs them once.
    """
    named = [location.options.get("credentials", "")]
    for prefix in dict.fromkeys((variable_prefix, "")):
        variable = f"{prefix}{service}_APPLICATION_CREDENTIALS"
        named += [os.environ.get(f"{variable}_JSON", ""), os.environ.get(variable, "")]
    path = next(filter(None, named), None)
    return None if path is None else Path(path)
