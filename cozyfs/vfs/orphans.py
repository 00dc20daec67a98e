"""The directory of what has lost its place: contents whose file or folder is gone.

Where `cozyfs.journal.rollforward` and `cozyfs.vfs.kept` put what they find.
"""

from __future__ import annotations

from stat import S_IFDIR, S_ISDIR
from typing import TYPE_CHECKING

from cozyfs.errors import NotFound
from cozyfs.store.keys import new_doc_id
from cozyfs.values import ROOT_INO
from cozyfs.vfs.names import conflict_name, decode

if TYPE_CHECKING:
    from cozyfs.index import Index
    from cozyfs.values import Ino

ORPHANS_NAME = b".cozy_orphans"


def orphans_directory(index: Index, *, uid: int, gid: int, now_ns: int) -> Ino:
    """The directory of orphans, made for *uid* and *gid* when it is missing; the root where a file
    has its name."""
    try:
        inode = index.lookup(ROOT_INO, ORPHANS_NAME)
    except NotFound:
        inode = index.make(
            ROOT_INO,
            ORPHANS_NAME,
            S_IFDIR | 0o700,
            uid=uid,
            gid=gid,
            doc_id=new_doc_id(now_ns),
            now_ns=now_ns,
        )
    return inode.ino if S_ISDIR(inode.mode) else ROOT_INO


def place_for(index: Index, name: bytes, *, uid: int, gid: int, now_ns: int) -> tuple[Ino, bytes]:
    """:func:`orphans_directory`, and *name* or one like it that is free there."""
    parent = orphans_directory(index, uid=uid, gid=gid, now_ns=now_ns)
    return parent, free_name(index, parent, name)


def free_name(index: Index, parent: Ino, name: bytes) -> bytes:
    """*name*, or with a number where it is taken."""
    if not index.has(parent, name):
        return name
    return conflict_name(
        decode(name), True, lambda other: index.has(parent, other.encode())
    ).encode()
