"""Amazon S3 and every service that speaks its protocol, through boto3.

Every call makes exactly one request: retrying is the wrapper's business. The four hot requests go out directly
(ADR 0003). Content goes from the caller's buffer to the socket and back without a copy, and is not hashed for the
signature; instead each request carries a CRC-32 of it, which the store checks.
"""

import base64
import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from email.message import Message
from typing import Any

from isal import isal_zlib

from backupagent.errors import AccessDenied, ObjectChanged, ObjectLocked, ObjectNotFound, StoreError, TruncatedObject
from backupagent.stores.base import (
    NO_METADATA,
    Buffer,
    CopySource,
    ObjectInfo,
    PartTag,
    StoreFacts,
    StoreFeatures,
    StoreLimits,
    Upload,
)
from backupagent.stores.connections import fill, http_time_s
from backupagent.stores.keys import (
    check_key,
    check_metadata,
    check_part,
    check_part_size,
    check_parts,
    fault_of_key,
    may_begin_key,
)
from backupagent.stores.s3_client import Connected, connect
from backupagent.stores.s3_copy import S3Copies
from backupagent.stores.s3_errors import SDK_ERRORS, translate
from backupagent.stores.s3_facts import bucket_facts
from backupagent.stores.s3_settings import Checksums, S3Settings
from backupagent.stores.s3_values import METADATA, decode_crc32, digests_of, encode_crc32, metadata_in
from backupagent.stores.s3_versions import Versions, mark, parse_mark

MiB = 1024 * 1024

LIMITS = StoreLimits(min_part=5 * MiB, max_part=5 * 1024 * MiB, max_parts=10_000)
"""Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html"""

_CRC32 = "x-amz-checksum-crc32"
_VERSION = "x-amz-version-id"


def open_s3(settings: S3Settings) -> "S3Store":
    """Open a bucket; makes no request.

    Raises:
        StoreError: the SDK refuses the settings, or a file of its own that it reads.
        ConfigError: the CAs to trust cannot be read.
    """
    endpoint = f"?endpoint={settings.endpoint}" if settings.endpoint else ""
    display = f"s3://{settings.bucket}{endpoint}"
    try:
        connected = connect(settings, display)
    except (*SDK_ERRORS, ValueError) as error:
        raise translate(error, "open", "", display) from error
    return S3Store(connected, settings, display)


