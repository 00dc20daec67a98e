"""Drafts under pressure: no memory, no disk, readers beside them, records of them."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest
import trio
import trio.testing
from vfs_world import (
    KIB,
    MIB,
    USER,
    close,
    create,
    new_file,
    pattern,
    read_all,
    read_file,
    write_all,
)

from cozyfs.errors import FileTooLarge, NoSpace, StoreUnavailable, UploadFailed
from cozyfs.values import MAX_FILE_SIZE, ROOT_INO
from cozyfs.vfs.deletions import delete_due
from cozyfs.vfs.pieces import Kind
from cozyfs.vfs.staging import StagingFile

DATA = pattern(200 * KIB, 3)


@pytest.fixture
def full_disk(monkeypatch):
    """A list: as long as it has an element, no staging file can be written."""
    full = []
    write = StagingFile.write

    def write_unless_full(self, offset, data):
        if full:
            raise NoSpace("the disk is full")
        write(self, offset, data)

    monkeypatch.setattr(StagingFile, "write", write_unless_full)
    return full


def kinds(handle):
    return {segment.kind for segment in handle.node.draft.table}


async def delete_after(fs, retention_s):
    return await delete_due(fs.index, fs.objects, retention_s, lambda: fs.files.objects_in_use)


# ---- memory


async def test_memory_stays_within_the_write_buffer(small, world):
    async with world.mount(write_buffer=32 * KIB) as fs:
        opened = [create(fs, b"%d" % i)[1] for i in range(4)]
        for start in range(0, len(DATA), 4 * KIB):
            for handle in opened:
                await fs.files.write(handle.fh, start, DATA[start : start + 4 * KIB])
                assert 0 <= fs.files.pool.used <= 32 * KIB
        for handle in opened:
            await close(fs, handle)
        for handle in opened:
            assert await read_file(fs, handle.node.ino) == DATA
        world.check(fs)


async def test_overwriting_takes_no_more_memory(small, world):
    async with world.mount() as fs:
        _, handle = create(fs, b"f")
        for _ in range(10):
            await fs.files.write(handle.fh, 0, bytes(10 * KIB))
            assert fs.files.pool.used == 10 * KIB
        await fs.files.truncate(handle.node.ino, 4 * KIB, USER)
        assert fs.files.pool.used == 4 * KIB
        await close(fs, handle)
        world.check(fs)


async def test_a_write_larger_than_all_memory_is_staged(small, world):
    async with world.mount(write_buffer=4 * KIB) as fs:
        _, handle = create(fs, b"f")
        await fs.files.write(handle.fh, 0, DATA[: 60 * KIB])
        assert kinds(handle) == {Kind.STAGED}
        assert await read_all(fs, handle) == DATA[: 60 * KIB]
        await close(fs, handle)
        world.check(fs)


# ---- a full disk


async def test_a_full_disk_refuses_the_write_and_changes_nothing(small, world, full_disk):
    async with world.mount(write_buffer=8 * KIB) as fs:
        inode, handle = create(fs, b"f")
        await fs.files.write(handle.fh, 0, DATA[: 4 * KIB])
        full_disk.append(True)
        for start, length in ((4 * KIB, 16 * KIB), (100 * KIB, 16 * KIB), (0, 16 * KIB)):
            with pytest.raises(NoSpace):
                await fs.files.write(handle.fh, start, DATA[start : start + length])
            assert fs.get(inode.ino).size == 4 * KIB
            assert await read_all(fs, handle) == DATA[: 4 * KIB]
        full_disk.clear()
        await fs.files.write(handle.fh, 4 * KIB, DATA[4 * KIB : 20 * KIB])
        await close(fs, handle)
        assert await read_file(fs, inode.ino) == DATA[: 20 * KIB]
        world.check(fs)


async def test_after_a_full_disk_what_was_accepted_is_stored(small, world, full_disk):
    async with world.mount(write_buffer=8 * KIB) as fs:
        inode, handle = create(fs, b"f")
        await fs.files.write(handle.fh, 0, DATA[: 8 * KIB])
        full_disk.append(True)
        with pytest.raises(NoSpace):
            await fs.files.write(handle.fh, 8 * KIB, DATA[: 8 * KIB])
        await close(fs, handle)
        assert await read_file(fs, inode.ino) == DATA[: 8 * KIB]
        world.check(fs)


async def test_a_first_write_that_finds_the_disk_full_leaves_nothing_behind(
    small, world, full_disk
):
    async with world.mount(write_buffer=8 * KIB) as fs:
        ino = await new_file(fs, b"f", b"old")
        full_disk.append(True)
        handle = await fs.files.open(ino, os.O_RDWR, USER)
        with pytest.raises(NoSpace):
            await fs.files.write(handle.fh, 0, DATA[: 16 * KIB])
        assert await read_all(fs, handle) == b"old"
        await fs.files.release(handle.fh)
        await trio.testing.wait_all_tasks_blocked()
        assert await read_file(fs, ino) == b"old"
        world.check(fs)


async def test_making_room_for_others_may_fail_without_the_write_failing(
    small, world, full_disk, monkeypatch
):
    """The write is in the staging file; that older memory could not follow is no error of it."""
    async with world.mount(write_buffer=16 * KIB) as fs:
        inode, handle = create(fs, b"f")
        await fs.files.write(handle.fh, 0, DATA[: 12 * KIB])
        writes = []
        write = StagingFile.write

        def second_fails(self, offset, data):
            writes.append(offset)
            if len(writes) > 1:
                raise NoSpace("the disk is full")
            write(self, offset, data)

        monkeypatch.setattr(StagingFile, "write", second_fails)
        assert await fs.files.write(handle.fh, 12 * KIB, DATA[12 * KIB : 20 * KIB]) == 8 * KIB
        assert writes == [12 * KIB, 0]
        monkeypatch.setattr(StagingFile, "write", write)
        await close(fs, handle)
        assert await read_file(fs, inode.ino) == DATA[: 20 * KIB]
        world.check(fs)


async def test_a_draft_that_neither_store_nor_disk_takes_is_kept_in_memory(
    small, world, full_disk
):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f")
        await fs.files.write(handle.fh, 0, b"precious")
        world.store.fail("put")
        full_disk.append(True)
        with pytest.raises(UploadFailed):
            await close(fs, handle)
        assert await read_file(fs, inode.ino) == b"precious"
        await fs.files.retry_failed()
        assert await read_file(fs, inode.ino) == b"precious"
        world.check(fs)


async def test_an_error_of_the_staging_disk_reaches_the_flush_and_keeps_the_draft(
    small, world, monkeypatch
):
    async with world.mount(write_buffer=16 * KIB, cache_size=8 * KIB) as fs:
        fs.objects.can_copy = False
        ino = await new_file(fs, b"f", DATA[: 96 * KIB])
        handle = await fs.files.open(ino, os.O_RDWR, USER)
        await fs.files.write(handle.fh, 10, b"changed")

        def broken(self, offset, data):
            raise OSError(errno.EIO, "broken disk")

        with monkeypatch.context() as patch:
            patch.setattr(StagingFile, "write", broken)
            with pytest.raises(UploadFailed):
                await fs.files.flush(handle.fh)
        assert fs.files.failed == 1
        await close(fs, handle)
        assert await read_file(fs, ino) == DATA[:10] + b"changed" + DATA[17 : 96 * KIB]
        world.check(fs)


# ---- readers beside


async def test_what_was_streamed_is_readable_at_once(small, world):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f")
        await write_all(fs, handle, DATA, step=4 * KIB)
        assert handle.node.draft.stream is not None
        assert await fs.files.read(handle.fh, 10, 100) == DATA[10:110]
        assert handle.node.draft.stream is None
        await write_all(fs, handle, DATA, offset=len(DATA), step=4 * KIB)
        await close(fs, handle)
        assert await read_file(fs, inode.ino) == DATA + DATA
        world.check(fs)


async def test_reading_what_was_not_sent_yet_lets_the_stream_run(small, world):
    async with world.mount() as fs:
        _, handle = create(fs, b"f")
        await write_all(fs, handle, DATA, step=4 * KIB)
        assert await fs.files.read(handle.fh, len(DATA) - 100, 200) == DATA[-100:]
        assert handle.node.draft.stream is not None
        await close(fs, handle)
        world.check(fs)


@pytest.mark.parametrize("at", [0, 5 * KIB, 16 * KIB - 3, 100 * KIB])
async def test_what_was_streamed_can_be_overwritten(small, world, at):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f")
        await write_all(fs, handle, DATA, step=4 * KIB)
        await fs.files.write(handle.fh, at, b"other")
        await close(fs, handle)
        assert await read_file(fs, inode.ino) == DATA[:at] + b"other" + DATA[at + 5 :]
        world.check(fs)


@pytest.mark.parametrize("size", [0, 1, 16 * KIB, 50 * KIB, 192 * KIB, 199 * KIB, 400 * KIB])
async def test_a_stream_can_be_truncated(small, world, size):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f")
        await write_all(fs, handle, DATA, step=4 * KIB)
        await fs.files.truncate(inode.ino, size, USER)
        assert fs.get(inode.ino).size == size
        await fs.files.write(handle.fh, size, b"end")
        await close(fs, handle)
        expected = (DATA + bytes(size))[:size] + b"end"
        assert await read_file(fs, inode.ino) == expected
        world.check(fs)


async def test_a_gap_behind_a_stream_reads_as_zeros(small, world):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f")
        await write_all(fs, handle, DATA, step=4 * KIB)
        for gap in (KIB, 500 * KIB):
            await fs.files.write(handle.fh, fs.get(inode.ino).size + gap, b"x")
        await close(fs, handle)
        expected = DATA + bytes(KIB) + b"x" + bytes(500 * KIB) + b"x"
        assert await read_file(fs, inode.ino) == expected
        world.check(fs)


async def test_a_streamed_file_has_its_md5_and_a_rewritten_one_is_right(small, world):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f")
        await write_all(fs, handle, DATA, step=4 * KIB)
        await close(fs, handle)
        assert fs.index.get(inode.ino).md5 == hashlib.md5(DATA).digest()
        world.check(fs)


async def test_staged_bytes_are_not_given_up_under_a_reader(small, world, monkeypatch):
    """A read is about to look at the staging file while the part with these bytes arrives."""
    async with world.mount(write_buffer=2 * KIB) as fs:
        _, handle = create(fs, b"f")
        await write_all(fs, handle, DATA[: 60 * KIB], step=4 * KIB)
        draft = handle.node.draft
        assert draft.stream is None
        go_on = trio.Event()
        disk = fs.objects.caller.disk

        async def late(call, *args):
            if getattr(call, "__name__", "") == "read":
                await go_on.wait()
            return await disk(call, *args)

        monkeypatch.setattr(fs.objects.caller, "disk", late)
        found = []

        async def read():
            found.append(await fs.files.read(handle.fh, 0, 32 * KIB))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await fs.files.write(handle.fh, 60 * KIB, DATA[60 * KIB : 100 * KIB])
            await draft.stream.all_done()
            go_on.set()
        assert found == [DATA[: 32 * KIB]]
        await close(fs, handle)
        assert await read_file(fs, handle.node.ino) == DATA[: 100 * KIB]
        world.check(fs)


async def test_a_late_reader_does_not_take_the_next_draft_its_staging_file(
    small, world, monkeypatch
):
    async with world.mount(write_buffer=2 * KIB) as fs:
        inode, handle = create(fs, b"f")
        await write_all(fs, handle, DATA[: 20 * KIB], step=4 * KIB)
        go_on = trio.Event()
        disk = fs.objects.caller.disk

        async def late(call, *args):
            if getattr(call, "__name__", "") == "read":
                await go_on.wait()
            return await disk(call, *args)

        found = []

        async def read():
            found.append(await fs.files.read(handle.fh, 0, 20 * KIB))

        async with trio.open_nursery() as nursery:
            with monkeypatch.context() as patch:
                patch.setattr(fs.objects.caller, "disk", late)
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                await fs.files.fsync(handle.fh)
                await fs.files.write(handle.fh, 0, b"n" * 4 * KIB)
                go_on.set()
                while not found:  # noqa: ASYNC110  the read has no event of its own
                    await trio.sleep(0.001)
        assert found == [DATA[: 20 * KIB]]
        assert world.staged() == [f"{inode.ino}.draft"]
        assert await fs.files.read(handle.fh, 0, 4 * KIB) == b"n" * 4 * KIB
        await close(fs, handle)
        world.check(fs)


# ---- limits, holes


async def test_a_file_has_at_most_five_tebibytes(world):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f")
        with pytest.raises(FileTooLarge):
            await fs.files.write(handle.fh, MAX_FILE_SIZE - 1, b"xy")
        with pytest.raises(FileTooLarge):
            await fs.files.truncate(inode.ino, MAX_FILE_SIZE + 1, USER)
        await fs.files.write(handle.fh, MAX_FILE_SIZE - 1, b"x")
        assert fs.get(inode.ino).size == MAX_FILE_SIZE
        await close(fs, handle)
        world.check(fs)


async def test_a_hole_of_ten_gibibytes_is_a_tiny_object(world):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f")
        await fs.files.write(handle.fh, 0, b"begin")
        await fs.files.write(handle.fh, 10 << 30, b"end")
        await close(fs, handle)
        (key,) = world.keys()
        assert world.store.inner.head("cozy-test", key).size < 100
        assert fs.get(inode.ino).stored < 100
    async with world.mount() as fs:
        handle = await fs.files.open(inode.ino, os.O_RDWR, USER)
        assert fs.get(inode.ino).size == (10 << 30) + 3
        assert await fs.files.read(handle.fh, 0, 8) == b"begin\0\0\0"
        assert await fs.files.read(handle.fh, 5 << 30, 10) == bytes(10)
        assert await fs.files.read(handle.fh, (10 << 30) - 2, 100) == b"\0\0end"
        await fs.files.write(handle.fh, 5 << 30, b"middle")
        assert await fs.files.read(handle.fh, (5 << 30) - 1, 8) == b"\0middle\0"
        await close(fs, handle)
        handle = await fs.files.open(inode.ino, os.O_RDONLY, USER)
        assert await fs.files.read(handle.fh, (5 << 30) - 1, 8) == b"\0middle\0"
        assert await fs.files.read(handle.fh, 10 << 30, 100) == b"end"
        assert await fs.files.read(handle.fh, 0, 5) == b"begin"
        await close(fs, handle)
        world.check(fs)


async def test_a_file_that_is_one_hole_has_an_object(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"")
        await fs.files.truncate(ino, 100 * MIB, USER)
        handle = await fs.files.open(ino, os.O_RDONLY, USER)
        assert await fs.files.read(handle.fh, 50 * MIB, 3) == bytes(3)
        await close(fs, handle)
        world.check(fs)


async def test_real_sizes_stream_in_parts_of_eight_mebibytes(world):
    data = pattern(20 * MIB, 9)
    async with world.mount(write_buffer=12 * MIB) as fs:
        inode, handle = create(fs, b"f")
        await write_all(fs, handle, data, step=MIB)
        await close(fs, handle)
        assert [args[3] for name, args in world.store.log if name == "upload_part"] == [1, 2, 3]
        assert await read_file(fs, inode.ino, step=MIB) == data
        world.check(fs)


# ---- intermediate objects


async def test_the_base_of_a_draft_is_not_deleted_however_long_it_waits(small, world):
    async with world.mount(cache_size=8 * KIB) as fs:
        inode, handle = create(fs, b"f")
        await write_all(fs, handle, DATA, step=4 * KIB)
        await fs.files.write(handle.fh, 0, b"rebased")
        assert await delete_after(fs, 0.0) == 0
        assert await read_all(fs, handle) == b"rebased" + DATA[7:]
        world.store.fail("complete_multipart", times=10)
        with pytest.raises(UploadFailed):
            await close(fs, handle)
        assert await delete_after(fs, 0.0) >= 0
        world.store.mend()
    async with world.mount(cache_size=8 * KIB) as fs:
        await delete_after(fs, 0.0)
        assert await read_file(fs, inode.ino) == b"rebased" + DATA[7:]
        await fs.files.retry_failed()
        assert await delete_after(fs, 0.0) >= 1
        assert await read_file(fs, inode.ino) == b"rebased" + DATA[7:]
        assert world.keys() == world.referenced(fs)
        world.check(fs)


async def test_an_intermediate_object_that_became_the_content_is_not_deleted(small, world):
    """A read wanted the parts while completing failed; then the file was closed."""
    async with world.mount(cache_size=8 * KIB) as fs:
        inode, handle = create(fs, b"f")
        await write_all(fs, handle, DATA, step=4 * KIB)
        world.store.fail("complete_multipart")
        with pytest.raises(StoreUnavailable):
            await fs.files.read(handle.fh, 0, 10)
        await close(fs, handle)
        await delete_after(fs, -1.0)
        assert await read_file(fs, inode.ino) == DATA
        world.check(fs)


async def test_an_unlinked_stream_leaves_nothing(small, world):
    async with world.mount() as fs:
        _, handle = create(fs, b"f")
        await write_all(fs, handle, DATA, step=4 * KIB)
        fs.unlink(ROOT_INO, b"f")
        assert await fs.files.read(handle.fh, 0, 10) == DATA[:10]
        await write_all(fs, handle, DATA, offset=len(DATA), step=4 * KIB)
        await close(fs, handle)
        await world.settled()
        world.check(fs)
