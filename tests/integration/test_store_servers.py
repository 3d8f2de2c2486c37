"""The emulators of stores and the proxy between them: they serve, are told from others, and do what tests ask."""

import json
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from backupagent.testing.server_process import LocalServer, ServerFailed, http_get, http_request
from backupagent.testing.store_servers import AzuriteServer, FakeGcsServer
from backupagent.testing.toxiproxy import Link, Toxiproxy

pytestmark = pytest.mark.servers

Find = Callable[[str], Path]
CONTENT = b"0123456789" * 10_000


@pytest.fixture(scope="module")
def toxiproxy(server_binary: Find) -> Iterator[Toxiproxy]:
    with Toxiproxy(binary=server_binary("toxiproxy")) as server:
        yield server


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def link(toxiproxy: Toxiproxy) -> Iterator[Link]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as upstream:
        thread = threading.Thread(target=upstream.serve_forever)
        thread.start()
        yield toxiproxy.add_link(f"127.0.0.1:{upstream.server_port}")
        upstream.shutdown()
        thread.join()


def fetch(link: Link) -> tuple[int, bytes]:
    host, _, port = link.endpoint.partition(":")
    return http_get(host, int(port), "/", timeout_s=20)


def test_azurite_keeps_its_blobs_over_a_restart_and_knows_only_its_own_key(tmp_path: Path, server_binary: Find) -> None:
    with AzuriteServer(tmp_path / "data", binary=server_binary("azurite-blob")) as server:
        server.make_container("backups")
        with pytest.raises(ServerFailed, match="ContainerAlreadyExists"):
            server.make_container("backups")
        server.restart()
        with pytest.raises(ServerFailed, match="ContainerAlreadyExists"):
            server.make_container("backups")
        key, server.key = server.key, AzuriteServer(binary=server.binary).key
        assert not server.is_ready()
        server.key = key
        assert server.is_ready()


def test_fake_gcs_makes_buckets_and_forgets_them(server_binary: Find) -> None:
    with FakeGcsServer(binary=server_binary("fake-gcs-server")) as server:
        server.make_bucket("backups")
        with pytest.raises(ServerFailed, match="backups"):
            server.make_bucket("backups")
        server.restart()
        server.make_bucket("backups")


@pytest.mark.parametrize("kind", [AzuriteServer, FakeGcsServer, Toxiproxy])
def test_a_server_is_not_taken_for_another_one_on_its_port(kind: type[LocalServer], server_binary: Find) -> None:
    binary = server_binary({AzuriteServer: "azurite-blob", FakeGcsServer: "fake-gcs-server"}.get(kind, "toxiproxy"))
    with kind(binary=binary) as server:
        (port,) = server._ports.values()
        other = kind(binary=binary, port=port)
        assert not other.is_ready()
        with pytest.raises(ServerFailed) as caught:
            other.start()
        assert caught.value.port_taken
        assert server.is_ready()
        other.close()


def test_azurite_says_nothing_to_the_outside(server_binary: Find) -> None:
    with AzuriteServer(binary=server_binary("azurite-blob")) as server:
        words = Path(f"/proc/{server.pid}/cmdline").read_bytes().split(b"\0")
    assert b"--disableTelemetry" in words


def test_a_link_without_faults_passes_everything_on(link: Link) -> None:
    assert fetch(link) == (200, CONTENT)


def test_latency_and_bandwidth_are_set_at_the_proxy(link: Link) -> None:
    link.latency(30)
    link.bandwidth(40_000_000)
    toxics = link.server.control("GET", f"/proxies/{link.name}")["toxics"]
    assert {(toxic["type"], toxic["stream"]): toxic["attributes"] for toxic in toxics} == {
        ("latency", "downstream"): {"latency": 30, "jitter": 0},
        ("bandwidth", "upstream"): {"rate": 40_000},
        ("bandwidth", "downstream"): {"rate": 40_000},
    }
    assert fetch(link) == (200, CONTENT)
    link.heal()
    assert link.server.control("GET", f"/proxies/{link.name}")["toxics"] == []


def test_data_is_cut_off(link: Link) -> None:
    link.limit_data(1000)
    status, said = fetch(link)
    assert (status, b"IncompleteRead" in said) == (0, True)
    link.heal()
    assert fetch(link) == (200, CONTENT)


def test_connections_are_reset(link: Link) -> None:
    link.reset()
    status, said = fetch(link)
    assert (status, b"reset" in said.lower()) == (0, True)
    link.heal()
    assert fetch(link) == (200, CONTENT)


def test_connections_are_closed_late(link: Link) -> None:
    link.slow_close(200)
    host, _, port = link.endpoint.partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.endswith(CONTENT)


def test_a_cut_link_refuses_and_heals_on_the_same_port(link: Link) -> None:
    link.cut()
    status, said = fetch(link)
    assert (status, b"refused" in said) == (0, True)
    link.heal()
    assert fetch(link) == (200, CONTENT)


def test_what_the_proxy_refuses_is_an_error(toxiproxy: Toxiproxy) -> None:
    with pytest.raises(ServerFailed, match="refused DELETE /proxies/gone: 404"):
        toxiproxy.control("DELETE", "/proxies/gone")


def test_an_api_call_needs_no_credentials_at_fake_gcs(server_binary: Find) -> None:
    with FakeGcsServer(binary=server_binary("fake-gcs-server")) as server:
        server.make_bucket("bucket")
        host, port = server.host, server.port("gcs")
        status, _ = http_request("POST", host, port, "/upload/storage/v1/b/bucket/o?uploadType=media&name=a", body=b"x")
        assert status == 200
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{server.endpoint_url}/storage/v1/b/bucket/o", timeout=10) as answer:
            assert [item["name"] for item in json.load(answer)["items"]] == ["a"]
