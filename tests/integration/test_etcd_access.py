"""Who may use an etcd: its own login, and TLS with and without client certificates."""

import datetime as dt
import hashlib
import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from backupagent.cancel import Cancel
from backupagent.errors import ConfigError, EtcdError, EtcdUnavailable
from backupagent.etcd.client import EtcdClient
from backupagent.etcd.connection import EtcdAccess
from backupagent.etcd.watch import CatchUp, events
from backupagent.testing.servers import EtcdServer, free_ports

ETCDS = ("etcd-3.4", "etcd-3.5", "etcd-3.6", "etcd-3.7")
Find = Callable[[str], Path]


@pytest.fixture(scope="module", params=ETCDS)
def guarded(request: pytest.FixtureRequest, server_binary: Find) -> Iterator[EtcdServer]:
    """An etcd with authentication on, a root user and one who may read a little."""
    with EtcdServer(server_binary(request.param)) as server:
        with EtcdClient.open(EtcdAccess((server.url,))) as client:
            auth, messages = client.etcd3.auth_stub, client.etcd3.messages
            client.etcd3.put("a", "1")
            auth.UserAdd(messages.AuthUserAddRequest(name="root", password="rootsecret"))
            auth.UserGrantRole(messages.AuthUserGrantRoleRequest(user="root", role="root"))
            auth.UserAdd(messages.AuthUserAddRequest(name="guest", password="guestsecret"))
            auth.RoleAdd(messages.AuthRoleAddRequest(name="some"))
            some = {"permType": 2, "key": b"a", "range_end": b"b"}
            auth.RoleGrantPermission(messages.AuthRoleGrantPermissionRequest(name="some", perm=some))
            auth.UserGrantRole(messages.AuthUserGrantRoleRequest(user="guest", role="some"))
            auth.AuthEnable(messages.AuthEnableRequest())
        yield server


def test_root_may_do_all_that_a_backup_does(guarded: EtcdServer) -> None:
    settings = EtcdAccess((guarded.url,), username="root", password="rootsecret")
    with EtcdClient.open(settings) as client:
        client.etcd3.lease(100, 77)
        client.etcd3.put("a", "2", lease=77)
        revision = client.revision()
        assert sum(map(len, events(client, 2, revision, cancel=Cancel()))) == revision - 1
        content = b"".join(client.snapshot_stream())
        assert hashlib.sha256(content[:-32]).digest() == content[-32:]
        assert client.hash_kv().revision == revision
        assert client.lease_ttls(client.leases()) == {77: 100}


def test_token_that_ended_is_renewed(guarded: EtcdServer) -> None:
    settings = EtcdAccess((guarded.url,), username="root", password="rootsecret")
    with EtcdClient.open(settings) as client:
        for use in (
            client.revision,
            lambda: next(client.snapshot_stream()),
            lambda: list(events(client, 2, 2, cancel=Cancel())),
            lambda: client.lease_ttls([1]),
        ):
            client.etcd3.metadata = (("token", "ended.1"),)
            use()
            assert client.etcd3.metadata != (("token", "ended.1"),)


def test_wrong_password_is_refused_and_not_repeated(guarded: EtcdServer) -> None:
    with pytest.raises(EtcdError, match="authentication failed") as caught:
        EtcdClient.open(EtcdAccess((guarded.url,), username="root", password="hunter2"))
    assert type(caught.value) is EtcdError
    assert "hunter2" not in str(caught.value) + repr(caught.value.__cause__)
    assert caught.value.hint == "check user name and password"


def test_no_login_is_refused(guarded: EtcdServer) -> None:
    def use() -> int:
        with EtcdClient.open(EtcdAccess((guarded.url,))) as client:  # since 3.5 refused here
            return client.revision()

    with pytest.raises(EtcdError, match="user name is empty") as caught:
        use()
    assert "authentication on" in caught.value.hint


def test_user_who_may_not_read_all_is_refused(guarded: EtcdServer) -> None:
    settings = EtcdAccess((guarded.url,), username="guest", password="guestsecret")
    with EtcdClient.open(settings) as client:
        client.etcd3.put("a", "3")
        with pytest.raises(EtcdError, match="cancelled the watch: permission denied") as caught:
            list(events(client, 2, 2, cancel=Cancel(), limits=CatchUp(pauses_s=())))
        assert type(caught.value) is EtcdError
        with pytest.raises(EtcdError, match="permission denied") as caught:
            list(client.snapshot_stream())
        assert "role root" in caught.value.hint


@dataclass(frozen=True)
class Files:
    """PEM files of a certificate and its key."""

    cert: Path
    key: Path


def certificate(folder: Path, name: str, issuer: Files | None = None) -> Files:
    """Make a certificate for 127.0.0.1: a CA, or one that a CA signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, issued_by = key, subject
    if issuer is not None:
        signer = serialization.load_pem_private_key(issuer.key.read_bytes(), None)
        issued_by = x509.load_pem_x509_certificate(issuer.cert.read_bytes()).subject
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    built = (
        x509.CertificateBuilder(issued_by, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    files = Files(folder / f"{name}.crt", folder / f"{name}.key")
    files.cert.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files.key.write_bytes(encoded)
    return files


@dataclass(frozen=True)
class Tls:
    """A running etcd that also listens on TLS, and the files for it."""

    address: str
    authority: Files
    client: Files
    stranger: Files


@pytest.fixture(scope="module")
def tls(server_binary: Find, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = certificate(folder, "ca"), certificate(folder, "stranger")
    server, client = certificate(folder, "server", authority), certificate(folder, "client", authority)
    plain, secure = free_ports(2)
    arguments = [
        f"--listen-client-urls=http://127.0.0.1:{plain},https://127.0.0.1:{secure}",
        f"--cert-file={server.cert}",
        f"--key-file={server.key}",
        f"--trusted-ca-file={authority.cert}",
        "--client-cert-auth",
    ]
    with EtcdServer(server_binary("etcd"), client_port=plain, extra_args=arguments):
        yield Tls(f"127.0.0.1:{secure}", authority, client, stranger)


@pytest.mark.parametrize("scheme", ["https://", ""])
def test_client_certificate(tls: Tls, scheme: str) -> None:
    settings = EtcdAccess((scheme + tls.address,), ca_cert=tls.authority.cert, cert=tls.client.cert, key=tls.client.key)
    with EtcdClient.open(settings) as client:
        client.etcd3.put("tls", "1")
        assert sum(map(len, events(client, 2, client.revision(), cancel=Cancel()))) >= 1
        content = b"".join(client.snapshot_stream())
        assert hashlib.sha256(content[:-32]).digest() == content[-32:]


def test_missing_or_foreign_certificates_are_refused(tls: Tls) -> None:
    url = f"https://{tls.address}"
    for wrong in (
        EtcdAccess((url,), ca_cert=tls.authority.cert, connect_timeout_s=5),
        EtcdAccess((url,), ca_cert=tls.stranger.cert, cert=tls.client.cert, key=tls.client.key, connect_timeout_s=5),
        EtcdAccess((url,), cert=tls.client.cert, key=tls.client.key, connect_timeout_s=5),
        EtcdAccess((f"http://{tls.address}",), connect_timeout_s=5),
    ):
        with pytest.raises(EtcdUnavailable, match=f"^etcd {tls.address}: "):
            EtcdClient.open(wrong)


def test_unreadable_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.crt cannot be read: No such file"):
        EtcdClient.open(EtcdAccess(("https://127.0.0.1:1",), ca_cert=tmp_path / "absent.crt"))
