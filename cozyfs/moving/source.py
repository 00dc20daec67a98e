"""The items of an instance, from its tree and its bucket.

The tree is an index of our own, a moment of the journal that nothing changes, so the same items
come in the same order as often as they are asked for: directories, each after its parent, then the
other files by path, each followed by its versions. Thumbnails and the avatar are not in the tree:
they are listed once, and that list is the caller's to keep.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import trio

from cozyfs.errors import InstanceError, JournalDamaged, ObjectNotFound
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

PAGE = 256
HEADS_AT_ONCE = 8

SIDE_PREFIXES = ("avatar", "thumbs/")
"""Names in an instance's part of its bucket that hold what is not in the tree."""


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


# ---- beside the tree


async def side_objects(objects: Objects) -> list[dict[str, Any]]:
    """What the bucket has of the instance beside contents: documents, by name."""
    store, bucket, prefix = objects.store, objects.bucket, f"{objects.db_prefix}/"

    def names() -> list[str]:
        return [
            info.key.removeprefix(prefix)
            for start in SIDE_PREFIXES
            for info in store.list(bucket, prefix + start)
            if (start.endswith("/") or info.key == prefix + start)
            # Some servers list a folder as an empty object.
            and not info.key.endswith("/")
        ]

    found: dict[str, dict[str, Any]] = {}
    limit = trio.CapacityLimiter(HEADS_AT_ONCE)

    async def look(name: str) -> None:
        async with limit:
            try:
                info = await objects.caller.store(store.head, bucket, prefix + name)
            except ObjectNotFound:
                return  # it went meanwhile
        found[name] = {
            "name": name,
            "size": str(info.size),
            "content_type": info.content_type or "application/octet-stream",
            "metadata": dict(info.metadata),
        }

    listed = await objects.caller.store(names)
    for start in range(0, len(listed), PAGE):
        async with trio.open_nursery() as nursery:
            for name in listed[start : start + PAGE]:
                nursery.start_soon(look, name)
    return [found[name] for name in listed if name in found]


def side_item(objects: Objects, document: dict[str, Any]) -> Item:
    """The item of one of :func:`side_objects`."""
    name, size = document["name"], int(document["size"])
    content = StoredContent(objects, f"{objects.db_prefix}/{name}", size, size, name)
    return Item(Kind.OBJECT, document, content, name)
