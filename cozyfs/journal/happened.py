"""What one journal object did to some files: read off the tree before and after it.

One object holds all transactions of an interval, merged: of what happened within it only the
outcome is known. A file that was made and removed within one leaves no trace.

Works on an index that nobody else uses, whose journal is applied object by object; blocks on the
disk. Which objects there are, and whose files are asked for, is in `cozyfs.journal.log`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from stat import S_IMODE, S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, Any, NamedTuple

from cozyfs.errors import NotFound
from cozyfs.index.changeset import rows_in
from cozyfs.values import TRASH_NAME, Ino

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cozyfs.index import Index
    from cozyfs.index.changeset import RowChange
    from cozyfs.values import Inode

Name = tuple[Ino, bytes]
"""A directory and a name in it."""

_BY_INO = frozenset({"inodes", "xattrs", "documents", "trash"})


class Event(NamedTuple):
    """One thing that happened to one file."""

    what: str
    """created, content, renamed, trashed, restored, linked, unlinked, replaced, removed,
    attributes, times, xattr, tags, version, version removed."""
    path: bytes  # after it; of what is gone, before
    ino: Ino
    details: Mapping[str, Any]  # for JSON, by what happened


@dataclass(slots=True)
class Touched:
    """What a changeset has about each inode, and nothing that needs a tree."""

    inos: set[Ino] = field(default_factory=set)
    gone_names: dict[Ino, list[Name]] = field(default_factory=dict)
    by_name: dict[Name, set[Ino]] = field(default_factory=dict)
    """Entries that were made, removed or turned: the inodes before and after."""
    xattrs: dict[Ino, list[RowChange]] = field(default_factory=dict)
    tags: set[Ino] = field(default_factory=set)
    versions: list[RowChange] = field(default_factory=list)


def touched_by(changeset: bytes) -> Touched:
    """Raises JournalDamaged."""
    touched = Touched()
    for row in rows_in(changeset):
        if row.table == "entries":
            _note_entry(touched, row)
        elif row.table == "versions":
            touched.versions.append(row)
        elif row.table in _BY_INO:
            ino = row.old.get("ino", row.new.get("ino"))
            touched.inos.add(ino)
            if row.table == "xattrs":
                touched.xattrs.setdefault(ino, []).append(row)
            elif row.table == "documents":
                touched.tags.add(ino)
    return touched


def _note_entry(touched: Touched, row: RowChange) -> None:
    key = row.old if row.old else row.new
    name = (key["parent"], key["name"])
    inos = {side["ino"] for side in (row.old, row.new) if "ino" in side}
    touched.by_name.setdefault(name, set()).update(inos)
    touched.inos |= inos
    if "ino" in row.old:
        touched.gone_names.setdefault(row.old["ino"], []).append(name)


class State(NamedTuple):
    """What the tree says of an inode at one time."""

    inode: Inode | None
    names: frozenset[Name]
    path: bytes  # by any one name; empty where there is none
    paths: Mapping[Name, bytes]  # of names that are about to go


def state_of(index: Index, ino: Ino, touched: Touched) -> State:
    try:
        inode = index.get(ino)
        names = frozenset(index.entries_of(ino))
    except NotFound:
        return State(None, frozenset(), b"", {})
    going = {name: _path(index, name) for name in touched.gone_names.get(ino, [])}
    path = index.path_of(ino) if names or ino == 1 else b""
    return State(inode, names, path, going)


def _path(index: Index, name: Name) -> bytes:
    try:
        return index.path_of(name[0]).rstrip(b"/") + b"/" + name[1]
    except NotFound:
        return b"?/" + name[1]


def events_of(
    index: Index, ino: Ino, before: State, after: State, touched: Touched
) -> Iterator[Event]:
    """What happened to *ino*, whose states these are; *index* is as after."""
    there, here = before.inode, after.inode
    was, is_ = there is not None and there.nlink > 0, here is not None and here.nlink > 0
    path = after.path or before.path
    if is_ and here is not None and not was:
        details = {"size": here.size} if S_ISREG(here.mode) else {}
        yield Event("created", path, ino, details)
    elif was:
        yield from _naming(index, ino, before, after)
    if was and is_ and there is not None and here is not None:
        yield from _changes(ino, path, there, here)
    if is_:
        for row in touched.xattrs.get(ino, []):
            name = row.old.get("name", row.new.get("name"))
            how = {"INSERT": "set", "UPDATE": "changed", "DELETE": "removed"}[row.op]
            yield Event("xattr", path, ino, {"name": text(name), "how": how})
        if was and ino in touched.tags:
            yield Event("tags", path, ino, {})
    documents = {inode.doc_id for inode in (there, here) if inode is not None}
    yield from _versions(ino, path, documents, touched)


def _naming(index: Index, ino: Ino, before: State, after: State) -> Iterator[Event]:
    gone = sorted(before.names - after.names)
    come = sorted(after.names - before.names)
    for name, new in zip(gone, come, strict=False):
        old_path, new_path = before.paths.get(name, b"?"), _path(index, new)
        into, out_of = _in_trash(new_path), _in_trash(old_path)
        what = "renamed" if into == out_of else "trashed" if into else "restored"
        yield Event(what, new_path, ino, {"from": text(old_path)})
    for new in come[len(gone) :]:
        yield Event("linked", _path(index, new), ino, {})
    for name in gone[len(come) :]:
        what = "unlinked" if after.names else "removed"
        if not after.names and index.has(*name):
            what = "replaced"
        yield Event(what, before.paths.get(name, b"?"), ino, {})


def _in_trash(path: bytes) -> bool:
    return path.startswith(b"/" + TRASH_NAME + b"/")


def _changes(ino: Ino, path: bytes, there: Inode, here: Inode) -> Iterator[Event]:
    content = (there.internal_id, there.size, there.md5) != (here.internal_id, here.size, here.md5)
    if content and S_ISREG(here.mode):
        yield Event("content", path, ino, {"old_size": there.size, "size": here.size})
    details: dict[str, Any] = {}
    if there.mode != here.mode:
        details |= {"old_mode": f"{S_IMODE(there.mode):04o}", "mode": f"{S_IMODE(here.mode):04o}"}
    if (there.uid, there.gid) != (here.uid, here.gid):
        details |= {"old_owner": f"{there.uid}:{there.gid}", "owner": f"{here.uid}:{here.gid}"}
    if details:
        yield Event("attributes", path, ino, details)
    # Of a directory they follow from its entries, of a new content from the writing.
    times = (there.atime_ns, there.mtime_ns) != (here.atime_ns, here.mtime_ns)
    if times and not content and not S_ISDIR(here.mode):
        yield Event("times", path, ino, {"mtime_ns": here.mtime_ns})


def _versions(ino: Ino, path: bytes, documents: set[str], touched: Touched) -> Iterator[Event]:
    rows: dict[str, dict[str, RowChange]] = {"INSERT": {}, "DELETE": {}, "UPDATE": {}}
    for row in touched.versions:
        side = row.old or row.new
        rows[row.op].setdefault(side["internal_id"], row)
    for op, what in (("INSERT", "version"), ("DELETE", "version removed")):
        other = rows["DELETE" if op == "INSERT" else "INSERT"]
        for internal_id, row in rows[op].items():
            side = row.old or row.new
            # One that moved to another document, with its file, is as it was.
            if side["doc_id"] in documents and internal_id not in other:
                yield Event(what, path, ino, {"size": side["size"]})


def text(name: bytes) -> str:
    """For JSON and people."""
    return name.decode("utf-8", "surrogateescape")
