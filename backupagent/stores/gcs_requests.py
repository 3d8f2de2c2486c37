"""Requests of the JSON API of Google Cloud Storage, each made once, with the tokens of google-auth.

Not through ``google.cloud.storage``: version 3.17 asks for the metadata of every bucket in a thread of its own and
repeats that on its own, which a source with List and Get alone would refuse; its downloads hold content twice; and a
request costs it a millisecond of CPU. Nor through the session of google-auth, which costs half of that (ADR 0014).

Source:
    https://cloud.google.com/storage/docs/json_api/v1
"""

import contextlib
import json
import secrets
import threading
from collections.abc import Container, Iterator, Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPResponse
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import anycrc
import requests
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.transport.requests import Request

from backupagent.errors import StoreError, StoreUnavailable
from backupagent.stores.base import Buffer
from backupagent.stores.connections import Connections, ca_bundle_of_requests
from backupagent.stores.gcs_errors import Refusal
from backupagent.stores.gcs_values import FIELDS, Stored, encode_crc32c, read_resource

SERVICE = "https://storage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
CONTENT_TYPE = "application/octet-stream"

MAX_REFUSAL = 64 * 1024
"""Bytes of a refusal that are read; those of the service have a few hundred."""

SMALL = 64 * 1024
"""Bytes of content that are copied, so that the request goes out in one piece."""

_CRC32C = anycrc.Model("CRC32C")
"""Takes any buffer, which google_crc32c does not."""
COPIED = {"copied": "true"}
"""Metadata of a copy that the service made."""


