"""A MinIO that speaks TLS with a certificate of its own."""

import ipaddress
import ssl
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path

import boto3
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from backupagent.clock import SYSTEM_CLOCK
from backupagent.testing.servers import MinioServer


def make_certificate(folder: Path, name: str) -> Path:
    """Make a certificate for 127.0.0.1 that vouches for itself; return its file, beside which lies its key."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = SYSTEM_CLOCK.now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "public.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "private.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "public.crt"


class TlsMinioServer(MinioServer):
    """A MinIO that speaks TLS.

    Args:
        certificates: Folder with public.crt and private.key.
        binary: Path of the binary.
    """

    def __init__(self, certificates: Path, *, binary: Path) -> None:
        super().__init__(binary=binary)
        self.certificates = certificates
        self.ca = certificates / "public.crt"

    @property
    def endpoint_url(self) -> str:
        return f"https://{self.endpoint}"

    def is_ready(self) -> bool:
        context = ssl.create_default_context(cafile=self.ca)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(f"{self.endpoint_url}/minio/health/ready", timeout=2) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def make_bucket(self, name: str, *, object_lock: bool = False) -> None:
        client = boto3.client(
            "s3", endpoint_url=self.endpoint_url, region_name=self.REGION, verify=str(self.ca),
            aws_access_key_id=self.access_key, aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )  # fmt: skip
        client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=object_lock)
        client.close()

    def _command(self) -> list[str | Path]:
        return [*super()._command(), "--certs-dir", self.certificates]
