"""The view ``/.cozy_versions``: the versions of every file, below the path of the file.

``/.cozy_versions/Documents/report.odt/`` is a directory that holds the versions of
``/Documents/report.odt``, by the names that `cozyfs.vfs.history` gives them. A directory of the
tree is a directory here too: it lists its directories, and those of its files that have versions.

Who may read a file, may read its versions (`cozyfs.vfs.view_access`).
"""

from __future__ import annotations

from stat import S_IFREG, S_ISDIR, S_ISREG
from typing import TYPE_CHECKING

import trio

from cozyfs.errors import NotFound
from cozyfs.values import ROOT_INO, Inode
from cozyfs.vfs.history import content_inode, named
from cozyfs.vfs.view_access import as_directory, readable

if TYPE_CHECKING:
    from cozyfs.index import Version
    from cozyfs.vfs.filesystem import FileSystem
    from cozyfs.vfs.nodes import Handle
    from cozyfs.vfs.views import Names, Reader

PAGE = 256
"""Entries of a directory that are looked at between two checkpoints."""


class VersionView:
    """See the module; a `cozyfs.vfs.views.View`."""

    name = b".cozy_versions"

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs

    async def look(self, path: Names) -> Inode:
        inode, version = self._resolve(path)
        return self._directory(inode) if version is None else self._version(inode, version)

    async def children(self, path: Names) -> list[tuple[bytes, Inode]]:
        inode, version = self._resolve(path)
        if version is not None:
            raise NotFound("a version is no directory")
        if S_ISREG(inode.mode):
            return [
                (name.encode(), self._version(inode, each))
                for name, each in named(self._fs.index.versions_of(inode.doc_id))
            ]
        found: list[tuple[bytes, Inode]] = []
        after = b""
        while page := self._fs.index.children(inode.ino, after, PAGE):
            for name, child in page:
                if S_ISDIR(child.mode) or (S_ISREG(child.mode) and self._has_versions(child)):
                    found.append((name, self._directory(child)))
            after = page[-1][0]
            await trio.lowlevel.checkpoint()
        return found

    async def open(self, path: Names) -> Reader:
        _, version = self._resolve(path)
        if version is None:
            raise NotFound("it is a directory")
        return _VersionReader(self._fs, self._fs.files.open_content(content_inode(version), 0))

    # ---- inside

    def _resolve(self, path: Names) -> tuple[Inode, Version | None]:
        """A directory, a file, or a file and one of its versions. Raises NotFound."""
        inode = self._fs.index.get(ROOT_INO)
        for depth, name in enumerate(path, 1):
            if S_ISREG(inode.mode):
                if depth < len(path):
                    raise NotFound("there is nothing below a version")
                return inode, self._find(inode, name)
            inode = self._fs.index.lookup(inode.ino, name)
            if not S_ISDIR(inode.mode) and not S_ISREG(inode.mode):
                raise NotFound("only files have versions")
        return inode, None

    def _find(self, inode: Inode, name: bytes) -> Version:
        for each in named(self._fs.index.versions_of(inode.doc_id)):
            if each.name.encode() == name:
                return each.version
        raise NotFound("there is no such version")

    def _has_versions(self, inode: Inode) -> bool:
        return bool(self._fs.index.versions_of(inode.doc_id))

    def _version(self, inode: Inode, version: Version) -> Inode:
        return content_inode(version)._replace(
            mode=S_IFREG | readable(self._fs.index, inode), uid=inode.uid, gid=inode.gid
        )

    def _directory(self, inode: Inode) -> Inode:
        return as_directory(self._fs.index, inode)


class _VersionReader:
    """Reads through the mount's block cache, ahead where it is read in order, and verifies."""

    def __init__(self, fs: FileSystem, handle: Handle) -> None:
        self._fs = fs
        self._handle = handle

    async def read(self, offset: int, size: int) -> bytes:
        return await self._fs.files.read(self._handle.fh, offset, size)

    async def close(self) -> None:
        await self._fs.files.release(self._handle.fh)
