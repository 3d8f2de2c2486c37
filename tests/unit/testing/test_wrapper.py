"""The wrapper's requests: what it asks, in which order, and which answers it takes."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backupagent.cancel import Cancel
from backupagent.testing.server_process import free_ports, http_request
from backupagent.testing.waiting import Patience
from backupagent.testing.wrapper import Sidecar, SidecarFailed, Wrapper, serve

PAUSE_S = 0.01
CONFIG = b"name: etcd-main-0\n"
ETCD = """#!{python}
import http.server, pathlib, sys
pathlib.Path({seen!r}).write_text(sys.argv[1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""
"""A program that takes etcd's place: notes its argument, says that it is healthy, ends by SIGTERM."""


def answer(body: bytes, status: str = "200 OK") -> list[bytes]:
    """Return an answer as one write."""
    return [f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body]


class ScriptedSidecar:
    """Answers by a script, each request in the writes that it lists; the last answer of a path stays."""

    def __init__(self, answers: dict[str, list[list[bytes]]]) -> None:
        self._answers = answers
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.client = Sidecar("127.0.0.1", self.port)
        self.read_on = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, contextlib.suppress(OSError):
                    path = connection.recv(4096).decode().split()[1]
                    self.asked.append(path)
                    answers = self._answers[path]
                    first, *later = answers.pop(0) if len(answers) > 1 else answers[0]
                    connection.sendall(first)
                    connection.recv(1)  # until the client has hung up
                    for piece in later:
                        connection.sendall(piece)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def sidecar() -> Iterator[Callable[..., ScriptedSidecar]]:
    with contextlib.ExitStack() as made:

        def make(**answers: list[list[bytes]]) -> ScriptedSidecar:
            paths = {
                "status": "/initialization/status",
                "full": "/initialization/start?mode=full",
                "sanity": "/initialization/start?mode=sanity",
                "config": "/config",
            }
            scripted = ScriptedSidecar({paths[name]: listed for name, listed in answers.items()})
            made.callback(scripted.close)
            return scripted

        yield make


def test_a_body_in_the_same_write_is_taken(sidecar) -> None:
    assert sidecar(config=[answer(CONFIG)]).client.get("/config") == CONFIG


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", b"New"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nNe", b"w"],
        [b"HTTP/1.1 200 OK\r\n\r\nNew"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nNew\r\n", b"0\r\n\r\n"],
        answer(b"x" * 6000),
    ],
    ids=["header alone", "half a body", "no length", "no last chunk", "larger than the window"],
)
def test_a_body_that_comes_later_is_lost(sidecar, pieces: list[bytes]) -> None:
    with pytest.raises(SidecarFailed, match="did not come with the header"):
        sidecar(status=[pieces]).client.get("/initialization/status")


def test_what_is_no_success_fails(sidecar) -> None:
    scripted = sidecar(config=[answer(b"no config", "500 Internal Server Error")])
    with pytest.raises(SidecarFailed, match="GET /config: 500 no config"):
        scripted.client.get("/config")
    with pytest.raises(SidecarFailed, match="refused"):
        Sidecar("127.0.0.1", free_ports(1)[0]).get("/config")


class Member:
    """A wrapper with a program in etcd's place."""

    def __init__(self, folder: Path, scripted: ScriptedSidecar) -> None:
        self.folder, self.home = folder / "data", folder / "home"
        self.folder.mkdir()
        self.home.mkdir()
        self.exit_code = self.folder / "exit_code"
        self.seen = folder / "seen"
        (port,) = free_ports(1)
        etcd = folder / "etcd"
        etcd.write_text(ETCD.format(python=sys.executable, seen=str(self.seen), port=port))
        etcd.chmod(0o700)
        address = ("127.0.0.1", port)
        self.wrapper = Wrapper(scripted.client, address, etcd, home=self.home, folder=self.folder, pause_s=PAUSE_S)
        self.code: list[int] = []
        self._thread = threading.Thread(target=lambda: self.code.append(self.wrapper.run()), daemon=True)

    def start(self, until: Callable[[], object]) -> None:
        self._thread.start()
        Patience(cancel=Cancel(), timeout_s=30, poll_s=0.01).until(until, "the wrapper got there")

    def ended(self) -> int:
        self._thread.join(30)
        return self.code[0]


