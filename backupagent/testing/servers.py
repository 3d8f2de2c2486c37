"""The real servers of tests, benchmarks and the demo: etcd and MinIO.

::

    with EtcdServer(binary="etcd-3.5") as etcd, MinioServer() as minio:
        minio.make_bucket("backups")
        ...  # etcd.endpoint, minio.endpoint_url, minio.access_key, minio.secret_key

Adding a server: a folder in ``tests/servers`` that builds its binary and a ``LocalServer`` here. It knows how to
start a server and how to ask whether it serves, nothing of what the server is for.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.testing.server_binaries import ServerMissing, binary_version, find_binary, require
from backupagent.testing.server_process import (
    LocalServer,
    ServerFailed,
    clean_environment,
    free_ports,
    http_get,
    http_request,
)

__all__ = [
    "EtcdServer",
    "LocalServer",
    "MinioServer",
    "ServerFailed",
    "ServerMissing",
    "binary_version",
    "clean_environment",
    "find_binary",
    "free_ports",
    "require",
]

NO_FSYNC_SINCE = (3, 5)
"""First etcd with ``--unsafe-no-fsync``."""


class EtcdServer(LocalServer):
    """One etcd member, without TLS.

    For a cluster, give each member its ``host`` or ``peer_port`` and the common ``initial_cluster``, call
    ``start(wait=False)`` on all and then ``wait_ready()``. A data directory that holds a member (made by a restore,
    say) is started as it is; etcd then ignores the ``initial_*`` values.

    Args:
        binary: Path of the binary, or a name for ``require``.
        data_dir: Data directory, made when absent; by default a temporary one that ``close`` removes.
        name: Member name.
        extra_args: Further arguments, last on the command line.
        initial_cluster: ``name=url,...``; by default this member alone.
        initial_cluster_token: Token of the cluster; by default etcd's own.
        initial_advertise_peer_urls: Comma separated; by default ``peer_url``.
        host: Loopback address to listen on.
        client_port: Port for clients; None for any free one.
        peer_port: Port for members; None for any free one.
        unsafe_no_fsync: Skip fsync where this etcd can (3.5 and newer).
        log_path: Where its output goes, appended; by default a temporary file.
        clock: Source of time.

    Raises:
        ServerMissing: there is no such binary.
    """

    def __init__(  # noqa: PLR0913 - etcd's own flags, all optional
        self,
        binary: Path | str = "etcd",
        data_dir: Path | None = None,
        name: str = "default",
        *,
        extra_args: Sequence[str] = (),
        initial_cluster: str | None = None,
        initial_cluster_token: str | None = None,
        initial_advertise_peer_urls: str | None = None,
        host: str = "127.0.0.1",
        client_port: int | None = None,
        peer_port: int | None = None,
        unsafe_no_fsync: bool = True,
        log_path: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.binary = require(binary) if isinstance(binary, str) else binary
        ports = {"client": client_port, "peer": peer_port}
        super().__init__("etcd", host=host, ports=ports, log_path=log_path, clock=clock)
        self.data_dir = data_dir or self.scratch / "data"
        self.member_name = name
        self._extra_args = tuple(extra_args)
        self._initial_cluster = initial_cluster
        self._initial_cluster_token = initial_cluster_token
        self._initial_advertise_peer_urls = initial_advertise_peer_urls
        self._no_fsync = unsafe_no_fsync and binary_version(self.binary)[:2] >= NO_FSYNC_SINCE

    @property
    def endpoint(self) -> str:
        """``host:port`` for clients."""
        return f"{self.host}:{self.port('client')}"

    @property
    def url(self) -> str:
        """URL for clients."""
        return f"http://{self.endpoint}"

    @property
    def peer_url(self) -> str:
        """URL for other members."""
        return f"http://{self.host}:{self.port('peer')}"

    def is_ready(self) -> bool:
        """Whether this very server answers; another one may have taken its port."""
        if self._ask("/health").get("health") != "true":
            return False
        return self._ask("/debug/vars").get("cmdline") == [str(word) for word in self._command()]

    def _ask(self, path: str) -> Mapping[str, object]:
        status, body = http_get(self.host, self.port("client"), path)
        try:
            answer: object = json.loads(body) if status == HTTPStatus.OK else None
        except ValueError:
            answer = None  # whoever that is, it is not an etcd
        return answer if isinstance(answer, dict) else {}

    def _command(self) -> list[str | Path]:
        token = self._initial_cluster_token
        return [
            self.binary,
            f"--name={self.member_name}",
            f"--data-dir={self.data_dir}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self._initial_advertise_peer_urls or self.peer_url}",
            f"--initial-cluster={self._initial_cluster or f'{self.member_name}={self.peer_url}'}",
            *([f"--initial-cluster-token={token}"] if token else []),
            *(["--unsafe-no-fsync"] if self._no_fsync else []),
            *self._extra_args,
        ]

    def _environment(self) -> Mapping[str, str]:
        return {}


class MinioServer(LocalServer):
    """A MinIO with one drive: an S3 store of its own, without console and without any call to the outside.

    Args:
        data_dir: Where it keeps its objects, made when absent; by default a temporary one that ``close`` removes.
        binary: Path of the binary, or a name for ``require``.
        host: Loopback address to listen on.
        port: Port; None for any free one.
        log_path: Where its output goes, appended; by default a temporary file.
        clock: Source of time.

    Raises:
        ServerMissing: there is no such binary.
    """

    REGION = "us-east-1"

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        binary: Path | str = "minio",
        host: str = "127.0.0.1",
        port: int | None = None,
        log_path: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.binary = require(binary) if isinstance(binary, str) else binary
        super().__init__("minio", host=host, ports={"s3": port}, log_path=log_path, clock=clock)
        self.data_dir = data_dir or self.scratch / "data"
        self.access_key = secrets.token_hex(8)
        self.secret_key = secrets.token_hex(20)

    @property
    def endpoint(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port('s3')}"

    @property
    def endpoint_url(self) -> str:
        """URL for S3 clients, which must put the bucket into the path."""
        return f"http://{self.endpoint}"

    def is_ready(self) -> bool:
        """Whether this very server answers: only it knows the key that signs the request."""
        status, _ = http_get(self.host, self.port("s3"), "/minio/health/ready")
        return status == HTTPStatus.OK and self._signed_request("GET", "/")[0] == HTTPStatus.OK

    def make_bucket(self, name: str, *, object_lock: bool = False) -> None:
        """Make a bucket.

        Args:
            name: Name of the bucket; letters, digits, dots and dashes.
            object_lock: Whether objects in it can be locked (which also turns versioning on).

        Raises:
            ServerFailed: the server refused, for example because there is one of that name.
        """
        headers = {"x-amz-bucket-object-lock-enabled": "true"} if object_lock else {}
        status, body = self._signed_request("PUT", f"/{name}", headers)
        if status != HTTPStatus.OK:
            raise self._failed(f"did not make the bucket {name!r}: {status} {body.decode(errors='replace')}")

    def _command(self) -> list[str | Path]:
        return [self.binary, "server", "--quiet", f"--address={self.endpoint}", self.data_dir]

    def _environment(self) -> Mapping[str, str]:
        return {
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_CALLHOME_ENABLE": "off",
        }

    def _signed_request(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Make a request without content, signed as AWS Signature Version 4 asks for.

        Source:
            https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
        """
        now = self._clock.now().strftime("%Y%m%dT%H%M%SZ")
        empty = hashlib.sha256(b"").hexdigest()
        sent = {"host": self.endpoint, "x-amz-content-sha256": empty, "x-amz-date": now, **(headers or {})}
        names = ";".join(sorted(sent))
        lines = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent))
        scope = f"{now[:8]}/{self.REGION}/s3/aws4_request"
        request = hashlib.sha256(f"{method}\n{path}\n\n{lines}\n{names}\n{empty}".encode()).hexdigest()
        key = f"AWS4{self.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{request}".encode(), "sha256").hex()
        credential = f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}"
        sent["authorization"] = f"{credential}, SignedHeaders={names}, Signature={signature}"
        return http_request(method, self.host, self.port("s3"), path, headers=sent)
