"""What people do with the versions of a file: list, read, restore, remove, import, tag.

A version is called by the time of its content, as ``2026-01-31T09:00:00Z``; of several of one
second the later ones have a number, ``2026-01-31T09:00:00Z~2``. The names are those of the view
`cozyfs.vfs.version_view`. Which contents become versions by themselves is `cozyfs.vfs.versions`.

On the event loop. Nothing here tells the kernel; on a mount, `cozyfs.fuse.versions` does.
"""

from __future__ import annotations

import base64
import logging
import os
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from cozyfs.errors import (
    Busy,
    CozyError,
    FileTooLarge,
    InvalidRequest,
    NotFound,
    ReadOnly,
)
from cozyfs.index import Deletion, Version
from cozyfs.store.base import MAX_PUT_SIZE
from cozyfs.store.body import FileBody, md5_of
from cozyfs.store.keys import new_internal_id
from cozyfs.values import Ino, Inode
from cozyfs.vfs.copying import CLEANUP_S, LONGEST_COPY_NS
from cozyfs.vfs.documents import format_time, unique_tags
from cozyfs.vfs.versions import encode_fields, keep_former, version_fields

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from pathlib import Path

    from cozyfs.vfs.filesystem import FileSystem

log = logging.getLogger(__name__)

ATTEMPTS = 5
"""How often a file may be written to again while its last content is being stored."""

_SECOND_NS = 10**9

_RESTORED = ("uploadedAt", "uploadedBy", "uploadedOn")
"""Fields of cozyMetadata that belong to a content."""


class Named(NamedTuple):
    """A version and what it is called."""

    name: str
    version: Version