def test_from_new_to_a_running_etcd_and_its_end(tmp_path: Path, sidecar) -> None:
    progress = [answer(b"New"), answer(b"Progress"), answer(b"Failed"), answer(b"New"), answer(b"Successful")]
    scripted = sidecar(status=progress, full=[answer(b"")], config=[answer(CONFIG)])
    member = Member(tmp_path, scripted)
    member.start(lambda: member.wrapper.ready)
    status, start = "/initialization/status", "/initialization/start?mode=full"
    assert scripted.asked == [status, start, status, status, status, start, status, "/config"]
    config = member.home / "etcd.conf.yaml"
    assert member.seen.read_text() == f"--config-file={config}"
    assert (config.read_bytes(), stat.S_IMODE(config.stat().st_mode)) == (CONFIG, 0o600)
    member.wrapper.received(signal.SIGTERM)
    assert (member.ended(), member.exit_code.read_text(), member.wrapper.ready) == (0, "terminated", False)


@pytest.mark.parametrize(
    ("left", "mode"), [("terminated\n", "sanity"), ("interrupt", "sanity"), ("killed", "full"), (None, "full")]
)
def test_only_an_orderly_end_spares_the_deep_look(tmp_path: Path, sidecar, left: str | None, mode: str) -> None:
    answers = {"status": [answer(b"New"), answer(b"Successful")], mode: [answer(b"")], "config": [answer(CONFIG)]}
    scripted = sidecar(**answers)
    member = Member(tmp_path, scripted)
    if left is not None:
        member.exit_code.write_text(left)
    member.start(lambda: member.wrapper.ready)
    assert scripted.asked[1] == f"/initialization/start?mode={mode}"
    assert not member.exit_code.exists()
    member.wrapper.stop("the end of the test")
    assert member.ended() == 0


def test_a_lost_success_is_asked_for_again(tmp_path: Path, sidecar) -> None:
    lost = [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", b"Successful"]
    scripted = sidecar(status=[lost, answer(b"New"), answer(b"Successful")], full=[answer(b"")], config=[answer(b"")])
    member = Member(tmp_path, scripted)
    member.start(lambda: member.wrapper.ready)
    assert scripted.asked.count("/initialization/start?mode=full") == 1
    member.wrapper.stop("the end of the test")
    assert member.ended() == 0


def test_five_failures_to_get_the_configuration_end_it(tmp_path: Path, sidecar) -> None:
    scripted = sidecar(status=[answer(b"Successful")], config=[answer(b"not yet", "503 Service Unavailable")])
    member = Member(tmp_path, scripted)
    member.start(lambda: member.code)
    assert (member.ended(), scripted.asked.count("/config"), member.seen.exists()) == (1, 5, False)


def test_a_signal_before_etcd_runs_leaves_word_too(tmp_path: Path, sidecar) -> None:
    scripted = sidecar(status=[answer(b"Progress")], config=[answer(CONFIG)])
    member = Member(tmp_path, scripted)
    member.start(lambda: len(scripted.asked) > 1)
    member.wrapper.received(signal.SIGINT)
    assert (member.ended(), member.exit_code.read_text(), member.seen.exists()) == (0, "interrupt", False)


def test_readyz_and_stop(tmp_path: Path, sidecar) -> None:
    member = Member(tmp_path, sidecar(status=[answer(b"Successful")], config=[answer(CONFIG)]))
    (port,) = free_ports(1)
    server = serve(member.wrapper, "127.0.0.1", port)
    try:
        assert http_request("GET", "127.0.0.1", port, "/readyz")[0] == 503
        member.start(lambda: member.wrapper.ready)
        assert http_request("GET", "127.0.0.1", port, "/readyz")[0] == 200
        assert http_request("GET", "127.0.0.1", port, "/stop")[0] == 404
        assert http_request("POST", "127.0.0.1", port, "/stop")[0] == 200
        assert member.ended() == 0
        assert not member.exit_code.exists()
    finally:
        server.shutdown()
        server.server_close()


def test_the_command_line_is_druids(tmp_path: Path, sidecar) -> None:
    scripted = sidecar(status=[answer(b"Progress")])
    client, port = free_ports(2)
    words = [
        "start-etcd",
        f"--backup-restore-host-port=127.0.0.1:{scripted.port}",
        "--etcd-server-name=127.0.0.1",
        "--backup-restore-tls-enabled=false",
        f"--etcd-client-port={client}",
        f"--etcd-wrapper-port={port}",
    ]
    variables = {**os.environ, "ETCD_BINARY": "/bin/false", "ETCD_WRAPPER_PAUSE_S": str(PAUSE_S)}
    process = subprocess.Popen([sys.executable, "-m", "backupagent.testing.wrapper", *words], env=variables)
    try:
        Patience(cancel=Cancel(), timeout_s=30, poll_s=0.01).until(lambda: len(scripted.asked) > 1, "it asks")
        assert http_request("GET", "127.0.0.1", port, "/readyz")[0] == 503
    finally:
        process.kill()
        process.wait()
