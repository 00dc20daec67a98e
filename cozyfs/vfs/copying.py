"""Copies of files within an instance, and from another one on the same server, made by the store:
no content travels.

A copy is a new file: document id, internal id and object are its own. The order is that of an
upload: the object first, then one index transaction. What must not be left behind when the
process dies in between, or the transaction fails, is queued for deletion before it is made; the
transaction takes it off the queue again.

The object keeps the user metadata of its source, as CopyObject does, so its key and not its
metadata says whose it is.

On the event loop; the copy itself runs in a thread of `Caller`.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from cozyfs.errors import (
    AlreadyExists,
    CozyError,
    InvalidRequest,
    IsADirectory,
    NotFound,
    ObjectNotFound,
    ReadOnly,
)
from cozyfs.index import Deletion
from cozyfs.store.keys import new_doc_id, new_internal_id
from cozyfs.values import Content, Ino, Inode
from cozyfs.vfs.documents import fields_of_copy
from cozyfs.vfs.files import without_set_ids
from cozyfs.vfs.filesystem import CAPABILITY
from cozyfs.vfs.names import check_name, conflict_name, copy_name, decode
from cozyfs.vfs.object_copy import copy_object

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cozyfs.vfs.filesystem import FileSystem

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Original:
    """A file to be copied: where its content is, and what goes along. Its object stays as long
    as it is lent (:func:`lend`)."""

    name: bytes
    bucket: str
    key: str | None  # None: it has no content
    size: int  # bytes
    stored: int  # of the object
    md5: bytes | None
    extents: bytes | None
    mode: int
    uid: int
    gid: int
    xattrs: tuple[tuple[bytes, bytes], ...]
    fields: dict[str, Any]  # of its document


LONGEST_COPY_NS = 7 * 86400 * 10**9
"""A copy whose process died is deleted after a week: no copy that is being made takes as long,
and a week of one unreferenced object costs little."""

CLEANUP_S = 10.0

ATTEMPTS = 3
"""How often a source may be replaced, and its old object deleted, under our hands."""


async def copy_file(
    fs: FileSystem,
    source: Ino,
    parent: Ino,
    name: bytes | None = None,
    *,
    uid: int | None = None,
    gid: int | None = None,
    clock: Callable[[], int] = time.time_ns,
) -> Inode:
    """A copy of the file *source* in *parent*. What was written to the source and is not in the
    store yet is stored first. Without *name* it is called like its source, with `` (copy)``
    before the extension, and a number where that is taken too.

    Keeps content, permission bits without set-id, extended attributes (not capabilities), tags
    and metadata; its times are now; its owner is *uid* and *gid*, else those of the source.
    Raises AlreadyExists, NotFound, IsADirectory, IllegalName, ReadOnly, QuotaExceeded,
    UploadFailed, and StoreError; in all cases nothing of it is left.
    """
    _refuse_other_kinds(fs.get(source))
    for attempt in range(1, ATTEMPTS + 1):
        async with lend(fs, source) as original:
            content = fs.index.get(source).internal_id
            wanted = free_copy_name(fs, source, parent) if name is None else name
            try:
                return await copy_in(fs, original, parent, wanted, uid=uid, gid=gid, clock=clock)
            except ObjectNotFound:
                if fs.index.get(source).internal_id == content or attempt == ATTEMPTS:
                    raise
            except AlreadyExists:
                if name is not None or attempt == ATTEMPTS:
                    raise
    raise AssertionError("unreachable")


@asynccontextmanager
async def lend(fs: FileSystem, source: Ino) -> AsyncIterator[Original]:
    """The file *source* as it is now, for a copy of it. What was written to it and is not in the
    store yet is stored first. Raises NotFound, IsADirectory, InvalidRequest, UploadFailed,
    StoreError."""
    _refuse_other_kinds(fs.get(source))
    # A handle, so that a source that is removed meanwhile keeps its object.
    handle = await fs.files.open(source, os.O_RDONLY, 0)
    try:
        if not fs.read_only:
            await fs.files.fsync(handle.fh)
        index, objects = fs.index, fs.objects
        inode, names = index.get(source), index.entries_of(source)
        key = inode.internal_id and objects.key(inode.content_doc_id, inode.internal_id)
        attributes = [name for name in index.list_xattrs(source) if name != CAPABILITY]
        yield Original(
            names[0][1] if names else b"",
            objects.bucket,
            key,
            inode.size,
            inode.stored,
            inode.md5,
            inode.extents,
            without_set_ids(inode.mode),
            inode.uid,
            inode.gid,
            tuple((name, index.get_xattr(source, name)) for name in attributes),
            fields_of_copy(index.document(source)),
        )
    finally:
        await fs.files.release(handle.fh)
        fs.released(source)


async def copy_in(
    fs: FileSystem,
    original: Original,
    parent: Ino,
    name: bytes,
    *,
    uid: int | None = None,
    gid: int | None = None,
    clock: Callable[[], int] = time.time_ns,
) -> Inode:
    """A copy of *original*, of this or of another instance on this server. Raises as
    :func:`copy_file`, and ObjectNotFound when its object is gone by now."""
    if fs.read_only:
        raise ReadOnly("the mount is read-only")
    fs.trash.refuse_new_in(parent)
    # Before anything is copied; the transaction looks again.
    check_name(name)
    if fs.index.has(parent, name):
        raise AlreadyExists(f"'{decode(name)}' exists already")
    fs.index.get(parent)
    with fs.quota.reserved(original.size):
        copy = await _Copy(fs, original, parent, name, uid, gid, clock).make()
    fs.quota.tell()
    return copy


def free_copy_name(fs: FileSystem, source: Ino, parent: Ino) -> bytes:
    """What a copy of *source* is called in *parent* if nobody says. Raises NotFound."""
    names = fs.index.entries_of(source)
    if not names:
        raise NotFound(f"inode {source} was removed")
    wanted = copy_name(decode(names[0][1]))

    def taken(name: str) -> bool:
        return fs.index.has(parent, name.encode())

    return (conflict_name(wanted, True, taken) if taken(wanted) else wanted).encode()


class _Copy:
    """One attempt."""

    def __init__(
        self,
        fs: FileSystem,
        original: Original,
        parent: Ino,
        name: bytes,
        uid: int | None,
        gid: int | None,
        clock: Callable[[], int],
    ) -> None:
        self._fs = fs
        self._original = original
        self._parent = parent
        self._name = name
        self._uid = original.uid if uid is None else uid
        self._gid = original.gid if gid is None else gid
        self._clock = clock
        now = clock()
        self._doc_id = new_doc_id(now)
        self._internal_id = new_internal_id()
        self._queued = Deletion(self._doc_id, self._internal_id, now + LONGEST_COPY_NS)

    async def make(self) -> Inode:
        original, objects = self._original, self._fs.objects
        if original.key is None:
            return self._enter(None)
        self._fs.index.queue_deletion(*self._queued)
        try:
            etag = await copy_object(
                objects,
                original.key,
                objects.key(self._doc_id, self._internal_id),
                original.stored,
                bucket=original.bucket,
            )
            return self._enter(etag)
        except BaseException:
            await self._undo()
            raise

    def _enter(self, etag: str | None) -> Inode:
        """The transaction: the copy's name, content, attributes and document."""
        index, original, now = self._fs.index, self._original, self._clock()
        above = index.get(self._parent)
        content = Content(
            None if etag is None else self._internal_id,
            original.size,
            original.stored,
            original.md5,
            etag,
            original.extents,
        )
        with index.transaction():
            if etag is not None:
                index.forget_deletions([self._queued])
            ino = index.make(
                self._parent,
                self._name,
                original.mode,
                uid=self._uid,
                gid=above.gid if above.mode & stat.S_ISGID else self._gid,
                doc_id=self._doc_id,
                now_ns=now,
            ).ino
            for attribute, value in original.xattrs:
                index.set_xattr(ino, attribute, value, now_ns=now)
            index.set_document(ino, original.fields)
            inode = index.set_content(ino, content, mtime_ns=now, ctime_ns=now, now_ns=now)
        self._fs.has_new_content(ino)
        return inode

    async def _undo(self) -> None:
        """Delete the object, which may be there; what cannot be deleted now stays queued."""
        objects = self._fs.objects
        with trio.move_on_after(CLEANUP_S, shield=True):
            try:
                key = objects.key(self._doc_id, self._internal_id)
                await objects.caller.store(objects.store.delete, objects.bucket, key)
                self._fs.index.forget_deletions([self._queued])
            except CozyError as exc:
                log.warning("a copy that failed is deleted later: %s", exc)


def _refuse_other_kinds(inode: Inode) -> None:
    if stat.S_ISDIR(inode.mode):
        raise IsADirectory("a directory cannot be copied as one file")
    if not stat.S_ISREG(inode.mode):
        raise InvalidRequest("only files can be copied by the store")
