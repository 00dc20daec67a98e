"""The trash, without a mount: what comes into it, how it leaves, what programs see of that."""

from __future__ import annotations

import os
import stat

import pytest
import trio.testing
from vfs_world import close, create
from world import STORES, check, make_tree, open_fs, put_in_trash, read_tree, store_named

from cozyfs.errors import (
    DirectoryNotEmpty,
    InTrash,
    NotADirectory,
    NotFound,
    NotInTrash,
    ReadOnly,
)
from cozyfs.index import EXCHANGE, TrashItem
from cozyfs.values import ROOT_INO, TRASH_INO, AttributeChanges
from cozyfs.vfs import trash as trash_module
from cozyfs.vfs import trash_memory
from cozyfs.vfs.copying import copy_file
from cozyfs.vfs.deletions import delete_due
from cozyfs.vfs.documents import Documents
from cozyfs.vfs.paths import Paths
from cozyfs.vfs.trashcan import destroy, empty, restore, trashed

pytestmark = pytest.mark.trio

SECOND = 10**9


class Clock:
    """Each look is a millisecond later."""

    def __init__(self):
        self.now = 1_700_000_000 * SECOND

    def __call__(self):
        self.now += 1_000_000
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=STORES)
async def fs(request, tmp_path, clock):
    store = store_named(request.param, request)
    async with open_fs(store, tmp_path, clock=clock, use_trash=True) as fs:
        yield fs
        await trio.testing.wait_all_tasks_blocked()
        await check(fs)
        rows = fs.index.connection.execute(
            "SELECT ino FROM trash EXCEPT SELECT ino FROM entries WHERE parent = 2"
        )
        assert rows.fetchall() == [], "only what lies in the trash itself has a row"


@pytest.fixture
def paths(fs):
    return Paths(fs)


def names(fs, directory=TRASH_INO):
    return [name for name, _ in fs.children(directory, b"", 1000)]


def remove_like_rm(fs, path, pid=7):
    """As ``rm -r``: depth first, entry by entry."""
    paths = Paths(fs)
    inode = paths.resolve(path)
    parent, name = paths.resolve(os.path.dirname(path)).ino, os.path.basename(path).encode()
    if not stat.S_ISDIR(inode.mode):
        fs.unlink(parent, name, pid)
        return
    for below, _ in list(paths.children(inode.ino)):
        remove_like_rm(fs, f"{path}/{below}", pid)
    fs.rmdir(parent, name, pid)


def snapshot(fs, path):
    """Everything about a tree that a restore has to give back."""
    seen = {}
    for step in Paths(fs).walk(path):
        inode = step.inode
        seen[step.path] = (
            inode.doc_id,
            *(inode.mode, inode.uid, inode.gid, inode.size, inode.mtime_ns, inode.atime_ns),
            *(inode.btime_ns, inode.target, inode.md5, fs.index.xattrs_of(inode.ino)),
            fs.index.document(inode.ino),
        )
    return seen


async def test_a_removed_file_lies_in_the_trash_with_its_place(fs, paths, clock):
    await make_tree(fs, {"d": {"a.txt": b"content"}})
    before = paths.resolve("/d/a.txt")

    paths.remove("/d/a.txt")

    inode = paths.resolve("/.cozy_trash/a.txt")
    assert fs.index.trash_item(inode.ino) == TrashItem(inode.ino, clock.now, b"/d", b"a.txt")
    assert (inode.ino, inode.nlink, inode.mtime_ns) == (before.ino, 1, before.mtime_ns)
    assert inode.ctime_ns == paths.resolve("/d").mtime_ns == clock.now
    assert await paths.read_file("/.cozy_trash/a.txt") == b"content"
    assert fs.index.pending_deletions() == 0


async def test_names_that_are_taken_in_the_trash_get_a_suffix_and_come_back_without(fs, paths):
    for content in (b"1", b"2"):
        await paths.write_file("/report (2024)", content)
        paths.remove("/report (2024)")

    first, second = names(fs)
    assert first == b"report (2024)"
    assert second.startswith(b"report (2024) (")

    assert restore(fs, b"/.cozy_trash/" + second) == b"/report (2024)"
    assert await paths.read_file("/report (2024)") == b"2"
    again = restore(fs, b"/.cozy_trash/" + first)
    assert again.startswith(b"/report (2024) (")
    assert await paths.read_file(again.decode()) == b"1"
    assert names(fs) == []


