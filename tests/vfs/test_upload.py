"""Every way a draft becomes an object, with every request of it failing in turn.

What has to hold each time: the error reaches close(2), the old content stays what a fresh mount
shows or the draft does, what was written stays readable, and it is stored once the store works.
"""

from __future__ import annotations

import hashlib
import os

import pytest
import trio
import trio.testing
from vfs_world import (
    BUCKET,
    KIB,
    USER,
    close,
    create,
    new_file,
    pattern,
    read_file,
    replace_file,
    write_all,
)

from cozyfs.errors import NotSupported, StoreError, StoreUnavailable, UploadFailed
from cozyfs.values import ROOT_INO

OLD = pattern(96 * KIB, 1)
LONG = pattern(170 * KIB, 2)


async def old_file(fs):
    return await new_file(fs, b"f", OLD)


class Way:
    """A way to change the file ``f`` from OLD, what comes out, and the size of its buffer."""

    def __init__(self, name, calls, content, change, write_buffer=1 << 20):
        self.name, self.calls, self.content = name, calls, content
        self.change, self.write_buffer = change, write_buffer

    def __repr__(self):
        return self.name


async def change_plain(fs, ino):
    handle = await fs.files.open(ino, os.O_RDWR | os.O_TRUNC, USER)
    await write_all(fs, handle, b"plain" * 1000)
    return handle


async def change_staged(fs, ino):
    handle = await fs.files.open(ino, os.O_RDWR | os.O_TRUNC, USER)
    for start in reversed(range(0, 96 * KIB, 8 * KIB)):
        await fs.files.write(handle.fh, start, LONG[start : start + 8 * KIB])
    return handle


async def change_streamed(fs, ino):
    handle = await fs.files.open(ino, os.O_RDWR | os.O_TRUNC, USER)
    await write_all(fs, handle, LONG, step=4 * KIB)
    return handle


async def change_copied(fs, ino):
    handle = await fs.files.open(ino, os.O_RDWR, USER)
    await fs.files.write(handle.fh, 40 * KIB, b"dirty")
    return handle


async def change_whole_after_fetching(fs, ino):
    fs.objects.can_copy = False
    return await change_copied(fs, ino)


COPIED = OLD[: 40 * KIB] + b"dirty" + OLD[40 * KIB + 5 :]

WAYS = [
    Way("plain", {"put": [1]}, b"plain" * 1000, change_plain),
    Way("staged", {"put": [1]}, LONG[: 96 * KIB], change_staged, write_buffer=16 * KIB),
    Way(
        "streamed",
        {"create_multipart": [1], "upload_part": [1, 3, 10, 11], "complete_multipart": [1]},
        LONG,
        change_streamed,
    ),
    Way(
        "streamed with no memory",
        {"create_multipart": [1], "upload_part": [1, 3, 10, 11], "complete_multipart": [1]},
        LONG,
        change_streamed,
        write_buffer=2 * KIB,
    ),
    Way(
        "copied",
        {
            "create_multipart": [1],
            "upload_part": [1],
            "copy_part": [1, 2],
            "complete_multipart": [1],
            "get": [1],
        },
        COPIED,
        change_copied,
    ),
    Way("fetched", {"get": [1], "put": [1]}, COPIED, change_whole_after_fetching),
]

FAILURES = [
    pytest.param(way, call, nth, id=f"{way.name}-{call}-{nth}")
    for way in WAYS
    for call, numbers in way.calls.items()
    for nth in numbers
]


async def until_stored(fs):
    await fs.files.retry_failed()
    assert fs.files.failed == 0


async def changed_with_a_failure(world, fs, way, call, nth, **how):
    """A file with OLD in the store, changed and flushed while *call* fails: its inode number, and
    the handle, still open."""
    ino = await old_file(fs)
    world.store.fail(call, nth=nth, times=1000, **how)
    handle = await way.change(fs, ino)
    with pytest.raises(UploadFailed):
        await fs.files.flush(handle.fh)
    return ino, handle


