"""Requests of the JSON API of Google Cloud Storage, each made once, through the session of google-auth.

Not through ``google.cloud.storage``: version 3.17 asks for the metadata of every bucket in a thread of its own and
repeats that on its own, which a source with List and Get alone would refuse; its downloads hold content twice; and a
request costs it a millisecond of CPU.

Source:
    https://cloud.google.com/storage/docs/json_api/v1
"""

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import requests
from google.auth.credentials import Credentials
from google.auth.transport.requests import AuthorizedSession, Request
from requests.adapters import HTTPAdapter

from backupagent import crc32c
from backupagent.errors import StoreError, StoreUnavailable
from backupagent.stores.gcs_errors import Refusal
from backupagent.stores.gcs_values import FIELDS, Stored, encode_crc32c, read_resource

SERVICE = "https://storage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
MAX_CONNECTIONS = 64
TIMEOUT_S = (10, 60)
"""For connecting, and the longest silence."""

CONTENT_TYPE = "application/octet-stream"

CRC_PIECE = 1024 * 1024
"""Bytes that are summed at a time: google_crc32c takes ``bytes`` only, and a part is not to be held twice more."""


class GcsRequests:
    """Requests to one bucket. Thread-safe, as sessions of requests are in use.

    Each may raise one of ``gcs_errors.SDK_ERRORS``.

    Args:
        bucket: Its name.
        credentials: Give tokens.
        endpoint: URL of the service; empty for Google's.
    """

    def __init__(self, bucket: str, credentials: Credentials, endpoint: str) -> None:
        # A session of its own for tokens: the one that google-auth would make repeats requests.
        self._session = AuthorizedSession(credentials, auth_request=Request(requests.Session()))
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=MAX_CONNECTIONS))
        self._base = endpoint.rstrip("/") or SERVICE
        self._objects = f"storage/v1/b/{quote(bucket, safe='')}/o"

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
        crc = 0
        for at in range(0, len(content), CRC_PIECE):
            crc = crc32c.extend(crc, bytes(content[at : at + CRC_PIECE]))
        properties = {"name": name, "crc32c": encode_crc32c(crc), "metadata": dict(metadata)}
        boundary = secrets.token_hex(16)
        head = (
            f"--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{json.dumps(properties)}\r\n"
            f"--{boundary}\r\ncontent-type: {CONTENT_TYPE}\r\n\r\n"
        )
        answer = self._send(
            "POST",
            f"{self._base}/upload/{self._objects}",
            {"uploadType": "multipart", "fields": FIELDS} | _matching(generation),
            {"content-type": f'multipart/related; boundary="{boundary}"'},
            b"".join((head.encode(), content, f"\r\n--{boundary}--".encode())),
        )
        stored = read_resource(_decoded(answer))
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

    def delete(self, name: str, *, generation: int | None = None) -> None:
        """Remove an object, in one generation only when that is given."""
        url = f"{self._base}/{self._objects}/{quote(name, safe='')}"
        with contextlib.closing(self._send("DELETE", url, _matching(generation))) as answer:
            _ = answer.content  # else the connection could not be used again

    @contextlib.contextmanager
    def media(self, name: str, *, offset: int, size: int, etag: str) -> Iterator[requests.Response]:
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
        url = f"{self._base}/download/{self._objects}/{quote(name, safe='')}"
        query = {"alt": "media"} | ({"ifGenerationMatch": etag} if etag else {})
        with contextlib.closing(self._send("GET", url, query, headers)) as answer:
            yield answer

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _call(
        self, method: str, name: str, query: Mapping[str, str], *, verb: str = "", body: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        url = f"{self._base}/{self._objects}" + (f"/{quote(name, safe='')}{verb}" if name else "")
        headers = {} if body is None else {"content-type": "application/json"}
        return _decoded(self._send(method, url, query, headers, None if body is None else json.dumps(body).encode()))

    def _send(
        self,
        method: str,
        url: str,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> requests.Response:
        answer: requests.Response = self._session.request(
            method,
            url,
            params=query,
            headers=dict(headers or {}),
            data=body,
            stream=True,
            allow_redirects=False,
            timeout=TIMEOUT_S,
        )
        if HTTPStatus.OK <= answer.status_code < HTTPStatus.MULTIPLE_CHOICES:
            return answer
        with contextlib.closing(answer):
            raise Refusal(answer)


def _matching(generation: int | None) -> dict[str, str]:
    return {} if generation is None else {"ifGenerationMatch": str(generation)}


def _decoded(answer: requests.Response) -> Mapping[str, Any]:
    with contextlib.closing(answer):
        decoded = answer.json()
    if not isinstance(decoded, dict):
        raise StoreError("the answer is not a JSON object", op="read the answer")
    return decoded
