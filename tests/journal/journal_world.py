"""What the journal tests share: calls without threads, machines, and trees to compare."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from pathlib import Path
from stat import S_IFDIR, S_IFREG

import trio
from failing_store import FailingStore

from cozyfs.errors import ChecksumMismatch, StoreUnavailable
from cozyfs.index import JOURNALED_TABLES, Index
from cozyfs.index.snapshot import read_snapshot, write_snapshot
from cozyfs.journal import Follower, JournalObjects, JournalWriter, Owner, Snapshotter, take
from cozyfs.threads import Caller
from cozyfs.values import Content

T0 = 1_700_000_000_000_000_000
PAUSE_S = 0.5
DB_PREFIX = "io.cozy.journal.test"


class InlineCaller(Caller):
    """Calls on the loop instead of in threads: trio's test clocks would run on while a thread
    works, so that tests with them would depend on how fast the machine is."""

    async def store(self, call, *args, **kwargs):
        deadline = trio.current_time() + self.timeout_s
        while True:
            await trio.lowlevel.checkpoint()
            try:
                return call(*args, **kwargs)
            except (StoreUnavailable, ChecksumMismatch):
                if trio.current_time() + PAUSE_S > deadline:
                    raise
                await trio.sleep(PAUSE_S)

    async def disk(self, call, *args, **kwargs):
        await trio.lowlevel.checkpoint()
        return call(*args, **kwargs)


class Site:
    """One bucket over *store*, which can be told to fail, and the machines that were started."""

    def __init__(self, folder, store, template):
        self.store = FailingStore(store)
        self.bucket = f"test-{secrets.token_hex(6)}"
        self.folder = folder
        self._template = template
        self._stack = contextlib.ExitStack()
        store.ensure_bucket(self.bucket)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._stack.close()

    def objects(self, timeout_s=5.0, store=None):
        return JournalObjects(
            store or self.store,
            self.bucket,
            DB_PREFIX,
            caller=InlineCaller(timeout_s=timeout_s),
            once=InlineCaller(timeout_s=0.0),
        )

    def new_index(self, name="index"):
        path = self.folder / f"{name}.sqlite"
        shutil.copyfile(self._template, path)
        return self.opened(path)

    def copied(self, index, name):
        """A replica as far as the journal of *index* is now, as a snapshot gives it."""
        path = self.folder / f"{name}.sqlite"
        snapshot = self.folder / f"{name}.snapshot"
        write_snapshot(Path(index.connection.filename), snapshot, created_ns=T0)
        read_snapshot([snapshot.read_bytes()], path)
        return self.opened(path)

    def twin(self, index, name):
        """A copy of the file as it is now, with all that it holds."""
        path = self.folder / f"{name}.sqlite"
        index.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copyfile(index.connection.filename, path)
        return self.opened(path)

    def opened(self, path):
        index = self._stack.enter_context(Index.open(path))
        index.connection.execute("PRAGMA synchronous = OFF")
        return index

    async def take(self, name="a", **options):
        options.setdefault("clock", trio.current_time)
        return await take(self.objects(), owner(name), **options)

    async def machine(self, index, name="a", clock_ns=lambda: T0, **options):
        """A writer that has the lease, not running yet."""
        options.setdefault("above_epoch", index.position.epoch)
        lease = await self.take(name, **options)
        return JournalWriter(index, self.objects(), lease, clock_ns=clock_ns), lease

    def snapshotter(self, index, lease, **options):
        return Snapshotter(
            Path(index.connection.filename), self.folder, self.objects(), lease, **options
        )

    def follower(self, index):
        return Follower(index, self.objects())

    def names_of(self, part="journal"):
        prefix = f"{DB_PREFIX}/.cozyfs/{part}/"
        return [
            info.key.removeprefix(prefix) for info in self.store.inner.list(self.bucket, prefix)
        ]

    def key(self, part, name):
        return f"{DB_PREFIX}/.cozyfs/{part}/{name}"

    def damage(self, part, name, place=None):
        key = self.key(part, name)
        data = bytearray(self.store.inner.get(self.bucket, key))
        data[len(data) // 2 if place is None else place] ^= 1
        self.store.inner.put(self.bucket, key, bytes(data))

    def remove(self, part, name):
        self.store.inner.delete(self.bucket, self.key(part, name))


def owner(name):
    return Owner(id=f"id-{name}", mountpoint=f"/mnt/{name}", host=f"host-{name}", pid=7)


def make(index, name, parent=1, internal_id=None, mode=S_IFREG | 0o644):
    inode = index.make(
        parent, name, mode, uid=1, gid=1, doc_id=f"doc-{parent}-{name.decode()}", now_ns=T0 + 5
    )
    if internal_id is not None:
        content = Content(internal_id, 5, 5, b"m" * 16, "etag")
        index.set_content(inode.ino, content, mtime_ns=T0, ctime_ns=T0, now_ns=T0)
    return inode.ino


def make_directory(index, name, parent=1):
    return make(index, name, parent, mode=S_IFDIR | 0o755)


def names(index, parent=1):
    return [name for name, _ in index.children(parent, b"", 10_000) if name != b".cozy_trash"]


def tree(index):
    """Every row of the journaled tables."""
    return {
        table: sorted(index.connection.execute(f"SELECT * FROM {table}"), key=repr)
        for table in JOURNALED_TABLES
    }


@contextlib.asynccontextmanager
async def running(*jobs):
    async with trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(job)
        yield nursery
        nursery.cancel_scope.cancel()
