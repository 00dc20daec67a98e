"""Making and removing names: make, link, unlink, rmdir. Moving them is `cozyfs.index.renaming`.

Each method checks everything first and writes second, in one transaction.
"""

from __future__ import annotations

from stat import (
    S_IFMT,
    S_ISBLK,
    S_ISCHR,
    S_ISDIR,
    S_ISFIFO,
    S_ISLNK,
    S_ISREG,
    S_ISSOCK,
)

from cozyfs.errors import (
    Busy,
    DirectoryNotEmpty,
    InvalidRequest,
    IsADirectory,
    NotADirectory,
    NotFound,
    NotPermitted,
)
from cozyfs.index.rows import Rows, refuse_too_many_links
from cozyfs.values import ROOT_INO, TRASH_INO, Ino, Inode


class Naming(Rows):
    """Part of `Index`."""

    def make(
        self,
        parent: Ino,
        name: bytes,
        mode: int,
        *,
        uid: int,
        gid: int,
        rdev: int = 0,
        target: bytes | None = None,
        doc_id: str,
        now_ns: int,
    ) -> Inode:
        """A new inode of the type in *mode* (S_IFMT), without content; *target* for a symbolic
        link and only there. Raises AlreadyExists, NotFound (also for a removed parent),
        NotADirectory, TooManyLinks, InvalidRequest."""
        _check_kind(mode, target)
        with self._db.transaction():
            directory = self._live_directory(parent)
            self._refuse_existing(parent, name)
            is_directory = S_ISDIR(mode)
            if is_directory:
                refuse_too_many_links(directory)
            inode = Inode(
                ino=self._take_ino(),
                doc_id=doc_id,
                mode=mode,
                nlink=2 if is_directory else 1,
                uid=uid,
                gid=gid,
                rdev=rdev if S_ISCHR(mode) or S_ISBLK(mode) else 0,
                size=len(target) if target is not None else 0,
                stored=0,
                atime_ns=now_ns,
                mtime_ns=now_ns,
                ctime_ns=now_ns,
                btime_ns=now_ns,
                target=target,
                internal_id=None,
                md5=None,
                etag=None,
                extents=None,
            )
            self._insert(inode)
            self._add_entry(parent, name, inode.ino)
            self._touch(directory, now_ns, 1 if is_directory else 0)
        return inode

    def link(self, ino: Ino, parent: Ino, name: bytes, now_ns: int) -> Inode:
        """One more name for an inode; returns it after. Raises NotFound (also for a removed
        inode or parent), NotPermitted for a directory, TooManyLinks, AlreadyExists,
        NotADirectory."""
        with self._db.transaction():
            inode = self._inode(ino)
            if S_ISDIR(inode.mode):
                raise NotPermitted(f"inode {ino} is a directory: it has one name only")
            if inode.nlink == 0:
                raise NotFound(f"inode {ino} was removed")
            directory = self._live_directory(parent)
            self._refuse_existing(parent, name)
            refuse_too_many_links(inode)
            if S_ISREG(inode.mode) and self._in_trash(parent):
                self._counter.count_trash(inode.size - self._trash_bytes(inode))
            self._add_entry(parent, name, ino)
            inode = self._relink(inode, inode.nlink + 1, now_ns)
            self._touch(directory, now_ns)
        return inode

    def unlink(self, parent: Ino, name: bytes, now_ns: int, *, keep: bool) -> Inode:
        """Remove a name of anything but a directory; returns the inode after. With the last name
        its row, attributes and document go and its object is queued for deletion; *keep* leaves
        all that to :meth:`Index.drop`. Raises NotFound, NotADirectory, IsADirectory."""
        with self._db.transaction():
            inode = self._child(parent, name)
            if S_ISDIR(inode.mode):
                raise IsADirectory(f"{name!r} in directory {parent} is a directory")
            was_trash = self._trash_bytes(inode) if self._in_trash(parent) else 0
            self._remove_entry(parent, name)
            if was_trash:
                self._counter.count_trash(self._trash_bytes(inode) - was_trash)
            inode = self._release(inode, name, now_ns, keep=keep)
            self._touch(self._inode(parent), now_ns)
        return inode

    def rmdir(self, parent: Ino, name: bytes, now_ns: int, *, keep: bool) -> Inode:
        """Remove an empty directory; returns it after, with nlink 0; *keep* as for
        :meth:`unlink`. Raises NotFound, NotADirectory, DirectoryNotEmpty, Busy for the trash."""
        with self._db.transaction():
            inode = self._child(parent, name)
            if not S_ISDIR(inode.mode):
                raise NotADirectory(f"{name!r} in directory {parent} is not a directory")
            refuse_fixed(inode)
            if self._has_children(inode.ino):
                raise DirectoryNotEmpty(f"{name!r} in directory {parent} is not empty")
            self._remove_entry(parent, name)
            inode = self._release(inode, name, now_ns, keep=keep)
            self._touch(self._inode(parent), now_ns, -1)
        return inode


def refuse_fixed(inode: Inode) -> None:
    """The root and the trash stay where they are."""
    if inode.ino in (ROOT_INO, TRASH_INO):
        raise Busy(f"inode {inode.ino} is the root or the trash")


def _check_kind(mode: int, target: bytes | None) -> None:
    known = S_ISREG(mode) or S_ISDIR(mode) or S_ISLNK(mode) or S_ISFIFO(mode)
    if not (known or S_ISSOCK(mode) or S_ISCHR(mode) or S_ISBLK(mode)):
        raise InvalidRequest(f"unknown file type {S_IFMT(mode):o}")
    if S_ISLNK(mode) != (target is not None):
        raise InvalidRequest("a symbolic link, and nothing else, has a target")
