"""Inodes that somebody uses right now: open handles, the draft they share, the lock over it.

A node exists while a handle is open or its draft is not yet in the store.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from cozyfs.vfs.quota import Refused
from cozyfs.vfs.readahead import ReadAhead, SequentialHash

if TYPE_CHECKING:
    from cozyfs.values import Fh, Ino, Inode
    from cozyfs.vfs.draft import Draft


class Node:
    """One inode in use. ``draft`` is None while its content is that of the index."""

    __slots__ = (
        "before",
        "draft",
        "failures",
        "handles",
        "ino",
        "is_new",
        "lock",
        "pinned",
        "refused",
        "replaced",
        "writers",
    )

    def __init__(self, ino: Ino) -> None:
        self.ino = ino
        self.handles = 0
        self.writers = 0
        self.draft: Draft | None = None
        self.failures = 0
        """Uploads of the draft that failed in a row; more than 0 means it is kept and retried."""
        self.replaced = False
        """What was there before the first change of those who have it open for writing is gone,
        and a version if the rules wanted it. What they have stored since, by fsync, nobody ever
        took for the file's content: it is let go without further ado."""
        self.is_new = False
        """Made by the handle that is open: no content of it was ever stored, but an empty one."""
        self.before: Inode | None = None
        """Since a close(2) stored that the file is empty: what it had, and gets back where it is
        not written as it was meant to be."""
        self.refused = Refused()
        """Writes that the quota did not allow: what the draft has is not what was meant."""
        self.lock = trio.Lock()
        self.pinned: list[Inode] = []
        """On a mount that follows another: what each open handle goes on reading."""


class Handle:
    """One open file."""

    __slots__ = (
        "ahead",
        "append",
        "checked",
        "content",
        "fh",
        "hashing",
        "node",
        "pinned",
        "readable",
        "uid",
        "writable",
        "wrote",
    )

    def __init__(self, fh: Fh, node: Node, flags: int, uid: int) -> None:
        access = flags & os.O_ACCMODE
        self.fh = fh
        self.node = node
        self.writable = access != os.O_RDONLY
        self.uid = uid
        """Who opened it: decides whether its writes clear set-id bits."""
        self.ahead = ReadAhead()
        self.checked: SequentialHash | None = SequentialHash()
        """None once the content read through this handle was verified or cannot be."""
        self.content: str | None = None
        """Internal id of what ``checked`` is fed with."""
        self.hashing = trio.Lock()
        """Held while a thread feeds the hash: requests of one handle run side by side."""
        self.wrote = False
        self.pinned: Inode | None = None
        """The content to read, whatever becomes of the inode; None: what is there."""
