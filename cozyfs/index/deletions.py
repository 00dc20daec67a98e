"""The queue of objects that the tree no longer needs. Deleting them is the vfs's, in its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cozyfs.index.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterable

CONTENTS_SINCE = "contents_since_ns"
"""The fact; never goes back, and is journaled as the tree is."""

_RAISE = (
    "INSERT INTO facts (name, value) VALUES (?, ?)"
    " ON CONFLICT DO UPDATE SET value = max(value, excluded.value)"
)


class Deletion(NamedTuple):
    """One row of the table ``deletions``; the first two name the object."""

    doc_id: str
    internal_id: str
    queued_ns: int


class Deletions(Rows):
    """Part of `Index`."""

    def queue_deletion(self, doc_id: str, internal_id: str, now_ns: int) -> None:
        """Idempotent; an object that waits already starts to wait anew."""
        with self._db.transaction():
            self._queue(doc_id, internal_id, now_ns)

    def due_deletions(self, before_ns: int, limit: int) -> list[Deletion]:
        """At most *limit* of those queued before *before_ns*, the oldest first."""
        rows = self._db.rows(
            "SELECT doc_id, internal_id, queued_ns FROM deletions WHERE queued_ns < ?"
            " ORDER BY queued_ns LIMIT ?",
            (before_ns, limit),
        )
        return [Deletion._make(row) for row in rows]

    def forget_deletions(self, rows: Iterable[Deletion]) -> None:
        """Their objects are gone, or wanted again. One that was queued anew since stays."""
        with self._db.transaction():
            self._db.run_many(
                "DELETE FROM deletions WHERE doc_id = ? AND internal_id = ? AND queued_ns = ?",
                list(rows),
            )

    def deletions_done(self, rows: Iterable[Deletion]) -> None:
        """:meth:`forget_deletions` of those whose objects were deleted from the store."""
        rows = list(rows)
        if rows:
            with self._db.transaction():
                self.forget_deletions(rows)
                self._db.run(_RAISE, (CONTENTS_SINCE, max(row.queued_ns for row in rows)))

    @property
    def contents_since_ns(self) -> int:
        """Every object that the tree has had since this moment is in the store; of what was let
        go before it, some are deleted."""
        row = self._db.row("SELECT value FROM facts WHERE name = ?", (CONTENTS_SINCE,))
        return 0 if row is None else int(row[0])

    def keep_object(self, doc_id: str, internal_id: str) -> None:
        """It is wanted after all: takes it off the queue, if it is there."""
        if self.is_queued(doc_id, internal_id):
            with self._db.transaction():
                self._db.run(
                    "DELETE FROM deletions WHERE doc_id = ? AND internal_id = ?",
                    (doc_id, internal_id),
                )

    def is_held(self, doc_id: str, internal_id: str) -> bool:
        """Whether an inode or a version has the object with this key."""
        return self._is_held(doc_id, internal_id)

    def is_queued(self, doc_id: str, internal_id: str) -> bool:
        """Whether an object waits for its deletion."""
        sql = "SELECT 1 FROM deletions WHERE doc_id = ? AND internal_id = ?"
        return self._db.row(sql, (doc_id, internal_id)) is not None

    def is_wanted(self, doc_id: str) -> bool:
        """Whether what lies beside a document has still a use, or goes by itself: it is in the
        tree, or a content of it is, or something of it waits for its deletion."""
        sql = """
            SELECT 1 FROM inodes WHERE doc_id = ?1 OR object_doc_id = ?1
            UNION ALL SELECT 1 FROM versions WHERE object_doc_id = ?1
            UNION ALL SELECT 1 FROM deletions WHERE doc_id = ?1 LIMIT 1
        """
        return self._db.row(sql, (doc_id,)) is not None

    def pending_deletions(self) -> int:
        """How many objects wait."""
        (count,) = self._db.row("SELECT count(*) FROM deletions")
        return int(count)
