"""What goes out comes in again: all of it, as it was."""

from __future__ import annotations

import trio
from failing_store import FailingStore
from moving_world import (
    caller,
    entries,
    export_file,
    fill,
    fsck,
    import_file,
    import_source,
    keys,
    referenced,
    writing,
)

from cozyfs.index import TrashItem
from cozyfs.moving.into import InstanceSource
from cozyfs.values import ROOT_INO, TRASH_INO


async def test_an_instance_comes_out_of_another_store_as_it_went_in(
    store, alice, other_store, carol, tmp_path
):
    first, second = tmp_path / "first.tgz", tmp_path / "second.tgz"
    with trio.fail_after(60):
        await fill(store, alice, tmp_path / "a")
        made = await export_file(store, alice, tmp_path / "a", first)
        report = await import_file(other_store, carol, tmp_path / "c", first)
        await export_file(other_store, carol, tmp_path / "c", second)

        found = await fsck(other_store, carol, tmp_path / "c")

    assert report.problems == []
    assert (made.files, made.versions) == (report.files, report.versions) == (10, 2)
    assert entries(second) == entries(first)
    assert found == []


async def test_an_import_leaves_no_object_that_nothing_refers_to(
    store, alice, other_store, carol, tmp_path
):
    path = tmp_path / "a.tgz"
    with trio.fail_after(60):
        await fill(store, alice, tmp_path / "a")
        await export_file(store, alice, tmp_path / "a", path)
        await import_file(other_store, carol, tmp_path / "c", path)
        async with writing(other_store, carol, tmp_path / "c") as index:
            held, queued = referenced(other_store, carol, index)

    side = {key for key in keys(other_store, carol) if key.startswith(("thumbs/", "avatar"))}
    assert len(side) == 5
    assert queued == set()
    assert keys(other_store, carol) == held | side


async def test_a_copy_on_one_store_moves_no_content(store, alice, bob, tmp_path):
    watched = FailingStore(store)
    first, second = tmp_path / "first.tgz", tmp_path / "second.tgz"
    with trio.fail_after(60):
        await fill(store, alice, tmp_path / "a")
        await export_file(store, alice, tmp_path / "a", first)
        source = InstanceSource(alice, watched, caller(), tmp_path)
        report = await import_source(watched, bob, tmp_path / "b", source)
        await export_file(store, bob, tmp_path / "b", second)

    assert report.problems == []
    assert entries(second) == entries(first)
    moved = [args[1] for name, args in watched.log if name in ("get", "put", "upload_part")]
    assert [key for key in moved if "/.cozyfs/" not in key] == []
    assert watched.calls["copy"] > 10
    assert not list(tmp_path.glob("copy-*"))


async def test_a_copy_between_stores_is_whole(store, alice, other_store, carol, tmp_path):
    first, second = tmp_path / "first.tgz", tmp_path / "second.tgz"
    with trio.fail_after(60):
        await fill(store, alice, tmp_path / "a")
        await export_file(store, alice, tmp_path / "a", first)
        source = InstanceSource(alice, store, caller(), tmp_path)
        await import_source(other_store, carol, tmp_path / "c", source)
        await export_file(other_store, carol, tmp_path / "c", second)

    assert entries(second) == entries(first)


async def test_what_was_removed_while_it_was_open_moves_as_what_is_in_the_trash(
    store, alice, other_store, carol, tmp_path
):
    def removed(filler):
        index = filler.index
        ino = filler.write(filler.file(ROOT_INO, b"open", b"one"), b"two", keep=True)
        inode = index.unlink(ROOT_INO, b"open", filler.tick(), keep=True)
        assert (inode.ino, inode.nlink) == (ino, 0)
        twin = index.remake(inode, TRASH_INO, b"open", filler.tick())
        index.remember_trashed(TrashItem(twin.ino, filler.tick(), b"/", b"open"))

    path = tmp_path / "a.tgz"
    with trio.fail_after(60):
        await fill(store, alice, tmp_path / "a", removed)
        await export_file(store, alice, tmp_path / "a", path)
        report = await import_file(other_store, carol, tmp_path / "c", path)
        found = await fsck(other_store, carol, tmp_path / "c")

    assert [data for name, data in entries(path) if name.startswith("Files/")] == [b"two", b"one"]
    assert (report.files, report.versions, report.problems, found) == (1, 1, [], [])
