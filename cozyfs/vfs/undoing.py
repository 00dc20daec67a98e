"""Giving up what was written to a file: the tree as it was before, by transactions of the index.

A shell's ``>`` opens a file empty and duplicates the descriptor; closing the first one stores the
empty content, and only then does the program write. Where such a write is refused the file has to
get back what it had when it was opened, which the deletion queue still has: `Node.before`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cozyfs.index import Changes
from cozyfs.values import Content

if TYPE_CHECKING:
    from cozyfs.index import Index
    from cozyfs.values import Ino, Inode


def remove_names(index: Index, ino: Ino, now_ns: int) -> Changes:
    """Take an inode that is open out of the tree, as if it had never been made: not by way of the
    trash. Raises NotFound."""
    names = index.entries_of(ino)
    with index.transaction():
        for parent, name in names:
            index.unlink(parent, name, now_ns, keep=True)
    return Changes(frozenset({ino, *(parent for parent, _ in names)}), frozenset(names))


def go_back(index: Index, before: Inode, now_ns: int) -> None:
    """Point the inode at the content it had, whose object must still be there; that is no version
    any more. Raises NotFound."""
    content = Content(
        before.internal_id,
        before.size,
        before.stored,
        before.md5,
        before.etag,
        before.extents,
        before.content_doc_id,
    )
    with index.transaction():
        inode = index.set_content(
            before.ino, content, mtime_ns=before.mtime_ns, ctime_ns=now_ns, now_ns=now_ns
        )
        if before.internal_id is not None:
            index.keep_object(before.content_doc_id, before.internal_id)
        for version in index.versions_of(inode.doc_id):
            if version.internal_id == before.internal_id:
                index.remove_version(version, now_ns)
