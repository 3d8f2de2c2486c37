"""The real stores behind a proxy: how each is addressed, and what lies in it, seen without the proxy."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from backupagent.stores import open_store, parse_location
from backupagent.stores.base import ObjectStore
from backupagent.testing.servers import MinioServer
from backupagent.testing.store_servers import AzuriteServer, FakeGcsServer
from backupagent.units import MiB

PREFIX = "a/b"

Server = MinioServer | AzuriteServer | FakeGcsServer

_serial = itertools.count(1)


def write_credentials(folder: Path, fields: Mapping[str, str]) -> Path:
    """Write the peer's files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in fields.items():
        (folder / name).write_text(text)
    return folder


@dataclass(frozen=True)
class Store:
    """A new, empty bucket of a real server.

    Attributes:
        server: It, running.
        bucket: Name of the bucket.
        credentials: Folder with the peer's files; None where it asks for none.
    """

    server: Server
    bucket: str
    credentials: Path | None

    def uri(self, endpoint: str = "", credentials: Path | None = None) -> str:
        """Return the store's URI.

        Args:
            endpoint: ``host:port`` of a proxy in front of it; empty for its own.
            credentials: Others than its own.
        """
        url = f"http://{endpoint or self.server.endpoint}"
        if isinstance(self.server, MinioServer):
            scheme, options = "s3", f"endpoint={quote(url, safe='')}&region={self.server.REGION}&path-style=true"
        elif isinstance(self.server, AzuriteServer):
            scheme, options = "az", f"endpoint={quote(f'{url}/{self.server.account}', safe='')}"
        else:
            scheme, options = "gs", f"endpoint={quote(url, safe='')}"
        folder = credentials or self.credentials
        files = f"&credentials={quote(str(folder), safe='')}" if folder else ""
        return f"{scheme}://{self.bucket}/{PREFIX}?{options}{files}"

    @contextlib.contextmanager
    def open(self) -> Iterator[ObjectStore]:
        """Open it without any proxy or wrapper."""
        with contextlib.closing(open_store(parse_location(self.uri()))) as store:
            yield store

    def snapshots(self) -> dict[str, tuple[int, str]]:
        """Return size and sha256 of every snapshot by its name."""
        with self.open() as store:
            return digests(store, f"{PREFIX}/v2/")

    def unfinished(self) -> list[str]:
        """Return what is not whole: open uploads, listed with an empty prefix, and what stands for them."""
        with self.open() as store:
            uploads = [f"upload of {upload.key}" for upload in store.list_uploads("")]
            folders = [f"{PREFIX}/manifests/uploads/", f"{PREFIX}/manifests/parts/"]
            return uploads + [info.key for folder in folders for info in store.list_objects(folder)]

    def empty(self) -> None:
        """Remove every object: a server keeps them as long as it lives."""
        with self.open() as store:
            for info in list(store.list_objects("")):
                store.delete(info.key)

    def keys(self) -> list[str]:
        """Return all keys."""
        with self.open() as store:
            return [info.key for info in store.list_objects("")]


def digests(store: ObjectStore, folder: str) -> dict[str, tuple[int, str]]:
    """Return size and sha256 of every object below a folder by what follows it."""
    found = list(store.list_objects(folder))
    return {info.key.removeprefix(folder): (info.size, _digest(store, info.key, info.size)) for info in found}


def _digest(store: ObjectStore, key: str, size: int) -> str:
    buffer, digest = bytearray(min(size, 8 * MiB)), sha256()
    for offset in range(0, size, 8 * MiB):
        piece = memoryview(buffer)[: min(8 * MiB, size - offset)]
        store.read_into(key, piece, offset=offset)
        digest.update(piece)
    return digest.hexdigest()


def file_digests(folder: Path) -> dict[str, tuple[int, str]]:
    """Return size and sha256 of every snapshot in a directory bucket."""
    found = {}
    for path in sorted((folder / "v2").iterdir()):
        with path.open("rb") as file:
            digest = sha256()
            while piece := file.read(8 * MiB):
                digest.update(piece)
        found[path.name] = (path.stat().st_size, digest.hexdigest())
    return found


def fill(store: Store, folder: Path, prefix: str = PREFIX) -> None:
    """Put the snapshots of a directory bucket into a store."""
    with store.open() as opened:
        for path in (folder / "v2").iterdir():
            opened.put(f"{prefix}/v2/{path.name}", path.read_bytes())


def new_minio_store(server: MinioServer, folder: Path) -> Store:
    bucket = f"bucket-{next(_serial)}"
    server.make_bucket(bucket)
    fields = {"accessKeyID": server.access_key, "secretAccessKey": server.secret_key}
    return Store(server, bucket, write_credentials(folder / bucket, fields))


def new_azurite_store(server: AzuriteServer, folder: Path) -> Store:
    container = f"container-{next(_serial)}"
    server.make_container(container)
    fields = {"storageAccount": server.account, "storageKey": server.key}
    return Store(server, container, write_credentials(folder / container, fields))


def new_gcs_store(server: FakeGcsServer, folder: Path) -> Store:
    del folder
    bucket = f"bucket-{next(_serial)}"
    server.make_bucket(bucket)
    return Store(server, bucket, None)


MAKERS: Mapping[str, tuple[str, Callable[..., Store]]] = {
    "s3": ("minio", new_minio_store),
    "az": ("azurite", new_azurite_store),
    "gs": ("fake_gcs", new_gcs_store),
}
"""By scheme: the fixture with the server, and what makes a bucket there."""
