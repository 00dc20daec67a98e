"""Reading a whole index beside its users: for checks that look at every row.

A connection of its own, for reading, with temporary tables that spill to disk, so that memory
stays bounded whatever is put into them. For one worker thread at a time; the event loop's own
connection goes on meanwhile and is never waited for.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self

import apsw

from cozyfs.index.database import Database, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType


class Scan:
    """Over the index at *path*. Build with :meth:`open`, end with :meth:`close` or ``with``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._path = database.path
        self._connection = database.connection

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises InstanceError."""
        database = Database.open(path, read_only=True)
        try:
            # Unlinked files in SQLite's own folder for them (TMPDIR, /var/tmp).
            database.connection.execute("PRAGMA temp_store = FILE")
        except apsw.Error as exc:
            database.close()
            raise translated(exc, path) from exc
        return cls(database)

    def close(self) -> None:
        """Idempotent."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def define(self, name: str, function: Callable[..., Any]) -> None:
        """*function*, which is pure, under *name* in SQL."""
        self._connection.create_scalar_function(name, function, deterministic=True)

    def rows(self, sql: str, bindings: Sequence[Any] = ()) -> Iterator[Any]:
        """As they are asked for: never all of them in memory."""
        try:
            yield from self._connection.execute(sql, bindings)
        except apsw.Error as exc:
            raise translated(exc, self._path) from exc

    def row(self, sql: str, bindings: Sequence[Any] = ()) -> Any:
        """The first one, or None."""
        return self._database.row(sql, bindings)

    def run(self, sql: str, bindings: Sequence[Any] = ()) -> None:
        """A statement about temporary tables."""
        try:
            self._connection.execute(sql, bindings)
        except apsw.Error as exc:
            raise translated(exc, self._path) from exc

    def run_many(self, sql: str, bindings: Iterable[Sequence[Any]]) -> None:
        """:meth:`run` for each element of *bindings*."""
        try:
            self._connection.executemany(sql, bindings)
        except apsw.Error as exc:
            raise translated(exc, self._path) from exc

    @contextlib.contextmanager
    def moment(self) -> Iterator[None]:
        """All statements inside see the index as it is at the first."""
        self.run("BEGIN")
        try:
            yield
        finally:
            if self._connection.in_transaction:
                self.run("COMMIT")
