"""The io.cozy.files documents of inodes: what a Cozy's API says of a file or a directory.

A document has two sources. What the tree knows (names, times, sizes, MIME type, place) is
computed when it is asked for, so it can never disagree with the tree; the other fields (tags,
metadata, referenced_by, cozyMetadata, ...) are kept as they are by `Index.document`. Only files
and directories have documents: a Cozy knows nothing else.

Plain calls on the event loop.
"""

from __future__ import annotations

import base64
import re
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cozyfs.errors import InvalidRequest, NotFound, ReadOnly
from cozyfs.values import ROOT_DOC_ID, ROOT_INO, TRASH_DOC_ID, TRASH_INO, Ino, Inode
from cozyfs.vfs.names import decode, media_class, media_type

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cozyfs.vfs.filesystem import FileSystem

COMPUTED = frozenset(
    {
        *("_id", "_rev", "type", "name", "dir_id", "path", "created_at", "updated_at", "trashed"),
        *("size", "md5sum", "mime", "class", "executable", "internal_vfs_id"),
    }
)
"""Fields that follow from the tree. All others are kept as they are given."""

CERTIFIED = frozenset({"carbonCopy", "electronicSafe"})
"""Keys of `metadata` that vouch for where a file came from: a copy did not come from there."""

DEFAULTS: dict[str, dict[str, Any]] = {"directory": {}, "file": {"encrypted": False}}
"""Fields that are always there, by type."""

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_NS = 10**9


class Documents:
    """The documents of *fs*."""

    def __init__(self, fs: FileSystem) -> None:
        self.fs = fs

    def get(self, ino: Ino) -> dict[str, Any]:
        """A fresh document. Raises NotFound (also for a removed file), InvalidRequest for
        anything but a file or a directory."""
        inode = self.fs.get(ino)
        path = decode(self.fs.index.path_of(ino))
        if stat.S_ISDIR(inode.mode):
            place = {} if ino == ROOT_INO else self._place(inode)
            document = directory_document(inode, path, place)
        elif stat.S_ISREG(inode.mode):
            # A draft that is not in the store yet has another content than the index speaks of.
            is_stored = self.fs.files.state(ino) == "clean"
            document = file_document(inode, path, self._place(inode), is_stored=is_stored)
        else:
            raise InvalidRequest(f"{path} is neither a file nor a directory: it has no document")
        kept = self.fs.index.document(ino)
        if (item := self.fs.index.trash_item(ino)) is not None:
            document["restore_path"] = decode(item.restore_path)
            trashed = {"trashedAt": format_time(item.trashed_ns)}
            document["cozyMetadata"] = kept.get("cozyMetadata", {}) | trashed
        return {**DEFAULTS[document["type"]], **kept, **document}

    def find(self, doc_ids: Iterable[str]) -> dict[str, Ino]:
        """The inodes of documents; ids that nothing has are left out. Walks the tree until all
        are found: for a few ids now and then."""
        wanted = set(doc_ids)
        found: dict[str, Ino] = {}
        for doc_id, ino in ((ROOT_DOC_ID, ROOT_INO), (TRASH_DOC_ID, TRASH_INO)):
            if doc_id in wanted:
                found[doc_id] = ino
        stack = [ROOT_INO]
        while stack and len(found) < len(wanted):
            directory, after = stack.pop(), b""
            while page := self._page(directory, after):
                for _, inode in page:
                    if inode.doc_id in wanted:
                        found[inode.doc_id] = inode.ino
                    if stat.S_ISDIR(inode.mode):
                        stack.append(inode.ino)
                after = page[-1][0]
        return found

    def patch(self, ino: Ino, changes: dict[str, Any]) -> None:
        """Replace each given field as a whole; None or something empty removes it. Tags are
        trimmed and made unique. Raises InvalidRequest for a field that follows from the tree,
        NotFound, ReadOnly."""
        if self.fs.read_only:
            raise ReadOnly("the mount is read-only")
        computed = sorted(COMPUTED & changes.keys())
        if computed:
            raise InvalidRequest(f"{', '.join(computed)} cannot be set: the tree says")
        fields = self.fs.index.document(ino)
        for name, value in changes.items():
            value = unique_tags(value) if name == "tags" and value else value
            if value is None or value == [] or value == {}:
                fields.pop(name, None)
            else:
                fields[name] = value
        self.fs.index.set_document(ino, fields)

    def patch_metadata(self, ino: Ino, metadata: dict[str, Any]) -> None:
        """Replace `metadata` as a whole, as a Cozy does."""
        self.patch(ino, {"metadata": metadata})

    # ---- inside

    def _place(self, inode: Inode) -> dict[str, str]:
        names = self.fs.index.entries_of(inode.ino)
        if not names:
            raise NotFound(f"inode {inode.ino} was removed")
        parent, name = names[0]
        return {"name": decode(name), "dir_id": self.fs.index.get(parent).doc_id}

    def _page(self, directory: Ino, after: bytes) -> list[tuple[bytes, Inode]]:
        return self.fs.index.children(directory, after, 256)


