"""What was put into the trash: when, from where, under which name.

Rows only: what the trash means is in `cozyfs.vfs.trash`. The directory itself is an ordinary one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cozyfs.index.rows import Rows

if TYPE_CHECKING:
    from cozyfs.values import Ino


class TrashItem(NamedTuple):
    """One row of the table ``trash``."""

    ino: Ino
    trashed_ns: int
    restore_path: bytes  # of the directory it was in, as /a/b
    name: bytes  # its name there


class Trash(Rows):
    """Part of `Index`."""

    def in_trash(self, directory: Ino) -> bool:
        """Whether it is the trash or lies below it; a removed directory does not."""
        return self._in_trash(directory)

    def is_trashed(self, ino: Ino) -> bool:
        """Whether any name of the inode lies below the trash."""
        return self._is_trashed(ino)

    def trash_item(self, ino: Ino) -> TrashItem | None:
        row = self._db.row(
            "SELECT ino, trashed_ns, restore_path, name FROM trash WHERE ino = ?", (ino,)
        )
        return None if row is None else TrashItem._make(row)

    def trash_items(self, before_ns: int, limit: int) -> list[TrashItem]:
        """At most *limit* of those trashed before *before_ns*, the oldest first."""
        rows = self._db.rows(
            "SELECT ino, trashed_ns, restore_path, name FROM trash WHERE trashed_ns < ?"
            " ORDER BY trashed_ns, ino LIMIT ?",
            (before_ns, limit),
        )
        return [TrashItem._make(row) for row in rows]

    def remember_trashed(self, item: TrashItem) -> None:
        """Replaces what was known of the inode."""
        with self._db.transaction():
            self._db.run(
                "INSERT INTO trash (ino, trashed_ns, restore_path, name) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET trashed_ns = excluded.trashed_ns,"
                " restore_path = excluded.restore_path, name = excluded.name",
                item,
            )

    def forget_trashed(self, ino: Ino) -> None:
        """It left the trash, or lies in a directory that is there; absent is not an error."""
        if self.trash_item(ino) is not None:
            with self._db.transaction():
                self._db.run("DELETE FROM trash WHERE ino = ?", (ino,))
