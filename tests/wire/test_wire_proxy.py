"""The scripted proxy itself, in front of a server of the standard library."""

import http.client
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from wire_proxy import Answer, Fault, WireProxy

CONTENT = bytes(range(256)) * 4096


class Handler(BaseHTTPRequestHandler):
    """Gives ``CONTENT``, in chunks where the path says so; keeps what it gets."""

    protocol_version = "HTTP/1.1"
    got: list[tuple[str, str, bytes]]

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path.startswith("/chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (CONTENT[:1000], CONTENT[1000:], b""):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            return
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(CONTENT)

    do_HEAD = do_GET  # noqa: N815 - as the base class wants it

    def do_PUT(self) -> None:
        size = int(self.headers["Content-Length"])
        body = self.rfile.read(size)
        if len(body) < size:
            self.close_connection = True
            return
        self.got.append((self.path, self.headers["Host"], body))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[WireProxy]:
    Handler.got = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # connections are cut
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with WireProxy(f"127.0.0.1:{server.server_port}") as proxy:
            yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def client(proxy: WireProxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(proxy.endpoint, timeout=30)
    yield connection
    connection.close()


def ask(client: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    client.request(method, path, body)
    answer = client.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize("path", ["/plain", "/chunked?a=b"])
def test_what_is_not_planned_passes_unharmed(proxy: WireProxy, client: http.client.HTTPConnection, path: str) -> None:
    assert ask(client, "GET", path) == (200, CONTENT)
    assert ask(client, "HEAD", "/plain") == (200, b"")
    assert ask(client, "PUT", "/there", CONTENT) == (201, b"")
    assert ask(client, "PUT", "/empty", b"") == (201, b"")
    assert Handler.got == [("/there", proxy.endpoint, CONTENT), ("/empty", proxy.endpoint, b"")]
    assert [(seen.method, seen.status) for seen in proxy.requests] == [
        ("GET", 200), ("HEAD", 200), ("PUT", 201), ("PUT", 201)
    ]  # fmt: skip
    assert proxy.bodies("/there") == proxy.bodies() == len(CONTENT)
    assert len(CONTENT) < proxy.sent < len(CONTENT) + 4096


def test_faults_are_chosen_by_the_size_of_the_body(proxy: WireProxy, client: http.client.HTTPConnection) -> None:
    proxy.plan(Fault("PUT", body=100, answer=Answer(500)))
    assert [ask(client, "PUT", "/", bytes(size))[0] for size in (99, 100, 101)] == [201, 500, 201]


def test_faults_are_chosen_by_method_path_query_and_number(
    proxy: WireProxy, client: http.client.HTTPConnection
) -> None:
    busy = Fault("GET", "^/b", "x=1", nth=2, times=2, answer=Answer(503, {"Retry-After": "1"}, b"slow down"))
    proxy.plan(busy)
    asked = ["/b?x=1", "/a?x=1", "/b?x=2", "/b?x=1", "/b?x=1", "/b?x=1"]
    assert [ask(client, "GET", path)[0] for path in asked] == [200, 200, 200, 503, 503, 200]
    assert ask(client, "HEAD", "/b?x=1")[0] == 200
    proxy.assert_all_hit()
    proxy.plan(Fault("GET", "/never", answer=Answer(500)))
    with pytest.raises(AssertionError, match="/never"):
        proxy.assert_all_hit()


def test_an_answer_of_its_own_keeps_the_server_out_of_it(proxy: WireProxy, client: http.client.HTTPConnection) -> None:
    proxy.plan(Fault("PUT", answer=Answer(403, {"X-Why": "planned"}, b"no")))
    client.request("PUT", "/there", CONTENT)
    answer = client.getresponse()
    assert (answer.status, answer.headers["X-Why"], answer.read()) == (403, "planned", b"no")
    assert (Handler.got, proxy.sent) == ([], 0)
    proxy.assert_all_hit()


def test_something_happens_before_a_request_is_passed_on(proxy: WireProxy, client: http.client.HTTPConnection) -> None:
    got: list[int] = []
    proxy.plan(Fault("PUT", nth=2, first=lambda: got.append(len(Handler.got))))
    for _ in range(3):
        ask(client, "PUT", "/", b"")
    assert (got, len(Handler.got)) == ([1], 3)
    proxy.assert_all_hit()


def test_bytes_are_flipped_in_both_directions(proxy: WireProxy, client: http.client.HTTPConnection) -> None:
    at = 700_000
    proxy.plan(Fault("GET", flip_answered=at), Fault("PUT", flip_sent=at))
    flipped = CONTENT[:at] + bytes([CONTENT[at] ^ 1]) + CONTENT[at + 1 :]
    assert ask(client, "GET", "/") == (200, flipped)
    assert ask(client, "PUT", "/", CONTENT) == (201, b"")
    assert Handler.got[0][2] == flipped
    proxy.assert_all_hit()


def test_lengths_lie(proxy: WireProxy, client: http.client.HTTPConnection) -> None:
    proxy.plan(Fault("GET", "short", shorter=10), Fault("GET", "long", longer=10), Fault("GET", "surplus", surplus=10))
    assert ask(client, "GET", "/short") == (200, CONTENT[:-10])
    assert ask(client, "GET", "/long") == (200, CONTENT + bytes(10))
    proxy.plan(Fault("GET", "chunked", shorter=10))
    assert ask(client, "GET", "/chunked") == (200, CONTENT[:-10])
    proxy.plan(Fault("PUT", sent_shorter=10))
    assert ask(client, "PUT", "/", CONTENT) == (201, b"")
    assert Handler.got[0][2] == CONTENT[:-10]
    host, _, port = proxy.endpoint.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"GET /surplus HTTP/1.1\r\nHost: a\r\n\r\n")
        with connection.makefile("rb") as answer:
            head = b"".join(iter(answer.readline, b"\r\n"))
            assert f"Content-Length: {len(CONTENT)}".encode() in head
            assert answer.read(len(CONTENT) + 10) == CONTENT + bytes(10)
    proxy.assert_all_hit()


def test_connections_are_cut(proxy: WireProxy, client: http.client.HTTPConnection) -> None:
    proxy.plan(
        Fault("GET", cut_answered=300_000), Fault("PUT", "sent", cut_sent=1000), Fault("PUT", "lost", lost_answer=True)
    )
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(client, "GET", "/")
    assert caught.value.partial == CONTENT[:300_000]
    for path, got in (("/sent", 0), ("/lost", 1)):
        client.close()
        with pytest.raises(OSError, match=r"closed connection|reset|Broken pipe"):
            ask(client, "PUT", path, CONTENT)
        assert len(Handler.got) == got
    client.close()
    assert ask(client, "GET", "/") == (200, CONTENT)
    proxy.assert_all_hit()


def test_a_cut_behind_the_end_is_no_hit(proxy: WireProxy, client: http.client.HTTPConnection) -> None:
    proxy.plan(Fault("GET", cut_answered=len(CONTENT)))
    assert ask(client, "GET", "/") == (200, CONTENT)
    with pytest.raises(AssertionError, match="no request met"):
        proxy.assert_all_hit()
