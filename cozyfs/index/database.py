"""The SQLite file under an index: opening, pragmas, migrations, transactions, errors.

Knows nothing of what the tables mean (`schema.sql`, `cozyfs.index.rows` and up). One connection
writes and belongs to the event loop's thread; every call is synchronous. Nothing here awaits, so
no other task runs inside a transaction as long as its body does not await either. Foreign
exceptions stop here: SQLite's become classes of `cozyfs.errors`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import apsw

from cozyfs.durable import sync
from cozyfs.errors import CozyError, InstanceError, NoSpace, ReadOnly

if TYPE_CHECKING:
    from types import TracebackType

JOURNALED_TABLES = (
    *("inodes", "entries", "xattrs", "documents", "versions", "trash", "deletions", "facts"),
)
"""The tree: what a session records and a journal carries to other machines."""

LOCAL_TABLES = ("drafts", "settings", "outbox")
"""Facts of this machine, never journaled."""

SCHEMA_VERSION = 3

APPLICATION_ID = 0x636F7A79  # "cozy"

BUSY_TIMEOUT_MS = 5_000
"""Another writer is a mistake that the lease excludes; this only outlasts its last commit."""

PAGE_CACHE_KIB = 32 * 1024

CHECKPOINT_PAGES = 4_000
"""16 MiB of WAL. A create writes five pages, most of them the same ones again and again: fewer
checkpoints write each of them to the database less often, and fsync less often on the loop."""

Migration = Callable[[apsw.Connection], None]


def _add_outbox(connection: apsw.Connection) -> None:
    connection.execute(
        "CREATE TABLE outbox (seq INTEGER PRIMARY KEY, changeset BLOB NOT NULL) STRICT"
    )


def _add_history(connection: apsw.Connection) -> None:
    """Versions, the trash's memory, and contents under the key of another document."""
    connection.execute(
        """
        ALTER TABLE inodes ADD COLUMN object_doc_id TEXT;
        CREATE TABLE versions (
            doc_id TEXT NOT NULL, internal_id TEXT NOT NULL, created_ns INTEGER NOT NULL,
            updated_ns INTEGER NOT NULL, size INTEGER NOT NULL, stored INTEGER NOT NULL,
            md5 BLOB, etag TEXT, extents BLOB, object_doc_id TEXT, fields TEXT NOT NULL,
            PRIMARY KEY (doc_id, internal_id)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE trash (
            ino INTEGER PRIMARY KEY, trashed_ns INTEGER NOT NULL,
            restore_path BLOB NOT NULL, name BLOB NOT NULL
        ) STRICT
        """
    )
    for index in (
        "inodes_by_document ON inodes (doc_id)",
        "inodes_by_object ON inodes (object_doc_id) WHERE object_doc_id IS NOT NULL",
        "versions_by_object ON versions (object_doc_id) WHERE object_doc_id IS NOT NULL",
        "trash_by_time ON trash (trashed_ns)",
    ):
        # A snapshot of an older version is brought up to date before it has its indexes.
        connection.execute(f"CREATE INDEX IF NOT EXISTS {index}")


MIGRATIONS: Mapping[int, Migration] = {1: _add_outbox, 2: _add_history}
"""From version n to n + 1. Version 1 is the first there was."""


class Participant(Protocol):
    """Keeps something in memory that follows the tables."""

    def transaction_began(self) -> None: ...

    def transaction_undone(self) -> None:
        """The tables are as they were at :meth:`transaction_began`."""


class Recorder(Protocol):
    """Writes down what a transaction changes, as a part of it (`cozyfs.index.outbox`)."""

    def about_to_run(self, sql: str) -> None:
        """Inside the transaction, before each statement that changes rows."""

    def about_to_commit(self) -> None:
        """The last moment to write; may raise apsw.Error, which undoes the transaction."""

    def transaction_ended(self, *, committed: bool) -> None: ...


