"""Tree and open files joined: what a new inode inherits, when one without names goes."""

from __future__ import annotations

import os
import stat

import pytest
import trio.testing
from vfs_world import (
    USER,
    close,
    create,
    mode_of,
    new_file,
    read_all,
    read_file,
)

from cozyfs.errors import (
    IllegalName,
    NameNotUtf8,
    NameTooLong,
    NoSpace,
    NoSuchAttribute,
    NotFound,
    NotPermitted,
    ReadOnly,
    UploadFailed,
)
from cozyfs.values import ROOT_INO, TRASH_INO, AttributeChanges
from cozyfs.vfs.filesystem import CAPABILITY, NO_QUOTA


async def directory(fs, name, mode=0o755, gid=USER, parent=ROOT_INO):
    return await fs.make(parent, name, stat.S_IFDIR | mode, USER, gid)


def is_there(fs, ino):
    try:
        fs.index.get(ino)
    except NotFound:
        return False
    return True


# ---- lookup counts


async def test_an_inode_without_names_lives_until_the_kernel_forgets_it(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"x")
        fs.remember(ino)
        fs.remember(ino)
        fs.unlink(ROOT_INO, b"f")
        fs.forget([(ino, 1)])
        assert fs.get(ino).nlink == 0
        fs.forget([(ino, 1)])
        assert not is_there(fs, ino)
        world.check(fs)


async def test_an_open_inode_without_names_lives_after_the_kernel_forgot_it(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"x")
        handle = await fs.files.open(ino, os.O_RDONLY, USER)
        fs.remember(ino)
        fs.unlink(ROOT_INO, b"f")
        fs.forget([(ino, 1)])
        assert await read_all(fs, handle) == b"x"
        await close(fs, handle)
        assert not is_there(fs, ino)
        world.check(fs)


async def test_an_inode_that_nobody_uses_goes_with_its_last_name(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"x")
        fs.link(ino, ROOT_INO, b"g")
        fs.unlink(ROOT_INO, b"f")
        assert await read_file(fs, ino) == b"x"
        fs.unlink(ROOT_INO, b"g")
        assert not is_there(fs, ino)
        world.check(fs)


async def test_forgetting_what_has_names_changes_nothing(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"x")
        fs.forget([(ino, 5), (ROOT_INO, 1), (99999, 1)])
        assert await read_file(fs, ino) == b"x"


async def test_forgetting_raises_nothing_when_the_index_has_no_room(world, monkeypatch, caplog):
    """No request waits for it, and an error would end the mount."""

    def full(*_):
        raise NoSpace("the disk is full")

    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"x")
        fs.remember(ino)
        fs.unlink(ROOT_INO, b"f")
        monkeypatch.setattr(fs.index, "drop", full)
        fs.forget([(ino, 1)])
        assert "could not be removed" in caplog.text
    async with world.mount() as fs:
        assert not is_there(fs, ino)
        world.check(fs)


async def test_what_is_not_there_cannot_be_opened(world):
    async with world.mount() as fs:
        with pytest.raises(NotFound):
            await fs.files.open(99999, os.O_RDONLY, USER)
        world.check(fs)


async def test_a_removed_directory_goes_when_it_is_forgotten(world):
    async with world.mount() as fs:
        inode = await directory(fs, b"d")
        fs.remember(inode.ino)
        fs.rmdir(ROOT_INO, b"d")
        with pytest.raises(NotFound):
            create(fs, b"f", parent=inode.ino)
        fs.forget([(inode.ino, 1)])
        assert not is_there(fs, inode.ino)


async def test_a_file_that_a_rename_replaced_goes_when_it_is_closed(world):
    async with world.mount() as fs:
        old = await new_file(fs, b"old", b"old")
        new = await new_file(fs, b"new", b"new")
        handle = await fs.files.open(old, os.O_RDWR, USER)
        await fs.files.write(handle.fh, 0, b"OLD")
        fs.rename(ROOT_INO, b"new", ROOT_INO, b"old", 0)
        assert fs.lookup(ROOT_INO, b"old").ino == new
        assert await read_all(fs, handle) == b"OLD"
        await close(fs, handle)
        await world.settled()
        assert not is_there(fs, old)
        world.check(fs)


async def test_inodes_that_a_killed_process_left_without_names_are_removed(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"x")
        await fs.files.open(ino, os.O_RDONLY, USER)
        fs.unlink(ROOT_INO, b"f")
        assert is_there(fs, ino)
    async with world.mount() as fs:
        assert not is_there(fs, ino)
        world.check(fs)


