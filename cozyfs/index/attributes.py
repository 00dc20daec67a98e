"""What an inode says of itself: setattr, a new content, and its end."""

from __future__ import annotations

from stat import S_IFMT, S_IMODE, S_ISREG
from typing import TYPE_CHECKING

from cozyfs.errors import InvalidRequest
from cozyfs.index.rows import Rows

if TYPE_CHECKING:
    from cozyfs.values import AttributeChanges, Content, Ino, Inode


class Attributes(Rows):
    """Part of `Index`."""

    def set_attributes(self, ino: Ino, changes: AttributeChanges, now_ns: int) -> Inode:
        """Returns the inode after; its ctime is *now_ns*. Raises NotFound."""
        with self._db.transaction():
            old = self._inode(ino)
            new = old._replace(
                mode=old.mode
                if changes.mode is None
                else S_IFMT(old.mode) | S_IMODE(changes.mode),
                uid=old.uid if changes.uid is None else changes.uid,
                gid=old.gid if changes.gid is None else changes.gid,
                atime_ns=old.atime_ns if changes.atime_ns is None else changes.atime_ns,
                mtime_ns=old.mtime_ns if changes.mtime_ns is None else changes.mtime_ns,
                ctime_ns=now_ns,
            )
            self._update(old, new)
        return new

    def set_birth(self, ino: Ino, btime_ns: int) -> None:
        """It was created then: for a tree that comes from elsewhere. Raises NotFound."""
        with self._db.transaction():
            old = self._inode(ino)
            self._rename_document(
                old, doc_id=old.doc_id, object_doc_id=old.object_doc_id, btime_ns=btime_ns
            )

    def set_content(
        self, ino: Ino, content: Content, *, mtime_ns: int, ctime_ns: int, now_ns: int
    ) -> Inode:
        """Point a regular file at *content*, which is in the store already; the former object is
        queued for deletion at *now_ns*, unless it is a version now. Also for a removed inode
        that is kept. Returns the inode after. Raises NotFound, InvalidRequest for anything but a
        regular file."""
        with self._db.transaction():
            old = self._inode(ino)
            if not S_ISREG(old.mode):
                raise InvalidRequest(f"inode {ino} is not a regular file: it has no content")
            new = old._replace(
                size=content.size,
                stored=content.stored,
                internal_id=content.internal_id,
                md5=content.md5,
                etag=content.etag,
                extents=content.extents,
                object_doc_id=None if content.doc_id == old.doc_id else content.doc_id,
                mtime_ns=mtime_ns,
                ctime_ns=ctime_ns,
            )
            self._update(old, new)
            if old.internal_id is not None and old.internal_id != new.internal_id:
                self._let_go(old.content_doc_id, old.internal_id, now_ns)
        return new

    def drop(self, ino: Ino, now_ns: int) -> None:
        """The end of a removed inode that was kept: row, attributes and document go, its object
        is queued for deletion. Raises NotFound, InvalidRequest while it has a name."""
        with self._db.transaction():
            inode = self._inode(ino)
            if inode.nlink > 0:
                raise InvalidRequest(f"inode {ino} still has {inode.nlink} links")
            self._delete(inode, now_ns)
