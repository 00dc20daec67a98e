"""The fields of a Cozy document that no stat(2) knows: tags, metadata, referenced_by, ..."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cozyfs.index.rows import Rows

if TYPE_CHECKING:
    from cozyfs.values import Ino


class Documents(Rows):
    """Part of `Index`."""

    def document(self, ino: Ino) -> dict[str, Any]:
        """A fresh dictionary, empty when there are no such fields. Raises NotFound."""
        row = self._db.row("SELECT fields FROM documents WHERE ino = ?", (ino,))
        if row is None:
            self._inode(ino)
            return {}
        fields: dict[str, Any] = json.loads(row[0])
        return fields

    def set_document(self, ino: Ino, fields: dict[str, Any] | None) -> None:
        """Replace all fields; None or empty removes them. Raises NotFound."""
        with self._db.transaction():
            self._inode(ino)
            if fields:
                # One way to write a value: the same fields never make a change in the journal.
                text = json.dumps(
                    fields, ensure_ascii=False, sort_keys=True, separators=(",", ":")
                )
                self._db.run(
                    "INSERT INTO documents (ino, fields) VALUES (?, ?)"
                    " ON CONFLICT DO UPDATE SET fields = excluded.fields",
                    (ino, text),
                )
            else:
                self._db.run("DELETE FROM documents WHERE ino = ?", (ino,))
