"""Inodes as the kernel wants them, with what the mount's options override."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyfuse3

if TYPE_CHECKING:
    from cozyfs.values import Inode

FOREVER_S = 365 * 24 * 3600
"""Seconds the kernel may remember what it was told: all changes go through this mount."""

FOLLOWED_S = 60.0
"""The same on a mount that follows another. It tells the kernel what to forget; but an answer
that is on its way meanwhile could still be remembered."""

BLOCK_SIZE = 128 << 10
"""st_blksize: what tools like cp read and write at once."""


@dataclass(frozen=True, slots=True)
class Presentation:
    """How inodes are shown: ``-o uid=``, ``gid=`` and ``umask=`` replace owner, group and
    permission bits of everything, as other mounts have them."""

    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    timeout_s: float = FOREVER_S

    def entry(self, inode: Inode, *, fleeting: bool = False) -> pyfuse3.EntryAttributes:
        """What the kernel may remember, unless it is *fleeting*: then it asks again each time."""
        entry = pyfuse3.EntryAttributes()
        mode = inode.mode
        if self.umask is not None and not stat.S_ISLNK(mode):
            mode = stat.S_IFMT(mode) | 0o777 & ~self.umask
        entry.st_ino = inode.ino
        entry.st_mode = mode
        entry.st_nlink = inode.nlink
        entry.st_uid = inode.uid if self.uid is None else self.uid
        entry.st_gid = inode.gid if self.gid is None else self.gid
        entry.st_rdev = inode.rdev
        entry.st_size = inode.size
        entry.st_blksize = BLOCK_SIZE
        entry.st_blocks = -(-inode.stored // 512)
        entry.st_atime_ns = inode.atime_ns
        entry.st_mtime_ns = inode.mtime_ns
        entry.st_ctime_ns = inode.ctime_ns
        entry.entry_timeout = self.timeout_s
        entry.attr_timeout = 0.0 if fleeting else self.timeout_s
        return entry

    def absent(self) -> pyfuse3.EntryAttributes:
        """A name that is not there, for the kernel to remember."""
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = 0
        entry.entry_timeout = self.timeout_s
        return entry
