"""What the local store does with single files: durable writes, copies, locks, errors.

All blocking; no state. *durable* decides whether files and folders are synced to the disk
before a call returns.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cozyfs.durable import sync
from cozyfs.errors import AccessDenied, ObjectNotFound, StoreError, StoreFull

if TYPE_CHECKING:
    from collections.abc import Iterator

_COPY_STEP = 64 << 20
_NO_COPY_RANGE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


@contextmanager
def translated() -> Iterator[None]:
    """OSError becomes a StoreError whose message has no path: keys stay out of messages."""
    try:
        yield
    except FileNotFoundError as exc:
        raise ObjectNotFound("the object is not in the storage") from exc
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("the disk of the local storage is full") from exc
        if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise AccessDenied(f"the local storage refused: {exc.strerror}") from exc
        if exc.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
            raise StoreError(
                "a key of the local storage cannot be both an object and the start of others"
            ) from exc
        raise StoreError(f"the local storage failed: {exc.strerror}") from exc


def write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def copy_range(source: int, start: int, size: int, target: int) -> int:
    """Bytes of one descriptor to the current place of another, in the kernel where it can (on
    btrfs and XFS without moving any); returns how many, fewer only at the source's end."""
    done = 0
    in_kernel = True
    while done < size:
        step = min(size - done, _COPY_STEP)
        moved = 0
        if in_kernel:
            try:
                moved = os.copy_file_range(source, target, step, offset_src=start + done)
            except OSError as exc:
                if exc.errno not in _NO_COPY_RANGE:
                    raise
                in_kernel = False
        if not moved:  # the end, or a file system that copies nothing and says so as 0
            data = os.pread(source, min(step, 1 << 20), start + done)
            if not data:
                break
            write_all(target, data)
            moved = len(data)
        done += moved
    return done


@contextmanager
def opened(path: bytes) -> Iterator[int]:
    """A descriptor to read a regular file; whatever else is there counts as nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (NotADirectoryError, IsADirectoryError) as exc:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from exc
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        yield fd
    finally:
        os.close(fd)


def read_range(fd: int, start: int, stop: int) -> bytes:
    """The bytes of ``[start, stop)``, fewer only at the file's end."""
    data = os.pread(fd, max(0, stop - start), start)
    while len(data) < stop - start:  # Linux reads at most 2 GiB at once
        more = os.pread(fd, stop - start - len(data), start + len(data))
        if not more:
            break
        data += more
    return data


def md5_of_file(fd: int) -> bytes:
    digest = hashlib.md5(usedforsecurity=False)
    at = 0
    while data := os.pread(fd, 1 << 20, at):
        digest.update(data)
        at += len(data)
    return digest.digest()


@contextmanager
def locked(path: bytes, *, shared: bool = False) -> Iterator[None]:
    """Holds the lock file *path*, which stays; excludes other threads and processes alike,
    since each holder has a descriptor of its own."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def sync_folder(path: bytes) -> None:
    """A folder that is gone again has nothing to keep."""
    with suppress(FileNotFoundError):
        sync(path)


def move_into_place(temporary: bytes, path: bytes) -> set[bytes]:
    """Renames over *path*, making its folders; returns the folders to sync. Another process may
    remove a folder that has become empty just then, so this is tried again."""
    while True:
        made = _make_folders(os.path.dirname(path))
        try:
            os.replace(temporary, path)
        except FileNotFoundError:
            if not os.path.exists(temporary):
                raise
        else:
            return {os.path.dirname(path), *(os.path.dirname(new) for new in made)}


def _make_folders(path: bytes) -> list[bytes]:
    """The folders that were missing, innermost first."""
    try:
        os.mkdir(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        return []
    except FileNotFoundError:
        above = _make_folders(os.path.dirname(path))
        return [*_make_folders(path), *above]
    return [path]


def remove_with_empty_folders(path: bytes, stop: bytes) -> None:
    """Unlinks *path* if it is there, then its folders as far as they are empty, below *stop*."""
    with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        os.unlink(path)
    folder = os.path.dirname(path)
    while len(folder) > len(stop):
        try:
            os.rmdir(folder)
        except OSError:
            return
        folder = os.path.dirname(folder)
