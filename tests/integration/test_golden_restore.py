"""The peer's buckets through the real command line: restored, started in every etcd, equal to what was recorded."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backupagent.etcd.client import EtcdClient
from backupagent.etcd.connection import EtcdAccess
from backupagent.testing.keyspace import StoredKey, read_everything
from backupagent.testing.servers import EtcdServer

pytestmark = pytest.mark.servers

GOLDEN = Path(__file__).parent.parent / "golden"
BUCKETS = ("gzip", "lzw-final", "none", "zlib-final")
ETCDS = ("etcd-3.4", "etcd-3.5", "etcd-3.6", "etcd-3.7")


def recorded(bucket: str, what: str) -> Any:
    return json.loads((GOLDEN / bucket / f"etcd-final-{what}.json").read_text())


def restored(bucket: str, data_dir: Path, *options: str) -> dict[str, Any]:
    store = (GOLDEN / bucket).as_uri()
    words = ["restore", "--store", store, "--data-dir", str(data_dir), "--output", "json", *options]
    done = subprocess.run([sys.executable, "-m", "backupagent", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("bucket", BUCKETS)
def test_the_reported_hash_is_the_recorded_one(bucket: str, tmp_path: Path) -> None:
    [source] = recorded(bucket, "hashkv")
    compacted = source["HashKV"]["compact_revision"]
    report = restored(bucket, tmp_path / "data", "--hash-compact-revision", str(compacted))
    assert report["hash_kv"] == source["HashKV"]["hash"]
    assert (report["revision"], report["compact_revision"]) == (source["HashKV"]["header"]["revision"], compacted)
    assert report["matches_manifest"] is None


@pytest.mark.parametrize("version", ETCDS)
@pytest.mark.parametrize("bucket", BUCKETS)
def test_the_started_etcd_equals_the_source(
    bucket: str, version: str, server_binary: Callable[[str], Path], tmp_path: Path
) -> None:
    binary = server_binary(version)
    restored(bucket, tmp_path / "data")
    [source] = recorded(bucket, "hashkv")
    keys = [
        StoredKey(
            base64.b64decode(kv["key"]),
            base64.b64decode(kv.get("value", "")),
            kv["create_revision"],
            kv["mod_revision"],
            kv["version"],
            kv.get("lease", 0),
        )
        for kv in recorded(bucket, "keys")["kvs"]
    ]
    attached = {key.lease for key in keys if key.lease}
    with (
        EtcdServer(binary, data_dir=tmp_path / "data") as server,
        EtcdClient.open(EtcdAccess(endpoints=(server.url,))) as client,
    ):
        assert read_everything(client) == keys
        assert len(attached) == 2
        assert attached <= set(client.leases())
        if client.hash_kv().compact_revision < source["HashKV"]["compact_revision"]:
            client.compact(source["HashKV"]["compact_revision"])
        hashed = client.hash_kv()
    assert (hashed.hash, hashed.compact_revision) == (source["HashKV"]["hash"], source["HashKV"]["compact_revision"])
