"""The trash: what is removed moves into `/.cozy_trash` and is remembered with its former place.

Decides what a removal means. Restoring, emptying and cleaning are in `cozyfs.vfs.trashcan`; rows
are kept by `cozyfs.index.trash`. For programs all is as if there were no trash: what they removed
has no link left where they have it open, directories get the times they would get.

Rules:

- A file or symbolic link goes into the trash with its last name; one that is open goes there as a
  second inode with the content that was stored last. Directories always do as a second inode: the
  first may be some process's working directory.
- Not kept: other kinds of files, files that never had content, names of passing files
  (`cozyfs.vfs.trash_names`). With a directory that `rm -r` removes even these come along.
- What lies in the trash itself has a row; what lies deeper has none. In the trash nothing new is
  made, and removing there is for good.

Plain calls on the event loop, each change one index transaction.
"""

from __future__ import annotations

import logging
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import TYPE_CHECKING

import trio
from cachetools import LRUCache

from cozyfs.errors import CozyError, InTrash, NotFound
from cozyfs.index import EXCHANGE, TrashItem
from cozyfs.values import TRASH_INO, AttributeChanges, Ino, Inode
from cozyfs.vfs.trash_memory import Memory, Saved
from cozyfs.vfs.trash_names import free_name, is_passing, without_suffix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cozyfs.index import Index, RenameResult
    from cozyfs.vfs.files import Files
    from cozyfs.vfs.news import News
    from cozyfs.vfs.objects import Objects

log = logging.getLogger(__name__)

GATHER_AT_ONCE = 500
"""Items that move into their directory within the request that removes it; the others follow."""

_PATHS_KNOWN = 1_000


