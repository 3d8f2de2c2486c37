"""The places where contenders work: a chain and an empty data dir, or two object stores with an empty bucket.

A stage gives each run its own fresh place as the fields of the contender's command line, and says afterwards
whether the work was really done.
"""

import shutil
import urllib.parse
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self

from backupagent.bench.scenarios import Link, Scenario
from backupagent.model.snapshot import Revision, Snapshot
from backupagent.testing import boto3_loop
from backupagent.testing.builders import cached_chain
from backupagent.testing.servers import MinioServer
from backupagent.testing.shaped_link import ShapedLink
from backupagent.units import MiB

PREFIX = "bench"
SOURCE_BUCKET = "source"
HISTORY_PERIOD_S = 3600
"""Between the fulls of an older history."""


class Stage(Protocol):
    """Where the contenders of one scenario work, one after the other."""

    def __enter__(self) -> Self:
        """Prepare what all runs share."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Take everything down."""
        ...

    def fresh(self) -> Mapping[str, str]:
        """Throw the last run's results away and return the fields of the next run."""
        ...

    def problem(self, fields: Mapping[str, str], report: Mapping[str, Any] | None) -> str:
        """Return why a run did not do its work, or nothing."""
        ...


class RestoreStage:
    """A chain in a directory.

    Args:
        scenario: What is restored.
        workspace: An empty directory on the disk that is measured.
    """

    def __init__(self, scenario: Scenario, workspace: Path) -> None:
        self._workspace = workspace
        self._place = workspace / "run"
        self._chain = cached_chain(scenario.full, scenario.deltas)
        names = sorted(Snapshot.parse(path.name) for path in (self._chain / "v2").iterdir())
        self._full_path = self._chain / "v2" / next(name.name for name in names if name.is_full)
        self._last_revision = names[-1].last

    def __enter__(self) -> Self:
        """Read the chain once, so that every run finds it in the page cache."""
        for path in (self._chain / "v2").iterdir():
            with path.open("rb") as file:
                while file.read(MiB):
                    pass
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the last run's results."""
        shutil.rmtree(self._place, ignore_errors=True)

    def fresh(self) -> Mapping[str, str]:
        """Throw the last run's results away and return the fields of the next run."""
        shutil.rmtree(self._place, ignore_errors=True)
        scratch = self._place / "scratch"
        scratch.mkdir(parents=True)
        return {
            "store_dir": str(self._chain),
            "store_uri": f"file://{urllib.parse.quote(str(self._chain))}",
            "full_path": str(self._full_path),
            "data_dir": str(self._place / "etcd"),
            "scratch": str(scratch),
        }

    def problem(self, fields: Mapping[str, str], report: Mapping[str, Any] | None) -> str:
        """Return why there is no data dir at the last revision, or nothing."""
        data_dir = Path(fields["data_dir"])
        if not any((data_dir / place).is_file() for place in ("member/snap/db", "db")):
            return f"there is no {data_dir}/member/snap/db"
        if report is not None and report.get("revision") != self._last_revision:
            return f"it reports revision {report.get('revision')}, the chain ends at {self._last_revision}"
        return ""


