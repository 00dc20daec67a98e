"""The rows of a tree, and what is kept in memory beside them: cache, usage, inode numbers.

Every change of an inode or an entry goes through a method of `Rows`: SQLite first, then cache and
counters. The rules of a file system (who may be linked where, what a removal means) are one floor
up, in the modules that `cozyfs.index.tree` joins.
"""

from __future__ import annotations

from stat import S_ISDIR
from typing import TYPE_CHECKING

from cozyfs.errors import AlreadyExists, NotADirectory, NotFound, TooManyLinks
from cozyfs.index.cache import Cache
from cozyfs.index.usage import SCAN, UsageCounter
from cozyfs.values import Ino, Inode

if TYPE_CHECKING:
    from cozyfs.index.database import Database

MAX_LINKS = 2**31 - 1
"""What a signed 32-bit st_nlink of older programs can show."""

INO_BLOCK = 1_000
"""Inode numbers reserved at a time: 2**63 of them last for any number of mounts."""

COLUMNS = ", ".join(Inode._fields)
INODE_COLUMNS = ", ".join(f"i.{field}" for field in Inode._fields)

_SELECT = f"SELECT {COLUMNS} FROM inodes WHERE ino = ?"
_SELECT_CHILD = f"""
    SELECT {INODE_COLUMNS} FROM entries e JOIN inodes i ON i.ino = e.ino
    WHERE e.parent = ? AND e.name = ?
"""
INSERT_INODE = f"INSERT INTO inodes ({COLUMNS}) VALUES ({', '.join('?' * len(Inode._fields))})"
_UPDATE = """
    UPDATE inodes SET mode = ?, uid = ?, gid = ?, size = ?, stored = ?,
                      atime_ns = ?, mtime_ns = ?, ctime_ns = ?,
                      internal_id = ?, md5 = ?, etag = ?, extents = ?
    WHERE ino = ?
"""
_UPDATE_LINKS = "UPDATE inodes SET nlink = ?, mtime_ns = ?, ctime_ns = ? WHERE ino = ?"
INSERT_ENTRY = "INSERT INTO entries (parent, name, ino) VALUES (?, ?, ?)"


