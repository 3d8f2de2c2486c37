"""A real Kubernetes without nodes: an API server with its etcd, and a controller manager.

::

    with KubeApiServer() as api, KubeControllerManager(api), api.client() as kube:
        kube.create(NAMESPACES, NAMESPACES.stub("demo"))

There is no scheduler and no kubelet: a Pod is an object until somebody runs it.
"""

import base64
import http.client
import json
import secrets
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.kube.client import KubeClient
from backupagent.kube.resources import SERVICE_ACCOUNTS
from backupagent.testing.server_binaries import require
from backupagent.testing.server_process import LocalServer
from backupagent.testing.servers import EtcdServer

CONTROLLERS = ("garbage-collector-controller", "job-controller", "namespace-controller", "serviceaccount-controller")
"""What the controller manager runs.

Source:
    ``kube-controller-manager --help`` of v1.36.3, flag ``--controllers``.
"""

READY_TIMEOUT_S = 5.0
"""One question whether a server is ready: ``/readyz`` asks etcd in its turn."""


class KubeApiServer(LocalServer):
    """One kube-apiserver with TLS, RBAC and an admin's token.

    It makes a certificate for its address, and the CA that signed it, in its own temporary folder; both stay over a
    restart. The key of that certificate also signs the tokens of service accounts. ServiceAccount admission is off: it
    would refuse every Pod of a namespace until a controller manager has made the namespace's default account.

    Args:
        etcd: Where it keeps its objects, started before; by default an etcd of its own.
        extra_args: Further arguments, last on the command line.
        host: Loopback address to listen on.
        port: Port; None for any free one.
        log_path: Where its output goes, appended; by default a temporary file.
        clock: Source of time.

    Attributes:
        etcd: Where it keeps its objects.
        ca_file: PEM file with the CA that clients trust.
        admin_token: Bearer token of a member of ``system:masters``.

    Raises:
        ServerMissing: there is no binary of this server or of etcd.
    """

    def __init__(
        self,
        etcd: EtcdServer | None = None,
        *,
        extra_args: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int | None = None,
        log_path: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.binary = require("kube-apiserver")
        super().__init__("kube-apiserver", host=host, ports={"https": port}, log_path=log_path, clock=clock)
        self.etcd = etcd or EtcdServer(name="kubernetes", host=host, clock=clock)
        self._own_etcd = etcd is None
        self._extra_args = tuple(extra_args)
        self._cert_dir = self.scratch / "certificates"
        self.ca_file = self._cert_dir / "apiserver.crt"  # the certificate, then its CA
        self.admin_token = secrets.token_hex(20)
        self._token_file = self.scratch / "tokens.csv"
        _write_private(self._token_file, f"{self.admin_token},admin,admin,system:masters\n")

    @property
    def url(self) -> str:
        """URL for clients that trust ``ca_file``."""
        return f"https://{self.host}:{self.port('https')}"

    def start(self, *, wait: bool = True) -> None:
        """Start the server, and its own etcd before it.

        Args:
            wait: Return when it is ready; without it, call ``wait_ready`` later.

        Raises:
            ServerFailed: one of them ended, or was not ready in time.
        """
        if self._own_etcd:
            self.etcd.start()
        super().start(wait=wait)

    def close(self) -> None:
        """Stop the server and its own etcd, and remove their temporary files."""
        super().close()
        if self._own_etcd:
            self.etcd.close()

    def is_ready(self) -> bool:
        """Whether this very server is ready: only it has the certificate's key."""
        port = self.port("https")
        return _https_get(self.host, port, "/readyz", self.ca_file, self.admin_token)[0] == HTTPStatus.OK

    def kubeconfig(self, place: Path, *, token: str = "", server: str = "") -> Path:
        """Write a kubeconfig, readable by this user alone.

        Args:
            place: The file to write, or a folder in which it is named ``kubeconfig``.
            token: Bearer token; the admin's by default.
            server: URL of the API server when it is not this one's, e.g. of a proxy before it.

        Returns:
            The file.
        """
        path = place / "kubeconfig" if place.is_dir() else place
        trusted = base64.b64encode(self.ca_file.read_bytes()).decode()
        cluster = {"server": server or self.url, "certificate-authority-data": trusted}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": "local", "user": {"token": token or self.admin_token}}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local"}}],
            "current-context": "local",
        }
        _write_private(path, json.dumps(document, indent=2))  # JSON is YAML
        return path

    def client(self) -> KubeClient:
        """Return a client with the admin's rights; its user closes it."""
        return KubeClient.open(self.kubeconfig(self.scratch))

    def token_for(self, namespace: str, service_account: str) -> str:
        """Return a token of a service account, good for an hour.

        Raises:
            KubeNotFound: there is no such account.
        """
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"namespace": namespace},
            "spec": {"expirationSeconds": 3600},
        }
        with self.client() as kube:
            answer = kube.create(SERVICE_ACCOUNTS, request, subresource="token", parent=service_account)
        return str(answer["status"]["token"])

    def _command(self) -> list[str | Path]:
        key = self._cert_dir / "apiserver.key"
        return [
            self.binary,
            f"--etcd-servers={self.etcd.url}",
            f"--bind-address={self.host}",
            f"--advertise-address={self.host}",
            "--endpoint-reconciler-type=none",  # it cannot publish a loopback address
            f"--secure-port={self.port('https')}",
            f"--cert-dir={self._cert_dir}",
            f"--token-auth-file={self._token_file}",
            "--anonymous-auth=false",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--disable-admission-plugins=ServiceAccount",
            "--enable-priority-and-fairness=false",
            "--profiling=false",
            "--shutdown-watch-termination-grace-period=1s",  # else it waits a minute for its watches to end
            *self._extra_args,
        ]

    def _environment(self) -> Mapping[str, str]:
        return {}


