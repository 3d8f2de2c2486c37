"""One server as a child process on a loopback address: start, wait until ready, stop, kill, restart.

Knows no particular server. The invariant: no server outlives the process that started it, however that ends, and
each is ended by its process id, never by name.
"""

import atexit
import contextlib
import http.client
import ipaddress
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Self

from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.errors import BackupAgentError, ConfigError

CA_BUNDLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
INHERITED = ("PATH", "TMPDIR", "LANG", "TZ", "GOMAXPROCS", "GOGC", "GOMEMLIMIT", "GODEBUG")
"""All that a server sees of our environment: no ETCD_*, MINIO_*, proxy or cloud variable reaches it."""

PORT_ATTEMPTS = 5
POLL_S = 0.03
LOG_TAIL_LINES = 30
LOG_TAIL_BYTES = 65536

# Ends the server when its parent is gone: then the pipe to this process closes. A parent death signal would end it
# with the *thread* that started it. A file descriptor of the process stays right even if the id is used again.
WATCHDOG = """
import os, signal, sys
told = sys.stdin.readline().strip()
if not told.isdigit(): sys.exit()
pid = int(told)
try:
    fd = os.pidfd_open(pid)
except ProcessLookupError:
    sys.exit()
except (AttributeError, OSError):
    fd = None
if not sys.stdin.readline():
    try:
        os.kill(pid, signal.SIGKILL) if fd is None else signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class ServerFailed(BackupAgentError):
    """A server did not start, did not become ready, or refused a request of its test.

    Args:
        name: Name of the server.
        message: What happened.
        log_path: Its log file.
        log_tail: The last lines of that file.
    """

    default_hint = "the server's log file tells more"

    def __init__(self, name: str, message: str, *, log_path: Path, log_tail: str = "") -> None:
        lines = f"\n{log_tail}" if log_tail else " (it is empty)"
        super().__init__(f"{name} {message}; the end of {log_path}:{lines}")
        self.name = name
        self.cause = message
        self.log_path = log_path
        self.log_tail = log_tail

    @property
    def port_taken(self) -> bool:
        """Whether another process took the port between choosing and using it."""
        return re.search(r"(address|port)\b.* already in use", self.log_tail, re.IGNORECASE) is not None


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return different TCP ports of an address that nobody listened on a moment ago."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((host, 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def clean_environment() -> Iterator[None]:
    """Unset the variables that make clients of local servers read a foreign list of CAs, and put them back."""
    kept = {name: os.environ.pop(name) for name in CA_BUNDLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


class LocalServer(ABC):
    """A server run as a child process; a context manager that starts it and removes what it made.

    The listening ports are chosen when the object is made. When one that was not asked for is snatched before the
    server listens, others are chosen, so read addresses after ``start``. Not thread safe.

    Args:
        name: Name for messages and temporary files.
        host: Loopback address to listen on.
        ports: Wanted port for each role, None for any free one.
        log_path: Where its output goes, appended; by default a file in ``scratch``.
        clock: Source of time.

    Raises:
        ConfigError: ``host`` is not a loopback address.
    """

    START_TIMEOUT_S: ClassVar[float] = 60.0
    STOP_TIMEOUT_S: ClassVar[float] = 15.0

    def __init__(
        self,
        name: str,
        *,
        host: str,
        ports: Mapping[str, int | None],
        log_path: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ConfigError(f"a test server listens on loopback only, not on {host}")
        self.name = name
        self.host = host
        self.scratch = Path(tempfile.mkdtemp(prefix=f"backupagent-{name}-"))
        self._remove_scratch = weakref.finalize(self, shutil.rmtree, self.scratch, ignore_errors=True)
        self.log_path = log_path or self.scratch / f"{name}.log"
        self._wanted_ports = dict(ports)
        self._ports: dict[str, int] = {}
        self._choose_ports()
        self._started_once = False
        self._log_offset = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[str] | None = None
        self._clock = clock

    @abstractmethod
    def _command(self) -> list[str | Path]:
        """Return the command line, with the ports that are chosen now."""

    @abstractmethod
    def _environment(self) -> Mapping[str, str]:
        """Return the variables that the server needs besides ``INHERITED`` and HOME."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Ask whether *this* server serves, and not another one that took its port; False when nobody answers."""

    @property
    def pid(self) -> int:
        """Process id of the running server.

        Raises:
            ServerFailed: it does not run.
        """
        if self._process is None or not self.is_running:
            raise self._failed("does not run")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def port(self, role: str) -> int:
        """Return the port of a role."""
        return self._ports[role]

    def start(self, *, wait: bool = True) -> None:
        """Start the server.

        Args:
            wait: Return when it is ready; without it, call ``wait_ready`` later (members of a cluster wait for
                each other).

        Raises:
            ServerFailed: it ended, or was not ready in time; nothing is left running.
        """
        if self.is_running:
            return
        self.stop()  # what is left of a server that ended by itself
        for attempt in range(PORT_ATTEMPTS):
            self._spawn()
            if not wait:
                return
            try:
                self.wait_ready()
            except ServerFailed as error:
                movable = None in self._wanted_ports.values() and not self._started_once
                if not (error.port_taken and movable) or attempt == PORT_ATTEMPTS - 1:
                    raise
                self._choose_ports()
            else:
                return

    def wait_ready(self, timeout_s: float | None = None) -> None:
        """Wait until a started server is ready.

        Raises:
            ServerFailed: it ended, or was not ready in time; nothing is left running.
        """
        wanted_s = self.START_TIMEOUT_S if timeout_s is None else timeout_s
        deadline = self._clock.monotonic_s() + wanted_s
        try:
            while not self.is_ready():
                self._check_waiting(deadline, wanted_s)
                self._clock.sleep(POLL_S)
        except BaseException:
            self.kill()
            raise
        self._started_once = True

    def stop(self) -> None:
        """Stop the server with SIGTERM, and with SIGKILL when it takes too long; return when it has ended."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would; return when it has ended."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the server and start it again with the same data and addresses.

        Raises:
            ServerFailed: it did not come up again.
        """
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server and remove its temporary files."""
        self.stop()
        self._remove_scratch()

    def log_tail(self) -> str:
        """Return the last lines that the server wrote since its last start."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_offset, size - LOG_TAIL_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def __enter__(self) -> Self:
        """Start the server."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the server and remove its temporary files."""
        self.close()

    def _spawn(self) -> None:
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment |= {"HOME": str(self.scratch), **self._environment()}
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log_offset = self.log_path.stat().st_size if self.log_path.exists() else 0
        watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", WATCHDOG],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        self._watchdog = watchdog
        try:
            with self.log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    [str(word) for word in self._command()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
            self._tell_watchdog(f"{self._process.pid}\n")
        except OSError as error:
            self._end(signal.SIGKILL)
            raise self._failed(f"could not be started: {error}") from error
        atexit.register(self.stop)

    def _check_waiting(self, deadline: float, wanted_s: float) -> None:
        if self._process is None:
            raise self._failed("was not started")
        if self._process.poll() is not None:
            raise self._failed(f"ended with {self._process.returncode} before it was ready")
        if self._clock.monotonic_s() > deadline:
            raise self._failed(f"was not ready within {wanted_s:g} s")

    def _tell_watchdog(self, line: str) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.write(line)
            self._watchdog.stdin.flush()

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)  # does nothing when it is known to have ended
            try:
                self._process.wait(self.STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
        if self._watchdog is not None:
            with contextlib.suppress(BrokenPipeError):
                self._watchdog.communicate("done\n")
            self._watchdog = None
        atexit.unregister(self.stop)

    def _choose_ports(self) -> None:
        wanted_ports = set(self._wanted_ports.values())
        free = free_ports(2 * len(self._wanted_ports), self.host)
        chosen = iter([port for port in free if port not in wanted_ports])
        self._ports = {role: wanted or next(chosen) for role, wanted in self._wanted_ports.items()}

    def _failed(self, message: str) -> ServerFailed:
        return ServerFailed(self.name, message, log_path=self.log_path, log_tail=self.log_tail())


def http_get(host: str, port: int, path: str, *, timeout_s: float = 1.0) -> tuple[int, bytes]:
    """Return status and body of a GET; status 0 when nobody answers. Never goes through a proxy."""
    return http_request("GET", host, port, path, timeout_s=timeout_s)


def http_request(  # noqa: PLR0913 - what a request is made of
    method: str,
    host: str,
    port: int,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float = 10.0,
) -> tuple[int, bytes]:
    """Return status and body of the answer to a request; status 0 when nobody answers."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error).encode()
    finally:
        connection.close()
