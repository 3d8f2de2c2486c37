"""Files of credentials in the peer's layout.

A directory with one file for each field, or one JSON file. When both are there, as in a mounted Secret, JSON wins.

Source:
    etcd-backup-restore, pkg/snapstore/s3_snapstore.go, and its behaviour when run.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from backupagent.errors import ConfigError

MAX_SIZE = 64 * 1024
"""Bytes of one file: more is not a file of credentials."""


def read_credentials(path: Path) -> Mapping[str, str]:
    """Read fields by name.

    One newline at the end of a file is dropped: the peer keeps it, so that a Secret made by ``echo`` fails with a
    wrong signature; no field can end with a newline on purpose.

    Args:
        path: A JSON file, or a directory: of its ``*.json`` files the first one counts, else each file is a field.

    Returns:
        The fields that are there; other values than text, numbers and booleans are left out.

    Raises:
        ConfigError: nothing is there, or it cannot be read. The message holds no content.
    """
    try:
        if not path.is_dir():
            return _fields_of_json(path)
        documents = sorted(entry for entry in path.iterdir() if entry.suffix == ".json" and entry.is_file())
        if documents:
            return _fields_of_json(documents[0])
        # A mounted Secret also has ..data and ..<timestamp>, which are directories.
        found = {entry.name: _read(entry).removesuffix("\n") for entry in path.iterdir() if entry.is_file()}
    except OSError as error:
        raise ConfigError(f"cannot read credentials from {path}: {(error.strerror or str(error)).lower()}") from error
    if not found:
        raise ConfigError(f"cannot read credentials from {path}: the directory holds no file")
    return found


def _fields_of_json(path: Path) -> Mapping[str, str]:
    try:
        document = json.loads(_read(path))
    except (ValueError, RecursionError):
        # Not chained: the original shows the content.
        raise ConfigError(f"cannot read credentials from {path}: it is not JSON") from None
    if not isinstance(document, dict):
        raise ConfigError(f"cannot read credentials from {path}: it is not a JSON object")
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in document.items()
        if isinstance(value, str | int)
    }


def _read(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_SIZE + 1)
    if len(content) > MAX_SIZE:
        raise ConfigError(f"cannot read credentials from {path}: it is larger than {MAX_SIZE} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"cannot read credentials from {path}: it is not UTF-8") from None
