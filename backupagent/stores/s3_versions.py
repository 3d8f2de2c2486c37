"""Buckets that keep every version of an object: whatever is written or deleted later, the oldest one counts.

So nobody who gets hold of the agent's credentials can take a snapshot away by writing over it or by a delete marker,
and with retention not by deleting versions either. The peer reads such buckets in the same way.

An object's version is a part of its etag here, which the rest of the program only compares: what was listed is what
is read, with no table of versions to keep.

What lies below ``manifests/`` is written again on purpose - journals of uploads, manifests of copies that are made
anew - and there the newest version counts, as in any other bucket.

Source:
    etcd-backup-restore, docs/usage/enabling_immutable_snapshots.md, and its behaviour in pkg/snapstore.
"""

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from backupagent.stores.base import ObjectInfo
from backupagent.stores.keys import EXCLUDED, fault_of_key

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MARK = ";version="
_MAY_NOT_ASK = frozenset({"AccessDenied", "MethodNotAllowed", "NotImplemented"})
"""Answers of services without versions or tags, and to somebody who may not know. Keys that are wrong have others."""

_log = logging.getLogger(__name__)


def mark(etag: str, version: str) -> str:
    """Return the etag of one version of an object."""
    return f"{etag}{_MARK}{version}" if version else etag


def parse_mark(etag: str) -> tuple[str, str]:
    """Return the store's own etag, and the version that it is of; empty for none."""
    own, _, version = etag.partition(_MARK)
    return own, version


def is_rewritten(key: str) -> bool:
    """Whether an object is written again on purpose: it lies below ``manifests/``, which lies above no snapshots."""
    folders = [folder for folder in key.split("/")[:-1] if folder in {"manifests", "v1", "v2"}]
    return folders[-1:] == ["manifests"]


@dataclass(frozen=True)
class Version:
    """One version of an object, or a delete marker.

    Attributes:
        key: The object.
        id: The version.
        info: The object as it is in this version, with the store's own etag; None for a delete marker.
        newest: Whether it is what a bucket without versions would hold.
    """

    key: str
    id: str
    info: ObjectInfo | None
    newest: bool


class Versions:
    """The versions of a bucket's objects. Thread-safe. Every method may raise one of ``s3_errors.SDK_ERRORS``.

    Args:
        client: The SDK's.
        bucket: Name of the bucket.
    """

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self._bucket = bucket
        self._lock = threading.Lock()
        self._kept: bool | None = None

    def count(self, key: str = "") -> bool:
        """Whether the bucket keeps versions, and the oldest one of this object counts. The bucket is asked once.

        Who may not ask gets the newest versions, as from any other bucket: a source needs List and Get only.
        """
        if is_rewritten(key):
            return False
        with self._lock:
            if self._kept is None:
                self._kept = self._ask()
            return self._kept

    def listed(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects in the version that counts, in byte order of their keys."""
        for key, versions in self._by_key(prefix):
            infos = _marked(versions)
            if is_rewritten(key):
                yield from (version.info for version in versions if version.newest and version.info is not None)
            elif infos and not (len(infos) < len(versions) and self._excluded(key, infos[-1])):
                yield infos[-1]

    def oldest(self, key: str) -> ObjectInfo | None:
        """Return an object in its oldest version; None when there is none."""
        infos = _marked(self._all_of(key))
        return infos[-1] if infos else None

    def settle(self, written: ObjectInfo) -> ObjectInfo:
        """Let what was just written count: remove what is older, unless that is the same content.

        Returns:
            The object as it counts.
        """
        versions = self._all_of(written.key)
        infos = _marked(versions)
        if not infos or infos[-1].etag == written.etag:
            return written
        oldest = infos[-1]
        if (oldest.size, parse_mark(oldest.etag)[0]) == (written.size, parse_mark(written.etag)[0]):
            return replace(oldest, metadata=written.metadata)
        self._remove(version for version in versions if version.id != parse_mark(written.etag)[1])
        return written

    def delete(self, key: str) -> None:
        """Remove every version of an object, the oldest one last; retention may refuse any of them."""
        self._remove(self._all_of(key))

    def _ask(self) -> bool:
        try:
            return self._client.get_bucket_versioning(Bucket=self._bucket).get("Status") == "Enabled"
        except ClientError as error:
            if error.response["Error"]["Code"] not in _MAY_NOT_ASK:
                raise
        _log.info("%s does not tell whether it keeps versions: the newest ones count", self._bucket)
        return False

    def _all_of(self, key: str) -> Sequence[Version]:
        return next((versions for found, versions in self._by_key(key) if found == key), ())

    def _remove(self, versions: Iterable[Version]) -> None:
        for version in versions:
            self._client.delete_object(Bucket=self._bucket, Key=version.key, VersionId=version.id)

    def _by_key(self, prefix: str) -> Iterator[tuple[str, Sequence[Version]]]:
        """Group versions by key, delete markers before the others; those of one key may be spread over pages."""
        pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=prefix)
        for key, versions in groupby(chain.from_iterable(map(_versions_in, pages)), key=lambda version: version.key):
            if not fault_of_key(key):
                yield key, sorted(versions, key=lambda version: version.info is not None)

    def _excluded(self, key: str, oldest: ObjectInfo) -> bool:
        version = parse_mark(oldest.etag)[1]
        try:
            answer = self._client.get_object_tagging(Bucket=self._bucket, Key=key, VersionId=version)
        except ClientError as error:
            if error.response["Error"]["Code"] in _MAY_NOT_ASK:
                return False
            raise
        return {"Key": EXCLUDED, "Value": "true"} in answer["TagSet"]


def _versions_in(page: Mapping[str, Any]) -> Sequence[Version]:
    """Return the versions and delete markers of a page by key.

    Of each key the versions stay in the store's order, newest first: their times have seconds only, and that of an
    upload in parts is when it began.
    """
    found = [
        Version(
            entry["Key"],
            entry["VersionId"],
            ObjectInfo(entry["Key"], entry["Size"], entry["ETag"], entry["LastModified"].timestamp()),
            entry["IsLatest"],
        )
        for entry in page.get("Versions", ())
    ]
    found += [
        Version(entry["Key"], entry["VersionId"], None, entry["IsLatest"]) for entry in page.get("DeleteMarkers", ())
    ]
    return sorted(found, key=lambda version: version.key)


def _marked(versions: Sequence[Version]) -> Sequence[ObjectInfo]:
    """Return the versions that are objects, each with its mark."""
    return [
        replace(version.info, etag=mark(version.info.etag, version.id))
        for version in versions
        if version.info is not None
    ]
