"""What tests of sessions need beside the server: contents, and credentials."""

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.credentials import Credentials
from google.oauth2 import service_account

from backupagent.stores.base import PartTag, Upload
from backupagent.stores.gcs import GcsStore


def content(size: int) -> bytes:
    return bytes(number * 7 % 251 for number in range(251)) * (size // 251) + bytes(size % 251)


def pieces(data: bytes, part_size: int) -> list[bytes]:
    return [data[at : at + part_size] for at in range(0, len(data), part_size)]


def send(store: GcsStore, upload: Upload, data: bytes) -> list[PartTag]:
    return [store.upload_part(upload, number, piece) for number, piece in enumerate(pieces(data, upload.part_size), 1)]


def key_of(name: str) -> service_account.Credentials:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    info = {"client_email": name, "private_key": pem, "token_uri": "https://oauth2.googleapis.com/token"}
    return service_account.Credentials.from_service_account_info(info)


class Bearer(Credentials):
    def __init__(self) -> None:
        super().__init__()
        self.token = "t"

    def refresh(self, request: object) -> None:
        """Never called."""
