"""Thumbnails in the background: when they are made, of what, and when they are not."""

from __future__ import annotations

import contextlib

import pytest
import trio
from failing_store import FailingStore

from cozyfs.errors import (
    InvalidRequest,
    LeaseLost,
    NoPicture,
    NoSpace,
    NotStored,
    ReadOnly,
    SideError,
    StoreUnavailable,
)
from cozyfs.joined import thumbnailer as module
from cozyfs.side.thumbnails import FORMATS, Outcome
from cozyfs.values import ROOT_INO, Ino, VersionRules
from cozyfs.vfs.copying import copy_file
from cozyfs.vfs.deletions import delete_due
from cozyfs.vfs.history import History
from cozyfs.vfs.paths import Paths


@pytest.fixture
def store(local_store):
    return local_store


@pytest.fixture
async def running(fs, thumbnailer):
    """The service at work; returns a wait until there is nothing left to do. For tests with
    `autojump_clock`, which only they can ask for."""
    fs.on_new_content = thumbnailer.note

    async def settled():
        with trio.fail_after(1_000_000):  # the clock jumps while threads work
            while thumbnailer.waiting:  # noqa: ASYNC110  a count has no event
                await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(thumbnailer.run)
        yield settled
        nursery.cancel_scope.cancel()


async def write(fs, path, data):
    return await Paths(fs).write_file(path, data)


def doc_id(fs, path):
    return fs.index.resolve(path.encode()).doc_id


async def picture(fs, thumbnails, path, form="tiny"):
    """The thumbnail of the file as it is now; None without one."""
    inode = fs.index.resolve(path.encode())
    with contextlib.suppress(NotStored, NoPicture):
        return await (await thumbnails.find(inode.doc_id, form, inode.md5)).read()


async def test_an_image_gets_its_thumbnails_after_it_is_written(
    fs, thumbnails, running, autojump_clock
):
    await write(fs, "/a.jpg", b"1")
    await running()
    assert await picture(fs, thumbnails, "/a.jpg") == b"tiny of 1"
    assert await picture(fs, thumbnails, "/a.jpg", "large") == b"large of 1"


async def test_other_files_are_nobodys_business(fs, drawer, thumbnailer, running, autojump_clock):
    await write(fs, "/a.txt", b"1")
    assert thumbnailer.waiting == 0
    await running()
    assert drawer.drawn == []


async def test_of_several_changes_only_the_last_is_drawn(
    fs, drawer, thumbnails, running, autojump_clock
):
    for number in range(5):
        await write(fs, "/a.jpg", b"%d" % number)
    await running()
    assert drawer.drawn == [b"4"]
    assert await picture(fs, thumbnails, "/a.jpg") == b"tiny of 4"


async def test_a_change_while_it_is_drawn_is_drawn_next(
    fs, drawer, thumbnails, running, autojump_clock
):
    drawer.may_end = trio.Event()
    await write(fs, "/a.jpg", b"1")
    await drawer.begun.wait()
    await write(fs, "/a.jpg", b"2")
    drawer.may_end.set()
    await running()
    assert drawer.drawn == [b"1", b"2"]
    assert await picture(fs, thumbnails, "/a.jpg") == b"tiny of 2"


async def test_whoever_writes_does_not_wait(fs, drawer, thumbnailer, running, autojump_clock):
    drawer.may_end = trio.Event()
    await write(fs, "/a.jpg", b"1")
    await drawer.begun.wait()
    for number in range(3):
        await write(fs, f"/{number}.jpg", b"x")
    assert thumbnailer.waiting == 4
    drawer.may_end.set()


async def test_a_new_name_alone_draws_nothing_again(fs, drawer, running, autojump_clock):
    await write(fs, "/a.jpg", b"1")
    await running()
    Paths(fs).rename("/a.jpg", "/b.jpg")
    await running()
    assert drawer.drawn == [b"1"]


async def test_a_name_that_makes_an_image_of_it_draws(
    fs, drawer, thumbnails, running, autojump_clock
):
    await write(fs, "/a.tmp", b"1")
    Paths(fs).rename("/a.tmp", "/a.jpg")
    await running()
    assert await picture(fs, thumbnails, "/a.jpg") == b"tiny of 1"


