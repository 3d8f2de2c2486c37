"""etcd's v3 API as protobuf modules: ``kv_pb2``, ``auth_pb2``, ``rpc_pb2``. Generated, see ``generate.py``.

The stubs are built from the descriptors in ``backupagent.etcd.shim``: a generated ``*_pb2_grpc`` would refuse
every grpcio older than its generator.
"""
