"""The content of an inode between its first change and the object that will hold it.

A draft is a piece table plus what the pieces need: memory from the mount's pool, a staging file
where that has no room, the base object, and a multipart upload once a sequential write has
outgrown its share. One draft per inode, shared by all its handles.

Concurrency: everything but :meth:`read` runs under the node's lock (`cozyfs.vfs.files`), so at
most one change, flush or rebase is under way; reads run beside them and rely on this: the table
changes only between awaits, memory is copied out before the first await, objects are immutable,
and the staging file is kept open while a read of it runs.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from cozyfs.errors import FileTooLarge, NoSpace, UploadFailed
from cozyfs.store.body import FileBody, PiecesBody
from cozyfs.store.multipart import part_size_at
from cozyfs.values import MAX_FILE_SIZE
from cozyfs.vfs import extents
from cozyfs.vfs.objects import ObjectRef
from cozyfs.vfs.pieces import Kind, PieceTable, Segment
from cozyfs.vfs.staging import StagingFile
from cozyfs.vfs.stream import Ending, Part, StreamUpload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    import trio

    from cozyfs.store.base import Body
    from cozyfs.values import Inode
    from cozyfs.vfs.cache import BlockCache
    from cozyfs.vfs.objects import Objects
    from cozyfs.vfs.parts import Slice
    from cozyfs.vfs.pool import MemoryPool

STREAM_FROM = 16 << 20
"""Bytes a sequential write must have reached before parts leave: below, one PUT is better."""

_ZEROS = memoryview(bytes(1 << 20))


class Target(NamedTuple):
    """The object a draft is going to be."""

    doc_id: str  # this and the next make the key
    internal_id: str
    key: str
    content_type: str
    metadata: dict[str, str]


class Owned(NamedTuple):
    """What a record remembers of the file, for a time when it is gone."""

    name: bytes
    mode: int
    uid: int
    gid: int


class Workshop(NamedTuple):
    """What all drafts of a mount share."""

    objects: Objects
    pool: MemoryPool
    staging_dir: Path
    nursery: trio.Nursery
    new_target: Callable[[int], Target]  # of an inode number
    superseded: Callable[[str, str], None]  # (document id, internal id) of an object to delete
    sync: Callable[[], Awaitable[None]]  # the index beyond this machine


class Draft:
    """See the module. Times in nanoseconds, offsets and sizes in bytes."""

    def __init__(self, shop: Workshop, inode: Inode) -> None:
        """An empty draft of *inode*."""
        self._shop = shop
        self.ino = inode.ino
        self.mtime_ns = inode.mtime_ns
        self.ctime_ns = inode.ctime_ns
        self.table = PieceTable()
        self.base: ObjectRef | None = None
        self.stream: StreamUpload | None = None
        self.dirty = False
        self._staging: StagingFile | None = None
        self._staging_readers = 0
        self._recorded = False
        """A record names ranges of the staging file: from then on they are not given back."""

    @classmethod
    def of(cls, shop: Workshop, inode: Inode) -> Draft:
        """A clean draft over the current content of *inode*."""
        draft = cls(shop, inode)
        draft.base = shop.objects.ref(inode)
        if draft.base is None:
            draft.table.append(inode.size, Kind.HOLE)
            return draft
        for start, stop, offset in extents.located(inode.extents, inode.size):
            if offset is None:
                draft.table.append(stop - start, Kind.HOLE)
            else:
                draft.table.append(stop - start, Kind.BASE, offset)
        return draft

    @property
    def size(self) -> int:
        return self.table.size

    @property
    def allocated(self) -> int:
        """Bytes without the holes."""
        return sum(len(s) for s in self.table if s.kind is not Kind.HOLE)

    @property
    def held(self) -> int:
        """Bytes of what was written and is not in the store yet."""
        return sum(len(s) for s in self.table if s.kind in (Kind.MEMORY, Kind.STAGED))

    # ---- changes

    async def write(self, offset: int, data: bytes) -> None:
        """Put *data* at *offset*. Raises NoSpace or FileTooLarge with nothing changed."""
        if offset + len(data) > MAX_FILE_SIZE:
            raise FileTooLarge("a file can have at most 5 TiB")
        if self.stream is not None and (
            self.stream.ending is not None
            or offset < self.stream.dispatched
            or offset > self.size + extents.MIN_HOLE
        ):
            await self.rebase()
        await self._place(offset, data)
        self.dirty = True
        if self.size >= STREAM_FROM and offset + len(data) == self.size:
            self._send_whole_parts()

    async def truncate(self, size: int) -> None:
        """Cut, or lengthen with zeros."""
        if size > MAX_FILE_SIZE:
            raise FileTooLarge("a file can have at most 5 TiB")
        if self.stream is not None and (
            self.stream.ending is not None or size < self.stream.dispatched or size > self.size
        ):
            if size == 0:
                await self._abandon_stream()
            else:
                await self.rebase()
        before = self.table.memory
        self.table.resize(size)
        self._shop.pool.release(before - self.table.memory)
        if size == 0:
            self.base = None
        self.dirty = True

    async def spill(self) -> None:
        """Move all memory to the staging file and make it durable there."""
        for segment in list(self.table):
            if segment.kind is Kind.MEMORY:
                await self._stage(segment.start, segment.data)
        if self._staging is not None:
            await self._shop.objects.caller.disk(self._staging.sync)

    async def rebase(self) -> None:
        """End the multipart upload early: what it has becomes an intermediate object that the
        draft goes on from. Called when somebody needs bytes that were sent already."""
        stream = self.stream
        if stream is None:
            return
        await self.settle()
        # Queued for deletion before it exists, also in the journal: if this machine is lost, the
        # next one must not take half a file for a content. Nobody deletes it while a draft goes
        # on from it (`Files.objects_in_use`), and a commit that makes it the content after all,
        # when finishing fails here, takes it off the queue.
        self._shop.superseded(stream.doc_id, stream.internal_id)
        await self._shop.sync()
        _, ending = await stream.finish()
        self.base = ObjectRef(stream.key, ending.size, None)
        before = self.table.memory
        self.table.mark(0, ending.size, Kind.BASE, 0)
        self._shop.pool.release(before - self.table.memory)
        self.stream = None

    async def finish_stream(self) -> tuple[str, Ending]:
        """Turn the running upload and the bytes behind it into an object. The table stays as it
        is, so that this can be repeated when it fails."""
        stream = self.stream
        assert stream is not None
        await self.settle()
        tail = None
        if stream.ending is None:
            tail = self.body(self.table.slice(stream.dispatched, self.size))
        return await stream.finish(tail)

    async def settle(self) -> None:
        """Wait until every part that was dispatched is in the store, sending again what failed.
        Raises UploadFailed when that does not work either."""
        stream = self.stream
        assert stream is not None
        stop = stream.dispatched
        await stream.all_done()
        for number, start, end in _part_ranges(stop):
            slices = self.table.slice(start, end)
            if all(segment.kind is Kind.SENT for _, _, segment in slices):
                continue
            self._dispatch(number, start, end)
        await stream.all_done()
        if not all(s.kind is Kind.SENT for _, _, s in self.table.slice(0, stop)):
            raise UploadFailed("a part could not be stored") from stream.failed

    async def materialise(self, cache: BlockCache) -> None:
        """Fetch what still comes from the base object, so that all bytes are here."""
        step = 1 << 20
        for segment in [s for s in self.table if s.kind is Kind.BASE]:
            assert self.base is not None
            shift = segment.offset - segment.start
            for start in range(segment.start, segment.stop, step):
                stop = min(start + step, segment.stop)
                data = await cache.read(self.base, start + shift, stop + shift)
                await self._place(start, data)

    async def discard(self) -> None:
        """Give everything back: after a commit, or when the inode is gone."""
        await self._abandon_stream()
        self._shop.pool.release(self.table.memory)
        self.table.clear()
        self._drop_staging()

    # ---- reading

    async def read(self, start: int, stop: int, cache: BlockCache) -> bytes:
        """Bytes ``[start, stop)``, cut at the size. The caller rebases first where
        :meth:`needs_rebase` says so."""
        base = self.base
        staging = self._staging
        out: list[bytes | tuple[int, int, Segment]] = []
        for begin, end, segment in self.table.slice(start, stop):
            if segment.kind is Kind.MEMORY:
                out.append(bytes(segment.data[begin - segment.start : end - segment.start]))
            elif segment.kind is Kind.HOLE:
                out.append(bytes(end - begin))
            else:
                # A copy: the segment itself may change while an earlier one is awaited.
                out.append(
                    (
                        begin,
                        end,
                        Segment(begin, end, segment.kind, segment.offset + begin - segment.start),
                    )
                )
        self._staging_readers += 1
        try:
            pieces = []
            for item in out:
                if isinstance(item, bytes):
                    pieces.append(item)
                    continue
                begin, end, segment = item
                if segment.kind is Kind.BASE:
                    assert base is not None
                    offset = segment.offset
                    pieces.append(await cache.read(base, offset, offset + end - begin))
                else:
                    assert staging is not None
                    pieces.append(
                        await self._shop.objects.caller.disk(staging.read, begin, end - begin)
                    )
        finally:
            self._staging_readers -= 1
            if not self._staging_readers and staging is not None and staging is not self._staging:
                staging.close()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def needs_rebase(self, start: int, stop: int) -> bool:
        return self.stream is not None and any(
            segment.kind is Kind.SENT for _, _, segment in self.table.slice(start, stop)
        )

    def body(self, slices: Iterable[Slice]) -> Body:
        """The bytes of *slices* (no BASE, no SENT) to send. Valid until the table changes."""
        pieces: list[bytes | bytearray | memoryview | Body] = []
        for start, stop, segment in slices:
            if segment.kind is Kind.MEMORY:
                view = memoryview(segment.data)
                pieces.append(view[start - segment.start : stop - segment.start])
            elif segment.kind is Kind.STAGED:
                assert self._staging is not None
                pieces.append(FileBody(self._staging.fd, start, stop - start))
            else:
                assert segment.kind is Kind.HOLE
                pieces.extend(zeros(stop - start))
        return PiecesBody(pieces)

    # ---- surviving the process

    def record(self, inode: Inode, name: bytes | None) -> bytes:
        """What :meth:`restore` needs, once :meth:`spill` has run and no part is in flight.
        *inode* has the content that the draft is to replace, and is called *name*."""
        record: dict[str, Any] = {
            "over": inode.internal_id,
            "name": None if name is None else name.decode(),
            "owned": [inode.mode, inode.uid, inode.gid],
            "mtime_ns": self.mtime_ns,
            "ctime_ns": self.ctime_ns,
            "base": [self.base.key, self.base.size] if self.base else None,
            "segments": [[len(s), s.kind.value, s.offset] for s in self.table],
        }
        if (stream := self.stream) is not None and stream.upload_id is not None:
            record["stream"] = {
                "doc_id": stream.doc_id,
                "internal_id": stream.internal_id,
                "upload_id": stream.upload_id,
                "etags": stream.etags,
                "dispatched": stream.dispatched,
                "number": stream.next_number,
            }
            if (ending := stream.ending) is not None:
                record["stream"]["ending"] = [ending.size, ending.parts]
        self._recorded = True
        return json.dumps(record).encode()

    @classmethod
    def restore(cls, shop: Workshop, inode: Inode, blob: bytes) -> Draft:
        """The draft that *blob* describes, over the staging file it left."""
        record = json.loads(blob)
        draft = cls(shop, inode)
        draft.mtime_ns, draft.ctime_ns = record["mtime_ns"], record["ctime_ns"]
        draft.dirty = draft._recorded = True
        if record["base"] is not None:
            draft.base = ObjectRef(record["base"][0], record["base"][1], None)
        for length, kind, offset in record["segments"]:
            draft.table.append(length, Kind(kind), offset)
        if draft.table.has(Kind.STAGED):
            draft._staging = StagingFile(draft._staging_path, keep=True)
        if (saved := record.get("stream")) is not None:
            target = shop.new_target(inode.ino)
            ending = saved.get("ending")
            # Not the target's: the file may be another document since the upload began.
            doc_id, internal_id = saved["doc_id"], saved["internal_id"]
            stream = StreamUpload(
                shop.objects,
                shop.nursery,
                doc_id,
                internal_id,
                shop.objects.key(doc_id, internal_id),
                target.content_type,
                target.metadata,
            )
            stream.resume(
                saved["upload_id"],
                {int(number): etag for number, etag in saved["etags"].items()},
                saved["dispatched"],
                saved["number"],
                ending and Ending(ending[0], [(n, etag) for n, etag in ending[1]], None),
            )
            draft.stream = stream
        return draft

    @staticmethod
    def is_outdated(inode: Inode, blob: bytes) -> bool:
        """Whether *inode* got another content, from another machine, since *blob* was made."""
        record = json.loads(blob)
        return "over" in record and record["over"] != inode.internal_id

    @staticmethod
    def can_move(blob: bytes) -> bool:
        """Whether another inode may have the draft: not when parts of it went to an object of
        the first."""
        return "stream" not in json.loads(blob)

    @staticmethod
    def base_key(blob: bytes) -> str | None:
        """Of the object without which the draft is not whole."""
        record = json.loads(blob)
        is_used = any(Kind(kind) is Kind.BASE for _, kind, _ in record["segments"])
        return str(record["base"][0]) if is_used else None

    @staticmethod
    def owned(blob: bytes) -> Owned | None:
        """None where the file had no name any more, or the record is an older one."""
        record = json.loads(blob)
        name = record.get("name")
        return None if name is None else Owned(name.encode(), *record["owned"])

    @staticmethod
    def moved(blob: bytes) -> bytes:
        """The record for a new inode, which has no content yet."""
        return json.dumps(json.loads(blob) | {"over": None}).encode()

    # ---- inside

    @property
    def _staging_path(self) -> Path:
        return self._shop.staging_dir / f"{self.ino}.draft"

    async def _place(self, offset: int, data: bytes) -> None:
        """Memory if the pool has some, else wait for parts under way, else the staging file."""
        pool = self._shop.pool
        size = len(data)
        while not pool.try_reserve(size):
            if self.stream is not None and self.stream.in_flight:
                await self.stream.any_done()
                continue
            await self._stage(offset, data)
            if self.stream is None and self.table.memory > pool.limit // 4:
                # This draft is what fills the pool, and nothing else will empty it. What was
                # asked for is done: a disk that is full now is the next write's affair.
                with contextlib.suppress(NoSpace):
                    await self.spill()
            return
        before = self.table.memory
        self.table.write(offset, data)
        pool.release(size - (self.table.memory - before))

    async def _stage(self, offset: int, data: bytes | bytearray) -> None:
        if self._staging is None:
            self._staging = await self._shop.objects.caller.disk(StagingFile, self._staging_path)
        await self._shop.objects.caller.disk(self._staging.write, offset, data)
        if offset > self.size:
            self.table.append(offset - self.size, Kind.HOLE)
        before = self.table.memory
        self.table.mark(offset, offset + len(data), Kind.STAGED)
        self._shop.pool.release(before - self.table.memory)

    def _send_whole_parts(self) -> None:
        """Dispatch every part that is whole, starting the upload if this draft qualifies."""
        if self.stream is None:
            if any(s.kind not in (Kind.MEMORY, Kind.STAGED) for s in self.table):
                return
            target = self._shop.new_target(self.ino)
            self.stream = StreamUpload(self._shop.objects, self._shop.nursery, *target)
        stream = self.stream
        # The least part size stays behind: the last part is sent by the flush, which may then
        # find at least one byte for it.
        while self.size - stream.dispatched > stream.next_size:
            start = stream.dispatched
            self._dispatch(stream.next_number, start, start + stream.next_size)

    def _dispatch(self, number: int, start: int, stop: int) -> None:
        stream = self.stream
        assert stream is not None
        slices = self.table.slice(start, stop)
        kept = [(a, b, Segment(a, b, s.kind, 0, _data(s, a, b))) for a, b, s in slices]
        body = self.body(kept)
        before = self.table.memory
        memory = sum(len(s.data) for _, _, s in kept)
        self.table.mark(start, stop, Kind.SENT)
        # The part holds its bytes until it has arrived; a segment cut at the part's end was
        # copied, so what the table lost and what the part holds need not be equal.
        self._shop.pool.release(before - self.table.memory)
        self._shop.pool.reserve(memory)

        def sent() -> None:
            self._shop.pool.release(memory)
            # A reader may be about to read there, and a record would name ranges that are gone.
            if self._staging is not None and not (self._staging_readers or self._recorded):
                for a, b, segment in kept:
                    if segment.kind is Kind.STAGED:
                        self._staging.punch(a, b - a)

        def take_back() -> None:
            self._shop.pool.release(memory)
            before = self.table.memory
            for a, b, segment in kept:
                if segment.kind is Kind.MEMORY:
                    self.table.mark(a, b, Kind.HOLE)
                    self.table.write(a, segment.data)
                else:
                    self.table.mark(a, b, segment.kind)
            self._shop.pool.reserve(self.table.memory - before)

        stream.dispatch(Part(number, start, stop, body, sent, take_back))

    async def _abandon_stream(self) -> None:
        if self.stream is not None:
            stream, self.stream = self.stream, None
            await stream.abort()
            if stream.ending is not None:  # it may have become an object unnoticed
                self._shop.superseded(stream.doc_id, stream.internal_id)

    def _drop_staging(self) -> None:
        """The name goes at once, it may be the next draft's; the last reader closes the file."""
        staging, self._staging = self._staging, None
        if staging is not None:
            staging.unlink()
            if not self._staging_readers:
                staging.close()


def zeros(size: int) -> list[memoryview]:
    """*size* zero bytes as views of one small buffer."""
    step = len(_ZEROS)
    return [_ZEROS] * (size // step) + ([_ZEROS[: size % step]] if size % step else [])


def _data(segment: Segment, start: int, stop: int) -> bytes | bytearray:
    """The bytes of a MEMORY segment's part; the buffer itself where it is all of it."""
    if segment.kind is not Kind.MEMORY or len(segment) == stop - start:
        return segment.data
    return segment.data[start - segment.start : stop - segment.start]


def _part_ranges(stop: int) -> Iterable[tuple[int, int, int]]:
    """``(number, start, stop)`` of the parts that cover ``[0, stop)``; the last may be short."""
    number, start = 1, 0
    while start < stop:
        end = min(start + part_size_at(start), stop)
        yield number, start, end
        number, start = number + 1, end
