"""Buckets of a real MinIO: their URIs, what lies in them, and which uploads are open."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from backupagent.stores import open_store, parse_location
from backupagent.stores.base import ObjectStore
from backupagent.testing.servers import MinioServer


class MinioBuckets:
    """A server, one new bucket for every test.

    Args:
        server: It, running.
        folder: An empty folder for credentials.
    """

    def __init__(self, server: MinioServer, folder: Path) -> None:
        self.server = server
        self._folder = folder
        self._serial = itertools.count(1)
        self._credentials = self.credentials(server.access_key, server.secret_key)

    def credentials(self, access_key: str, secret_key: str) -> Path:
        """Write credentials as the peer's files."""
        folder = self._folder / f"credentials-{next(self._serial)}"
        folder.mkdir(mode=0o700)
        for name, text in (("accessKeyID", access_key), ("secretAccessKey", secret_key)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o600)
        return folder

    def make(self) -> str:
        """Make a bucket and return its name."""
        name = f"bucket-{next(self._serial)}"
        self.server.make_bucket(name)
        return name

    def uri(self, bucket: str, prefix: str = "", credentials: Path | None = None) -> str:
        return s3_uri(self.server.endpoint_url, f"{bucket}/{prefix}", credentials or self._credentials)

    @contextlib.contextmanager
    def store(self, bucket: str) -> Iterator[ObjectStore]:
        with contextlib.closing(open_store(parse_location(self.uri(bucket)))) as store:
            yield store

    def put(self, bucket: str, key: str, data: bytes) -> None:
        with self.store(bucket) as store:
            store.put(key, data)

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Return every object by its key."""
        found = {}
        with self.store(bucket) as store:
            for info in store.list_objects(""):
                data = bytearray(info.size)
                store.read_into(info.key, memoryview(data))
                found[info.key] = bytes(data)
        return found

    def open_uploads(self) -> set[str]:
        """Return the uploads that are open in all buckets, from the server's disk: its API gives them by key only."""
        folder = self.server.data_dir / ".minio.sys" / "multipart"
        return {str(path.relative_to(folder)) for path in folder.glob("*/*/xl.meta")}


def s3_uri(endpoint: str, place: str, credentials: Path) -> str:
    options = f"endpoint={quote(endpoint, safe='')}&region=us-east-1&path-style=true"
    return f"s3://{place}?{options}&credentials={quote(str(credentials), safe='')}"
