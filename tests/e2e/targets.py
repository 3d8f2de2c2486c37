"""Stores that are written to: a directory and a bucket of MinIO, looked at in the same words."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from buckets import Bucket
from minio_buckets import MinioBuckets


def digests(objects: Mapping[str, bytes]) -> dict[str, tuple[int, str]]:
    return {name: (len(data), sha256(data).hexdigest()) for name, data in objects.items()}


class Target(Protocol):
    """A store from outside, without the code under test where that is possible."""

    @property
    def uri(self) -> str:
        """Its URI."""
        ...

    def objects(self) -> dict[str, tuple[int, str]]:
        """Size and sha256 of every visible snapshot by its name."""
        ...

    def unfinished(self) -> list[str]:
        """What is not whole: open uploads, files on their way, entries of the journal."""
        ...


@dataclass(frozen=True)
class DirectoryTarget:
    """A directory, which the first write makes."""

    root: Path

    @property
    def uri(self) -> str:
        return self.root.as_uri()

    def objects(self) -> dict[str, tuple[int, str]]:
        return digests(Bucket(self.root).objects())

    def unfinished(self) -> list[str]:
        return [str(path) for path in Bucket(self.root).unfinished()]


@dataclass(frozen=True)
class MinioTarget:
    """A prefix in a new bucket.

    Attributes:
        minio: The server.
        bucket: Name of the bucket.
        before: Uploads that were open in other buckets.
    """

    minio: MinioBuckets
    bucket: str
    before: frozenset[str]
    prefix: str = "a/b"

    @property
    def uri(self) -> str:
        return self.minio.uri(self.bucket, self.prefix)

    def objects(self) -> dict[str, tuple[int, str]]:
        start = f"{self.prefix}/v2/"
        objects = self.minio.objects(self.bucket)
        return digests({key.removeprefix(start): data for key, data in objects.items() if key.startswith(start)})

    def unfinished(self) -> list[str]:
        journal = [key for key in self.minio.objects(self.bucket) if "/uploads/" in key]
        return [*journal, *(self.minio.open_uploads() - self.before)]