async def test_the_longest_name_is_cut_for_its_suffix_and_comes_back_whole(fs, paths):
    name = "é" * 127
    for content in (b"1", b"2"):
        await paths.write_file(f"/{name}", content)
        paths.remove(f"/{name}")

    (other,) = (each for each in names(fs) if each != name.encode())
    assert len(other) <= 255
    assert restore(fs, b"/.cozy_trash/" + other) == f"/{name}".encode()


async def test_rm_r_leaves_one_tree_that_comes_back_exactly(fs, paths, clock):
    await make_tree(
        fs,
        {
            "photos": {
                "2024": {"a.jpg": b"a", "b.jpg": b"b", "empty": b""},
                "notes~": b"n",
                "e": {},
            }
        },
    )
    photos = paths.resolve("/photos")
    fs.symlink(photos.ino, b"link", b"2024/a.jpg", 1, 2)
    await fs.make(photos.ino, b"pipe", stat.S_IFIFO | 0o640, 1, 2)
    a = paths.resolve("/photos/2024/a.jpg").ino
    fs.set_xattr(a, b"user.note", b"x")
    Documents(fs).patch(photos.ino, {"tags": ["holiday"]})
    for path in ("/photos/2024/b.jpg", "/photos/2024/empty", "/photos/2024", "/photos/e"):
        changes = AttributeChanges(mode=0o750, uid=5, gid=6, mtime_ns=1, atime_ns=2)
        await fs.set_attributes(paths.resolve(path).ino, changes, None, 0)
    before = snapshot(fs, "/photos")

    remove_like_rm(fs, "/photos")
    assert names(fs) == [b"photos"]
    assert len(fs.index.trash_items(clock.now + 1, 100)) == 1
    restored = restore(fs, b"/.cozy_trash/photos")

    assert restored == b"/photos"
    assert snapshot(fs, "/photos") == before
    assert names(fs) == []


async def test_more_than_fits_into_one_request_is_gathered_after_it(fs, paths, monkeypatch):
    monkeypatch.setattr(trash_module, "GATHER_AT_ONCE", 3)
    directory = await paths.mkdir("/many")
    for number in range(20):
        fs.symlink(directory.ino, b"%02d" % number, b"t", 0, 0)
    mtime = paths.resolve("/many").mtime_ns

    remove_like_rm(fs, "/many")
    assert len(names(fs)) == 1 + 17
    await trio.testing.wait_all_tasks_blocked()

    assert names(fs) == [b"many"]
    assert names(fs, paths.resolve("/.cozy_trash/many").ino) == [b"%02d" % n for n in range(20)]
    assert paths.resolve("/.cozy_trash/many").mtime_ns == mtime


async def test_a_tree_that_is_restored_while_it_is_gathered_takes_no_more(fs, paths, monkeypatch):
    monkeypatch.setattr(trash_module, "GATHER_AT_ONCE", 3)
    directory = await paths.mkdir("/many")
    for number in range(9):
        fs.symlink(directory.ino, b"%d" % number, b"t", 0, 0)

    remove_like_rm(fs, "/many")
    restore(fs, b"/.cozy_trash/many")
    await trio.testing.wait_all_tasks_blocked()

    assert len(names(fs)) == 6
    assert {restore(fs, b"/.cozy_trash/" + name)[:6] for name in names(fs)} == {b"/many/"}
    assert names(fs, paths.resolve("/many").ino) == [b"%d" % n for n in range(9)]


async def test_what_another_process_removed_before_stays_beside_the_directory(fs, paths):
    await make_tree(fs, {"d": {"mine": b"1", "other": b"2"}})
    fs.unlink(paths.resolve("/d").ino, b"other", 8)

    remove_like_rm(fs, "/d", 7)

    assert names(fs) == [b"d", b"other"]
    assert restore(fs, b"/.cozy_trash/other") == b"/d/other"  # made anew, it is not there