async def test_a_content_that_cannot_be_drawn_is_marked_until_the_next(
    fs, drawer, thumbnails, running, autojump_clock
):
    drawer.error = NoPicture("bad")
    await write(fs, "/a.jpg", b"bad")
    await running()
    assert await thumbnails.exists(doc_id(fs, "/a.jpg"), "tiny", None)
    assert await picture(fs, thumbnails, "/a.jpg") is None
    drawer.error = None
    await write(fs, "/a.jpg", b"good")
    await running()
    assert await picture(fs, thumbnails, "/a.jpg") == b"tiny of good"


async def test_what_is_in_the_trash_gets_none_and_keeps_its_own(
    fs, drawer, thumbnails, running, autojump_clock
):
    await write(fs, "/kept.jpg", b"1")
    await running()
    await write(fs, "/late.jpg", b"2")
    Paths(fs).rename("/kept.jpg", "/.cozy_trash/kept.jpg")
    Paths(fs).rename("/late.jpg", "/.cozy_trash/late.jpg")
    await running()
    assert drawer.drawn == [b"1"]
    assert await picture(fs, thumbnails, "/.cozy_trash/kept.jpg") == b"tiny of 1"
    Paths(fs).rename("/.cozy_trash/late.jpg", "/late.jpg")
    await running()
    assert await picture(fs, thumbnails, "/late.jpg") == b"tiny of 2"


async def test_a_file_that_goes_while_it_is_drawn_leaves_no_thumbnails(
    fs, drawer, store, running, autojump_clock
):
    drawer.may_end = trio.Event()
    inode = await write(fs, "/a.jpg", b"1")
    await drawer.begun.wait()
    fs.trash.enabled = False
    Paths(fs).remove("/a.jpg")
    await delete_due(fs.index, fs.objects, -1.0, set)
    drawer.may_end.set()
    await running()
    assert drawer.drawn == [b"1"]
    assert [info.key for info in store.list(fs.objects.bucket, "")] == [], inode


async def test_a_restored_version_is_drawn(fs, thumbnails, running, autojump_clock):
    fs.files.versions.rules = VersionRules(20, 0.0)
    await write(fs, "/a.jpg", b"1")
    ino = (await write(fs, "/a.jpg", b"2")).ino
    await running()
    history = History(fs)
    ((_, version),) = history.of(ino)
    await history.restore(ino, version)
    await running()
    assert await picture(fs, thumbnails, "/a.jpg") == b"tiny of 1"


async def test_a_copy_is_drawn(fs, thumbnails, running, autojump_clock):
    inode = await write(fs, "/a.jpg", b"1")
    await copy_file(fs, inode.ino, ROOT_INO, b"b.jpg")
    await running()
    assert await picture(fs, thumbnails, "/b.jpg") == b"tiny of 1"


async def test_an_error_is_logged_and_the_next_file_is_drawn(
    fs, drawer, thumbnails, running, caplog, autojump_clock
):
    drawer.error = SideError("the program does not work")
    await write(fs, "/a.jpg", b"1")
    await running()
    assert "the program does not work" in caplog.text
    drawer.error = None
    await write(fs, "/b.jpg", b"2")
    await running()
    assert await picture(fs, thumbnails, "/a.jpg") is None
    assert await picture(fs, thumbnails, "/b.jpg") == b"tiny of 2"


@pytest.mark.parametrize("error", [StoreUnavailable("503"), NoSpace("the disk is full")])
async def test_what_passes_is_waited_for(
    fs, drawer, thumbnails, running, caplog, autojump_clock, error
):
    drawer.error = error
    await write(fs, "/a.jpg", b"1")
    await write(fs, "/b.jpg", b"2")
    with trio.fail_after(1_000_000):  # the clock jumps while threads work
        while len(drawer.drawn) < 4:  # noqa: ASYNC110  a count has no event
            await trio.sleep(1)
    drawer.error = None
    await running()
    assert await picture(fs, thumbnails, "/a.jpg") == b"tiny of 1"
    assert await picture(fs, thumbnails, "/b.jpg") == b"tiny of 2"
    assert caplog.text.count("trying again") == 1


