"""The only place where operations are put together: settings -> wrapped stores -> operations."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK
from backupagent.codecs import codec_named
from backupagent.errors import ConfigError, EmptySource
from backupagent.etcd import connection
from backupagent.etcd.client import Status
from backupagent.kube.client import Kube
from backupagent.model.chain import build_chains
from backupagent.model.restored import Restored
from backupagent.operations.arrival import Backups, Remembered
from backupagent.operations.initializer import Initialization, Initializer
from backupagent.operations.report import (
    CopyReport,
    FollowReport,
    ListReport,
    RestoreReport,
    SnapshotReport,
    VerifyReport,
)
from backupagent.operations.report_care import CollectReport, DoctorReport
from backupagent.progress import Progress
from backupagent.settings import (
    CopySettings,
    DoctorSettings,
    EtcdSettings,
    GcSettings,
    KubeSettings,
    ListSettings,
    RestoreSettings,
    SnapshotSettings,
    TransferSettings,
    VerifySettings,
)
from backupagent.snapstore import Layout, SnapStore
from backupagent.stores import Location, credentials_path, open_store, parse_location, service_of
from backupagent.stores.base import ObjectStore
from backupagent.stores.reopening import ReopeningStore
from backupagent.stores.retrying import Pulse, RetryingStore
from backupagent.stores.throttled import Pace, ThrottledStore
from backupagent.transfer.context import Transfer
from backupagent.units import MiB

if TYPE_CHECKING:
    from backupagent.operations.copier import Copier

SOURCE_VARIABLES = "SOURCE_"
"""Stands before the peer's environment variables that name the credentials of a copy's source."""

PROBE_TIMEOUT_S = 5.0
"""How long an etcd is waited for that is only asked how it is."""


@dataclass(frozen=True)
class Throttle:
    """How gently a store is used.

    Attributes:
        bandwidth: Bytes of content a second at most; 0 is no limit.
        requests: Requests a second at most; 0 is no limit.
        pulse: Is told of requests that are made again, and of the round trip.
    """

    bandwidth: int = 0
    requests: int = 0
    pulse: Pulse | None = None


@contextmanager
def open_snapstore(
    uri: str,
    cancel: Cancel,
    *,
    create: bool = False,
    credentials: Mapping[str, str] | None = None,
    throttle: Throttle | None = None,
    variable_prefix: str = "",
) -> Iterator[SnapStore]:
    """Open a store by its URI, with retries around it, and anew when its credentials change.

    Args:
        uri: The store.
        cancel: Ends waits between attempts.
        create: A directory that does not exist yet is an empty store.
        credentials: See ``stores.open_store``.
        throttle: How gently it is used; without limits when None.
        variable_prefix: See ``stores.open_store``.

    Raises:
        ConfigError: the URI is wrong.
        StoreError: the store cannot be opened.
    """
    location = parse_location(uri)
    opened = _open_with_credentials(location, create, credentials, variable_prefix)
    if throttle is not None:  # inside of the retries, so that every attempt counts
        content, requests = (Pace(rate, SYSTEM_CLOCK, cancel) for rate in (throttle.bandwidth, throttle.requests))
        opened = ThrottledStore(opened, bandwidth=content, requests=requests)
    store = RetryingStore(
        opened,
        clock=SYSTEM_CLOCK,
        rng=random.Random(),  # noqa: S311 - jitter
        cancel=cancel,
        pulse=None if throttle is None else throttle.pulse,
    )
    try:
        yield SnapStore(store, location.prefix)
    finally:
        store.close()


def _open_with_credentials(
    location: Location,
    create: bool,  # noqa: FBT001 - as its only caller got it
    credentials: Mapping[str, str] | None,
    variable_prefix: str,
) -> ObjectStore:
    """Open a store that reads its credentials anew when they change, unless it has none or was given them."""

    def open_anew() -> ObjectStore:
        return open_store(location, create=create, credentials=credentials, variable_prefix=variable_prefix)

    service = service_of(location)
    if credentials is not None or not service:
        return open_anew()
    path = credentials_path(location, service, variable_prefix)
    return ReopeningStore(open_anew, credentials=path, clock=SYSTEM_CLOCK)


@contextmanager
def open_kube(settings: KubeSettings) -> Iterator[Kube]:
    """Connect to an API server; nothing is sent.

    Raises:
        ConfigError: there is no kubeconfig, or it cannot be read.
    """
    from backupagent.kube.client import KubeClient  # noqa: PLC0415 - only where it is needed

    with KubeClient.open(settings.kubeconfig) as kube:
        yield kube


@contextmanager
def open_backups(uri: str, credentials: Mapping[str, str], remembered: Remembered, cancel: Cancel) -> Iterator[Backups]:
    """Open one etcd's backups to see what has arrived; nothing is written.

    Args:
        uri: The store; a directory that does not exist is an empty one.
        credentials: See ``stores.open_store``.
        remembered: What was read before.
        cancel: Ends reads and waits.

    Raises:
        ConfigError: the URI or the credentials are wrong.
        StoreError: the store cannot be opened.
    """
    # Several migrations are looked at side by side, none of them in a hurry: 24 MiB each.
    transfer = Transfer(TransferSettings(workers=4, window=2, part_size=4 * MiB), cancel)
    with open_snapstore(uri, cancel, create=True, credentials=credentials) as snapstore:
        yield Backups(snapstore, transfer, remembered)


def run_snapshot(settings: SnapshotSettings, progress: Progress, cancel: Cancel) -> SnapshotReport:
    """Take one snapshot; see ``Snapshotter.run``."""
    codec_named(settings.compression)  # a wrong one is told before the store is opened
    with open_snapstore(settings.store, cancel, create=True) as snapstore:
        return take_snapshot(snapstore, settings, progress, cancel)


def take_snapshot(
    snapstore: SnapStore, settings: SnapshotSettings, progress: Progress, cancel: Cancel
) -> SnapshotReport:
    """Take one snapshot into a store that is open; see ``Snapshotter.run``."""
    from backupagent.etcd.client import EtcdClient  # noqa: PLC0415 - gRPC only where it is needed
    from backupagent.operations.snapshotter import Snapshotter  # noqa: PLC0415

    codec = codec_named(settings.compression)
    with EtcdClient.open(_etcd(settings)) as client:
        return Snapshotter(client, snapstore, codec, settings, _transfer(settings, progress, cancel)).run()


def run_copy(settings: CopySettings, progress: Progress, cancel: Cancel) -> CopyReport:
    """Copy snapshots; see ``Copier.run``."""
    if settings.until_final:
        raise ConfigError("--until-final is for --follow; a copy that ends takes --wait-for-final")
    with _opened_copier(settings, progress, cancel) as (copier, _transfer):
        return copier.run()


def run_follow(settings: CopySettings, progress: Progress, cancel: Cancel) -> FollowReport:
    """Keep a target in step; see ``Follower.run``."""
    from backupagent.operations.follower import Follower  # noqa: PLC0415 - only the operation that runs is loaded

    with _opened_copier(settings, progress, cancel) as (copier, transfer):
        return Follower(copier, settings, transfer).run()


@contextmanager
def _opened_copier(settings: CopySettings, progress: Progress, cancel: Cancel) -> "Iterator[tuple[Copier, Transfer]]":
    from backupagent.operations.copier import Copier  # noqa: PLC0415 - only the operation that runs is loaded

    pulses = Pulse(), Pulse()
    gently = [Throttle(settings.max_bandwidth, settings.max_requests, pulse) for pulse in pulses]
    with (
        open_snapstore(settings.source, cancel, throttle=gently[0], variable_prefix=SOURCE_VARIABLES) as source,
        open_snapstore(settings.target, cancel, create=True, throttle=gently[1]) as target,
    ):
        transfer = replace(
            _transfer(settings, progress, cancel),
            trouble=lambda: sum(pulse.troubles for pulse in pulses),
            round_trip_s=lambda: sum(pulse.round_trip_s or 0.0 for pulse in pulses),
        )
        yield Copier(source, target, settings, transfer), transfer


def run_restore(settings: RestoreSettings, progress: Progress, cancel: Cancel) -> RestoreReport:
    """Make a data directory; see ``Restorer.run``."""
    from backupagent.operations.restorer import Restorer  # noqa: PLC0415 - only the operation that runs is loaded

    with open_snapstore(settings.store, cancel) as snapstore:
        return Restorer(snapstore, settings, _transfer(settings, progress, cancel)).run()


def run_list(settings: ListSettings, progress: Progress, cancel: Cancel) -> ListReport:
    """List a store; see ``Lister.run``."""
    from backupagent.operations.lister import Lister  # noqa: PLC0415 - only the operation that runs is loaded

    with open_snapstore(settings.store, cancel) as snapstore:
        return Lister(snapstore, progress).run()


def list_if_any(uri: str, cancel: Cancel) -> ListReport | None:
    """List a store that may be empty, or a directory that is not there yet; None when nothing is in it.

    Raises:
        StoreError: it cannot be listed.
    """
    with open_snapstore(uri, cancel, create=True) as snapstore:
        return list_open(snapstore)


def list_open(snapstore: SnapStore) -> ListReport | None:
    """List a store that is open; None when nothing is in it.

    Raises:
        StoreError: it cannot be listed.
    """
    from backupagent.operations.lister import Lister  # noqa: PLC0415 - only the operation that runs is loaded

    try:
        return Lister(snapstore, Progress()).run()
    except EmptySource:
        return None


def run_verify(settings: VerifySettings, progress: Progress, cancel: Cancel) -> VerifyReport:
    """Check a store; see ``Verifier.run``."""
    from backupagent.operations.verifier import Verifier  # noqa: PLC0415 - only the operation that runs is loaded

    with open_snapstore(settings.store, cancel) as snapstore:
        return Verifier(snapstore, settings, _transfer(settings, progress, cancel)).run()


def run_gc(settings: GcSettings, progress: Progress, cancel: Cancel) -> CollectReport:
    """Clean a store; see ``Collector.run``.

    Raises:
        ConfigError: nothing was named that is to be removed.
    """
    from backupagent.operations.collector import Collector  # noqa: PLC0415 - only the operation that runs is loaded

    if not settings.incomplete:
        raise ConfigError("say what to remove: --incomplete; snapshots are not removed by this version")
    with open_snapstore(settings.store, cancel) as snapstore:
        return Collector(snapstore, settings, _transfer(TransferSettings(), progress, cancel)).run()


def run_doctor(settings: DoctorSettings, progress: Progress, cancel: Cancel) -> DoctorReport:
    """Check stores; see ``Doctor.run``."""
    from backupagent.operations.doctor import Doctor  # noqa: PLC0415 - only the operation that runs is loaded

    source = partial(open_snapstore, settings.source, cancel, variable_prefix=SOURCE_VARIABLES)
    target = partial(open_snapstore, settings.target, cancel, create=True)
    transfer = _transfer(TransferSettings(), progress, cancel)
    return Doctor(source if settings.source else None, target if settings.target else None, settings, transfer).run()


def etcd_status(settings: EtcdSettings) -> Status:
    """Ask the first endpoint that answers how it is.

    Raises:
        EtcdUnavailable: none answers.
    """
    from backupagent.etcd.client import EtcdClient  # noqa: PLC0415 - gRPC only where it is needed

    with EtcdClient.open(replace(_etcd(settings), connect_timeout_s=PROBE_TIMEOUT_S)) as client:
        return client.status()


def has_backups(uri: str, cancel: Cancel) -> bool:
    """Tell whether a store holds anything to restore.

    Raises:
        EmptySource: there are deltas and no full: something is missing, and nothing may begin empty.
        StoreError: it cannot be listed.
    """
    with open_snapstore(uri, cancel, create=True) as snapstore:
        listing = snapstore.list()
    if listing.snapshots and not build_chains(listing.snapshots):
        raise snapstore.empty(listing)
    return bool(listing.snapshots)


def initialize(
    data_dir: Path,
    *,
    namespace: str,
    has_backups: Callable[[], bool] | None,
    restore: Callable[[], Restored],
    deep: bool,
) -> Initialization[Restored]:
    """Make a data directory ready; see ``Initializer``."""
    initializer = Initializer(
        data_dir, namespace=namespace, has_backups=has_backups, restore=restore, clock=SYSTEM_CLOCK
    )
    return initializer.run(deep=deep)


def snapshots_prefix(uri: str) -> str:
    """Return the prefix of a store's snapshots as the peer shows it: with their layout, without a last slash.

    Raises:
        ConfigError: the URI is wrong.
    """
    return Layout(parse_location(uri).prefix).snapshots.rstrip("/")


def _etcd(settings: EtcdSettings) -> connection.EtcdAccess:
    return connection.EtcdAccess(
        endpoints=settings.endpoints,
        ca_cert=settings.cacert,
        cert=settings.cert,
        key=settings.key,
        username=settings.user,
        password=_password(settings.password_file),
        connect_timeout_s=settings.connect_timeout,
    )


def _password(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        return file.read_text().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the password file {file}: {error}") from error


def _transfer(settings: TransferSettings, progress: Progress, cancel: Cancel) -> Transfer:
    return Transfer(settings, cancel, progress, SYSTEM_CLOCK)
