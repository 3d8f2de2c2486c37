"""From the URI and the peer's credentials to an S3 store.

Source of the names: etcd-backup-restore, pkg/snapstore/{s3,ecs_s3,ocs_s3,oss}_snapstore.go at debd95b.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from backupagent.errors import ConfigError
from backupagent.stores.opening import Opening, service_of
from backupagent.stores.s3 import S3Store, open_s3
from backupagent.stores.s3_settings import Checksums, CustomerKey, Role, S3Settings, Trust

FIELDS: Mapping[str, str] = {
    "accessKeyID": "key pair",
    "secretAccessKey": "key pair",
    "region": "region of the bucket",
    "roleARN": "role to take on with the token, in place of a key pair",
    "token": "token of the role; as a file of a directory it is read anew whenever it is needed",
    "tokenPath": "file with the token of the role",
    "endpoint": "URL of the service; without `http://` or `https://` it is reached over TLS",
    "s3ForcePathStyle": "`true` puts the bucket into the path of the URL",
    "trustedCaCert": "certificates of the CAs to trust, PEM",
    "insecureSkipVerify": "`true` lets certificates go unverified; a warning is logged",
    "disableSSL": "`true` reaches an endpoint without a scheme over plain HTTP",
    "sseCustomerKey": "key that the store encrypts with (SSE-C): 32 bytes, or 32 bytes in base64",
    "sseCustomerAlgorithm": "goes with it: `AES256`",
    "requestChecksumCalculation": "`when_supported` or `when_required`",
    "responseChecksumValidation": "`when_supported` or `when_required`",
    "storageEndpoint": "`endpoint` of OSS",
    "accessKeySecret": "`secretAccessKey` of OSS",
}
"""What each field of the credentials means."""

ALIASES: Mapping[str, str] = {"storageEndpoint": "endpoint", "accessKeySecret": "secretAccessKey"}

ECS_VARIABLES: Mapping[str, str] = {
    "ECS_ENDPOINT": "endpoint",
    "ECS_ACCESS_KEY_ID": "accessKeyID",
    "ECS_SECRET_ACCESS_KEY": "secretAccessKey",
    "ECS_DISABLE_SSL": "disableSSL",
    "ECS_INSECURE_SKIP_VERIFY": "insecureSkipVerify",
}
"""Environment variables of ECS, which has no files of credentials at the peer, and no others for a source."""


@dataclass(frozen=True)
class _Service:
    """How a service of its own differs from S3.

    Attributes:
        path_style: As in ``S3Settings``.
        region: What is signed for where none is named.
    """

    path_style: bool
    region: str


_SERVICES: Mapping[str, _Service] = {
    "ecs": _Service(path_style=True, region="US-Standard"),
    "ocs": _Service(path_style=True, region=""),
    "oss": _Service(path_style=False, region="us-east-1"),
}
_NO_SERVICE = _Service(path_style=False, region="")

_OSS_REGION = re.compile(r"(?:s3\.)?(oss-[a-z0-9-]+?)(?:-internal)?\.aliyuncs\.com")
_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"0", "f", "false"})


def open_location(opening: Opening) -> S3Store:
    """Open a bucket; makes no request.

    Raises:
        ConfigError: the credentials cannot be used.
    """
    return open_s3(settings_of(opening))


def settings_of(opening: Opening) -> S3Settings:
    """Put together what the URI, the credentials and the kind of service say; the URI wins.

    Raises:
        ConfigError: they cannot be used.
    """
    options = opening.location.options
    fields = _fields(opening)
    service = _SERVICES.get(options.get("service", ""))
    endpoint = options.get("endpoint", "") or _endpoint(fields)
    customer_key = _customer_key(fields)
    if customer_key is not None and endpoint.startswith("http:"):
        raise ConfigError(
            "sseCustomerKey would go over plain HTTP, where everybody can read it", hint="use an https:// endpoint"
        )
    return S3Settings(
        bucket=opening.location.bucket,
        endpoint=endpoint,
        region=options.get("region") or fields.get("region", "") or _region(options.get("service", ""), endpoint),
        path_style=_path_style(options, fields, service),
        access_key_id=fields.get("accessKeyID", ""),
        secret_access_key=fields.get("secretAccessKey", ""),
        role=_role(opening, fields),
        trust=_trust(options, fields),
        customer_key=customer_key,
        storage_class=options.get("storage-class", ""),
        request_checksums=_checksums(
            options.get("request-checksums", ""), fields, "requestChecksumCalculation", Checksums.WHEN_SUPPORTED
        ),
        response_checksums=_checksums(
            options.get("response-checksums", ""), fields, "responseChecksumValidation", Checksums.WHEN_REQUIRED
        ),
    )


def _fields(opening: Opening) -> Mapping[str, str]:
    """Return the fields by their names for S3, complete enough to sign with; empty for the SDK's own chain."""
    service = service_of(opening.location)
    found = opening.fields(service)
    if not found and service == "ECS":
        found = {field: os.environ[name] for name, field in ECS_VARIABLES.items() if os.environ.get(name)}
    if not found and opening.location.options.get("service", "s3") != "s3":
        names = f"{service}_APPLICATION_CREDENTIALS" if service != "ECS" else " and ".join(ECS_VARIABLES)
        raise ConfigError(f"there are no credentials for {service}", hint=f"give ?credentials=PATH or {names}")
    fields = {ALIASES.get(name, name): value for name, value in found.items()}
    role = fields.get("roleARN") and (fields.get("token") or fields.get("tokenPath"))
    if fields and not role and not (fields.get("accessKeyID") and fields.get("secretAccessKey")):
        raise ConfigError(
            "the credentials lack accessKeyID or secretAccessKey"
            if not fields.get("roleARN")
            else "the credentials name a role and lack its token",
            hint="they hold accessKeyID and secretAccessKey, or roleARN and a token",
        )
    return fields


