"""What it takes to reach a bucket of S3."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from backupagent.errors import ConfigError

KEY_SIZE = 32
"""Bytes of a customer's key: AES-256 is all there is."""

_SSE = "server-side-encryption-customer"


class Checksums(StrEnum):
    """When checksums beyond what the protocol asks for are used, in the words of the SDKs.

    Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-dataintegrity.html
    """

    WHEN_SUPPORTED = "when_supported"
    WHEN_REQUIRED = "when_required"


@dataclass(frozen=True)
class CustomerKey:
    """A key of the customer's own, which the store encrypts with and forgets (SSE-C).

    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/ServerSideEncryptionCustomerKeys.html

    Attributes:
        key: Its 32 bytes.
        algorithm: The store's name of the cipher.
    """

    key: bytes = field(repr=False)
    algorithm: str = "AES256"

    @classmethod
    def from_text(cls, text: str, algorithm: str) -> "CustomerKey":
        """Read a key as files of credentials hold it: in base64, or the 32 characters themselves.

        Raises:
            ConfigError: it is neither.
        """
        key = text.encode()
        if len(key) != KEY_SIZE:
            try:
                key = base64.b64decode(key, validate=True)
            except ValueError:
                key = b""
        if len(key) != KEY_SIZE:
            raise ConfigError(f"sseCustomerKey is not a key of {KEY_SIZE} bytes, nor one in base64") from None
        return cls(key, algorithm)

    def headers(self, *, of_source: bool = False) -> Mapping[str, str]:
        """Return the headers of a request, by names in lower case.

        Args:
            of_source: For the object that a server-side copy reads.
        """
        start = f"x-amz-copy-source-{_SSE}" if of_source else f"x-amz-{_SSE}"
        algorithm, key, md5 = self.parameters().values()
        return {f"{start}-algorithm": algorithm, f"{start}-key": key, f"{start}-key-md5": md5}

    def parameters(self) -> Mapping[str, str]:
        """Return the parameters of a call of the SDK; with the digest, so that it takes all of them as they are."""
        return {
            "SSECustomerAlgorithm": self.algorithm,
            "SSECustomerKey": base64.b64encode(self.key).decode(),
            "SSECustomerKeyMD5": base64.b64encode(hashlib.md5(self.key, usedforsecurity=False).digest()).decode(),
        }


@dataclass(frozen=True)
class Role:
    """A role that is taken on with a token of another identity service (web identity, workload identity).

    Attributes:
        arn: Its name.
        token_file: Holds the token; read anew each time, because it is rotated.
        token: The token, where there is no file.
    """

    arn: str
    token_file: Path | None = None
    token: str = field(default="", repr=False)


@dataclass(frozen=True)
class Trust:
    """Whose certificates are trusted; by default the CAs that the SDK's environment names, else those it brings.

    Attributes:
        ca_file: File or directory with the CAs.
        ca_pem: The CAs themselves, where there is no file.
        verify: Whether certificates are checked at all.
    """

    ca_file: str = ""
    ca_pem: str = ""
    verify: bool = True


@dataclass(frozen=True)
class S3Settings:
    """What it takes to reach a bucket.

    Attributes:
        bucket: Its name.
        endpoint: URL of the service; empty for AWS.
        region: Empty to let the SDK find it.
        path_style: Put the bucket into the path of the URL instead of its host; None lets the SDK decide.
        access_key_id: Empty to let the SDK find credentials.
        secret_access_key: Goes with it.
        role: Comes in place of the keys.
        trust: Whose certificates are trusted.
        customer_key: What the store encrypts with.
        storage_class: Of what is written; empty for the bucket's own.
        request_checksums: Whether what is written carries a CRC-32; else it carries an MD5, which every store checks.
        response_checksums: Passed on to the SDK.
    """

    bucket: str
    endpoint: str = ""
    region: str = ""
    path_style: bool | None = None
    access_key_id: str = field(default="", repr=False)
    secret_access_key: str = field(default="", repr=False)
    role: Role | None = None
    trust: Trust = Trust()
    customer_key: CustomerKey | None = None
    storage_class: str = ""
    request_checksums: Checksums = Checksums.WHEN_SUPPORTED
    response_checksums: Checksums = Checksums.WHEN_REQUIRED
