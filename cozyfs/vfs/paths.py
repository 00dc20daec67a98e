"""The tree by path: what programs use that work on an instance without mounting it.

Paths are text, absolute, from the root of the instance; they are cleaned lexically (``//``,
``.``, ``..``, a slash at the end) and symbolic links are not followed. What a request means is
decided by `cozyfs.vfs.filesystem`; documents are `cozyfs.vfs.documents`, copies
`cozyfs.vfs.copying`.

On the event loop; nothing here takes a lock, so a path can mean something else after every
await, as it can between two calls of a program on a mount.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, NamedTuple

import trio

from cozyfs.errors import (
    AlreadyExists,
    Busy,
    CozyError,
    IsADirectory,
    LengthMismatch,
    NotAbsolute,
    NotADirectory,
    NotFound,
)
from cozyfs.index import NOREPLACE
from cozyfs.values import ROOT_INO, TRASH_INO, Ino, Inode
from cozyfs.vfs.names import decode
from cozyfs.vfs.trashcan import remove_tree

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator

    from cozyfs.vfs.filesystem import FileSystem
    from cozyfs.vfs.nodes import Handle

PAGE = 256
"""Entries of a directory that are looked at in one go."""

CHUNK = 1 << 20
"""Bytes that are written in one go."""


class Walked(NamedTuple):
    """One step of a walk."""

    path: str
    inode: Inode


def clean(path: str) -> str:
    """*path* without ``//``, ``.``, ``..`` and a slash at its end; what is above the root is the
    root. Raises NotAbsolute."""
    if not path.startswith("/"):
        raise NotAbsolute(f"'{path}' is not an absolute path")
    names: list[str] = []
    for name in path.split("/"):
        if name == "..":
            del names[-1:]
        elif name not in ("", "."):
            names.append(name)
    return "/" + "/".join(names)


def join(directory: str, name: str) -> str:
    """The path of *name* in *directory*, both clean."""
    return f"/{name}" if directory == "/" else f"{directory}/{name}"


def split(path: str) -> tuple[str, str]:
    """``(directory, name)`` of a clean path; the name of the root is empty."""
    directory, _, name = path.rpartition("/")
    return directory or "/", name


class Paths:
    """The tree of *fs* by path. What is made belongs to *uid* and *gid*."""

    def __init__(self, fs: FileSystem, *, uid: int | None = None, gid: int | None = None) -> None:
        self.fs = fs
        self._uid = os.getuid() if uid is None else uid
        self._gid = os.getgid() if gid is None else gid

    # ---- looking

    def resolve(self, path: str) -> Inode:
        """What *path* names. Raises NotAbsolute, NotFound, NotADirectory."""
        try:
            inode = self.fs.index.resolve(_bytes(clean(path)))
        except NotFound as exc:
            raise NotFound(f"{path} does not exist") from exc
        except NotADirectory as exc:
            raise NotADirectory(f"a part of {path} is not a directory") from exc
        return self.fs.files.current(inode)

    def exists(self, path: str) -> bool:
        """Raises NotAbsolute."""
        try:
            self.resolve(path)
        except (NotFound, NotADirectory):
            return False
        return True

    def path_of(self, ino: Ino) -> str:
        """The path of an inode, through the first of several links. Raises NotFound."""
        return decode(self.fs.index.path_of(ino))

    def children(self, directory: Ino) -> Iterator[tuple[str, Inode]]:
        """The entries of a directory in the order of their names' bytes, read page by page;
        ends where the directory is removed meanwhile."""
        after = b""
        while True:
            try:
                page = self.fs.children(directory, after, PAGE)
            except NotFound:
                return
            for name, inode in page:
                yield decode(name), inode
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def walk(self, path: str) -> Iterator[Walked]:
        """*path* and all that is below it: a directory before what is in it, and in each
        directory first its directories, then all else, by the bytes of their names.

        Entries that vanish while walking are left out, or are told of as they were. Raises
        NotFound for *path* itself."""
        top = clean(path)
        inode = self.resolve(top)
        yield Walked(top, inode)
        if not stat.S_ISDIR(inode.mode):
            return
        # A stack of iterators, not recursion: a tree may be deeper than Python's stack.
        stack = [self._directories_first(top, inode.ino)]
        while stack:
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
                continue
            yield step
            if stat.S_ISDIR(step.inode.mode):
                stack.append(self._directories_first(step.path, step.inode.ino))

    def disk_usage(self) -> int:
        """Bytes that count against the quota: all files, in the trash or not, and versions."""
        return self.fs.index.disk_bytes

    def size_of(self, path: str) -> int:
        """Bytes of all files at and below *path*; one with several links counts once."""
        sizes = {
            step.inode.ino: step.inode.size
            for step in self.walk(path)
            if stat.S_ISREG(step.inode.mode)
        }
        return sum(sizes.values())

    # ---- changing the tree

    async def mkdir(self, path: str, mode: int = 0o755) -> Inode:
        """Raises AlreadyExists, NotFound (the directory above), IllegalName."""
        parent, name = self._place(path)
        return await self.fs.make(parent, name, stat.S_IFDIR | mode, self._uid, self._gid)

    async def mkdir_all(self, path: str, mode: int = 0o755) -> Inode:
        """The directory *path*, made with all that is missing above it; what others make at the
        same time is taken. Raises NotADirectory."""
        whole = clean(path)
        inode = self.fs.get(ROOT_INO)
        for name in _bytes(whole[1:]).split(b"/") if whole != "/" else []:
            inode = await self._directory_in(inode.ino, name, mode)
        return inode

    def remove(self, path: str) -> None:
        """One name: of a file, or of an empty directory. Raises NotFound, DirectoryNotEmpty,
        Busy for the root and the trash."""
        parent, name = self._place(path)
        if stat.S_ISDIR(self.resolve(path).mode):
            self.fs.rmdir(parent, name)
        else:
            self.fs.unlink(parent, name)

    async def remove_all(self, path: str) -> None:
        """*path* with everything below it; absent is not an error. Into the trash in one move;
        where there is none, or in it, for good and deepest first: stopped in between, what is
        left is a whole tree. Raises Busy for the root and the trash."""
        top = clean(path)
        try:
            inode = self.resolve(top)
        except NotFound:
            return
        if inode.ino in (ROOT_INO, TRASH_INO):
            raise Busy(f"{path} cannot be removed")
        parent, name = self._place(top)
        if stat.S_ISDIR(inode.mode) and self.fs.discard(parent, name):
            return
        await remove_tree(self.fs, parent, name)

    def rename(self, old: str, new: str, *, replace: bool = False) -> Inode:
        """Atomic. Unless *replace*, an existing *new* is never replaced (AlreadyExists), as a
        Cozy has it; *old* under its own name stays as it is. Returns the inode after."""
        parent, name = self._place(old)
        new_parent, new_name = self._place(new)
        if (parent, name) != (new_parent, new_name):
            self.fs.rename(parent, name, new_parent, new_name, 0 if replace else NOREPLACE)
        return self.resolve(new)

    # ---- contents

    async def write_file(
        self,
        path: str,
        content: bytes | Iterable[bytes] | AsyncIterable[bytes] = b"",
        *,
        mode: int = 0o644,
        size: int | None = None,
    ) -> Inode:
        """The file *path* with this content, in the store when this returns; made where it is
        missing, its content replaced as a whole where it exists.

        If *content* raises, a new file is taken away again and an existing one keeps what it
        had (unless others are writing it at the same time). Raises UploadFailed when the store
        does not take it: then it is kept and retried. Raises IsADirectory, QuotaExceeded.

        *size*, where the caller knows it, is how many bytes *content* has: what does not fit into
        the quota is refused before anything is made, and another length is LengthMismatch."""
        if size is not None:
            self.fs.quota.check(size)
        handle, made = await self._open_for_writing(path, mode)
        files, ino = self.fs.files, handle.node.ino
        try:
            if size is not None:
                self.fs.quota.extend(ino, size)  # nobody else gets it while the content comes
            offset = 0
            async for chunk in _chunks(content):
                if size is not None and offset + len(chunk) > size:
                    raise LengthMismatch(f"{path}: the content is longer than {size} bytes")
                offset += await files.write(handle.fh, offset, chunk)
            if size is not None and offset < size:
                raise LengthMismatch(f"{path}: {offset} bytes came, not {size}")
            await files.truncate(ino, offset, self._uid)  # another writer may have put more
        except BaseException:
            await self._abandon(handle, made)
            raise
        try:
            await files.fsync(handle.fh)
        except trio.Cancelled:
            await self._abandon(handle, made)
            raise
        except CozyError:
            await self._close(handle)
            raise
        await self._close(handle)
        return self.fs.get(ino)

    async def read_file(self, path: str) -> bytes:
        """The whole content, which should be small. Raises IsADirectory."""
        pieces = []
        async with contextlib.aclosing(self.stream_file(path)) as stream:
            async for piece in stream:
                pieces.append(piece)
        return b"".join(pieces)

    def stream_file(self, path: str) -> AsyncGenerator[bytes, None]:
        """The content in pieces; see :meth:`stream`."""
        return self.stream(self.resolve(path).ino)

    async def stream(self, ino: Ino) -> AsyncGenerator[bytes, None]:
        """The content of a file in pieces of up to 1 MiB. Close it (`contextlib.aclosing`) when
        it is not read to its end. Raises IsADirectory."""
        _refuse_directory(self.fs.get(ino), "it")
        handle = await self.fs.files.open(ino, os.O_RDONLY, self._uid)
        try:
            async for piece in self.fs.files.pieces(handle.fh):
                yield piece
        finally:
            await self._close(handle)

    # ---- inside

    def _place(self, path: str) -> tuple[Ino, bytes]:
        """``(directory, name)`` that *path* stands for."""
        directory, name = split(clean(path))
        if not name:
            raise Busy("this cannot be done to the root")
        return self.resolve(directory).ino, _bytes(name)

    def _directories_first(self, path: str, ino: Ino) -> Iterator[Walked]:
        for wanted in (True, False):
            for name, inode in self.children(ino):
                if stat.S_ISDIR(inode.mode) is wanted:
                    yield Walked(join(path, name), inode)

    async def _directory_in(self, parent: Ino, name: bytes, mode: int) -> Inode:
        with contextlib.suppress(AlreadyExists):
            found = self._look(parent, name)
            if found is None:
                return await self.fs.make(parent, name, stat.S_IFDIR | mode, self._uid, self._gid)
        inode = self._look(parent, name)
        if inode is None:
            raise NotFound(f"'{decode(name)}' was removed while it was made")
        if not stat.S_ISDIR(inode.mode):
            raise NotADirectory(f"'{decode(name)}' is there already and not a directory")
        return inode

    def _look(self, parent: Ino, name: bytes) -> Inode | None:
        try:
            return self.fs.lookup(parent, name)
        except NotFound:
            return None

    async def _open_for_writing(self, path: str, mode: int) -> tuple[Handle, Inode | None]:
        """A handle on the emptied or new file, and the inode if it is new."""
        parent, name = self._place(path)
        inode = self._look(parent, name)
        if inode is None:
            made, handle = self.fs.create(parent, name, mode, os.O_WRONLY, self._uid, self._gid)
            return handle, made
        _refuse_directory(inode, path)
        handle = await self.fs.files.open(inode.ino, os.O_WRONLY, self._uid)
        try:
            await self.fs.files.fsync(handle.fh)
            await self.fs.files.truncate(inode.ino, 0, self._uid)
        except BaseException:
            await self._close(handle)
            raise
        return handle, None

    async def _abandon(self, handle: Handle, made: Inode | None) -> None:
        """Undo what a write that was not finished has left: nothing of it reaches the store."""
        node = handle.node
        with trio.CancelScope(shield=True):
            if made is not None:
                with contextlib.suppress(NotFound):  # somebody else has removed it
                    self.fs.files.remove_names(made.ino)
            elif node.handles == 1 and not node.failures:
                # What came before was stored when we opened it: the draft is ours alone.
                async with node.lock:
                    await self.fs.files.forget_draft(node)
            await self._close(handle)

    async def _close(self, handle: Handle) -> None:
        with trio.CancelScope(shield=True):
            await self.fs.files.release(handle.fh)
        self.fs.released(handle.node.ino)


def _refuse_directory(inode: Inode, path: str) -> None:
    if stat.S_ISDIR(inode.mode):
        raise IsADirectory(f"{path} is a directory")


def _bytes(path: str) -> bytes:
    # Half of a surrogate pair has no UTF-8; the index then finds no such name, and a new one
    # is refused by the check of names.
    return path.encode("utf-8", "surrogatepass")


async def _chunks(
    content: bytes | Iterable[bytes] | AsyncIterable[bytes],
) -> AsyncGenerator[bytes, None]:
    if isinstance(content, bytes):
        for start in range(0, len(content), CHUNK):
            yield content[start : start + CHUNK]
    elif isinstance(content, AsyncIterable):
        async for chunk in content:
            yield chunk
    else:
        for chunk in content:
            yield chunk
