"""A TCP proxy that makes links slow and breaks them.

::

    with Toxiproxy() as toxiproxy:
        link = toxiproxy.add_link(minio.endpoint)
        link.latency(30)
        ...  # link.endpoint instead of minio.endpoint
        link.heal()
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.testing.server_binaries import require
from backupagent.testing.server_process import LocalServer, http_get, http_request

KB = 1000
"""Toxiproxy counts a rate in units of that many bytes a second."""


class Toxiproxy(LocalServer):
    """A Toxiproxy without any link yet.

    Args:
        binary: Path of the binary, or a name for ``require``.
        host: Loopback address to listen on.
        port: Port of its control API; None for any free one.
        log_path: Where its output goes, appended; by default a temporary file.
        clock: Source of time.

    Raises:
        ServerMissing: there is no such binary.
    """

    def __init__(
        self,
        *,
        binary: Path | str = "toxiproxy",
        host: str = "127.0.0.1",
        port: int | None = None,
        log_path: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.binary = require(binary) if isinstance(binary, str) else binary
        super().__init__("toxiproxy", host=host, ports={"api": port}, log_path=log_path, clock=clock)
        self._mark = f"this-is-{secrets.token_hex(8)}"
        self._config = self.scratch / "links.json"
        self._config.write_text(json.dumps([{"name": self._mark, "listen": f"{host}:0", "upstream": f"{host}:1"}]))

    def is_ready(self) -> bool:
        """Whether this very server answers: only it began with a link of this name."""
        return http_get(self.host, self.port("api"), f"/proxies/{self._mark}")[0] == HTTPStatus.OK

    def add_link(self, upstream: str) -> "Link":
        """Listen on a port of its own and pass everything on, unharmed until the link is told otherwise.

        Args:
            upstream: ``host:port`` of a server.

        Raises:
            ServerFailed: the server refused.
        """
        wanted = {"name": secrets.token_hex(8), "listen": f"{self.host}:0", "upstream": upstream}
        made = self.control("POST", "/proxies", wanted)
        return Link(self, wanted["name"], str(made["listen"]))

    def control(self, method: str, path: str, content: Mapping[str, object] | None = None) -> Mapping[str, object]:
        """Make a request to the control API and return its answer.

        Raises:
            ServerFailed: the server refused.
        """
        body = None if content is None else json.dumps(content).encode()
        status, answer = http_request(method, self.host, self.port("api"), path, body=body)
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise self._failed(f"refused {method} {path}: {status} {answer.decode(errors='replace')}")
        decoded: Mapping[str, object] = json.loads(answer) if answer else {}
        return decoded

    def _command(self) -> list[str | Path]:
        return [self.binary, f"-host={self.host}", f"-port={self.port('api')}", f"-config={self._config}"]

    def _environment(self) -> Mapping[str, str]:
        return {}


@dataclass
class Link:
    """A way to one server, and what is wrong with it. Faults add up until ``heal``; each hits open connections too.

    Attributes:
        server: The proxy.
        name: Name of the link in its control API.
        endpoint: ``host:port`` to use instead of the server's.
    """

    server: Toxiproxy
    name: str
    endpoint: str
    _faults: list[str] = field(default_factory=list)

    def latency(self, round_trip_ms: int) -> None:
        """Make every round trip that much longer."""
        self._add("latency", "downstream", latency=round_trip_ms)

    def bandwidth(self, rate: int) -> None:
        """Let at most that many bytes a second through, in each direction of each connection; at least 1,000."""
        for stream in ("upstream", "downstream"):
            self._add("bandwidth", stream, rate=max(1, rate // KB))

    def reset(self, after_ms: int = 0) -> None:
        """Reset every connection, at once or after a while."""
        self._add("reset_peer", "downstream", timeout=after_ms)

    def limit_data(self, size: int, *, stream: str = "downstream") -> None:
        """Close each connection after that many bytes.

        Args:
            size: Bytes.
            stream: ``downstream`` counts what the server sends, ``upstream`` what the client sends.
        """
        self._add("limit_data", stream, bytes=size)

    def slow_close(self, delay_ms: int) -> None:
        """Keep each connection open for a while after the server closed it."""
        self._add("slow_close", "downstream", delay=delay_ms)

    def cut(self) -> None:
        """Refuse connections and end those that are there, until ``heal``."""
        self.server.control("POST", f"/proxies/{self.name}", {"enabled": False})

    def heal(self) -> None:
        """Take every fault away."""
        while self._faults:
            self.server.control("DELETE", f"/proxies/{self.name}/toxics/{self._faults.pop()}")
        self.server.control("POST", f"/proxies/{self.name}", {"enabled": True, "listen": self.endpoint})

    def _add(self, kind: str, stream: str, **attributes: int) -> None:
        name = f"{kind}-{len(self._faults)}"
        wanted = {"name": name, "type": kind, "stream": stream, "attributes": attributes}
        self.server.control("POST", f"/proxies/{self.name}/toxics", wanted)
        self._faults.append(name)
