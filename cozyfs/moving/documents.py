"""Rows of the tree as documents of an archive, and back.

A document is the one that a Cozy has (`cozyfs.vfs.documents`). What POSIX adds is one key of its
``metadata``, ``cozyfs``, which a Cozy server keeps without understanding it::

    mode      octal, with the type of file
    uid gid   numbers
    rdev      of a device
    atime mtime ctime btime   nanoseconds since 1970 as decimal strings: a number of JSON is too
              short for them in many languages
    links     further names of the file: [[id of the directory, name], ...]
    xattrs    {name, percent-encoded: value in base64}
    trash     {at, restore_path, name}: when and from where it was put into the trash
    extents   [[start, length], ...]: the content is this data, back to back; the rest are holes

``internal_vfs_id`` is left out: it names an object of one bucket. Pure functions but for reading
the index.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from cozyfs.errors import ArchiveError, CozyError
from cozyfs.values import ROOT_DOC_ID, ROOT_INO, TRASH_DOC_ID, Ino, Inode
from cozyfs.vfs import extents as extents_of
from cozyfs.vfs.documents import (
    CERTIFIED,
    COMPUTED,
    DEFAULTS,
    directory_document,
    file_document,
    format_time,
    parse_time,
    times_of,
)
from cozyfs.vfs.names import check_name, decode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cozyfs.index import Index, Version

OURS = "cozyfs"
"""The key of ``metadata``."""

SPECIAL_TYPES = {
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
}

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")
_RESERVED_IDS = frozenset({"thumbs", "avatar"})
"""First parts of other keys of an instance."""

_TRASH_SUFFIX = re.compile(r" \(\d{9}\)$")
"""What a Cozy appends to a name that is taken in its trash."""

_VERSION_COMPUTED = frozenset({"_id", "_rev", "updated_at", "size", "md5sum", "relationships"})
_NOT_FIELDS = COMPUTED | {"restore_path", "target"}
_TIMES = ("atime", "mtime", "ctime", "btime")


@dataclass(frozen=True, slots=True)
class TrashNote:
    """What the trash remembers of what was put there as such."""

    trashed_ns: int
    restore_path: bytes
    name: bytes


@dataclass(frozen=True, slots=True)
class Entity:
    """A document of a directory, a file or a special file, parsed and checked."""

    doc_id: str
    dir_id: str  # "" for the root
    name: bytes  # b"" for the root
    mode: int
    uid: int | None
    gid: int | None
    rdev: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    size: int
    md5: bytes | None
    extents: bytes | None  # b"[]": zeros alone, there is no object
    target: bytes | None
    fields: dict[str, Any]
    links: list[tuple[str, bytes]] = field(default_factory=list)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    trash: TrashNote | None = None

    @property
    def data_size(self) -> int:
        """Bytes of the content in an archive."""
        return content_size(self.size, self.extents)


@dataclass(frozen=True, slots=True)
class VersionEntity:
    """A document of a version, parsed and checked."""

    doc_id: str
    internal_id: str
    created_ns: int
    updated_ns: int
    size: int
    md5: bytes | None
    extents: bytes | None
    fields: dict[str, Any]

    @property
    def data_size(self) -> int:
        return content_size(self.size, self.extents)


def content_size(size: int, extents: bytes | None) -> int:
    """Bytes of a content without its holes."""
    if extents is None:
        return size
    return sum(extent.length for extent in extents_of.decode(extents))


# ---- from the index


def document_of(
    index: Index, inode: Inode, path: str, parent: Inode | None, name: bytes
) -> dict[str, Any]:
    """Of an inode as it is called *name* in *parent*; None for the root."""
    place = {} if parent is None else {"name": decode(name), "dir_id": parent.doc_id}
    fields = index.document(inode.ino)
    if stat.S_ISDIR(inode.mode):
        document = directory_document(inode, path, place)
    elif stat.S_ISREG(inode.mode):
        document = file_document(inode, path, place)
        document.pop("internal_vfs_id", None)
    else:
        document = _special(inode, place)
    document = {**DEFAULTS.get(document["type"], {}), **fields, **document}
    document["metadata"] = {**fields.get("metadata", {}), OURS: _posix(index, inode, parent, name)}
    item = index.trash_item(inode.ino)
    if item is not None:
        document["restore_path"] = _text(item.restore_path)
    return document


def version_document(version: Version) -> dict[str, Any]:
    fields = version.document
    ours: dict[str, Any] = {
        "created": str(version.created_ns),
        "updated": str(version.updated_ns),
    }
    if version.extents is not None:
        ours["extents"] = json.loads(version.extents)
    document = {
        **fields,
        "_id": f"{version.doc_id}/{version.internal_id}",
        "updated_at": format_time(version.updated_ns),
        "size": str(version.size),
        "tags": fields.get("tags"),
        "metadata": {**(fields.get("metadata") or {}), OURS: ours},
        "relationships": {"file": {"data": {"_id": version.doc_id, "_type": "io.cozy.files"}}},
    }
    if version.md5 is not None:
        document["md5sum"] = base64.b64encode(version.md5).decode()
    return document


def encode(document: dict[str, Any]) -> bytes:
    """The same document has the same bytes, everywhere."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode() + b"\n"