async def test_what_was_restored_or_removed_again_is_not_gathered(fs, paths):
    await make_tree(fs, {"d": {"a": b"1", "b": b"2"}, "e": {}})
    d = paths.resolve("/d").ino
    for name in (b"a", b"b"):
        fs.unlink(d, name, 7)
    paths.rename("/.cozy_trash/a", "/kept")
    paths.remove("/.cozy_trash/b")
    fs.rmdir(ROOT_INO, b"d", 7)

    assert await read_tree(fs) == {"kept": b"1", "e": {}}
    assert names(fs, paths.resolve("/.cozy_trash/d").ino) == []


async def test_of_two_files_with_one_name_the_last_one_comes_with_the_directory(fs, paths):
    await make_tree(fs, {"d": {"a": b"old"}})
    d = paths.resolve("/d").ino
    fs.unlink(d, b"a", 7)
    await paths.write_file("/d/a", b"new")
    remove_like_rm(fs, "/d", 7)

    assert names(fs) == [b"a", b"d"]
    assert await paths.read_file("/.cozy_trash/d/a") == b"new"
    assert await paths.read_file("/.cozy_trash/a") == b"old"


async def test_little_memory_leaves_what_came_first_one_by_one(fs, paths, monkeypatch):
    monkeypatch.setattr(trash_memory, "MOST_ITEMS", 10)
    directory = await paths.mkdir("/many")
    for number in range(20):
        fs.symlink(directory.ino, b"%02d" % number, b"t", 0, 0)

    remove_like_rm(fs, "/many")

    flat = [name for name in names(fs) if name != b"many"]
    inside = names(fs, paths.resolve("/.cozy_trash/many").ino)
    assert sorted(flat + inside) == [b"%02d" % n for n in range(20)]
    assert inside


# ---- what programs see


async def test_an_open_file_has_no_link_left_and_stays_writable(fs, paths):
    inode, handle = create(fs, b"f")
    await fs.files.write(handle.fh, 0, b"stored")
    await fs.files.fsync(handle.fh)
    fs.set_xattr(inode.ino, b"user.a", b"1")
    await fs.files.write(handle.fh, 0, b"later!")

    fs.unlink(ROOT_INO, b"f")

    assert fs.get(inode.ino).nlink == 0
    assert await fs.files.read(handle.fh, 0, 10) == b"later!"
    twin = paths.resolve("/.cozy_trash/f")
    assert (twin.doc_id, twin.nlink, twin.ino != inode.ino) == (inode.doc_id, 1, True)
    assert fs.get_xattr(twin.ino, b"user.a") == b"1"
    await close(fs, handle)
    assert await paths.read_file("/.cozy_trash/f") == b"stored"
    with pytest.raises(NotFound):
        fs.get(inode.ino)
    assert fs.index.pending_deletions() == 0


async def test_the_object_of_an_open_file_outlives_the_trash_until_the_last_close(fs):
    _, handle = create(fs, b"f")
    await fs.files.write(handle.fh, 0, b"stored")
    await fs.files.fsync(handle.fh)
    fs.unlink(ROOT_INO, b"f")

    await empty(fs)
    await delete_due(fs.index, fs.objects, -1.0, set)
    assert await fs.files.read(handle.fh, 0, 10) == b"stored"

    await close(fs, handle)
    assert await delete_due(fs.index, fs.objects, -1.0, set) == 1


async def test_an_open_file_without_stored_content_leaves_nothing(fs):
    _, handle = create(fs, b"f")
    await fs.files.write(handle.fh, 0, b"never stored")

    fs.unlink(ROOT_INO, b"f")
    await close(fs, handle)

    assert names(fs) == []


async def test_a_removed_directory_takes_nothing_new(fs, paths):
    inode = await paths.mkdir("/d")
    fs.remember(inode.ino)

    fs.rmdir(ROOT_INO, b"d")

    assert fs.get(inode.ino).nlink == 0
    with pytest.raises(NotFound):
        create(fs, b"f", parent=inode.ino)
    assert paths.resolve("/.cozy_trash/d").ino != inode.ino
    assert paths.resolve("/.cozy_trash/d").doc_id == inode.doc_id
    fs.forget([(inode.ino, 1)])
    assert fs.index.orphans() == []


