"""Access control lists: the permission bits they imply, and what new files inherit (acl(5))."""

from __future__ import annotations

import stat

import pytest
from vfs_world import USER, close, create, mode_of

from cozyfs.errors import InvalidRequest, NoSuchAttribute
from cozyfs.values import ROOT_INO, AttributeChanges
from cozyfs.vfs import acl
from cozyfs.vfs.acl import ACCESS, DEFAULT, Entry

USER_OBJ, USER_TAG, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NOBODY = 0xFFFFFFFF


def entries(user=7, group=5, other=5, mask=None, named=None):
    made = [Entry(USER_OBJ, user, NOBODY)]
    if named is not None:
        made.append(Entry(USER_TAG, named, 1234))
    made.append(Entry(GROUP_OBJ, group, NOBODY))
    if mask is not None:
        made.append(Entry(MASK, mask, NOBODY))
    return [*made, Entry(OTHER, other, NOBODY)]


NAMED = entries(user=7, named=6, group=5, mask=7, other=1)


def test_a_list_comes_back_as_it_was():
    assert acl.parse(acl.encode(NAMED)) == NAMED


@pytest.mark.parametrize(
    "value", [b"", b"\2\0\0", b"\1\0\0\0", acl.encode(NAMED)[:-1], acl.encode(NAMED) + b"x"]
)
def test_a_malformed_list_is_refused(value):
    with pytest.raises(InvalidRequest):
        acl.parse(value)


def test_the_mask_stands_for_the_group_in_the_permission_bits():
    assert acl.permissions(entries(6, 5, 4), 0o100777) == 0o100654
    assert acl.permissions(entries(6, 5, 4, mask=2, named=7), 0o4777) == 0o4624


def test_chmod_changes_the_mask_where_there_is_one():
    assert acl.with_permissions(entries(7, 5, 5), 0o640) == entries(6, 4, 0)
    assert acl.with_permissions(entries(7, 5, 5, mask=7, named=7), 0o640) == entries(
        6, 5, 0, mask=4, named=7
    )


def test_a_new_file_gets_the_default_list_cut_by_what_its_creator_asked_for():
    made, mode = acl.inherited(entries(7, 5, 5, mask=7, named=6), stat.S_IFREG | 0o640)
    assert made == entries(6, 5, 0, mask=4, named=6)
    assert mode == stat.S_IFREG | 0o640
    made, mode = acl.inherited(entries(7, 5, 5), stat.S_IFREG | 0o666)
    assert made == entries(6, 4, 4)
    assert mode == stat.S_IFREG | 0o644


def test_a_list_that_permission_bits_can_say_is_minimal():
    assert acl.is_minimal(entries())
    assert not acl.is_minimal(NAMED)
    assert not acl.is_minimal(entries(mask=7))


# ---- in a file system


async def test_setting_a_list_sets_the_permission_bits(world):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f", mode=0o600)
        fs.set_xattr(inode.ino, ACCESS, acl.encode(NAMED))
        assert mode_of(fs, inode.ino) == 0o771
        assert fs.get_xattr(inode.ino, ACCESS) == acl.encode(NAMED)
        await close(fs, handle)


async def test_a_minimal_list_is_only_permission_bits(world):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f", mode=0o600)
        fs.set_xattr(inode.ino, ACCESS, acl.encode(NAMED))
        fs.set_xattr(inode.ino, ACCESS, acl.encode(entries(6, 4, 0)))
        assert mode_of(fs, inode.ino) == 0o640
        with pytest.raises(NoSuchAttribute):
            fs.get_xattr(inode.ino, ACCESS)
        await close(fs, handle)


async def test_chmod_changes_the_list(world):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f", mode=0o600)
        fs.set_xattr(inode.ino, ACCESS, acl.encode(NAMED))
        await fs.set_attributes(inode.ino, AttributeChanges(mode=0o640), None, USER)
        assert acl.parse(fs.get_xattr(inode.ino, ACCESS)) == entries(
            user=6, named=6, group=5, mask=4, other=0
        )
        await close(fs, handle)


async def test_a_directory_hands_its_default_list_down(world):
    async with world.mount() as fs:
        top = await fs.make(ROOT_INO, b"d", stat.S_IFDIR | 0o755, USER, USER)
        fs.set_xattr(top.ino, DEFAULT, acl.encode(NAMED))
        below = await fs.make(top.ino, b"d", stat.S_IFDIR | 0o777, USER, USER)
        inode, handle = create(fs, b"f", parent=below.ino, mode=0o664)
        assert fs.get_xattr(below.ino, DEFAULT) == acl.encode(NAMED)
        assert acl.parse(fs.get_xattr(below.ino, ACCESS)) == NAMED
        assert acl.parse(fs.get_xattr(inode.ino, ACCESS)) == entries(
            user=6, named=6, group=5, mask=6, other=0
        )
        assert mode_of(fs, inode.ino) == 0o660
        with pytest.raises(NoSuchAttribute):
            fs.get_xattr(inode.ino, DEFAULT)
        link = fs.symlink(below.ino, b"l", b"target", USER, USER)
        assert fs.list_xattrs(link.ino) == []
        await close(fs, handle)


async def test_a_malformed_list_changes_nothing(world):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f", mode=0o600)
        with pytest.raises(InvalidRequest):
            fs.set_xattr(inode.ino, ACCESS, b"nonsense")
        assert mode_of(fs, inode.ino) == 0o600
        assert fs.list_xattrs(inode.ino) == []
        await close(fs, handle)