class Trash:
    """Of one file system. *keep* tells whether an inode without names has to stay."""

    def __init__(
        self,
        index: Index,
        files: Files,
        nursery: trio.Nursery,
        news: News,
        clock: Callable[[], int],
        keep: Callable[[Ino], bool],
        *,
        enabled: bool,
    ) -> None:
        self._index = index
        self._files = files
        self._nursery = nursery
        self._news = news
        self._clock = clock
        self._keep = keep
        self._memory = Memory()
        self._paths: LRUCache[Ino, bytes] = LRUCache(_PATHS_KNOWN)
        self.enabled = enabled

    def refuse_new_in(self, parent: Ino) -> None:
        """Raises InTrash where nothing new may be made."""
        if self._index.in_trash(parent):
            raise InTrash("nothing new can be made in the trash")

    def now(self) -> int:
        """What time it is for the trash."""
        return self._clock()

    def objects_in_use(self, objects: Objects) -> set[str]:
        """Keys of the objects of what was removed without being kept, as long as it may come
        along with its directory."""
        refs = (objects.ref(each.inode) for each in self._memory.saved())
        return {ref.key for ref in refs if ref is not None}

    # ---- removing

    def unlink(self, parent: Ino, name: bytes, pid: int) -> Inode | None:
        """Remove a name of anything but a directory; what it pointed at as it is after, None
        when it lies in the trash now. *pid* is the process that asks."""
        index, now = self._index, self._clock()
        inode = index.lookup(parent, name)
        if not self.enabled or S_ISDIR(inode.mode) or index.in_trash(parent):
            return self._unlink_for_good(parent, name, inode, now)
        above, path = index.get(parent), self._path(parent)
        item: Inode | None = None
        saved: Saved | None = None
        left: Inode | None = None
        with index.transaction():
            last = inode.nlink == 1
            if last and self._is_kept(name, inode):
                item, left = self._take(parent, name, inode, path, now)
            else:
                if last and not self._files.is_open(inode.ino):
                    saved = self._saved(name, inode)
                left = index.unlink(parent, name, now, keep=self._keep(inode.ino))
        self._memory.add(
            pid, above, path, now, ino=None if item is None else item.ino, saved=saved
        )
        return left

    def rmdir(self, parent: Ino, name: bytes, pid: int) -> None:
        """Remove an empty directory."""
        index, now = self._index, self._clock()
        inode = index.lookup(parent, name)
        keep = self._keep(inode.ino)
        if not self.enabled or not S_ISDIR(inode.mode) or index.in_trash(parent):
            with index.transaction():
                index.rmdir(parent, name, now, keep=keep)
                if parent == TRASH_INO:
                    index.forget_trashed(inode.ino)
            return
        above, path = index.get(parent), self._path(parent)
        own_path = join(path, name)
        saved = self._saved(name, inode)
        removed = self._memory.get(pid, inode.ino, own_path)
        twin: Inode | None = None
        with index.transaction():
            index.rmdir(parent, name, now, keep=keep)
            if not is_passing(name) or removed is not None:
                twin = self._remake(saved, TRASH_INO, self._free_name(name), now)
                index.remember_trashed(TrashItem(twin.ino, now, path, name))
                if removed is not None:
                    # Later ones first: of two that had one name, it is the last one's.
                    inos = [Ino(ino) for ino in reversed(removed.inos)]
                    self._gather(inos[:GATHER_AT_ONCE], twin.ino, own_path)
                    for each in removed.saved[::-1]:
                        self._bring_along(each, twin.ino, now)
                    mtime_ns = inode.mtime_ns
                    if mtime_ns == removed.changed_ns:
                        mtime_ns = removed.mtime_ns
                    changes = AttributeChanges(mtime_ns=mtime_ns)
                    index.set_attributes(twin.ino, changes, now)
                    if len(inos) > GATHER_AT_ONCE:
                        rest = inos[GATHER_AT_ONCE:]
                        self._nursery.start_soon(
                            self._gather_rest, rest, twin.ino, own_path, changes
                        )
        self._memory.forget(pid, inode.ino, own_path)
        self._memory.add(
            pid,
            above,
            path,
            now,
            ino=None if twin is None else twin.ino,
            saved=saved if twin is None else None,
        )

    def move(self, parent: Ino, name: bytes) -> None:
        """Put something outside of the trash into it as it is, with all that is below it: for
        who has nothing open in it."""
        index, now = self._index, self._clock()
        path = self._path(parent)
        inode = index.lookup(parent, name)
        with index.transaction():
            self._move(parent, name, inode, path, now)
        self._paths.clear()
        self._news.entry(parent, name)
        self._news.inode(inode.ino)

    # ---- renaming; around the index's part, in one transaction with it

    def before_rename(self, parent: Ino, name: bytes, new_parent: Ino, new_name: bytes) -> None:
        """What a rename is about to replace, and no version is made of, goes into the trash
        where rename(2) would take its last name; what lies in the trash gets out of the way."""
        index = self._index
        if not self.enabled:
            return
        try:
            moved, other = index.lookup(parent, name), index.lookup(new_parent, new_name)
        except NotFound:
            return
        if S_ISDIR(moved.mode) or S_ISDIR(other.mode) or moved.ino == other.ino:
            return
        now = self._clock()
        if new_parent == TRASH_INO:
            free = self._free_name(new_name)
            index.rename(TRASH_INO, new_name, TRASH_INO, free, now, keep=self._keep)
            self._news.entry(TRASH_INO, free)
        elif (
            not index.in_trash(new_parent) and other.nlink == 1 and self._is_kept(new_name, other)
        ):
            self._take(new_parent, new_name, other, self._path(new_parent), now)

    def origin(self, parent: Ino, name: bytes) -> TrashItem:
        """What a row would remember of *name* in *parent* if it were put into the trash now.
        The inode is 0."""
        if not self._index.in_trash(parent):
            return TrashItem(Ino(0), self._clock(), self._path(parent), name)
        names = [name]
        while parent != TRASH_INO:
            parent, above = self._index.entries_of(parent)[0]
            names.insert(0, above)
        ino = self._index.lookup(TRASH_INO, names[0]).ino
        item = self._index.trash_item(ino)
        if item is None:
            item = TrashItem(ino, self._clock(), b"/", without_suffix(names[0]))
        path = item.restore_path
        for part in [item.name, *names[1:]][:-1]:
            path = join(path, part)
        former = item.name if len(names) == 1 else names[-1]
        return TrashItem(Ino(0), item.trashed_ns, path, former)

    def renamed(
        self,
        old_parent: Ino,
        new_parent: Ino,
        result: RenameResult,
        origins: tuple[TrashItem, TrashItem | None] | None,
    ) -> None:
        """Rows after a rename. *origins*: of both names before; None where neither directory
        is the trash."""
        if S_ISDIR(result.moved.mode) or result.exchanged is not None:
            self._paths.clear()
        if origins is None or old_parent == new_parent:
            return
        self._moved(result.moved, old_parent, new_parent, origins[0])
        if result.exchanged is not None and origins[1] is not None:
            self._moved(result.exchanged, new_parent, old_parent, origins[1])

    def origins(
        self, parent: Ino, name: bytes, new_parent: Ino, new_name: bytes, flags: int
    ) -> tuple[TrashItem, TrashItem | None] | None:
        """For :meth:`renamed`, before the rename. Raises NotFound."""
        if TRASH_INO not in (parent, new_parent) or parent == new_parent:
            return None
        self._index.lookup(parent, name)
        other = None
        if flags == EXCHANGE:
            self._index.lookup(new_parent, new_name)
            other = self.origin(new_parent, new_name)
        return self.origin(parent, name), other

    def left(self, inode: Inode) -> None:
        """A name of the inode is gone from the trash: its row goes with the last one there."""
        if inode.nlink == 0 or all(
            parent != TRASH_INO for parent, _ in self._index.entries_of(inode.ino)
        ):
            self._index.forget_trashed(inode.ino)

    # ---- inside

    def _unlink_for_good(self, parent: Ino, name: bytes, inode: Inode, now: int) -> Inode:
        with self._index.transaction():
            left = self._index.unlink(parent, name, now, keep=self._keep(inode.ino))
            if parent == TRASH_INO:
                self.left(left)
        return left

    def _moved(self, inode: Inode, old_parent: Ino, new_parent: Ino, origin: TrashItem) -> None:
        if new_parent == TRASH_INO:
            self._index.remember_trashed(origin._replace(ino=inode.ino))
        elif old_parent == TRASH_INO:
            self.left(inode)

    def _is_kept(self, name: bytes, inode: Inode) -> bool:
        """Whether a file or link that loses its last name is worth a place in the trash."""
        if is_passing(name):
            return False
        if S_ISLNK(inode.mode):
            return True
        if not S_ISREG(inode.mode):
            return False
        if not self._files.is_open(inode.ino):
            inode = self._files.current(inode)  # what waits for its upload comes along
        return inode.size > 0 or bool(self._index.versions_of(inode.doc_id))

    def _take(
        self, parent: Ino, name: bytes, inode: Inode, path: bytes, now: int
    ) -> tuple[Inode, Inode | None]:
        """Into the trash with a file or link: what lies there, and what is left without names
        because it is open. Inside a transaction."""
        index = self._index
        if not self._files.is_open(inode.ino):
            return self._move(parent, name, inode, path, now), None
        saved = self._saved(name, inode)
        left = index.unlink(parent, name, now, keep=True)
        twin = self._remake(saved, TRASH_INO, self._free_name(name), now)
        index.remember_trashed(TrashItem(twin.ino, now, path, name))
        return twin, left

    def _move(self, parent: Ino, name: bytes, inode: Inode, path: bytes, now: int) -> Inode:
        index = self._index
        free = self._free_name(name)
        item = TrashItem(inode.ino, now, path, name)
        if S_ISDIR(inode.mode) or inode.nlink > 1:
            moved = index.rename(parent, name, TRASH_INO, free, now, keep=self._keep).moved
            index.remember_trashed(item)
        else:
            moved = index.trash_file(parent, name, inode, free, item)
        self._news.entry(TRASH_INO, free)
        return moved

    def _saved(self, name: bytes, inode: Inode) -> Saved:
        ino = inode.ino
        return Saved(name, inode, self._index.xattrs_of(ino), self._index.document(ino))

    def _remake(self, saved: Saved, parent: Ino, name: bytes, now: int) -> Inode:
        inode = self._index.remake(saved.inode, parent, name, now, xattrs=saved.xattrs)
        if saved.fields:
            self._index.set_document(inode.ino, saved.fields)
        self._news.entry(parent, name)
        return inode

    def _bring_along(self, saved: Saved, directory: Ino, now: int) -> None:
        """Make anew, in its directory in the trash, what was removed without being kept; not if
        its object may be gone by now."""
        inode = saved.inode
        if inode.internal_id is not None:
            doc_id, internal_id = inode.content_doc_id, inode.internal_id
            index = self._index
            if not index.is_queued(doc_id, internal_id) and not index.is_held(doc_id, internal_id):
                if inode.size:
                    return
                saved = saved._replace(inode=inode._replace(internal_id=None, etag=None))
        try:
            self._index.lookup(directory, saved.name)
        except NotFound:
            self._remake(saved, directory, saved.name, now)

    def _gather(self, inos: Iterable[Ino], directory: Ino, path: bytes) -> None:
        for name in self._index.gather_trashed(inos, directory, path, self._clock()):
            self._news.entry(TRASH_INO, name)

    async def _gather_rest(
        self, inos: list[Ino], directory: Ino, path: bytes, changes: AttributeChanges
    ) -> None:
        """Batch by batch, so that requests come in between. What is not gathered when the process
        dies stays where it is, with a row that knows its place."""
        for start in range(0, len(inos), GATHER_AT_ONCE):
            await trio.lowlevel.checkpoint()
            try:
                if not self._index.is_trashed(directory):
                    return
                with self._index.transaction():
                    self._gather(inos[start : start + GATHER_AT_ONCE], directory, path)
                    self._index.set_attributes(directory, changes, self._clock())
                self._news.inode(directory)
            except CozyError as exc:
                log.warning("what was removed with %r lies beside it in the trash: %s", path, exc)
                return

    def _free_name(self, wanted: bytes) -> bytes:
        return free_name(wanted, lambda name: self._index.has(TRASH_INO, name))

    def _path(self, directory: Ino) -> bytes:
        path = self._paths.get(directory)
        if path is None:
            path = self._paths[directory] = self._index.path_of(directory)
        return path


def join(directory: bytes, name: bytes) -> bytes:
    """The path of *name* in *directory*."""
    return b"/" + name if directory == b"/" else directory + b"/" + name
