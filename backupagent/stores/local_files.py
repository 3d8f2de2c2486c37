"""What the local store does with files: durable writes, exact reads, directory walks, errors of the system."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from isal import isal_zlib

from backupagent import failpoints
from backupagent.errors import AccessDenied, BackupAgentError, NoSpace, ObjectExists, ObjectNotFound, StoreError
from backupagent.stores.keys import MAX_KEY_SIZE, fault_of_key

READ_BACK_SIZE = 1 << 20
"""Bytes of memory with which a part is read back, whatever its size."""

_READING = {"list", "list uploads", "stat", "read", "list parts", "upload part"}
"""Calls whose object cannot exist when an element of its path is a file."""


def translate(error: OSError, op: str, key: str, store: str) -> BackupAgentError:
    """Turn an error of the operating system into one of ours."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace(f"{op} {key!r} in {store}: {reason}")
    if error.errno == errno.ENOENT or (error.errno == errno.ENOTDIR and op in _READING):
        return ObjectNotFound(reason, op=op, key=key, store=store)
    if error.errno == errno.EEXIST:
        return ObjectExists("there is one already", op=op, key=key, store=store)
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        hint = "check owner and mode of the directory, and that its file system can be written and has hard links"
        return AccessDenied(reason, op=op, key=key, store=store, hint=hint)
    if error.errno in {errno.ENOTDIR, errno.EISDIR}:
        reason += ": a file system cannot hold both an object and others below it"
    return StoreError(reason, op=op, key=key, store=store, hint="check the file system")


def walk(directory: str | Path, prefix: str, base: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Give the files below a directory that have a valid key, in byte order of the keys.

    The entries of one directory at a time are in memory. Symbolic links are left out.

    Args:
        directory: Where to look.
        prefix: Only keys that start with it; other directories are not read.
        base: Key of the directory, with its slash; empty for the root.

    Raises:
        FileNotFoundError: there is no root.
    """
    try:
        with os.scandir(directory) as entries:
            # The slash puts a directory where its keys belong: "a-b" comes before "a/b".
            named = [
                (f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name, entry) for entry in entries
            ]
    except FileNotFoundError:
        if base:  # removed since its parent was read
            return
        raise
    for name, entry in sorted(named, key=lambda pair: pair[0]):
        key = base + name
        if name.endswith("/"):
            if (key.startswith(prefix) or prefix.startswith(key)) and len(key) < MAX_KEY_SIZE:
                yield from walk(entry.path, prefix, key)
        elif key.startswith(prefix) and entry.is_file(follow_symlinks=False) and not fault_of_key(key):
            yield key, entry


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Open a file as a descriptor; a new one gets mode 0600. Symbolic links are refused."""
    # Not blocking: somebody may have put a named pipe there.
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_at(descriptor: int, view: memoryview, offset: int) -> int:
    """Read until the buffer is full or the file ends; return the number of bytes."""
    done = 0
    while done < len(view):
        size = os.preadv(descriptor, [view[done:]], offset + done)
        if not size:
            break
        done += size
    return done


def write_at(descriptor: int, view: memoryview, offset: int) -> None:
    """Write the whole buffer."""
    failpoints.hit("local.write")
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)


def append(path: Path, line: bytes) -> None:
    """Append to an existing file with one system call, so that lines of many threads do not mix.

    Raises:
        OSError: also when only a piece of the line was written.
    """
    failpoints.hit("local.write")
    with opened(path, os.O_WRONLY | os.O_APPEND) as descriptor:
        if os.write(descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def crc32_at(descriptor: int, offset: int, size: int) -> int | None:
    """Return the CRC-32 of a piece of a file, or None when the file ends too early."""
    buffer = memoryview(bytearray(min(size, READ_BACK_SIZE)))
    crc32 = 0
    for done in range(0, size, READ_BACK_SIZE):
        piece = buffer[: min(size - done, READ_BACK_SIZE)]
        if read_at(descriptor, piece, offset + done) < len(piece):
            return None
        crc32 = isal_zlib.crc32(piece, crc32)
    return crc32


def is_in_use(path: Path) -> bool:
    """Whether a running writer holds its lock on that file, or somebody else owns it, or it is gone by now."""
    try:
        with opened(path, os.O_RDONLY) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError, PermissionError):
        return True
    return False


def make_directories(directory: Path) -> None:
    """Make a directory and those above it, mode 0700, for good.

    Raises:
        NotADirectoryError: one of them is a file.
    """
    if directory.is_dir():
        return
    make_directories(directory.parent)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:  # made by another thread, or a file
        if not directory.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory)) from None
    sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(unfinished: Path, final: Path, *, if_absent: bool) -> None:
    """Give a complete file its name, in one step, for good.

    Args:
        unfinished: The file, already synced; its name is gone afterwards.
        final: The new name, in the same directory.
        if_absent: Refuse to replace: ``link`` does that atomically and ``rename`` does not.

    Raises:
        FileExistsError: there is one, and ``if_absent`` was asked for.
    """
    failpoints.hit("local.rename")
    if if_absent:
        os.link(unfinished, final, follow_symlinks=False)
        unfinished.unlink()
    else:
        unfinished.replace(final)
    sync_directory(final.parent)