class S3Store:
    """A bucket of an S3 service. Thread-safe, as boto3's clients are.

    In a bucket that keeps versions the oldest one of an object counts; see ``s3_versions``.

    Args:
        connected: Talks to the bucket; closed with the store.
        settings: The bucket and how it is written.
        display: Shown to users, without secrets.
    """

    def __init__(self, connected: Connected, settings: S3Settings, display: str) -> None:
        self._connected = connected
        self._client = connected.client
        self._direct = connected.direct
        self._settings = settings
        self._bucket = settings.bucket
        self._display = display
        self._versions = Versions(connected.client, settings.bucket)
        self._copies = S3Copies(connected, settings)
        key = settings.customer_key
        self._key_headers = key.headers() if key else {}
        self._key_parameters: Mapping[str, Any] = key.parameters() if key else {}

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
        return StoreFeatures(reads_tell_metadata=True, copies=self._copies.ability)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects, a page of at most 1,000 at a time.

        What is not a key, such as the ``folder/`` that consoles make, is left out: no other store could hold it.
        """
        if not may_begin_key(prefix):
            return
        with self._translating("list", prefix):
            if self._versions.count():
                yield from self._versions.listed(prefix)
                return
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                for entry in page.get("Contents", ()):
                    if not fault_of_key(entry["Key"]):
                        modified_s = entry["LastModified"].timestamp()
                        yield ObjectInfo(entry["Key"], entry["Size"], entry["ETag"], modified_s)

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object."""
        check_key(key)
        _, version = self._that_counts("stat", key)
        headers = self._head(key, {}, version)
        etag, modified_s = mark(headers.get("etag", ""), version), http_time_s(headers["last-modified"])
        return ObjectInfo(key, self._size(headers, key), etag, modified_s, metadata_in(headers))

    def read_into(self, key: str, buffer: memoryview, *, offset: int = 0, etag: str = "") -> Mapping[str, str]:
        """Read exactly ``len(buffer)`` bytes from ``offset``."""
        check_key(key)
        if not (etag.isascii() and etag.isprintable()):
            raise StoreError(f"no header can hold the etag {etag!r}", op="read", key=key, store=self._display)
        if not etag:
            return self._read_what_counts(key, buffer, offset)
        own, version = parse_mark(etag)
        try:
            return self._read(key, buffer, offset, own, version)
        except ObjectNotFound:
            if version and self._that_counts("read", key):  # raises itself when there is none
                raise ObjectChanged("it was replaced", op="read", key=key, store=self._display) from None
            raise

    def put(
        self, key: str, data: Buffer, *, if_absent: bool = False, metadata: Mapping[str, str] = NO_METADATA
    ) -> ObjectInfo:
        """Write a whole object; ``modified_s`` is the store's time of the answer."""
        check_key(key)
        check_metadata(metadata)
        view = memoryview(data).cast("B")
        headers = {**self._digest(view), **self._key_headers}
        headers |= {f"{METADATA}{name}": value for name, value in metadata.items()}
        if self._settings.storage_class:
            headers["x-amz-storage-class"] = self._settings.storage_class
        if if_absent:
            headers["if-none-match"] = "*"
        with self._translating("put", key), self._direct.send("PUT", key, headers, body=view) as answer:
            etag, modified_s = answer.headers.get("etag", ""), http_time_s(answer.headers["date"])
            version = answer.headers.get(_VERSION, "")
        return self._written(ObjectInfo(key, len(view), etag, modified_s, metadata), version, if_absent=if_absent)

    def begin_upload(
        self, key: str, *, part_size: int, metadata: Mapping[str, str] = NO_METADATA, copied: bool = False
    ) -> Upload:
        """Begin an object that arrives in parts."""
        check_key(key)
        check_metadata(metadata)
        check_part_size(part_size, LIMITS)
        with self._translating("begin upload", key):
            request: dict[str, Any] = {"Bucket": self._bucket, "Key": key, "Metadata": metadata, **self._key_parameters}
            # MinIO copies no part into an upload with check sums (observed with RELEASE.2026-02-12).
            if not copied and self._settings.request_checksums is Checksums.WHEN_SUPPORTED:
                request["ChecksumAlgorithm"] = "CRC32"
            if self._settings.storage_class:
                request["StorageClass"] = self._settings.storage_class
            return Upload(key, self._client.create_multipart_upload(**request)["UploadId"], part_size, copied=copied)

    def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
        """Write one part."""
        view = memoryview(data).cast("B")
        check_part(upload, number, len(view), LIMITS)
        headers = {**self._digest(view), **self._key_headers}
        query = {"partNumber": number, "uploadId": upload.id}
        with (
            self._translating("upload part", upload.key),
            self._direct.send("PUT", upload.key, headers, query=query, body=view) as answer,
        ):
            return PartTag(
                number, len(view), answer.headers.get("etag", ""), decode_crc32(answer.headers.get(_CRC32, ""))
            )

    def list_parts(self, upload: Upload) -> Sequence[PartTag]:
        """List the parts that the store holds."""
        with self._translating("list parts", upload.key):
            pages = self._client.get_paginator("list_parts").paginate(**self._named(upload), **self._key_parameters)
            return [
                PartTag(part["PartNumber"], part["Size"], part["ETag"], decode_crc32(part.get("ChecksumCRC32", "")))
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
            | ({} if part.crc32 is None else {"ChecksumCRC32": encode_crc32(part.crc32)})
            for part in parts
        ]
        request: dict[str, Any] = {
            **self._named(upload), **self._key_parameters, "MultipartUpload": {"Parts": tags},
            **({"IfNoneMatch": "*"} if if_absent else {}),
        }  # fmt: skip
        with self._translating("complete upload", upload.key):
            answer = self._client.complete_multipart_upload(**request)
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        digests = digests_of(answer["ETag"], answer.get("ServerSideEncryption", ""), part_size=upload.part_size)
        info = ObjectInfo(upload.key, size, answer["ETag"], http_time_s(date), digests=digests)
        return self._written(info, answer.get("VersionId", ""), if_absent=if_absent)

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
        return [Upload(*name, 0, alive_s=found[name]) for name in sorted(found) if name[0].startswith(prefix)]

    def copy_source(self, key: str, *, etag: str = "") -> CopySource:
        """Describe an object for a store that is to copy it."""
        check_key(key)
        own, version = parse_mark(etag) if etag else self._that_counts("copy", key)
        with self._translating("copy", key):
            return self._copies.source(key, own, version)

    def copy_object(self, source: CopySource, key: str) -> ObjectInfo:
        """Copy an object whole."""
        check_key(key)
        with self._translating("copy", key):
            info, version = self._copies.whole(source, key)
        return self._written(info, version, if_absent=False)

    def copy_part(self, upload: Upload, number: int, source: CopySource, *, offset: int, size: int) -> PartTag:
        """Copy a range of an object as one part."""
        check_part(upload, number, size, LIMITS)
        with self._translating("copy part", upload.key):
            return self._copies.part(upload, number, source, offset=offset, size=size)

    def delete(self, key: str) -> None:
        """Remove an object."""
        check_key(key)
        with self._translating("delete", key):
            if self._versions.count(key):
                self._versions.delete(key)
            else:
                self._client.delete_object(Bucket=self._bucket, Key=key)

    def facts(self) -> StoreFacts:
        """Ask the service about the bucket: three requests."""
        return bucket_facts(self._client, self._bucket, self._translating)

    def close(self) -> None:
        """Close the connections."""
        self._connected.close()

    def _named(self, upload: Upload) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": upload.key, "UploadId": upload.id}

    def _uploads(self, prefix: str) -> tuple[dict[tuple[str, str], float], str]:
        """Return key and id of each with the time when it was begun, and who answered."""
        found, server = dict[tuple[str, str], float](), ""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=prefix)
        for page in pages:
            server = page["ResponseMetadata"]["HTTPHeaders"].get("server", "")
            for entry in page.get("Uploads", ()):
                if not fault_of_key(entry["Key"]):
                    found[entry["Key"], entry["UploadId"]] = entry["Initiated"].timestamp()
        return found, server

    def _that_counts(self, op: str, key: str) -> tuple[str, str]:
        """Return the etag and the version to read; both empty where the newest one counts."""
        with self._translating(op, key):
            if not self._versions.count(key):
                return "", ""
            found = self._versions.oldest(key)
        if found is None:
            raise ObjectNotFound("there is no version of it", op=op, key=key, store=self._display)
        return parse_mark(found.etag)

    def _read_what_counts(self, key: str, buffer: memoryview, offset: int) -> Mapping[str, str]:
        own, version = self._that_counts("read", key)
        while True:
            try:
                return self._read(key, buffer, offset, own, version)
            except ObjectNotFound:
                before, (own, version) = version, self._that_counts("read", key)
                if version == before:
                    raise
                # Its writer has put another version into its place.

    def _written(self, info: ObjectInfo, version: str, *, if_absent: bool) -> ObjectInfo:
        """Describe what was written; no bucket without versions tells one, so that nothing is asked there."""
        with self._translating("put", info.key):
            if not version or not self._versions.count(info.key):
                return info
            info = replace(info, etag=mark(info.etag, version))
            if if_absent:
                return info
            try:
                with self._translating("put", info.key):
                    return self._versions.settle(info)
            except ObjectLocked as error:
                raise ObjectLocked(
                    f"it was written, but an older version of other content counts, and stays: {error.message}",
                    op="put",
                    key=info.key,
                    store=self._display,
                    hint="use another prefix, or wait until the retention of the older version has ended",
                ) from error

    def _digest(self, view: memoryview) -> Mapping[str, str]:
        """Return the header by which the store checks what arrives."""
        if self._settings.request_checksums is Checksums.WHEN_SUPPORTED:
            return {_CRC32: encode_crc32(isal_zlib.crc32(view))}
        return {"content-md5": base64.b64encode(hashlib.md5(view, usedforsecurity=False).digest()).decode()}

    def _read(self, key: str, buffer: memoryview, offset: int, etag: str, version: str) -> Mapping[str, str]:
        headers = {"if-match": etag} if etag else {}
        if not buffer.nbytes:  # no Range can ask for nothing
            size = self._size(self._head(key, headers, version, op="read"), key)
            if offset > size:
                raise TruncatedObject(f"it ends at byte {size}, before {offset} ({self._display})", key=key)
            return NO_METADATA
        headers = {**headers, **self._key_headers, "range": f"bytes={offset}-{offset + buffer.nbytes - 1}"}
        query = {"versionId": version} if version else None
        with self._translating("read", key), self._direct.send("GET", key, headers, query=query) as answer:
            self._check_range(answer.headers, key, offset, buffer.nbytes)
            fill(buffer.cast("B"), answer)
            return metadata_in(answer.headers)

    def _head(self, key: str, headers: Mapping[str, str], version: str, op: str = "stat") -> Message:
        headers = {**headers, **self._key_headers}
        query = {"versionId": version} if version else None
        with self._translating(op, key), self._direct.send("HEAD", key, headers, query=query) as answer:
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
            translated = translate(error, op, key, self._display)
            if self._key_headers and isinstance(translated, AccessDenied):
                translated.hint += "; or sseCustomerKey is not the key that the object was written with"
            raise translated from error
