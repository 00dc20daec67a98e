"""Items become an instance: contents first, then the tree, some files in one transaction.

Ids, times, owners, versions and the trash come out as they went in. What is there already with the
same content is not sent again, so an import that was cut is simply run again, and ends the same.
Objects get a key of their own document. They are queued for deletion before they are sent: cut off
in between, nothing but that queue knows of them, and no mount takes them for what was written last
and attaches them itself.

Whoever calls holds the lease. On the loop; each batch is one transaction.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from cozyfs.errors import AlreadyExists, ArchiveError, CozyError, ObjectNotFound
from cozyfs.moving.contents import BytesContent
from cozyfs.moving.documents import Entity, VersionEntity, parse, parse_version
from cozyfs.moving.entering import Entering
from cozyfs.moving.items import Item, Kind, StoredContent
from cozyfs.moving.sending import ONE_PUT, Sending, Sent, send
from cozyfs.nurseries import first_of
from cozyfs.store.keys import check_key, new_internal_id
from cozyfs.values import (
    Content,
    Inode,
)
from cozyfs.vfs.names import decode, media_type
from cozyfs.vfs.objects import content_metadata
from cozyfs.vfs.quota import check_available_space

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from cozyfs.index import Index
    from cozyfs.moving.items import Content as ItemContent
    from cozyfs.vfs.objects import Objects

log = logging.getLogger(__name__)

T = TypeVar("T")

BATCH_FILES = 256
BATCH_BYTES = 24 << 20
AT_ONCE = 6

LONGEST_SEND_NS = 7 * 86400 * 10**9
"""An object whose import died is deleted after a week."""


@dataclass(slots=True)
class Report:
    """What an import did."""

    files: int = 0
    versions: int = 0
    directories: int = 0
    skipped: int = 0  # contents that were there already
    problems: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    """Documents that have no place here, by type: how many."""


@dataclass(slots=True)
class _File:
    """A file of the batch."""

    entity: Entity
    sending: Sending | None
    internal_id: str = ""
    content: Content | None = None  # None: the one it has stays


@dataclass(slots=True)
class _Version:
    entity: VersionEntity
    sending: Sending
    sent: Sent | None = None

    @property
    def internal_id(self) -> str:
        return self.entity.internal_id


class Importer:
    """Into the tree *index* over *objects*. *flush* stores the tree's changes so far in the
    journal, *confirm* returns while the lease is held, *put_app* brings in the document of an app,
    or raises ArchiveError; *progress* hears of bytes of content. *quota*
    in bytes, 0 for none: it holds whatever the archive says of its size."""

    def __init__(
        self,
        index: Index,
        objects: Objects,
        flush: Callable[[], Awaitable[None]],
        confirm: Callable[[], Awaitable[None]],
        put_app: Callable[[dict[str, Any]], Awaitable[None]],
        *,
        keep_certified: bool,
        quota: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.report = Report()
        self._index = index
        self._tree = Entering(index, self._problem)
        self._objects = objects
        self._flush = flush
        self._confirm = confirm
        self._put_app = put_app
        self._keep_certified = keep_certified
        self._quota = quota
        self._taken = 0  # bytes of contents, as the quota counts them
        self._progress = progress
        self._files: list[_File] = []
        self._versions: list[_Version] = []
        self._sides: list[Sending] = []
        self._bytes = 0
        self._urgent = False  # the last content is a stream, which the next item would skip
        self._large = trio.Lock()
        self._failed_docs: set[str] = set()

    async def run(self, items: AsyncGenerator[Item, None]) -> Report:
        """All of *items*, but for the first, which is the caller's. Raises ArchiveError when they
        end too early, QuotaExceeded, StoreError, LeaseLost, NoSpace; what is wrong with one file
        alone is among the problems of the report."""
        async for item in items:
            try:
                await self._take(item)
            except ArchiveError as exc:
                self._problem(str(exc))
        await self._end_batch()
        return self.report

    async def _take(self, item: Item) -> None:
        if item.kind is Kind.DIRECTORY:
            await self._end_batch()
            self._directory(parse(item.document, keep_certified=self._keep_certified))
        elif item.kind is Kind.SPECIAL:
            entity = parse(item.document, keep_certified=self._keep_certified)
            self._tree.check(entity)
            with self._index.transaction():
                self._tree.enter(entity, None)
        elif item.kind is Kind.FILE:
            await self._file(item)
        elif item.kind is Kind.VERSION:
            await self._version(item)
        elif item.kind is Kind.APP:
            await self._put_app(item.document)
        elif item.kind is Kind.OBJECT:
            await self._object(item)
        if (
            self._urgent
            or len(self._files) + len(self._versions) + len(self._sides) >= BATCH_FILES
            or self._bytes >= BATCH_BYTES
        ):
            await self._end_batch()

    # ---- what items say

    async def _file(self, item: Item) -> None:
        entity = parse(item.document, keep_certified=self._keep_certified)
        path = item.path or decode(entity.name)
        try:
            parent = self._tree.check(entity)
            content = self._checked(item.content, entity, path)
        except ArchiveError:
            self._failed_docs.add(entity.doc_id)
            raise
        known = self._index.with_doc_ids([entity.doc_id]).get(entity.doc_id)
        if known is not None and _has(known, entity):
            self.report.skipped += 1
            self._more(content.size)
            self._files.append(_File(entity, None))
            return
        if entity.size == 0 or entity.extents == b"[]":
            nothing = Content(None, entity.size, 0, entity.md5, None)
            self._files.append(_File(entity, None, content=nothing))
            return
        internal_id, name = new_internal_id(), decode(entity.name)
        metadata = content_metadata(
            entity.doc_id, parent.doc_id, name, entity.mode, entity.mtime_ns
        )
        trailer = entity.extents or b""
        if trailer:
            metadata |= {"cozyfs-size": str(entity.size), "cozyfs-trailer": str(len(trailer))}
        sending = Sending(
            await self._held(content),
            self._objects.key(entity.doc_id, internal_id),
            media_type(name),
            metadata,
            None if trailer else entity.md5,
            trailer,
            path,
        )
        self._files.append(_File(entity, sending, internal_id))

    async def _version(self, item: Item) -> None:
        entity = parse_version(item.document)
        label = f"the version {item.path}"
        if entity.doc_id in self._failed_docs:
            raise ArchiveError(f"{label} is of a file that was not imported")
        content = self._checked(item.content, entity, label)
        known = self._index.versions_of(entity.doc_id)
        if any(version.internal_id == entity.internal_id for version in known):
            self.report.skipped += 1
            self.report.versions += 1
            self._more(content.size)
            return
        sending = Sending(
            await self._held(content),
            self._objects.key(entity.doc_id, entity.internal_id),
            "application/octet-stream",
            md5=entity.md5 if entity.extents is None else None,
            trailer=entity.extents or b"",
            name=label,
        )
        self._versions.append(_Version(entity, sending))

    def _checked(
        self, content: ItemContent | None, entity: Entity | VersionEntity, name: str
    ) -> ItemContent:
        if content is None:
            raise ArchiveError(f"{name}: its content is not in the archive")
        if content.size != entity.data_size:
            raise ArchiveError(
                f"{name} has {content.size} bytes in the archive, not {entity.data_size}"
            )
        check_available_space(entity.size, self._quota, self._taken)
        self._taken += entity.size
        return content

    async def _object(self, item: Item) -> None:
        document, content = item.document, item.content
        name = str(document.get("name"))
        if not (name == "avatar" or name.startswith("thumbs/")) or content is None:
            raise ArchiveError(f"{name[:200]!r} in the archive is nothing that an instance has")
        try:
            check_key(name)
        except CozyError as exc:
            raise ArchiveError(f"{name[:200]!r} in the archive: {exc}") from exc
        metadata = {str(k): str(v) for k, v in dict(document.get("metadata") or {}).items()}
        key = f"{self._objects.db_prefix}/{name}"
        kind = str(document.get("content_type") or "application/octet-stream")
        held = await self._held(content)
        self._sides.append(Sending(held, key, kind, metadata, name=name))

    # ---- batches

    async def _held(self, content: ItemContent) -> ItemContent:
        """Something that can wait for the rest of the batch; or the batch ends with it."""
        self._bytes += min(content.size, ONE_PUT)
        if isinstance(content, StoredContent | BytesContent):
            return content
        if content.size <= ONE_PUT:
            return BytesContent(await content.read(0, content.size))
        self._urgent = True
        return content

    async def _end_batch(self) -> None:
        """All that was taken is in the bucket and in the tree."""
        files, versions = self._files, self._versions
        self._files, self._versions, self._bytes = [], [], 0
        sides, self._sides = self._sides, []
        self._urgent = False
        await self._send_all(sides, self._send_side)
        if not files and not versions:
            return
        jobs: list[_File | _Version] = [*files, *versions]
        jobs = [each for each in jobs if each.sending is not None]
        if jobs:
            until = time.time_ns() + LONGEST_SEND_NS
            with self._index.transaction():
                for each in jobs:
                    self._index.queue_deletion(each.entity.doc_id, each.internal_id, until)
            await self._flush()
        await self._send_all(jobs, self._send_content)
        await self._confirm()
        with self._index.transaction():
            for file in files:
                if file.sending is None or file.content is not None:
                    self._tree.enter(file.entity, file.content)
                    self._index.keep_object(file.entity.doc_id, file.internal_id)
                    self.report.files += 1
            for version in versions:
                if version.sent is not None:
                    self._add_version(version.entity, version.sent)

    async def _send_all(self, jobs: list[T], send_one: Callable[[T], Awaitable[None]]) -> None:
        waiting = iter(jobs)

        async def work() -> None:
            for each in waiting:
                await send_one(each)

        try:
            async with trio.open_nursery() as nursery:
                for _ in range(min(AT_ONCE, len(jobs))):
                    nursery.start_soon(work)
        except BaseExceptionGroup as group:
            raise first_of(group) from None

    async def _send_side(self, sending: Sending) -> None:
        try:
            await self._send(sending)
        except ArchiveError as exc:
            self._problem(str(exc))
        except ObjectNotFound:
            if not isinstance(sending.content, StoredContent):
                raise
            # Of another instance, which somebody uses: it is made anew, or its file is gone.
            log.info("%s went while it was copied", sending.name)

    async def _send_content(self, job: _File | _Version) -> None:
        assert job.sending is not None
        try:
            sent = await self._send(job.sending)
        except ArchiveError as exc:
            self._problem(str(exc))
            self._failed_docs.add(job.entity.doc_id)
            return
        self._more(job.sending.content.size)
        if isinstance(job, _Version):
            job.sent = sent
        else:
            entity = job.entity
            job.content = Content(
                job.internal_id,
                entity.size,
                sent.stored,
                entity.md5,
                sent.etag,
                entity.extents,
                doc_id=entity.doc_id,
            )

    async def _send(self, sending: Sending) -> Sent:
        large = sending.content.size > ONE_PUT  # has several parts in memory
        async with self._large if large else contextlib.nullcontext():
            return await send(self._objects, sending)

    # ---- the tree

    def _directory(self, entity: Entity) -> None:
        self._tree.check(entity)
        with self._index.transaction():
            self._tree.enter(entity, None)
        self.report.directories += 1

    def _add_version(self, entity: VersionEntity, sent: Sent) -> None:
        if entity.doc_id in self._failed_docs or not self._index.with_doc_ids([entity.doc_id]):
            self._problem(f"a version is of {entity.doc_id}, which is not in the archive")
            return
        try:
            self._tree.add_version(entity, sent)
        except AlreadyExists:
            self._problem(f"the version {entity.doc_id}/{entity.internal_id} is there twice")
            return
        self.report.versions += 1

    # ---- telling

    def _more(self, size: int) -> None:
        if self._progress is not None:
            self._progress(size)

    def _problem(self, text: str) -> None:
        log.debug("%s", text)
        self.report.problems.append(text)


def _has(inode: Inode, entity: Entity) -> bool:
    """The content that *entity* is to have."""
    return (
        entity.md5 is not None
        and inode.md5 == entity.md5
        and (inode.size, inode.extents) == (entity.size, entity.extents)
    )
