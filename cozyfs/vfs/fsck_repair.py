"""What ``cozyfs fsck --repair`` does about what it finds.

No byte is deleted that is not proven unreachable: thumbnails of files that do not exist, parts of
uploads that nobody will go on with, objects that have waited for their deletion for too long, rows
of inode numbers that no inode has. All else that nothing leads to comes back below /.cozy_orphans.

Each remedy looks again at the tree and the store as they are now, changes the tree in one
transaction, and raises CannotRepair, with nothing changed, where the finding does not hold any
more or cannot be undone. On the event loop; only what touches the store awaits.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from cozyfs.errors import CozyError, NotFound, ObjectNotFound
from cozyfs.index import NO_CHANGES, NOREPLACE, Changes, Deletion, TrashItem, Version
from cozyfs.journal import JournalObjects, rollforward
from cozyfs.store.keys import new_doc_id
from cozyfs.values import ROOT_INO, AttributeChanges, Content, Ino, Inode
from cozyfs.vfs.fsck_findings import CannotRepair
from cozyfs.vfs.fsck_measure import measure
from cozyfs.vfs.names import check_name, conflict_name
from cozyfs.vfs.orphans import ORPHANS_NAME, orphans_directory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from collections.abc import Set as AbstractSet

    from cozyfs.index import Index
    from cozyfs.journal.rollforward import Found
    from cozyfs.store.base import PendingUpload
    from cozyfs.vfs.filesystem import FileSystem
    from cozyfs.vfs.objects import Objects


async def _nothing() -> None:
    """Where there is no journal."""


async def _show_nobody(changes: Changes) -> None:
    """Where nothing is mounted."""


def _no_keys() -> AbstractSet[str]:
    return frozenset()


@dataclass(slots=True)
class Bench:
    """The instance that is checked, and what can be done to it."""

    index: Index
    objects: Objects
    journal: JournalObjects
    in_use: Callable[[], AbstractSet[str]] = _no_keys
    """Keys of objects that drafts go on from."""
    is_open: Callable[[Ino], bool] = lambda ino: False
    """Whether somebody has the inode open, or the kernel knows it."""
    is_dirty: Callable[[Ino], bool] = lambda ino: False
    """Whether it has content that is not in the store yet."""
    forget_object: Callable[[str], None] = lambda key: None
    """What was read of an object does not hold any more."""
    knows_drafts: bool = False
    """Whether the others here know: not where drafts of an earlier mount wait for the next."""
    show: Callable[[Changes], Awaitable[None]] = _show_nobody
    """Tells the kernel what is different."""
    snapshot: Callable[[], Awaitable[None]] = _nothing
    """Stores the journal, then a snapshot of the tree."""
    confirm: Callable[[], Awaitable[None]] = _nothing
    """Raises unless this process may still write the instance."""
    uid: int = os.getuid()
    gid: int = os.getgid()
    clock: Callable[[], int] = time.time_ns
    changes: Changes = NO_CHANGES

    @classmethod
    def of_mount(cls, fs: FileSystem, show: Callable[[Changes], Awaitable[None]]) -> Self:
        """Beside the requests of a mount; *show* tells its kernel."""
        objects, files = fs.objects, fs.files
        return cls(
            fs.index,
            objects,
            JournalObjects(
                objects.store, objects.bucket, objects.db_prefix, caller=objects.caller
            ),
            in_use=lambda: fs.objects_in_use,
            is_open=fs.is_in_use,
            is_dirty=lambda ino: files.state(ino) != "clean",
            forget_object=files.cache.forget,
            knows_drafts=True,
            show=show,
            snapshot=fs.snapshot or _nothing,
            confirm=fs.confirm or _nothing,
        )

    def changed(self, *inodes: Ino, entries: tuple[tuple[Ino, bytes], ...] = ()) -> None:
        """The kernel may know these otherwise."""
        parents = {parent for parent, _ in entries}
        self.changes = self.changes.merged(
            Changes(frozenset(inodes) | parents, frozenset(entries))
        )

    def orphans(self) -> Ino:
        """The directory of orphans."""
        directory = orphans_directory(self.index, uid=self.uid, gid=self.gid, now_ns=self.clock())
        self.changed(ROOT_INO, entries=((ROOT_INO, ORPHANS_NAME),))
        return directory

    def free_name(self, parent: Ino, name: bytes, *, is_file: bool) -> bytes:
        """*name*, or one like it that is legal and free."""
        try:
            check_name(name)
        except CozyError:
            name = legal(name)
        if not self._has(parent, name.decode()):
            return name
        return conflict_name(name.decode(), is_file, partial(self._has, parent)).encode()

    def _has(self, parent: Ino, name: str) -> bool:
        return self.index.has(parent, name.encode())

    async def is_there(self, key: str) -> bool:
        try:
            await self.objects.caller.store(self.objects.store.head, self.objects.bucket, key)
        except ObjectNotFound:
            return False
        return True


def legal(name: bytes) -> bytes:
    """A legal name like *name*."""
    readable = name.decode("utf-8", "replace")
    cleaned = "".join("_" if char in "/\0\n\r" else char for char in readable).encode()
    cleaned = cleaned[:200].decode("utf-8", "ignore").encode()
    return b"_" + cleaned if cleaned in (b"", b".", b"..") else cleaned


# ---- the tree


async def put_back_first(bench: Bench) -> None:
    """The root, or its trash."""
    made = bench.index.put_back_first(bench.uid, bench.gid, bench.clock())
    bench.changed(ROOT_INO, entries=tuple(made))


async def adopt(bench: Bench, ino: Ino, name: bytes) -> None:
    """What cannot be reached, into the directory of orphans."""
    index = bench.index
    if _is_reachable(index, ino):
        raise CannotRepair("it can be reached by now")
    inode = index.get(ino)
    leave = index.entries_of(ino)
    with index.transaction():
        directory = bench.orphans()
        is_file = not _is_directory(inode)
        new = bench.free_name(directory, name or inode.doc_id.encode(), is_file=is_file)
        index.adopt(ino, directory, new, leave)
    bench.changed(ino, entries=(*leave, (directory, new)))


async def recount_links(bench: Bench, ino: Ino) -> None:
    bench.index.recount_links(ino)
    bench.changed(ino)


async def remove_dangling(bench: Bench, parent: Ino, name: bytes) -> None:
    bench.index.remove_dangling(parent, name)
    bench.changed(entries=((parent, name),))


async def remove_name(bench: Bench, parent: Ino, name: bytes) -> None:
    bench.index.remove_name(parent, name)
    bench.changed(entries=((parent, name),))


async def remove_stray(bench: Bench, table: str, ino: Ino) -> None:
    bench.index.remove_stray(table, ino)


async def rename(bench: Bench, parent: Ino, name: bytes) -> None:
    """A name that no file may have, to one like it."""
    inode = bench.index.lookup(parent, name)
    new = bench.free_name(parent, legal(name), is_file=not _is_directory(inode))
    bench.index.rename(parent, name, parent, new, bench.clock(), flags=NOREPLACE, keep=_keep)
    bench.changed(entries=((parent, name), (parent, new)))


async def remember_trashed(bench: Bench, ino: Ino, name: bytes) -> None:
    bench.index.remember_trashed(TrashItem(ino, bench.clock(), b"/", name))


async def forget_trashed(bench: Bench, ino: Ino) -> None:
    bench.index.forget_trashed(ino)


async def drop_field(bench: Bench, ino: Ino, field: str) -> None:
    """Of the document: the tree says what it is."""
    fields = bench.index.document(ino)
    fields.pop(field, None)
    bench.index.set_document(ino, fields)


async def drop_removed(bench: Bench, ino: Ino) -> None:
    """An inode without names that nobody has open; its object waits for deletion then."""
    if bench.is_open(ino):
        raise CannotRepair("somebody has it open")
    bench.index.drop(ino, bench.clock())
    bench.changed(ino)


async def keep_object(bench: Bench, doc_id: str, internal_id: str) -> None:
    """Off the deletion queue: it is used."""
    if not bench.index.is_held(doc_id, internal_id):
        raise CannotRepair("it is not used any more")
    bench.index.keep_object(doc_id, internal_id)


async def raise_ino_limit(bench: Bench) -> None:
    bench.index.raise_ino_limit()


async def count_anew(bench: Bench) -> None:
    bench.index.reload()


async def make_file_of_versions(bench: Bench, doc_id: str) -> None:
    """A file for versions that have none: its content is the newest of them."""
    index = bench.index
    versions = index.versions_of(doc_id)
    if not versions or index.with_doc_ids([doc_id]):
        raise CannotRepair("it has a file by now")
    newest = versions[-1]
    now = bench.clock()
    with index.transaction():
        directory = bench.orphans()
        name = bench.free_name(directory, doc_id.encode(), is_file=True)
        inode = index.make(
            directory, name, 0o100600, uid=bench.uid, gid=bench.gid, doc_id=doc_id, now_ns=now
        )
        _restore(bench, inode, newest)
    bench.changed(inode.ino, entries=((directory, name),))


# ---- contents


async def replace_lost_content(bench: Bench, ino: Ino, internal_id: str) -> None:
    """A file whose object is gone gets the newest version whose object is there. Without any, it
    goes into the directory of orphans, empty: its row is in the finding."""
    index = bench.index
    inode = index.get(ino)
    key = bench.objects.key(inode.content_doc_id, internal_id)
    if bench.is_dirty(ino):
        raise CannotRepair("it is being written: close it, and check again")
    if await bench.is_there(key):
        raise CannotRepair("its object is there by now")
    for version in reversed(index.versions_of(inode.doc_id)):
        if await bench.is_there(bench.objects.key(version.content_doc_id, version.internal_id)):
            break
    else:
        version = None
    inode = index.get(ino)
    if inode.internal_id != internal_id or bench.is_dirty(ino):
        raise CannotRepair("it has another content by now")
    with index.transaction():
        if version is not None:
            _restore(bench, inode, version)
        else:
            _empty_into_orphans(bench, inode)
        # Should the object turn up again, it is an orphan, and nobody's to delete.
        index.keep_object(inode.content_doc_id, internal_id)
    bench.changed(ino)


async def forget_lost_version(bench: Bench, version: Version) -> None:
    """A version whose object is gone."""
    key = bench.objects.key(version.content_doc_id, version.internal_id)
    if await bench.is_there(key):
        raise CannotRepair("its object is there by now")
    with bench.index.transaction():
        bench.index.remove_version(version, bench.clock())
        if not bench.index.is_held(version.content_doc_id, version.internal_id):
            bench.index.keep_object(version.content_doc_id, version.internal_id)


async def adopt_facts(bench: Bench, row: Inode | Version, found_etag: str) -> None:
    """Size, MD5 and ETag of the object into the row, if the object proves to be whole: its bytes
    have the MD5 that its ETag says, or the one that the row says."""
    assert row.internal_id is not None
    objects = bench.objects
    key = objects.key(row.content_doc_id, row.internal_id)
    seen = await measure(objects, key)
    if seen.etag != found_etag:
        raise CannotRepair("the object is another one by now")
    if not seen.proves_itself and (row.md5 is None or seen.md5 != row.md5):
        raise CannotRepair("the bytes differ from the object's own checksum")
    if row.extents is None:
        size = seen.size
        md5: bytes | None = seen.md5
    else:
        # Data back to back, then the trailer: without the same trailer at its end it is another.
        if not seen.tail.endswith(row.extents):
            raise CannotRepair("it is not the content with holes that the tree knows")
        size, md5 = row.size, row.md5
    extents, doc_id = row.extents, row.content_doc_id
    content = Content(row.internal_id, size, seen.size, md5, seen.etag, extents, doc_id)
    with bench.index.transaction():
        if isinstance(row, Inode):
            now = bench.index.get(row.ino)
            if now.internal_id != row.internal_id or bench.is_dirty(row.ino):
                raise CannotRepair("it has another content by now")
            _set_content(bench, now, content, now.mtime_ns)
        else:
            bench.index.remove_version(row, bench.clock())
            bench.index.add_version(
                row._replace(size=size, stored=seen.size, md5=md5, etag=seen.etag)
            )
    bench.forget_object(key)
    if isinstance(row, Inode):
        bench.changed(row.ino)


async def attach(bench: Bench, found: Found) -> None:
    """An object that nothing leads to becomes a file again: where its metadata say, if its
    document has no file and the name is free, else in the directory of orphans."""
    index = bench.index
    if index.is_held(found.doc_id, found.internal_id):
        raise CannotRepair("it belongs to a file by now")
    new = planned(index, found, bench.clock())
    paths = rollforward.apply(
        index,
        rollforward.Plan(files=[new]),
        uid=bench.uid,
        gid=bench.gid,
        now_ns=bench.clock(),
    )
    for path in paths:
        inode = index.resolve(path)
        places = index.entries_of(inode.ino)
        bench.changed(inode.ino, entries=(*places, (ROOT_INO, ORPHANS_NAME)))


def planned(index: Index, found: Found, now_ns: int) -> rollforward.NewFile:
    """Where :func:`attach` would put it."""
    metadata = found.info.metadata
    known = index.with_doc_ids([found.doc_id, metadata.get("cozyfs-parent", "")])
    if "cozyfs-name" in metadata and rollforward.is_complete(found.info):
        new = rollforward.new_file(found, known)
    else:
        new = rollforward.NewFile(None, legal(found.doc_id.encode()), 0o100600, found)
    if found.doc_id in known:
        # Its file has another content: which of them is right, people have to see.
        return rollforward.NewFile(None, new.name, new.mode, found, new_doc_id(now_ns))
    return new


async def remove_thumbnail(bench: Bench, doc_id: str, key: str) -> None:
    if bench.index.is_wanted(doc_id):
        raise CannotRepair("its file is there by now")
    await bench.objects.caller.store(bench.objects.store.delete, bench.objects.bucket, key)


async def abort_upload(bench: Bench, upload: PendingUpload) -> None:
    _insist_on_drafts(bench)
    if upload.key in bench.in_use():
        raise CannotRepair("it goes on")
    objects = bench.objects
    await objects.caller.store(
        objects.store.abort_multipart, objects.bucket, upload.key, upload.upload_id
    )


async def finish_deletion(bench: Bench, row: Deletion, key: str) -> None:
    """What should have been deleted long ago."""
    _insist_on_drafts(bench)
    if bench.index.is_held(row.doc_id, row.internal_id) or key in bench.in_use():
        raise CannotRepair("it is used")
    await bench.objects.caller.store(bench.objects.store.delete, bench.objects.bucket, key)
    bench.index.forget_deletions([row])


async def write_snapshot(bench: Bench) -> None:
    """A new start for the journal. It is at a place of its own, which a change makes: a damaged
    one stays where it is."""
    bench.index.set_attributes(ROOT_INO, AttributeChanges(), bench.clock())
    await bench.snapshot()
    bench.changed(ROOT_INO)


# ---- inside


def _insist_on_drafts(bench: Bench) -> None:
    if not bench.knows_drafts and next(iter(bench.index.drafts()), None) is not None:
        raise CannotRepair("content kept on this machine may go on from it: mount first")


def _restore(bench: Bench, inode: Inode, version: Version) -> None:
    """*version* is the content of the file from now on, and no version any more."""
    _set_content(bench, inode, version.content, version.updated_ns)
    bench.index.remove_version(version, bench.clock())


def _empty_into_orphans(bench: Bench, inode: Inode) -> None:
    directory = bench.orphans()
    for parent, name in bench.index.entries_of(inode.ino):
        if parent != directory:
            new = bench.free_name(directory, name, is_file=True)
            bench.index.rename(
                parent, name, directory, new, bench.clock(), flags=NOREPLACE, keep=_keep
            )
            bench.changed(entries=((parent, name), (directory, new)))
    _set_content(bench, inode, Content(None, 0, 0, None, None), inode.mtime_ns)


def _set_content(bench: Bench, inode: Inode, content: Content, mtime_ns: int) -> None:
    now = bench.clock()
    bench.index.set_content(inode.ino, content, mtime_ns=mtime_ns, ctime_ns=now, now_ns=now)


def _is_reachable(index: Index, ino: Ino) -> bool:
    """By directories alone, from the root."""
    passed: set[Ino] = set()
    waiting = [ino]
    while waiting:
        each = waiting.pop()
        if each == ROOT_INO:
            return True
        if each not in passed:
            passed.add(each)
            waiting += [parent for parent, _ in index.entries_of(each) if _holds(index, parent)]
    return False


def _holds(index: Index, parent: Ino) -> bool:
    try:
        return _is_directory(index.get(parent))
    except NotFound:
        return False


def _keep(ino: Ino) -> bool:
    """Nothing is replaced by a rename here."""
    return True


def _is_directory(inode: Inode) -> bool:
    return inode.mode & 0o170000 == 0o040000
