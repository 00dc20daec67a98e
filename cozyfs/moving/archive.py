"""The archive of an instance: a tar whose bytes follow from the items alone.

::

    instance.json                                   what moves; the one entry that has a date
    io.cozy.files/<id>.json                         a directory, after its parent
    cozyfs.entries/<id>.json                        a symbolic link, fifo, socket or device
    io.cozy.files/<id>.json  Files/<path>           a file, its content right after
    io.cozy.files.versions/<file>/<internal id>.json  Files/<file>/<internal id>
    io.cozy.apps/io.cozy.apps/<slug>.json  an app that is installed; or io.cozy.konnectors
    cozyfs.objects/<name>.json  Objects/<name>      a thumbnail, an image of a note, the avatar
    end.json                                        all of it is there

The tar is cut into members of gzip every :data:`MEMBER` bytes, which any gzip reads as one file;
so an export can go on where one ended, and two exports of equal trees have equal entries.

:func:`pieces` says what the tar consists of, contents as ranges still to be fetched;
:func:`packed` fetches some at a time and gives the members in order.
"""

from __future__ import annotations

import contextlib
import tarfile
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from cozyfs.moving.documents import encode
from cozyfs.moving.items import Content, Item, Kind
from cozyfs.nurseries import first_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cozyfs.threads import Caller

INSTANCE = "instance.json"
END = "end.json"

FOLDERS = {
    Kind.DIRECTORY: "io.cozy.files",
    Kind.FILE: "io.cozy.files",
    Kind.SPECIAL: "cozyfs.entries",
    Kind.VERSION: "io.cozy.files.versions",
    Kind.OBJECT: "cozyfs.objects",
}
CONTENTS = {Kind.FILE: "Files", Kind.VERSION: "Files", Kind.OBJECT: "Objects"}

MEMBER = 4 << 20
"""Bytes of tar in one member of gzip: what is lost of the work of an export that is cut, and
little enough to hold several."""

FETCH = 4 << 20
FETCHES_AT_ONCE = 6
LITERALS_AHEAD = 64

_LEVEL = 1
"""Most content that is large is compressed already; more effort would make that only slower."""

_GZIP = 31  # zlib's window bits for a gzip header, whose time is 0
_BLOCK = 512
_MODE = 0o640


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of a content, to be fetched."""

    content: Content
    start: int
    stop: int


Piece = bytes | Range

Sink = Callable[[bytes, int], Awaitable[None]]
"""Gets a member, and how many bytes of tar there are with it."""


def document_name(item: Item) -> str:
    if item.kind is Kind.INSTANCE:
        return INSTANCE
    if item.kind is Kind.APP:
        doc_id: str = item.document["_id"]
        return f"{doc_id.partition('/')[0]}/{doc_id}.json"
    name = item.document["name"] if item.kind is Kind.OBJECT else item.document["_id"]
    return f"{FOLDERS[item.kind]}/{name}.json"


def content_name(item: Item) -> str:
    return f"{CONTENTS[item.kind]}/{item.path.lstrip('/')}"


def pieces(item: Item) -> Iterator[Piece]:
    """The entries of *item*."""
    body = encode(item.document)
    yield _header(document_name(item), len(body)) + body + _padding(len(body))
    content = item.content
    if content is not None:
        yield _header(content_name(item), content.size)
        for start in range(0, content.size, FETCH):
            yield Range(content, start, min(start + FETCH, content.size))
        if content.size % _BLOCK:
            yield _padding(content.size)


def length(item: Item) -> int:
    """Bytes of tar that *item* takes."""
    return sum(map(size, pieces(item)))


def size(piece: Piece) -> int:
    """Bytes of tar that *piece* takes."""
    return len(piece) if isinstance(piece, bytes) else piece.stop - piece.start


def end() -> bytes:
    """What follows the last item: an archive without it was cut."""
    body = encode({})
    return _header(END, len(body)) + body + _padding(len(body)) + bytes(2 * _BLOCK)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = _MODE
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def compress(data: bytes | bytearray | memoryview) -> bytes:
    """One member of gzip."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return packer.compress(data) + packer.flush()


@dataclass(slots=True)
class _Slot:
    """A piece on its way."""

    data: bytes = b""
    error: Exception | None = None
    done: trio.Event = field(default_factory=trio.Event)


async def packed(
    parts: AsyncGenerator[Piece, None],
    sink: Sink,
    caller: Caller,
    *,
    skip: int = 0,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Give *sink* the tar of *parts*, member by member, without the first *skip* bytes (whole
    members, of which nothing is fetched). *progress* hears of bytes of content. Raises what a
    content or *sink* raises."""
    send, receive = trio.open_memory_channel[tuple[_Slot, bool]](LITERALS_AHEAD)
    free = trio.Semaphore(FETCHES_AT_ONCE)

    async def fetch(slot: _Slot, wanted: Range) -> None:
        try:
            slot.data = await wanted.content.read(wanted.start, wanted.stop)
        except Exception as exc:
            slot.error = exc  # told when its turn comes
        slot.done.set()

    async def produce(nursery: trio.Nursery) -> None:
        at = 0
        # Who reads no more has failed, and says why.
        with contextlib.suppress(trio.BrokenResourceError):
            async with send, contextlib.aclosing(parts):
                async for part in parts:
                    at += size(part)
                    if at <= skip:
                        if progress is not None and isinstance(part, Range):
                            progress(size(part))
                        continue
                    late = max(skip - (at - size(part)), 0)  # of it that were written before
                    slot = _Slot()
                    if isinstance(part, bytes):
                        slot.data = part[late:]
                        slot.done.set()
                        await send.send((slot, False))
                    else:
                        await free.acquire()
                        wanted = Range(part.content, part.start + late, part.stop)
                        nursery.start_soon(fetch, slot, wanted)
                        await send.send((slot, True))

    async def consume() -> None:
        buffer, at = bytearray(), skip
        async with receive:
            async for slot, fetched in receive:
                await slot.done.wait()
                if slot.error is not None:
                    raise slot.error
                buffer += slot.data
                if fetched:
                    free.release()
                    if progress is not None:
                        progress(len(slot.data))
                slot.data = b""
                while len(buffer) >= MEMBER:
                    member, at = bytes(buffer[:MEMBER]), at + MEMBER
                    del buffer[:MEMBER]
                    await sink(await caller.disk(compress, member), at)
        if buffer:
            await sink(await caller.disk(compress, buffer), at + len(buffer))

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce, nursery)
            await consume()
    except BaseExceptionGroup as group:
        raise first_of(group) from None
