"""Objects that an S3 service copies by itself, from any bucket that the target's credentials may read.

``CopyObject`` and ``UploadPartCopy`` are rare and large, so that they go through the SDK, which also finds the errors
that S3 sends with status 200. The etag of the source stands in each request: no other content is copied.

Source:
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html
"""

import re
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

from backupagent.errors import StoreError
from backupagent.stores.base import NO_METADATA, Copies, CopySource, ObjectInfo, PartTag, Upload
from backupagent.stores.connections import http_time_s
from backupagent.stores.s3_client import Connected
from backupagent.stores.s3_settings import S3Settings
from backupagent.stores.s3_values import decode_crc32, digests_of, metadata_in, part_count
from backupagent.stores.s3_versions import mark, parse_mark

MiB = 1024 * 1024

SMALLEST, WHOLE, PART = 1 * MiB, 256 * MiB, 64 * MiB
"""See ``Copies``; measured in ADR 0012. One request may copy 5 GiB, but says nothing for as long as that takes."""

_FIRST_PART = re.compile(r"bytes 0-[0-9]+/(?P<size>[0-9]{1,19})")
_AWS = re.compile(r"s3[.-].*amazonaws\.com(?P<china>\.cn)?")


def service_of(endpoint: str) -> str:
    """Name the service behind an endpoint: all regions of AWS are one, those of China are another."""
    url = urlsplit(endpoint.lower())
    aws = _AWS.fullmatch(url.hostname or "")
    return f"aws{aws['china'] or ''}" if aws else f"{url.scheme}://{url.netloc}{url.path}".rstrip("/")


class S3Copies:
    """Requests for copies of one bucket. Thread-safe. Each may raise one of ``s3_errors.SDK_ERRORS``.

    Args:
        connected: Talks to the bucket.
        settings: The bucket and how it is written.

    Attributes:
        ability: How the store copies. Not at all with a key of the customer's own: those of both sides would have to
            go with each copy.
    """

    def __init__(self, connected: Connected, settings: S3Settings) -> None:
        self._client = connected.client
        self._direct = connected.direct
        self._bucket = settings.bucket
        named = settings.storage_class
        self._storage_class: dict[str, Any] = {"StorageClass": named} if named else {}
        service = service_of(self._client.meta.endpoint_url)
        self.ability = None if settings.customer_key else Copies(service, SMALLEST, WHOLE, PART)

    def source(self, key: str, etag: str, version: str) -> CopySource:
        """Describe an object by a HEAD of its first part, which tells the size of its parts too."""
        headers = {"x-amz-checksum-mode": "ENABLED"} | ({"if-match": etag} if etag else {})
        query = {"partNumber": "1"} | ({"versionId": version} if version else {})
        with self._direct.send("HEAD", key, headers, query=query) as answer:
            return _described(self._bucket, key, version, answer.headers)

    def whole(self, source: CopySource, key: str) -> tuple[ObjectInfo, str]:
        """Copy an object, without its metadata and its tags; gives the version of the copy too."""
        answer: Any = self._client.copy_object(
            Bucket=self._bucket,
            Key=key,
            MetadataDirective="REPLACE",
            TaggingDirective="REPLACE",  # else S3 asks for a right to read them
            ChecksumAlgorithm="CRC32",
            **self._storage_class,
            **_from(source),
        )
        made = answer["CopyObjectResult"]
        etag, crc32 = made["ETag"], made.get("ChecksumCRC32", "")
        digests = digests_of(etag, answer.get("ServerSideEncryption", ""), crc32=crc32)
        info = ObjectInfo(key, source.info.size, etag, made["LastModified"].timestamp(), NO_METADATA, digests)
        return info, answer.get("VersionId", "")

    def part(self, upload: Upload, number: int, source: CopySource, *, offset: int, size: int) -> PartTag:
        """Copy a range as one part."""
        answer: Any = self._client.upload_part_copy(
            Bucket=self._bucket,
            Key=upload.key,
            UploadId=upload.id,
            PartNumber=number,
            CopySourceRange=f"bytes={offset}-{offset + size - 1}",
            **_from(source),
        )
        made = answer["CopyPartResult"]
        return PartTag(number, size, made["ETag"], decode_crc32(made.get("ChecksumCRC32", "")))


def _from(source: CopySource) -> dict[str, Any]:
    etag, version = parse_mark(source.info.etag)
    named = {"Bucket": source.container, "Key": source.info.key} | ({"VersionId": version} if version else {})
    return {"CopySource": named, "CopySourceIfMatch": etag}


def _described(bucket: str, key: str, version: str, headers: Message) -> CopySource:
    etag, length = headers.get("etag", ""), headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        raise StoreError(f"the answer says {length!r} for a size", op="copy", key=key)
    first, parts = int(length), part_count(etag)
    ranged = _FIRST_PART.fullmatch(headers.get("content-range", ""))
    size = int(ranged["size"]) if ranged else first
    # Only the first part's size is known. Where others have other sizes, the copy is not the same by its digest.
    part_size = first if first and -(-size // first) == parts else 0
    crc32 = "" if parts else headers.get("x-amz-checksum-crc32", "")
    encryption = headers.get("x-amz-server-side-encryption", "")
    digests = digests_of(etag, encryption, part_size=part_size, crc32=crc32)
    modified_s = http_time_s(headers.get("last-modified"))
    info = ObjectInfo(key, size, mark(etag, version), modified_s, metadata_in(headers), digests)
    return CopySource(bucket, info, part_size)
