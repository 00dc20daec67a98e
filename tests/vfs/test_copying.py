"""Copies made by the store: what they keep, what they leave behind when they fail: nothing."""

from __future__ import annotations

import os
import random
import stat
import threading

import pytest
import trio
import trio.testing
from world import (
    STORES,
    check,
    object_keys,
    open_fs,
    put_in_trash,
    read_tree,
    store_named,
    waiting_keys,
)

from cozyfs.errors import (
    AlreadyExists,
    IllegalName,
    InvalidRequest,
    IsADirectory,
    NotFound,
    NotSupported,
    ObjectNotFound,
    StoreUnavailable,
)
from cozyfs.store import LocalStore
from cozyfs.values import ROOT_INO, VersionRules
from cozyfs.vfs import object_copy
from cozyfs.vfs.copying import copy_file
from cozyfs.vfs.deletions import delete_due
from cozyfs.vfs.documents import Documents
from cozyfs.vfs.filesystem import CAPABILITY
from cozyfs.vfs.paths import Paths

MIB = 1 << 20


class Troubled(LocalStore):
    """Copies can fail after they were made, or wait; deletions can fail."""

    copy_fails = delete_fails = False
    before_copy = staticmethod(lambda: None)

    def copy(self, *args):
        self.before_copy()
        etag = super().copy(*args)
        if self.copy_fails:
            raise StoreUnavailable("copied, but the answer was lost")
        return etag

    def delete(self, *args):
        if self.delete_fails:
            raise StoreUnavailable("down")
        super().delete(*args)


@pytest.fixture
async def fs(tmp_path):
    store = Troubled(tmp_path / "store", durable=False)
    with trio.fail_after(60):
        async with open_fs(store, tmp_path, version_rules=VersionRules(0)) as fs:
            fs.objects.caller.timeout_s = 0
            yield fs
            await check(fs)


@pytest.fixture
def store(fs):
    return fs.objects.store


@pytest.fixture
def paths(fs):
    return Paths(fs)


# ---- what a copy is