class Database:
    """One open file. Build with :meth:`create` or :meth:`open`."""

    def __init__(self, path: Path, connection: apsw.Connection, *, read_only: bool) -> None:
        self.path = path
        self.connection = connection
        self.read_only = read_only
        self.participant: Participant | None = None
        self.recorder: Recorder | None = None
        self._transaction = _Transaction(self)
        self._durable_transaction = _DurableTransaction(self)
        # One element per open `with`: the number of writes when it was entered.
        self._levels: list[int] = []
        self._writes = 0
        self._begun = False
        self._durable = False
        self._doomed: BaseException | None = None

    @classmethod
    def create(cls, path: Path, fill: Callable[[apsw.Connection], None]) -> Database:
        """A new file with our schema and what *fill* adds, then opened.

        Made under another name and moved: a half-made index is never found under *path*.
        Raises InstanceError when the file exists, NoSpace.
        """
        if path.exists():
            raise InstanceError(f"{path} exists already")
        unfinished = path.with_name(path.name + ".new")
        try:
            for leftover in (unfinished, Path(f"{unfinished}-journal")):
                leftover.unlink(missing_ok=True)
            connection = apsw.Connection(os.fspath(unfinished))
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(schema())
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                fill(connection)
                connection.execute("COMMIT")
            finally:
                connection.close()
            unfinished.rename(path)
            sync(path.parent)
        except apsw.Error as exc:
            raise translated(exc, path) from exc
        except OSError as exc:
            raise InstanceError(f"cannot create the index {path}: {exc.strerror}") from exc
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Database:
        """Raises InstanceError when *path* is missing, damaged, not an index, or an index of a
        newer version. An older one is migrated, unless *read_only*."""
        if not path.is_file():
            raise InstanceError(f"there is no index at {path}")
        flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
        try:
            connection = apsw.Connection(os.fspath(path), flags=flags)
        except apsw.Error as exc:
            raise translated(exc, path) from exc
        try:
            _check_identity(connection, path)
            _set_pragmas(connection, read_only=read_only)
            migrate(connection, path, read_only=read_only)
        except apsw.Error as exc:
            connection.close()
            raise translated(exc, path) from exc
        except BaseException:
            connection.close()
            raise
        return cls(path, connection, read_only=read_only)

    def close(self) -> None:
        """Idempotent. The last connection to close writes the WAL back and removes it."""
        try:
            self.connection.close()
        except apsw.Error as exc:
            raise translated(exc, self.path) from exc

    # ---- statements

    def row(self, sql: str, bindings: Sequence[Any] = ()) -> Any:
        """The first row as a tuple, or None."""
        try:
            return self.connection.execute(sql, bindings).fetchone()
        except apsw.Error as exc:
            raise translated(exc, self.path) from exc

    def rows(self, sql: str, bindings: Sequence[Any] = ()) -> list[Any]:
        """All rows, as tuples."""
        try:
            return self.connection.execute(sql, bindings).fetchall()
        except apsw.Error as exc:
            raise translated(exc, self.path) from exc

    def run(self, sql: str, bindings: Sequence[Any] = ()) -> None:
        """A statement that changes rows; only inside :meth:`transaction`, which starts here.
        Raises NoSpace, ReadOnly, InstanceError; any of them undoes the whole transaction."""
        if not self._begun:
            self._begin()
        if self._doomed is not None:
            # SQLite may have rolled back by itself: this would run outside any transaction.
            raise CozyError("the transaction has failed already") from self._doomed
        self._writes += 1
        try:
            if self.recorder is not None:
                self.recorder.about_to_run(sql)
            self.connection.execute(sql, bindings)
        except apsw.Error as exc:
            self._doom(exc)
            raise translated(exc, self.path) from exc

    def run_many(self, sql: str, bindings: Sequence[Sequence[Any]]) -> None:
        """:meth:`run` for each element of *bindings*."""
        for each in bindings:
            self.run(sql, each)

    # ---- transactions

    def transaction(self, *, durable: bool = False) -> _Transaction:
        """``with database.transaction():`` all writes inside, or none.

        SQLite's transaction begins at the first write, so a request that is refused costs none.
        Nested uses join the outermost. An exception that leaves a nested use after a write undoes
        the outermost as well, even if somebody catches it: half a change is never committed.

        *durable*: on disk when it returns, with everything committed before (fsync of the WAL);
        otherwise a process crash loses nothing, a power cut the last moments. It has to be asked
        for before the first write.
        """
        return self._durable_transaction if durable else self._transaction

    def _begin(self) -> None:
        if not self._levels:
            raise RuntimeError("a write outside of a transaction")
        if self.read_only:
            raise ReadOnly(f"the index {self.path} is open for reading only")
        try:
            if self._durable:
                self.connection.execute("PRAGMA synchronous = FULL")
            self.connection.execute("BEGIN IMMEDIATE")
        except apsw.Error as exc:
            if self._durable:
                self.connection.execute("PRAGMA synchronous = NORMAL")
            raise translated(exc, self.path) from exc
        self._begun = True
        if self.participant is not None:
            self.participant.transaction_began()

    def _enter(self, *, durable: bool) -> None:
        if durable and not self._durable:
            # SQLite refuses to change `synchronous` once the transaction runs.
            if self._begun:
                raise RuntimeError("a durable transaction inside one that has written already")
            self._durable = True
        self._levels.append(self._writes)

    def _leave(self, exc: BaseException | None) -> None:
        writes_before = self._levels.pop()
        if exc is not None and self._writes != writes_before and self._doomed is None:
            self._doom(exc)
        if self._levels:
            return
        begun, self._begun = self._begun, False
        durable, self._durable = self._durable, False
        doomed, self._doomed = self._doomed, None
        if not begun:
            return
        try:
            if doomed is None:
                self._commit()
            elif exc is None:
                raise CozyError("the transaction has failed") from doomed
        finally:
            if durable:
                self.connection.execute("PRAGMA synchronous = NORMAL")

    def _doom(self, exc: BaseException) -> None:
        """Undone at once, not at the end: somebody may catch the error further out, and what is
        read then has to be what will stay."""
        self._doomed = exc
        self._undo()

    def _commit(self) -> None:
        try:
            if self.recorder is not None:
                self.recorder.about_to_commit()
            self.connection.execute("COMMIT")
        except apsw.Error as exc:
            self._undo()
            raise translated(exc, self.path) from exc
        if self.recorder is not None:
            self.recorder.transaction_ended(committed=True)

    def _undo(self) -> None:
        if self.recorder is not None:
            self.recorder.transaction_ended(committed=False)
        try:
            # After SQLITE_FULL, SQLITE_IOERR and some others SQLite has rolled back by itself.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except apsw.Error as exc:
            raise translated(exc, self.path) from exc
        finally:
            if self.participant is not None:
                self.participant.transaction_undone()