def _special(inode: Inode, place: dict[str, str]) -> dict[str, Any]:
    kind = stat.S_IFMT(inode.mode)
    (type_name,) = (name for name, value in SPECIAL_TYPES.items() if value == kind)
    document: dict[str, Any] = {"_id": inode.doc_id, "type": type_name, **place, **times_of(inode)}
    if inode.target is not None:
        document["target"] = quote_from_bytes(inode.target, safe="/ ._-+:@,()")
    return document


def _posix(index: Index, inode: Inode, parent: Inode | None, name: bytes) -> dict[str, Any]:
    ours: dict[str, Any] = {
        "mode": f"{inode.mode:o}",
        "uid": inode.uid,
        "gid": inode.gid,
        "atime": str(inode.atime_ns),
        "mtime": str(inode.mtime_ns),
        "ctime": str(inode.ctime_ns),
        "btime": str(inode.btime_ns),
    }
    if inode.rdev:
        ours["rdev"] = inode.rdev
    if inode.nlink > 1 and not stat.S_ISDIR(inode.mode):
        here = None if parent is None else (parent.ino, name)
        ours["links"] = sorted(
            [index.get(above).doc_id, decode(other)]
            for above, other in index.entries_of(inode.ino)
            if (above, other) != here
        )
    xattrs = {
        quote_from_bytes(attribute): base64.b64encode(
            index.get_xattr(inode.ino, attribute)
        ).decode()
        for attribute in index.list_xattrs(inode.ino)
    }
    if xattrs:
        ours["xattrs"] = xattrs
    item = index.trash_item(inode.ino)
    if item is not None:
        ours["trash"] = {
            "at": str(item.trashed_ns),
            "restore_path": _text(item.restore_path),
            "name": _text(item.name),
        }
    if stat.S_ISREG(inode.mode):
        if inode.extents is not None:
            ours["extents"] = json.loads(inode.extents)
        elif inode.internal_id is None and inode.size:
            ours["extents"] = []
    return ours


def _text(path: bytes) -> str:
    return path.decode()


def link_paths(index: Index, ino: Ino) -> list[bytes]:
    """Every path of an inode, the first of which is the one that it moves under."""
    paths: list[bytes] = []
    for parent, name in index.entries_of(ino):
        above = b"" if parent == ROOT_INO else index.path_of(parent)
        paths.append(above + b"/" + name)
    return sorted(paths)


# ---- from an archive


def parse(document: dict[str, Any], *, keep_certified: bool) -> Entity:
    """Raises ArchiveError for a document that could not have come from an instance."""
    try:
        return _parse(document, keep_certified)
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as exc:
        raise ArchiveError(f"a document of the archive is damaged: {_named(document)}") from exc
    except ArchiveError:
        raise
    except CozyError as exc:
        raise ArchiveError(f"{exc}: {_named(document)}") from exc


def parse_version(document: dict[str, Any]) -> VersionEntity:
    """As :func:`parse`."""
    try:
        return _parse_version(document)
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as exc:
        raise ArchiveError(f"a version in the archive is damaged: {_named(document)}") from exc
    except ArchiveError:
        raise
    except CozyError as exc:
        raise ArchiveError(f"{exc}: {_named(document)}") from exc


def check_id(doc_id: object) -> str:
    """Raises ArchiveError for what would make other keys than those of contents."""
    if not isinstance(doc_id, str) or not _ID.fullmatch(doc_id) or doc_id in _RESERVED_IDS:
        raise ArchiveError(f"{str(doc_id)[:60]!r} in the archive is no id of a document")
    return doc_id


def _named(document: dict[str, Any]) -> str:
    name = document.get("path") or document.get("name") or document.get("_id")
    return repr(str(name)[:200])


