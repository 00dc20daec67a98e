"""Instances that are full of everything, moved by the code of the commands, no mount."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import stat
import tarfile

import trio

from cozyfs import tree
from cozyfs.checking import check_tree
from cozyfs.index import TrashItem, Version
from cozyfs.moving.exporting import Destination, export
from cozyfs.moving.into import import_into
from cozyfs.moving.tar_reader import TarReader
from cozyfs.nurseries import background_tasks
from cozyfs.state import InstanceState
from cozyfs.store.keys import new_doc_id, new_internal_id, thumb_name
from cozyfs.threads import Caller
from cozyfs.values import ROOT_INO, TRASH_INO, AttributeChanges, Content
from cozyfs.vfs import extents
from cozyfs.vfs.fsck import Options, Progress
from cozyfs.vfs.objects import Objects

T0 = 1_700_000_000_123_456_789


def caller():
    return Caller(parallel=8, timeout_s=0.2)


def objects_of(store, instance):
    return Objects(store, caller(), instance.bucket, instance.db_prefix)


@contextlib.contextmanager
def state_of(folder, instance, store, *, name="state"):
    state = InstanceState.open(folder / name, instance.bucket, instance.db_prefix)
    state.lock(folder / "mnt", instance=instance.domain, store=store.description)
    try:
        yield state
    finally:
        state.unlock()


@contextlib.asynccontextmanager
async def writing(store, instance, folder):
    """The tree of *instance*, to be changed."""
    with state_of(folder, instance, store) as state:
        async with background_tasks() as keeping:
            opened = await tree.open_for_writing(
                instance,
                store,
                state,
                folder / "mnt",
                keeping,
                journal_interval_s=0.05,
                retention_s=86400.0,
                force_lease=False,
            )
            try:
                async with background_tasks() as nursery:
                    nursery.start_soon(opened.writer.run)
                    yield opened.index
                    await opened.flush(20)
                keeping.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await opened.close()
            finally:
                opened.index.close()


class Filler:
    """Puts things into a tree; every time differs, in its nanoseconds too."""

    def __init__(self, store, instance, index, seed=1):
        self.objects = objects_of(store, instance)
        self.store = store
        self.index = index
        self.random = random.Random(seed)
        self._now = T0

    def tick(self):
        self._now += self.random.randrange(1, 10**12)
        return self._now

    def make(self, parent, name, mode, **more):
        now = self.tick()
        return self.index.make(
            parent, name, mode, uid=1000, gid=100, doc_id=new_doc_id(now), now_ns=now, **more
        ).ino

    def directory(self, parent, name, mode=0o755):
        return self.make(parent, name, stat.S_IFDIR | mode)

    def put(self, doc_id, data, *, list_of_extents=None):
        internal_id = new_internal_id()
        body = data + (list_of_extents or b"")
        key = self.objects.key(doc_id, internal_id)
        etag = self.store.put(self.objects.bucket, key, body)
        return internal_id, etag, len(body)

    def write(self, ino, data, *, keep=False, doc_id=None):
        """*data* is the new content; *keep* makes a version of the former one."""
        inode, now = self.index.get(ino), self.tick()
        content = Content(None, 0, 0, None, None)
        if data:
            owner = doc_id or inode.doc_id
            internal_id, etag, stored = self.put(owner, data)
            md5 = hashlib.md5(data).digest()
            content = Content(internal_id, len(data), stored, md5, etag, doc_id=owner)
        with self.index.transaction():
            if keep:
                fields = {"tags": ["kept"], "cozyMetadata": {"createdAt": "2026-01-02T03:04:05Z"}}
                self.index.add_version(
                    Version(
                        inode.doc_id,
                        inode.internal_id,
                        now,
                        inode.mtime_ns,
                        inode.size,
                        inode.stored,
                        inode.md5,
                        inode.etag,
                        inode.extents,
                        inode.object_doc_id,
                        json.dumps(fields, sort_keys=True, separators=(",", ":")),
                    )
                )
            self.index.set_content(ino, content, mtime_ns=now, ctime_ns=now + 5, now_ns=now)
        return ino

    def file(self, parent, name, data, mode=0o644):
        return self.write(self.make(parent, name, stat.S_IFREG | mode), data)

    def sparse(self, parent, name, size, pieces):
        ino = self.make(parent, name, stat.S_IFREG | 0o600)
        inode, now = self.index.get(ino), self.tick()
        blob = extents.encode([extents.Extent(start, len(data)) for start, data in pieces])
        data = b"".join(data for _, data in pieces)
        internal_id, etag, stored = self.put(inode.doc_id, data, list_of_extents=blob)
        content = Content(internal_id, size, stored, None, etag, blob, doc_id=inode.doc_id)
        self.index.set_content(ino, content, mtime_ns=now, ctime_ns=now, now_ns=now)
        return ino

    def everything(self):
        """One of each kind that an instance may have."""
        index = self.index
        photos = self.directory(ROOT_INO, b"Photos", 0o750)
        deep = self.directory(self.directory(photos, "été".encode()), b"deep")
        empty = self.directory(ROOT_INO, b"empty", 0o1777)
        self.file(deep, b"a.txt", b"hello !")
        self.file(photos, b"nothing", b"")
        self.file(photos, b"run.sh", b"#!/bin/sh\n", 0o4755)
        versioned = self.file(photos, b"report.odt", b"one")
        self.write(versioned, b"two, longer", keep=True)
        self.write(versioned, b"three", keep=True)
        linked = self.file(deep, b"zz first by path", b"two names")
        index.link(linked, empty, b"other name", self.tick())
        index.link(linked, ROOT_INO, b"third", self.tick())
        self.make(photos, b"link", stat.S_IFLNK | 0o777, target=b"../somewhere \xff else")
        self.make(photos, b"fifo", stat.S_IFIFO | 0o622)
        self.make(photos, b"disk", stat.S_IFBLK | 0o660, rdev=0x801)
        self.sparse(photos, b"holes", 100 << 20, [(0, b"start"), (50 << 20, b"middle" * 1000)])
        zeros = self.file(photos, b"zeros", b"")
        index.set_content(
            zeros, Content(None, 1 << 20, 0, None, None), mtime_ns=7, ctime_ns=8, now_ns=9
        )
        moved = self.file(photos, b"taken over", b"x")
        self.write(moved, b"another key", doc_id=new_doc_id(self.tick()))
        index.set_xattr(versioned, b"user.comment", b"\0\xffbytes", now_ns=self.tick())
        index.set_xattr(photos, b"system.posix_acl_default", b"\2\0\0\0acl", now_ns=self.tick())
        index.set_document(
            versioned,
            {
                "tags": ["work", "été"],
                "metadata": {"carbonCopy": True, "width": 3},
                "cozyMetadata": {"favorite": True},
            },
        )
        thrown = self.directory(TRASH_INO, b"old things")
        self.file(thrown, b"inner", b"inside of the trash")
        index.remember_trashed(TrashItem(thrown, self.tick(), b"/Photos", b"old things"))
        alone = self.file(TRASH_INO, b"note (123456789)", b"alone")
        index.remember_trashed(TrashItem(alone, self.tick(), b"/", b"note"))
        index.set_attributes(ROOT_INO, AttributeChanges(mtime_ns=T0 - 1), T0 - 2)
        self.side(versioned)
        self.app("drive")

    def side(self, ino):
        bucket, prefix = self.objects.bucket, self.objects.db_prefix
        doc_id = self.index.get(ino).doc_id
        thumbs = f"{prefix}/thumbs/{thumb_name(doc_id)}"
        metadata = {"file-md5": "0" * 32}
        for form, data in (("tiny", b"jpeg"), ("large", b"a large jpeg" * 100)):
            key = f"{thumbs}-{form}"
            self.store.put(bucket, key, data, content_type="image/jpeg", metadata=metadata)
        # A marker that none can be made, and an image of a note.
        kind = "application/octet-stream"
        self.store.put(bucket, f"{thumbs}-small", b"", content_type=kind)
        image = f"{thumbs}/0198a1b2-0000-7000-8000-000000000000-original"
        self.store.put(bucket, image, b"png", content_type="image/png")
        self.store.put(
            bucket,
            f"{prefix}/avatar",
            b"face",
            content_type="image/png",
            metadata={"created-at": "2026-01-02T03:04:05Z"},
        )

    def app(self, slug):
        document = {"slug": slug, "source": "registry://drive", "version": "1.2.3"}
        document |= {"state": "ready", "created_at": "2026-01-02T03:04:05Z"}
        key = f"{self.objects.db_prefix}/.cozyfs/apps/{slug}.json"
        self.store.put(self.objects.bucket, key, json.dumps(document).encode())


async def fill(store, instance, folder, what=Filler.everything):
    async with writing(store, instance, folder) as index:
        what(Filler(store, instance, index))


async def export_file(store, instance, folder, path, **options):
    state = InstanceState.open(folder / "state", instance.bucket, instance.db_prefix)
    return await export(
        instance, store, caller(), state.directory, Destination(path=path), **options
    )


async def import_source(store, instance, folder, source, **options):
    with state_of(folder, instance, store) as state:
        return await import_into(
            instance, store, caller(), state, source, notice=lambda _: None, **options
        )


async def import_file(store, instance, folder, path, **options):
    with open(path, "rb") as file:  # noqa: ASYNC230 - the test waits anyway
        source = TarReader(file, caller(), path.name)
        return await import_source(store, instance, folder, source, **options)


def entries(path):
    """(name, bytes) of an archive in its order, without what has a date."""
    with gzip.open(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as tar:
        found = [(member.name, tar.extractfile(member).read()) for member in tar]
    assert found[0][0] == "instance.json"
    return found[1:]


def rewritten(path, target, change):
    """The archive at *path* with other entries: *change* gets and gives (name, bytes) pairs."""
    with gzip.open(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as tar:
        found = [(member.name, tar.extractfile(member).read()) for member in tar]
    with gzip.open(target, "wb", 1) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        for name, data in change(found):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target


async def fsck(store, instance, folder):
    """What a check of all bytes finds."""
    found = []

    async def tell(finding):
        found.append(finding.to_json())

    with state_of(folder, instance, store) as state:
        options = Options(deep=True)
        await check_tree(instance, store, state, options, tell, Progress())
    return found


def keys(store, instance):
    prefix = f"{instance.db_prefix}/"
    found = (info.key.removeprefix(prefix) for info in store.list(instance.bucket, prefix))
    return {key for key in found if not key.startswith(".cozyfs/")}


def referenced(store, instance, index):
    """Keys that the tree names, and those that wait for their deletion."""
    objects = objects_of(store, instance)

    def keys_of(sql):
        rows = index.connection.execute(sql)
        return {objects.key(*row).removeprefix(f"{instance.db_prefix}/") for row in rows}

    held = keys_of(
        "SELECT coalesce(object_doc_id, doc_id), internal_id FROM inodes"
        " WHERE internal_id IS NOT NULL"
        " UNION SELECT coalesce(object_doc_id, doc_id), internal_id FROM versions"
    )
    return held, keys_of("SELECT doc_id, internal_id FROM deletions")


def owner():
    return os.getuid(), os.getgid()
