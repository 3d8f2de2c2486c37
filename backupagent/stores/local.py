"""A directory as a bucket: atomic and crash-safe without a server.

Beside an object ``name`` there may be, never listed as objects:

``name.<16 hex digits>.part``
    an object that is being written: by a ``put``, which holds a lock on it, or by an upload, part *n* at
    ``(n - 1) * part_size``;
``name.<16 hex digits>.part.log``
    the record of an upload: one line of JSON (``part_size``), then one line ``number size crc32`` for each
    finished part, so that another process can go on after a kill.

A file system cannot hold both ``a`` and ``a/b``. Symbolic links are not listed, and none leads out of the root.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isal import isal_zlib

from backupagent.errors import AccessDenied, ConfigError, ObjectChanged, ObjectNotFound, StoreError, TruncatedObject
from backupagent.stores import local_files as files
from backupagent.stores.base import (
    NO_METADATA,
    Buffer,
    CopiesNothing,
    ObjectInfo,
    PartTag,
    StoreFeatures,
    StoreLimits,
    Upload,
)
from backupagent.stores.keys import check_key, check_part, check_part_size, check_parts

_PART = ".part"
_LOG = ".part.log"
_UNFINISHED = re.compile(r"(?P<key>.+)\.(?P<id>[0-9a-f]{16})\.part(?:\.log)?")
_UPLOAD_ID = re.compile(r"[0-9a-f]{16}")
_HEADER_SIZE = 1024
# Of fixed length at its end, and after a newline instead of before one: a line that a crash cut short neither
# matches nor spoils the next one.
_RECORD = re.compile(r"(?P<number>[0-9]{1,5}) (?P<size>[0-9]{1,19}) (?P<crc32>[0-9a-f]{8})")


class LocalStore(CopiesNothing):
    """A directory as a bucket. Thread-safe, and safe beside other processes that use it this way.

    What makes an object visible is one ``rename`` or ``link``, after an ``fsync`` of the content and before one
    of the directory. Files get mode 0600 and directories 0700.

    Args:
        root: The directory; made by the first write.
        create: Before that it counts as empty; otherwise listing what does not exist is ``ObjectNotFound``.
    """

    def __init__(self, root: Path, *, create: bool = False) -> None:
        self._root = root
        self._create = create
        self._limits = StoreLimits()

    @property
    def display(self) -> str:
        """The store as shown to users."""
        return f"file://{self._root}"

    @property
    def limits(self) -> StoreLimits:
        """Hard limits of an upload in parts."""
        return self._limits

    @property
    def features(self) -> StoreFeatures:
        """Optional abilities."""
        return StoreFeatures(metadata=False, remote=False, leftovers=True)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects in byte order of the keys; one directory's entries are in memory at a time."""
        with self._translating("list", prefix):
            for key, entry in self._walk(prefix):
                if key.endswith((_PART, _LOG)):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # removed since its directory was read
                    continue
                yield _info(key, status)

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object."""
        with self._translating("stat", key):
            status = self._path(key).stat(follow_symlinks=False)
            return _info(key, self._refuse_other_than_file(status, "stat", key))

    def read_into(self, key: str, buffer: memoryview, *, offset: int = 0, etag: str = "") -> Mapping[str, str]:
        """Read exactly ``len(buffer)`` bytes from ``offset``, straight into the buffer."""
        with self._translating("read", key), files.opened(self._path(key), os.O_RDONLY) as descriptor:
            status = self._refuse_other_than_file(os.fstat(descriptor), "read", key)
            if etag and etag != _info(key, status).etag:
                raise ObjectChanged("it was replaced", op="read", key=key, store=self.display)
            end = offset + buffer.nbytes
            if status.st_size < end or files.read_at(descriptor, buffer.cast("B"), offset) < buffer.nbytes:
                raise TruncatedObject(f"it ends at byte {status.st_size}, before {end}", key=key)
        return NO_METADATA

    def put(
        self,
        key: str,
        data: Buffer,
        *,
        if_absent: bool = False,
        metadata: Mapping[str, str] = NO_METADATA,  # noqa: ARG002 - features.metadata is false
    ) -> ObjectInfo:
        """Write a whole object."""
        with self._translating("put", key):
            final = self._path(key)
            files.make_directories(final.parent)
            unfinished = final.with_name(f"{final.name}.{secrets.token_hex(8)}{_PART}")
            try:
                with files.opened(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
                    fcntl.flock(descriptor, fcntl.LOCK_EX)  # until it is closed: list_uploads leaves it out
                    files.write_at(descriptor, memoryview(data).cast("B"), 0)
                    os.fsync(descriptor)
                    files.publish(unfinished, final, if_absent=if_absent)
                    return _info(key, os.fstat(descriptor))
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise

    def begin_upload(
        self,
        key: str,
        *,
        part_size: int,
        metadata: Mapping[str, str] = NO_METADATA,  # noqa: ARG002 - features.metadata is false
        copied: bool = False,  # noqa: ARG002 - makes no difference
    ) -> Upload:
        """Begin an object that arrives in parts."""
        check_part_size(part_size, self._limits)
        upload = Upload(key, secrets.token_hex(8), part_size)
        with self._translating("begin upload", key):
            paths = self._paths(upload)
            files.make_directories(paths.final.parent)
            header = json.dumps({"part_size": part_size}).encode()
            try:
                for path, content in ((paths.log, header), (paths.data, b"")):
                    with files.opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
                        files.write_at(descriptor, memoryview(content), 0)
            except BaseException:
                paths.remove()
                raise
        return upload

    def upload_part(self, upload: Upload, number: int, data: Buffer) -> PartTag:
        """Write one part, then its line in the record."""
        view = memoryview(data).cast("B")
        check_part(upload, number, len(view), self._limits)
        crc32 = isal_zlib.crc32(view)
        with self._translating("upload part", upload.key):
            paths = self._paths(upload)
            with self._upload_opened(paths, upload, os.O_WRONLY) as descriptor:
                files.write_at(descriptor, view, (number - 1) * upload.part_size)
            files.append(paths.log, f"\n{number} {len(view)} {crc32:08x}".encode())
        return _tag(number, len(view), crc32)

    def list_parts(self, upload: Upload) -> Sequence[PartTag]:
        """List the finished parts whose content still is what was written.

        The parts are read back: after a loss of power the record may be there and the pages of a part not.
        """
        with self._translating("list parts", upload.key):
            paths = self._paths(upload)
            with self._upload_opened(paths, upload, os.O_RDONLY) as descriptor:
                return [
                    part
                    for part in _recorded(paths.log, upload)
                    if part.crc32 == files.crc32_at(descriptor, (part.number - 1) * upload.part_size, part.size)
                ]

    def complete_upload(self, upload: Upload, parts: Sequence[PartTag], *, if_absent: bool = False) -> ObjectInfo:
        """Make the object visible."""
        size = check_parts(upload, parts)
        with self._translating("complete upload", upload.key):
            paths = self._paths(upload)
            with self._upload_opened(paths, upload, os.O_RDWR) as descriptor:
                recorded = {(part.number, part.etag) for part in _recorded(paths.log, upload)}
                missing = [part.number for part in parts if (part.number, part.etag) not in recorded]
                if missing or os.fstat(descriptor).st_size < size:
                    reason = f"parts are missing or were replaced: {missing or 'the file is too short'}"
                    raise StoreError(reason, op="complete upload", key=upload.key, store=self.display)
                os.ftruncate(descriptor, size)
                os.fsync(descriptor)
                files.publish(paths.data, paths.final, if_absent=if_absent)
                info = _info(upload.key, os.fstat(descriptor))
            paths.remove()
            return info

    def abort_upload(self, upload: Upload) -> None:
        """Throw an upload and its parts away."""
        with self._translating("abort upload", upload.key), contextlib.suppress(ObjectNotFound, NotADirectoryError):
            self._paths(upload).remove()

    def list_uploads(self, prefix: str) -> Sequence[Upload]:
        """List open uploads, and what a killed ``put`` left (``part_size`` 0), so that it can be aborted."""
        found: dict[tuple[str, str], Upload] = {}
        with self._translating("list uploads", prefix):
            for key, entry in self._walk(prefix):
                match = _UNFINISHED.fullmatch(key)
                if match is None or not match["key"].startswith(prefix):
                    continue
                name = match["key"], match["id"]
                path = Path(entry.path)
                if key.endswith(_LOG):
                    found[name] = _listed(name, _part_size(path), path, path.with_suffix(""))
                elif name not in found and not files.is_in_use(path):
                    found[name] = _listed(name, 0, path, path)
        return [found[name] for name in sorted(found)]

    def delete(self, key: str) -> None:
        """Remove an object."""
        with self._translating("delete", key):
            path = self._path(key)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                path.unlink()
                files.sync_directory(path.parent)

    def close(self) -> None:
        """Do nothing: no file stays open between calls."""

    def _walk(self, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        if self._create and not os.path.lexists(self._root):
            return iter(())
        return files.walk(self._root, prefix)

    def _path(self, key: str) -> Path:
        check_key(key)
        if key.endswith((_PART, _LOG)):
            raise ConfigError(f"{key!r} is not the key of an object: {_PART} and {_LOG} mark unfinished ones")
        path = self._root / key
        if not path.parent.resolve().is_relative_to(self._root.resolve()):
            raise AccessDenied("a symbolic link leads out of the store", op="open", key=key, store=self.display)
        return path

    def _paths(self, upload: Upload) -> "_UploadPaths":
        final = self._path(upload.key)
        if not _UPLOAD_ID.fullmatch(upload.id):  # it may come from a bucket
            raise ObjectNotFound(f"there is no upload {upload.id!r}", op="open", key=upload.key, store=self.display)
        name = f"{final.name}.{upload.id}"
        return _UploadPaths(final, final.with_name(name + _PART), final.with_name(name + _LOG))

    @contextlib.contextmanager
    def _upload_opened(self, paths: "_UploadPaths", upload: Upload, flags: int) -> Iterator[int]:
        with files.opened(paths.data, flags) as descriptor:
            if os.fstat(descriptor).st_nlink > 1:
                # A kill came between the link that published it and the removal of its old name.
                raise ObjectNotFound("the upload was completed", op="open", key=upload.key, store=self.display)
            if _part_size(paths.log) != upload.part_size:
                reason = f"there is no upload {upload.id} with parts of {upload.part_size} bytes"
                raise ObjectNotFound(reason, op="open", key=upload.key, store=self.display)
            yield descriptor

    def _refuse_other_than_file(self, status: os.stat_result, op: str, key: str) -> os.stat_result:
        if not stat.S_ISREG(status.st_mode):
            raise ObjectNotFound("it is not a file", op=op, key=key, store=self.display)
        return status

    @contextlib.contextmanager
    def _translating(self, op: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise files.translate(error, op, key, self.display) from error


@dataclass(frozen=True)
class _UploadPaths:
    final: Path
    data: Path
    log: Path

    def remove(self) -> None:
        self.data.unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    etag = f"{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ino:x}"
    return ObjectInfo(key, status.st_size, etag, status.st_mtime)


def _listed(name: tuple[str, str], part_size: int, sign: Path, data: Path) -> Upload:
    """Describe an upload: the file that was written to last tells when it lived."""
    alive_s = held = None
    with contextlib.suppress(FileNotFoundError):  # gone, or half of it, since its directory was read
        alive_s = sign.stat().st_mtime
        held = data.stat().st_size
    return Upload(*name, part_size, alive_s=alive_s, held=held)


def _tag(number: int, size: int, crc32: int) -> PartTag:
    return PartTag(number, size, f"{size:x}-{crc32:08x}", crc32)


def _recorded(log: Path, upload: Upload) -> list[PartTag]:
    """Read which parts are finished; of one part the last record counts."""
    matches = filter(None, map(_RECORD.fullmatch, log.read_text(errors="replace").splitlines()[1:]))
    latest = {int(match["number"]): (int(match["size"]), int(match["crc32"], 16)) for match in matches}
    return [_tag(number, size, crc32) for number, (size, crc32) in sorted(latest.items()) if size <= upload.part_size]


def _part_size(log: Path) -> int:
    """Read the part size from the record of an upload; 0 when the record is damaged or gone."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError), log.open("rb") as lines:
        return int(json.loads(lines.readline(_HEADER_SIZE))["part_size"])
    return 0
