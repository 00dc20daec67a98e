"""The tree's side of an import: inodes, names, attributes and versions as documents say.

Whatever is there already, from a former import of the same archive or back after a crash, is
brought to the same end. Plain calls on the loop, inside the transaction of the caller; what can be
wrong with a document is found before, by :meth:`Entering.check`.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from typing import TYPE_CHECKING

from cozyfs.errors import ArchiveError, NotFound
from cozyfs.index import NOREPLACE, Index, TrashItem, Version
from cozyfs.values import (
    ROOT_DOC_ID,
    ROOT_INO,
    TRASH_DOC_ID,
    TRASH_INO,
    AttributeChanges,
    Content,
    Inode,
)
from cozyfs.vfs.names import conflict_name, decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from cozyfs.moving.documents import Entity, VersionEntity
    from cozyfs.moving.sending import Sent

log = logging.getLogger(__name__)


class Entering:
    """Into *index*; *problem* is told what is left out of a document."""

    def __init__(self, index: Index, problem: Callable[[str], None]) -> None:
        self._index = index
        self._problem = problem

    def check(self, entity: Entity) -> Inode:
        """All that can be wrong with it, before its transaction: the parent. Raises
        ArchiveError."""
        if entity.doc_id in (ROOT_DOC_ID, TRASH_DOC_ID) and not stat.S_ISDIR(entity.mode):
            raise ArchiveError(f"the archive has a file in place of {entity.doc_id}")
        known = self._index.with_doc_ids([entity.doc_id]).get(entity.doc_id)
        if known is not None and stat.S_IFMT(known.mode) != stat.S_IFMT(entity.mode):
            raise ArchiveError(f"{decode(entity.name)} is there already, and of another kind")
        for dir_id, _ in entity.links:
            self._directory_of(dir_id)
        return self._directory_of(entity.dir_id or ROOT_DOC_ID)

    def _directory_of(self, doc_id: str) -> Inode:
        if doc_id in (ROOT_DOC_ID, TRASH_DOC_ID):
            return self._index.get(ROOT_INO if doc_id == ROOT_DOC_ID else TRASH_INO)
        found = self._index.with_doc_ids([doc_id]).get(doc_id)
        if found is None or not stat.S_ISDIR(found.mode):
            raise ArchiveError(f"the directory {doc_id} is not in the archive")
        return found

    def enter(self, entity: Entity, content: Content | None) -> None:
        """The inode of *entity*, as it is to be. Inside a transaction."""
        if entity.doc_id in (ROOT_DOC_ID, TRASH_DOC_ID):
            self._describe(self._directory_of(entity.doc_id), entity)
            return
        parent = self._directory_of(entity.dir_id)
        inode = self._index.with_doc_ids([entity.doc_id]).get(entity.doc_id)
        if inode is None:
            inode = self._make(entity, parent)
        else:
            self._put_in_place(inode, entity, parent)
        if content is not None:
            self._index.set_content(
                inode.ino,
                content,
                mtime_ns=entity.mtime_ns,
                ctime_ns=entity.ctime_ns,
                now_ns=time.time_ns(),
            )
        for dir_id, name in entity.links:
            self._link(inode, self._directory_of(dir_id), name, entity.ctime_ns)
        self._describe(inode, entity)

    def _make(self, entity: Entity, parent: Inode) -> Inode:
        name = self._free_name(parent, entity)
        made = self._index.make(
            parent.ino,
            name,
            entity.mode,
            uid=os.getuid() if entity.uid is None else entity.uid,
            gid=os.getgid() if entity.gid is None else entity.gid,
            rdev=entity.rdev,
            target=entity.target,
            doc_id=entity.doc_id,
            now_ns=entity.btime_ns,
        )
        self._put_times_back(parent)
        return made

    def _free_name(self, parent: Inode, entity: Entity) -> bytes:
        """A Cozy may have two of a name; a directory cannot."""
        if not self._index.has(parent.ino, entity.name):
            return entity.name
        name = conflict_name(
            decode(entity.name),
            not stat.S_ISDIR(entity.mode),
            lambda text: self._index.has(parent.ino, text.encode()),
        )
        log.warning("%s was there twice: one is called %s", decode(entity.name), name)
        return name.encode()

    def _put_in_place(self, inode: Inode, entity: Entity, parent: Inode) -> None:
        """What a former import made, or what came back after a crash."""
        wanted = {(parent.ino, entity.name)} | {
            (self._directory_of(dir_id).ino, name) for dir_id, name in entity.links
        }
        names = self._index.entries_of(inode.ino)
        if wanted & set(names) or not names:
            return
        taken = self._index.has(parent.ino, entity.name)
        if taken and all(above == parent.ino for above, _ in names):
            return  # two of a name: this is the other
        above, name = names[0]
        old = self._index.get(above)
        self._index.rename(
            above,
            name,
            parent.ino,
            self._free_name(parent, entity),
            flags=NOREPLACE,
            now_ns=entity.ctime_ns,
            keep=lambda _: False,
        )
        self._put_times_back(old)
        self._put_times_back(parent)

    def _link(self, inode: Inode, parent: Inode, name: bytes, ctime_ns: int) -> None:
        try:
            if self._index.lookup(parent.ino, name).ino == inode.ino:
                return
        except NotFound:
            self._index.link(inode.ino, parent.ino, name, ctime_ns)
            self._put_times_back(parent)
            return
        self._problem(
            f"{decode(name)} is there already; a further link to another file was to be called so"
        )

    def _put_times_back(self, directory: Inode) -> None:
        """They changed with its entries; its own document says what they are."""
        self._index.set_attributes(
            directory.ino,
            AttributeChanges(atime_ns=directory.atime_ns, mtime_ns=directory.mtime_ns),
            directory.ctime_ns,
        )

    def _describe(self, inode: Inode, entity: Entity) -> None:
        """All that is not a name and not a content."""
        index, ino, ctime_ns = self._index, inode.ino, entity.ctime_ns
        for name in index.list_xattrs(ino):
            if name not in entity.xattrs:
                index.remove_xattr(ino, name, ctime_ns)
        for name, value in entity.xattrs.items():
            index.set_xattr(ino, name, value, now_ns=ctime_ns)
        if index.document(ino) != entity.fields:
            index.set_document(ino, entity.fields)
        if entity.trash is not None:
            note = entity.trash
            index.remember_trashed(TrashItem(ino, note.trashed_ns, note.restore_path, note.name))
        else:
            index.forget_trashed(ino)
        if index.get(ino).btime_ns != entity.btime_ns:
            index.set_birth(ino, entity.btime_ns)
        index.set_attributes(
            ino,
            AttributeChanges(
                mode=stat.S_IMODE(entity.mode),
                uid=entity.uid,
                gid=entity.gid,
                atime_ns=entity.atime_ns,
                mtime_ns=entity.mtime_ns,
            ),
            ctime_ns,
        )

    def add_version(self, entity: VersionEntity, sent: Sent) -> None:
        """Its object is in the store. Raises AlreadyExists."""
        fields = json.dumps(
            entity.fields, ensure_ascii=False, sort_keys=True, separators=(",", ":")
        )
        self._index.add_version(
            Version(
                doc_id=entity.doc_id,
                internal_id=entity.internal_id,
                created_ns=entity.created_ns,
                updated_ns=entity.updated_ns,
                size=entity.size,
                stored=sent.stored,
                md5=entity.md5,
                etag=sent.etag,
                extents=entity.extents,
                object_doc_id=None,
                fields=fields,
            )
        )
