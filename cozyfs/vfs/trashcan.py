"""What can be done with the trash: list it, restore from it, empty it, clean it after a while.

How things come into it is `cozyfs.vfs.trash`. A restore is one transaction; what may be large
(sizes, removing whole trees) goes in small steps with checkpoints, so that requests to the mount
come in between: stopped there, what is left is a whole tree.
"""

from __future__ import annotations

import contextlib
import logging
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import TYPE_CHECKING, NamedTuple

import trio

from cozyfs.errors import NotADirectory, NotFound, NotInTrash, ReadOnly
from cozyfs.index import TrashItem
from cozyfs.store.keys import new_doc_id
from cozyfs.values import ROOT_INO, TRASH_INO, TRASH_NAME, Ino, Inode
from cozyfs.vfs.names import decode
from cozyfs.vfs.trash import join
from cozyfs.vfs.trash_names import free_name, without_suffix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cozyfs.vfs.filesystem import FileSystem

log = logging.getLogger(__name__)

PAGE = 256
"""Entries that are looked at in one go."""

STEPS = 16
"""Removals between two checkpoints: a few milliseconds."""

CLEAN_BATCH = 100

_PREFIX = b"/" + TRASH_NAME + b"/"


class Trashed(NamedTuple):
    """Something that was put into the trash."""

    name: str  # in the trash
    path: str  # that it had
    trashed_ns: int | None  # None: not known
    kind: str  # file, directory, link, other
    size: int  # bytes of all files in it


async def trashed(fs: FileSystem) -> AsyncIterator[Trashed]:
    """What lies in the trash, by name."""
    after = b""
    while page := fs.index.children(TRASH_INO, after, PAGE):
        for name, inode in page:
            item = fs.index.trash_item(inode.ino)
            with contextlib.suppress(NotFound):  # removed meanwhile
                origin = fs.trash.origin(TRASH_INO, name)
                yield Trashed(
                    decode(name),
                    decode(join(origin.restore_path, origin.name)),
                    None if item is None else item.trashed_ns,
                    _kind(inode),
                    await _size(fs, inode),
                )
        after = page[-1][0]


def restore(fs: FileSystem, path: bytes) -> bytes:
    """Put what lies at *path* in the trash back to where it was, under its former name, and
    return the path that it has then: with a suffix where that is taken. Directories that are
    gone are made anew. One transaction. Raises NotInTrash, NotFound, ReadOnly, NotADirectory
    when a file has the name of a directory on the way."""
    _check_writable(fs)
    parent, name = _place(fs, path)
    index, now = fs.index, fs.trash.now()
    inode = index.lookup(parent, name)
    origin = fs.trash.origin(parent, name)
    with index.transaction():
        directory = _directory(fs, origin.restore_path, inode, now)
        free = free_name(origin.name, lambda other: index.has(directory, other))
        fs.rename(parent, name, directory, free, 0)
    fs.news.entry(parent, name)
    fs.news.entry(directory, free)
    fs.news.inode(inode.ino)
    return index.path_of(directory).rstrip(b"/") + b"/" + free


async def destroy(fs: FileSystem, path: bytes) -> None:
    """Remove what lies at *path* in the trash for good. Raises NotInTrash, NotFound, ReadOnly."""
    _check_writable(fs)
    parent, name = _place(fs, path)
    fs.index.lookup(parent, name)
    await remove_tree(fs, parent, name)


async def empty(fs: FileSystem, before_ns: int | None = None) -> int:
    """Remove for good what was put into the trash before *before_ns*, or all of it; returns how
    many items. What nothing is known of counts as put there now."""
    _check_writable(fs)
    removed = 0
    while strays := fs.index.trash_strays(CLEAN_BATCH):
        _adopt(fs, strays)
        await trio.lowlevel.checkpoint()
    limit = fs.trash.now() + 1 if before_ns is None else before_ns
    while items := fs.index.trash_items(limit, CLEAN_BATCH):
        for item in items:
            if await _remove_item(fs, item):
                removed += 1
    return removed


async def remove_tree(fs: FileSystem, parent: Ino, name: bytes) -> None:
    """A name with everything below it, deepest first; absent is not an error."""
    try:
        inode = fs.index.lookup(parent, name)
    except NotFound:
        return
    if not S_ISDIR(inode.mode):
        _unlink(fs, parent, name)
        return
    stack = [(parent, name, inode.ino)]
    while stack:
        parent, name, ino = stack[-1]
        await trio.lowlevel.checkpoint()
        below = await _empty_directory(fs, ino)
        if below is not None:
            stack.append(below)
            continue
        stack.pop()
        with contextlib.suppress(NotFound):
            fs.rmdir(parent, name)
            fs.news.entry(parent, name)


