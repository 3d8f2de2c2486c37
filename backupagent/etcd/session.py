"""One connection to one member: the channel, the login, and etcd3's client on top of them.

Importing this module imports gRPC, protobuf and etcd3.
"""

from pathlib import Path
from typing import Any

import grpc

from backupagent.cancel import Cancel
from backupagent.errors import ConfigError, EtcdUnavailable
from backupagent.etcd.connection import Endpoint, EtcdAccess
from backupagent.etcd.grpc_errors import STALE_TOKEN, details_of, translated
from backupagent.etcd.shim import etcd3, etcdrpc
from backupagent.etcd.stream import GuardedStream, WatchStream

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # a watch batch has 1000 revisions of any size
    ("grpc.max_send_message_length", -1),  # etcd has its own limit, and says so
    ("grpc.keepalive_time_ms", 30_000),  # etcd refuses less than 5 s (--grpc-keepalive-min-time)
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),  # a silent stream is pinged as long as it lives
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    ("grpc.use_local_subchannel_pool", 1),  # a new client does not sit out the back-off of an older one
    ("grpc.enable_retries", 0),  # retries happen in one place, and that is not here
    ("grpc.enable_http_proxy", 0),  # a proxy for buckets is not one for etcd
)
"""Flow control is left alone: no window or frame size was faster than the defaults (measured 2026-11-23)."""


class _Watcher(etcd3.watch.Watcher):  # type: ignore[misc]  # etcd3 has no types
    """etcd3's watcher, whose thread would die with an exception when its channel is closed."""

    closed = False

    def _run(self) -> None:
        try:
            super()._run()
        except ValueError:  # "Cannot invoke RPC on closed channel!"
            if not self.closed:
                raise


class Session(etcd3.Etcd3Client):  # type: ignore[misc]  # etcd3 has no types
    """etcd3's client on a channel of ours; its stubs have all methods of etcd's API.

    The parent's constructor is not called: it opens its own channel, plaintext for https without a CA file, and
    passes the login token in a way that gRPC refuses without TLS. Everything else that it does is done here.

    Args:
        settings: How to reach it; the endpoints in it are not used.
        endpoint: Which member.

    Raises:
        ConfigError: a certificate or key cannot be read.
    """

    messages = etcdrpc

    def __init__(self, settings: EtcdAccess, endpoint: Endpoint) -> None:
        self.endpoint = str(endpoint)
        self._settings = settings
        self.uses_secure_channel = endpoint.tls
        self.channel = _open_channel(settings, endpoint)
        self.timeout = settings.request_timeout_s
        self.metadata: tuple[tuple[str, str], ...] | None = None
        self.call_credentials = None
        self.transactions = etcd3.Transactions()
        self.kvstub = etcdrpc.KVStub(self.channel)
        self.watchstub = etcdrpc.WatchStub(self.channel)
        self.clusterstub = etcdrpc.ClusterStub(self.channel)
        self.leasestub = etcdrpc.LeaseStub(self.channel)
        self.maintenancestub = etcdrpc.MaintenanceStub(self.channel)
        self.auth_stub = etcdrpc.AuthStub(self.channel)
        self.watcher = _Watcher(self.watchstub, timeout=self.timeout)

    def close(self) -> None:
        """Close the channel; running calls end."""
        self.watcher.closed = True
        self.channel.close()

    def log_in(self, timeout_s: float | None = None) -> None:
        """Get a token, where there is a user name.

        Raises:
            EtcdError: wrong name or password.
            EtcdUnavailable: no answer.
        """
        if not self._settings.username:
            return
        request = etcdrpc.AuthenticateRequest(name=self._settings.username, password=self._settings.password)
        with translated(self.endpoint):
            answer = self.auth_stub.Authenticate(request, timeout=timeout_s or self.timeout)
        self.metadata = (("token", answer.token),)
        self.watcher._metadata = self.metadata  # noqa: SLF001 - of a class that will not change

    def call(self, method: Any, request: Any, timeout_s: float | None = None) -> Any:  # noqa: ANN401 - grpc has no types
        """Make one ordinary call, and make it again after a new login when the token was too old.

        Raises:
            EtcdError: and its subclasses, see ``translated``.
        """
        deadline_s = timeout_s or self.timeout
        with translated(self.endpoint):
            try:
                return method(request, timeout=deadline_s, metadata=self.metadata)
            except grpc.RpcError as error:
                if self.metadata is None or details_of(error) not in STALE_TOKEN:
                    raise
            self.log_in()
            return method(request, timeout=deadline_s, metadata=self.metadata)

    def open_snapshot(self, cancel: Cancel) -> GuardedStream:
        """Open a Snapshot call, without a deadline for the whole."""
        self.log_in()  # a stream cannot be tried again as a request can, and tokens end after minutes
        call = self.maintenancestub.Snapshot(etcdrpc.SnapshotRequest(), metadata=self.metadata)
        return GuardedStream(
            call, endpoint=self.endpoint, cancel=cancel, stall_timeout_s=self._settings.stall_timeout_s
        )

    def open_watch(self, cancel: Cancel) -> WatchStream:
        """Open a Watch call, without a deadline for the whole."""
        self.log_in()
        return WatchStream(
            self.watchstub,
            self.metadata,
            endpoint=self.endpoint,
            cancel=cancel,
            stall_timeout_s=self._settings.stall_timeout_s,
        )


def connect(settings: EtcdAccess) -> Session:
    """Return a session with the first endpoint that answers, preferring one that knows a leader.

    A member without a leader still serves snapshots, which is what is left when quorum is lost.

    Raises:
        EtcdUnavailable: none answers.
        EtcdError: one refuses the login.
        ConfigError: the settings are wrong.
    """
    leaderless: Session | None = None
    failures: list[EtcdUnavailable] = []
    for endpoint in settings.parsed_endpoints():
        session = Session(settings, endpoint)
        try:
            session.log_in(settings.connect_timeout_s)
            status = session.call(
                session.maintenancestub.Status, etcdrpc.StatusRequest(), timeout_s=settings.connect_timeout_s
            )
        except EtcdUnavailable as error:
            session.close()
            failures.append(error)
            continue
        except BaseException:
            session.close()
            raise
        if status.leader:
            if leaderless is not None:
                leaderless.close()
            return session
        if leaderless is None:
            leaderless = session
        else:
            session.close()
    if leaderless is not None:
        return leaderless
    raise _none_answered(failures)


def _none_answered(failures: list[EtcdUnavailable]) -> EtcdUnavailable:
    if len(failures) == 1:
        return failures[0]
    reasons = "; ".join(f"{failure.endpoint}: {failure.cause}" for failure in failures)
    return EtcdUnavailable(f"none of {len(failures)} endpoints answers: {reasons}", hint=failures[0].hint)


def _open_channel(settings: EtcdAccess, endpoint: Endpoint) -> Any:  # noqa: ANN401 - grpc has no types
    if not endpoint.tls:
        return grpc.insecure_channel(str(endpoint), options=CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(_read(settings.ca_cert), _read(settings.key), _read(settings.cert))
    return grpc.secure_channel(str(endpoint), credentials, options=CHANNEL_OPTIONS)


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
