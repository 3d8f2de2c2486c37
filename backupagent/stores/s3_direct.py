"""The hot requests of S3, without the SDK's machinery, which takes most of a millisecond of CPU for each (ADR 0003).

The SDK still decides where a bucket is, how it is addressed, and with whose credentials.
"""

import contextlib
import io
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import BadStatusLine, HTTPResponse
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials
from botocore.exceptions import NoCredentialsError
from urllib3 import HTTPResponse as NoAnswer

from backupagent.stores.connections import Connections
from backupagent.stores.s3_errors import refusal
from backupagent.stores.s3_signature import Signer

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_UNRESERVED = "-_.~"
"""What SigV4 leaves as it is, with letters and digits; in a path also the slash."""

_MAX_REFUSAL = 64 * 1024
"""Bytes of a refusal that are read; those of S3 have a few hundred."""


@dataclass(frozen=True)
class _Route:
    """Where the requests of a bucket go.

    Attributes:
        host: As the header and the signature name it.
        path: What comes before a key, percent-encoded.
        agent: The SDK's name for itself.
        signer: Signs for the region of the bucket.
        connections: To the server, or its proxy.
    """

    host: str
    path: str
    agent: str
    signer: Signer
    connections: Connections


class DirectRequests:
    """Signed requests to the objects of one bucket; each is made once. Thread-safe.

    Args:
        client: The SDK's client, which knows endpoint, region and addressing.
        credentials: The SDK's, refreshed by it; None when it found none.
        bucket: Name of the bucket.
        trusted: See ``Connections``.
    """

    def __init__(
        self, client: "S3Client", credentials: Credentials | None, bucket: str, trusted: str | Literal[False]
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._bucket = bucket
        self._trusted = trusted
        self._lock = threading.Lock()
        self._known: _Route | None = None

    @contextlib.contextmanager
    def send(
        self,
        method: str,
        key: str,
        headers: Mapping[str, str],
        *,
        query: Mapping[str, object] | None = None,
        body: memoryview | None = None,
    ) -> Iterator[HTTPResponse]:
        """Send a request and give its answer; leaving the context early closes the connection.

        Args:
            method: The method of HTTP.
            key: The object.
            headers: Names in lower case, to printable ASCII.
            query: Parameters, sorted by name.
            body: Is sent as it is, without a copy.

        Raises:
            Exception: one of ``s3_errors.SDK_ERRORS``; a refusal as the SDK would raise it.
        """
        if self._credentials is None:
            raise NoCredentialsError
        credentials = self._credentials.get_frozen_credentials()
        route = self._route()
        path = route.path + quote(key, safe=f"/{_UNRESERVED}")
        search = "&".join(f"{name}={quote(str(value), safe=_UNRESERVED)}" for name, value in (query or {}).items())
        signed = route.signer.sign(credentials, method, path, search, {"host": route.host, **headers})
        signed["user-agent"] = route.agent
        target = f"{path}?{search}" if search else path
        with route.connections.request(method, target, signed, body) as answer:
            if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
                yield answer
                return
            content = answer.read(_MAX_REFUSAL)
        if answer.status <= HTTPStatus.MULTIPLE_CHOICES:
            raise BadStatusLine(str(answer.status))  # nothing that S3 answers
        raise refusal(answer.status, dict(answer.headers), content)

    def close(self) -> None:
        """Close the connections."""
        if self._known:
            self._known.connections.close()

    def _route(self) -> _Route:
        with self._lock:
            self._known = self._known or _find_route(self._client, self._bucket, self._trusted)
            return self._known


def _find_route(client: "S3Client", bucket: str, trusted: str | Literal[False]) -> _Route:
    """Let the SDK make a request for an object, and read from it what to do, instead of sending it.

    So the rules of endpoints stay with the SDK: regions and redirections it has learned, partitions, dual stack,
    access points, the addressing of buckets whose name is no host name. A presigned URL would tell less: where the
    style of addressing is left to the SDK, it names the global endpoint (botocore 1.44.5).
    """
    seen: list[AWSPreparedRequest] = []

    def keep(request: AWSPreparedRequest, **_: Any) -> Any:  # noqa: ANN401 - the SDK's event
        seen.append(request)
        return AWSResponse(request.url, HTTPStatus.OK, HTTPHeaders(), NoAnswer(io.BytesIO(), preload_content=False))

    event = "before-send.s3.HeadObject"
    client.meta.events.register(event, keep)
    try:
        client.head_object(Bucket=bucket, Key="k")
    finally:
        client.meta.events.unregister(event, keep)
    (request,) = seen
    url = urlsplit(request.url)
    host = url.netloc.removesuffix({"http": ":80", "https": ":443"}[url.scheme])
    _, region, service, _ = _text(request.headers["Authorization"]).partition(",")[0].rsplit("/", 3)
    return _Route(
        host=host,
        path=url.path.removesuffix("k"),
        agent=_text(request.headers["User-Agent"]),
        signer=Signer(region, service),
        connections=Connections(f"{url.scheme}://{host}", trusted),
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