# ---- inside


def _check_writable(fs: FileSystem) -> None:
    if fs.read_only:
        raise ReadOnly("the mount is read-only")


def _place(fs: FileSystem, path: bytes) -> tuple[Ino, bytes]:
    """``(directory, name)`` of a clean path in the trash."""
    if not path.startswith(_PREFIX):
        raise NotInTrash(f"{path.decode(errors='replace')} is not in the trash")
    above, _, name = path.rpartition(b"/")
    parent = fs.index.resolve(above).ino
    fs.index.lookup(parent, name)
    return parent, name


def _directory(fs: FileSystem, path: bytes, item: Inode, now: int) -> Ino:
    """The directory *path*, made where it is missing, for the owner of *item*."""
    index = fs.index
    ino = ROOT_INO
    for name in path.split(b"/"):
        if not name:
            continue
        try:
            inode = index.lookup(ino, name)
        except NotFound:
            inode = index.make(
                ino,
                name,
                0o40755,
                uid=item.uid,
                gid=item.gid,
                doc_id=new_doc_id(now),
                now_ns=now,
            )
            fs.news.entry(ino, name)
        if not S_ISDIR(inode.mode):
            raise NotADirectory(f"{decode(path)} is not a directory any more")
        ino = inode.ino
    # A directory of that name may have come to lie in the trash itself.
    return Ino(ROOT_INO) if index.in_trash(ino) else ino


def _adopt(fs: FileSystem, strays: list[tuple[Ino, bytes]]) -> None:
    """Entries of the trash that nothing is known of: from now on they are as if put there now."""
    now = fs.trash.now()
    with fs.index.transaction():
        for ino, name in strays:
            fs.index.remember_trashed(TrashItem(ino, now, b"/", without_suffix(name)))


async def _remove_item(fs: FileSystem, item: TrashItem) -> bool:
    """Whether it was there. A row of something that is not in the trash is only forgotten."""
    removed = False
    with contextlib.suppress(NotFound):
        for parent, name in fs.index.entries_of(item.ino):
            if parent == TRASH_INO:
                await remove_tree(fs, parent, name)
                removed = True
    fs.index.forget_trashed(item.ino)
    await trio.lowlevel.checkpoint()
    return removed


async def _empty_directory(fs: FileSystem, directory: Ino) -> tuple[Ino, bytes, Ino] | None:
    """Remove what is in a directory and no directory; returns the first that has to be emptied
    itself, None when nothing is left."""
    while True:
        try:
            page = fs.children(directory, b"", PAGE)
        except NotFound:
            return None
        if not page:
            return None
        for number, (name, inode) in enumerate(page):
            if S_ISDIR(inode.mode):
                return directory, name, inode.ino
            _unlink(fs, directory, name)
            if number % STEPS == STEPS - 1:
                await trio.lowlevel.checkpoint()


def _unlink(fs: FileSystem, parent: Ino, name: bytes) -> None:
    with contextlib.suppress(NotFound):
        fs.unlink(parent, name)
        fs.news.entry(parent, name)


async def _size(fs: FileSystem, inode: Inode) -> int:
    """Bytes of the files at and below *inode*; one with several links counts once."""
    if not S_ISDIR(inode.mode):
        return fs.files.current(inode).size if S_ISREG(inode.mode) else 0
    seen: set[Ino] = set()
    total = 0
    stack = [inode.ino]
    while stack:
        directory, after = stack.pop(), b""
        with contextlib.suppress(NotFound):
            while page := fs.children(directory, after, PAGE):
                for _, below in page:
                    if S_ISDIR(below.mode):
                        stack.append(below.ino)
                    elif S_ISREG(below.mode) and below.ino not in seen:
                        total += below.size
                        if below.nlink > 1:
                            seen.add(below.ino)
                after = page[-1][0]
                await trio.lowlevel.checkpoint()
    return total


def _kind(inode: Inode) -> str:
    if S_ISDIR(inode.mode):
        return "directory"
    if S_ISREG(inode.mode):
        return "file"
    return "link" if S_ISLNK(inode.mode) else "other"
