"""Amazon S3 and every service that speaks its protocol, through boto3.

Every call makes exactly one request: retrying is the wrapper's business. The four hot requests go out directly
(ADR 0003). Content goes from the caller's buffer to the socket and back without a copy, and is not hashed for the
signature; instead each request carries a CRC-32 of it, which the store checks.
"""

import base64
import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from typing import TYPE_CHECKING, Any, Literal

import boto3.session
import botocore.session
from botocore.config import Config
from isal import isal_zlib

from backupagent.errors import ObjectNotFound, StoreError, TruncatedObject
from backupagent.stores.base import NO_METADATA, Buffer, ObjectInfo, PartTag, StoreFeatures, StoreLimits, Upload
from backupagent.stores.connections import CONNECT_TIMEOUT_S, MAX_IDLE, READ_TIMEOUT_S, fill, http_time_s
from backupagent.stores.keys import (
    check_key,
    check_metadata,
    check_part,
    check_part_size,
    check_parts,
    fault_of_key,
    may_begin_key,
)
from backupagent.stores.s3_direct import DirectRequests
from backupagent.stores.s3_errors import SDK_ERRORS, translate

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MiB = 1024 * 1024

LIMITS = StoreLimits(min_part=5 * MiB, max_part=5 * 1024 * MiB, max_parts=10_000)
"""Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html"""

