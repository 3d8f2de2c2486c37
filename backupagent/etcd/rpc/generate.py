"""Write ``*_pb2.py`` from the ``.proto`` files beside this one.

In a scratch environment, from the top of the checkout::

    python3 -m venv protoc && protoc/bin/pip install grpcio-tools==1.62.3 'setuptools<81'
    protoc/bin/python backupagent/etcd/rpc/generate.py

The old version is on purpose: code of protoc 25.1 runs with every protobuf from 4.25 to 7, code of a newer one
refuses older runtimes (measured 2026-11-23 with 4.25.8, 5.29.5, 6.33.0 and 7.36.2).
"""

from pathlib import Path

from grpc_tools import protoc

here = Path(__file__).resolve().parent
root = here.parents[2]
protos = sorted(str(path.relative_to(root)) for path in here.glob("*.proto"))
raise SystemExit(protoc.main(["protoc", f"--proto_path={root}", f"--python_out={root}", *protos]))