async def test_link_counts_are_those_of_a_plain_removal(fs, paths):
    await make_tree(fs, {"d": {"e": {}, "f": b"1"}})
    d = paths.resolve("/d").ino
    fs.link(paths.resolve("/d/f").ino, d, b"g")

    fs.unlink(d, b"f")
    assert (names(fs), paths.resolve("/d/g").nlink) == ([], 1)
    fs.rmdir(d, b"e")

    assert paths.resolve("/d").nlink == 2
    assert paths.resolve("/").nlink == 4
    assert paths.resolve("/.cozy_trash").nlink == 3


async def test_a_directory_that_is_not_empty_is_refused_and_what_was_removed_is_remembered(
    fs, paths
):
    await make_tree(fs, {"d": {"a": b"1", "b": b"2"}})
    d = paths.resolve("/d").ino
    fs.unlink(d, b"a", 7)
    with pytest.raises(DirectoryNotEmpty):
        fs.rmdir(ROOT_INO, b"d", 7)
    fs.unlink(d, b"b", 7)
    fs.rmdir(ROOT_INO, b"d", 7)

    assert names(fs) == [b"d"]


# ---- what is not kept


@pytest.mark.parametrize("name", ["report.odt~", ".f.swp", "4913", "a.tmp"])
async def test_passing_files_do_not_fill_the_trash(fs, paths, name):
    await paths.write_file(f"/{name}", b"content")
    paths.remove(f"/{name}")
    assert names(fs) == []
    assert fs.index.pending_deletions() == 1


async def test_passing_files_come_along_with_their_directory_however_short_the_retention(
    fs, paths
):
    await make_tree(fs, {"d": {"a.tmp": b"content"}})
    fs.unlink(paths.resolve("/d").ino, b"a.tmp", 7)
    await delete_due(fs.index, fs.objects, 0.0, lambda: fs.objects_in_use)
    fs.rmdir(ROOT_INO, b"d", 7)

    assert await paths.read_file("/.cozy_trash/d/a.tmp") == b"content"


async def test_files_that_never_had_content_pipes_and_further_names_are_not_kept(fs, paths):
    await paths.write_file("/empty")
    await fs.make(ROOT_INO, b"pipe", stat.S_IFIFO | 0o600, 0, 0)
    for name in (b"empty", b"pipe"):
        fs.unlink(ROOT_INO, name)
    assert names(fs) == []


async def test_without_the_trash_what_is_removed_is_gone(tmp_path, request):
    async with open_fs(store_named("local", request), tmp_path, use_trash=False) as fs:
        await make_tree(fs, {"d": {"a": b"1"}, "f": b"2"})
        remove_like_rm(fs, "/d")
        await Paths(fs).remove_all("/f")
        assert names(fs) == []
        assert fs.index.usage.inodes == 2


async def test_a_failed_draft_lies_in_the_trash_and_is_still_stored(world):
    async with world.mount(use_trash=True) as fs:
        inode, handle = create(fs, b"f")
        await fs.files.write(handle.fh, 0, b"kept")
        world.store.fail("put")
        with pytest.raises(Exception, match="kept"):
            await close(fs, handle)

        fs.unlink(ROOT_INO, b"f")
        await fs.files.retry_failed()

        assert fs.lookup(TRASH_INO, b"f").ino == inode.ino
        assert fs.lookup(TRASH_INO, b"f").size == 4
        world.check(fs)


# ---- renaming


async def test_mv_into_the_trash_and_out_of_it(fs, paths, clock):
    await make_tree(fs, {"d": {"a": b"1"}, "e": {"b": {"c": b"2"}}})

    paths.rename("/d/a", "/.cozy_trash/x")
    paths.rename("/e/b", "/.cozy_trash/b")

    x = paths.resolve("/.cozy_trash/x")
    assert fs.index.trash_item(x.ino)[2:] == (b"/d", b"a")
    document = Documents(fs).get(x.ino)
    assert (document["trashed"], document["restore_path"]) == (True, "/d")
    assert document["cozyMetadata"]["trashedAt"].startswith("2023-11-14T22:13:20")
    assert Documents(fs).get(paths.resolve("/.cozy_trash/b/c").ino)["trashed"] is True

    paths.rename("/.cozy_trash/x", "/back")
    assert fs.index.trash_item(x.ino) is None
    document = Documents(fs).get(x.ino)
    assert document["trashed"] is False
    assert not {"restore_path", "cozyMetadata"} & document.keys()
    assert restore(fs, b"/.cozy_trash/b/c") == b"/e/b/c"


