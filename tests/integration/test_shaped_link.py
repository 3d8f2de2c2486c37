"""The link of benchmarks: what it delays, what it limits, and that it changes nothing."""

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from backupagent.clock import SYSTEM_CLOCK
from backupagent.testing.server_process import free_ports
from backupagent.testing.shaped_link import ShapedLink

DELAY_MS, RATE = 30, 20_000_000
SIZE = 4_000_000


class Echo:
    """Answers each connection with all that it sent, when it has ended its half."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.sendall(receive_all(client))
        self.ended.set()

    def close(self) -> None:
        self._listener.close()


def receive_all(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture(scope="module")
def link(echo: Echo) -> Iterator[ShapedLink]:
    with ShapedLink(echo.endpoint, delay_ms=DELAY_MS, rate=RATE) as link:
        yield link


def connect(link: ShapedLink) -> socket.socket:
    return socket.create_connection((link.host, link.port("link")), timeout=60)


def exchange(link: ShapedLink, content: bytes) -> tuple[bytes, float]:
    """Send, end, and receive the answer; return it and the seconds that it took."""
    with connect(link) as connection:
        began_s = SYSTEM_CLOCK.monotonic_s()
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        return receive_all(connection), SYSTEM_CLOCK.monotonic_s() - began_s


def test_an_answer_comes_a_round_trip_later(link: ShapedLink) -> None:
    answer, seconds = exchange(link, b"hello")
    assert answer == b"hello"
    assert seconds >= DELAY_MS / 1000


def test_no_connection_is_faster_than_the_rate_in_either_direction(link: ShapedLink) -> None:
    content = hashlib.shake_128(b"link").digest(SIZE)
    answer, seconds = exchange(link, content)
    assert answer == content
    # There and back. The kernel lets the first few packets go at once.
    assert seconds >= 0.9 * 2 * SIZE / RATE


def test_connections_do_not_share_the_rate(link: ShapedLink) -> None:
    began_s = SYSTEM_CLOCK.monotonic_s()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: exchange(link, bytes([number]) * SIZE)[0], range(8)))
    seconds = SYSTEM_CLOCK.monotonic_s() - began_s
    assert answers == [bytes([number]) * SIZE for number in range(8)]
    assert seconds < 8 * 2 * SIZE / RATE  # what one connection would need for all of it


def test_a_server_that_is_gone_ends_the_connection() -> None:
    with ShapedLink(f"127.0.0.1:{free_ports(1)[0]}", delay_ms=1, rate=RATE) as link:
        assert exchange(link, b"")[0] == b""


def test_a_client_that_goes_away_ends_the_servers_side(link: ShapedLink, echo: Echo) -> None:
    echo.ended.clear()
    connection = connect(link)
    connection.sendall(b"half a request")
    assert not echo.ended.is_set()
    connection.close()
    assert echo.ended.wait(60)
