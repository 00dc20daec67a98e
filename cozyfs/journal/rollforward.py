"""Contents that were stored after the last change the journal knows of, put back into the tree.

A machine that dies between storing an object and storing the journal leaves an object that no row
names. Its metadata says which document it is, where that was, and how (`cozyfs-id` and the others
that cozyfs.vfs writes), so it can be attached: as the new content of its file, or as a file.

:func:`find` looks for such objects, :func:`plan` decides without changing anything, :func:`apply`
changes the tree. Before a mount answers requests; nothing else changes the index meanwhile.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from stat import S_IFREG, S_ISDIR, S_ISREG
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import trio

from cozyfs.errors import CozyError, ObjectNotFound
from cozyfs.index import MARKERS
from cozyfs.store.keys import object_key, parse_object_name
from cozyfs.values import Content, Ino, Inode
from cozyfs.vfs.names import check_name
from cozyfs.vfs.orphans import place_for
from cozyfs.vfs.versions import keep_former

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cozyfs.index import Index
    from cozyfs.journal.objects import JournalObjects
    from cozyfs.store.base import ObjectInfo

log = logging.getLogger(__name__)

MARGIN_S = 3_600.0
"""How much earlier than the tree's last known moment an object may have been stored and still be
news: uploads take their time, and clocks of the store and of machines differ."""

PARALLEL_HEADS = 16

_NO_CONTENTS = (".cozyfs/", "thumbs/")
"""What keys begin with, after the prefix of the instance, that are of no document's content."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object that no row names."""

    doc_id: str
    internal_id: str
    info: ObjectInfo  # of HEAD
    extents: bytes | None = None

    @property
    def stored_at(self) -> tuple[float, int]:
        """Sorts by age; the second tells apart what the store dates to the same second."""
        modified = self.info.last_modified
        return (modified.timestamp() if modified else 0.0, self.mtime_ns)

    @property
    def mtime_ns(self) -> int:
        return _integer(self.info.metadata.get("cozyfs-mtime", ""), 10)

    @property
    def content(self) -> Content:
        etag, size = self.info.etag, self.info.size
        # Of a single PUT the ETag is the MD5; of a multipart upload it contains a dash.
        is_md5 = len(etag) == 32 and self.extents is None
        try:
            md5 = bytes.fromhex(etag) if is_md5 else None
        except ValueError:
            md5 = None
        logical = int(self.info.metadata["cozyfs-size"]) if self.extents is not None else size
        return Content(
            self.internal_id, logical, size, md5, etag, self.extents, doc_id=self.doc_id
        )


@dataclass(frozen=True, slots=True)
class NewContent:
    """For a file that is in the tree."""

    ino: Ino
    found: Found


@dataclass(frozen=True, slots=True)
class NewFile:
    """For a document that is not in the tree. *parent* None: into the directory of orphans.
    *doc_id*: as another document, since its own has a file."""

    parent: Ino | None
    name: bytes
    mode: int
    found: Found
    doc_id: str | None = None


@dataclass(slots=True)
class Plan:
    """What :func:`apply` would do."""

    contents: list[NewContent] = field(default_factory=list)
    files: list[NewFile] = field(default_factory=list)
    superseded: list[Found] = field(default_factory=list)
    """Older than what their file has, or than another object found: queued for deletion."""
    unknown: list[str] = field(default_factory=list)
    """Keys of objects without the metadata that would tell what they are: left alone."""

    def __bool__(self) -> bool:
        return bool(self.contents or self.files or self.superseded)


async def find(
    index: Index, objects: JournalObjects, since_ns: int | None
) -> tuple[list[Found], list[str]]:
    """The objects that no row names and that do not wait for deletion, and the keys of those
    that do not say what they are. Only what was stored after *since_ns* (when what the tree knows
    last was made) less an hour is looked at; None: everything. Raises StoreError."""
    earliest = None if since_ns is None else since_ns / 1e9 - MARGIN_S

    def candidates() -> list[tuple[str, str]]:
        listed = objects.store.list(objects.bucket, f"{objects.db_prefix}/")
        return list(_candidates(listed, objects.db_prefix, earliest))

    names = await objects.caller.store(candidates)
    unnamed = [name for name in names if not index.is_held(*name) and not index.is_queued(*name)]
    found: list[Found] = []
    unknown: list[str] = []
    limit = trio.CapacityLimiter(PARALLEL_HEADS)

    async def look(doc_id: str, internal_id: str) -> None:
        async with limit:
            seen = await identify(objects, doc_id, internal_id)
        if isinstance(seen, Found):
            found.append(seen)
        elif seen is not None:
            unknown.append(seen)

    async with trio.open_nursery() as nursery:
        for name in unnamed:
            nursery.start_soon(look, *name)
    return found, sorted(unknown)


async def plan(index: Index, objects: JournalObjects, since_ns: int | None) -> Plan:
    """What to do about the objects that :func:`find` finds. Changes nothing. Raises StoreError."""
    found, unknown = await find(index, objects, since_ns)
    made = Plan(unknown=unknown)
    newest: dict[str, Found] = {}
    for each in sorted(found, key=lambda each: each.stored_at):
        if (older := newest.get(each.doc_id)) is not None:
            made.superseded.append(older)
        newest[each.doc_id] = each
    parents = {each.info.metadata.get("cozyfs-parent", "") for each in newest.values()}
    inodes = index.with_doc_ids(newest.keys() | parents)
    for doc_id, each in newest.items():
        inode = inodes.get(doc_id)
        if inode is None:
            made.files.append(new_file(each, inodes))
        elif await _is_newer(objects, inode, each):
            made.contents.append(NewContent(inode.ino, each))
        else:
            made.superseded.append(each)
    return made


