"""``etcd3`` 0.12.0 on protobuf modules that today's runtimes accept.

The package's own ``etcd3.etcdrpc`` was generated in 2020, and protobuf refuses it since 4.21 ("Descriptors cannot be
created directly"). Whoever imports this module puts ours in its place before ``etcd3`` is imported: one set of
modules in one descriptor pool, for etcd3 and for us. The import system makes it happen once, in any thread.
The package is pinned and will not change (last release 2020-03). See ``docs/adr``.
"""

import sys
from types import ModuleType
from typing import Any, ClassVar

from google.protobuf.message_factory import GetMessageClass

from backupagent.errors import ConfigError
from backupagent.etcd.rpc import rpc_pb2

_SEAT = "etcd3.etcdrpc"


class Stub:
    """The client side of one gRPC service: a callable for each of its methods.

    Args:
        channel: A ``grpc.Channel``.
    """

    service: ClassVar[Any]
    """Descriptor of the service."""

    def __init__(self, channel: Any) -> None:  # noqa: ANN401 - grpc has no types
        for method in self.service.methods:
            kind = f"{_arity(method.client_streaming)}_{_arity(method.server_streaming)}"
            call = getattr(channel, kind)(
                f"/{self.service.full_name}/{method.name}",
                request_serializer=GetMessageClass(method.input_type).SerializeToString,
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            setattr(self, method.name, call)


def _arity(streaming: bool) -> str:  # noqa: FBT001 - a protobuf flag
    return "stream" if streaming else "unary"


def _build() -> ModuleType:
    module = ModuleType(_SEAT, "etcd's v3 API, as etcd3 expects it here.")
    public = {name: value for name, value in vars(rpc_pb2).items() if not name.startswith("_")}
    vars(module).update(public)
    for name, service in rpc_pb2.DESCRIPTOR.services_by_name.items():
        setattr(module, f"{name}Stub", type(f"{name}Stub", (Stub,), {"service": service}))
    return module


if _SEAT in sys.modules:
    raise ConfigError("etcd3 was imported before backupagent.etcd.shim", hint="import backupagent.etcd.shim instead")

etcdrpc = sys.modules[_SEAT] = _build()
"""What ``etcd3.etcdrpc`` is: messages and stubs (``KVStub``, ``MaintenanceStub``, ...)."""

import etcd3  # noqa: E402 - only now
import etcd3.exceptions  # noqa: E402
import etcd3.watch  # noqa: E402

__all__ = ["Stub", "etcd3", "etcdrpc"]