class Rows:
    """The base of `cozyfs.index.tree.Index`."""

    def __init__(self, database: Database, *, cache_size: int) -> None:
        self._db = database
        # Another process may change the file under a reader: it remembers nothing.
        self._cache = Cache(0 if database.read_only else cache_size)
        self._counter = UsageCounter(database.row(SCAN))
        self._next_ino = self._ino_limit = 0
        database.participant = self

    # ---- transactions, as the database reports them

    def transaction_began(self) -> None:
        self._counter.mark()

    def transaction_undone(self) -> None:
        self._cache.clear()
        self._counter.back_to_mark()
        # The block may have been reserved by the transaction that is gone.
        self._next_ino = self._ino_limit = 0

    def _reload(self) -> None:
        """Forget what is in memory: rows were changed behind it."""
        self._counter = UsageCounter(self._db.row(SCAN))
        self._cache.clear()
        self._next_ino = self._ino_limit = 0

    # ---- finding

    def _find(self, ino: Ino) -> Inode | None:
        inode = self._cache.inode(ino)
        if inode is None:
            row = self._db.row(_SELECT, (ino,))
            if row is None:
                return None
            inode = Inode._make(row)
            self._cache.keep(inode)
        return inode

    def _find_child(self, parent: Ino, name: bytes) -> Inode | None:
        ino = self._cache.child(parent, name)
        if ino is not None:
            return self._find(ino)
        if self._cache.is_complete(parent):
            return None
        row = self._db.row(_SELECT_CHILD, (parent, name))
        if row is None:
            return None
        inode = Inode._make(row)
        self._cache.keep(inode)
        return inode

    def _inode(self, ino: Ino) -> Inode:
        inode = self._find(ino)
        if inode is None:
            raise NotFound(f"there is no inode {ino}")
        return inode

    def _directory(self, ino: Ino) -> Inode:
        inode = self._inode(ino)
        if not S_ISDIR(inode.mode):
            raise NotADirectory(f"inode {ino} is not a directory")
        return inode

    def _live_directory(self, ino: Ino) -> Inode:
        """One that can take new entries: a removed one cannot, even while it is open."""
        inode = self._directory(ino)
        if inode.nlink == 0:
            raise NotFound(f"directory {ino} was removed")
        return inode

    def _child(self, parent: Ino, name: bytes) -> Inode:
        """Raises NotFound for the parent or the name, NotADirectory."""
        inode = self._find_child(parent, name)
        if inode is None:
            self._directory(parent)
            raise NotFound(f"there is no {name!r} in directory {parent}")
        return inode

    def _refuse_existing(self, parent: Ino, name: bytes) -> None:
        if self._find_child(parent, name) is not None:
            raise AlreadyExists(f"there is a {name!r} in directory {parent} already")

    def _has_children(self, ino: Ino) -> bool:
        return self._db.row("SELECT 1 FROM entries WHERE parent = ? LIMIT 1", (ino,)) is not None

    # ---- writing; only inside a transaction

    def _take_ino(self) -> Ino:
        """A number that no inode ever had, in this or any earlier life of the index."""
        if self._next_ino == self._ino_limit:
            (start,) = self._db.row("SELECT value FROM facts WHERE name = 'ino_limit'")
            limit = start + INO_BLOCK
            self._db.run("UPDATE facts SET value = ? WHERE name = 'ino_limit'", (limit,))
            self._next_ino, self._ino_limit = start, limit
        ino = self._next_ino
        self._next_ino += 1
        return Ino(ino)

    def skip_numbers(self, count: int) -> None:
        """Never give the next *count* inode numbers: changes that are lost may have them."""
        with self._db.transaction():
            self._db.run("UPDATE facts SET value = value + ? WHERE name = 'ino_limit'", (count,))
            self._next_ino = self._ino_limit = 0

    def _insert(self, inode: Inode) -> None:
        self._db.run(INSERT_INODE, inode)
        self._cache.keep(inode)
        if S_ISDIR(inode.mode):
            self._cache.keep_new_directory(inode.ino)
        self._counter.count(None, inode)

    def _update(self, old: Inode, new: Inode) -> None:
        """Everything that can change but nlink."""
        self._db.run(
            _UPDATE,
            (
                new.mode,
                new.uid,
                new.gid,
                new.size,
                new.stored,
                new.atime_ns,
                new.mtime_ns,
                new.ctime_ns,
                new.internal_id,
                new.md5,
                new.etag,
                new.extents,
                new.ino,
            ),
        )
        self._cache.keep(new)
        self._counter.count(old, new)

    def _relink(self, inode: Inode, nlink: int, now_ns: int) -> Inode:
        """Another link count, or only another ctime."""
        return self._write_links(inode._replace(nlink=nlink, ctime_ns=now_ns))

    def _touch(self, directory: Inode, now_ns: int, subdirectories: int = 0) -> None:
        """Its entries changed; *subdirectories* more of them are directories now."""
        nlink = directory.nlink + subdirectories
        self._write_links(directory._replace(nlink=nlink, mtime_ns=now_ns, ctime_ns=now_ns))

    def _write_links(self, inode: Inode) -> Inode:
        self._db.run(_UPDATE_LINKS, (inode.nlink, inode.mtime_ns, inode.ctime_ns, inode.ino))
        self._cache.keep(inode)
        return inode

    def _delete(self, inode: Inode, now_ns: int) -> None:
        """The row and all that hangs on it; its object waits for deletion from now on."""
        self._db.run("DELETE FROM inodes WHERE ino = ?", (inode.ino,))
        self._db.run("DELETE FROM xattrs WHERE ino = ?", (inode.ino,))
        self._db.run("DELETE FROM documents WHERE ino = ?", (inode.ino,))
        if inode.internal_id is not None:
            self._queue(inode.doc_id, inode.internal_id, now_ns)
        self._cache.forget(inode.ino)
        self._counter.count(inode, None)

    def _queue(self, doc_id: str, internal_id: str, now_ns: int) -> None:
        # Queued again (it was a version in between): the retention starts anew.
        self._db.run(
            "INSERT INTO deletions (doc_id, internal_id, queued_ns) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET queued_ns = max(queued_ns, excluded.queued_ns)",
            (doc_id, internal_id, now_ns),
        )

    def _add_entry(self, parent: Ino, name: bytes, ino: Ino) -> None:
        self._db.run(INSERT_ENTRY, (parent, name, ino))
        self._cache.entry_added(parent, name, ino)

    def _repoint_entry(self, parent: Ino, name: bytes, ino: Ino) -> None:
        self._db.run(
            "UPDATE entries SET ino = ? WHERE parent = ? AND name = ?", (ino, parent, name)
        )
        self._cache.entry_added(parent, name, ino)

    def _remove_entry(self, parent: Ino, name: bytes) -> None:
        self._db.run("DELETE FROM entries WHERE parent = ? AND name = ?", (parent, name))
        self._cache.entry_removed(parent, name)

    def _release(self, inode: Inode, now_ns: int, *, keep: bool) -> Inode:
        """One entry less points at *inode*. At the last one its row goes too, unless *keep*.
        Returns it as it is after."""
        nlink = 0 if S_ISDIR(inode.mode) else inode.nlink - 1
        if nlink > 0 or keep:
            return self._relink(inode, nlink, now_ns)
        self._delete(inode, now_ns)
        return inode._replace(nlink=0, ctime_ns=now_ns)


def refuse_too_many_links(inode: Inode) -> None:
    """*inode* is about to get one link more."""
    if inode.nlink >= MAX_LINKS:
        raise TooManyLinks(f"inode {inode.ino} has {inode.nlink} links")
