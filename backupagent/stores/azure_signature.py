"""What authorizes a direct request to Azure Blob Storage: the account's key or a token, both the SDK's credentials.

Source of the formats:
    https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
    https://learn.microsoft.com/rest/api/storageservices/authorize-with-azure-active-directory
"""

import base64
import hmac
import threading
from collections.abc import Mapping
from typing import Protocol

from azure.core.credentials import AccessToken, AzureNamedKeyCredential, TokenCredential

from backupagent.clock import Clock

SCOPE = "https://storage.azure.com/.default"
"""What a token is for."""

RENEW_BEFORE_S = 300
"""How long before its end a token is renewed, as the SDK does it."""

_SIGNED = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
    "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip
"""Headers whose values stand in what is signed, in this order, without their names."""


class Authorization(Protocol):
    """Gives the Authorization header of requests."""

    def header(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
        """Return the header's value; empty for none.

        Args:
            method: The method of HTTP.
            path: As it is sent, percent-encoded.
            query: Parameters, not encoded, names in lower case.
            headers: Names in lower case; all that are sent but ``host``; ``content-length`` unless it is 0.
        """
        ...


class Anonymous:
    """Gives none."""

    def header(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
        """Return nothing."""
        del method, path, query, headers
        return ""


class SharedKey:
    """Signs with the key of an account, which may be replaced in the credential at any time. Thread-safe.

    Args:
        credential: Account and key.
    """

    def __init__(self, credential: AzureNamedKeyCredential) -> None:
        self._credential = credential

    def header(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
        """Sign a request.

        The service sorts header names by rules of its own, which differ from plain order only where a dash meets a
        letter; none of our headers' names do.
        """
        account, key = self._credential.named_key
        lines = [method, *(headers.get(name, "") for name in _SIGNED)]
        lines += [f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-ms-")]
        lines += [f"/{account}{path}", *(f"{name}:{query[name]}" for name in sorted(query))]
        signature = hmac.digest(base64.b64decode(key), "\n".join(lines).encode(), "sha256")
        return f"SharedKey {account}:{base64.b64encode(signature).decode()}"


class Tokens:
    """Gives the token of a credential, renewed in time by whoever comes first. Thread-safe.

    Args:
        credential: The SDK's.
        clock: Tells when a token ends.
    """

    def __init__(self, credential: TokenCredential, clock: Clock) -> None:
        self._credential = credential
        self._clock = clock
        self._lock = threading.Lock()
        self._token = AccessToken("", 0)

    def header(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
        """Return the token.

        Raises:
            azure.core.exceptions.AzureError: none was given.
        """
        del method, path, query, headers
        with self._lock:
            if self._token.expires_on - self._clock.now().timestamp() < RENEW_BEFORE_S:
                self._token = self._credential.get_token(SCOPE)
            return f"Bearer {self._token.token}"


def authorization(credential: AzureNamedKeyCredential | TokenCredential | None, clock: Clock) -> Authorization:
    """Return what authorizes requests with one of the SDK's credentials; None for an anonymous reader."""
    if credential is None:
        return Anonymous()
    return SharedKey(credential) if isinstance(credential, AzureNamedKeyCredential) else Tokens(credential, clock)
