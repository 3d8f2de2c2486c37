"""The servers that other tests rely on: they start, serve, stop, fail loudly, and never outlive the test run."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import botocore.config
import pytest

from backupagent.errors import ConfigError
from backupagent.testing.server_binaries import binary_version, find_binary, require
from backupagent.testing.servers import (
    EtcdServer,
    MinioServer,
    ServerFailed,
    ServerMissing,
    clean_environment,
    free_ports,
)

ETCDS = ("etcd-3.4", "etcd-3.5", "etcd-3.6", "etcd-3.7", "etcd")
Find = Callable[[str], Path]
ROOT = Path(__file__).parents[2]


def call(server: EtcdServer, path: str, **fields: str) -> dict:
    body = {name: base64.b64encode(value.encode()).decode() for name, value in fields.items()}
    request = urllib.request.Request(server.url + path, data=json.dumps(body).encode(), method="POST")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return json.load(answer)


def put(server: EtcdServer, key: str, value: str) -> None:
    call(server, "/v3/kv/put", key=key, value=value)


def get(server: EtcdServer, key: str) -> str:
    return base64.b64decode(call(server, "/v3/kv/range", key=key)["kvs"][0]["value"]).decode()


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_until(happened: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not happened() and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    return happened()


def wait_until_gone(pid: int) -> bool:
    return wait_until(lambda: not is_alive(pid))


@pytest.mark.parametrize("name", ETCDS)
def test_etcd_serves_keeps_its_data_over_a_restart_and_stops(name: str, tmp_path: Path, server_binary: Find) -> None:
    with EtcdServer(server_binary(name), tmp_path / "data", log_path=tmp_path / "log") as server:
        put(server, "greeting", "hello")
        endpoint, pid, scratch = server.endpoint, server.pid, server.scratch
        server.restart()
        assert server.endpoint == endpoint
        assert server.pid != pid
        assert get(server, "greeting") == "hello"
        server.kill()
        server.start()
        assert get(server, "greeting") == "hello"
        pid = server.pid
        server.stop()
        assert not server.is_running
        assert not is_alive(pid)
        with pytest.raises(ServerFailed, match="does not run"):
            _ = server.pid
    assert (tmp_path / "log").stat().st_size > 0
    assert not scratch.exists()


@pytest.mark.parametrize(("name", "times"), [("etcd-3.4", 0), ("etcd-3.5", 1), ("etcd-3.7", 1)])
def test_etcd_skips_fsync_only_where_it_knows_the_flag(name: str, times: int, server_binary: Find) -> None:
    with EtcdServer(server_binary(name)) as server:
        words = Path(f"/proc/{server.pid}/cmdline").read_bytes().split(b"\0")
    assert words.count(b"--unsafe-no-fsync") == times


def test_etcd_that_dies_at_start_is_an_error_with_the_end_of_its_log(tmp_path: Path, server_binary: Find) -> None:
    server = EtcdServer(server_binary("etcd"), extra_args=("--no-such-flag",), log_path=tmp_path / "log")
    with pytest.raises(ServerFailed) as caught:
        server.start()
    assert re.search(r"ended with \d+ before it was ready", str(caught.value))
    assert "no-such-flag" in caught.value.log_tail
    assert str(tmp_path / "log") in str(caught.value)
    assert not server.is_running
    server.close()


def test_a_binary_that_cannot_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="could not be started"):
        MinioServer(binary=tmp_path).start()


def test_etcd_starts_again_after_a_crash(server_binary: Find, tmp_path: Path) -> None:
    with EtcdServer(server_binary("etcd"), tmp_path / "data") as server:
        put(server, "greeting", "hello")
        pid = server.pid
        os.kill(pid, signal.SIGKILL)
        assert wait_until_gone(pid)
        # Its first thread is a zombie before the whole process can be waited for.
        assert wait_until(lambda: not server.is_running)
        server.start()
        assert get(server, "greeting") == "hello"


def test_etcd_that_is_not_ready_in_time_is_ended(server_binary: Find) -> None:
    # The second member of the cluster never comes.
    (port,) = free_ports(1)
    cluster = f"a=http://127.0.0.1:{port},b=http://127.0.0.1:1"
    server = EtcdServer(server_binary("etcd"), name="a", peer_port=port, initial_cluster=cluster)
    server.start(wait=False)
    pid = server.pid
    with pytest.raises(ServerFailed, match=r"not ready within 0\.5 s"):
        server.wait_ready(0.5)
    assert not is_alive(pid)
    server.close()


@pytest.mark.parametrize("name", ETCDS)
def test_etcd_starts_on_a_restored_data_dir(name: str, tmp_path: Path, server_binary: Find) -> None:
    etcdctl, etcdutl, wanted = server_binary("etcdctl"), server_binary("etcdutl"), server_binary(name)
    oldest = find_binary("etcd-3.4") or server_binary("etcd-3.5")  # whatever starts below can read its db
    snapshot, restored = tmp_path / "snapshot", tmp_path / "restored"
    with EtcdServer(oldest) as source:
        put(source, "greeting", "hello")
        subprocess.run([etcdctl, "--endpoints", source.endpoint, "snapshot", "save", snapshot], check=True)
    cluster = {"name": "m1", "initial_cluster": "m1=http://10.1.2.3:2380", "initial_cluster_token": "moved"}
    peers = {"initial_advertise_peer_urls": "http://10.1.2.3:2380"}
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in {**cluster, **peers}.items()]
    subprocess.run([etcdutl, "snapshot", "restore", snapshot, f"--data-dir={restored}", *flags], check=True)
    with EtcdServer(wanted, restored, **cluster, **peers) as server:
        assert get(server, "greeting") == "hello"
    with EtcdServer(wanted, restored) as server:  # the values of the first start are in the data dir
        assert get(server, "greeting") == "hello"


def test_etcd_members_form_a_cluster(server_binary: Find) -> None:
    (port,) = free_ports(1)
    hosts = {f"m{i}": f"127.0.0.{i + 2}" for i in range(3)}
    cluster = ",".join(f"{name}=http://{host}:{port}" for name, host in hosts.items())
    members = [
        EtcdServer(server_binary("etcd"), name=name, host=host, peer_port=port, initial_cluster=cluster)
        for name, host in hosts.items()
    ]
    try:
        for member in members:
            member.start(wait=False)
        for member in members:
            member.wait_ready()
        put(members[0], "greeting", "hello")
        assert get(members[2], "greeting") == "hello"
    finally:
        for member in members:
            member.close()


@pytest.mark.parametrize(("kind", "role"), [("etcd", "client"), ("etcd", "peer"), ("minio", "s3")])
def test_a_snatched_port_is_replaced_unless_it_was_asked_for(kind: str, role: str, server_binary: Find) -> None:
    program = server_binary(kind)
    server = EtcdServer(program) if kind == "etcd" else MinioServer(binary=program)
    snatched = server.port(role)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", snatched))
        with server:
            assert server.port(role) != snatched
            assert server.is_ready()
        asked = {"port" if role == "s3" else f"{role}_port": snatched}
        fixed = EtcdServer(program, **asked) if kind == "etcd" else MinioServer(binary=program, **asked)
        with pytest.raises(ServerFailed) as caught:
            fixed.start()
        assert caught.value.port_taken
        fixed.close()


def test_a_server_is_not_mistaken_for_another_one_on_its_port(server_binary: Find) -> None:
    with EtcdServer(server_binary("etcd")) as first:
        second = EtcdServer(first.binary, client_port=first.port("client"))
        assert not second.is_ready()
        with pytest.raises(ServerFailed):
            second.start()
        second.close()
    with MinioServer(binary=server_binary("minio")) as minio:
        other = MinioServer(binary=minio.binary, port=minio.port("s3"))
        assert not other.is_ready()
        other.close()


def test_servers_listen_on_loopback_only() -> None:
    with pytest.raises(ConfigError, match="loopback"):
        EtcdServer(Path("etcd"), host="0.0.0.0")


def test_a_server_ends_with_a_killed_parent_but_not_with_the_thread_that_started_it(
    tmp_path: Path, server_binary: Find
) -> None:
    program = textwrap.dedent(
        f"""
        import sys, threading
        from pathlib import Path
        from backupagent.testing.servers import EtcdServer
        server = EtcdServer(Path({str(server_binary("etcd"))!r}), Path({str(tmp_path / "data")!r}))
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
        print(server.pid, flush=True)
        sys.stdin.read()
        """
    )
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        threading.Event().wait(0.5)
        assert is_alive(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert wait_until_gone(pid)


def test_a_server_ends_with_a_parent_that_forgot_it(tmp_path: Path, server_binary: Find) -> None:
    program = (
        "from pathlib import Path; from backupagent.testing.servers import EtcdServer; "
        f"s = EtcdServer(Path({str(server_binary('etcd'))!r})); s.start(); print(s.pid)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment, check=True)
    assert not is_alive(int(done.stdout))
    assert list(tmp_path.iterdir()) == []


def s3_client(server: MinioServer, **changes: str):
    keys = {"aws_access_key_id": server.access_key, "aws_secret_access_key": server.secret_key, **changes}
    config = botocore.config.Config(s3={"addressing_style": "path"}, proxies={}, retries={"max_attempts": 1})
    return boto3.client("s3", endpoint_url=server.endpoint_url, region_name=server.REGION, config=config, **keys)


@pytest.fixture
def minio(tmp_path: Path, server_binary: Find) -> Iterator[MinioServer]:
    with (
        clean_environment(),
        MinioServer(tmp_path / "data", binary=server_binary("minio"), log_path=tmp_path / "l") as server,
    ):
        yield server


def test_minio_stores_objects_and_keeps_them_over_a_restart(minio: MinioServer) -> None:
    minio.make_bucket("backups")
    minio.make_bucket("locked", object_lock=True)
    client = s3_client(minio)
    client.put_object(Bucket="backups", Key="a/b c", Body=b"hello")
    minio.restart()
    assert client.get_object(Bucket="backups", Key="a/b c")["Body"].read() == b"hello"
    assert client.get_bucket_versioning(Bucket="locked")["Status"] == "Enabled"
    with pytest.raises(ServerFailed, match="BucketAlreadyOwnedByYou"):
        minio.make_bucket("backups")


def test_minio_keeps_its_secret_and_its_data_from_others(minio: MinioServer) -> None:
    minio.make_bucket("backups")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{minio.endpoint_url}/backups", timeout=10)
    with pytest.raises(Exception, match="SignatureDoesNotMatch"):
        s3_client(minio, aws_secret_access_key="another").list_objects_v2(Bucket="backups")
    shown = Path(f"/proc/{minio.pid}/cmdline").read_text() + minio.log_path.read_text() + repr(minio)
    assert minio.secret_key not in shown


def test_minio_listens_on_its_port_of_loopback_only(minio: MinioServer) -> None:
    listening = set()
    sockets = {str(link.readlink()) for link in Path(f"/proc/{minio.pid}/fd").iterdir() if link.is_symlink()}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                listening.add(fields[1])
    port = f"{minio.port('s3'):04X}"
    assert f"0100007F:{port}" in listening
    assert listening <= {f"0100007F:{port}", f"{'0' * 24}01000000:{port}"}  # it adds ::1


def test_clean_environment_hides_the_ca_bundles_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/ca.pem")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    with clean_environment():
        assert not {"AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"} & set(os.environ)
    assert os.environ["AWS_CA_BUNDLE"] == "/ca.pem"
    assert "REQUESTS_CA_BUNDLE" not in os.environ


def script(path: Path, answer: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "backupagent").mkdir()
    (tmp_path / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "down")
    return tmp_path


def test_binaries_are_found_in_the_checkout_before_path(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{checkout / 'path'}:/usr/bin:/bin")
    on_path = script(checkout / "path" / "a-server", "x")
    assert require("a-server") == on_path
    tool = script(checkout / ".tools" / "bin" / "a-server", "x")
    assert require("a-server") == tool


def test_the_newest_etcd_wins(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{checkout / 'path'}:/usr/bin:/bin")
    tool = script(checkout / ".tools" / "bin" / "etcd-3.6", "etcd Version: 3.99.9")
    assert require("etcd") == tool
    script(checkout / "path" / "etcd", "etcd Version: 3.99.9")
    assert require("etcd") == tool
    newer = script(checkout / "path" / "etcd", "etcd Version: 3.100.0")
    os.utime(newer, (1, 1))  # rebuilt: asked again
    assert require("etcd") == newer
    assert binary_version(newer) == (3, 100, 0)


def test_a_missing_server_says_where_it_was_looked_for(checkout: Path) -> None:
    assert find_binary("no-such-server") is None
    with pytest.raises(ServerMissing, match="no-such-server") as caught:
        require("no-such-server")
    assert str(checkout / ".tools" / "bin") in caught.value.cause
    assert "build.py" in caught.value.hint
