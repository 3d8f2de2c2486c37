"""Where a store is: one URI, without any secret.

``file:///dir/prefix``, ``s3://bucket/prefix?endpoint=...&region=...&path-style=true&credentials=DIR_OR_FILE``
(and the others in ``OPTIONS``; ``docs/stores.md`` says what each means),
``az://container/prefix?account=...&endpoint=...&credentials=...``, ``gs://bucket/prefix?endpoint=...&credentials=...``,
``memory://name/prefix`` (tests). Bucket, prefix and values are percent-encoded; ``+`` means itself.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from backupagent.errors import ConfigError
from backupagent.stores.keys import check_key

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "file": (),
    "memory": (),
    "s3": (
        "ca-file",
        "credentials",
        "endpoint",
        "path-style",
        "region",
        "request-checksums",
        "response-checksums",
        "service",
        "skip-verify",
        "storage-class",
    ),
    "az": ("account", "credentials", "endpoint"),
    "gs": ("credentials", "endpoint"),
}
"""Options of each scheme; every scheme that can be opened is here."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "path-style": ("true", "false"),
    "request-checksums": ("when_supported", "when_required"),
    "response-checksums": ("when_supported", "when_required"),
    "service": ("s3", "ecs", "ocs", "oss"),
    "skip-verify": ("true", "false"),
}
"""The values that an option may have, where not every one makes sense."""

UNREADABLE_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes whose objects cannot be read before hours have passed."""

_SECRET_NAME = re.compile(r"secret|passw|token|sas|sig|key|auth", re.IGNORECASE)
_STORAGE_CLASS = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class Location:
    """A store and a place in it. Holds no secret, so that it may be shown and logged.

    Attributes:
        provider: Scheme of the URI: one of ``OPTIONS``.
        bucket: Name of the bucket; for ``file`` the directory, absolute.
        prefix: Keys lie below it, without slashes at its ends; empty for ``file``, whose directory has it.
        options: Options of the URI, decoded.
    """

    provider: str
    bucket: str
    prefix: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


def parse_location(uri: str) -> Location:
    """Read the URI of a store.

    Raises:
        ConfigError: the scheme or an option is unknown, something is missing, wrongly encoded or given twice, or
            the URI holds what looks like a secret. The message never repeats a value of the URI in that case.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in OPTIONS:
        raise _unknown_scheme(scheme if separator else "")
    if "#" in rest:
        raise ConfigError("the URI of a store holds a bare '#': write it as %23")
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    if "@" in authority:
        raise ConfigError(
            "the URI of a store holds a user or password before '@'",
            hint="name the directory or file with the credentials: ?credentials=PATH",
        )
    options = _options(scheme, query)
    if scheme == "file":
        if _decode(authority) not in {"", "localhost"} or not place.partition("/")[1]:
            raise ConfigError(f"file://{authority} is not a local directory: write file:///absolute/path")
        return Location(scheme, _decode(f"/{path}"), options=options)
    bucket, prefix = _decode(authority), _decode(path).strip("/")
    if not bucket or "/" in bucket:
        raise ConfigError(f"the URI of a store names no bucket: write {scheme}://BUCKET/PREFIX")
    if prefix:
        check_key(prefix)
    return Location(scheme, bucket, prefix, options)


def _unknown_scheme(scheme: str) -> ConfigError:
    known = ", ".join(f"{name}://" for name in OPTIONS if name != "memory")
    named = f"{scheme}:// is not a kind of store" if scheme.isalnum() else "that is not the URI of a store"
    return ConfigError(f"{named}: write one of {known}")


def _options(scheme: str, query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for piece in filter(None, query.split("&")):
        encoded, _, value = piece.partition("=")
        name = _decode(encoded)
        if name not in OPTIONS[scheme]:
            raise _unknown_option(scheme, name)
        if name in options:
            raise ConfigError(f"option {name!r} of a {scheme}:// store is given twice")
        options[name] = _decode(value)
    if "endpoint" in options:
        _check_endpoint(options["endpoint"])
    for name, choices in CHOICES.items():
        if options.get(name, choices[0]) not in choices:
            raise ConfigError(f"option {name!r} is none of {', '.join(choices)}")
    _check_storage_class(options.get("storage-class", "STANDARD"))
    return options


def _check_storage_class(name: str) -> None:
    if not _STORAGE_CLASS.fullmatch(name):
        raise ConfigError("option 'storage-class' is no name of letters, digits, dashes and underscores")
    if name.upper() in UNREADABLE_CLASSES:
        raise ConfigError(
            f"objects of storage class {name} cannot be read before hours have passed",
            hint="STANDARD_IA and GLACIER_IR can be read at once",
        )


def _unknown_option(scheme: str, name: str) -> ConfigError:
    if _SECRET_NAME.search(name):
        return ConfigError(
            f"option {name!r} looks like a secret, which does not belong into the URI of a store",
            hint="name the directory or file with the credentials: ?credentials=PATH",
        )
    allowed = ", ".join(OPTIONS[scheme]) or "none"
    return ConfigError(f"unknown option {name!r} of a {scheme}:// store; allowed: {allowed}")


def _check_endpoint(endpoint: str) -> None:
    try:
        url = urlsplit(endpoint)
        valid = url.scheme in {"http", "https"} and url.hostname and url.port != 0
    except ValueError:  # a port that is no number, or brackets that do not match
        valid = False
    if not valid or "@" in endpoint or url.query or url.fragment:
        raise ConfigError("option 'endpoint' is not of the form http[s]://HOST[:PORT]")


def _decode(text: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise ConfigError("the URI of a store holds a '%' that begins no escape: write it as %25")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise ConfigError("the URI of a store is not UTF-8 after decoding its escapes") from error