async def streamed(fs, name=b"f"):
    """(inode, handle) of a new file that LONG was written to, most of it sent already."""
    inode, handle = create(fs, name)
    await write_all(fs, handle, LONG, step=4 * KIB)
    return inode, handle


async def completed_without_an_answer(world, fs):
    """(inode, handle) of a streamed file after its flush: the object is there, nobody was told."""
    inode, handle = await streamed(fs)
    world.store.fail("complete_multipart", applied=True)
    with pytest.raises(UploadFailed):
        await fs.files.flush(handle.fh)
    return inode, handle


async def closed_and_not_stored(world, fs):
    """The inode of a new file whose content is on this machine only."""
    inode, handle = create(fs, b"f")
    world.store.fail("put")
    await fs.files.write(handle.fh, 0, b"data")
    with pytest.raises(UploadFailed):
        await close(fs, handle)
    return inode


@pytest.mark.parametrize("way", WAYS, ids=repr)
async def test_a_changed_file_is_stored_when_it_is_closed(small, world, way):
    async with world.mount(write_buffer=way.write_buffer) as fs:
        ino = await old_file(fs)
        await close(fs, await way.change(fs, ino))
        assert await read_file(fs, ino) == way.content
        world.check(fs)
    async with world.mount() as fs:
        assert await read_file(fs, ino) == way.content


@pytest.mark.parametrize(("way", "call", "nth"), FAILURES)
async def test_a_failed_upload_is_told_kept_readable_and_stored_later(
    small, world, way, call, nth
):
    async with world.mount(write_buffer=way.write_buffer, cache_size=8 * KIB) as fs:
        ino, handle = await changed_with_a_failure(world, fs, way, call, nth)
        assert fs.index.get(ino).md5 == hashlib.md5(OLD).digest()
        assert fs.files.state(ino) == "failed"
        assert fs.get(ino).size == len(way.content)
        assert [row[0] for row in fs.index.drafts()] == [ino]
        world.store.mend()
        assert await read_file(fs, ino) == way.content
        await close(fs, handle)
        await until_stored(fs)
        assert fs.files.state(ino) == "clean"
        assert await read_file(fs, ino) == way.content
        world.check(fs)


@pytest.mark.parametrize(("way", "call", "nth"), FAILURES)
async def test_a_failed_upload_outlives_the_process(small, world, way, call, nth):
    async with world.mount(write_buffer=way.write_buffer, cache_size=8 * KIB) as fs:
        ino, _ = await changed_with_a_failure(world, fs, way, call, nth)
        queued = fs.index.pending_deletions()
    world.store.mend()
    async with world.mount(cache_size=8 * KIB) as fs:
        assert fs.files.failed == 1
        assert fs.get(ino).size == len(way.content)
        await until_stored(fs)
        assert await read_file(fs, ino) == way.content
        assert fs.index.pending_deletions() > queued
        world.check(fs)


@pytest.mark.parametrize(("way", "call", "nth"), FAILURES)
async def test_what_was_kept_is_readable_after_a_restart_before_it_is_stored(
    small, world, way, call, nth
):
    async with world.mount(write_buffer=way.write_buffer, cache_size=8 * KIB) as fs:
        ino, _ = await changed_with_a_failure(world, fs, way, call, nth)
    world.store.mend()
    async with world.mount(cache_size=8 * KIB) as fs:
        assert await read_file(fs, ino) == way.content
        await until_stored(fs)
        assert await read_file(fs, ino) == way.content
        world.check(fs)


