"""One instance for a vfs test: a local store that can be told to fail, an index, a state folder.

`World.mount` gives a FileSystem over them, without FUSE; leaving it is as hard as a kill, nothing
is flushed. A second mount therefore sees what a new process would see.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from array import array
from contextlib import asynccontextmanager

import trio
import trio.testing
from failing_store import FailingStore

from cozyfs.index import Index
from cozyfs.store import LocalStore
from cozyfs.threads import Caller
from cozyfs.values import ROOT_INO, Instance, VersionRules
from cozyfs.vfs.filesystem import FileSystem
from cozyfs.vfs.objects import Objects

BUCKET = "cozy-test"
PREFIX = "cozy1234"
MIB = 1 << 20
KIB = 1 << 10
USER = 1000
TIME_LIMIT_S = 30.0
NO_VERSIONS = VersionRules(0)


def pattern(size, seed=0):
    """Bytes that tell where they belong: every 8 bytes hold their own offset and the seed."""
    words = range(seed << 40, (seed << 40) + size // 8 + 1)
    return array("Q", words).tobytes()[:size]


class World:
    def __init__(self, folder, template):
        self.folder = folder
        self.staging = folder / "staging"
        self.staging.mkdir()
        self.store = FailingStore(LocalStore(folder / "store", durable=False))
        self.store.ensure_bucket(BUCKET)
        self.path = folder / "index.sqlite"
        shutil.copyfile(template, self.path)
        self.instance = Instance("alice.example", "", PREFIX, BUCKET)
        self.fs = None

    @asynccontextmanager
    async def mount(
        self,
        *,
        write_buffer=64 * MIB,
        cache_size=32 * MIB,
        timeout_s=0.0,
        read_only=False,
        version_rules=NO_VERSIONS,
        clock=time.time_ns,
        use_trash=False,
    ):
        """Without versions and the trash unless a test asks for them: what is replaced or removed
        is gone, and its object waits for deletion. By default a failed call is not tried again, so
        that one error is one failure. What hangs inside is cancelled after TIME_LIMIT_S, and
        fails."""
        with Index.open(self.path) as index, trio.fail_after(TIME_LIMIT_S):
            index.connection.execute("PRAGMA synchronous = OFF")
            async with trio.open_nursery() as nursery:
                caller = Caller(parallel=8, timeout_s=timeout_s)
                objects = Objects(self.store, caller, BUCKET, PREFIX)
                fs = FileSystem(
                    self.instance,
                    index,
                    objects,
                    nursery,
                    staging_dir=self.staging,
                    write_buffer=write_buffer,
                    cache_size=cache_size,
                    read_only=read_only,
                    version_rules=version_rules,
                    clock=clock,
                    use_trash=use_trash,
                )
                fs.start()
                self.fs = fs
                try:
                    yield fs
                finally:
                    nursery.cancel_scope.cancel()

    # ---- looking at what is there

    def keys(self):
        return {info.key for info in self.store.inner.list(BUCKET, "")}

    def uploads(self):
        return list(self.store.inner.list_multipart(BUCKET, ""))

    def staged(self):
        return sorted(path.name for path in self.staging.iterdir())

    def referenced(self, fs):
        """The objects of files and of their versions."""
        return {
            fs.objects.key(*row)
            for row in fs.index.connection.execute(
                "SELECT coalesce(object_doc_id, doc_id), internal_id FROM inodes"
                " WHERE internal_id IS NOT NULL"
                " UNION SELECT coalesce(object_doc_id, doc_id), internal_id FROM versions"
            )
        }

    def queued(self, fs):
        return {
            fs.objects.key(*row)
            for row in fs.index.connection.execute("SELECT doc_id, internal_id FROM deletions")
        }

    async def settled(self):
        """What was dropped is cleaned up in the background: until that is done."""
        with trio.fail_after(10):
            await trio.testing.wait_all_tasks_blocked()
            while self.uploads() or self.staged():  # noqa: ASYNC110  a folder has no event
                await trio.sleep(0.002)

    def check(self, fs, *, killed=False):
        """What has to hold when every handle is closed and everything is stored. After a kill
        there may be uploads that nobody was left to abort."""
        assert fs.files.pool.used == 0
        assert fs.files.open_files == 0
        assert fs.files.pending == 0
        assert not fs.files._nodes
        assert self.staged() == []
        assert list(fs.index.drafts()) == []
        assert killed or self.uploads() == []
        keys, referenced, queued = self.keys(), self.referenced(fs), self.queued(fs)
        assert referenced <= keys, "an object that the index promises is not in the store"
        assert keys <= referenced | queued, "an object that nobody knows of is in the store"
        assert not referenced & queued, "an object in use waits for its deletion"


# ---- short forms of what programs do


def create(fs, name, *, parent=ROOT_INO, uid=USER, mode=0o644):
    """(inode, handle) of a new file, open for reading and writing."""
    return fs.create(parent, name, mode, os.O_RDWR, uid, uid)


async def close(fs, handle):
    """As close(2) by the last process that has it: flush, then release, whatever flush says."""
    ino = handle.node.ino
    try:
        await fs.files.flush(handle.fh)
    finally:
        await fs.files.release(handle.fh)
        fs.released(ino)


async def replace_file(fs, ino, data, *, step=128 * KIB):
    """As a shell's ``>``: truncate on open, write, close."""
    handle = await fs.files.open(ino, os.O_WRONLY | os.O_TRUNC, USER)
    await write_all(fs, handle, data, step=step)
    await close(fs, handle)


async def new_file(fs, name, data, *, step=128 * KIB, parent=ROOT_INO):
    inode, handle = create(fs, name, parent=parent)
    await write_all(fs, handle, data, step=step)
    await close(fs, handle)
    return inode.ino


async def write_all(fs, handle, data, *, offset=0, step=128 * KIB):
    for start in range(0, len(data), step):
        await fs.files.write(handle.fh, offset + start, data[start : start + step])


async def read_all(fs, handle, *, step=128 * KIB):
    pieces = []
    offset = 0
    while data := await fs.files.read(handle.fh, offset, step):
        pieces.append(data)
        offset += len(data)
    return b"".join(pieces)


async def read_file(fs, ino, *, step=128 * KIB):
    handle = await fs.files.open(ino, os.O_RDONLY, USER)
    try:
        return await read_all(fs, handle, step=step)
    finally:
        await close(fs, handle)


def mode_of(fs, ino):
    return stat.S_IMODE(fs.get(ino).mode)
