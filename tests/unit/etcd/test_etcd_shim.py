"""etcd3 and we share one set of protobuf modules, made for the fast runtime, loaded only when needed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run(code: str) -> str:
    """Run code in a fresh interpreter in which any warning is an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_client_imports_no_sdk() -> None:
    code = """
import sys
import backupagent.etcd.client, backupagent.etcd.connection, backupagent.etcd.watch
print([name for name in ("grpc", "google.protobuf", "etcd3") if name in sys.modules])
"""
    assert run(code) == "[]\n"


def test_etcd3_runs_on_our_modules_without_a_warning() -> None:
    code = """
import backupagent.etcd.session
import backupagent.etcd.shim as shim
import etcd3, sys
from backupagent.etcd.rpc import rpc_pb2, kv_pb2
from google.protobuf.internal import api_implementation
for name in ("etcd3", "etcd3.client", "etcd3.watch", "etcd3.transactions"):
    assert sys.modules[name].etcdrpc is shim.etcdrpc, name
assert etcd3.etcdrpc.PutRequest is rpc_pb2.PutRequest
assert type(rpc_pb2.RangeResponse(kvs=[{}]).kvs[0]) is kv_pb2.KeyValue
print(api_implementation.Type(), etcd3.__version__)
"""
    assert run(code) == "upb 0.12.0\n"


def test_threads_that_import_at_once_get_the_same_modules() -> None:
    code = """
import importlib, threading
barrier, seen = threading.Barrier(8), []
def load():
    barrier.wait()
    seen.append(importlib.import_module("backupagent.etcd.session").etcdrpc)
threads = [threading.Thread(target=load) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(seen), len(set(map(id, seen))))
"""
    assert run(code) == "8 1\n"


def test_foreign_etcdrpc_is_refused() -> None:
    code = """
import sys, types
sys.modules["etcd3.etcdrpc"] = types.ModuleType("etcd3.etcdrpc")
from backupagent.errors import ConfigError
try:
    import backupagent.etcd.shim
except ConfigError as error:
    print(error)
"""
    assert run(code) == "etcd3 was imported before backupagent.etcd.shim\n"


def test_every_name_that_etcd3_uses_is_there() -> None:
    code = """
import pathlib, re
from backupagent.etcd.shim import etcd3, etcdrpc
used = set()
for path in pathlib.Path(etcd3.__file__).parent.glob("*.py"):
    used |= set(re.findall(r"etcdrpc\\.([A-Za-z_.]+)", path.read_text()))
for name in used:
    value = etcdrpc
    for part in name.split("."):
        value = getattr(value, part)
print(len(used) > 40)
"""
    assert run(code) == "True\n"


def test_stubs_have_the_arity_of_their_methods() -> None:
    code = """
from backupagent.etcd.shim import etcdrpc
class Channel:
    def __getattr__(self, kind):
        return lambda path, request_serializer, response_deserializer: (
            kind, path, response_deserializer(b"").DESCRIPTOR.name
        )
print(etcdrpc.MaintenanceStub(Channel()).Snapshot)
print(etcdrpc.WatchStub(Channel()).Watch)
print(etcdrpc.KVStub(Channel()).Txn)
"""
    assert run(code).splitlines() == [
        "('unary_stream', '/etcdserverpb.Maintenance/Snapshot', 'SnapshotResponse')",
        "('stream_stream', '/etcdserverpb.Watch/Watch', 'WatchResponse')",
        "('unary_unary', '/etcdserverpb.KV/Txn', 'TxnResponse')",
    ]
