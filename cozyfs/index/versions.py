"""The former contents of files, and the document that a file passes on to its successor.

Rows only: which contents become versions, and which versions go, is decided by
`cozyfs.vfs.versions`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from cozyfs.errors import AlreadyExists, NotFound
from cozyfs.index.rows import Rows
from cozyfs.values import Content

if TYPE_CHECKING:
    from cozyfs.values import Ino


class Version(NamedTuple):
    """One row of the table ``versions``; the first two are the id of its document."""

    doc_id: str
    internal_id: str
    created_ns: int  # when it became a version
    updated_ns: int  # mtime of the content
    size: int
    stored: int
    md5: bytes | None
    etag: str | None
    extents: bytes | None
    object_doc_id: str | None
    fields: str  # a JSON object

    @property
    def content_doc_id(self) -> str:
        """The document id in the key of the object."""
        return self.object_doc_id or self.doc_id

    @property
    def content(self) -> Content:
        """For an inode that gets it back."""
        return Content(
            self.internal_id,
            self.size,
            self.stored,
            self.md5,
            self.etag,
            self.extents,
            doc_id=self.content_doc_id,
        )

    @property
    def document(self) -> dict[str, Any]:
        """A fresh dictionary of what no column says: tags, metadata, cozyMetadata."""
        fields: dict[str, Any] = json.loads(self.fields)
        return fields


_COLUMNS = ", ".join(Version._fields)
_INSERT = f"INSERT INTO versions ({_COLUMNS}) VALUES ({', '.join('?' * len(Version._fields))})"


class Versions(Rows):
    """Part of `Index`."""

    def versions_of(self, doc_id: str) -> list[Version]:
        """Of one file, the oldest first."""
        rows = self._db.rows(
            f"SELECT {_COLUMNS} FROM versions WHERE doc_id = ? ORDER BY created_ns, internal_id",
            (doc_id,),
        )
        return [Version._make(row) for row in rows]

    def versions_after(self, after: tuple[str, str], limit: int) -> list[Version]:
        """A page of all versions in the order of their ids, after the id *after*."""
        rows = self._db.rows(
            f"SELECT {_COLUMNS} FROM versions WHERE (doc_id, internal_id) > (?, ?)"
            " ORDER BY doc_id, internal_id LIMIT ?",
            (*after, limit),
        )
        return [Version._make(row) for row in rows]

    def add_version(self, version: Version) -> None:
        """Its object is wanted from now on. Raises AlreadyExists."""
        with self._db.transaction():
            if self._version_row(version) is not None:
                raise AlreadyExists(f"the version {version.internal_id} is there already")
            self._db.run(_INSERT, version)
            self._db.run(
                "DELETE FROM deletions WHERE doc_id = ? AND internal_id = ?",
                (version.content_doc_id, version.internal_id),
            )
            self._counter.count_version(1, version.size)

    def remove_version(self, version: Version, now_ns: int) -> None:
        """Its object waits for deletion, unless something else has it. Raises NotFound."""
        with self._db.transaction():
            if self._version_row(version) is None:
                raise NotFound(f"there is no version {version.internal_id}")
            self._remove_version(version.doc_id, version.internal_id, now_ns)

    def set_version_document(self, version: Version, fields: dict[str, Any]) -> Version:
        """Other tags or metadata; returns it as it is after. Raises NotFound."""
        text = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        with self._db.transaction():
            if self._version_row(version) is None:
                raise NotFound(f"there is no version {version.internal_id}")
            self._db.run(
                "UPDATE versions SET fields = ? WHERE doc_id = ? AND internal_id = ?",
                (text, version.doc_id, version.internal_id),
            )
        return version._replace(fields=text)

    def inherit(self, heir: Ino, former: Ino) -> None:
        """The file *heir* is about to replace the file *former* under its name, and goes on as
        the same document: its id, versions, tags and moment of creation. Objects stay where they
        are. *former* keeps its row as it is; let its content become a version before. Raises
        NotFound."""
        with self._db.transaction():
            new, old = self._inode(heir), self._inode(former)
            if new.doc_id == old.doc_id:
                return
            self._db.run(
                "UPDATE versions SET doc_id = ?1,"
                " object_doc_id = nullif(coalesce(object_doc_id, ?2), ?1) WHERE doc_id = ?2",
                (old.doc_id, new.doc_id),
            )
            self._inherit_fields(heir, former)
            holder = new.content_doc_id if new.internal_id is not None else old.doc_id
            self._rename_document(
                new,
                doc_id=old.doc_id,
                object_doc_id=None if holder == old.doc_id else holder,
                btime_ns=old.btime_ns,
            )

    def _inherit_fields(self, heir: Ino, former: Ino) -> None:
        """What both have is the former's."""
        rows = self._db.rows(
            "SELECT fields FROM documents WHERE ino IN (?1, ?2) ORDER BY ino = ?2", (heir, former)
        )
        if not rows:
            return
        fields: dict[str, Any] = {}
        for (text,) in rows:
            fields.update(json.loads(text))
        text = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        self._db.run(
            "INSERT INTO documents (ino, fields) VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET fields = excluded.fields",
            (heir, text),
        )

    def _version_row(self, version: Version) -> Any:
        return self._db.row(
            "SELECT 1 FROM versions WHERE doc_id = ? AND internal_id = ?",
            (version.doc_id, version.internal_id),
        )
