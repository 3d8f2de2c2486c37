"""From the URI and the peer's credentials to an S3 store."""

from collections.abc import Mapping

from backupagent.errors import ConfigError
from backupagent.stores.opening import Opening
from backupagent.stores.s3 import S3Settings, S3Store, open_s3

_UNSUPPORTED = ("roleARN", "sseCustomerKey", "sseCustomerAlgorithm", "trustedCaCert")
"""Fields of the peer's credentials that cannot be left out without doing something else than asked for."""


def open_location(opening: Opening) -> S3Store:
    """Open a bucket; makes no request.

    Raises:
        ConfigError: the credentials cannot be used.
    """
    options = opening.location.options
    fields = opening.fields("AWS")
    _refuse_unsupported(fields)
    path_style = options.get("path-style", fields.get("s3ForcePathStyle", "").lower())
    return open_s3(
        S3Settings(
            bucket=opening.location.bucket,
            endpoint=options.get("endpoint", fields.get("endpoint", "")),
            region=options.get("region", fields.get("region", "")),
            path_style={"true": True, "false": False}.get(path_style),
            access_key_id=fields.get("accessKeyID", ""),
            secret_access_key=fields.get("secretAccessKey", ""),
        )
    )


def _refuse_unsupported(fields: Mapping[str, str]) -> None:
    unsupported = [name for name in _UNSUPPORTED if fields.get(name)]
    if fields.get("insecureSkipVerify", "").lower() == "true":
        unsupported.append("insecureSkipVerify")
    if unsupported:
        raise ConfigError(
            f"the credentials ask for what this version does not do: {', '.join(unsupported)}",
            hint="a CA goes into AWS_CA_BUNDLE; a role into AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE",
        )
    if fields and not (fields.get("accessKeyID") and fields.get("secretAccessKey")):
        raise ConfigError("the credentials lack accessKeyID or secretAccessKey")