_METADATA = "x-amz-meta-"
_CRC32 = "x-amz-checksum-crc32"


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
    """

    bucket: str
    endpoint: str = ""
    region: str = ""
    path_style: bool | None = None
    access_key_id: str = field(default="", repr=False)
    secret_access_key: str = field(default="", repr=False)


def open_s3(settings: S3Settings) -> "S3Store":
    """Open a bucket; makes no request.

    Raises:
        StoreError: the SDK refuses the settings, or a file of its own that it reads.
    """
    endpoint = f"?endpoint={settings.endpoint}" if settings.endpoint else ""
    display = f"s3://{settings.bucket}{endpoint}"
    styles: Mapping[bool | None, Literal["auto", "path", "virtual"]] = {None: "auto", True: "path", False: "virtual"}
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": styles[settings.path_style], "payload_signing_enabled": False},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=MAX_IDLE,
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        tcp_keepalive=True,
    )
    try:
        session = botocore.session.Session()
        if settings.access_key_id:
            session.set_credentials(settings.access_key_id, settings.secret_access_key)
        client = boto3.session.Session(botocore_session=session).client(
            "s3",
            endpoint_url=settings.endpoint or None,
            region_name=settings.region or None,
            aws_access_key_id=settings.access_key_id or None,  # so that the SDK refuses one without the other
            aws_secret_access_key=settings.secret_access_key or None,
            config=config,
        )
        direct = DirectRequests(client, session.get_credentials(), settings.bucket, _ca_bundle(session))
    except (*SDK_ERRORS, ValueError) as error:
        raise translate(error, "open", "", display) from error
    return S3Store(client, direct, settings.bucket, display)


class S3Store:
    """A bucket of an S3 service. Thread-safe, as boto3's clients are.

    Args:
        client: The SDK's client; closed with the store.
        direct: Makes the hot requests; closed with the store.
        bucket: Name of the bucket.
        display: Shown to users, without secrets.
    """

    def __init__(self, client: "S3Client", direct: DirectRequests, bucket: str, display: str) -> None:
        self._client = client
        self._direct = direct
        self._bucket = bucket
        self._display = display

    @property
    def display(self) -> str:
        """The store as shown to users."""
        return self._display

    @property
    def limits(self) -> StoreLimits:
        """Hard limits of an upload in parts."""
        return LIMITS

    @property
    def features(self) -> StoreFeatures:
        """Optional abilities."""
        return StoreFeatures(reads_tell_metadata=True)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects, a page of at most 1,000 at a time.

        What is not a key, such as the ``folder/`` that consoles make, is left out: no other store could hold it.
        """
        if not may_begin_key(prefix):
            return
        with self._translating("list", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                for entry in page.get("Contents", ()):
                    if not fault_of_key(entry["Key"]):
                        modified_s = entry["LastModified"].timestamp()
                        yield ObjectInfo(entry["Key"], entry["Size"], entry["ETag"], modified_s)

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object."""
        check_key(key)
        headers = self._head(key, {})
        modified_s = http_time_s(headers["last-modified"])
        return ObjectInfo(key, self._size(headers, key), headers.get("etag", ""), modified_s, _metadata_in(headers))

    def read_into(self, key: str, buffer: memoryview, *, offset: int = 0, etag: str = "") -> Mapping[str, str]:
        """Read exactly ``len(buffer)`` bytes from ``offset``."""
        check_key(key)
        if not (etag.isascii() and etag.isprintable()):
            raise StoreError(f"no header can hold the etag {etag!r}", op="read", key=key, store=self._display)
        headers = {"if-match": etag} if etag else {}
        if not buffer.nbytes:  # no Range can ask for nothing
            size = self._size(self._head(key, headers, op="read"), key)
            if offset > size:
                raise TruncatedObject(f"it ends at byte {size}, before {offset} ({self._display})", key=key)
            return NO_METADATA
        headers["range"] = f"bytes={offset}-{offset + buffer.nbytes - 1}"
        with self._translating("read", key), self._direct.send("GET", key, headers) as answer:
            self._check_range(answer.headers, key, offset, buffer.nbytes)
            fill(buffer.cast("B"), answer)
            return _metadata_in(answer.headers)

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = False, metadata: Mapping[str, str] = NO_METADATA
    ) -> ObjectInfo:
        """Write a whole object; ``modified_s`` is the store's time of the answer."""
        check_key(key)
        check_metadata(metadata)
        view = memoryview(data).cast("B")
        headers = {_CRC32: _encode(isal_zlib.crc32(view))}
        headers |= {f"{_METADATA}{name}": value for name, value in metadata.items()}
        if if_absent:
            headers["if-none-match"] = "*"
        with self._translating("put", key), self._direct.send("PUT", key, headers, body=view) as answer:
            return ObjectInfo(
                key, len(view), answer.headers.get("etag", ""), http_time_s(answer.headers["date"]), metadata
            )

    def begin_upload(self, key: str, *, part_size: int, metadata: Mapping[str, str] = NO_METADATA) -> Upload:
        """Begin an object that arrives in parts."""
        check_key(key)
        check_metadata(metadata)
        check_part_size(part_size, LIMITS)
        with self._translating("begin upload", key):
            answer = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=key, ChecksumAlgorithm="CRC32", Metadata=metadata
            )
            return Upload(key, answer["UploadId"], part_size)

    def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
        """Write one part."""
        view = memoryview(data).cast("B")
        check_part(upload, number, len(view), LIMITS)
        headers = {_CRC32: _encode(isal_zlib.crc32(view))}
        query = {"partNumber": number, "uploadId": upload.id}
        with (
            self._translating("upload part", upload.key),
            self._direct.send("PUT", upload.key, headers, query=query, body=view) as answer,
        ):
            return PartTag(number, len(view), answer.headers.get("etag", ""), _decode(answer.headers.get(_CRC32, "")))

    def list_parts(self, upload: Upload) -> Sequence[PartTag]:
        """List the parts that the store holds."""
        with self._translating("list parts", upload.key):
            pages = self._client.get_paginator("list_parts").paginate(**self._named(upload))
            return [
                PartTag(part["PartNumber"], part["Size"], part["ETag"], _decode(part.get("ChecksumCRC32", "")))
                for page in pages
                for part in page.get("Parts", ())
            ]

    def complete_upload(self, upload: Upload, parts: Sequence[PartTag], *, if_absent: bool = False) -> ObjectInfo:
        """Make the object visible.

        When the answer is lost, the next call says ``ObjectNotFound`` although the object is there;
        ``RetryingStore`` knows.
        """
        size = check_parts(upload, parts)
        tags = [
            {"PartNumber": part.number, "ETag": part.etag}
            | ({} if part.crc32 is None else {"ChecksumCRC32": _encode(part.crc32)})
            for part in parts
        ]
        request: dict[str, Any] = {
            **self._named(upload), "MultipartUpload": {"Parts": tags}, **({"IfNoneMatch": "*"} if if_absent else {}),
        }  # fmt: skip
        with self._translating("complete upload", upload.key):
            answer = self._client.complete_multipart_upload(**request)
            date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
            return ObjectInfo(upload.key, size, answer["ETag"], http_time_s(date))

    def abort_upload(self, upload: Upload) -> None:
        """Throw an upload and its parts away."""
        with contextlib.suppress(ObjectNotFound), self._translating("abort upload", upload.key):
            self._client.abort_multipart_upload(**self._named(upload))

    def list_uploads(self, prefix: str) -> Sequence[Upload]:
        """List open uploads; S3 does not tell their part size.

        MinIO takes the prefix for a whole key, and lists everything without one, but only what was begun since its
        own start (observed with RELEASE.2026-02-12). So there both are asked, and whoever knows the key of an
        upload should ask for that.
        """
        if not may_begin_key(prefix):
            return []
        with self._translating("list uploads", prefix):
            found, server = self._uploads(prefix)
            if server.startswith("MinIO") and prefix:
                found |= self._uploads("")[0]
        # In the order of S3, which a union of two answers has lost.
        return [Upload(key, upload_id, 0) for key, upload_id in sorted(found) if key.startswith(prefix)]

    def delete(self, key: str) -> None:
        """Remove an object."""
        check_key(key)
        with self._translating("delete", key):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def close(self) -> None:
        """Close the connections."""
        self._direct.close()
        self._client.close()

    def _named(self, upload: Upload) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": upload.key, "UploadId": upload.id}

    def _uploads(self, prefix: str) -> tuple[set[tuple[str, str]], str]:
        found, server = set(), ""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=prefix)
        for page in pages:
            server = page["ResponseMetadata"]["HTTPHeaders"].get("server", "")
            found |= {(entry["Key"], entry["UploadId"]) for entry in page.get("Uploads", ())}
        return {(key, upload_id) for key, upload_id in found if not fault_of_key(key)}, server

    def _head(self, key: str, headers: Mapping[str, str], op: str = "stat") -> Message:
        with self._translating(op, key), self._direct.send("HEAD", key, headers) as answer:
            return answer.headers

    def _size(self, headers: Message, key: str) -> int:
        text = headers.get("content-length", "")
        if not (text.isascii() and text.isdigit()):
            raise StoreError(f"the answer says {text!r} for a size", op="stat", key=key, store=self._display)
        return int(text)

    def _check_range(self, headers: Message, key: str, offset: int, size: int) -> None:
        """Refuse an answer that is not the range asked for, before a byte of it is read."""
        first = headers.get("content-range", "bytes 0-").removeprefix("bytes ").partition("-")[0]
        if first != str(offset):
            raise StoreError(
                f"the answer begins at byte {first}, not {offset}", op="read", key=key, store=self._display
            )
        if headers["content-length"] != str(size):
            raise TruncatedObject(
                f"the answer has {headers['content-length']} of {size} bytes ({self._display})", key=key
            )

    @contextlib.contextmanager
    def _translating(self, op: str, key: str) -> Iterator[None]:
        try:
            yield
        except SDK_ERRORS as error:
            raise translate(error, op, key, self._display) from error


def _encode(crc32: int) -> str:
    return base64.b64encode(crc32.to_bytes(4, "big")).decode()


def _decode(text: str) -> int | None:
    """Read the CRC-32 of a part; None where the store tells none that can be read."""
    try:
        return int.from_bytes(base64.b64decode(text, validate=True), "big") if text else None
    except ValueError:
        return None


def _metadata_in(headers: Message) -> Mapping[str, str]:
    names = ((name.lower(), value) for name, value in headers.items())
    return {name.removeprefix(_METADATA): value for name, value in names if name.startswith(_METADATA)}


def _ca_bundle(session: botocore.session.Session) -> str:
    """Find the CAs to trust where the SDK does; empty for those that come with it."""
    return session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE", "")