@pytest.mark.parametrize(("way", "call", "nth"), FAILURES)
async def test_a_writer_goes_on_after_a_failed_flush(small, world, way, call, nth):
    """Appends after the failure, then a close that works."""
    more = pattern(40 * KIB, 7)
    async with world.mount(write_buffer=way.write_buffer) as fs:
        ino, handle = await changed_with_a_failure(world, fs, way, call, nth)
        world.store.mend()
        await write_all(fs, handle, more, offset=len(way.content), step=4 * KIB)
        await close(fs, handle)
        assert await read_file(fs, ino) == way.content + more
        world.check(fs)


APPLIED = [p for p in FAILURES if p.values[1] not in ("get", "create_multipart")]


@pytest.mark.parametrize(("way", "call", "nth"), APPLIED)
async def test_a_lost_answer_leaves_no_object_that_nobody_knows(small, world, way, call, nth):
    async with world.mount(write_buffer=way.write_buffer) as fs:
        ino, handle = await changed_with_a_failure(world, fs, way, call, nth, applied=True)
        world.store.mend()
        await close(fs, handle)
        await until_stored(fs)
        assert await read_file(fs, ino) == way.content
        world.check(fs)


async def test_a_file_whose_completed_upload_was_not_answered_can_be_appended_to(small, world):
    async with world.mount() as fs:
        inode, handle = await completed_without_an_answer(world, fs)
        await fs.files.write(handle.fh, len(LONG), b"and more")
        await fs.files.write(handle.fh, 3, b"and before")
        await close(fs, handle)
        expected = LONG[:3] + b"and before" + LONG[13:] + b"and more"
        assert await read_file(fs, inode.ino) == expected
        world.check(fs)


async def test_a_completed_upload_that_was_not_answered_is_found_after_a_restart(small, world):
    async with world.mount() as fs:
        inode, _ = await completed_without_an_answer(world, fs)
    async with world.mount() as fs:
        await until_stored(fs)
        assert await read_file(fs, inode.ino) == LONG
        world.check(fs)


async def test_a_truncated_file_leaves_no_completed_upload_behind(small, world):
    async with world.mount() as fs:
        inode, handle = await completed_without_an_answer(world, fs)
        await fs.files.truncate(inode.ino, 0, USER)
        await close(fs, handle)
        assert await read_file(fs, inode.ino) == b""
        world.check(fs)


async def test_parts_that_the_server_lost_are_told_never_silent(small, world):
    async with world.mount() as fs:
        inode, handle = await streamed(fs)
        stream = handle.node.draft.stream
        await stream.all_done()
        world.store.lose_uploads(BUCKET)
        for _ in range(2):
            with pytest.raises(UploadFailed):
                await fs.files.fsync(handle.fh)
        assert fs.files.state(inode.ino) == "failed"
        with pytest.raises(StoreError):
            await fs.files.read(handle.fh, 0, 10)
        assert await fs.files.read(handle.fh, len(LONG) - 10, 10) == LONG[-10:]


async def test_one_failure_that_is_mended_in_time_is_not_noticed(small, world):
    async with world.mount(timeout_s=20.0) as fs:
        for call in ("create_multipart", "upload_part", "complete_multipart", "put"):
            world.store.fail(call)
            world.store.fail(call, nth=2, applied=call != "create_multipart")
        inode, handle = await streamed(fs)
        await close(fs, handle)
        assert await read_file(fs, inode.ino) == LONG
        assert await read_file(fs, await new_file(fs, b"g", b"small")) == b"small"
        world.check(fs)


async def test_a_retry_that_is_killed_has_lost_nothing(small, world):
    """Parts that arrive in a retry do not give up the staged bytes that the record names."""
    async with world.mount(write_buffer=2 * KIB) as fs:
        world.store.fail("upload_part", nth=3, times=1000)
        inode, handle = await streamed(fs)
        with pytest.raises(UploadFailed):
            await fs.files.flush(handle.fh)
        await close_quietly(fs, handle)
        world.store.mend()
        world.store.fail("complete_multipart")
        draft = fs.files._nodes[inode.ino].draft
        await draft.settle()  # the parts are in now; the process dies before the next record
        world.store.lose_uploads(BUCKET)
    async with world.mount() as fs:
        draft = fs.files._nodes[inode.ino].draft
        staged = [s for s in draft.table if s.kind.value == "staged"]
        assert staged
        for segment in staged:
            assert (
                await draft.read(segment.start, segment.stop, fs.files.cache)
                == LONG[segment.start : segment.stop]
            )