async def test_mv_into_the_trash_replaces_nothing_there(fs, paths):
    await put_in_trash(fs, "a", b"old")
    await paths.write_file("/a", b"new")

    paths.rename("/a", "/.cozy_trash/a", replace=True)

    first, other = names(fs)
    assert await paths.read_file("/.cozy_trash/a") == b"new"
    assert await paths.read_file(f"/.cozy_trash/{other.decode()}") == b"old"
    assert first == b"a"
    assert fs.index.trash_item(paths.resolve("/.cozy_trash/" + other.decode()).ino).name == b"a"


async def test_moving_within_the_trash_keeps_rows_where_they_belong(fs, paths):
    await make_tree(fs, {"d": {"a": b"1"}, "f": b"2"})
    paths.rename("/d", "/.cozy_trash/d")
    paths.remove("/f")
    f, a = paths.resolve("/.cozy_trash/f").ino, paths.resolve("/.cozy_trash/d/a").ino

    paths.rename("/.cozy_trash/f", "/.cozy_trash/d/f")
    paths.rename("/.cozy_trash/d/a", "/.cozy_trash/a")
    paths.rename("/.cozy_trash/d", "/.cozy_trash/renamed")

    assert fs.index.trash_item(f) is None
    assert fs.index.trash_item(a)[2:] == (b"/d", b"a")
    assert restore(fs, b"/.cozy_trash/renamed") == b"/d"
    assert restore(fs, b"/.cozy_trash/a") == b"/d/a"
    assert await read_tree(fs) == {"d": {"a": b"1", "f": b"2"}}


async def test_an_exchange_across_the_border_trashes_one_and_restores_the_other(fs, paths):
    await put_in_trash(fs, "a", b"old")
    await make_tree(fs, {"d": {"b": b"new"}})
    d = paths.resolve("/d").ino
    a, b = paths.resolve("/.cozy_trash/a").ino, paths.resolve("/d/b").ino

    fs.rename(d, b"b", TRASH_INO, b"a", EXCHANGE)

    assert fs.index.trash_item(a) is None
    assert fs.index.trash_item(b)[2:] == (b"/d", b"b")


async def test_what_a_rename_replaces_is_kept_unless_it_becomes_a_version(fs, paths):
    await make_tree(fs, {"file": b"content", "a": b"1", "b": b"2"})
    fs.symlink(ROOT_INO, b"link", b"somewhere", 0, 0)
    fs.symlink(ROOT_INO, b"other", b"elsewhere", 0, 0)

    paths.rename("/link", "/file", replace=True)
    paths.rename("/a", "/other", replace=True)

    assert names(fs) == [b"file", b"other"]
    assert await paths.read_file("/.cozy_trash/file") == b"content"
    assert paths.resolve("/.cozy_trash/other").target == b"elsewhere"
    assert paths.resolve("/file").target == b"somewhere"
    paths.rename("/b", "/other", replace=True)
    assert names(fs) == [b"file", b"other"]


async def test_what_comes_out_of_the_trash_trashes_the_file_that_it_replaces(fs, paths):
    await put_in_trash(fs, "x", b"out")
    await paths.write_file("/a", b"in the way")

    paths.rename("/.cozy_trash/x", "/a", replace=True)

    assert await paths.read_file("/a") == b"out"
    assert await paths.read_file("/.cozy_trash/a") == b"in the way"
    assert names(fs) == [b"a"]
    assert fs.index.usage.trash_bytes == len(b"in the way")


async def test_a_file_with_several_names_trashes_the_file_that_it_replaces(fs, paths):
    await make_tree(fs, {"a": b"of two names", "f": b"content"})
    fs.link(paths.resolve("/a").ino, ROOT_INO, b"b")

    paths.rename("/a", "/f", replace=True)

    assert await paths.read_file("/f") == b"of two names"
    assert await paths.read_file("/.cozy_trash/f") == b"content"