class _Transaction:
    """Reusable and stateless: the levels are counted by the database."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> Self:
        self._database._enter(durable=False)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._database._leave(exc)


class _DurableTransaction(_Transaction):
    __slots__ = ()

    def __enter__(self) -> Self:
        self._database._enter(durable=True)
        return self


def schema() -> str:
    """The SQL that makes an empty index."""
    return resources.files("cozyfs.index").joinpath("schema.sql").read_text(encoding="utf-8")


def migrate(
    connection: apsw.Connection,
    path: Path,
    *,
    read_only: bool = False,
    version: int = SCHEMA_VERSION,
    migrations: Mapping[int, Migration] = MIGRATIONS,
) -> None:
    """Bring the file to *version*, in one transaction. Raises InstanceError when it is newer,
    or older and *read_only*."""
    found = _pragma(connection, "user_version")
    if found > version:
        raise InstanceError(
            f"the index {path} has version {found}, this cozyfs knows up to {version}: "
            "use a newer cozyfs"
        )
    if found == version:
        return
    if read_only:
        raise InstanceError(
            f"the index {path} has the older version {found}: mount it for writing once"
        )
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in range(found, version):
            migrations[step](connection)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def translated(exc: apsw.Error, path: Path) -> CozyError:
    """What an error of SQLite is called in cozyfs."""
    match exc:
        case apsw.FullError():
            return NoSpace(f"no space left for the index {path}; nothing was changed")
        case apsw.ReadOnlyError():
            return ReadOnly(f"the index {path} cannot be written")
        case apsw.CorruptError() | apsw.NotADBError():
            return InstanceError(
                f"the index {path} is damaged: move it away and recover it from the bucket"
            )
        case apsw.IOError():
            return InstanceError(f"the disk failed while using the index {path}")
        case apsw.BusyError() | apsw.LockedError():
            return InstanceError(f"the index {path} is in use by another process")
        case apsw.CantOpenError() | apsw.PermissionsError() | apsw.AuthError():
            return InstanceError(f"the index {path} cannot be opened")
        case apsw.NoMemError():
            return InstanceError(f"no memory left while using the index {path}")
    return InstanceError(f"the index {path} cannot be used: {exc}")


def _check_identity(connection: apsw.Connection, path: Path) -> None:
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise InstanceError(f"{path} is not a cozyfs index")


def _set_pragmas(connection: apsw.Connection, *, read_only: bool) -> None:
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    # Built with SQLITE_ENABLE_STAT4 (apsw's wheels are), SQLite compiles a join anew whenever a
    # bound value changes, since the plan might: a lookup took 33 us instead of 3.5.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    connection.execute(f"PRAGMA cache_size = -{PAGE_CACHE_KIB}")
    connection.execute("PRAGMA temp_store = MEMORY")
    if not read_only:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")


def _pragma(connection: apsw.Connection, name: str) -> int:
    value = connection.pragma(name)
    assert isinstance(value, int)
    return value
