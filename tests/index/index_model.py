"""A POSIX tree as plain dictionaries: the one other definition of what an index should do.

Deliberately simple and slow: no link counts are kept, they are counted. Refusals are raised with
the classes of `cozyfs.errors`, which is what the tests compare.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cozyfs.errors import (
    AlreadyExists,
    Busy,
    DirectoryNotEmpty,
    ForbiddenMove,
    InvalidRequest,
    IsADirectory,
    NoSuchAttribute,
    NotADirectory,
    NotFound,
    NotPermitted,
)
from cozyfs.index import EXCHANGE, NO_OBJECT, NOREPLACE, NOTE_IMAGES
from cozyfs.values import ROOT_INO, TRASH_INO, TRASH_NAME


@dataclass
class Node:
    children: Any  # of a directory: name -> number; None: not a directory
    mtime: int
    ctime: int
    doc_id: str = ""
    regular: bool = False
    size: int = 0
    internal_id: str | None = None
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    fields: dict = field(default_factory=dict)


class Model:
    def __init__(self, now):
        self.nodes: dict[int, Node] = {
            ROOT_INO: Node({TRASH_NAME: TRASH_INO}, now, now),
            TRASH_INO: Node({}, now, now),
        }
        self.deletions = {}  # (doc id, internal id): time

    # ---- questions

    def node(self, ino):
        if ino not in self.nodes:
            raise NotFound
        return self.nodes[ino]

    def directory(self, ino):
        node = self.node(ino)
        if node.children is None:
            raise NotADirectory
        return node

    def live_directory(self, ino):
        node = self.directory(ino)
        if self.nlink(ino) == 0:
            raise NotFound
        return node

    def child(self, parent, name):
        children = self.directory(parent).children
        if name not in children:
            raise NotFound
        return children[name]

    def entries(self, ino):
        return sorted(
            (parent, name)
            for parent, node in self.nodes.items()
            for name, child in (node.children or {}).items()
            if child == ino
        )

    def is_directory(self, ino):
        return self.nodes[ino].children is not None

    def nlink(self, ino):
        names = len(self.entries(ino))
        if not self.is_directory(ino):
            return names
        if not names and ino != ROOT_INO:
            return 0
        return 2 + sum(self.is_directory(child) for child in self.nodes[ino].children.values())

    def is_below(self, ino, top):
        while ino != top:
            entries = self.entries(ino)
            if not entries:
                return False
            ino = entries[0][0]
        return True

    # ---- changes

    def touch(self, now, *parents):
        for parent in parents:
            self.nodes[parent].mtime = self.nodes[parent].ctime = now

    def make(self, parent, name, now, *, take_ino, doc_id, directory=False, target=None):
        """*take_ino* is called only when nothing is refused."""
        if name in self.live_directory(parent).children:
            raise AlreadyExists
        number = take_ino()
        node = Node({} if directory else None, now, now, doc_id)
        node.regular = not directory and target is None
        node.size = len(target or b"")
        self.nodes[number] = node
        self.nodes[parent].children[name] = number
        self.touch(now, parent)

    def link(self, ino, parent, name, now):
        self.node(ino)
        if self.is_directory(ino):
            raise NotPermitted
        if self.nlink(ino) == 0:
            raise NotFound
        if name in self.live_directory(parent).children:
            raise AlreadyExists
        self.nodes[parent].children[name] = ino
        self.nodes[ino].ctime = now
        self.touch(now, parent)

    def unlink(self, parent, name, now, *, keep):
        ino = self.child(parent, name)
        if self.is_directory(ino):
            raise IsADirectory
        self.remove_name(parent, name, now, keep=keep)

    def rmdir(self, parent, name, now, *, keep):
        ino = self.child(parent, name)
        if not self.is_directory(ino):
            raise NotADirectory
        if ino in (ROOT_INO, TRASH_INO):
            raise Busy
        if self.nodes[ino].children:
            raise DirectoryNotEmpty
        self.remove_name(parent, name, now, keep=keep)

    def remove_name(self, parent, name, now, *, keep):
        ino = self.nodes[parent].children.pop(name)
        self.nodes[ino].ctime = now
        self.touch(now, parent)
        if self.nlink(ino) == 0:
            if self.nodes[ino].regular and name.endswith(b".cozy-note"):
                self.deletions[self.nodes[ino].doc_id, NOTE_IMAGES] = now
            if not keep:
                self.forget(ino, now)

    def forget(self, ino, now):
        node = self.nodes[ino]
        self.let_go(node, now)
        if node.regular and node.size and node.internal_id is None:
            self.deletions[node.doc_id, NO_OBJECT] = now
        del self.nodes[ino]

    def let_go(self, node, now):
        if node.internal_id is not None:
            self.deletions[node.doc_id, node.internal_id] = now

    def drop(self, ino, now):
        self.node(ino)
        if self.nlink(ino) > 0:
            raise InvalidRequest
        self.forget(ino, now)

    def rename(self, parent, name, new_parent, new_name, now, *, flags, keep):
        moved = self.child(parent, name)
        target = self.live_directory(new_parent).children
        other = target.get(new_name)
        if flags == EXCHANGE and other is None:
            raise NotFound
        if flags == NOREPLACE and other is not None:
            raise AlreadyExists
        if moved == other:
            return
        if moved in (ROOT_INO, TRASH_INO):
            raise Busy
        if self.is_directory(moved) and self.is_below(new_parent, moved):
            raise ForbiddenMove
        if other in (ROOT_INO, TRASH_INO):
            raise Busy
        if flags == EXCHANGE:
            if self.is_directory(other) and self.is_below(parent, other):
                raise ForbiddenMove
            self.nodes[parent].children[name] = other
            self.nodes[other].ctime = now
        else:
            if other is not None:
                self.refuse_replacing(moved, other)
                self.remove_name(new_parent, new_name, now, keep=keep)
            del self.nodes[parent].children[name]
        self.nodes[new_parent].children[new_name] = moved
        self.nodes[moved].ctime = now
        self.touch(now, parent, new_parent)

    def refuse_replacing(self, moved, other):
        if self.is_directory(moved) and not self.is_directory(other):
            raise NotADirectory
        if self.is_directory(other) and not self.is_directory(moved):
            raise IsADirectory
        if self.is_directory(other) and self.nodes[other].children:
            raise DirectoryNotEmpty

    def set_content(self, ino, internal_id, size, now):
        node = self.node(ino)
        if not node.regular:
            raise InvalidRequest
        if node.internal_id != internal_id:
            self.let_go(node, now)
        node.internal_id, node.size = internal_id, size
        node.mtime = node.ctime = now

    def set_xattr(self, ino, name, value, now, *, create, replace):
        node = self.node(ino)
        if create and name in node.xattrs:
            raise AlreadyExists
        if replace and name not in node.xattrs:
            raise NoSuchAttribute
        node.xattrs[name] = value
        node.ctime = now

    def remove_xattr(self, ino, name, now):
        node = self.node(ino)
        if name not in node.xattrs:
            raise NoSuchAttribute
        del node.xattrs[name]
        node.ctime = now

    def set_document(self, ino, fields):
        self.node(ino).fields = dict(fields)
