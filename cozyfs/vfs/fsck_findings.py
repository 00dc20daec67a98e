"""What a check of an instance finds, and how that is shown.

The JSON form is that of the Cozy server's fsck, one object a line, with fields of our own for
what it cannot say: where it is, what is wrong in a sentence, what ``--repair`` does about it. No
bucket, no prefix of an instance, no credentials are in it.
"""

from __future__ import annotations

import base64
import contextlib
from dataclasses import dataclass, field
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, Any

from cozyfs.errors import CozyError, InvalidRequest
from cozyfs.values import ROOT_INO, TRASH_INO, Ino, Inode
from cozyfs.vfs.documents import format_time
from cozyfs.vfs.names import media_class, media_type

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cozyfs.index import Scan, Version
    from cozyfs.vfs.fsck_repair import Bench

TRASH_PATH = "/.cozy_trash"


class CannotRepair(CozyError):
    """Why something is left as it is."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    type: str
    detail: str  # what is wrong, a sentence without capital and full stop
    path: str | None = None  # in the instance, where it can be reached
    object: str | None = None  # key without the instance's prefix
    is_file: bool = False
    is_version: bool = False
    file_doc: dict[str, Any] | None = None
    dir_doc: dict[str, Any] | None = None
    version_doc: dict[str, Any] | None = None
    content_mismatch: dict[str, Any] | None = None
    expected_fullpath: str | None = None
    before: dict[str, Any] | None = None  # the row that a repair changes
    repair: str | None = None  # what --repair does; None: nothing can be done here
    remedy: Callable[[Bench], Awaitable[None]] | None = field(
        default=None, compare=False, repr=False
    )
    repaired: bool | None = None  # None: it was not asked for
    problem: str | None = None  # why it could not be repaired

    def to_json(self) -> dict[str, Any]:
        """In the order of the fields; optional ones that have nothing to say are left out."""
        shown: dict[str, Any] = {"type": self.type}
        for name in ("file_doc", "dir_doc", "version_doc"):
            if getattr(self, name) is not None:
                shown[name] = getattr(self, name)
        shown |= {"is_file": self.is_file, "is_version": self.is_version}
        for name in (
            *("content_mismatch", "expected_fullpath", "path", "object", "detail", "before"),
            *("repair", "repaired", "problem"),
        ):
            if getattr(self, name) is not None:
                shown[name] = getattr(self, name)
        return shown


def as_line(finding: dict[str, Any]) -> str:
    """One line for people, from the JSON form."""
    where = finding.get("path") or finding.get("object") or "-"
    line = f"{finding['type']}: {where}: {finding['detail']}"
    if finding.get("repaired"):
        line += f"; repaired: {finding['repair']}"
    elif finding.get("problem"):
        line += f"; not repaired: {finding['problem']}"
    elif finding.get("repair"):
        line += f"; --repair: {finding['repair']}"
    # A name may hold what moves a terminal's cursor.
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in line)


def md5_text(md5: bytes | None) -> str | None:
    """As documents have it."""
    return None if md5 is None else base64.b64encode(md5).decode()


def text(name: bytes) -> str:
    """A name, whatever is in it."""
    return name.decode("utf-8", "backslashreplace")


# ---- documents, from rows alone: the tree around them may be broken


def facts(row: Inode | Version) -> dict[str, Any]:
    """What a row says of its content, so that it can be put back by hand."""
    return {
        "doc_id": row.doc_id,
        "internal_id": row.internal_id,
        "object_doc_id": row.object_doc_id,
        "size": row.size,
        "stored": row.stored,
        "md5sum": md5_text(row.md5),
        "etag": row.etag,
        "extents": None if row.extents is None else row.extents.decode("utf-8", "replace"),
    }


def documents(scan: Scan, inode: Inode, **more: Any) -> dict[str, Any]:
    """The fields ``file_doc`` or ``dir_doc``, ``is_file`` and ``path`` of a finding about
    *inode*."""
    path = path_of(scan, inode.ino)
    row = scan.row("SELECT parent, name FROM entries WHERE ino = ? LIMIT 1", (inode.ino,))
    document: dict[str, Any] = {"_id": inode.doc_id}
    if row is not None:
        parent = scan.row("SELECT doc_id FROM inodes WHERE ino = ?", (row[0],))
        document |= {"name": text(row[1]), "dir_id": parent[0] if parent else None}
    if path is not None:
        document["path"] = path
    with contextlib.suppress(InvalidRequest):  # a time that no date can show
        document |= {
            "created_at": format_time(inode.btime_ns),
            "updated_at": format_time(inode.mtime_ns),
        }
    if S_ISDIR(inode.mode):
        found = {"type": "directory", **document, **more}
        return {"dir_doc": found, "is_file": False, "path": path}
    if S_ISREG(inode.mode):
        mime = media_type(document.get("name", ""))
        document |= {
            "size": str(inode.size),
            "md5sum": md5_text(inode.md5),
            "mime": mime,
            "class": media_class(mime),
            "trashed": path is not None and path.startswith(f"{TRASH_PATH}/"),
            "internal_vfs_id": inode.internal_id,
        }
    return {"file_doc": {"type": "file", **document, **more}, "is_file": True, "path": path}


def version_document(version: Version) -> dict[str, Any]:
    document: dict[str, Any] = {
        "_id": f"{version.doc_id}/{version.internal_id}",
        "file_id": version.doc_id,
        "size": str(version.size),
        "md5sum": md5_text(version.md5),
    }
    with contextlib.suppress(InvalidRequest):
        document["updated_at"] = format_time(version.updated_ns)
    return document


def path_of(scan: Scan, ino: Ino) -> str | None:
    """None where it cannot be reached from the root."""
    names: list[str] = []
    passed: set[int] = set()
    while ino != ROOT_INO:
        row = scan.row(
            "SELECT e.parent, e.name FROM entries e JOIN inodes d ON d.ino = e.parent"
            " WHERE e.ino = ? AND d.mode & 0xF000 = 0x4000 ORDER BY e.parent, e.name LIMIT 1",
            (ino,),
        )
        if row is None or ino in passed:
            return TRASH_PATH if ino == TRASH_INO and not names else None
        passed.add(ino)
        ino = row[0]
        names.append(text(row[1]))
    return "/" + "/".join(reversed(names))