def named(versions: Iterable[Version]) -> list[Named]:
    """The versions of one file with their names, in the order given: the oldest first."""
    seen: dict[str, int] = {}
    found = []
    for version in versions:
        name = format_time(version.updated_ns // _SECOND_NS * _SECOND_NS)
        seen[name] = number = seen.get(name, 0) + 1
        found.append(Named(name if number == 1 else f"{name}~{number}", version))
    return found


class History:
    """The versions of the files of *fs*."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._clock = fs.clock

    # ---- looking

    def of(self, ino: Ino) -> list[Named]:
        """The versions of a file, the oldest first. Raises NotFound,
        InvalidRequest for what is no file."""
        return named(self._fs.index.versions_of(self._file(ino).doc_id))

    def find(self, ino: Ino, name: str) -> Version:
        """The version that is called *name*; an empty name is the last one. Raises NotFound."""
        versions = self.of(ino)
        for each in reversed(versions):
            if name in ("", each.name):
                return each.version
        raise NotFound(f"there is no version {name}" if name else "there is no version")

    def document(self, version: Version) -> dict[str, Any]:
        """The io.cozy.files.versions document, without `_rev`."""
        document: dict[str, Any] = {
            "_id": f"{version.doc_id}/{version.internal_id}",
            "updated_at": format_time(version.updated_ns),
            "size": str(version.size),
            **version.document,
            "relationships": {"file": {"data": {"_id": version.doc_id, "_type": "io.cozy.files"}}},
        }
        if version.md5 is not None:
            document["md5sum"] = base64.b64encode(version.md5).decode()
        return document

    def read(self, version: Version) -> AsyncGenerator[bytes, None]:
        """The content, piece by piece, also when the version is removed meanwhile. Raises
        StoreError."""
        return self._fs.files.content(content_inode(version))

    # ---- changing

    async def restore(self, ino: Ino, version: Version) -> Inode:
        """Give the file the content of *version* again, with its time, tags and metadata; what
        it has now becomes a version, whatever the rules, and *version* is none any more. No
        object is touched. What was written to the file and is not in the store yet is stored
        first. Raises NotFound, ReadOnly, UploadFailed, Busy where somebody keeps writing."""
        self._check_writable()
        await self._store(ino)
        index, now = self._fs.index, self._clock()
        inode = self._file(ino)
        if version not in index.versions_of(inode.doc_id):
            raise NotFound("the version is gone")
        with index.transaction():
            keep_former(index, ino, now)
            index.set_content(
                ino, version.content, mtime_ns=version.updated_ns, ctime_ns=now, now_ns=now
            )
            index.remove_version(version, now)
            index.set_document(ino, _restored_fields(index.document(ino), version.document))
        self._fs.files.replaced(ino)
        self._fs.has_new_content(ino)
        return self._fs.get(ino)

    def remove(self, version: Version) -> None:
        """Its content goes for good, once the retention is over. Raises NotFound, ReadOnly."""
        self._check_writable()
        self._fs.index.remove_version(version, self._clock())

    def clear(self, ino: Ino) -> int:
        """Remove all versions of a file, those with tags too; returns how many there were."""
        self._check_writable()
        versions = self._fs.index.versions_of(self._file(ino).doc_id)
        now = self._clock()
        with self._fs.index.transaction():
            for version in versions:
                self._fs.index.remove_version(version, now)
        return len(versions)

    def set_tags(self, version: Version, tags: Iterable[str]) -> Version:
        """Other tags; a version that has any stays until it is removed. Returns it as it is
        after. Raises NotFound, ReadOnly."""
        self._check_writable()
        fields = version.document
        fields["tags"] = unique_tags(tags)
        if isinstance(metadata := fields.get("cozyMetadata"), dict):
            metadata["updatedAt"] = format_time(self._clock())
        return self._fs.index.set_version_document(version, fields)

    async def add(
        self,
        ino: Ino,
        source: Path,
        *,
        updated_ns: int | None = None,
        tags: Iterable[str] = (),
    ) -> Version:
        """Make the content of the file *source* of this machine a version of *ino*, which dates
        from *updated_ns* (default: the mtime of *source*). The rules of cleaning wait for the
        next change of the file. Raises NotFound, ReadOnly, QuotaExceeded, FileTooLarge above
        5 GiB, OSError for *source*, and StoreError; then nothing of it is left."""
        self._check_writable()
        self._file(ino)
        disk = self._fs.objects.caller.disk
        fd = await disk(os.open, source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = await disk(os.fstat, fd)
            if not S_ISREG(found.st_mode):
                raise InvalidRequest("a version is made of a file")
            if found.st_size > MAX_PUT_SIZE:
                raise FileTooLarge("a version that is imported can have at most 5 GiB")
            body = FileBody(fd, 0, found.st_size)
            updated = found.st_mtime_ns if updated_ns is None else updated_ns
            with self._fs.quota.reserved(body.size):
                return await self._add(ino, body, updated, unique_tags(tags))
        finally:
            os.close(fd)

    # ---- inside

    async def _add(self, ino: Ino, body: FileBody, updated_ns: int, tags: list[str]) -> Version:
        """The order is that of a copy: queued for deletion before it is there, so that it does
        not stay if we die; the transaction that wants it takes it off the queue."""
        index, objects, now = self._fs.index, self._fs.objects, self._clock()
        doc_id, internal_id = self._file(ino).doc_id, new_internal_id()
        queued = Deletion(doc_id, internal_id, now + LONGEST_COPY_NS)
        key = objects.key(doc_id, internal_id)
        md5 = await objects.caller.disk(md5_of, body)
        index.queue_deletion(*queued)
        try:
            # Without metadata, as a Cozy stores them: it must not be taken for a content that
            # the journal missed.
            etag = await objects.caller.store(
                objects.store.put, objects.bucket, key, body, md5=md5
            )
            return self._enter(ino, queued, body.size, md5, etag, updated_ns, tags)
        except BaseException:
            with trio.move_on_after(CLEANUP_S, shield=True):
                try:
                    await objects.caller.store(objects.store.delete, objects.bucket, key)
                    index.forget_deletions([queued])
                except CozyError as exc:
                    log.warning("a version that failed is deleted later: %s", exc)
            raise

    def _enter(
        self,
        ino: Ino,
        stored: Deletion,
        size: int,
        md5: bytes,
        etag: str,
        updated_ns: int,
        tags: list[str],
    ) -> Version:
        inode, now = self._file(ino), self._clock()
        version = Version(
            doc_id=inode.doc_id,
            internal_id=stored.internal_id,
            created_ns=now,
            updated_ns=updated_ns,
            size=size,
            stored=size,
            md5=md5,
            etag=etag,
            extents=None,
            # The file may have taken another document over while the content was sent.
            object_doc_id=None if stored.doc_id == inode.doc_id else stored.doc_id,
            fields=encode_fields(version_fields({"tags": tags}, updated_ns, now)),
        )
        self._fs.index.add_version(version)
        return version

    async def _store(self, ino: Ino) -> None:
        """What was written to the file is in the store when this returns; no await after it."""
        handle = await self._fs.files.open(ino, os.O_RDONLY, 0)
        try:
            for _ in range(ATTEMPTS):
                await self._fs.files.fsync(handle.fh)
                if self._fs.files.state(ino) == "clean":
                    break
        finally:
            await self._fs.files.release(handle.fh)
            self._fs.released(ino)
        if self._fs.files.state(ino) != "clean":
            raise Busy("the file is being written to")

    def _file(self, ino: Ino) -> Inode:
        inode = self._fs.index.get(ino)
        if not inode.nlink:
            raise NotFound("the file was removed")
        if not S_ISREG(inode.mode):
            raise InvalidRequest("only files have versions")
        return inode

    def _check_writable(self) -> None:
        if self._fs.read_only:
            raise ReadOnly("the mount is read-only")


def content_inode(version: Version) -> Inode:
    """Where the content of *version* is, for those who read inodes. Its number is none."""
    return Inode(
        ino=Ino(0),
        doc_id=version.doc_id,
        mode=0o100400,
        nlink=1,
        uid=0,
        gid=0,
        rdev=0,
        size=version.size,
        stored=version.stored,
        atime_ns=version.updated_ns,
        mtime_ns=version.updated_ns,
        ctime_ns=version.created_ns,
        btime_ns=version.created_ns,
        target=None,
        internal_id=version.internal_id,
        md5=version.md5,
        etag=version.etag,
        extents=version.extents,
        object_doc_id=version.object_doc_id,
    )


def _restored_fields(of_file: dict[str, Any], of_version: dict[str, Any]) -> dict[str, Any]:
    """The fields of a file that gets a content back: its tags, metadata and origin."""
    fields = dict(of_file)
    for name in ("tags", "metadata"):
        fields.pop(name, None)
        if of_version.get(name):
            fields[name] = of_version[name]
    metadata = dict(fields.pop("cozyMetadata", None) or {})
    origin = of_version.get("cozyMetadata") or {}
    if metadata:
        for name in _RESTORED:
            metadata.pop(name, None)
            if name in origin:
                metadata[name] = origin[name]
        fields["cozyMetadata"] = metadata
    return fields
