"""Resumable sessions of Google Cloud Storage: the parts of an upload, one after the other, into one request chain.

Used where a bucket keeps what is deleted, so that parts of their own could not be removed, or would be paid for. A
session takes bytes in order, in multiples of ``QUANTUM`` but for the last ones. So the end of what has come, at most
one quantum and never nothing, is held back: it goes with the next part, or at the end with the word that it is the end.

Whoever knows the URI of a session can write its object, without credentials. So it is written down only sealed, with
a key that whoever has the private key of our service account can derive, and is never shown.

Source:
    https://cloud.google.com/storage/docs/performing-resumable-uploads and .../resumable-uploads
"""

import base64
import hashlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPResponse
from urllib.parse import urlsplit

from cryptography.fernet import Fernet, InvalidToken
from google.auth.credentials import AnonymousCredentials, Credentials
from google.oauth2 import service_account
from isal import isal_zlib

from backupagent import crc32c
from backupagent.errors import ObjectNotFound, StoreError, StoreUnavailable
from backupagent.stores.base import Buffer, PartTag, Upload
from backupagent.stores.gcs_requests import CONTENT_TYPE, GcsRequests, decoded, sum_crc32c
from backupagent.stores.gcs_values import Stored, encode_crc32c, read_resource

QUANTUM = 256 * 1024
"""Bytes; a chunk that is not the last one has a multiple of it."""

CLOSED_BY_CLIENT = 499
"""What the service answers when a session is cancelled, and of one that was."""

_GONE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE, CLOSED_BY_CLIENT})
_ANSWERS = frozenset({HTTPStatus.PERMANENT_REDIRECT, *_GONE})
"""What else than success is an answer of a session and no refusal; the first one says how many bytes it has."""

_LABEL = b"backupagent: sessions of uploads in progress"
_HAS = re.compile(r"bytes=0-(?P<last>[0-9]{1,19})")


class Seal:
    """Closes what only the holder of the same private key may read.

    Args:
        credentials: Of a service account: its signature of a constant, always the same, makes the key. Of others
            there is nothing secret that lasts, and nothing is written down; an emulator has no secrets at all.
    """

    def __init__(self, credentials: Credentials) -> None:
        secret: bytes | None = None
        if isinstance(credentials, service_account.Credentials):
            secret = credentials.sign_bytes(_LABEL)
        elif isinstance(credentials, AnonymousCredentials):
            secret = _LABEL
        key = None if secret is None else base64.urlsafe_b64encode(hashlib.sha256(secret).digest())
        self._fernet = None if key is None else Fernet(key)

    def close(self, text: str) -> str:
        """Return the sealed text; empty where it could not be opened again."""
        return "" if self._fernet is None else self._fernet.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """Return the text; empty when it was sealed by others."""
        try:
            return "" if self._fernet is None else self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            return ""


def begin_session(service: GcsRequests, name: str, metadata: Mapping[str, str]) -> str:
    """Begin an object.

    Returns:
        The secret name of the session: path and query of its URI. Its host is the one that was asked.
    """
    with service.post_json(
        service.uploads_path,
        {"uploadType": "resumable"},
        {"name": name, "contentType": CONTENT_TYPE, "metadata": dict(metadata)},
    ) as answer:
        uri = urlsplit(answer.headers.get("location", ""))
    if not uri.query:
        raise StoreError("the answer names no session", op="begin upload", key=name)
    return f"{uri.path}?{uri.query}"


