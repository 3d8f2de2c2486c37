"""Connections against a server of this process that keeps them open, is a proxy, or speaks TLS."""

import base64
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from backupagent.errors import ConfigError
from backupagent.stores.connections import MAX_SURPLUS, Connections

MiB = 1024 * 1024
AUTHORIZATION = "Basic " + base64.b64encode(b"user:pass word").decode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requests.append((self.client_address[1], self.requestline, self.headers))
        content = bytes(MAX_SURPLUS + 1) if self.path == "/large" else b"content"
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = self.path == "/last"

    def do_CONNECT(self) -> None:
        """Be the proxy and the server behind it at once."""
        self.server.requests.append((self.client_address[1], self.requestline, self.headers))
        self.send_response(200)
        self.end_headers()
        with self.server.tls.wrap_socket(self.connection, server_side=True) as inner:
            self.rfile = inner.makefile("rb")
            self.wfile = inner.makefile("wb")
            self.handle_one_request()
            self.rfile.close()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tls = tls
        self.requests: list[tuple[int, str, object]] = []

    @property
    def ports(self) -> list[int]:
        """The client's port of every request: which connection it came on."""
        return [port for port, _, _ in self.requests]

    def handle_error(self, *_: object) -> None:
        """A client that goes away is part of the tests."""


def certificate(directory: Path) -> ssl.SSLContext:
    """Make a certificate of 127.0.0.1 and bucket.example, its own CA, in ca.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("bucket.example")]
    now = datetime.now(UTC)  # noqa: TID251 - OpenSSL has no other clock
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "ca.pem", directory / "key.pem")
    return context


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(certificate(tmp_path)) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield serving
        serving.shutdown()
        thread.join(10)


@pytest.fixture
def connections(server: Server) -> Iterator[Connections]:
    with closing(Connections(f"http://127.0.0.1:{server.server_port}", "")) as opened:
        yield opened


def get(connections: Connections, target: str = "/a") -> bytes:
    with connections.request("GET", target, {"host": "h"}, None) as answer:
        return answer.read()


class TestKeptOpen:
    def test_one_connection_for_one_request_after_the_other(self, server: Server, connections: Connections) -> None:
        assert [get(connections) for _ in range(3)] == [b"content"] * 3
        assert len(set(server.ports)) == 1

    def test_what_is_left_of_an_answer_is_read_when_it_is_little(self, server, connections) -> None:
        for target in ("/a", "/large", "/a"):
            with connections.request("GET", target, {"host": "h"}, None):
                pass
        first, second, third = server.ports
        assert first == second != third

    def test_a_connection_left_with_an_error_is_not_used_again(self, server, connections) -> None:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError), connections.request("GET", "/a", {"host": "h"}, None):
                raise ZeroDivisionError
        assert len(set(server.ports)) == 2

    def test_a_connection_that_the_server_closed_is_not_used_again(self, server, connections) -> None:
        get(connections, "/last")
        (idle,) = connections._idle
        assert idle.sock.recv(1, socket.MSG_PEEK) == b"", "waits for the server to close"
        assert get(connections) == b"content"
        assert len(set(server.ports)) == 2

    def test_requests_at_once_have_a_connection_each(self, server, connections) -> None:
        with connections.request("GET", "/a", {"host": "h"}, None):
            get(connections)
        assert len(set(server.ports)) == len(connections._idle) == 2
        connections.close()
        assert not connections._idle

    def test_no_more_than_a_few_are_kept(self, connections, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("backupagent.stores.connections.MAX_IDLE", 1)
        with connections.request("GET", "/a", {"host": "h"}, None):
            get(connections)
        assert len(connections._idle) == 1


def test_a_refusal_is_read_although_the_server_did_not_read_the_body() -> None:
    def refuse() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1024)
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse)
        thread.start()
        port = listener.getsockname()[1]
        with (
            closing(Connections(f"http://127.0.0.1:{port}", "")) as connections,
            connections.request("PUT", "/a", {"host": "h"}, memoryview(bytes(64 * MiB))) as answer,
        ):
            assert (answer.status, answer.read()) == (403, b"no")
        thread.join(10)


class TestTls:
    def test_by_the_cas_that_are_given(self, server: Server, tmp_path: Path) -> None:
        server.socket = server.tls.wrap_socket(server.socket, server_side=True)
        with closing(Connections(f"https://127.0.0.1:{server.server_port}", str(tmp_path / "ca.pem"))) as connections:
            assert [get(connections), get(connections)] == [b"content"] * 2
        assert len(set(server.ports)) == 1

    @pytest.mark.parametrize(("host", "trusted"), [("127.0.0.1", False), ("localhost", True)])
    def test_not_otherwise(self, server: Server, tmp_path: Path, host: str, *, trusted: bool) -> None:
        server.socket = server.tls.wrap_socket(server.socket, server_side=True)
        ca_bundle = str(tmp_path / "ca.pem") if trusted else ""
        connections = Connections(f"https://{host}:{server.server_port}", ca_bundle)
        with pytest.raises(ssl.SSLCertVerificationError):
            get(connections)
        assert not server.requests

    @pytest.mark.parametrize("name", ["none.pem", "empty.pem"])
    def test_cas_that_cannot_be_read(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "empty.pem").touch()
        with pytest.raises(ConfigError, match=name):
            Connections("https://h", str(tmp_path / name))


class TestProxies:
    def test_http_is_forwarded(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", f"http://user:pass%20word@127.0.0.1:{server.server_port}")
        with closing(Connections("http://bucket.example:9000", "")) as connections:
            assert get(connections, "/a?b=c") == b"content"
        ((_, line, headers),) = server.requests
        assert line == "GET http://bucket.example:9000/a?b=c HTTP/1.1"
        assert headers["proxy-authorization"] == AUTHORIZATION
        assert headers["host"] == "h"

    def test_tls_goes_through_a_tunnel_to_the_server(self, server, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("https_proxy", f"user:pass%20word@127.0.0.1:{server.server_port}")
        with closing(Connections("https://bucket.example", str(tmp_path / "ca.pem"))) as connections:
            assert get(connections) == b"content"
        (_, tunnel, outer), (_, line, inner) = server.requests
        assert tunnel.startswith("CONNECT bucket.example:443 ")
        assert outer["proxy-authorization"] == AUTHORIZATION
        assert line == "GET /a HTTP/1.1"
        assert "proxy-authorization" not in inner

    def test_not_to_whom_the_environment_excludes(self, connections, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with closing(Connections(connections._origin, "")) as direct:
            assert get(direct) == b"content"

    def test_a_proxy_over_tls_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("https_proxy", "https://user:hunter2@proxy.example:3129")
        with pytest.raises(ConfigError) as raised:
            Connections("https://bucket.example", "")
        assert "hunter2" not in f"{raised.value} {raised.value.hint}"