async def test_of_two_names_of_a_file_one_can_be_replaced_without_the_trash(fs, paths):
    await make_tree(fs, {"a": b"of two names", "f": b"content"})
    fs.link(paths.resolve("/a").ino, ROOT_INO, b"b")

    paths.rename("/f", "/a", replace=True)

    assert names(fs) == []
    assert paths.resolve("/b").nlink == 1


async def test_a_rename_that_fails_trashes_nothing(fs, paths):
    await make_tree(fs, {"file": b"content", "d": {}})
    with pytest.raises(NotADirectory):
        paths.rename("/d", "/file", replace=True)
    assert names(fs) == []


# ---- inside


async def test_nothing_new_is_made_in_the_trash(fs, paths):
    await make_tree(fs, {"d": {"a": b"1"}, "f": b"2"})
    paths.rename("/d", "/.cozy_trash/d")
    for parent in (TRASH_INO, paths.resolve("/.cozy_trash/d").ino):
        with pytest.raises(InTrash):
            create(fs, b"new", parent=parent)
        with pytest.raises(InTrash):
            await fs.make(parent, b"new", stat.S_IFDIR | 0o755, 0, 0)
        with pytest.raises(InTrash):
            fs.symlink(parent, b"new", b"t", 0, 0)
        with pytest.raises(InTrash):
            fs.link(paths.resolve("/f").ino, parent, b"new")
        with pytest.raises(InTrash):
            await copy_file(fs, paths.resolve("/f").ino, parent, b"new")


async def test_what_lies_in_the_trash_can_be_written(fs, paths):
    await put_in_trash(fs, "a", b"old")
    await paths.write_file("/.cozy_trash/a", b"new")
    assert await paths.read_file("/.cozy_trash/a") == b"new"


async def test_removing_in_the_trash_is_for_good(fs, paths):
    await make_tree(fs, {"d": {"a": b"1"}, "f": b"2"})
    paths.rename("/d", "/.cozy_trash/d")
    paths.remove("/f")

    remove_like_rm(fs, "/.cozy_trash/d")
    paths.remove("/.cozy_trash/f")

    assert names(fs) == []
    assert fs.index.usage.inodes == 2
    assert fs.index.pending_deletions() == 2


async def test_a_file_of_the_trash_that_got_a_name_elsewhere_lives_on_there(fs, paths):
    inode = await put_in_trash(fs, "a", b"1")
    fs.link(inode.ino, ROOT_INO, b"b")

    paths.remove("/.cozy_trash/a")

    assert fs.index.trash_item(inode.ino) is None
    assert await paths.read_file("/b") == b"1"


async def test_a_whole_tree_goes_in_one_move_by_path(fs, paths):
    await make_tree(fs, {"d": {"e": {"a": b"1", "empty": b""}}})
    before = snapshot(fs, "/d")

    await paths.remove_all("/d")

    assert restore(fs, b"/.cozy_trash/d") == b"/d"
    assert snapshot(fs, "/d") == before


# ---- restoring, listing, emptying


async def test_a_restore_makes_missing_directories_anew(fs, paths):
    await make_tree(fs, {"a": {"b": {"c": b"1"}}})
    await paths.remove_all("/a/b/c")
    await paths.remove_all("/a")

    assert restore(fs, b"/.cozy_trash/c") == b"/a/b/c"

    assert await read_tree(fs) == {"a": {"b": {"c": b"1"}}}
    assert names(fs) == [b"a"]


async def test_a_file_in_the_way_of_a_restore_is_an_error(fs, paths):
    await make_tree(fs, {"a": {"b": b"1"}})
    paths.remove("/a/b")
    fs.rmdir(ROOT_INO, b"a", 7)
    await paths.write_file("/a", b"2")

    with pytest.raises(NotADirectory):
        restore(fs, b"/.cozy_trash/b")

    assert names(fs) == [b"a", b"b"]
    assert await read_tree(fs) == {"a": b"2"}


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (b"/a", NotInTrash),
        (b"/.cozy_trash", NotInTrash),
        (b"/.cozy_trash2/a", NotInTrash),
        (b"/.cozy_trash/absent", NotFound),
    ],
)
async def test_only_what_lies_in_the_trash_is_restored_or_destroyed(fs, paths, path, error):
    await make_tree(fs, {"a": b"1", ".cozy_trash2": {"a": b"2"}})
    with pytest.raises(error):
        restore(fs, path)
    with pytest.raises(error):
        await destroy(fs, path)
    assert await read_tree(fs) == {"a": b"1", ".cozy_trash2": {"a": b"2"}}


