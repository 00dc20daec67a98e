"""Scenario 54 of the notes on the Cozy storage format: after each of these steps a check finds
nothing, whichever store; and one broken place of each kind is found on each store."""

from __future__ import annotations

import unicodedata
from stat import S_IFDIR

import pytest
from fsck_world import fsck, key_of, record, types
from vfs_world import BUCKET, PREFIX, USER, new_file

from cozyfs.errors import ForbiddenMove
from cozyfs.index import TrashItem
from cozyfs.values import ROOT_INO, TRASH_INO

DIRECTORY = S_IFDIR | 0o755


@pytest.fixture(params=["file", "s3"])
def world(request, world):
    if request.param == "s3":
        world.store.inner = request.getfixturevalue("s3_store")
        world.store.ensure_bucket(BUCKET)
    record(world)
    yield world
    world.store.inner.delete_prefix(BUCKET, f"{PREFIX}/")


async def mkdir(fs, name, parent=ROOT_INO):
    return (await fs.make(parent, name, DIRECTORY, USER, USER)).ino


def trash(fs, parent, name):
    inode = fs.index.lookup(parent, name)
    fs.rename(parent, name, TRASH_INO, name, 0)
    fs.index.remember_trashed(TrashItem(inode.ino, 1, b"/", name))
    return inode


async def remove_all(fs, parent):
    for name, inode in fs.index.children(parent, b"", 100):
        if inode.mode & 0o170000 == 0o040000:
            await remove_all(fs, inode.ino)
            fs.rmdir(parent, name)
        else:
            fs.unlink(parent, name)


async def test_54_nothing_is_found_after_any_step(world):
    async with world.mount() as fs:
        top = await mkdir(fs, b"tree")
        sub = await mkdir(fs, b"sub", top)
        for number in range(6):
            parent = sub if number % 2 else top
            await new_file(fs, b"file%d" % number, b"content %d" % number, parent=parent)
        assert await fsck(fs) == []

        other = await mkdir(fs, b"TREE")
        await new_file(fs, b"file", b"content", parent=other)
        trash(fs, ROOT_INO, b"TREE")
        assert await fsck(fs) == []

        before = world.keys()
        fs.rename(ROOT_INO, b"tree", ROOT_INO, b"tree", 0)
        for target in (top, sub):
            with pytest.raises(ForbiddenMove):
                fs.rename(ROOT_INO, b"tree", target, b"tree", 0)
        assert world.keys() == before
        assert await fsck(fs) == []

        for name in ("Pièces pour ampèremètre", "Diplômes", "Reçus"):
            forms = [unicodedata.normalize(form, name).encode() for form in ("NFC", "NFD")]
            directory = await mkdir(fs, forms[0])
            await new_file(fs, b"inside", b"1", parent=directory)
            fs.rename(ROOT_INO, forms[0], ROOT_INO, forms[1], 0)
            assert await fsck(fs) == []
            fs.rename(ROOT_INO, forms[1], ROOT_INO, forms[0], 0)
            assert await fsck(fs) == []

        await remove_all(fs, TRASH_INO)
        assert await fsck(fs) == []

        for name in ("EDF", "EDF⚡️"):
            await mkdir(fs, name.encode())
        trash(fs, ROOT_INO, b"EDF")
        assert await fsck(fs, deep=True) == []


async def test_each_kind_of_damage_to_a_bucket_is_found(world):
    async with world.mount() as fs:
        gone = await new_file(fs, b"gone", b"content")
        other = await new_file(fs, b"other", b"content")
        world.store.delete(BUCKET, key_of(fs, gone))
        world.store.put(BUCKET, key_of(fs, other), b"something else")
        world.store.put(BUCKET, fs.objects.key("d" * 32, "i" * 16), b"orphan")
        world.store.put(BUCKET, f"{PREFIX}/thumbs/{'t' * 22}/{'t' * 5}/{'t' * 5}-tiny", b"jpeg")
        expected = [
            *("content_mismatch", "filesystem_missing", "index_missing"),
            "thumbnail_with_no_file",
        ]
        assert sorted(types(await fsck(fs))) == expected
        found = await fsck(fs, repair=True)
        assert all(each["repaired"] for each in found)
        assert await fsck(fs, deep=True) == []
