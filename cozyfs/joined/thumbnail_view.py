"""The view ``/.thumbs``: ``/.thumbs/<format>/<path>`` is the thumbnail of the file at ``/<path>``.

A JPEG, under the name of the file that it shows. There is none where none was made, where none
can be made, and where the one that the store has is of another content than the file has now. A
directory of the tree is a directory here, which lists those of its images that have a thumbnail;
listing asks the store about each. Nothing is made or removed here. The images of notes are below
``/.thumbs/notes`` (`cozyfs.joined.note_view`).

What the store said of a thumbnail is believed for `REMEMBERED_S`: the kernel looks several times
at a file that is opened once.
"""

from __future__ import annotations

from stat import S_IFREG, S_ISDIR, S_ISREG
from typing import TYPE_CHECKING

import trio
from cachetools import TTLCache

from cozyfs.errors import CozyError, NoPicture, NotFound, NotStored, ObjectNotFound, WrongContent
from cozyfs.joined.blocks import BlockReader, new_blocks
from cozyfs.joined.note_view import NoteImageView
from cozyfs.side.thumbnails import FORMATS
from cozyfs.values import ROOT_INO, Inode
from cozyfs.vfs.names import decode, media_class, media_type
from cozyfs.vfs.view_access import as_directory, readable

if TYPE_CHECKING:
    from cozyfs.joined.blocks import Blocks
    from cozyfs.side.note_images import NoteImages
    from cozyfs.side.served import Served
    from cozyfs.side.thumbnails import Thumbnails
    from cozyfs.vfs.filesystem import FileSystem
    from cozyfs.vfs.views import Names, Reader

NOTES = b"notes"
"""Beside the formats."""

PAGE = 128
"""Entries of a directory that are looked at, and asked for in the store, at a time."""

REMEMBERED_S = 1.0

_REMEMBERED = 4096


class ThumbnailView:
    """See the module; a `cozyfs.vfs.views.View`."""

    name = b".thumbs"

    def __init__(self, fs: FileSystem, thumbnails: Thumbnails, images: NoteImages) -> None:
        self._fs = fs
        self._thumbnails = thumbnails
        self._notes = NoteImageView(fs, images)
        self._blocks: Blocks = new_blocks()
        self._seen: TTLCache[tuple[str, str, str | None], Served | NotFound] = TTLCache(
            _REMEMBERED, REMEMBERED_S, timer=trio.current_time
        )

    async def look(self, path: Names) -> Inode:
        if path[:1] == (NOTES,):
            return await self._notes.look(path[1:])
        inode = self._resolve(path)
        if S_ISDIR(inode.mode):
            return as_directory(self._fs.index, inode)
        return self._file(inode, await self._find(path, inode))

    async def children(self, path: Names) -> list[tuple[bytes, Inode]]:
        if path[:1] == (NOTES,):
            return await self._notes.children(path[1:])
        inode = self._resolve(path)
        if not path:
            top = as_directory(self._fs.index, inode)
            return [(name, top) for name in (*map(str.encode, FORMATS), NOTES)]
        if not S_ISDIR(inode.mode):
            raise NotFound("a thumbnail is no directory")
        found: list[tuple[bytes, Inode]] = []
        after = b""
        while page := self._fs.index.children(inode.ino, after, PAGE):
            found += await self._shown(path, page)
            after = page[-1][0]
        return found

    async def open(self, path: Names) -> Reader:
        served = await self._served(path)

        async def fetch(start: int, stop: int) -> bytes:
            try:
                return await served.read(start, stop)
            except (NotStored, WrongContent) as exc:
                self._seen.clear()
                raise ObjectNotFound("a thumbnail was replaced while it was read") from exc

        return BlockReader(self._blocks, served.size, fetch)

    # ---- inside

    async def _served(self, path: Names) -> Served:
        """Raises NotFound, StoreError."""
        if path[:1] == (NOTES,):
            return await self._notes.find(path[1:])
        inode = self._resolve(path)
        if S_ISDIR(inode.mode):
            raise NotFound("it is a directory")
        return await self._find(path, inode)

    def _resolve(self, path: Names) -> Inode:
        """The directory or file of the tree that *path*, below its format, speaks of."""
        inode = self._fs.index.get(ROOT_INO)
        if path and path[0] not in (name.encode() for name in FORMATS):
            raise NotFound("there is no such format of thumbnails")
        for name in path[1:]:
            if not S_ISDIR(inode.mode):
                raise NotFound("there is nothing below a thumbnail")
            inode = self._fs.index.lookup(inode.ino, name)
        if not S_ISDIR(inode.mode) and not may_have(path[-1], inode):
            raise NotFound("only images and PDF files have thumbnails")
        return inode

    async def _find(self, path: Names, inode: Inode) -> Served:
        """Raises NotFound, StoreError."""
        form = path[0].decode()
        key = (inode.doc_id, form, inode.internal_id)
        seen = self._seen.get(key)
        if seen is None:
            try:
                seen = await self._thumbnails.find(inode.doc_id, form, inode.md5)
            except (NotStored, NoPicture) as exc:
                seen = NotFound(f"{form} thumbnail: {exc}")
            self._seen[key] = seen
        if isinstance(seen, NotFound):
            raise NotFound(str(seen))
        return seen

    async def _shown(
        self, path: Names, page: list[tuple[bytes, Inode]]
    ) -> list[tuple[bytes, Inode]]:
        """Those of *page* that the view has, in their order. Raises StoreError."""
        shown: dict[bytes, Inode] = {}
        failed: list[CozyError] = []

        async def ask(name: bytes, inode: Inode) -> None:
            try:
                shown[name] = self._file(inode, await self._find((*path, name), inode))
            except NotFound:
                pass
            except CozyError as exc:
                failed.append(exc)

        async with trio.open_nursery() as nursery:
            for name, inode in page:
                if S_ISDIR(inode.mode):
                    shown[name] = as_directory(self._fs.index, inode)
                elif may_have(name, inode):
                    nursery.start_soon(ask, name, inode)
        if failed:
            raise failed[0]
        return [(name, shown[name]) for name, _ in page if name in shown]

    def _file(self, inode: Inode, served: Served) -> Inode:
        mode = S_IFREG | readable(self._fs.index, inode)
        return inode._replace(mode=mode, nlink=1, size=served.size, stored=served.size)


def may_have(name: bytes, inode: Inode) -> bool:
    """Whether there may be thumbnails of the file *inode*, which is called *name*."""
    return S_ISREG(inode.mode) and inode.size > 0 and is_picture(name)


def is_picture(name: bytes) -> bool:
    """Whether what is called *name* is of a class that thumbnails are made of."""
    return media_class(media_type(decode(name))) in ("image", "pdf")