@pytest.mark.parametrize("call", ["put", "head", "delete_many", "get"])
async def test_a_store_that_was_away_makes_no_difference_in_the_end(
    fs, thumbnails, running, autojump_clock, call
):
    """Whenever it goes: nothing is left half made, and nothing is marked."""
    failing = thumbnails._store = fs.objects.store = FailingStore(fs.objects.store)
    fs.objects.caller.timeout_s = 0.0
    await write(fs, "/a.jpg", b"1")
    await write(fs, "/b.pdf", b"2")
    failing.fail(call, times=3)
    await running()
    failing.mend()
    for form in FORMATS:
        assert await picture(fs, thumbnails, "/a.jpg", form) == form.encode() + b" of 1"
    assert await picture(fs, thumbnails, "/b.pdf") == b"tiny of 2"


async def test_who_lost_the_lease_makes_none(
    fs, drawer, confirmed, running, store, autojump_clock
):
    confirmed.refusal = LeaseLost("another mount writes")
    await write(fs, "/a.jpg", b"1")
    await running()
    assert drawer.drawn == []
    assert confirmed.count == 1


async def test_there_is_an_end_to_what_waits(fs, thumbnailer, autojump_clock, monkeypatch, caplog):
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    fs.on_new_content = thumbnailer.note
    for number in range(4):
        await write(fs, f"/{number}.jpg", b"x")
    assert thumbnailer.waiting == 2
    assert caplog.text.count("more files change than") == 1


async def test_a_content_without_a_known_checksum_is_hashed_while_it_is_read(
    fs, thumbnails, thumbnailer, autojump_clock
):
    inode = await write(fs, "/a.jpg", b"1")
    fs.index.connection.execute("UPDATE inodes SET md5 = NULL WHERE ino = ?", (inode.ino,))
    fs.index.reload()
    assert await thumbnailer.build(inode.ino) is Outcome.MADE
    assert await thumbnails.exists(inode.doc_id, "tiny", inode.md5)
    assert not await thumbnails.exists(inode.doc_id, "tiny", bytes(16))


async def test_asked_for_only_what_is_missing_is_made(fs, thumbnails, thumbnailer, drawer):
    inode = await write(fs, "/a.jpg", b"1")
    assert await thumbnailer.build(inode.ino) is Outcome.MADE
    assert await thumbnailer.build(inode.ino) is None
    store, bucket = fs.objects.store, fs.objects.bucket
    store.delete(bucket, thumbnails.key(inode.doc_id, "medium"))
    assert await thumbnailer.build(inode.ino) is Outcome.MADE
    assert await picture(fs, thumbnails, "/a.jpg", "medium") == b"medium of 1"
    await thumbnailer.remove(inode.ino)
    assert await picture(fs, thumbnails, "/a.jpg") is None


async def test_what_can_have_none_is_refused(fs, thumbnailer):
    text = await write(fs, "/a.txt", b"1")
    with pytest.raises(InvalidRequest, match="text/plain"):
        await thumbnailer.build(text.ino)
    trashed = await write(fs, "/a.jpg", b"1")
    Paths(fs).rename("/a.jpg", "/.cozy_trash/a.jpg")
    with pytest.raises(InvalidRequest, match="trash"):
        await thumbnailer.build(trashed.ino)


async def test_a_mount_that_only_reads_refuses(fs, thumbnailer):
    inode = await write(fs, "/a.jpg", b"1")
    fs.turn_read_only()
    for job in (thumbnailer.build, thumbnailer.remove):
        with pytest.raises(ReadOnly):
            await job(inode.ino)


async def test_the_end_of_the_mount_does_not_wait(fs, thumbnailer, drawer, autojump_clock):
    drawer.may_end = trio.Event()
    fs.on_new_content = thumbnailer.note
    await write(fs, "/a.jpg", b"1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(thumbnailer.run)
        await drawer.begun.wait()
        nursery.cancel_scope.cancel()
    assert drawer.drawn == []
    assert fs.files.open_files == 0


async def test_numbers_of_inodes_that_are_gone_are_ignored(thumbnailer):
    thumbnailer.note(Ino(999))
    assert thumbnailer.waiting == 0
