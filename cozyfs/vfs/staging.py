"""The staging file of one draft: what memory had no room for, at the draft's own offsets.

Lives in the state directory so that it outlives the process. All methods block (disk) and are
called in threads, for one draft one at a time, but for :meth:`read` which may run beside others.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from typing import TYPE_CHECKING

from cozyfs.errors import NoSpace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2


@contextlib.contextmanager
def _full_disk_named() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace("the disk of the state directory is full") from exc
        raise


class StagingFile:
    """A sparse file at *path*; created empty unless *keep* (recovery) says it is there."""

    def __init__(self, path: Path, *, keep: bool = False) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CLOEXEC | (0 if keep else os.O_CREAT | os.O_TRUNC)
        with _full_disk_named():
            self.fd = os.open(path, flags, 0o600)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """All of *data* at *offset*; NoSpace when the disk is full, with nothing to undo: the
        caller has not yet said that the range is here."""
        view = memoryview(data)
        with _full_disk_named():
            while view:
                done = os.pwrite(self.fd, view, offset)
                offset += done
                view = view[done:]

    def read(self, offset: int, length: int) -> bytes:
        chunks = []
        while length:
            chunk = os.pread(self.fd, length, offset)
            if not chunk:
                raise OSError(errno.EIO, "staging file is shorter than its draft")
            chunks.append(chunk)
            offset += len(chunk)
            length -= len(chunk)
        return b"".join(chunks)

    def punch(self, offset: int, length: int) -> None:
        """Give the disk space of a range back; best effort, not every file system can."""
        _libc.fallocate(
            self.fd,
            _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE,
            ctypes.c_int64(offset),
            ctypes.c_int64(length),
        )

    def sync(self) -> None:
        with _full_disk_named():
            os.fsync(self.fd)

    def unlink(self) -> None:
        """Its name goes; whoever has it open reads on."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
