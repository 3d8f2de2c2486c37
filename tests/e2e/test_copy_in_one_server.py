"""Two buckets of one MinIO: the server copies by itself, and what passes through us is counted on the wire."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import boto3
import pytest
from buckets import Bucket
from command import backupagent
from minio_buckets import MinioBuckets, s3_uri
from targets import MinioTarget, digests

from backupagent.testing.builders import Deltas, RandomFull, build_chain
from backupagent.units import KiB, MiB

pytestmark = pytest.mark.servers

PART_SIZE = 5 * MiB
FULL_SIZE = 26 * MiB + 32
"""Five parts of 5 MiB and a shorter one."""
PARTS = 6


class CountingRelay:
    """Passes connections on to a server and counts what goes either way."""

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.passed = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}"

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._server)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError), closing(other):
            while data := one.recv(64 * KiB):
                with self._lock:
                    self.passed += len(data)
                other.sendall(data)


@pytest.fixture
def relay(minio: MinioBuckets) -> Iterator[CountingRelay]:
    with closing(CountingRelay(minio.server.host, minio.server.port("s3"))) as relay:
        yield relay


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    """A full in six parts and two deltas of more than a MiB."""
    bucket = Bucket(tmp_path_factory.mktemp("history"))
    build_chain(bucket.root, RandomFull(FULL_SIZE - 32), Deltas(count=2, per_delta=40, value_size=30_000))
    return bucket


@pytest.fixture
def filled(minio: MinioBuckets, history: Bucket) -> str:
    """A bucket with the history, written by us in parts of 5 MiB."""
    name = minio.make()
    uri = minio.uri(name, "src")
    backupagent("copy", "--source", history.uri, "--target", uri, "--part-size", "5MiB").report()
    return name


@pytest.fixture
def target(minio: MinioBuckets, filled: str) -> MinioTarget:
    return MinioTarget(minio, minio.make(), frozenset(minio.open_uploads()))


def test_the_bytes_do_not_pass_through_us(
    filled: str, target: MinioTarget, history: Bucket, minio: MinioBuckets, relay: CountingRelay
) -> None:
    credentials = minio.credentials(minio.server.access_key, minio.server.secret_key)
    uris = [s3_uri(relay.url, place, credentials) for place in (f"{filled}/src", f"{target.bucket}/{target.prefix}")]
    options = ("--source", uris[0], "--target", uris[1])
    report = backupagent("copy", *options).report()
    sizes = [size for size, _sha256 in digests(history.objects()).values()]
    assert report["server_side_bytes"] == sum(sizes) > 28 * MiB
    assert (report["copied"], report["bytes"], report["trailers_unchecked"]) == (3, 0, 0)
    assert report["server_side_refused"] is None
    assert relay.passed < 256 * KiB
    assert target.objects() == digests(history.objects())
    assert target.unfinished() == []
    assert backupagent("copy", *options).report()["skipped"] == 3
    assert backupagent("verify", "--store", target.uri).report()["ok"]

    other = MinioTarget(minio, minio.make(), frozenset(minio.open_uploads()))
    options = ("--source", uris[0], "--target", s3_uri(relay.url, f"{other.bucket}/{other.prefix}", credentials))
    report = backupagent("copy", *options, "--no-server-side-copy").report()
    assert (report["bytes"], report["server_side_bytes"]) == (sum(sizes), 0)
    assert relay.passed > 2 * sum(sizes)
    assert other.objects() == digests(history.objects())


@pytest.mark.parametrize(("signal", "held"), [("sigkill", 2), ("sigterm", 3)])
def test_a_copy_of_the_server_goes_on_where_it_was_ended(
    signal: str, held: int, filled: str, target: MinioTarget, history: Bucket, minio: MinioBuckets
) -> None:
    options = ("--source", minio.uri(filled, "src"), "--target", target.uri, "--workers", "1")
    assert backupagent("copy", *options, armed=f"transfer.part={signal}*3").code != 0
    assert target.objects() == {}
    assert len(target.unfinished()) == 2, "an upload, and its entry in the journal"
    report = backupagent("copy", *options).report()
    sizes = [size for size, _sha256 in digests(history.objects()).values()]
    assert report["server_side_bytes"] == sum(sizes) - held * PART_SIZE
    assert target.objects() == digests(history.objects())
    assert target.unfinished() == []


def test_a_target_that_may_not_read_the_source_gets_the_bytes_from_us(
    filled: str, target: MinioTarget, history: Bucket, minio: MinioBuckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = minio.server
    statement = {
        "Effect": "Allow",
        "Action": ["s3:*"],
        "Resource": [f"arn:aws:s3:::{target.bucket}{end}" for end in ("", "/*")],
    }
    sts = boto3.client(
        "sts",
        endpoint_url=server.endpoint_url,
        region_name=server.REGION,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    given = sts.assume_role(RoleArn="arn:aws:iam::0:role/r", RoleSessionName="copy", Policy=policy)["Credentials"]
    sts.close()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", given["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", given["SessionToken"])
    uri = minio.uri(target.bucket, target.prefix).partition("&credentials=")[0]
    ended = backupagent("copy", "--source", minio.uri(filled, "src"), "--target", uri, "--part-size", "5MiB")
    report = ended.report()
    sizes = [size for size, _sha256 in digests(history.objects()).values()]
    assert (report["bytes"], report["server_side_bytes"]) == (sum(sizes), 0)
    assert "AccessDenied" in report["server_side_refused"]
    assert ended.stderr.count("the store does not copy by itself") == 1
    assert target.objects() == digests(history.objects())
    assert target.unfinished() == []