async def close_quietly(fs, handle):
    ino = handle.node.ino
    await fs.files.release(handle.fh)
    fs.released(ino)


@pytest.mark.parametrize("hole", [0, 512 * KIB], ids=["dense", "sparse"])
async def test_a_body_larger_than_one_put_may_be_travels_in_parts(small, world, monkeypatch, hole):
    monkeypatch.setattr("cozyfs.vfs.upload.MAX_PUT_SIZE", 64 * KIB)
    async with world.mount() as fs:
        inode, handle = create(fs, b"f")
        half = len(LONG) // 2
        await write_all(fs, handle, LONG[half:], offset=half + hole)  # not a stream
        await write_all(fs, handle, LONG[:half])
        await close(fs, handle)
        assert world.store.calls["put"] == 0
        assert world.store.calls["upload_part"] == 11
        assert await read_file(fs, inode.ino) == LONG[:half] + bytes(hole) + LONG[half:]
        assert (fs.index.get(inode.ino).extents is None) == (hole == 0)
        world.check(fs)


async def test_a_server_that_cannot_copy_ranges_is_asked_once(small, world):
    async with world.mount() as fs:
        ino = await old_file(fs)
        world.store.fail("copy_part", times=1000, error=NotSupported("no"))
        for text in (b"one", b"two"):
            handle = await fs.files.open(ino, os.O_RDWR, USER)
            await fs.files.write(handle.fh, 40 * KIB, text)
            await close(fs, handle)
        asked = world.store.calls["copy_part"]
        assert not fs.objects.can_copy
        assert asked <= 4  # one upload's copies side by side
        assert await read_file(fs, ino) == OLD[: 40 * KIB] + b"two" + OLD[40 * KIB + 3 :]
        world.check(fs)


async def test_a_file_replaced_while_its_upload_failed_is_stored_as_it_is_now(small, world):
    async with world.mount() as fs:
        ino = await old_file(fs)
        world.store.fail("put")
        handle = await change_plain(fs, ino)
        with pytest.raises(UploadFailed):
            await close(fs, handle)
        await replace_file(fs, ino, b"newest")
        assert await read_file(fs, ino) == b"newest"
        world.check(fs)


async def test_a_file_unlinked_while_it_is_stored_leaves_nothing(small, world):
    async with world.mount() as fs:
        inode = await closed_and_not_stored(world, fs)
        gate = world.store.gate("put")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fs.files.retry_failed)
            await trio.to_thread.run_sync(gate.reached.wait, 10)
            fs.unlink(ROOT_INO, b"f")
            gate.open()
        assert inode.ino not in fs.files._nodes
        await world.settled()
        world.check(fs)


async def test_a_failed_file_that_is_unlinked_is_forgotten(small, world):
    async with world.mount() as fs:
        await closed_and_not_stored(world, fs)
        fs.unlink(ROOT_INO, b"f")
        await world.settled()
        world.check(fs)


async def test_keeping_all_makes_drafts_outlive_the_process_without_the_store(small, world):
    async with world.mount() as fs:
        _, a = await streamed(fs, b"a")
        _, b = create(fs, b"b")
        await fs.files.write(b.fh, 0, b"short")
        world.store.fail_always("put", "complete_multipart", error=StoreUnavailable("down"))
        await fs.files.keep_all()
    world.store.mend()
    async with world.mount() as fs:
        await until_stored(fs)
        assert await read_file(fs, a.node.ino) == LONG
        assert await read_file(fs, b.node.ino) == b"short"
        world.check(fs)
