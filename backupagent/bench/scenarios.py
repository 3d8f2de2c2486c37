"""Every benchmark, as data: what is done to what, beside whom, and what is promised."""

from dataclasses import dataclass, replace

from backupagent.bench.baselines import BOTO3_LOOP, COPY_AND_FSYNC
from backupagent.bench.contender import OUR_COPY, OUR_COPY_UNCHECKED, OUR_RESTORE, Contender
from backupagent.bench.measure import READY
from backupagent.bench.peers import ETCDBRCTL_COPY, ETCDBRCTL_RESTORE, RCLONE_COPY, S5CMD_COPY
from backupagent.bench.targets import Metric, Target
from backupagent.testing.builders import Deltas, Full, RandomFull
from backupagent.units import GiB, KiB, MiB


@dataclass(frozen=True)
class Link:
    """What lies between the contenders and the stores.

    Attributes:
        round_trip_ms: Added to every round trip.
        bandwidth: Bytes a second of each connection, in each direction.
    """

    round_trip_ms: int
    bandwidth: int


FAR = Link(round_trip_ms=30, bandwidth=40_000_000)
"""Two regions of one continent; both stores lie behind it. Source: DESIGN 11."""


@dataclass(frozen=True)
class Scenario:
    """One benchmark.

    Attributes:
        name: Unique; scenarios are chosen by it.
        what: A key of ``stages.STAGES``.
        full: The full of the chain that is worked on.
        deltas: Its deltas.
        contenders: Run in this order, again and again; the first one is ours.
        targets: What is promised.
        link: What lies before the stores; None for nothing.
        older_fulls: So many times the full lies in the store besides, under names of an older history.
        one_server: Source and target are buckets of one store.
        ready_memory: Bytes of free memory that are kept ready for each run; see ``measure.memory_ready``.
        content: Bytes of uncompressed content that is moved; needed by targets for each GiB.
    """

    name: str
    what: str
    full: Full | RandomFull
    deltas: Deltas
    contenders: tuple[Contender, ...]
    targets: tuple[Target, ...] = ()
    link: Link | None = None
    older_fulls: int = 0
    one_server: bool = False
    ready_memory: int = READY
    content: int = 0

    @property
    def needs(self) -> frozenset[str]:
        """Names of the scenarios that its targets compare it with."""
        return frozenset(target.against for target in self.targets if target.metric is Metric.MEMORY_GROWTH)


NO_CONTENT = 64 * KiB
"""As a limit of bytes written to disk: none of the snapshots'. The kernel counts an updated access time as a block."""

_SMALL_FULL = Full(values=1, value_size=16)
_NO_DELTAS = Deltas(count=0, per_delta=0, value_size=0)
_MIB_DELTAS = Deltas(count=100, per_delta=94, value_size=8 * KiB)
"""One MiB of JSON each."""
_COPIED = GiB + 100 * MiB
_BOUNDED = (Target(Metric.PEAK_MEMORY, 256 * MiB), Target(Metric.WRITTEN, NO_CONTENT))

