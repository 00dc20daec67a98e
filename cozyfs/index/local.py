"""Tables that stay on this machine: drafts and settings. No session records them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cozyfs.index.rows import Rows

if TYPE_CHECKING:
    from cozyfs.values import Ino


class Local(Rows):
    """Part of `Index`."""

    def save_draft(self, ino: Ino, record: bytes) -> None:
        """Replaces the inode's former record. Durable when it returns, also against a power cut,
        together with every transaction before it. Inside another transaction, that one has to be
        ``transaction(durable=True)``."""
        with self._db.transaction(durable=True):
            self._db.run(
                "INSERT INTO drafts (ino, record) VALUES (?, ?)"
                " ON CONFLICT DO UPDATE SET record = excluded.record",
                (ino, record),
            )

    def drafts(self) -> list[tuple[Ino, bytes]]:
        """By inode number; the inode of a draft may be gone."""
        return self._db.rows("SELECT ino, record FROM drafts ORDER BY ino")

    def remove_draft(self, ino: Ino) -> None:
        """Absent is not an error. Not durable by itself: a draft that comes back after a power
        cut is uploaded once more, or found to be no news."""
        with self._db.transaction():
            self._db.run("DELETE FROM drafts WHERE ino = ?", (ino,))

    def setting(self, name: str) -> str | None:
        row = self._db.row("SELECT value FROM settings WHERE name = ?", (name,))
        return None if row is None else row[0]

    def set_setting(self, name: str, value: str | None) -> None:
        """None removes it."""
        with self._db.transaction():
            if value is None:
                self._db.run("DELETE FROM settings WHERE name = ?", (name,))
            else:
                self._db.run(
                    "INSERT INTO settings (name, value) VALUES (?, ?)"
                    " ON CONFLICT DO UPDATE SET value = excluded.value",
                    (name, value),
                )

    def sync(self) -> None:
        """All that was committed is on disk when this returns, also against a power cut: what is
        not in the database file yet is in the write-ahead log. Blocks on the disk, touches no
        connection, and is the one method to be called in a thread."""
        with open(f"{self._db.path}-wal", "rb") as log:
            os.fsync(log.fileno())
