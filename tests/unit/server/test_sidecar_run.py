"""Settings completed and checked, and a whole sidecar in this process."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from backupagent import wiring
from backupagent.cancel import Cancel
from backupagent.errors import ConfigError, EtcdUnavailable, KubeUnavailable
from backupagent.kube.client import Kube
from backupagent.model.restored import ANNOTATION, Restored, decode_restored
from backupagent.server import run as module
from backupagent.server.etcd_config import read_config
from backupagent.server.run import require_auth, resolved, run_server
from backupagent.server.sidecar import Sidecar
from backupagent.server.untold import UntoldRestore
from backupagent.settings import ApiAuth, ServerSettings
from backupagent.testing.server_process import free_ports, http_get
from backupagent.testing.waiting import Patience

ETCD = """
initial-cluster: main-0=http://127.0.0.1:1
initial-advertise-peer-urls: {main-0: [http://127.0.0.1:1]}
advertise-client-urls: {main-0: [http://127.0.0.1:2]}
"""
RESTORED = Restored(
    revision=9, hash_kv=1, compact_revision=-1, full="f", deltas=0, matches_manifest=True, seconds=1.0, at="now"
)


@pytest.fixture(autouse=True)
def _own_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log lines go where pytest finds them."""
    monkeypatch.setattr(module, "log_to", lambda: None)


def settings(**given: Any) -> ServerSettings:
    return ServerSettings(**({"data_dir": Path("/data/new.etcd")} | given))


# ---- settings


def test_what_druid_says_by_variables() -> None:
    environment = {"POD_NAME": "main-0", "POD_NAMESPACE": "shoot--a", "ETCD_CONF": "/etc/x.yaml"}
    filled = resolved(settings(), environment)
    assert (filled.member, filled.namespace, filled.etcd_config) == ("main-0", "shoot--a", Path("/etc/x.yaml"))
    given = settings(member="other-0", namespace="elsewhere", etcd_config=Path("/mine.yaml"))
    assert resolved(given, environment) == given
    assert resolved(settings(), {}) == settings()


@pytest.mark.parametrize("host", ["", "0.0.0.0", "10.0.0.1", "sidecar.example", "::"])
def test_nobody_may_take_snapshots_unasked(host: str) -> None:
    with pytest.raises(ConfigError, match="whoever reaches") as raised:
        require_auth(settings(host=host))
    assert "--api-token-file" in raised.value.hint
    require_auth(settings(host=host, api_token_file=Path("/token")))
    require_auth(settings(host=host, api_auth=ApiAuth.OFF))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_a_loopback_address_does_without(host: str) -> None:
    require_auth(settings(host=host))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"schedule": "sometimes"}, "schedule"),
        ({"store": "nonsense"}, "not the URI of a store"),
        ({"etcd_config": Path("/nowhere/etcd.conf.yaml")}, "cannot read etcd's configuration"),
        ({"server_cert": Path("/cert")}, "needs its key"),
        ({"server_key": Path("/key")}, "needs its key"),
        ({"server_cert": Path("/nowhere/cert"), "server_key": Path("/nowhere/key")}, "cannot serve with"),
        ({"host": ""}, "whoever reaches"),
    ],
)
def test_settings_that_are_wrong_are_refused_at_once(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = tmp_path / "etcd.conf.yaml"
    config.write_text(ETCD)
    wanted = settings(**({"host": "127.0.0.1", "etcd_config": config, "member": "main-0"} | given))
    with pytest.raises(ConfigError, match=message):
        run_server(wanted, Cancel())


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with running(tmp_path) as port, pytest.raises(ConfigError, match="cannot serve on port"):
        run_server(place(tmp_path, port), Cancel())


def test_backups_go_on_without_kubernetes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with module.ExitStack() as opened:
        assert module._open_kube(settings(), opened) is None
        assert caplog.text == ""
        assert module._open_kube(settings(member_lease=True), opened) is None
        assert module._open_kube(settings(snapshot_leases=True, namespace="n"), opened) is None
    assert caplog.text.count("no Leases are written") == 2


# ---- the whole


def place(tmp_path: Path, port: int) -> ServerSettings:
    config = tmp_path / "etcd.conf.yaml"
    config.write_text(ETCD)
    return settings(
        store=f"file://{tmp_path}/not-there-yet",
        data_dir=tmp_path / "volume" / "new.etcd",
        etcd_config=config,
        host="127.0.0.1",
        port=port,
        member="main-0",
        endpoints=("http://127.0.0.1:1",),
        namespace="shoot--a",
    )


def get(port: int, path: str) -> str:
    status, body = http_get("127.0.0.1", port, path, timeout_s=10)
    assert status == HTTPStatus.OK, body
    return body.decode()


@contextmanager
def running(tmp_path: Path, kube: Kube | None = None, **given: Any) -> Iterator[int]:
    (port,) = free_ports(1)
    wanted, cancel, failures = replace(place(tmp_path, port), **given), Cancel(), []
    sidecar = Sidecar(wanted, read_config(ETCD, pod="main-0", where="x"), kube, cancel)

    def serve() -> None:
        try:
            module.asyncio.run(sidecar.run(None))
        except BaseException as error:  # noqa: BLE001 - shown by the thread that waits
            failures.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        Patience(cancel=Cancel(), timeout_s=20, poll_s=0.01).until(
            lambda: failures or http_get("127.0.0.1", port, "/config")[0] == HTTPStatus.OK, "the sidecar"
        )
        yield port
    finally:
        cancel.set("SIGTERM")
        thread.join(30)
    assert not thread.is_alive()
    assert failures == []


def finished(port: int) -> str:
    get(port, "/initialization/start")
    patience = Patience(cancel=Cancel(), timeout_s=30, poll_s=0.01)
    return patience.until(
        lambda: (answer := get(port, "/initialization/status")) not in {"New", "Progress"} and answer, "an end"
    )


def test_an_empty_store_and_an_empty_volume(tmp_path: Path) -> None:
    with running(tmp_path) as port:
        assert get(port, "/initialization/status") == "New"
        assert finished(port) == "Successful"
        assert get(port, "/initialization/status") == "New"
        assert json.loads(get(port, "/snapshot/latest")) == {"fullSnapshot": None, "deltaSnapshots": None}
        assert http_get("127.0.0.1", port, "/healthz")[0] == HTTPStatus.SERVICE_UNAVAILABLE
        assert http_get("127.0.0.1", port, "/snapshot/full")[0] == HTTPStatus.INTERNAL_SERVER_ERROR
    assert (tmp_path / "volume" / "safe_guard").read_text() == "shoot--a"
    assert not (tmp_path / "volume" / "new.etcd").exists()


def test_without_a_store(tmp_path: Path) -> None:
    with running(tmp_path, store="") as port:
        assert finished(port) == "Successful"
        assert http_get("127.0.0.1", port, "/healthz")[0] == HTTPStatus.OK
        assert http_get("127.0.0.1", port, "/snapshot/delta")[0] == HTTPStatus.METHOD_NOT_ALLOWED


def test_a_restore_that_fails_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "not-there-yet" / "v2"
    folder.mkdir(parents=True)
    (folder / "Full-00000000-00000009-1767268800").write_bytes(b"no snapshot")
    with running(tmp_path) as port:
        assert finished(port) == "Failed"
        text = get(port, "/metrics")
    assert 'etcdbr_restoration_duration_seconds_count{restore="single_node",succeeded="false"} 1.0' in text


class DeafKube:
    """Hears at the second call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def patch(self, _resource: Any, name: str, _namespace: str, changes: Any, **_more: Any) -> Any:
        self.calls.append((name, changes))
        if len(self.calls) == 1:
            raise KubeUnavailable("no answer", what=f"patch {name}")
        return changes


def test_a_restore_that_was_not_told_before_a_sidecar_died_is_told_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_etcd(_settings: Any) -> Any:
        raise EtcdUnavailable("refused", endpoint="e")

    monkeypatch.setattr(wiring, "etcd_status", no_etcd)
    (tmp_path / "volume").mkdir()
    untold = UntoldRestore(tmp_path / "volume" / "new.etcd")
    untold.remember(RESTORED)
    kube: Any = DeafKube()
    with running(tmp_path, kube, member_lease=True):
        Patience(cancel=Cancel(), timeout_s=30, poll_s=0.01).until(lambda: untold.recall() is None, "the news")
    name, changes = kube.calls[-1]
    assert name == "main-0"
    assert decode_restored(changes["metadata"]["annotations"][ANNOTATION], "x") == RESTORED


def test_what_is_remembered_of_a_restore(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    untold = UntoldRestore(tmp_path / "new.etcd")
    assert untold.recall() is None
    untold.remember(RESTORED)
    assert UntoldRestore(tmp_path / "new.etcd").recall() == RESTORED
    untold.forget(Restored(**({name: getattr(RESTORED, name) for name in RESTORED.__struct_fields__} | {"at": "x"})))
    assert untold.recall() == RESTORED, "another one than was told"
    untold.forget(RESTORED)
    assert list(tmp_path.iterdir()) == []
    assert caplog.text == ""
    (tmp_path / "new.etcd.restored").write_bytes(b"\xff{")
    assert untold.recall() is None
    UntoldRestore(tmp_path / "missing" / "new.etcd").remember(RESTORED)
    assert "is lost" in caplog.text
    assert "not remembered" in caplog.text


def test_tls_is_at_least_1_2(tmp_path: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + timedelta(days=9999))
    cert, secret = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = module._tls(settings(server_cert=cert, server_key=secret))
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert module._tls(settings()) is None
