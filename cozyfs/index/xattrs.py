"""Extended attributes of the user. Which names are allowed, and how long values may be, is the
vfs's; names that it computes (`user.cozy.*`) are not stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cozyfs.errors import AlreadyExists, NoSuchAttribute
from cozyfs.index.rows import Rows

if TYPE_CHECKING:
    from cozyfs.values import Ino


class Xattrs(Rows):
    """Part of `Index`."""

    def get_xattr(self, ino: Ino, name: bytes) -> bytes:
        """Raises NoSuchAttribute, NotFound."""
        value = self._find_xattr(ino, name)
        if value is None:
            self._inode(ino)
            raise NoSuchAttribute(f"inode {ino} has no attribute {name!r}")
        return value

    def has_xattr(self, name: bytes) -> bool:
        """Whether any inode has the attribute *name*. A scan: for the start of a mount."""
        row = self._db.row("SELECT EXISTS (SELECT 1 FROM xattrs WHERE name = ?)", (name,))
        return bool(row[0])

    def list_xattrs(self, ino: Ino) -> list[bytes]:
        """Names in the order of their bytes. Raises NotFound."""
        self._inode(ino)
        rows = self._db.rows("SELECT name FROM xattrs WHERE ino = ? ORDER BY name", (ino,))
        return [name for (name,) in rows]

    def xattrs_of(self, ino: Ino) -> list[tuple[bytes, bytes]]:
        """Names and values; none for an inode that is not there."""
        return self._db.rows("SELECT name, value FROM xattrs WHERE ino = ?", (ino,))

    def set_xattr(
        self,
        ino: Ino,
        name: bytes,
        value: bytes,
        *,
        create: bool = False,
        replace: bool = False,
        now_ns: int,
    ) -> None:
        """*create*, *replace*: as XATTR_CREATE and XATTR_REPLACE of setxattr(2).
        Raises NotFound, AlreadyExists, NoSuchAttribute."""
        with self._db.transaction():
            inode = self._inode(ino)
            exists = (create or replace) and self._find_xattr(ino, name) is not None
            if create and exists:
                raise AlreadyExists(f"inode {ino} has an attribute {name!r} already")
            if replace and not exists:
                raise NoSuchAttribute(f"inode {ino} has no attribute {name!r}")
            self._db.run(
                "INSERT INTO xattrs (ino, name, value) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET value = excluded.value",
                (ino, name, value),
            )
            self._relink(inode, inode.nlink, now_ns)

    def remove_xattr(self, ino: Ino, name: bytes, now_ns: int) -> None:
        """Raises NotFound, NoSuchAttribute."""
        with self._db.transaction():
            inode = self._inode(ino)
            if self._find_xattr(ino, name) is None:
                raise NoSuchAttribute(f"inode {ino} has no attribute {name!r}")
            self._db.run("DELETE FROM xattrs WHERE ino = ? AND name = ?", (ino, name))
            self._relink(inode, inode.nlink, now_ns)

    def _find_xattr(self, ino: Ino, name: bytes) -> bytes | None:
        row = self._db.row("SELECT value FROM xattrs WHERE ino = ? AND name = ?", (ino, name))
        return None if row is None else row[0]