class GcsRequests:
    """Requests to one bucket. Thread-safe.

    Each may raise one of ``gcs_errors.SDK_ERRORS``.

    Args:
        bucket: Its name.
        credentials: Give tokens.
        endpoint: URL of the service; empty for Google's.

    Attributes:
        bucket: Its name.
        service: URL of the service.

    Raises:
        ConfigError: the CAs or the proxy of the environment cannot be used.
    """

    def __init__(self, bucket: str, credentials: Credentials, endpoint: str) -> None:
        url = urlsplit(endpoint.rstrip("/") or SERVICE)
        self.bucket = bucket
        self.service = f"{url.scheme}://{url.netloc}{url.path}"
        self.credentials = credentials
        self._tokens = Request(requests.Session())
        self._renewing = threading.Lock()
        self._host, self._root = url.netloc, url.path
        self._connections = Connections(f"{url.scheme}://{url.netloc}", ca_bundle_of_requests())
        self._bucket_path = f"storage/v1/b/{quote(bucket, safe='')}"
        self._objects = f"{self._bucket_path}/o"
        self.uploads_path = f"upload/{self._objects}"

    def list_objects(self, prefix: str) -> Iterator[Stored]:
        """List objects whose name begins with a string, at most 1,000 for each request, in byte order."""
        token = ""
        while True:
            query = {"prefix": prefix, "fields": f"items({FIELDS}),nextPageToken"}
            answer = self._call("GET", "", query | ({"pageToken": token} if token else {}))
            for item in answer.get("items", ()):
                yield read_resource(item)
            token = answer.get("nextPageToken", "")
            if not token:
                return

    def describe(self, name: str) -> Stored:
        """Describe an object."""
        return read_resource(self._call("GET", name, {"fields": FIELDS}))

    def describe_bucket(self, fields: str) -> Mapping[str, Any]:
        """Describe the bucket; takes the permission ``storage.buckets.get``."""
        return self._ask("GET", self._bucket_path, {"fields": fields})

    def insert(
        self, name: str, content: memoryview, metadata: Mapping[str, str], *, generation: int | None = None
    ) -> Stored:
        """Write an object, whose CRC-32C the service checks.

        Args:
            name: Its name.
            content: All of it.
            metadata: The user's.
            generation: What is to be replaced; 0 for nothing, None for anything.

        Raises:
            StoreUnavailable: the service has other content than was sent.
        """
        crc = sum_crc32c(content)
        properties = {"name": name, "crc32c": encode_crc32c(crc), "metadata": dict(metadata)}
        boundary = secrets.token_hex(16)
        head = (
            f"--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{json.dumps(properties)}\r\n"
            f"--{boundary}\r\ncontent-type: {CONTENT_TYPE}\r\n\r\n"
        )
        answer = self._ask(
            "POST",
            self.uploads_path,
            {"uploadType": "multipart", "fields": FIELDS} | _matching(generation),
            {"content-type": f'multipart/related; boundary="{boundary}"'},
            (head.encode(), content, f"\r\n--{boundary}--".encode()),
        )
        stored = read_resource(answer)
        if stored.crc32c != crc:
            raise StoreUnavailable("the store has other content than was sent", op="put", key=name)
        return stored

    def compose(
        self,
        name: str,
        sources: Sequence[tuple[str, int]],
        metadata: Mapping[str, str],
        *,
        generation: int | None = None,
    ) -> Stored:
        """Write an object that consists of others.

        Args:
            name: Its name.
            sources: Name and generation of the others, in order; no other generation is taken.
            metadata: The user's.
            generation: As for ``insert``.
        """
        body = {
            "sourceObjects": [
                {"name": source, "generation": str(each), "objectPreconditions": {"ifGenerationMatch": str(each)}}
                for source, each in sources
            ],
            "destination": {"contentType": CONTENT_TYPE, "metadata": dict(metadata)},
        }
        return read_resource(
            self._call("POST", name, {"fields": FIELDS} | _matching(generation), verb="/compose", body=body)
        )

    def rewrite(self, name: str, bucket: str, source: str, generation: str) -> Stored:
        """Let the service copy an object; one request, and more while it says that it is not done.

        Args:
            name: Name of the copy.
            bucket: Where the source lies.
            source: Its name.
            generation: No other one of it is taken.

        Source:
            https://cloud.google.com/storage/docs/json_api/v1/objects/rewrite
        """
        there, here = (f"b/{quote(one, safe='')}/o" for one in (bucket, self.bucket))
        path = f"storage/v1/{there}/{quote(source, safe='')}/rewriteTo/{here}/{quote(name, safe='')}"
        query = {"ifSourceGenerationMatch": generation, "fields": f"done,rewriteToken,resource({FIELDS})"}
        # Without metadata of its own the copy would get those of the source.
        body = {"contentType": CONTENT_TYPE, "metadata": COPIED}
        while True:
            with self.post_json(path, query, body) as answer:
                told = decoded(answer)
            if told.get("done"):
                return read_resource(told.get("resource", {}))
            query = query | {"rewriteToken": str(told.get("rewriteToken", ""))}

    def delete(self, name: str, *, generation: int | None = None) -> None:
        """Remove an object, in one generation only when that is given."""
        with self.send("DELETE", f"{self._objects}/{quote(name, safe='')}", _matching(generation)):
            pass

    @contextlib.contextmanager
    def media(self, name: str, *, offset: int, size: int, etag: str) -> Iterator[HTTPResponse]:
        """Give the answer with a range of an object's content, as it is stored; its body is not read yet.

        Args:
            name: The object.
            offset: First byte.
            size: Bytes, at least one.
            etag: The generation that it must have; empty for any.
        """
        headers = {
            "range": f"bytes={offset}-{offset + size - 1}",
            "accept-encoding": "gzip",  # else the service unpacks what is marked as gzip
        }
        path = f"download/{self._objects}/{quote(name, safe='')}"
        query = {"alt": "media"} | ({"ifGenerationMatch": etag} if etag else {})
        with self.send("GET", path, query, headers) as answer:
            if answer.status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
                raise StoreError(f"the answer has the status {answer.status}", op="read", key=name)
            yield answer

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def keeps_deleted(self) -> bool:
        """Whether the bucket keeps what is deleted: by retention, a hold, soft delete or versions."""
        bucket = self.describe_bucket("retentionPolicy,softDeletePolicy,versioning,defaultEventBasedHold")
        soft = bucket.get("softDeletePolicy") or {}
        return bool(
            bucket.get("retentionPolicy")
            or bucket.get("defaultEventBasedHold")
            or int(soft.get("retentionDurationSeconds") or 0)
            or (bucket.get("versioning") or {}).get("enabled")
        )

    def is_held(self, name: str) -> bool:
        """Whether an object cannot be deleted yet."""
        fields = "retentionExpirationTime,eventBasedHold,temporaryHold"
        return any(self._call("GET", name, {"fields": fields}).values())

    def post_json(
        self, path: str, query: Mapping[str, str], body: Mapping[str, Any]
    ) -> contextlib.AbstractContextManager[HTTPResponse]:
        """Send a JSON document and give the answer."""
        return self.send("POST", path, query, {"content-type": "application/json"}, (json.dumps(body).encode(),))

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        body: Sequence[Buffer] = (),
    ) -> contextlib.AbstractContextManager[HTTPResponse]:
        """Send a request and give its answer, as ``send_to`` does.

        Args:
            method: The method of HTTP.
            path: Below the endpoint, percent-encoded.
            query: Parameters, not encoded.
            headers: Names in lower case.
            body: Pieces, sent one behind the other; larger ones without a copy.
        """
        target = f"{self._root}/{path}" + (f"?{urlencode(query, quote_via=quote)}" if query else "")
        return self.send_to(method, target, headers or {}, body)

    @contextlib.contextmanager
    def send_to(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Sequence[Buffer] = (),
        *,
        also: Container[int] = (),
    ) -> Iterator[HTTPResponse]:
        """Send a request and give its answer; leaving the context early closes the connection.

        A token that the service refuses is renewed, and the request made once more, as google-auth does it.

        Args:
            method: The method of HTTP.
            target: Path and query, percent-encoded.
            headers: Names in lower case.
            body: Pieces, sent one behind the other; larger ones without a copy.
            also: What status is no refusal, beside that of success.
        """
        size = sum(memoryview(piece).nbytes for piece in body)
        pieces = [b"".join(body)] if size <= SMALL else body
        again = False
        while True:
            sent = {**headers, "host": self._host, "user-agent": "backupagent"}
            if method in {"POST", "PUT"}:
                sent["content-length"] = str(size)
            self._authorize(method, target, sent)
            with self._connections.request(method, target, sent, pieces if size else None) as answer:
                if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES or answer.status in also:
                    yield answer
                    return
                refusal = Refusal(answer.status, answer.headers, answer.read(MAX_REFUSAL))
            again = not again and answer.status == HTTPStatus.UNAUTHORIZED and self._renew(sent)
            if not again:
                raise refusal

    def _authorize(self, method: str, target: str, headers: dict[str, str]) -> None:
        with self._renewing:  # one thread gets a new token, the others wait for it
            self.credentials.before_request(self._tokens, method, target, headers)

    def _renew(self, refused: Mapping[str, str]) -> bool:
        """Get a new token instead of a refused one, unless another thread has got it already."""
        if isinstance(self.credentials, AnonymousCredentials):
            return False
        with self._renewing:
            if refused.get("authorization") == f"Bearer {self.credentials.token}":
                self.credentials.refresh(self._tokens)
        return True

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        body: Sequence[Buffer] = (),
    ) -> Mapping[str, Any]:
        with self.send(method, path, query, headers, body) as answer:
            return decoded(answer)

    def _call(
        self, method: str, name: str, query: Mapping[str, str], *, verb: str = "", body: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        path = self._objects + (f"/{quote(name, safe='')}{verb}" if name else "")
        if body is None:
            return self._ask(method, path, query)
        with self.post_json(path, query, body) as answer:
            return decoded(answer)


def sum_crc32c(content: Buffer) -> int:
    """Return the CRC-32C of a buffer."""
    crc: int = _CRC32C.calc(content)
    return crc


def decoded(answer: HTTPResponse) -> Mapping[str, Any]:
    """Read the JSON object of an answer.

    Raises:
        StoreUnavailable: it is no JSON, but what something on the way says.
        StoreError: it is no object.
    """
    try:
        found = json.loads(answer.read())
    except (ValueError, RecursionError) as error:
        raise StoreUnavailable("the answer is not JSON", op="read the answer") from error
    if not isinstance(found, dict):
        raise StoreError("the answer is not a JSON object", op="read the answer")
    return found


def _matching(generation: int | None) -> dict[str, str]:
    return {} if generation is None else {"ifGenerationMatch": str(generation)}
