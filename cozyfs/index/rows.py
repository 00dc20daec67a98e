"""The rows of a tree, and what is kept in memory beside them: cache, usage, inode numbers.

Every change of an inode or an entry goes through a method of `Rows`: SQLite first, then cache and
counters. The rules of a file system (who may be linked where, what a removal means) are one floor
up, in the modules that `cozyfs.index.tree` joins.
"""

from __future__ import annotations

import re
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING

from cozyfs.errors import AlreadyExists, NotADirectory, NotFound, TooManyLinks
from cozyfs.index.cache import Cache
from cozyfs.index.usage import SCAN_INODES, UsageCounter
from cozyfs.values import ROOT_INO, TRASH_INO, Ino, Inode

if TYPE_CHECKING:
    from cozyfs.index.database import Database

MAX_LINKS = 2**31 - 1
"""What a signed 32-bit st_nlink of older programs can show."""

INO_BLOCK = 1_000
"""Inode numbers reserved at a time: 2**63 of them last for any number of mounts."""

NO_OBJECT = "-"
"""As the internal id of what waits for deletion: no object, only what lies beside the document."""

NOTE_IMAGES = "-images"
"""The same for a document that was a note: its images too."""

MARKERS = (NO_OBJECT, NOTE_IMAGES)

# The trash appends a number where a name is taken.
_NOTE = re.compile(rb".*\.cozy-note(?: \(\d{9}\))?", re.DOTALL)

_DIRECTORIES_KNOWN = 100_000
"""Directories of which it is remembered whether they are in the trash."""

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
                      internal_id = ?, md5 = ?, etag = ?, extents = ?, object_doc_id = ?
    WHERE ino = ?
"""
_IS_HELD = """
    SELECT 1 FROM inodes WHERE doc_id = ?1 AND internal_id = ?2 AND object_doc_id IS NULL
    UNION ALL SELECT 1 FROM inodes WHERE object_doc_id = ?1 AND internal_id = ?2
    UNION ALL
    SELECT 1 FROM versions WHERE doc_id = ?1 AND internal_id = ?2 AND object_doc_id IS NULL
    UNION ALL SELECT 1 FROM versions WHERE object_doc_id = ?1 AND internal_id = ?2
    LIMIT 1