class KubeControllerManager(LocalServer):
    """A kube-controller-manager that runs ``CONTROLLERS`` alone, without leader election.

    Args:
        api: The API server, started before.
        log_path: Where its output goes, appended; by default a temporary file.
        clock: Source of time.

    Raises:
        ServerMissing: there is no such binary.
    """

    def __init__(self, api: KubeApiServer, *, log_path: Path | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self.binary = require("kube-controller-manager")
        name = "kube-controller-manager"
        super().__init__(name, host=api.host, ports={"https": None}, log_path=log_path, clock=clock)
        self._api = api
        self._cert_dir = self.scratch / "certificates"

    def start(self, *, wait: bool = True) -> None:
        """Start the server.

        Args:
            wait: Return when its controllers run; without it, call ``wait_ready`` later.

        Raises:
            ServerFailed: it ended, or was not ready in time.
        """
        self._api.kubeconfig(self.scratch)
        super().start(wait=wait)

    def is_ready(self) -> bool:
        """Whether the controllers of this very server run: only it has the certificate's key."""
        trusted = self._cert_dir / "kube-controller-manager.crt"
        status, body = _https_get(self.host, self.port("https"), "/healthz?verbose", trusted)
        # A controller has a line here from the moment it is started.
        return status == HTTPStatus.OK and all(f"[+]{name} ok" in body for name in CONTROLLERS)

    def _command(self) -> list[str | Path]:
        return [
            self.binary,
            f"--kubeconfig={self.scratch / 'kubeconfig'}",
            f"--controllers={','.join(CONTROLLERS)}",
            "--leader-elect=false",
            f"--bind-address={self.host}",
            f"--secure-port={self.port('https')}",
            f"--cert-dir={self._cert_dir}",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            "--profiling=false",
        ]

    def _environment(self) -> Mapping[str, str]:
        return {}


def _write_private(path: Path, text: str) -> None:
    """Put a file in place at once: several threads may write, and read, the same kubeconfig."""
    handle, name = tempfile.mkstemp(prefix=".", dir=path.parent)  # of mode 0600
    with open(handle, "w", encoding="utf-8") as file:  # noqa: PTH123 - it is open already
        file.write(text)
    Path(name).replace(path)


def _https_get(host: str, port: int, path: str, ca_file: Path, token: str = "") -> tuple[int, str]:
    """Return status and body of a GET; status 0 when nobody answers who has a certificate of that CA."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        context = ssl.create_default_context(cafile=ca_file)
        connection = http.client.HTTPSConnection(host, port, context=context, timeout=READY_TIMEOUT_S)
    except (OSError, ssl.SSLError) as error:
        return 0, str(error)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()
