"""rename(2) and renameat2(2): one entry moves, replaces another or changes places with it.

Renaming never touches an object: the names of objects do not depend on paths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from stat import S_ISDIR

from cozyfs.errors import (
    AlreadyExists,
    DirectoryNotEmpty,
    ForbiddenMove,
    InvalidRequest,
    IsADirectory,
    NotADirectory,
    NotFound,
    TooManyLinks,
)
from cozyfs.index.naming import refuse_fixed
from cozyfs.index.rows import MAX_LINKS, Rows
from cozyfs.values import Ino, Inode

NOREPLACE = 1
EXCHANGE = 2
"""As RENAME_NOREPLACE and RENAME_EXCHANGE of renameat2(2)."""

Keep = Callable[[Ino], bool]

# UNION and not UNION ALL: a damaged tree with a circle in it still comes to an end.
_IS_BELOW = """
    WITH RECURSIVE up (ino) AS (
        SELECT ?1 UNION SELECT e.parent FROM entries e JOIN up ON e.ino = up.ino
    )
    SELECT 1 FROM up WHERE ino = ?2 LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class RenameResult:
    """The inodes as they are after."""

    moved: Inode
    replaced: Inode | None = None  # lost its name; nlink 0 and not kept: its row is gone
    exchanged: Inode | None = None  # now under the old name


@dataclass(frozen=True, slots=True)
class _Place:
    parent: Ino
    name: bytes


class Renaming(Rows):
    """Part of `Index`."""

    def rename(
        self,
        parent: Ino,
        name: bytes,
        new_parent: Ino,
        new_name: bytes,
        now_ns: int,
        *,
        flags: int = 0,
        keep: Keep,
    ) -> RenameResult:
        """*keep* is asked whether a replaced inode without further names has to stay until
        :meth:`Index.drop`.

        Two names of the same inode: nothing happens. Raises NotFound, NotADirectory,
        AlreadyExists (NOREPLACE), IsADirectory (a file over a directory), DirectoryNotEmpty,
        ForbiddenMove (a directory into itself or below), Busy (root or trash), TooManyLinks,
        InvalidRequest (unknown flags).
        """
        if flags not in (0, NOREPLACE, EXCHANGE):
            raise InvalidRequest(f"unknown flags {flags} for a rename")
        old, new = _Place(parent, name), _Place(new_parent, new_name)
        with self._db.transaction():
            moved = self._child(parent, name)
            self._live_directory(new_parent)
            other = self._find_child(new_parent, new_name)
            if flags == EXCHANGE and other is None:
                raise NotFound(f"there is no {new_name!r} in directory {new_parent}")
            if flags == NOREPLACE and other is not None:
                raise AlreadyExists(f"there is a {new_name!r} in directory {new_parent} already")
            if other is not None and other.ino == moved.ino:
                return RenameResult(moved)
            refuse_fixed(moved)
            self._refuse_inside_itself(moved, old, new)
            if other is not None:
                refuse_fixed(other)
                if flags != EXCHANGE:
                    self._refuse_replacing(moved, other)
            from_trash, to_trash = self._in_trash(parent), self._in_trash(new_parent)
            touched = (moved, other) if from_trash or to_trash else ()
            was_trash = self._trash_bytes(*touched)
            if flags == EXCHANGE and other is not None:
                result = self._exchange(old, moved, new, other, now_ns)
            else:
                result = self._move(old, moved, new, other, now_ns, keep)
            self._counter.count_trash(self._trash_bytes(*touched) - was_trash)
            if from_trash != to_trash and any(
                each is not None and S_ISDIR(each.mode) for each in touched
            ):
                self._count_trash_anew()
            return result

    def _move(
        self, old: _Place, moved: Inode, new: _Place, other: Inode | None, now_ns: int, keep: Keep
    ) -> RenameResult:
        leaves = int(S_ISDIR(moved.mode))
        arrives = leaves - int(other is not None and S_ISDIR(other.mode))
        self._refuse_too_many_subdirectories(old, -leaves, new, arrives)
        self._remove_entry(old.parent, old.name)
        replaced = None
        if other is None:
            self._add_entry(new.parent, new.name, moved.ino)
        else:
            self._repoint_entry(new.parent, new.name, moved.ino)
            last = S_ISDIR(other.mode) or other.nlink == 1
            replaced = self._release(other, new.name, now_ns, keep=last and keep(other.ino))
        moved = self._relink(moved, moved.nlink, now_ns)
        self._touch_both(old, -leaves, new, arrives, now_ns)
        return RenameResult(moved, replaced=replaced)

    def _exchange(
        self, old: _Place, moved: Inode, new: _Place, other: Inode, now_ns: int
    ) -> RenameResult:
        self._refuse_inside_itself(other, new, old)
        arrives = int(S_ISDIR(moved.mode)) - int(S_ISDIR(other.mode))
        self._refuse_too_many_subdirectories(old, -arrives, new, arrives)
        self._repoint_entry(old.parent, old.name, other.ino)
        self._repoint_entry(new.parent, new.name, moved.ino)
        moved = self._relink(moved, moved.nlink, now_ns)
        other = self._relink(other, other.nlink, now_ns)
        self._touch_both(old, -arrives, new, arrives, now_ns)
        return RenameResult(moved, exchanged=other)

    def _touch_both(
        self, old: _Place, old_change: int, new: _Place, new_change: int, now_ns: int
    ) -> None:
        """Read only now: a parent may be one of the two that moved (its ctime is new)."""
        if old.parent == new.parent:
            self._touch(self._inode(old.parent), now_ns, old_change + new_change)
        else:
            self._touch(self._inode(old.parent), now_ns, old_change)
            self._touch(self._inode(new.parent), now_ns, new_change)

    # ---- refusals

    def _refuse_inside_itself(self, inode: Inode, old: _Place, new: _Place) -> None:
        if not S_ISDIR(inode.mode) or old.parent == new.parent:
            return
        if self._db.row(_IS_BELOW, (new.parent, inode.ino)) is not None:
            raise ForbiddenMove(f"directory {inode.ino} would move below itself")

    def _refuse_replacing(self, moved: Inode, other: Inode) -> None:
        if not S_ISDIR(other.mode):
            if S_ISDIR(moved.mode):
                raise NotADirectory(f"directory {moved.ino} cannot replace file {other.ino}")
            return
        if not S_ISDIR(moved.mode):
            raise IsADirectory(f"file {moved.ino} cannot replace directory {other.ino}")
        if self._has_children(other.ino):
            raise DirectoryNotEmpty(f"directory {other.ino} is not empty")

    def _refuse_too_many_subdirectories(
        self, old: _Place, old_change: int, new: _Place, new_change: int
    ) -> None:
        if old.parent == new.parent:
            return
        for parent, change in ((old.parent, old_change), (new.parent, new_change)):
            if change > 0 and self._inode(parent).nlink + change > MAX_LINKS:
                raise TooManyLinks(f"directory {parent} has too many subdirectories")