"""
_PARENT = "SELECT parent FROM entries WHERE ino = ?"
_UPDATE_LINKS = "UPDATE inodes SET nlink = ?, mtime_ns = ?, ctime_ns = ? WHERE ino = ?"
INSERT_ENTRY = "INSERT INTO entries (parent, name, ino) VALUES (?, ?, ?)"


class Rows:
    """The base of `cozyfs.index.tree.Index`."""

    def __init__(self, database: Database, *, cache_size: int) -> None:
        self._db = database
        # Another process may change the file under a reader: it remembers nothing.
        self._cache = Cache(0 if database.read_only else cache_size)
        self._counter = UsageCounter(database.row(SCAN_INODES))
        self._below_trash: dict[Ino, bool] = {}
        self._next_ino = self._ino_limit = 0
        database.participant = self

    # ---- transactions, as the database reports them

    def transaction_began(self) -> None:
        self._counter.mark()

    def transaction_undone(self) -> None:
        self._cache.clear()
        self._below_trash.clear()
        self._counter.back_to_mark()
        # The block may have been reserved by the transaction that is gone.
        self._next_ino = self._ino_limit = 0

    def _reload(self) -> None:
        """Forget what is in memory: rows were changed behind it."""
        self._counter = UsageCounter(self._db.row(SCAN_INODES))
        self._cache.clear()
        self._below_trash.clear()
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

    def _in_trash(self, directory: Ino) -> bool:
        """Whether it is the trash or below."""
        passed: list[Ino] = []
        ino = directory
        while (known := self._below_trash.get(ino)) is None:
            if ino in (ROOT_INO, TRASH_INO) or ino in passed:
                known = ino == TRASH_INO
                break
            passed.append(ino)
            row = self._db.row(_PARENT, (ino,))
            if row is None:
                known = False
                break
            ino = row[0]
        if len(self._below_trash) > _DIRECTORIES_KNOWN:
            self._below_trash.clear()
        self._below_trash.update(dict.fromkeys(passed, known))
        return known

    def _is_trashed(self, ino: Ino) -> bool:
        """Whether any name of it is below the trash."""
        return any(self._in_trash(parent) for (parent,) in self._db.rows(_PARENT, (ino,)))

    def _trash_bytes(self, *inodes: Inode | None) -> int:
        """How much of them counts as trash."""
        return sum(
            inode.size
            for inode in inodes
            if inode is not None and S_ISREG(inode.mode) and self._is_trashed(inode.ino)
        )

    def _count_trash_anew(self) -> None:
        """A directory came or went with what is in it: the next who asks counts."""
        self._below_trash.clear()
        self._counter.trash = None

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
                new.object_doc_id,
                new.ino,
            ),
        )
        self._cache.keep(new)
        self._counter.count(old, new)
        if new.size != old.size and self._is_trashed(new.ino):
            self._counter.count_trash(new.size - old.size)

    def _rename_document(
        self, old: Inode, *, doc_id: str, object_doc_id: str | None, btime_ns: int
    ) -> None:
        """The inode is another document from now on."""
        self._db.run(
            "UPDATE inodes SET doc_id = ?, object_doc_id = ?, btime_ns = ? WHERE ino = ?",
            (doc_id, object_doc_id, btime_ns, old.ino),
        )
        new = old._replace(doc_id=doc_id, object_doc_id=object_doc_id, btime_ns=btime_ns)
        self._cache.keep(new)

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
        """The row and all that hangs on it; its objects wait for deletion from now on, unless
        another inode is the same document."""
        for table in ("inodes", "xattrs", "documents", "trash"):
            self._db.run(f"DELETE FROM {table} WHERE ino = ?", (inode.ino,))
        if inode.internal_id is not None:
            self._let_go(inode.content_doc_id, inode.internal_id, now_ns)
        if S_ISREG(inode.mode) and not self._is_document(inode.doc_id):
            for (internal_id,) in self._db.rows(
                "SELECT internal_id FROM versions WHERE doc_id = ?", (inode.doc_id,)
            ):
                self._remove_version(inode.doc_id, internal_id, now_ns)
            if inode.size and (inode.internal_id is None or inode.object_doc_id is not None):
                # No object of its own would tell those who remove what lies beside documents.
                self._queue(inode.doc_id, NO_OBJECT, now_ns)
        self._cache.forget(inode.ino)
        self._counter.count(inode, None)

    def _remove_version(self, doc_id: str, internal_id: str, now_ns: int) -> None:
        size, object_doc_id = self._db.row(
            "SELECT size, object_doc_id FROM versions WHERE doc_id = ? AND internal_id = ?",
            (doc_id, internal_id),
        )
        self._db.run(
            "DELETE FROM versions WHERE doc_id = ? AND internal_id = ?", (doc_id, internal_id)
        )
        self._counter.count_version(-1, -size)
        self._let_go(object_doc_id or doc_id, internal_id, now_ns)

    def _let_go(self, doc_id: str, internal_id: str, now_ns: int) -> None:
        """One user of an object less (its row is written already): without any, it waits for
        deletion."""
        if not self._is_held(doc_id, internal_id):
            self._queue(doc_id, internal_id, now_ns)

    def _let_go_images(self, note: Inode, now_ns: int) -> None:
        """Of a note without names, unless another file goes on as its document."""
        heir = "SELECT 1 FROM inodes WHERE doc_id = ? AND nlink > 0 AND ino != ?"
        if self._db.row(heir, (note.doc_id, note.ino)) is None:
            self._queue(note.doc_id, NOTE_IMAGES, now_ns)

    def _is_held(self, doc_id: str, internal_id: str) -> bool:
        return self._db.row(_IS_HELD, (doc_id, internal_id)) is not None

    def _is_document(self, doc_id: str) -> bool:
        return self._db.row("SELECT 1 FROM inodes WHERE doc_id = ?", (doc_id,)) is not None

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

    def _release(self, inode: Inode, name: bytes, now_ns: int, *, keep: bool) -> Inode:
        """One entry less, called *name*, points at *inode*. At the last one its row goes too,
        unless *keep*. Returns it as it is after."""
        nlink = 0 if S_ISDIR(inode.mode) else inode.nlink - 1
        if nlink <= 0 and S_ISREG(inode.mode) and is_note(name):
            # Now, also with *keep*: later nobody knows what it was called.
            self._let_go_images(inode, now_ns)
        if nlink > 0 or keep:
            return self._relink(inode, nlink, now_ns)
        self._delete(inode, now_ns)
        return inode._replace(nlink=0, ctime_ns=now_ns)


def is_note(name: bytes) -> bool:
    """Whether a regular file called *name* is a note of a Cozy, also in the trash."""
    return _NOTE.fullmatch(name) is not None


def refuse_too_many_links(inode: Inode) -> None:
    """*inode* is about to get one link more."""
    if inode.nlink >= MAX_LINKS:
        raise TooManyLinks(f"inode {inode.ino} has {inode.nlink} links")
