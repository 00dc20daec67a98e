"""A file system for tests of the vfs: a temporary index over a store, no mount.

What every test leaves behind is looked at when the file system closes: each object of the store
belongs to an inode or waits for its deletion, and the counted usage is what a scan counts.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time

import trio

from cozyfs.config import parse_fs_url
from cozyfs.index import Index
from cozyfs.store import LocalStore, open_store
from cozyfs.threads import Caller
from cozyfs.values import Instance
from cozyfs.vfs.filesystem import FileSystem
from cozyfs.vfs.objects import Objects
from cozyfs.vfs.paths import Paths

STORES = ["local", "s3"]
DB_PREFIX = "io.cozy.vfs.test"


def store_named(name, request):
    """The store under test; only the one asked for is started."""
    if name == "local":
        return LocalStore(request.getfixturevalue("tmp_path") / "store", durable=False)
    return open_store(parse_fs_url(request.getfixturevalue("s3_url")))


@contextlib.asynccontextmanager
async def open_fs(store, tmp_path, *, clock=time.time_ns, **options):
    """A FileSystem over *store*, in a bucket of its own; the store is not closed. What is
    removed is gone, unless a test wants the trash (``use_trash=True``)."""
    bucket = f"test-{secrets.token_hex(6)}"
    store.ensure_bucket(bucket)
    staging = tmp_path / "staging"
    staging.mkdir(exist_ok=True)
    path = tmp_path / "index.db"
    index = Index.create(path, uid=os.getuid(), gid=os.getgid(), now_ns=clock())
    sizes = {"write_buffer": 32 << 20, "cache_size": 16 << 20, "use_trash": False} | options
    with index:
        async with trio.open_nursery() as nursery:
            objects = Objects(store, Caller(parallel=8, timeout_s=2.0), bucket, DB_PREFIX)
            instance = Instance("alice.example.com", "", DB_PREFIX, bucket)
            fs = FileSystem(
                instance, index, objects, nursery, staging_dir=staging, clock=clock, **sizes
            )
            fs.start()
            yield fs
            nursery.cancel_scope.cancel()


async def check(fs):
    """Everything is stored and accounted for."""
    with trio.fail_after(30):
        await fs.files.flush_all()
    assert fs.files.open_files == 0
    assert object_keys(fs) <= expected_keys(fs) | waiting_keys(fs)
    assert expected_keys(fs) <= object_keys(fs)
    assert not expected_keys(fs) & waiting_keys(fs)
    assert list(fs.objects.store.list_multipart(fs.objects.bucket, "")) == []
    counted = fs.index.usage
    fs.index.reload()
    assert fs.index.usage == counted


def object_keys(fs):
    return {found.key for found in fs.objects.store.list(fs.objects.bucket, f"{DB_PREFIX}/")}


def expected_keys(fs):
    rows = fs.index.connection.execute(
        "SELECT coalesce(object_doc_id, doc_id), internal_id FROM inodes"
        " WHERE internal_id IS NOT NULL"
        " UNION SELECT coalesce(object_doc_id, doc_id), internal_id FROM versions"
    )
    return {fs.objects.key(*row) for row in rows}


def waiting_keys(fs):
    rows = fs.index.connection.execute("SELECT doc_id, internal_id FROM deletions")
    return {fs.objects.key(*row) for row in rows}


async def put_in_trash(fs, name, content=b""):
    """A new file, moved into the trash as ``mv`` does."""
    paths = Paths(fs)
    await paths.write_file(f"/{name}", content)
    return paths.rename(f"/{name}", f"/.cozy_trash/{name}")


async def make_tree(fs, tree, at="/"):
    """Nested dictionaries are directories; everything else is the content of a file."""
    paths = Paths(fs)
    for name, below in tree.items():
        path = f"{at.rstrip('/')}/{name}"
        if isinstance(below, dict):
            await paths.mkdir(path)
            await make_tree(fs, below, path)
        else:
            await paths.write_file(path, below or b"")


async def read_tree(fs, at="/"):
    """The inverse of :func:`make_tree`; the trash of the root is left out."""
    paths = Paths(fs)
    tree = {}
    for name, inode in paths.children(paths.resolve(at).ino):
        path = f"{at.rstrip('/')}/{name}"
        if path == "/.cozy_trash":
            continue
        if inode.mode & 0o170000 == 0o040000:
            tree[name] = await read_tree(fs, path)
        else:
            tree[name] = await paths.read_file(path)
    return tree
