"""Questions about the tree that change nothing: by number, by name, by path, page by page."""

from __future__ import annotations

import json
from stat import S_ISDIR
from typing import TYPE_CHECKING

from cozyfs.errors import NotADirectory, NotFound
from cozyfs.index.rows import COLUMNS, INODE_COLUMNS, Rows
from cozyfs.values import ROOT_INO, Ino, Inode

if TYPE_CHECKING:
    from collections.abc import Iterable

_SELECT_PAGE = f"""
    SELECT {INODE_COLUMNS}, e.name FROM entries e JOIN inodes i ON i.ino = e.ino
    WHERE e.parent = ? AND e.name > ? ORDER BY e.name LIMIT ?
"""
# Not in order of names: of several links to a file any one may tell its path, but always the same.
_SELECT_NAME = "SELECT parent, name FROM entries WHERE ino = ? ORDER BY parent, name LIMIT 1"


class Reading(Rows):
    """Part of `Index`."""

    def get(self, ino: Ino) -> Inode:
        """Raises NotFound. A removed inode is found as long as it is kept (nlink 0)."""
        return self._inode(ino)

    def lookup(self, parent: Ino, name: bytes) -> Inode:
        """Raises NotFound for the parent or the name, NotADirectory."""
        return self._child(parent, name)

    def has(self, parent: Ino, name: bytes) -> bool:
        """Whether a directory, which need not be there, has an entry. Raises NotADirectory."""
        try:
            self._child(parent, name)
        except NotFound:
            return False
        return True

    def children(self, parent: Ino, after: bytes, limit: int) -> list[tuple[bytes, Inode]]:
        """The next *limit* (at least 1) entries in the order of their names' bytes, after the
        name *after*, which need not exist; from the start when it is empty. Fewer than *limit*:
        that was the end. Raises NotFound, NotADirectory."""
        self._directory(parent)
        page = self._cache.children(parent, after, limit)
        if page is None:
            rows = self._db.rows(_SELECT_PAGE, (parent, after, limit))
            page = [(row[-1], Inode._make(row[:-1])) for row in rows]
            self._cache.keep_page(parent, after, limit, page)
        return page

    def has_children(self, ino: Ino) -> bool:
        """Raises NotFound, NotADirectory."""
        self._directory(ino)
        return self._has_children(ino)

    def entries_of(self, ino: Ino) -> list[tuple[Ino, bytes]]:
        """Every (parent, name) of an inode; none for the root and for a removed one.
        Raises NotFound."""
        self._inode(ino)
        return self._db.rows(
            "SELECT parent, name FROM entries WHERE ino = ? ORDER BY parent, name", (ino,)
        )

    def parent_of(self, directory: Ino) -> Ino:
        """What ``..`` is; the root is its own. Raises NotFound (also for a removed directory),
        NotADirectory."""
        self._live_directory(directory)
        return ROOT_INO if directory == ROOT_INO else self._name_of(directory)[0]

    def path_of(self, ino: Ino) -> bytes:
        """From the root, as ``/a/b``; through the first of several links.
        Raises NotFound, also for a removed inode."""
        self._inode(ino)
        names: list[bytes] = []
        passed = {ino}
        while ino != ROOT_INO:
            ino, name = self._name_of(ino)
            names.append(name)
            if ino in passed:
                raise NotFound(f"inode {ino} lies below itself: the index needs a check")
            passed.add(ino)
        return b"/" + b"/".join(reversed(names))

    def resolve(self, path: bytes) -> Inode:
        """What *path*, from the root, names. Empty parts are skipped; symbolic links, ``.`` and
        ``..`` have no meaning here. Raises NotFound, NotADirectory."""
        inode = self._inode(ROOT_INO)
        for name in path.split(b"/"):
            if name:
                inode = self._child(inode.ino, name)
        if path.endswith(b"/") and not S_ISDIR(inode.mode):
            raise NotADirectory(f"{path!r} is not a directory")
        return inode

    def with_doc_ids(self, doc_ids: Iterable[str]) -> dict[str, Inode]:
        """The inodes of these documents, of those that are in the tree."""
        rows = self._db.rows(
            f"SELECT {COLUMNS} FROM inodes"
            " WHERE nlink > 0 AND doc_id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(doc_ids)),),
        )
        return {inode.doc_id: inode for inode in map(Inode._make, rows)}

    def kept_documents(self, doc_ids: Iterable[str]) -> set[str]:
        """Those of these documents that are in the tree no more, but that somebody has open."""
        rows = self._db.rows(
            "SELECT doc_id FROM inodes WHERE nlink = 0"
            " AND doc_id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(doc_ids)),),
        )
        kept = {doc_id for (doc_id,) in rows}
        return kept - self.with_doc_ids(kept).keys()

    def orphans(self) -> list[Inode]:
        """Removed, but kept for handles that were open: what start-up has to drop."""
        rows = self._db.rows(f"SELECT {COLUMNS} FROM inodes WHERE nlink = 0 ORDER BY ino")
        return [Inode._make(row) for row in rows]

    def _name_of(self, ino: Ino) -> tuple[Ino, bytes]:
        row: tuple[Ino, bytes] | None = self._db.row(_SELECT_NAME, (ino,))
        if row is None:
            raise NotFound(f"inode {ino} has no name")
        return row
