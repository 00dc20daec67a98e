"""As whom and with which permissions a view shows what belongs to a file or directory of the tree.

Who may read a file, may read what a view has of it: owner and permissions are those of the file
and of the directories above it, without the right to write. Where an access control list says more
than permission bits can, the group gets nothing.
"""

from __future__ import annotations

from stat import S_IFDIR, S_ISDIR
from typing import TYPE_CHECKING

from cozyfs.vfs.acl import ACCESS

if TYPE_CHECKING:
    from cozyfs.index import Index
    from cozyfs.values import Inode

_READ = 0o444
_GROUP = 0o070


def readable(index: Index, inode: Inode) -> int:
    """The permission bits of a file that shows something of *inode*."""
    return _permissions(index, inode) & _READ


def as_directory(index: Index, inode: Inode) -> Inode:
    """As which a directory, or a file with something below it, is shown."""
    allowed = readable(index, inode)
    if S_ISDIR(inode.mode):
        allowed |= _permissions(index, inode) & 0o111
    else:
        allowed |= allowed >> 2
    # One link: tools must not conclude how many directories there are inside.
    return inode._replace(mode=S_IFDIR | allowed, nlink=1, size=0, stored=0)


def _permissions(index: Index, inode: Inode) -> int:
    if ACCESS in index.list_xattrs(inode.ino):
        return inode.mode & ~_GROUP
    return inode.mode