async def test_a_mount_that_may_not_write_restores_and_empties_nothing(fs, paths):
    await put_in_trash(fs, "a", b"1")
    fs.turn_read_only()
    with pytest.raises(ReadOnly):
        restore(fs, b"/.cozy_trash/a")
    with pytest.raises(ReadOnly):
        await empty(fs)
    fs.read_only = fs.files.read_only = False


async def test_the_list_tells_places_times_and_sizes(fs, paths, clock):
    await make_tree(fs, {"d": {"a": b"123", "e": {"b": b"45"}}, "f": b"6"})
    await paths.remove_all("/d/e")
    then = clock.now
    await paths.remove_all("/d")

    found = [item async for item in trashed(fs)]

    assert [(i.name, i.path, i.kind, i.size) for i in found] == [
        ("d", "/d", "directory", 3),
        ("e", "/d/e", "directory", 2),
    ]
    assert found[1].trashed_ns == then


async def test_emptying_goes_by_the_moment_of_trashing(fs, paths, clock):
    await make_tree(fs, {"old": {"a": b"1"}, "new": b"2"})
    inode = paths.resolve("/new").ino
    await fs.set_attributes(inode, AttributeChanges(mtime_ns=1), None, 0)
    remove_like_rm(fs, "/old")
    between = clock.now + 1
    paths.remove("/new")

    assert await empty(fs, between) == 1
    assert names(fs) == [b"new"]
    assert await empty(fs) == 1
    assert names(fs) == []
    assert fs.index.usage.inodes == 2


async def test_what_nothing_is_known_of_counts_from_the_first_cleaning_on(fs, paths, clock):
    inode = await put_in_trash(fs, "a (123456789)", b"1")
    fs.index.forget_trashed(inode.ino)

    before = clock.now

    assert await empty(fs, before) == 0

    assert fs.index.trash_item(inode.ino).trashed_ns > before
    assert restore(fs, b"/.cozy_trash/a (123456789)") == b"/a"


async def test_a_row_of_something_outside_is_forgotten_and_nothing_removed(fs, paths, clock):
    inode = await paths.write_file("/a", b"1")
    fs.index.remember_trashed(TrashItem(inode.ino, 1, b"/", b"a"))

    assert await empty(fs) == 0

    assert await paths.read_file("/a") == b"1"
    assert fs.index.trash_item(inode.ino) is None


async def test_emptying_lets_other_tasks_run(fs, paths):
    directory = await paths.mkdir("/many")
    for number in range(600):
        fs.symlink(directory.ino, b"%d" % number, b"t", 0, 0)
    await paths.remove_all("/many")
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await empty(fs)
        nursery.cancel_scope.cancel()

    assert turns > 30
    assert names(fs) == []


# ---- what the kernel has to be told


async def test_news_are_what_the_kernel_knows_and_did_not_ask_for(fs, paths):
    told = []

    async def tell(changes):
        told.append(changes)

    fs.news.listen()
    await make_tree(fs, {"a": b"1", "b": b"2"})
    paths.remove("/a")
    await fs.news.deliver(tell)
    assert told == []  # it does not know the trash

    fs.remember(TRASH_INO)
    paths.remove("/b")
    await fs.news.wait()
    await fs.news.deliver(tell)
    restore(fs, b"/.cozy_trash/a")
    await fs.news.deliver(tell)

    assert [(set(each.inodes), set(each.entries)) for each in told] == [
        ({TRASH_INO}, {(TRASH_INO, b"b")}),
        ({TRASH_INO, ROOT_INO}, {(TRASH_INO, b"a"), (ROOT_INO, b"a")}),
    ]
    fs.forget([(TRASH_INO, 1)])