def _role(opening: Opening, fields: Mapping[str, str]) -> Role | None:
    """Return the role; a key pair beside it wins, as with the peer."""
    if fields.get("accessKeyID") or not fields.get("roleARN"):
        return None
    path = opening.credentials_path(service_of(opening.location))
    if opening.credentials is None and path is not None and (path / "token").is_file():
        return Role(fields["roleARN"], token_file=path / "token")
    if fields.get("tokenPath"):
        return Role(fields["roleARN"], token_file=_absolute(fields["tokenPath"]))
    return Role(fields["roleARN"], token=fields["token"])


def _absolute(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise ConfigError("tokenPath in the credentials is not absolute")
    return path


def _customer_key(fields: Mapping[str, str]) -> CustomerKey | None:
    text, algorithm = fields.get("sseCustomerKey", ""), fields.get("sseCustomerAlgorithm", "")
    if not text and not algorithm:
        return None
    if not (text and algorithm):
        raise ConfigError("of sseCustomerKey and sseCustomerAlgorithm the credentials hold only one")
    return CustomerKey.from_text(text, algorithm)


def _trust(options: Mapping[str, str], fields: Mapping[str, str]) -> Trust:
    skip = options.get("skip-verify", "") or ("true" if _flag(fields, "insecureSkipVerify") else "")
    if "ca-file" in options:
        return Trust(ca_file=options["ca-file"], verify=skip != "true")
    # As with the peer, CAs that are named are meant, whatever else is said.
    pem = fields.get("trustedCaCert", "")
    return Trust(ca_pem=pem, verify=skip != "true" or (bool(pem) and "skip-verify" not in options))


def _path_style(options: Mapping[str, str], fields: Mapping[str, str], service: _Service | None) -> bool | None:
    if "path-style" in options:
        return options["path-style"] == "true"
    given = _flag(fields, "s3ForcePathStyle")
    return service.path_style if given is None and service is not None else given


def _endpoint(fields: Mapping[str, str]) -> str:
    endpoint = fields.get("endpoint", "")
    if endpoint and "://" not in endpoint:
        endpoint = f"{'http' if _flag(fields, 'disableSSL') else 'https'}://{endpoint}"
    return endpoint


def _region(service: str, endpoint: str) -> str:
    if service == "oss":
        named = _OSS_REGION.fullmatch(urlsplit(endpoint).hostname or "")
        if named:
            return named[1]
    return _SERVICES.get(service, _NO_SERVICE).region


def _flag(fields: Mapping[str, str], name: str) -> bool | None:
    """Read a field that is true or false, in the words of Go; None where there is none.

    Raises:
        ConfigError: it is neither.
    """
    text = fields.get(name, "").lower()
    if text and text not in _TRUE | _FALSE:
        raise ConfigError(f"{name} in the credentials is neither true nor false")
    return text in _TRUE if text else None


def _checksums(given: str, fields: Mapping[str, str], name: str, default: Checksums) -> Checksums:
    try:
        return Checksums((given or fields.get(name, "")).lower() or default)
    except ValueError:
        raise ConfigError(f"{name} in the credentials is none of {', '.join(Checksums)}") from None
