"""Views: numbers that last as long as the kernel remembers them, and a tree that may hide them."""

from __future__ import annotations

import stat

import pytest
from vfs_world import new_file, replace_file

from cozyfs.errors import NotFound, NotPermitted, StaleHandle
from cozyfs.fuse.attributes import Presentation
from cozyfs.fuse.views import OperationsWithViews
from cozyfs.values import ROOT_INO, VersionRules
from cozyfs.vfs import acl
from cozyfs.vfs.version_view import VersionView
from cozyfs.vfs.views import FIRST_VIEW_INO, Views

EVERY = VersionRules(20, 0)
NAME = b".cozy_versions"


@pytest.fixture
async def fs(world):
    async with world.mount(version_rules=EVERY) as fs:
        yield fs


@pytest.fixture
def views(fs):
    return Views([VersionView(fs)])


async def walk(views, *names):
    inode = await views.lookup(ROOT_INO, NAME)
    for name in names:
        inode = await views.lookup(inode.ino, name)
    return inode


async def with_version(fs, name=b"f", data=b"1"):
    ino = await new_file(fs, name, data)
    await replace_file(fs, ino, b"other")
    return ino


async def test_a_path_has_one_number_until_it_is_forgotten(fs, views):
    await with_version(fs)
    first = await walk(views, b"f")
    views.remember(first.ino)
    assert (await walk(views, b"f")).ino == first.ino >= FIRST_VIEW_INO
    views.forget(first.ino, 1)
    with pytest.raises(StaleHandle):
        await views.get(first.ino)
    assert (await walk(views, b"f")).ino != first.ino


async def test_nothing_is_kept_of_what_the_kernel_forgot(fs, views):
    await with_version(fs)
    folder = await walk(views, b"f")
    ((name, inode),) = await views.children(folder.ino)
    child = views.child(folder.ino, name, inode)
    for ino in (folder.ino, child.ino, (await walk(views)).ino):
        views.forget(ino)
    assert views.remembered == 0


async def test_a_file_that_became_a_directory_is_something_else(fs, views):
    await with_version(fs)
    ((name, _),) = await views.children((await walk(views, b"f")).ino)
    version = await walk(views, b"f", name)
    assert stat.S_ISREG(version.mode)
    fs.unlink(ROOT_INO, b"f")
    folder = await fs.make(ROOT_INO, b"f", stat.S_IFDIR | 0o755, 1000, 1000)
    await fs.make(folder.ino, name, stat.S_IFDIR | 0o755, 1000, 1000)
    with pytest.raises(NotFound):
        await views.get(version.ino)
    assert (await walk(views, b"f", name)).ino != version.ino


async def test_a_content_is_read_by_pieces_and_after_it_is_closed_no_more(fs, views):
    await with_version(fs, data=b"0123456789")
    ((name, _),) = await views.children((await walk(views, b"f")).ino)
    fh = await views.open((await walk(views, b"f", name)).ino)
    assert await views.read(fh, 3, 4) == b"3456"
    assert await views.read(fh, 9, 100) == b"9"
    await views.release(fh)
    assert fs.files.open_files == 0
    with pytest.raises(StaleHandle):
        await views.read(fh, 0, 1)


@pytest.mark.parametrize(
    ("mode", "folder", "version"),
    [(0o644, 0o555, 0o444), (0o600, 0o500, 0o400), (0o640, 0o550, 0o440), (0o4711, 0o500, 0o400)],
)
async def test_permissions_are_those_of_the_file_without_writing(fs, views, mode, folder, version):
    ino = await with_version(fs)
    fs.index.connection.execute("UPDATE inodes SET mode = ? WHERE ino = ?", (0o100000 | mode, ino))
    fs.index.reload()
    shown = await walk(views, b"f")
    assert stat.S_IMODE(shown.mode) == folder
    ((_, inode),) = await views.children(shown.ino)
    assert stat.S_IMODE(inode.mode) == version


async def test_where_a_list_says_who_may_read_the_group_may_not(fs, views):
    ino = await with_version(fs)
    entries = acl.parse(
        (2).to_bytes(4, "little")
        + b"".join(
            tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + ident.to_bytes(4, "little")
            for tag, perm, ident in [
                *[(1, 6, 0xFFFFFFFF), (2, 4, 1234), (4, 0, 0xFFFFFFFF)],
                *[(16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)],
            ]
        )
    )
    fs.set_xattr(ino, acl.ACCESS, acl.encode(entries))
    assert stat.S_IMODE(fs.get(ino).mode) == 0o640
    ((_, inode),) = await views.children((await walk(views, b"f")).ino)
    assert stat.S_IMODE(inode.mode) == 0o400


async def test_what_an_older_tree_has_under_the_name_hides_the_view(fs, views):
    operations = OperationsWithViews(fs, Presentation(), views)
    assert (await operations.lookup(ROOT_INO, NAME, None)).st_ino >= FIRST_VIEW_INO
    old = fs.index.make(
        ROOT_INO, NAME, stat.S_IFDIR | 0o755, uid=0, gid=0, doc_id="old", now_ns=fs.clock()
    )
    assert (await operations.lookup(ROOT_INO, NAME, None)).st_ino == old.ino
    fs.rename(ROOT_INO, NAME, ROOT_INO, b"moved away", 0)
    assert (await operations.lookup(ROOT_INO, NAME, None)).st_ino >= FIRST_VIEW_INO


async def test_nothing_is_created_under_the_name(fs):
    ino = await new_file(fs, b"f", b"1")
    with pytest.raises(NotPermitted):
        await fs.make(ROOT_INO, NAME, stat.S_IFDIR | 0o755, 0, 0)
    with pytest.raises(NotPermitted):
        fs.rename(ROOT_INO, b"f", ROOT_INO, NAME, 0)
    with pytest.raises(NotPermitted):
        fs.link(ino, ROOT_INO, NAME)
    folder = await fs.make(ROOT_INO, b"d", stat.S_IFDIR | 0o755, 0, 0)
    await fs.make(folder.ino, NAME, stat.S_IFDIR | 0o755, 0, 0)


async def test_a_view_lists_large_directories(fs, views):
    for number in range(300):
        fs.symlink(ROOT_INO, b"a%03d" % number, b"/", 0, 0)
    await with_version(fs, b"z")
    children = await views.children((await walk(views)).ino)
    assert [name for name, _ in children] == [b".cozy_trash", b"z"]
