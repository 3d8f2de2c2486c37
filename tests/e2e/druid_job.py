"""The copy Job that etcd-druid makes, as a child process: its arguments, its variables, its Secrets."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from minio_buckets import MinioBuckets

PREFIX = "shoot--dev--demo--8a7f/etcd-main"
PROGRAM = (sys.executable, "-m", "backupagent.cli.etcdbrctl")
LIMIT_S = 100


@dataclass(frozen=True)
class Secret:
    """A mounted Secret: one file for each field, behind links as the kubelet makes them.

    Attributes:
        folder: Where it is mounted.
    """

    folder: Path

    @classmethod
    def of(cls, folder: Path, buckets: MinioBuckets, bucket: str) -> "Secret":
        server = buckets.server
        fields = {
            "accessKeyID": server.access_key,
            "secretAccessKey": server.secret_key,
            "region": "us-east-1",
            "endpoint": server.endpoint_url,
            "s3ForcePathStyle": "true",
            "bucketName": bucket,
        }
        data = folder / "..2026_11_23_21_00_00.1234"
        data.mkdir(parents=True)
        (folder / "..data").symlink_to(data.name)
        for name, text in fields.items():
            (data / name).write_text(text)
            (folder / name).symlink_to(f"..data/{name}")
        return cls(folder)


@dataclass(frozen=True)
class Job:
    """A copy between two buckets.

    Attributes:
        source: Where the snapshots are.
        target: Where they go.
        source_bucket: In ``source``.
        target_bucket: In ``target``.
        source_secret: Of ``source``.
        target_secret: Of ``target``.
        termination_log: Where its last words go; what is there already is removed.
    """

    source: MinioBuckets
    target: MinioBuckets
    source_bucket: str
    target_bucket: str
    source_secret: Secret
    target_secret: Secret
    termination_log: Path
    prefix: str = field(default=PREFIX)

    @classmethod
    def between(cls, source: MinioBuckets, target: MinioBuckets, folder: Path) -> "Job":
        """Make two empty buckets and their Secrets."""
        source_bucket, target_bucket = source.make(), target.make()
        return cls(
            source,
            target,
            source_bucket,
            target_bucket,
            Secret.of(folder / "source-etcd-backup", source, source_bucket),
            Secret.of(folder / "etcd-backup", target, target_bucket),
            folder / "termination-log",
        )

    def put(self, name: str, data: bytes) -> None:
        """Put a snapshot into the source."""
        self.source.put(self.source_bucket, f"{self.prefix}/v2/{name}", data)

    def put_all(self, folder: Path) -> dict[str, bytes]:
        """Put the snapshots of a folder into the source; return them by the names that a copy gives them."""
        snapshots = {path.name: path.read_bytes() for path in sorted((folder / "v2").iterdir())}
        for name, data in snapshots.items():
            self.put(name, data)
        return {name.removesuffix(".final"): data for name, data in snapshots.items()}

    def arrived(self) -> dict[str, bytes]:
        """Return the snapshots at the target by name."""
        below = f"{self.prefix}/v2/"
        objects = self.target.objects(self.target_bucket)
        return {key.removeprefix(below): data for key, data in objects.items() if key.startswith(below)}

    def arguments(self, *, wait: str = "5m0s") -> list[str]:
        """Return druid's arguments in druid's order. Source: gardener-migration of etcd-druid at 5b90b4a."""
        return [
            "copy",
            "--snapstore-temp-directory=/home/nonroot/data/tmp",
            "--storage-provider=S3",
            f"--store-prefix={self.prefix}",
            f"--store-container={self.target_bucket}",
            "--source-storage-provider=S3",
            f"--source-store-prefix={self.prefix}",
            f"--source-store-container={self.source_bucket}",
            "--wait-for-final-snapshot=true",
            f"--wait-for-final-snapshot-timeout={wait}",
        ]

    def variables(self, *, source_secret: Path, target_secret: Path) -> dict[str, str]:
        """Return druid's variables."""
        return {
            "SOURCE_STORAGE_CONTAINER": self.source_bucket,
            "STORAGE_CONTAINER": self.target_bucket,
            "AWS_APPLICATION_CREDENTIALS": str(target_secret),
            "SOURCE_AWS_APPLICATION_CREDENTIALS": str(source_secret),
        }

    def run(self, *, wait: str = "5m0s", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run it as a child process."""
        self.termination_log.write_text("")
        mounted = self.variables(source_secret=self.source_secret.folder, target_secret=self.target_secret.folder)
        own = {"TERMINATION_LOG": str(self.termination_log)}
        return run(self.arguments(wait=wait), mounted | own | variables)


def run(arguments: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run our etcdbrctl as a child process."""
    done = subprocess.run(
        [*PROGRAM, *arguments], env=os.environ | variables, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done
