"""The views ``/.cozy_apps`` and ``/.cozy_konnectors``: ``<slug>/<version>/<path>``.

The apps that are in the store, whole, whichever instance has installed them; a version is called
as in keys, with its checksum if it has one. Files are shown as they were before they were
compressed, and belong to who runs the mount. Whoever opens one reads it best from its start: a
compressed content can only be decoded in order.

A version never changes once it is there, so what is known of it stays known; which versions there
are is asked for each time.
"""

from __future__ import annotations

import os
from contextlib import aclosing
from stat import S_IFDIR, S_IFREG
from typing import TYPE_CHECKING

import trio
from cachetools import LRUCache

from cozyfs.errors import CozyError, NotFound, ObjectNotFound, TreeError, UsageError
from cozyfs.joined.blocks import BlockReader, new_blocks
from cozyfs.side.apps import layout
from cozyfs.values import Ino, Inode
from cozyfs.vfs.names import check_name

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from datetime import datetime

    from cozyfs.joined.blocks import Blocks
    from cozyfs.side.apps import AppFiles
    from cozyfs.side.apps.files import AppFile
    from cozyfs.vfs.views import Names, Reader

_VERSIONS = 4
_FILES = 10_000
_PAGE = 128

_File = tuple["AppFile", int]


class AppView:
    """See the module; a `cozyfs.vfs.views.View` with the name *name*."""

    def __init__(self, name: bytes, files: AppFiles) -> None:
        self.name = name
        self._files = files
        self._blocks: Blocks = new_blocks()
        self._trees: LRUCache[tuple[str, str], _Tree] = LRUCache(_VERSIONS)
        self._known: LRUCache[tuple[str, str, str], _File] = LRUCache(_FILES)

    async def look(self, path: Names) -> Inode:
        words = _text(path)
        if len(words) < 2:
            if words and not await self._versions(words[0]):
                raise NotFound("there is no such app")
            return _directory()
        tree = await self._tree(*words[:2])
        if tuple(words[2:]) in tree:
            return _directory()
        return _inode(*await self._file(words))

    async def children(self, path: Names) -> list[tuple[bytes, Inode]]:
        words = _text(path)
        if not words:
            slugs = [slug for slug in await self._files.slugs() if await self._versions(slug)]
            return [(slug.encode(), _directory()) for slug in slugs]
        if len(words) == 1:
            return [(name.encode(), _directory()) for name in await self._versions(words[0])]
        tree, place = await self._tree(*words[:2]), tuple(words[2:])
        if place not in tree:
            raise NotFound("there is no such directory in the app")
        found: dict[str, Inode] = {}
        names = sorted(tree[place])
        for start in range(0, len(names), _PAGE):
            await self._look_at(words, names[start : start + _PAGE], tree, found)
        return [(name.encode(), found[name]) for name in names if name in found]

    async def open(self, path: Names) -> Reader:
        words = _text(path)
        if len(words) < 3:
            raise NotFound("it is a directory")
        file, size = await self._file(words)
        content = _InOrder(file)
        return BlockReader(self._blocks, size, content.fetch, content.close)

    # ---- inside

    async def _versions(self, slug: str) -> list[str]:
        try:
            return await self._files.versions(layout.check_slug(slug))
        except UsageError:
            return []

    async def _tree(self, slug: str, version: str) -> _Tree:
        """Raises NotFound, StoreError."""
        tree = self._trees.get((slug, version))
        if tree is None:
            listed = await self._files.list(slug, version)
            tree = self._trees[slug, version] = _tree_of(file.name for file in listed)
        return tree

    async def _file(self, words: list[str]) -> _File:
        """Raises NotFound, StoreError."""
        slug, version, name = words[0], words[1], "/".join(words[2:])
        known = self._known.get((slug, version, name))
        if known is None:
            file = await self._files.open(slug, version, name)
            known = self._known[slug, version, name] = (file, await _size_of(file))
        return known

    async def _look_at(
        self, above: list[str], names: list[str], tree: _Tree, found: dict[str, Inode]
    ) -> None:
        failed: list[CozyError] = []

        async def ask(name: str) -> None:
            try:
                found[name] = _inode(*await self._file([*above, name]))
            except NotFound:
                pass
            except CozyError as exc:
                failed.append(exc)

        async with trio.open_nursery() as nursery:
            for name in names:
                if (*above[2:], name) in tree:
                    found[name] = _directory()
                else:
                    nursery.start_soon(ask, name)
        if failed:
            raise failed[0]


_Tree = dict[tuple[str, ...], set[str]]
"""The names in each directory of a version, by its path; directories are those with names."""


def _tree_of(names: Iterable[str]) -> _Tree:
    """Without names that no file of a mount can have."""
    tree: _Tree = {(): set()}
    for name in names:
        parts = tuple(name.split("/"))
        try:
            for part in parts:
                check_name(part.encode())
        except (TreeError, UnicodeEncodeError):
            continue
        for depth, part in enumerate(parts):
            tree.setdefault(parts[:depth], set()).add(part)
    return tree


class _InOrder:
    """The content of one file, decoded as far as it was asked for."""

    def __init__(self, file: AppFile) -> None:
        self._file = file
        self._chunks: AsyncGenerator[bytes, None] | None = None
        self._position = 0  # of the first byte of what follows
        self._rest = b""

    async def fetch(self, start: int, stop: int) -> bytes:
        """Raises CorruptObject, StoreError; then it begins anew the next time."""
        try:
            return await self._read(start, stop)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        if self._chunks is not None:
            with trio.CancelScope(shield=True):
                await self._chunks.aclose()
        self._chunks, self._rest, self._position = None, b"", 0

    async def _read(self, start: int, stop: int) -> bytes:
        if self._chunks is None or start < self._position:
            await self.close()
            self._chunks = self._file.chunks()
        wanted = bytearray()
        while self._position < stop:
            if not self._rest:
                try:
                    self._rest = await anext(self._chunks)
                except StopAsyncIteration:
                    raise ObjectNotFound(f"{self._file.name} changed while it was read") from None
                continue
            last = min(stop - self._position, len(self._rest))
            first = min(max(start - self._position, 0), last)
            wanted += self._rest[first:last]
            self._rest = self._rest[last:]
            self._position += last
        return bytes(wanted)


async def _size_of(file: AppFile) -> int:
    """Bytes; where the store was not told, they are counted."""
    if file.size is not None:
        return file.size
    size = 0
    async with aclosing(file.chunks()) as chunks:
        async for chunk in chunks:
            size += len(chunk)
    return size


def _text(path: Names) -> list[str]:
    try:
        return [name.decode() for name in path]
    except UnicodeDecodeError:
        raise NotFound("no app has such a name") from None


def _directory() -> Inode:
    return _shown(S_IFDIR | 0o500, 0, None)


def _inode(file: AppFile, size: int) -> Inode:
    return _shown(S_IFREG | 0o400, size, file.info.last_modified)


def _shown(mode: int, size: int, modified: datetime | None) -> Inode:
    time_ns = int(modified.timestamp() * 1e9) if modified is not None else 0
    return Inode(
        ino=Ino(0),
        doc_id="",
        mode=mode,
        nlink=1,
        uid=os.getuid(),
        gid=os.getgid(),
        rdev=0,
        size=size,
        stored=size,
        atime_ns=time_ns,
        mtime_ns=time_ns,
        ctime_ns=time_ns,
        btime_ns=time_ns,
        target=None,
        internal_id=None,
        md5=None,
        etag=None,
        extents=None,
    )