async def test_a_kept_draft_of_an_inode_without_names_is_removed_with_it(world):
    async with world.mount(write_buffer=100) as fs:
        inode, handle = create(fs, b"f")
        await fs.files.write(handle.fh, 0, b"x" * 1000)
        world.store.fail("put")
        with pytest.raises(UploadFailed):
            await fs.files.flush(handle.fh)
        fs.unlink(ROOT_INO, b"f")
        assert world.staged() == [f"{inode.ino}.draft"]
    async with world.mount() as fs:
        assert not is_there(fs, inode.ino)
        world.check(fs)


async def test_staging_files_that_no_draft_knows_are_removed(world):
    async with world.mount(write_buffer=100) as fs:
        _, handle = create(fs, b"f")
        await fs.files.write(handle.fh, 0, b"x" * 1000)
        assert world.staged()
    async with world.mount() as fs:
        assert world.staged() == []
        assert fs.lookup(ROOT_INO, b"f").size == 0


async def test_a_draft_whose_staging_file_is_gone_does_not_stop_the_mount(world, caplog):
    async with world.mount(write_buffer=100) as fs:
        inode, handle = create(fs, b"f")
        await fs.files.write(handle.fh, 0, b"x" * 1000)
        world.store.fail("put")
        with pytest.raises(UploadFailed):
            await fs.files.flush(handle.fh)
    for name in world.staged():
        (world.staging / name).unlink()
    async with world.mount() as fs:
        assert fs.get(inode.ino).size == 0
        assert fs.index.drafts() == []
        assert (world.staging / f"{inode.ino}.record.unreadable").exists()
        await write_again(fs, inode)
    assert "cannot be read" in caplog.text
    async with world.mount():
        assert (world.staging / f"{inode.ino}.record.unreadable").exists()


async def write_again(fs, inode):
    handle = await fs.files.open(inode.ino, os.O_WRONLY, 0)
    await fs.files.write(handle.fh, 0, b"y" * 1000)
    await fs.files.flush(handle.fh)
    await fs.files.release(handle.fh)


# ---- names


@pytest.mark.parametrize(
    ("name", "error"), [(b"\xff", NameNotUtf8), (b"a\nb", IllegalName), (b"x" * 256, NameTooLong)]
)
async def test_no_request_makes_a_name_that_no_file_may_get(world, name, error):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"x")
        with pytest.raises(error):
            create(fs, name)
        with pytest.raises(error):
            await directory(fs, name)
        with pytest.raises(error):
            fs.symlink(ROOT_INO, name, b"t", USER, USER)
        with pytest.raises(error):
            fs.link(ino, ROOT_INO, name)
        with pytest.raises(error):
            fs.rename(ROOT_INO, b"f", ROOT_INO, name, 0)
        assert len(fs.children(ROOT_INO, b"", 10)) == 2


async def test_looking_for_a_name_that_cannot_be_finds_nothing(world):
    async with world.mount() as fs:
        with pytest.raises(NotFound):
            fs.lookup(ROOT_INO, b"\xff")
        with pytest.raises(NameTooLong):
            fs.lookup(ROOT_INO, b"x" * 256)


async def test_a_symbolic_link_is_read_back_as_it_was_made(world):
    async with world.mount() as fs:
        made = fs.symlink(ROOT_INO, b"l", b"\xff/any bytes", USER, USER)
        assert fs.readlink(made.ino) == b"\xff/any bytes"
        assert made.mode == stat.S_IFLNK | 0o777


# ---- what new inodes inherit, and what chown takes away


async def test_a_set_group_id_directory_hands_its_group_down(world):
    async with world.mount() as fs:
        top = await directory(fs, b"d", mode=0o2775, gid=77)
        below = await directory(fs, b"d", parent=top.ino)
        file, handle = create(fs, b"f", parent=below.ino)
        link = fs.symlink(below.ino, b"l", b"t", USER, USER)
        assert (below.gid, below.mode) == (77, stat.S_IFDIR | 0o2755)
        assert (file.gid, file.mode) == (77, stat.S_IFREG | 0o644)
        assert link.gid == 77
        await close(fs, handle)


async def test_elsewhere_the_group_is_that_of_the_creator(world):
    async with world.mount() as fs:
        top = await directory(fs, b"d", gid=77)
        assert (await directory(fs, b"d", parent=top.ino)).gid == USER