def _parse(document: dict[str, Any], keep_certified: bool) -> Entity:
    doc_id = check_id(document["_id"])
    metadata = dict(document.get("metadata") or {})
    ours = dict(metadata.pop(OURS, None) or {})
    if not keep_certified:
        metadata = {key: value for key, value in metadata.items() if key not in CERTIFIED}
    name = str(document.get("name", "")).encode()
    if doc_id == ROOT_DOC_ID:
        name = b""
    elif doc_id != TRASH_DOC_ID:
        check_name(name)
    created, updated = parse_time(document["created_at"]), parse_time(document["updated_at"])
    atime, mtime, ctime, btime = (
        int(ours[time]) if time in ours else default
        for time, default in zip(_TIMES, (updated, updated, updated, created), strict=True)
    )
    is_file = document["type"] == "file"
    size = _natural(document["size"]) if is_file else 0
    extents = _extents(ours, size) if is_file else None
    target = document.get("target") if document["type"] == "symlink" else None
    kept = {key: value for key, value in document.items() if key not in _NOT_FIELDS}
    kept.pop("metadata", None)
    if metadata:
        kept["metadata"] = metadata
    if kept.get("encrypted") is False:  # a default, which is not kept
        del kept["encrypted"]
    json.dumps(kept, ensure_ascii=False).encode()  # half of a surrogate pair cannot be stored
    return Entity(
        doc_id=doc_id,
        dir_id="" if doc_id == ROOT_DOC_ID else check_id(document["dir_id"]),
        name=name,
        mode=_mode(document, ours),
        uid=_owner(ours, "uid"),
        gid=_owner(ours, "gid"),
        rdev=_natural(ours.get("rdev", 0)),
        atime_ns=_time(atime),
        mtime_ns=_time(mtime),
        ctime_ns=_time(ctime),
        btime_ns=_time(btime),
        size=size,
        md5=_md5(document) if is_file else None,
        extents=extents,
        target=None if target is None else unquote_to_bytes(str(target)),
        fields={key: value for key, value in kept.items() if value not in (None, [], {})},
        links=list(_links(ours.get("links", []))),
        xattrs={
            unquote_to_bytes(str(key)): base64.b64decode(value, validate=True)
            for key, value in dict(ours.get("xattrs", {})).items()
        },
        trash=_trash(document, ours, name, updated),
    )


def _parse_version(document: dict[str, Any]) -> VersionEntity:
    doc_id, _, internal_id = str(document["_id"]).partition("/")
    metadata = dict(document.get("metadata") or {})
    ours = dict(metadata.pop(OURS, None) or {})
    updated = parse_time(document["updated_at"])
    made = (document.get("cozyMetadata") or {}).get("createdAt")
    created = int(ours["created"]) if "created" in ours else parse_time(made or "")
    kept = {key: value for key, value in document.items() if key not in _VERSION_COMPUTED}
    kept.pop("metadata", None)
    if metadata:
        kept["metadata"] = metadata
    json.dumps(kept, ensure_ascii=False).encode()
    size = _natural(document["size"])
    return VersionEntity(
        doc_id=check_id(doc_id),
        internal_id=check_id(internal_id),
        created_ns=_time(created),
        updated_ns=_time(int(ours.get("updated", updated))),
        size=size,
        md5=_md5(document),
        extents=_extents(ours, size),
        fields={key: value for key, value in kept.items() if value is not None},
    )


def _mode(document: dict[str, Any], ours: dict[str, Any]) -> int:
    kind = document["type"]
    if kind == "directory":
        return stat.S_IFDIR | _permissions(ours, 0o755)
    if kind == "file":
        default = 0o755 if document.get("executable") else 0o644
        return stat.S_IFREG | _permissions(ours, default)
    return SPECIAL_TYPES[kind] | _permissions(ours, 0o777 if kind == "symlink" else 0o644)


def _permissions(ours: dict[str, Any], default: int) -> int:
    return int(ours["mode"], 8) & 0o7777 if "mode" in ours else default


def _owner(ours: dict[str, Any], name: str) -> int | None:
    return _natural(ours[name], 2**32 - 1) if name in ours else None


def _natural(value: object, most: int = 2**63 - 1) -> int:
    number = int(str(value))
    if not 0 <= number <= most:
        raise ValueError(value)
    return number


def _time(time_ns: int) -> int:
    if not -(2**63) <= time_ns < 2**63:
        raise ValueError(time_ns)
    return time_ns


def _md5(document: dict[str, Any]) -> bytes | None:
    if not document.get("md5sum"):
        return None
    md5 = base64.b64decode(document["md5sum"], validate=True)
    if len(md5) != 16:
        raise ValueError("md5sum")
    return md5


def _extents(ours: dict[str, Any], size: int) -> bytes | None:
    if "extents" not in ours:
        return None
    end, found = 0, []
    for start, length in ours["extents"]:
        if not (isinstance(start, int) and isinstance(length, int)):
            raise TypeError("extents")
        if start < end or length <= 0 or start + length > size:
            raise ValueError("extents")
        end = start + length
        found.append(extents_of.Extent(start, length))
    return extents_of.encode(found)


def _links(pairs: Iterable[Any]) -> Iterable[tuple[str, bytes]]:
    for dir_id, text in pairs:
        name = str(text).encode()
        check_name(name)
        yield check_id(dir_id), name


def _trash(
    document: dict[str, Any], ours: dict[str, Any], name: bytes, updated: int
) -> TrashNote | None:
    known = ours.get("trash")
    if known is not None:
        original = str(known["name"]).encode()
        check_name(original)
        return TrashNote(_time(int(known["at"])), str(known["restore_path"]).encode(), original)
    if document.get("dir_id") != TRASH_DOC_ID:
        return None
    at = (document.get("cozyMetadata") or {}).get("trashedAt")
    return TrashNote(
        parse_time(at) if at else updated,
        str(document.get("restore_path") or "/").encode(),
        _TRASH_SUFFIX.sub("", name.decode()).encode(),
    )