AS_FAST = 1.0
"""As a limit of a ratio: not slower."""

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="restore-100k",
        what="restore",
        full=_SMALL_FULL,
        deltas=Deltas(count=15, per_delta=6_667, value_size=KiB),
        contenders=(OUR_RESTORE, ETCDBRCTL_RESTORE),
        targets=(Target(Metric.EVENTS_PER_S, 60_000), Target(Metric.PEAK_MEMORY, 128 * MiB)),
    ),
    Scenario(
        name="restore-100k-gzip",
        what="restore",
        full=Full(values=1, value_size=16, codec="gzip"),
        deltas=Deltas(count=15, per_delta=6_667, value_size=KiB, codec="gzip"),
        contenders=(OUR_RESTORE, ETCDBRCTL_RESTORE),
        targets=(Target(Metric.EVENTS_PER_S, 60_000), Target(Metric.PEAK_MEMORY, 128 * MiB)),
    ),
    Scenario(
        name="restore-1m",
        what="restore",
        full=_SMALL_FULL,
        deltas=Deltas(count=150, per_delta=6_667, value_size=KiB),
        contenders=(OUR_RESTORE,),
        targets=(Target(Metric.MEMORY_GROWTH, 10 * MiB, against="restore-100k"),),
    ),
    Scenario(
        name="restore-600mb",
        what="restore",
        full=Full(values=48_000, value_size=10 * KiB),
        deltas=_NO_DELTAS,
        contenders=(OUR_RESTORE, COPY_AND_FSYNC, ETCDBRCTL_RESTORE),
        targets=(Target(Metric.WALL_RATIO, 5, against=COPY_AND_FSYNC.name), Target(Metric.PEAK_MEMORY, 128 * MiB)),
    ),
    Scenario(
        name="copy-1gib",
        what="copy",
        full=RandomFull(size=GiB),
        deltas=_MIB_DELTAS,
        contenders=(OUR_COPY, ETCDBRCTL_COPY, RCLONE_COPY, BOTO3_LOOP),
        targets=(
            Target(Metric.WALL_RATIO, 1 / 1.8, against=ETCDBRCTL_COPY.name),
            Target(Metric.WALL_RATIO, 1 / 1.8, against=RCLONE_COPY.name),
            Target(Metric.WALL_RATIO, 0.75, against=BOTO3_LOOP.name),
            Target(Metric.CPU_PER_GIB, 2.4),
            *_BOUNDED,
        ),
        content=_COPIED,
    ),
    Scenario(
        name="copy-1gib-gzip",
        what="copy",
        full=RandomFull(size=GiB, codec="gzip"),
        deltas=replace(_MIB_DELTAS, codec="gzip"),
        contenders=(OUR_COPY, OUR_COPY_UNCHECKED, ETCDBRCTL_COPY),
        targets=(Target(Metric.CPU_ABOVE, 2.5, against=OUR_COPY_UNCHECKED.name), *_BOUNDED),
        content=_COPIED,
    ),
    Scenario(
        name="copy-far",
        what="copy",
        full=RandomFull(size=GiB),
        deltas=_MIB_DELTAS,
        contenders=(OUR_COPY, ETCDBRCTL_COPY, RCLONE_COPY),
        targets=(
            Target(Metric.WALL_RATIO, 1 / 6, against=ETCDBRCTL_COPY.name),
            Target(Metric.WALL_RATIO, 1 / 4.5, against=RCLONE_COPY.name),
            *_BOUNDED,
        ),
        link=FAR,
        content=_COPIED,
    ),
    Scenario(
        name="copy-far-gzip",
        what="copy",
        full=RandomFull(size=GiB, codec="gzip"),
        deltas=replace(_MIB_DELTAS, codec="gzip"),
        contenders=(OUR_COPY, OUR_COPY_UNCHECKED),
        targets=(
            Target(Metric.WALL_RATIO, AS_FAST, against=OUR_COPY_UNCHECKED.name),
            Target(Metric.CPU_ABOVE, 2.5, against=OUR_COPY_UNCHECKED.name),
            *_BOUNDED,
        ),
        link=FAR,
        content=_COPIED,
    ),
    Scenario(
        name="copy-far-history",
        what="copy",
        full=RandomFull(size=128 * MiB, revision=100),
        deltas=replace(_MIB_DELTAS, count=10),
        contenders=(OUR_COPY,),
        targets=(Target(Metric.RESTORABLE_SHARE, 1 / 3), *_BOUNDED),
        link=FAR,
        older_fulls=10,
    ),
    Scenario(
        name="copy-one-server",
        what="copy",
        full=RandomFull(size=GiB),
        deltas=_MIB_DELTAS,
        contenders=(OUR_COPY, S5CMD_COPY, ETCDBRCTL_COPY),
        targets=(
            Target(Metric.WALL_RATIO, AS_FAST, against=S5CMD_COPY.name),
            Target(Metric.WALL_RATIO, 1, against=ETCDBRCTL_COPY.name),
            *_BOUNDED,
        ),
        one_server=True,
    ),
    Scenario(
        name="copy-far-many",
        what="copy",
        full=_SMALL_FULL,
        deltas=Deltas(count=2_000, per_delta=10, value_size=1_400),
        contenders=(OUR_COPY, ETCDBRCTL_COPY),
        targets=(
            Target(Metric.WALL_RATIO, 1 / 6, against=ETCDBRCTL_COPY.name),
            Target(Metric.CPU_S, 3.0),
            *_BOUNDED,
        ),
        link=FAR,
    ),
)

_TINY_DELTAS = Deltas(count=3, per_delta=20, value_size=100, keys=7)

QUICK: tuple[Scenario, ...] = (
    Scenario(
        name="restore-quick",
        what="restore",
        full=_SMALL_FULL,
        deltas=_TINY_DELTAS,
        ready_memory=0,
        contenders=(OUR_RESTORE, COPY_AND_FSYNC, ETCDBRCTL_RESTORE),
    ),
    Scenario(
        name="copy-quick",
        what="copy",
        full=RandomFull(size=MiB),
        deltas=_TINY_DELTAS,
        ready_memory=0,
        contenders=(OUR_COPY, BOTO3_LOOP, ETCDBRCTL_COPY),
    ),
)
"""Too small to mean anything: they show that the harness runs."""
