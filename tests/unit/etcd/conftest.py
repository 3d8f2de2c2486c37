"""Small bbolt files, written page by page."""

import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from backupagent.etcd.boltfile.layout import BUCKET_FLAG, Meta
from backupagent.etcd.boltfile.reader import Element
from backupagent.etcd.boltfile.writer import PageAppender, write_bucket, write_tree

Items = Iterable[tuple[bytes, bytes]]
MakeBolt = Callable[..., Path]


@pytest.fixture(scope="session")
def make_bolt(tmp_path_factory: pytest.TempPathFactory) -> MakeBolt:
    """Return a function that writes buckets of sorted items into a new file."""
    folder = tmp_path_factory.mktemp("bolt")
    numbers = itertools.count()

    def make(buckets: Mapping[bytes, Items], *, page_size: int = 4096) -> Path:
        path = folder / f"{next(numbers)}.db"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            appender = PageAppender(fd, page_size, 2, name=str(path))
            root = write_tree(
                appender,
                [
                    Element(BUCKET_FLAG, name, write_bucket(appender, (Element(0, *item) for item in items)))
                    for name, items in sorted(buckets.items())
                ],
            )
            appender.flush()
            for txid in (1, 2):
                meta = Meta(page_size, 0, root, 0, appender.next_page, txid)
                os.pwrite(fd, meta.encode_page(), txid % 2 * page_size)
        finally:
            os.close(fd)
        return path

    return make


@pytest.fixture(scope="session")
def make_etcd_db(make_bolt: MakeBolt) -> MakeBolt:
    """Return a function that writes the buckets that every database of etcd has."""

    def make(keys: Items, *, meta: Items = (), lease: Items = (), page_size: int = 4096) -> Path:
        small = dict.fromkeys((b"alarm", b"auth", b"authRoles", b"authUsers", b"cluster", b"members_removed"), ())
        members = [(b"8e9e05c52164694d", b'{"id":10276657743932975437,"peerURLs":["http://old:2380"],"name":"old"}')]
        buckets: dict[bytes, Items] = {
            **small, b"key": keys, b"meta": sorted(meta), b"lease": sorted(lease), b"members": members,
        }  # fmt: skip
        return make_bolt(buckets, page_size=page_size)

    return make
