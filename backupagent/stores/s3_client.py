"""The SDK's client of a bucket, and the direct requests beside it."""

import contextlib
import functools
import logging
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import boto3.session
import botocore.loaders
import botocore.session
import urllib3
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleWithWebIdentityCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import CredentialRetrievalError

from backupagent.clock import SYSTEM_CLOCK
from backupagent.errors import ConfigError
from backupagent.stores.connections import CONNECT_TIMEOUT_S, MAX_IDLE, READ_TIMEOUT_S
from backupagent.stores.s3_direct import DirectRequests
from backupagent.stores.s3_settings import Role, S3Settings, Trust

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_STYLES: Mapping[bool | None, Literal["auto", "path", "virtual"]] = {None: "auto", True: "path", False: "virtual"}

_ONCE = Config(
    retries={"total_max_attempts": 1, "mode": "standard"},
    connect_timeout=CONNECT_TIMEOUT_S,
    read_timeout=READ_TIMEOUT_S,
)
"""Every call is one request: retrying is the wrapper's business."""

_WEB_IDENTITY = "assume-role-with-web-identity"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Connected:
    """A bucket that can be talked to.

    Attributes:
        client: The SDK's.
        direct: Makes the hot requests.
        closing: What is closed with them.
    """

    client: "S3Client"
    direct: DirectRequests
    closing: contextlib.ExitStack

    def close(self) -> None:
        """Close the connections."""
        self.closing.close()


def connect(settings: S3Settings, display: str) -> Connected:
    """Make what talks to a bucket; no request is made.

    Args:
        settings: The bucket.
        display: The store as shown to users.

    Raises:
        ConfigError: the CAs cannot be read.
        Exception: one of ``s3_errors.SDK_ERRORS``, or ValueError: the SDK refuses the settings.
    """
    with contextlib.ExitStack() as closing:
        session = botocore.session.Session()
        session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
        if settings.access_key_id:
            session.set_credentials(settings.access_key_id, settings.secret_access_key)
        elif settings.role is not None:
            provider = _RoleProvider(settings.role, functools.partial(_sts, session, settings.region))
            session.register_component("credential_provider", CredentialResolver(providers=[provider]))
        trusted = _trusted(settings.trust, session, closing)
        if trusted is False:
            _warn_once(display)
        client = boto3.session.Session(botocore_session=session).client(
            "s3",
            endpoint_url=settings.endpoint or None,
            region_name=settings.region or None,
            aws_access_key_id=settings.access_key_id or None,  # so that the SDK refuses one without the other
            aws_secret_access_key=settings.secret_access_key or None,
            verify=None if trusted == "" else trusted,
            config=_config(settings),
        )
        closing.callback(client.close)
        direct = DirectRequests(client, session.get_credentials(), settings.bucket, trusted)
        closing.callback(direct.close)
        return Connected(client, direct, closing.pop_all())


@functools.cache
def _loader(data_path: str | None) -> Any:  # noqa: ANN401 - the stubs have no type for it
    """Return what reads the SDK's descriptions of services: read once for both sides of a copy, 30 ms of CPU less."""
    return botocore.loaders.create_loader(data_path)


def _config(settings: S3Settings) -> Config:
    return _ONCE.merge(
        Config(
            signature_version="s3v4",
            s3={"addressing_style": _STYLES[settings.path_style], "payload_signing_enabled": False},
            request_checksum_calculation="when_required",  # of what goes through the SDK nothing has content
            response_checksum_validation=settings.response_checksums.value,
            max_pool_connections=MAX_IDLE,
            tcp_keepalive=True,
        )
    )


def _trusted(trust: Trust, session: botocore.session.Session, closing: contextlib.ExitStack) -> str | Literal[False]:
    """Return the file or directory with the CAs to trust, as ``Connections`` takes it.

    The SDK takes only a file: those of credentials go into one in memory, since a Pod may have no place to write.
    """
    if not trust.verify:
        return False
    if trust.ca_pem:
        _check_ca("trustedCaCert in the credentials", cadata=trust.ca_pem)
        return closing.enter_context(_file_with(trust.ca_pem))
    path: str = trust.ca_file or session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE", "")
    if path:
        kind = "capath" if os.path.isdir(path) else "cafile"  # noqa: PTH112 - it goes on as text
        _check_ca(path, **{kind: path})
    return path


@contextlib.contextmanager
def _file_with(text: str) -> Iterator[str]:
    with os.fdopen(os.memfd_create("trusted.pem"), "w") as file:
        file.write(text)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _check_ca(name: str, **source: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(**source)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise ConfigError(
            f"the CAs to trust cannot be read from {name}: {reason}", hint="it takes certificates in PEM"
        ) from error


@functools.cache
def _warn_once(display: str) -> None:
    """Say what is given up; the SDK's own warning would come with every connection."""
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    _log.warning("%s: certificates are not verified, so anybody on the way can read and change everything", display)


def _sts(session: botocore.session.Session, region: str, service: str, *, config: Config) -> Any:  # noqa: ANN401
    return session.create_client(service, region_name=region or None, config=_ONCE.merge(config))


class _RoleProvider(CredentialProvider):
    """Gives the credentials of a role, got when they are first needed and again before they expire."""

    METHOD: str | None = _WEB_IDENTITY

    def __init__(self, role: Role, client_creator: Callable[..., Any]) -> None:
        super().__init__()
        self._role = role
        self._client_creator = client_creator

    def load(self) -> DeferredRefreshableCredentials:
        """Return credentials that get themselves."""
        fetcher = AssumeRoleWithWebIdentityCredentialFetcher(
            client_creator=self._client_creator, web_identity_token_loader=self._token, role_arn=self._role.arn
        )

        def fetch() -> dict[str, str]:
            found: dict[str, str] = fetcher.fetch_credentials()
            until = datetime.fromisoformat(found["expiry_time"])
            if until <= SYSTEM_CLOCK.now():  # the SDK would raise a RuntimeError, which may be anything
                reason = f"new credentials were over at {until} already: check the clock of this machine"
                raise CredentialRetrievalError(provider=_WEB_IDENTITY, error_msg=reason)
            return found

        return DeferredRefreshableCredentials(method=_WEB_IDENTITY, refresh_using=fetch)

    def _token(self) -> str:
        if self._role.token_file is None:
            return self._role.token
        try:
            return self._role.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = f"cannot read the token {self._role.token_file}: {error}"
            raise CredentialRetrievalError(provider=_WEB_IDENTITY, error_msg=reason) from error