class Session:
    """One session. Thread-safe; one request at a time.

    Args:
        service: Makes the requests.
        upload: The upload.
        target: The session's secret name.
        fresh: Whether it has just been begun, so that there is nothing in it.
    """

    def __init__(self, service: GcsRequests, upload: Upload, target: str, *, fresh: bool) -> None:
        self._service = service
        self._upload = upload
        self._target = target
        self._lock = threading.Lock()
        self._certain = fresh
        self._committed = 0
        self._taken = 0
        self._tags: dict[int, PartTag] = {}
        self._sums: dict[int, int] = {}
        self._tail, self._tail_at = b"", 0
        self._whole: Stored | None = None

    def use(self, service: GcsRequests) -> None:
        """Make the following requests with other credentials."""
        self._service = service

    def write(self, number: int, view: memoryview) -> PartTag:
        """Take the next part, or one again that was taken.

        Raises:
            StoreError: it is another one.
            ObjectNotFound: the session was completed or cancelled.
        """
        crc, tag = sum_crc32c(view), PartTag(number, len(view), "", isal_zlib.crc32(view))
        with self._lock:
            self._settle("upload part")
            if self._whole is not None:
                raise self._error(ObjectNotFound, "it was completed", "upload part")
            if number > self._taken + 1:
                raise self._error(StoreError, f"part {number} came before part {self._taken + 1}", "upload part")
            if number == self._taken + 1:
                before = self._tags.get(number - 1)
                if before is not None and before.size < self._upload.part_size:
                    raise self._error(StoreError, f"part {number - 1} was short, so nothing follows", "upload part")
                self._send((number - 1) * self._upload.part_size, view)
                self._taken = number
            elif self._sums.get(number, crc) != crc:
                raise self._error(StoreError, f"part {number} cannot be replaced in a session", "upload part")
            self._sums[number] = crc
            self._tags[number] = tag
            return tag

    def parts(self) -> Sequence[PartTag]:
        """List the parts that are there whole, with their CRC-32 where this process has seen them.

        Raises:
            ObjectNotFound: the session was completed or cancelled.
        """
        with self._lock:
            self._settle("list parts")
            if self._whole is not None:
                raise self._error(ObjectNotFound, "it was completed", "list parts")
            size = self._upload.part_size
            self._taken = max(self._taken, self._committed // size)
            return [self._tags.get(number, PartTag(number, size, "")) for number in range(1, self._taken + 1)]

    def complete(self, size: int, count: int) -> tuple[Stored, int | None]:
        """Make the object visible.

        Args:
            size: Bytes of the object.
            count: How many parts it has.

        Returns:
            The object, and the CRC-32C that it must have; None when this process has not seen all of it.

        Raises:
            StoreError: not all of it has come, or more.
        """
        with self._lock:
            self._settle("complete upload")
            crc = self._crc32c(count)
            if self._whole is None:
                if self._taken != count:
                    raise self._error(StoreError, f"{self._taken} of {count} parts have come", "complete upload")
                self._finish(size, crc)
            assert self._whole is not None  # noqa: S101 - _finish raises else
            return self._whole, crc

    def cancel(self) -> None:
        """Throw the session away; one that is gone already is fine."""
        with self._lock, self._service.send_to("DELETE", self._target, {}, also=_GONE) as answer:
            answer.read()

    def is_open(self) -> bool:
        """Whether it can still become an object."""
        with self._lock:
            try:
                self._settle("list uploads")
            except ObjectNotFound:
                return False
            return self._whole is None

    # ---- with the lock held

    def _send(self, start: int, view: memoryview) -> None:
        """Send what is complete in quanta, and keep the rest."""
        end = start + len(view)
        goal = self._committed + max(0, end - self._committed - 1) // QUANTUM * QUANTUM
        while self._committed < goal:
            before = self._committed
            pieces = list(self._pieces(before, goal, start, view))
            self._put(pieces, {"content-range": f"bytes {before}-{goal - 1}/*"}, "upload part")
            if not before < self._committed <= goal or self._whole is not None:
                self._certain = False
                raise self._error(StoreUnavailable, f"the service took no byte behind {before}", "upload part")
        self._tail = b"".join(self._pieces(self._committed, end, start, view))
        self._tail_at = self._committed

    def _finish(self, size: int, crc: int | None) -> None:
        sums = {} if crc is None else {"x-goog-hash": f"crc32c={encode_crc32c(crc)}"}
        asked = f"bytes {self._committed}-{size - 1}/{size}" if self._committed < size else f"bytes */{size}"
        pieces = list(self._pieces(self._committed, size, size, memoryview(b"")))
        self._put(pieces, {"content-range": asked, **sums}, "complete upload")
        if self._whole is None:
            self._certain = False
            raise self._error(StoreUnavailable, "the service waits for more bytes", "complete upload")

    def _pieces(self, first: int, end: int, start: int, view: memoryview) -> Iterator[Buffer]:
        """Give the bytes from first to end, of which the part's, from start on, are at hand; earlier ones were kept."""
        if first < min(end, start):
            kept = (
                self._tail[first - self._tail_at : min(end, start) - self._tail_at] if first >= self._tail_at else b""
            )
            if len(kept) != min(end, start) - first:
                raise self._error(StoreError, f"the session has lost the bytes behind {first}", "upload part")
            yield kept
        if max(first, start) < end:
            yield view[max(first, start) - start : end - start]

    def _settle(self, op: str) -> None:
        """Ask what the service has when an answer was lost, or the session is another process's."""
        if not self._certain and self._whole is None:
            self._put([], {"content-range": "bytes */*"}, op)

    def _put(self, pieces: Sequence[Buffer], headers: Mapping[str, str], op: str) -> None:
        self._certain = False
        with self._service.send_to("PUT", self._target, headers, pieces, also=_ANSWERS) as answer:
            self._read(answer, op)
        self._certain = True

    def _read(self, answer: HTTPResponse, op: str) -> None:
        if answer.status in _GONE:
            raise self._error(ObjectNotFound, f"its session is gone (HTTP status {answer.status})", op)
        if answer.status != HTTPStatus.PERMANENT_REDIRECT:
            self._whole = read_resource(decoded(answer))
            return
        text = answer.headers.get("range", "")
        found = _HAS.fullmatch(text)
        if text and found is None:
            raise self._error(StoreError, "the session says of no range what it has", op)
        self._committed = int(found["last"]) + 1 if found else 0

    def _crc32c(self, count: int) -> int | None:
        whole = 0
        for number in range(1, count + 1):
            if number not in self._sums:
                return None
            whole = crc32c.combine(whole, self._sums[number], self._tags[number].size)
        return whole

    def _error(self, kind: type[StoreError], reason: str, op: str) -> StoreError:
        return kind(reason, op=op, key=self._upload.key)