class CopyStage:
    """Two object stores on this machine; the first one holds the chain.

    Args:
        scenario: What is copied.
        workspace: An empty directory on the disk that is measured.
    """

    def __init__(self, scenario: Scenario, workspace: Path) -> None:
        self._workspace = workspace
        self._link = scenario.link
        self._one_server = scenario.one_server
        self._older_fulls = scenario.older_fulls
        self._chain = cached_chain(scenario.full, scenario.deltas)
        self._stack = ExitStack()
        self._runs = 0
        self._endpoints: dict[str, str] = {}
        self._servers: dict[str, MinioServer] = {}
        self._folders: dict[str, Path] = {}

    def __enter__(self) -> Self:
        """Start the stores and upload the chain to the first one."""
        with ExitStack() as stack:
            for role in ("source", "target"):
                self._servers[role] = self._server(role, stack)
                self._endpoints[role] = self._servers[role].endpoint_url
                self._folders[role] = self._write_credentials(role)
            self._servers["source"].make_bucket(SOURCE_BUCKET)
            # What prepares and checks goes the short way.
            self._source = boto3_loop.connect(self._folders["source"])
            self._target = boto3_loop.connect(self._folders["target"])
            if self._link is not None:
                for role in self._servers:
                    self._go_through(role, self._link, stack)
            boto3_loop.upload(self._source, SOURCE_BUCKET, self._chain / "v2", f"{PREFIX}/v2/")
            self._add_history()
            self._wanted = boto3_loop.sizes(self._source, SOURCE_BUCKET)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the stores and remove their data."""
        self._stack.close()
        shutil.rmtree(self._workspace, ignore_errors=True)

    def fresh(self) -> Mapping[str, str]:
        """Empty the last run's bucket, make a new one, and return the fields of the next run."""
        if self._runs:
            boto3_loop.empty(self._target, f"target-{self._runs}")
        self._runs += 1
        bucket = f"target-{self._runs}"
        self._servers["target"].make_bucket(bucket)
        scratch = self._workspace / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        return {
            "source_uri": self._uri("source", SOURCE_BUCKET),
            "target_uri": self._uri("target", bucket),
            "source_bucket": SOURCE_BUCKET,
            "target_bucket": bucket,
            "source_credentials": str(self._folders["source"]),
            "target_credentials": str(self._folders["target"]),
            "prefix": PREFIX,
            "scratch": str(scratch),
            "region": MinioServer.REGION,
            **{f"{role}_endpoint": endpoint for role, endpoint in self._endpoints.items()},
            **{f"{role}_access_key": server.access_key for role, server in self._servers.items()},
            **{f"{role}_secret_key": server.secret_key for role, server in self._servers.items()},
        }

    def _server(self, role: str, stack: ExitStack) -> MinioServer:
        if self._one_server and self._servers:
            return next(iter(self._servers.values()))
        return stack.enter_context(MinioServer(self._workspace / f"minio-{role}"))

    def _add_history(self) -> None:
        """Put the full of the chain under older names, too."""
        full = next(each for path in (self._chain / "v2").iterdir() if (each := Snapshot.parse(path.name)).is_full)
        for age in range(1, self._older_fulls + 1):
            older = replace(full, last=Revision(full.last - age), created_s=full.created_s - age * HISTORY_PERIOD_S)
            boto3_loop.duplicate(self._source, SOURCE_BUCKET, f"{PREFIX}/v2/{full.name}", f"{PREFIX}/v2/{older.name}")

    def _go_through(self, role: str, link: Link, stack: ExitStack) -> None:
        shape = ShapedLink(self._servers[role].endpoint, delay_ms=link.round_trip_ms, rate=link.bandwidth)
        self._endpoints[role] = f"http://{stack.enter_context(shape).endpoint}"
        (self._folders[role] / "endpoint").write_text(self._endpoints[role])

    def problem(self, fields: Mapping[str, str], report: Mapping[str, Any] | None) -> str:
        """Return which snapshot is not in the target as it is in the source, or nothing."""
        del report  # what lies in the target says more
        found = boto3_loop.sizes(self._target, fields["target_bucket"])
        wrong = [key for key, size in self._wanted.items() if found.get(key) != size]
        return f"{len(wrong)} of {len(self._wanted)} objects are missing or differ in size: {wrong[0]}" if wrong else ""

    def _uri(self, role: str, bucket: str) -> str:
        server = self._servers[role]
        options = {
            "endpoint": self._endpoints[role],
            "region": server.REGION,
            "path-style": "true",
            "credentials": str(self._folders[role]),
        }
        return f"s3://{bucket}/{PREFIX}?{urllib.parse.urlencode(options)}"

    def _write_credentials(self, role: str) -> Path:
        """Write a folder of credential files as the peer, our own command and the boto3 loop read it."""
        server = self._servers[role]
        folder = self._workspace / f"credentials-{role}"
        folder.mkdir(mode=0o700)
        files = {
            "accessKeyID": server.access_key,
            "secretAccessKey": server.secret_key,
            "region": server.REGION,
            "endpoint": server.endpoint_url,
            "s3ForcePathStyle": "true",
        }
        for name, content in files.items():
            (folder / name).write_text(content)
        return folder


STAGES: Mapping[str, Callable[[Scenario, Path], Stage]] = {"restore": RestoreStage, "copy": CopyStage}
