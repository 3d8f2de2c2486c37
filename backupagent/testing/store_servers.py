"""The emulators of Azure Blob and Google Cloud Storage.

::

    with AzuriteServer() as azurite, FakeGcsServer() as gcs:
        azurite.make_container("backups")
        ...  # azurite.endpoint_url, azurite.account, azurite.key
        gcs.make_bucket("backups")
        ...  # gcs.endpoint_url; it asks nobody for credentials
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qsl

from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.testing.server_binaries import require
from backupagent.testing.server_process import LocalServer, http_get, http_request


class AzuriteServer(LocalServer):
    """An Azurite with one account and a key of its own, for blobs only, without any call to the outside.

    What it cannot prove, because it does not implement or does not check it: immutability policies, the signature
    and the MD5 of a URL that it copies from, token credentials, accounts with a hierarchical namespace. It computes a
    CRC-64 in JavaScript, 0.2 s for 8 MiB.

    Args:
        data_dir: Where it keeps its blobs, made when absent; by default a temporary one that ``close`` removes.
        binary: Path of the binary, or a name for ``require``.
        host: Loopback address to listen on.
        port: Port; None for any free one.
        log_path: Where its output goes, appended; by default a temporary file.
        clock: Source of time.

    Raises:
        ServerMissing: there is no such binary.
    """

    API_VERSION = "2021-12-02"
    """Of the requests that are made here."""

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        binary: Path | str = "azurite-blob",
        host: str = "127.0.0.1",
        port: int | None = None,
        log_path: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.binary = require(binary) if isinstance(binary, str) else binary
        super().__init__("azurite", host=host, ports={"blob": port}, log_path=log_path, clock=clock)
        self.data_dir = data_dir or self.scratch / "data"
        self.account = f"account{secrets.token_hex(4)}"
        self.key = base64.b64encode(secrets.token_bytes(32)).decode()

    @property
    def endpoint(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port('blob')}"

    @property
    def endpoint_url(self) -> str:
        """URL of the account."""
        return f"http://{self.endpoint}/{self.account}"

    def is_ready(self) -> bool:
        """Whether this very server answers: only it knows the key that signs the request."""
        return self._signed_request("GET", "", "comp=list")[0] == HTTPStatus.OK

    def make_container(self, name: str) -> None:
        """Make a container.

        Args:
            name: 3 to 63 lower case letters, digits and dashes.

        Raises:
            ServerFailed: the server refused, for example because there is one of that name.
        """
        status, body = self._signed_request("PUT", f"/{name}", "restype=container")
        if status != HTTPStatus.CREATED:
            raise self._failed(f"did not make the container {name!r}: {status} {body.decode(errors='replace')}")

    def _command(self) -> list[str | Path]:
        return [
            self.binary,
            "--blobHost", self.host,
            "--blobPort", str(self.port("blob")),
            "--location", self.data_dir,
            "--disableTelemetry",
            "--skipApiVersionCheck",  # SDKs are ahead of it
            "--silent",
        ]  # fmt: skip

    def _environment(self) -> Mapping[str, str]:
        return {"AZURITE_ACCOUNTS": f"{self.account}:{self.key}"}

    def _signed_request(self, method: str, path: str, query: str) -> tuple[int, bytes]:
        """Make a request without content, signed with Shared Key.

        Source:
            https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
        """
        target = f"/{self.account}{path}"
        sent = {
            "x-ms-date": self._clock.now().strftime("%a, %d %b %Y %H:%M:%S GMT"),
            "x-ms-version": self.API_VERSION,
        }
        lines = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent))
        parameters = "".join(f"\n{name}:{value}" for name, value in sorted(parse_qsl(query)))
        empty_headers = "\n" * 12
        text = f"{method}{empty_headers}{lines}/{self.account}{target}{parameters}"
        signature = base64.b64encode(hmac.digest(base64.b64decode(self.key), text.encode(), hashlib.sha256)).decode()
        headers = {**sent, "authorization": f"SharedKey {self.account}:{signature}", "content-length": "0"}
        return http_request(method, self.host, self.port("blob"), f"{target}?{query}", headers=headers)


class FakeGcsServer(LocalServer):
    """A fake-gcs-server with its objects in memory: they are gone when it ends. It asks nobody for credentials.

    What it cannot prove, because it does not check it: credentials, the CRC-32C that a client gives, holds and
    retention, any precondition of compose, rewrite and delete. Of a session that is asked for its state it makes an
    object, and it cancels none.

    Args:
        binary: Path of the binary, or a name for ``require``.
        host: Loopback address to listen on.
        port: Port; None for any free one.
        log_path: Where its output goes, appended; by default a temporary file.
        clock: Source of time.

    Raises:
        ServerMissing: there is no such binary.
    """

    def __init__(
        self,
        *,
        binary: Path | str = "fake-gcs-server",
        host: str = "127.0.0.1",
        port: int | None = None,
        log_path: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.binary = require(binary) if isinstance(binary, str) else binary
        super().__init__("fake-gcs", host=host, ports={"gcs": port}, log_path=log_path, clock=clock)
        self._mark = f"this-is-{secrets.token_hex(8)}"
        (self.scratch / "seed" / self._mark).mkdir(parents=True)

    @property
    def endpoint(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port('gcs')}"

    @property
    def endpoint_url(self) -> str:
        """URL for clients."""
        return f"http://{self.endpoint}"

    def is_ready(self) -> bool:
        """Whether this very server answers: only it began with a bucket of this name."""
        return http_get(self.host, self.port("gcs"), f"/storage/v1/b/{self._mark}")[0] == HTTPStatus.OK

    def make_bucket(self, name: str, *, versioning: bool = False) -> None:
        """Make a bucket.

        Args:
            name: Its name.
            versioning: Keep what is deleted or replaced as an older version.

        Raises:
            ServerFailed: the server refused, for example because there is one of that name.
        """
        status, body = http_request(
            "POST",
            self.host,
            self.port("gcs"),
            "/storage/v1/b?project=test",
            headers={"content-type": "application/json"},
            body=json.dumps({"name": name, "versioning": {"enabled": versioning}}).encode(),
        )
        if status != HTTPStatus.OK:
            raise self._failed(f"did not make the bucket {name!r}: {status} {body.decode(errors='replace')}")

    def _command(self) -> list[str | Path]:
        return [
            self.binary,
            "-scheme=http",
            f"-host={self.host}",
            f"-port={self.port('gcs')}",
            "-backend=memory",
            f"-data={self.scratch / 'seed'}",
            f"-external-url={self.endpoint_url}",
            f"-public-host={self.endpoint}",
            "-log-level=warn",
        ]

    def _environment(self) -> Mapping[str, str]:
        return {}
