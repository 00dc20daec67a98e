"""Rows put right that no request of a file system would have left so: for ``cozyfs fsck``.

What is wrong is found by `cozyfs.vfs.fsck_index`, on a connection of its own; so each method
looks again at the rows as they are now, and does nothing where nothing is wrong any more.
"""

from __future__ import annotations

from stat import S_IFDIR, S_ISDIR
from typing import TYPE_CHECKING

from cozyfs.errors import InvalidRequest, NotFound
from cozyfs.index.rows import Rows
from cozyfs.values import (
    ROOT_DOC_ID,
    ROOT_INO,
    TRASH_DOC_ID,
    TRASH_INO,
    TRASH_NAME,
    Ino,
    Inode,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_OWNED = frozenset({"xattrs", "documents", "trash"})
"""Tables whose rows belong to an inode."""


class Mending(Rows):
    """Part of `Index`."""

    def put_back_first(self, uid: int, gid: int, now_ns: int) -> list[tuple[Ino, bytes]]:
        """The root and its trash, with what of them is missing; returns the entries made."""
        made: list[tuple[Ino, bytes]] = []
        with self._db.transaction():
            for inode in first_inodes(uid, gid, now_ns):
                if self._find(inode.ino) is None:
                    self._insert(inode)
            if self._find_child(ROOT_INO, TRASH_NAME) is None:
                for parent, name in self._names(TRASH_INO):
                    self._remove_entry(parent, name)
                self._add_entry(ROOT_INO, TRASH_NAME, TRASH_INO)
                made.append((ROOT_INO, TRASH_NAME))
            self._recount(ROOT_INO)
            self._recount(TRASH_INO)
            self._count_trash_anew()
        return made

    def adopt(
        self, ino: Ino, parent: Ino, name: bytes, leave: Iterable[tuple[Ino, bytes]]
    ) -> None:
        """Give an inode that cannot be reached the name *name* in *parent*, and take away its
        entries *leave*, which lead there from nowhere. Raises NotFound, NotADirectory,
        AlreadyExists."""
        with self._db.transaction():
            self._live_directory(parent)
            self._inode(ino)
            self._refuse_existing(parent, name)
            touched = {parent, ino}
            for other, entry in leave:
                self._remove_entry(other, entry)
                touched.add(other)
            self._add_entry(parent, name, ino)
            for each in touched:
                if self._find(each) is not None:
                    self._recount(each)
            self._count_trash_anew()

    def recount_links(self, ino: Ino) -> int:
        """Make the link count what the entries say; returns it. Raises NotFound."""
        with self._db.transaction():
            return self._recount(ino)

    def remove_dangling(self, parent: Ino, name: bytes) -> None:
        """Take away a name that leads to no inode. Raises InvalidRequest when it leads to one."""
        with self._db.transaction():
            row = self._db.row(
                "SELECT ino FROM entries WHERE parent = ? AND name = ?", (parent, name)
            )
            if row is None:
                return
            if self._find(row[0]) is not None:
                raise InvalidRequest("the name leads to an inode")
            self._remove_entry(parent, name)
            if self._find(parent) is not None:
                self._recount(parent)

    def remove_name(self, parent: Ino, name: bytes) -> None:
        """Of an inode that has others. Raises NotFound, InvalidRequest for its last one."""
        with self._db.transaction():
            inode = self._child(parent, name)
            if len(self._names(inode.ino)) < 2:
                raise InvalidRequest("it is the only name")
            self._remove_entry(parent, name)
            for each in (parent, inode.ino):
                if self._find(each) is not None:
                    self._recount(each)
            self._count_trash_anew()

    def remove_stray(self, table: str, ino: Ino) -> None:
        """Rows of *table* that belong to an inode which is not there; such a number is never
        given out again. Raises InvalidRequest when it is there."""
        if table not in _OWNED:
            raise ValueError(table)
        with self._db.transaction():
            if self._find(ino) is not None:
                raise InvalidRequest(f"inode {ino} is there")
            self._db.run(f"DELETE FROM {table} WHERE ino = ?", (ino,))

    def raise_ino_limit(self) -> None:
        """No number that an inode has will be given out again."""
        with self._db.transaction():
            (highest,) = self._db.row("SELECT max(ino) FROM inodes")
            (limit,) = self._db.row("SELECT max(value) FROM facts WHERE name = 'ino_limit'")
            if limit is None or limit <= highest:
                self._db.run(
                    "INSERT INTO facts (name, value) VALUES ('ino_limit', ?)"
                    " ON CONFLICT DO UPDATE SET value = excluded.value",
                    (highest + 1,),
                )
                self._next_ino = self._ino_limit = 0

    # ---- inside

    def _names(self, ino: Ino) -> list[tuple[Ino, bytes]]:
        return self._db.rows(
            "SELECT parent, name FROM entries WHERE ino = ? ORDER BY parent, name", (ino,)
        )

    def _recount(self, ino: Ino) -> int:
        inode = self._find(ino)
        if inode is None:
            raise NotFound(f"there is no inode {ino}")
        if S_ISDIR(inode.mode):
            (count,) = self._db.row(
                "SELECT 2 + count(*) FROM entries e JOIN inodes i ON i.ino = e.ino"
                " WHERE e.parent = ? AND i.mode & 0xF000 = 0x4000",
                (ino,),
            )
            if ino != ROOT_INO and not self._names(ino):
                count = 0
        else:
            count = len(self._names(ino))
        if count != inode.nlink:
            self._write_links(inode._replace(nlink=count))
        return int(count)


def first_inodes(uid: int, gid: int, now_ns: int) -> list[Inode]:
    """The root and its trash, of a new index."""
    root = Inode(
        ino=ROOT_INO,
        doc_id=ROOT_DOC_ID,
        mode=S_IFDIR | 0o755,
        nlink=3,  # ".", ".." and the trash's ".."
        uid=uid,
        gid=gid,
        rdev=0,
        size=0,
        stored=0,
        atime_ns=now_ns,
        mtime_ns=now_ns,
        ctime_ns=now_ns,
        btime_ns=now_ns,
        target=None,
        internal_id=None,
        md5=None,
        etag=None,
        extents=None,
    )
    return [root, root._replace(ino=Ino(TRASH_INO), doc_id=TRASH_DOC_ID, nlink=2)]
