"""Signature version 4 of AWS for requests whose content is not hashed.

Source of the format: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from botocore.credentials import ReadOnlyCredentials

from backupagent.clock import SYSTEM_CLOCK, Clock

UNSIGNED = "UNSIGNED-PAYLOAD"
"""Stands for the hash of the content, which a CRC-32 guards instead."""

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class _Key:
    """A derived key and what it was derived from; it holds for a day."""

    date: str
    secret: str = field(repr=False)
    digest: bytes = field(repr=False)


class Signer:
    """Signs requests to one service in one region. Thread-safe.

    Args:
        region: Region to sign for.
        service: Service to sign for, as AWS names it.
        clock: Source of time; the store allows it to be wrong by 15 minutes.
    """

    def __init__(self, region: str, service: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._region = region
        self._service = service
        self._clock = clock
        self._key = _Key("", "", b"")

    def sign(
        self, credentials: ReadOnlyCredentials, method: str, path: str, query: str, headers: Mapping[str, str]
    ) -> dict[str, str]:
        """Return the headers with the signature and all it needs.

        Args:
            credentials: Whose signature; read once by the caller, so that key and secret belong together.
            method: The method of HTTP.
            path: As it is sent, percent-encoded once.
            query: As it is sent, percent-encoded and sorted.
            headers: Names in lower case, ``host`` among them, to printable ASCII; all are signed.
        """
        time = self._clock.now().strftime("%Y%m%dT%H%M%SZ")
        signed = {**headers, "x-amz-content-sha256": UNSIGNED, "x-amz-date": time}
        if credentials.token:
            signed["x-amz-security-token"] = credentials.token
        names = sorted(signed)
        lines = [f"{name}:{' '.join(signed[name].split())}" for name in names]
        request = "\n".join([method, path, query, *lines, "", ";".join(names), UNSIGNED])
        scope = f"{time[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"{_ALGORITHM}\n{time}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = _mac(self._key_of(time[:8], credentials.secret_key or ""), text).hex()
        signed["authorization"] = (
            f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={';'.join(names)}, Signature={signature}"
        )
        return signed

    def _key_of(self, date: str, secret: str) -> bytes:
        key = self._key
        if (key.date, key.secret) != (date, secret):
            digest = f"AWS4{secret}".encode()
            for word in (date, self._region, self._service, "aws4_request"):
                digest = _mac(digest, word)
            self._key = key = _Key(date, secret, digest)
        return key.digest


def _mac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
