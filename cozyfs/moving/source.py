"""The items of an instance, from its tree and its bucket.

The tree is an index of our own, a moment of the journal that nothing changes, so the same items
come in the same order as often as they are asked for: directories, each after its parent, then the
other files by path, each followed by its versions. What is not in the tree is in
`cozyfs.moving.side`.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

from cozyfs.errors import InstanceError, JournalDamaged
from cozyfs.index import Index
from cozyfs.journal import JournalObjects, restore
from cozyfs.moving.documents import (
    content_size,
    document_of,
    link_paths,
    version_document,
)
from cozyfs.moving.items import Item, Kind, StoredContent
from cozyfs.values import ROOT_INO, Ino, Inode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cozyfs.store.base import Store
    from cozyfs.values import Instance
    from cozyfs.vfs.objects import Objects

FORMAT = 1
"""Of the archive, in its ``instance.json``."""

SETTINGS = ("max_versions", "version_delay_s", "trash_age_s")
"""Fields of an instance's record that decide what of it is kept, and so move with it."""

PAGE = 256


async def restored_tree(instance: Instance, store: Store, path: Path) -> None:
    """Make the index *path* as the journal in the bucket has the tree now. Raises InstanceError,
    JournalDamaged, StoreError, NoSpace."""
    restored = await restore(JournalObjects(store, instance.bucket, instance.db_prefix), path)
    if restored is None:
        raise InstanceError(f"{instance.domain} has no tree yet: mount it for writing once")
    if not restored.is_complete:
        raise JournalDamaged(
            f"the tree of {instance.domain} is not whole: {'; '.join(restored.problems)}"
        )
    with Index.open(path) as index:
        for orphan in index.orphans():  # removed, still open somewhere
            index.drop(orphan.ino, orphan.ctime_ns)


def instance_item(index: Index, instance: Instance, export_id: str, exported_at: str) -> Item:
    """The first item: what moves, and how much of it."""
    usage = index.usage
    document: dict[str, Any] = {
        "format": FORMAT,
        "id": export_id,
        "created_at": exported_at,
        "domain": instance.domain,
        "org": instance.org,
        "context": instance.context,
        "quota": instance.quota,
        **{name: getattr(instance, name) for name in SETTINGS},
        "instance_created_at": instance.created_at,
        "totals": {
            "files": usage.files,
            "versions": usage.versions,
            "bytes": usage.disk_bytes,
        },
    }
    return Item(Kind.INSTANCE, document)


def tree_items(index: Index, objects: Objects) -> Iterator[Item]:
    """All of the tree. Every step is some calls of the index."""
    root = index.get(ROOT_INO)
    yield Item(Kind.DIRECTORY, document_of(index, root, "/", None, b""), path="/")
    for parent, name, inode, path in _walk(index):
        if stat.S_ISDIR(inode.mode):
            text = path.decode()
            yield Item(Kind.DIRECTORY, document_of(index, inode, text, parent, name), path=text)
    for parent, name, inode, path in _walk(index):
        if stat.S_ISDIR(inode.mode):
            continue
        if inode.nlink > 1 and link_paths(index, inode.ino)[0] != path:
            continue  # it comes, or came, under another of its names
        text = path.decode()
        document = document_of(index, inode, text, parent, name)
        if not stat.S_ISREG(inode.mode):
            yield Item(Kind.SPECIAL, document, path=text)
            continue
        yield Item(Kind.FILE, document, _content(objects, inode, text), text)
        for version in index.versions_of(inode.doc_id):
            label = f"{version.doc_id}/{version.internal_id}"
            content = StoredContent(
                objects,
                objects.key(version.content_doc_id, version.internal_id),
                content_size(version.size, version.extents),
                version.stored,
                f"a version of {text}",
            )
            yield Item(Kind.VERSION, version_document(version), content, label)


def _content(objects: Objects, inode: Inode, path: str) -> StoredContent:
    if inode.internal_id is None:
        return StoredContent(objects, "", 0, 0, path)
    key = objects.key(inode.content_doc_id, inode.internal_id)
    return StoredContent(objects, key, content_size(inode.size, inode.extents), inode.stored, path)


def _walk(index: Index) -> Iterator[tuple[Inode, bytes, Inode, bytes]]:
    """(parent, name, inode, path) of every entry, a directory before what is in it. Holds a page
    for each level of the tree."""
    levels = [(index.get(ROOT_INO), b"", _entries(index, ROOT_INO))]
    while levels:
        parent, path, entries = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
            continue
        name, inode = entry
        below = path + b"/" + name
        yield parent, name, inode, below
        if stat.S_ISDIR(inode.mode):
            levels.append((inode, below, _entries(index, inode.ino)))


def _entries(index: Index, directory: Ino) -> Iterator[tuple[bytes, Inode]]:
    after = b""
    while page := index.children(directory, after, PAGE):
        yield from page
        after = page[-1][0]