def directory_document(inode: Inode, path: str, place: dict[str, str]) -> dict[str, Any]:
    """What the tree says of a directory at *path*; *place* is its `name` and `dir_id`, nothing
    for the root."""
    return {
        "_id": inode.doc_id,
        "type": "directory",
        "path": path,
        **place,
        **times_of(inode),
    }


def file_document(
    inode: Inode, path: str, place: dict[str, str], *, is_stored: bool = True
) -> dict[str, Any]:
    """What the tree says of a file at *path*. Not *is_stored*: nothing of its content."""
    mime = media_type(place["name"])
    document: dict[str, Any] = {
        "_id": inode.doc_id,
        "type": "file",
        **place,
        **times_of(inode),
        "size": str(inode.size),
        "mime": mime,
        "class": media_class(mime),
        "executable": bool(inode.mode & stat.S_IXUSR),
        "trashed": path.startswith("/.cozy_trash/"),
    }
    if is_stored:
        if inode.md5 is not None:
            document["md5sum"] = base64.b64encode(inode.md5).decode()
        if inode.internal_id is not None:
            document["internal_vfs_id"] = inode.internal_id
    return document


def format_time(time_ns: int) -> str:
    """RFC 3339 in UTC with as many digits as it takes: `2026-01-31T09:00:00.25Z`. Raises
    InvalidRequest outside the years 1 to 9999."""
    seconds, rest = divmod(time_ns, _SECOND_NS)
    try:
        text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    except OverflowError as exc:
        raise InvalidRequest("a time beyond the year 9999 has no date") from exc
    date, _, clock = text.partition("-")
    fraction = f".{rest:09}".rstrip("0").rstrip(".")
    return f"{date:0>4}-{clock}{fraction}Z"


def parse_time(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 date with any offset. Raises InvalidRequest."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"'{text}' is not a date of RFC 3339")
    whole, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(whole + ("+00:00" if offset == "Z" else offset))
    except ValueError as exc:
        raise InvalidRequest(f"'{text}' is not a date of RFC 3339") from exc
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    return seconds * _SECOND_NS + int((fraction or "").ljust(9, "0"))


def fields_of_copy(fields: dict[str, Any]) -> dict[str, Any]:
    """What a copy keeps of the fields of its source: tags, and the metadata that tell of the
    content. Not who refers to the source, where it came from, that it was certified or a
    favourite, that or from where it was put into the trash."""
    kept: dict[str, Any] = {}
    for name in ("tags", "encrypted", "antivirus_scan"):
        if fields.get(name):
            kept[name] = fields[name]
    metadata = {
        key: value
        for key, value in fields.get("metadata", {}).items()
        if key not in CERTIFIED and key != "favorite"
    }
    if metadata:
        kept["metadata"] = metadata
    return kept


def times_of(inode: Inode) -> dict[str, str]:
    """`created_at` and `updated_at`."""
    # `cp -p` gives new files old times; a Cozy takes no document that was updated before it
    # was created.
    created = min(inode.btime_ns, inode.mtime_ns)
    return {"created_at": format_time(created), "updated_at": format_time(inode.mtime_ns)}


def unique_tags(tags: Iterable[str]) -> list[str]:
    """Trimmed, each once, in their order, none empty."""
    trimmed = (tag.strip() for tag in tags)
    return list(dict.fromkeys(tag for tag in trimmed if tag))
