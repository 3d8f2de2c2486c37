"""Copies over a shaped link that are ended by SIGKILL at a random moment, and run again.

What the target receives is counted behind the link, all runs together: at most every object once, and the parts that
were on their way at the kill once more. The small ones are a part of every run; those of 1 GiB, 20 of them, run with
``make test-long``. The random moments come from seeds, in bytes that have arrived, so that they are spread over the
copy on a machine of any speed.
"""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from wire_proxy import WireProxy
from wire_stores import Store, file_digests

from backupagent.clock import SYSTEM_CLOCK
from backupagent.testing.builders import Deltas, RandomFull, cached_chain
from backupagent.testing.toxiproxy import Toxiproxy
from backupagent.units import GiB, KiB, MiB

pytestmark = pytest.mark.servers

ROUND_TRIP_MS, RATE = 30, 40_000_000
DELTAS = Deltas(count=6, per_delta=100, value_size=1000)
HEAD = 4 * KiB
"""More than any request's head, or any manifest or entry of the journal, has."""


@dataclass(frozen=True)
class Size:
    """How much is copied, and how.

    Attributes:
        full: Bytes of the full.
        workers: Parts on their way at once.
        part: Bytes of a part.
        limit_s: No copy takes longer.
    """

    full: int
    workers: int
    part: int
    limit_s: float

    @property
    def options(self) -> tuple[str, ...]:
        return "--workers", str(self.workers), "--part-size", f"{self.part // MiB}MiB"

    @property
    def on_their_way(self) -> int:
        return self.workers * self.part


SMALL = Size(48 * MiB, workers=4, part=5 * MiB, limit_s=60)
LARGE = Size(GiB, workers=8, part=8 * MiB, limit_s=300)


class Copying:
    """Runs of the real command into one store, behind a link that is slow and a proxy that counts."""

    def __init__(self, source: Path, store: Store, proxy: WireProxy, endpoint: str, size: Size) -> None:
        self.store = store
        self.proxy = proxy
        self.size = size
        self.source = source
        self._words = [
            sys.executable, "-m", "backupagent", "copy", "--source", source.as_uri(), "--target", store.uri(endpoint),
            *size.options, "--output", "json", "--progress", "none",
        ]  # fmt: skip

    def run(self) -> dict[str, Any]:
        """Copy to the end and return the report."""
        done = subprocess.run(self._words, capture_output=True, text=True, check=False, timeout=self.size.limit_s)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def kill(self, arrived: int, later_s: float) -> None:
        """Copy until that many bytes have arrived in all, and a moment longer; then kill."""
        process = subprocess.Popen(self._words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline_s = SYSTEM_CLOCK.monotonic_s() + self.size.limit_s
            while self.proxy.sent < arrived and process.poll() is None:
                assert SYSTEM_CLOCK.monotonic_s() < deadline_s, f"{self.proxy.sent} of {arrived} bytes have arrived"
                SYSTEM_CLOCK.sleep(0.002)
            SYSTEM_CLOCK.sleep(later_s)
        finally:
            process.kill()
            process.wait()

    def assert_whole(self) -> None:
        assert self.store.snapshots() == file_digests(self.source)
        assert self.store.unfinished() == []

    def assert_received_at_most(self, kills: int) -> None:
        content = sum(path.stat().st_size for path in (self.source / "v2").iterdir())
        bound = content + kills * self.size.on_their_way + HEAD * len(self.proxy.requests)
        assert content <= self.proxy.sent <= bound


@contextmanager
def copying(store: Store, toxiproxy: Toxiproxy, size: Size) -> Iterator[Copying]:
    source = cached_chain(RandomFull(size.full), DELTAS)
    with WireProxy(store.server.endpoint) as proxy:
        link = toxiproxy.add_link(proxy.endpoint)
        link.latency(ROUND_TRIP_MS)
        link.bandwidth(RATE)
        yield Copying(source, store, proxy, link.endpoint, size)
        link.cut()
        store.empty()


def assert_killed_once_it_ends_right(copy: Copying, seed: int) -> None:
    rng = random.Random(seed)
    copy.kill(int(rng.uniform(0, copy.size.full)), rng.uniform(0, 0.05))
    arrived = copy.proxy.sent
    report = copy.run()
    copy.assert_whole()
    copy.assert_received_at_most(kills=1)
    assert copy.run()["copied"] == 0
    print(  # noqa: T201 - the figures of a long run
        f"seed {seed}: killed after {arrived:,} bytes; received in all {copy.proxy.sent:,} of at most"
        f" {copy.size.full + copy.size.on_their_way:,} and what the deltas have; read again {report['bytes_reread']:,}"
    )


@pytest.mark.parametrize(("scheme", "seed"), [("s3", 1), ("s3", 2), ("s3", 3), ("az", 4), ("gs", 5)])
def test_a_copy_that_was_killed_once(
    scheme: str, seed: int, make_store: Callable[[str], Store], toxiproxy: Toxiproxy
) -> None:
    with copying(make_store(scheme), toxiproxy, SMALL) as copy:
        assert_killed_once_it_ends_right(copy, seed)


@pytest.mark.parametrize("seed", [11])
def test_a_copy_that_was_killed_five_times(seed: int, make_store: Callable[[str], Store], toxiproxy: Toxiproxy) -> None:
    rng = random.Random(seed)
    with copying(make_store("s3"), toxiproxy, SMALL) as copy:
        for _ in range(5):
            more = int(rng.uniform(0, copy.size.full / 4))
            copy.kill(copy.proxy.sent + more, rng.uniform(0, 0.05))
        copy.run()
        copy.assert_whole()
        copy.assert_received_at_most(kills=5)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(101, 121))
def test_a_large_copy_that_was_killed_once(seed: int, make_store: Callable[[str], Store], toxiproxy: Toxiproxy) -> None:
    with copying(make_store("s3"), toxiproxy, LARGE) as copy:
        assert_killed_once_it_ends_right(copy, seed)
