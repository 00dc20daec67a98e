"""The index of one instance: its tree of names, and the queues that belong to it.

`Index` joins the modules that each hold one kind of request; all of them stand on
`cozyfs.index.rows`. What is not here: names are not validated, permissions not checked, no object
is ever touched (cozyfs.vfs does that).

Threading: an Index belongs to the thread of the event loop. Every method is a plain function call
of some tens of microseconds that never awaits, and every one that changes anything is one
transaction; several join in one with :meth:`Index.transaction`. Scans in other threads open the
file again with ``read_only=True``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from cozyfs.index.attributes import Attributes
from cozyfs.index.database import Database
from cozyfs.index.deletions import Deletions
from cozyfs.index.documents import Documents
from cozyfs.index.mending import Mending, first_inodes
from cozyfs.index.naming import Naming
from cozyfs.index.outbox import Outbox
from cozyfs.index.reading import Reading
from cozyfs.index.renaming import Renaming
from cozyfs.index.rows import INSERT_ENTRY, INSERT_INODE
from cozyfs.index.trash import Trash
from cozyfs.index.usage import SCAN_INODES, SCAN_TRASH, SCAN_VERSIONS, Usage, UsageCounter
from cozyfs.index.versions import Versions
from cozyfs.index.xattrs import Xattrs
from cozyfs.values import ROOT_INO, TRASH_INO, TRASH_NAME

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    import apsw

CACHE_SIZE = 100_000
"""Inodes remembered in memory, about 1 KB each."""

FIRST_FREE_INO = 3


class Index(
    Reading,
    Naming,
    Renaming,
    Attributes,
    Xattrs,
    Documents,
    Versions,
    Trash,
    Deletions,
    Mending,
    Outbox,
):
    """Build with :meth:`create` or :meth:`open`; ends with :meth:`close` or ``with``.

    Any method may raise NoSpace (nothing was changed, the index stays usable), InstanceError
    (damaged, the disk failed) and, when it changes something, ReadOnly.
    """

    @classmethod
    def create(
        cls, path: Path | str, *, uid: int, gid: int, now_ns: int, cache_size: int = CACHE_SIZE
    ) -> Self:
        """A new index with the root and its trash, mode 0755, owned by *uid* and *gid*.
        Raises InstanceError when *path* exists."""

        def fill(connection: apsw.Connection) -> None:
            for inode in first_inodes(uid, gid, now_ns):
                connection.execute(INSERT_INODE, inode)
            connection.execute(INSERT_ENTRY, (ROOT_INO, TRASH_NAME, TRASH_INO))
            connection.execute(
                "INSERT INTO facts (name, value) VALUES ('ino_limit', ?)", (FIRST_FREE_INO,)
            )

        return cls._over(Database.create(Path(path), fill), cache_size)

    @classmethod
    def open(
        cls, path: Path | str, *, read_only: bool = False, cache_size: int = CACHE_SIZE
    ) -> Self:
        """Counts the usage, one scan of the inodes. *read_only* sees what the writer commits, as
        it commits it, and remembers nothing. Raises InstanceError when *path* is missing,
        damaged, not an index, or of a newer version."""
        return cls._over(Database.open(Path(path), read_only=read_only), cache_size)

    @classmethod
    def _over(cls, database: Database, cache_size: int) -> Self:
        try:
            return cls(database, cache_size=cache_size)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Idempotent."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def connection(self) -> apsw.Connection:
        """For sessions, backups and changesets. Who changes rows through it calls
        :meth:`reload`."""
        return self._db.connection

    @property
    def usage(self) -> Usage:
        """Kept in step with every change; a reader counts anew. What was never asked for, or
        came or went with a whole directory, is counted by one scan first."""
        counter = self._counter
        if self._db.read_only:
            counter = UsageCounter(self._db.row(SCAN_INODES))
        if counter.versions is None:
            counter.versions = self._db.row(SCAN_VERSIONS)
        if counter.trash is None:
            counter.trash = self._db.row(SCAN_TRASH)[0]
        inodes, files, file_bytes, stored = counter.inodes
        versions, version_bytes = counter.versions or (0, 0)
        return Usage(
            inodes, files, file_bytes, stored, versions, version_bytes, counter.trash or 0
        )

    @property
    def disk_bytes(self) -> int:
        """``usage.disk_bytes``, in constant time: the trash need not be counted for it."""
        counter = self._counter
        if self._db.read_only:
            counter = UsageCounter(self._db.row(SCAN_INODES))
        if counter.versions is None:
            counter.versions = self._db.row(SCAN_VERSIONS)
        return counter.inodes[2] + (counter.versions or (0, 0))[1]

    @property
    def inode_count(self) -> int:
        """``usage.inodes``, in constant time."""
        return self._counter.inodes[0]

    def transaction(self, *, durable: bool = False) -> AbstractContextManager[object]:
        """``with index.transaction():`` joins several calls: all of them, or none. No await
        inside. *durable*: on disk when it returns, also against a power cut, with everything
        before it. See `cozyfs.index.database.Database.transaction`."""
        return self._db.transaction(durable=durable)

    def reload(self) -> None:
        """Forget what is in memory, after rows were changed through :attr:`connection`."""
        self._reload()