@pytest.mark.parametrize("kind", STORES)
async def test_any_content_can_be_copied(kind, request, tmp_path):
    store = store_named(kind, request)
    with trio.fail_after(60):
        async with open_fs(store, tmp_path, version_rules=VersionRules(0)) as fs:
            paths = Paths(fs)
            await paths.write_file("/empty")
            await paths.write_file("/large", bytes(range(256)) * (20 * MIB // 256))
            sparse = await paths.write_file("/sparse", b"start")
            await fs.files.truncate(sparse.ino, 64 * MIB, 0)
            for name in ("empty", "large", "sparse"):
                await copy_file(fs, paths.resolve(f"/{name}").ino, ROOT_INO, b"copy of %a" % name)

            for name in ("empty", "large", "sparse"):
                source, copied = paths.resolve(f"/{name}"), paths.resolve(f"/copy of '{name}'")
                assert copied.md5 == source.md5
                assert copied.stored == source.stored
                assert await paths.read_file(f"/copy of '{name}'") == await paths.read_file(
                    f"/{name}"
                )
            await check(fs)
    store.close()


async def test_what_was_written_and_not_stored_is_copied_too(fs, paths):
    inode = await paths.write_file("/file", b"1")
    handle = await fs.files.open(inode.ino, os.O_WRONLY, 0)
    await fs.files.write(handle.fh, 1, b"23")

    await copy_file(fs, inode.ino, ROOT_INO, b"copy")

    assert await paths.read_file("/copy") == b"123"
    await fs.files.release(handle.fh)
    fs.released(inode.ino)


async def test_a_copy_keeps_permissions_and_attributes_but_no_privileges(fs, paths):
    inode = await paths.write_file("/file", b"1", mode=0o4751)
    fs.set_xattr(inode.ino, b"user.colour", b"blue")
    fs.set_xattr(inode.ino, CAPABILITY, b"\1")

    copied = await copy_file(fs, inode.ino, ROOT_INO, b"copy", uid=12, gid=34)

    assert stat.S_IMODE(copied.mode) == 0o751
    assert (copied.uid, copied.gid) == (12, 34)
    assert fs.list_xattrs(copied.ino) == [b"user.colour"]
    assert fs.get_xattr(copied.ino, b"user.colour") == b"blue"


async def test_a_copy_is_new_and_independent(fs, paths):
    inode = await paths.write_file("/file", b"1")

    copied = await copy_file(fs, inode.ino, ROOT_INO, b"copy")
    await paths.write_file("/file", b"changed")

    assert copied.btime_ns == copied.mtime_ns == copied.ctime_ns > inode.mtime_ns
    assert await paths.read_file("/copy") == b"1"


async def test_a_copy_has_the_group_of_a_directory_that_says_so(fs, paths):
    inode = await paths.write_file("/file")
    directory = await fs.make(ROOT_INO, b"d", stat.S_IFDIR | 0o2775, 1, 77)

    assert (await copy_file(fs, inode.ino, directory.ino, b"copy", gid=5)).gid == 77


async def test_a_copy_is_not_referenced_certified_favourite_or_trashed(fs, paths):
    documents = Documents(fs)
    inode = await put_in_trash(fs, "file", b"1")
    documents.patch(
        inode.ino,
        {
            "tags": ["t"],
            "metadata": {"carbonCopy": True, "electronicSafe": True, "favorite": True, "k": 1},
            "referenced_by": [{"id": "x", "type": "y"}],
            "restore_path": "/",
            "cozyMetadata": {"createdOn": "https://elsewhere.example"},
        },
    )

    copied = await copy_file(fs, inode.ino, ROOT_INO, b"copy")

    document = documents.get(copied.ino)
    assert (document["metadata"], document["tags"]) == ({"k": 1}, ["t"])
    assert document["trashed"] is False
    assert not {"referenced_by", "restore_path", "cozyMetadata"} & document.keys()


async def test_a_copy_without_a_name_gets_a_free_one(fs, paths):
    inode = await paths.write_file("/report.txt")

    for _ in range(3):
        await copy_file(fs, inode.ino, ROOT_INO)

    assert list(await read_tree(fs)) == [
        "report (copy) (2).txt",
        "report (copy) (3).txt",
        "report (copy).txt",
        "report.txt",
    ]


@pytest.mark.parametrize("kind", STORES)
async def test_a_large_content_is_copied_in_parts(kind, request, tmp_path, monkeypatch):
    monkeypatch.setattr(object_copy, "WHOLE_UP_TO", 5 * MIB)
    store = store_named(kind, request)
    with trio.fail_after(60):
        async with open_fs(store, tmp_path, version_rules=VersionRules(0)) as fs:
            paths = Paths(fs)
            content = random.Random(1).randbytes(17 * MIB + 3)
            inode = await paths.write_file("/large", content)
            monkeypatch.setattr(store, "copy", None)  # not in one request

            copied = await copy_file(fs, inode.ino, ROOT_INO, b"copy")

            assert copied.md5 == inode.md5
            assert await paths.read_file("/copy") == content
            found = [
                store.head(fs.objects.bucket, fs.objects.key(i.doc_id, i.internal_id))
                for i in (inode, copied)
            ]
            assert found[0].metadata == found[1].metadata
            assert found[0].content_type == found[1].content_type
            await check(fs)
    store.close()


@pytest.mark.parametrize("error", [NotSupported, StoreUnavailable])
async def test_a_large_copy_that_fails_in_a_part(fs, paths, store, monkeypatch, error):
    monkeypatch.setattr(object_copy, "WHOLE_UP_TO", 5 * MIB)

    def refused(*args):
        raise error("refused")

    monkeypatch.setattr(store, "copy_part", refused)
    inode = await paths.write_file("/large", bytes(12 * MIB))

    if error is NotSupported:
        await copy_file(fs, inode.ino, ROOT_INO, b"copy")
        assert await paths.read_file("/copy") == bytes(12 * MIB)
    else:
        with pytest.raises(StoreUnavailable):
            await copy_file(fs, inode.ino, ROOT_INO, b"copy")
        assert len(object_keys(fs)) == 1

    assert list(store.list_multipart(fs.objects.bucket, "")) == []


# ---- refusals


async def test_a_copy_replaces_nothing(fs, paths):
    inode = await paths.write_file("/file", b"1")
    await paths.write_file("/copy", b"2")

    with pytest.raises(AlreadyExists):
        await copy_file(fs, inode.ino, ROOT_INO, b"copy")

    assert await paths.read_file("/copy") == b"2"
    assert len(object_keys(fs)) == 2


async def test_only_files_are_copied_to_legal_names_in_directories(fs, paths):
    directory = (await paths.mkdir("/d")).ino
    file = (await paths.write_file("/file")).ino
    link = fs.symlink(ROOT_INO, b"link", b"file", 0, 0).ino

    with pytest.raises(IsADirectory):
        await copy_file(fs, directory, ROOT_INO, b"copy")
    with pytest.raises(InvalidRequest):
        await copy_file(fs, link, ROOT_INO, b"copy")
    with pytest.raises(IllegalName):
        await copy_file(fs, file, ROOT_INO, b"a/b")
    with pytest.raises(NotFound):
        await copy_file(fs, file, 999, b"copy")
    assert len(object_keys(fs)) == 1


# ---- failures


async def test_a_copy_whose_answer_is_lost_leaves_nothing(fs, paths, store):
    inode = await paths.write_file("/file", b"1")
    store.copy_fails = True

    with pytest.raises(StoreUnavailable):
        await copy_file(fs, inode.ino, ROOT_INO, b"copy")

    assert await read_tree(fs) == {"file": b"1"}
    assert len(object_keys(fs)) == 1
    assert waiting_keys(fs) == set()


async def test_what_cannot_be_deleted_now_is_deleted_later(fs, paths, store):
    inode = await paths.write_file("/file", b"1")
    store.copy_fails = store.delete_fails = True

    with pytest.raises(StoreUnavailable):
        await copy_file(fs, inode.ino, ROOT_INO, b"copy")

    assert len(object_keys(fs)) == 2
    assert len(waiting_keys(fs)) == 1
    store.delete_fails = False
    assert await delete_due(fs.index, fs.objects, 0.0, set) == 0
    assert await delete_due(fs.index, fs.objects, -8 * 86400.0, set) == 1
    assert len(object_keys(fs)) == 1


async def test_a_copy_into_a_directory_that_is_removed_meanwhile_leaves_nothing(fs, paths, store):
    inode = await paths.write_file("/file", b"1")
    directory = await paths.mkdir("/d")
    token = trio.lowlevel.current_trio_token()
    store.before_copy = lambda: trio.from_thread.run_sync(paths.remove, "/d", trio_token=token)

    with pytest.raises(NotFound):
        await copy_file(fs, inode.ino, directory.ino, b"copy")

    assert len(object_keys(fs)) == 1
    assert waiting_keys(fs) == set()


async def test_a_name_that_is_taken_meanwhile_is_not_replaced(fs, paths, store):
    inode = await paths.write_file("/file", b"1")
    make = fs.symlink
    store.before_copy = lambda: trio.from_thread.run_sync(make, ROOT_INO, b"copy", b"x", 0, 0)

    with pytest.raises(AlreadyExists):
        await copy_file(fs, inode.ino, ROOT_INO, b"copy")

    assert len(object_keys(fs)) == 1


async def test_a_cancelled_copy_leaves_nothing(fs, paths, store):
    inode = await paths.write_file("/file", b"1")
    started, go = trio.Event(), threading.Event()

    def wait():
        trio.from_thread.run_sync(started.set)
        assert go.wait(10)

    store.before_copy = wait
    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy_file, fs, inode.ino, ROOT_INO, b"copy")
        await started.wait()
        nursery.cancel_scope.cancel()
        go.set()

    tree = await read_tree(fs)
    assert len(object_keys(fs)) == len(tree)
    assert waiting_keys(fs) == set()


async def test_a_source_that_is_removed_meanwhile_is_copied(fs, paths, store):
    inode = await paths.write_file("/file", b"1")
    store.before_copy = lambda: trio.from_thread.run_sync(paths.remove, "/file")

    await copy_file(fs, inode.ino, ROOT_INO, b"copy")

    assert await read_tree(fs) == {"copy": b"1"}


async def test_a_source_that_is_replaced_meanwhile_is_copied_as_it_is_then(fs, paths, store):
    inode = await paths.write_file("/file", b"old")

    def replace():
        store.before_copy = lambda: None
        trio.from_thread.run(paths.write_file, "/file", b"new")
        trio.from_thread.run(delete_due, fs.index, fs.objects, -1.0, set)

    store.before_copy = replace

    await copy_file(fs, inode.ino, ROOT_INO, b"copy")

    assert await read_tree(fs) == {"copy": b"new", "file": b"new"}


async def test_a_source_whose_object_is_lost_is_an_error(fs, paths, store):
    inode = await paths.write_file("/file", b"1")
    key = fs.objects.key(inode.doc_id, inode.internal_id)
    store.delete(fs.objects.bucket, key)

    with pytest.raises(ObjectNotFound):
        await copy_file(fs, inode.ino, ROOT_INO, b"copy")

    assert waiting_keys(fs) == set()
    store.put(fs.objects.bucket, key, b"1")
