"""From the URI and the peer's credentials to an Azure store."""

import base64
import binascii
import re

from azure.core.credentials import AzureNamedKeyCredential, TokenCredential

from backupagent.errors import ConfigError
from backupagent.stores.azure import AzureSettings, AzureStore, open_azure
from backupagent.stores.opening import Opening

DEFAULT_DOMAIN = "blob.core.windows.net"

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
"""Source: https://learn.microsoft.com/azure/storage/common/storage-account-overview#storage-account-name"""

_DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")


def open_location(opening: Opening) -> AzureStore:
    """Open a container; makes no request.

    The account is ``?account=`` or ``storageAccount``; the service ``?endpoint=``, else the account's host in
    ``domain``, else in the public cloud; the key ``storageKey``, else azure-identity finds a token.

    Raises:
        ConfigError: the credentials cannot be used, or the account is not named.
    """
    options = opening.location.options
    fields = opening.fields("AZURE")
    account = options.get("account", fields.get("storageAccount", ""))
    key = fields.get("storageKey", "")
    if fields and not (account and key):
        raise ConfigError("the credentials lack storageAccount or storageKey")
    if not _ACCOUNT.fullmatch(account):
        reason = "is not named" if not account else "is not of 3 to 24 lower case letters and digits"
        raise ConfigError(f"the storage account {reason}", hint="write az://CONTAINER/PREFIX?account=ACCOUNT")
    domain = fields.get("domain", "") or DEFAULT_DOMAIN
    if not _DOMAIN.fullmatch(domain):
        raise ConfigError("the domain in the credentials is no host name")
    endpoint = options.get("endpoint", "")
    container = opening.location.bucket
    shown = f"endpoint={endpoint}" if endpoint else f"account={account}"
    settings = AzureSettings(
        container=container,
        account_url=endpoint or f"https://{account}.{domain}",
        display=f"az://{container}?{shown}",
        prefix=opening.location.prefix,
        credential=_key(account, key) if key else _ambient(),
    )
    return open_azure(settings, opening.clock)


def _key(account: str, key: str) -> AzureNamedKeyCredential:
    try:
        base64.b64decode(key, validate=True)
    except binascii.Error:
        raise ConfigError("storageKey in the credentials is not base64") from None
    return AzureNamedKeyCredential(account, key)


def _ambient() -> TokenCredential:
    """Find a token as Azure's own tools do: environment, workload identity, managed identity, command line."""
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - 0.2 s, and not needed with a key

    return DefaultAzureCredential()