@pytest.mark.parametrize("changes", [{"uid": 5}, {"gid": 5}])
@pytest.mark.parametrize(("mode", "after"), [(0o6755, 0o755), (0o2745, 0o2745)])
async def test_chown_takes_set_id_bits_of_a_file_away(world, changes, mode, after):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"x")
        await fs.set_attributes(ino, AttributeChanges(mode=mode), None, 0)
        await fs.set_attributes(ino, AttributeChanges(**changes), None, 0)
        assert mode_of(fs, ino) == after


async def test_chown_leaves_a_directory_its_set_group_id(world):
    async with world.mount() as fs:
        inode = await directory(fs, b"d", mode=0o2775)
        await fs.set_attributes(inode.ino, AttributeChanges(gid=5), None, 0)
        assert mode_of(fs, inode.ino) == 0o2775


# ---- extended attributes, space, a read-only mount


async def test_attributes_of_cozyfs_tell_and_cannot_be_set(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"a.txt", b"abc")
        shown = {
            name: fs.get_xattr(ino, b"user.cozy." + name)
            for name in (b"md5sum", b"mime", b"class", b"state")
        }
        assert shown == {
            b"md5sum": b"900150983cd24fb0d6963f7d28e17f72",
            b"mime": b"text/plain",
            b"class": b"text",
            b"state": b"clean",
        }
        assert fs.get_xattr(ino, b"user.cozy.id") == fs.get(ino).doc_id.encode()
        assert fs.list_xattrs(ino) == []
        with pytest.raises(NotPermitted):
            fs.set_xattr(ino, b"user.cozy.mime", b"x")
        with pytest.raises(NotPermitted):
            fs.remove_xattr(ino, b"user.cozy.mime")
        with pytest.raises(NoSuchAttribute):
            fs.get_xattr(ino, b"user.cozy.nonsense")


async def test_the_state_of_a_file_follows_its_draft(world):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f")
        assert fs.get_xattr(inode.ino, b"user.cozy.state") == b"dirty"
        world.store.fail("put")
        with pytest.raises(UploadFailed):
            await fs.files.flush(handle.fh)
        assert fs.get_xattr(inode.ino, b"user.cozy.state") == b"failed"
        await close(fs, handle)
        assert fs.get_xattr(inode.ino, b"user.cozy.state") == b"clean"


async def test_capabilities_are_noticed_once_there_are_any(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"x")
        assert not fs.has_capabilities
        fs.set_xattr(ino, CAPABILITY, b"cap")
        assert fs.has_capabilities
    async with world.mount() as fs:
        assert fs.has_capabilities


async def test_space_counts_what_is_stored(world):
    async with world.mount() as fs:
        await new_file(fs, b"f", b"x" * 1000)
        assert fs.space().used == 1000
        assert fs.space().total == 1000 + NO_QUOTA


async def test_a_read_only_mount_changes_nothing(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"x")
    async with world.mount(read_only=True) as fs:
        requests = [
            lambda: create(fs, b"g"),
            lambda: fs.unlink(ROOT_INO, b"f"),
            lambda: fs.rmdir(ROOT_INO, b".cozy_trash"),
            lambda: fs.rename(ROOT_INO, b"f", ROOT_INO, b"g", 0),
            lambda: fs.link(ino, ROOT_INO, b"g"),
            lambda: fs.symlink(ROOT_INO, b"g", b"t", USER, USER),
            lambda: fs.set_xattr(ino, b"user.a", b"b"),
            lambda: fs.remove_xattr(ino, b"user.a"),
        ]
        for request in requests:
            with pytest.raises(ReadOnly):
                request()
        with pytest.raises(ReadOnly):
            await fs.set_attributes(ino, AttributeChanges(mode=0o600), None, USER)
        fs.remember(ino)
        fs.forget([(ino, 1)])
        assert fs.lookup(ROOT_INO, b"f").ino == ino
        assert fs.lookup(ROOT_INO, b".cozy_trash").ino == TRASH_INO


async def test_a_file_unlinked_while_nobody_has_it_open_leaves_no_task_behind(world):
    async with world.mount() as fs:
        _, handle = create(fs, b"f")
        fs.unlink(ROOT_INO, b"f")
        await close(fs, handle)
        await trio.testing.wait_all_tasks_blocked()
        assert world.keys() == set()
        world.check(fs)