def apply(index: Index, made: Plan, *, uid: int, gid: int, now_ns: int) -> list[bytes]:
    """Carry out a plan, one transaction for each file; returns the paths of what was attached.
    *uid* and *gid* own the directory of orphans and what is in it; a file elsewhere belongs to
    its directory's owner."""
    paths: list[bytes] = []
    for content in made.contents:
        with index.transaction():
            # Whatever the rules of versions: who wrote it, and when, is not known here.
            keep_former(index, content.ino, now_ns)
            inode = _set_content(index, content.ino, content.found, now_ns)
        paths.append(_path(index, inode))
    for new in made.files:
        with index.transaction():
            paths.append(_path(index, _make_file(index, new, uid, gid, now_ns)))
    with index.transaction():
        for found in made.superseded:
            index.queue_deletion(found.doc_id, found.internal_id, now_ns)
    for path in paths:
        log.info("%r was stored but not in the journal: attached", path)
    return paths


# ---- finding


def _candidates(
    listed: Iterable[ObjectInfo], db_prefix: str, earliest: float | None
) -> Iterable[tuple[str, str]]:
    prefix = f"{db_prefix}/"
    for info in listed:
        name = info.key.removeprefix(prefix)
        if name.startswith(_NO_CONTENTS):
            continue
        modified = info.last_modified
        if earliest is not None and modified is not None and modified.timestamp() < earliest:
            continue
        doc_id, internal_id = parse_object_name(name)
        if internal_id and "/" not in internal_id and internal_id not in MARKERS:
            yield doc_id, internal_id


async def identify(objects: JournalObjects, doc_id: str, internal_id: str) -> Found | str | None:
    """What an object is; the key of one that does not say what it is; None when it is gone."""
    key = object_key(objects.db_prefix, doc_id, internal_id)
    call, store, bucket = objects.caller.store, objects.store, objects.bucket
    try:
        info = await call(store.head, bucket, key)
        metadata = info.metadata
        if metadata.get("cozyfs-id") != doc_id or not is_complete(info):
            return key
        extents = None
        if "cozyfs-trailer" in metadata:
            # A content with holes: its data back to back, then the list of where they belong.
            start = info.size - int(metadata["cozyfs-trailer"])
            extents = await call(store.get, bucket, key, start, info.size)
    except ObjectNotFound:
        return None
    return Found(doc_id, internal_id, info, extents)


def is_complete(info: ObjectInfo) -> bool:
    metadata = info.metadata
    try:
        check_name(_name(metadata["cozyfs-name"]))
        names = [name for name in ("cozyfs-size", "cozyfs-trailer") if name in metadata]
        sizes = [int(metadata[name]) for name in names]
    except (CozyError, KeyError, ValueError):
        return False
    is_regular = S_ISREG(_integer(metadata.get("cozyfs-mode", ""), 8))
    return is_regular and len(sizes) in (0, 2) and all(size >= 0 for size in sizes)


async def _is_newer(objects: JournalObjects, inode: Inode, found: Found) -> bool:
    """Than what the file has now."""
    if not S_ISREG(inode.mode):
        return False
    if inode.internal_id is None:
        return True
    key = object_key(objects.db_prefix, inode.content_doc_id, inode.internal_id)
    try:
        info = await objects.caller.store(objects.store.head, objects.bucket, key)
    except ObjectNotFound:
        return True
    return found.stored_at > Found(inode.doc_id, inode.internal_id, info).stored_at


# ---- planning


def new_file(found: Found, inodes: dict[str, Inode]) -> NewFile:
    """Where a file is made of *found*, whose metadata are complete: in the directory they name,
    if it is among *inodes* (by document)."""
    metadata = found.info.metadata
    parent = inodes.get(metadata.get("cozyfs-parent", ""))
    is_live = parent is not None and S_ISDIR(parent.mode) and parent.nlink > 0
    ino = parent.ino if parent is not None and is_live else None
    mode = S_IFREG | _integer(metadata["cozyfs-mode"], 8) & 0o7777
    return NewFile(ino, _name(metadata["cozyfs-name"]), mode, found)


# ---- applying


def _make_file(index: Index, new: NewFile, uid: int, gid: int, now_ns: int) -> Inode:
    name, parent = new.name, new.parent
    if parent is None or index.has(parent, name):
        parent, name = place_for(index, name, uid=uid, gid=gid, now_ns=now_ns)
    else:
        directory = index.get(parent)
        uid, gid = directory.uid, directory.gid
    inode = index.make(
        parent,
        name,
        new.mode,
        uid=uid,
        gid=gid,
        doc_id=new.doc_id or new.found.doc_id,
        now_ns=now_ns,
    )
    return _set_content(index, inode.ino, new.found, now_ns)


def _set_content(index: Index, ino: Ino, found: Found, now_ns: int) -> Inode:
    return index.set_content(
        ino,
        found.content,
        mtime_ns=found.mtime_ns or now_ns,
        ctime_ns=now_ns,
        now_ns=now_ns,
    )


def _path(index: Index, inode: Inode) -> bytes:
    return index.path_of(inode.ino) if inode.nlink else b"(removed)"


def _name(text: str) -> bytes:
    return unquote_to_bytes(text)


def _integer(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        return 0
