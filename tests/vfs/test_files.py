"""Open files: what several handles see, what close means, what is verified."""

from __future__ import annotations

import os
import stat

import pytest
import trio
import trio.testing
from vfs_world import (
    BUCKET,
    KIB,
    MIB,
    USER,
    close,
    create,
    mode_of,
    new_file,
    pattern,
    read_all,
    read_file,
    replace_file,
    write_all,
)

from cozyfs.errors import (
    CorruptObject,
    InvalidRequest,
    NotFound,
    ObjectNotFound,
    ReadOnly,
    StaleHandle,
    StoreUnavailable,
    UploadFailed,
)
from cozyfs.store.keys import new_internal_id
from cozyfs.values import ROOT_INO, AttributeChanges, Content
from cozyfs.vfs.deletions import delete_due

DATA = pattern(100 * KIB, 5)


def key_of(fs, ino):
    inode = fs.index.get(ino)
    return fs.objects.key(inode.doc_id, inode.internal_id)


async def delete_all(fs):
    return await delete_due(fs.index, fs.objects, -1.0, lambda: fs.files.objects_in_use)


# ---- handles


async def test_a_new_file_has_an_object_when_it_is_closed(world):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f")
        assert world.keys() == set()
        await close(fs, handle)
        assert world.keys() == {key_of(fs, inode.ino)}
        world.check(fs)


async def test_mknod_has_an_object_at_once(world):
    async with world.mount() as fs:
        inode = await fs.make(ROOT_INO, b"f", stat.S_IFREG | 0o600, USER, USER)
        assert world.keys() == {key_of(fs, inode.ino)}
        world.check(fs)


async def test_all_handles_of_a_file_see_each_write(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"old content")
        writer = await fs.files.open(ino, os.O_RDWR, USER)
        reader = await fs.files.open(ino, os.O_RDONLY, USER)
        await fs.files.write(writer.fh, 0, b"new")
        assert await read_all(fs, reader) == b"new content"
        await close(fs, writer)
        assert await read_all(fs, reader) == b"new content"
        await close(fs, reader)
        world.check(fs)


async def test_closing_a_reader_stores_nothing(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"old")
        writer = await fs.files.open(ino, os.O_RDWR, USER)
        await fs.files.write(writer.fh, 0, b"new")
        reader = await fs.files.open(ino, os.O_RDONLY, USER)
        await close(fs, reader)
        assert fs.files.state(ino) == "dirty"
        await close(fs, writer)
        assert fs.files.state(ino) == "clean"
        world.check(fs)


async def test_fsync_by_any_handle_stores(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"old")
        writer = await fs.files.open(ino, os.O_RDWR, USER)
        reader = await fs.files.open(ino, os.O_RDONLY, USER)
        await fs.files.write(writer.fh, 0, b"new")
        await fs.files.fsync(reader.fh)
        assert world.store.inner.get(BUCKET, key_of(fs, ino)) == b"new"
        await close(fs, writer)
        await close(fs, reader)
        world.check(fs)


async def test_closing_after_ftruncate_alone_waits_for_the_store(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"old content")
        writer = await fs.files.open(ino, os.O_RDWR, USER)
        await fs.files.truncate(ino, 3, USER)
        world.store.fail("put")
        with pytest.raises(UploadFailed):
            await fs.files.flush(writer.fh)
        await close(fs, writer)
        assert await read_file(fs, ino) == b"old"
        world.check(fs)


async def test_truncate_without_a_writer_is_stored_when_it_returns(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"old content")
        await fs.files.truncate(ino, 3, USER)
        assert world.store.inner.get(BUCKET, key_of(fs, ino)) == b"old"
        await fs.files.truncate(ino, 5, USER)
        assert await read_file(fs, ino) == b"old\0\0"
        world.check(fs)


async def test_truncate_to_the_same_size_stores_nothing_and_sets_the_times(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"content")
        before = fs.get(ino)
        puts = world.store.calls["put"]
        await fs.files.truncate(ino, 7, USER)
        assert world.store.calls["put"] == puts
        assert fs.get(ino).mtime_ns > before.mtime_ns
        world.check(fs)


async def test_what_a_memory_map_wrote_after_close_is_stored_at_release(world):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f")
        await fs.files.flush(handle.fh)
        await fs.files.write(handle.fh, 0, b"late")
        await fs.files.release(handle.fh)
        assert await read_file(fs, inode.ino) == b"late"
        world.check(fs)


async def test_o_trunc_that_fails_leaves_no_handle(world):
    async with world.mount() as fs:
        with pytest.raises(InvalidRequest):
            await fs.files.open(ROOT_INO, os.O_RDWR | os.O_TRUNC, USER)
        assert fs.files.open_files == 0
        assert not fs.files._nodes


async def test_a_closed_handle_is_stale(world):
    async with world.mount() as fs:
        _, handle = create(fs, b"f")
        await close(fs, handle)
        with pytest.raises(StaleHandle):
            await fs.files.read(handle.fh, 0, 1)
        await fs.files.release(handle.fh)  # nobody would hear an error


async def test_a_read_only_mount_refuses_to_open_for_writing(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"x")
    async with world.mount(read_only=True) as fs:
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
            with pytest.raises(ReadOnly):
                await fs.files.open(ino, flags, USER)
        with pytest.raises(ReadOnly):
            await fs.files.truncate(ino, 0, USER)
        assert await read_file(fs, ino) == b"x"


async def test_flush_all_stores_every_open_file_and_tells_how_many_it_could_not(world):
    async with world.mount() as fs:
        opened = [create(fs, b"%d" % i)[1] for i in range(3)]
        for handle in opened:
            await fs.files.write(handle.fh, 0, b"data")
        assert (fs.files.pending, fs.files.dirty_bytes) == (3, 12)
        world.store.fail("put")
        with pytest.raises(UploadFailed, match="1 files"):
            await fs.files.flush_all()
        assert (fs.files.pending, fs.files.failed, fs.files.storing.upload_errors) == (1, 1, 1)
        await fs.files.flush_all()
        assert (fs.files.pending, fs.files.failed) == (0, 0)
        for handle in opened:
            await close(fs, handle)
        world.check(fs)


async def test_a_writer_waits_while_its_file_is_stored_and_a_reader_does_not(world):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f")
        await fs.files.write(handle.fh, 0, b"first")
        gate = world.store.gate("put")
        written = []

        async def write():
            await fs.files.write(handle.fh, 0, b"SECOND")
            written.append(True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fs.files.fsync, handle.fh)
            await trio.to_thread.run_sync(gate.reached.wait, 10)
            nursery.start_soon(write)
            assert await fs.files.read(handle.fh, 0, 10) == b"first"
            assert not written
            gate.open()
        assert await fs.files.read(handle.fh, 0, 10) == b"SECOND"
        await close(fs, handle)
        assert await read_file(fs, inode.ino) == b"SECOND"
        world.check(fs)


# ---- times and modes


async def test_times_of_a_write_are_seen_at_once_and_stay_when_it_is_stored(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"x")
        before = fs.get(ino).mtime_ns
        handle = await fs.files.open(ino, os.O_RDWR, USER)
        await fs.files.write(handle.fh, 0, b"y")
        seen = fs.get(ino)
        assert seen.mtime_ns > before
        await close(fs, handle)
        assert fs.get(ino).mtime_ns == seen.mtime_ns


async def test_a_time_that_was_set_outlives_the_flush(world):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f")
        await fs.files.write(handle.fh, 0, b"x")
        await fs.set_attributes(inode.ino, AttributeChanges(mtime_ns=12345), None, USER)
        assert fs.get(inode.ino).mtime_ns == 12345
        await close(fs, handle)
        assert fs.get(inode.ino).mtime_ns == 12345


async def test_a_time_that_is_set_with_the_size_is_the_one_that_stays(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"content")
        changes = AttributeChanges(mtime_ns=12345)
        inode = await fs.set_attributes(ino, changes, 3, USER)
        assert (inode.size, inode.mtime_ns) == (3, 12345)
        assert fs.index.get(ino).mtime_ns == 12345


async def test_ctime_never_goes_back(world):
    async with world.mount() as fs:
        inode, handle = create(fs, b"f")
        await fs.files.write(handle.fh, 0, b"x")
        await fs.set_attributes(inode.ino, AttributeChanges(mode=0o600), None, USER)
        changed = fs.get(inode.ino).ctime_ns
        await close(fs, handle)
        assert fs.get(inode.ino).ctime_ns >= changed


@pytest.mark.parametrize(
    ("mode", "after"),
    [(0o4755, 0o755), (0o6755, 0o755), (0o2755, 0o755), (0o2745, 0o2745), (0o1755, 0o1755)],
)
@pytest.mark.parametrize("how", ["write", "truncate", "open"])
async def test_a_change_by_a_user_takes_set_id_bits_away(world, mode, after, how):
    """But set-group-id without group execution, which means mandatory locking."""
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"x")
        await fs.set_attributes(ino, AttributeChanges(mode=mode), None, 0)
        flags = os.O_WRONLY | (os.O_TRUNC if how == "open" else 0)
        handle = await fs.files.open(ino, flags, USER)
        if how == "write":
            await fs.files.write(handle.fh, 0, b"y")
        elif how == "truncate":
            await fs.files.truncate(ino, 0, USER)
        await close(fs, handle)
        assert mode_of(fs, ino) == after


async def test_a_change_by_root_leaves_set_id_bits(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"x")
        await fs.set_attributes(ino, AttributeChanges(mode=0o6755), None, 0)
        handle = await fs.files.open(ino, os.O_WRONLY, 0)
        await fs.files.write(handle.fh, 0, b"y")
        await close(fs, handle)
        assert mode_of(fs, ino) == 0o6755


# ---- files that change or go while they are read


async def test_an_unlinked_file_stays_readable_and_writable_until_its_last_close(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"content")
        handle = await fs.files.open(ino, os.O_RDWR, USER)
        fs.unlink(ROOT_INO, b"f")
        await delete_all(fs)
        assert await read_all(fs, handle) == b"content"
        await fs.files.write(handle.fh, 0, b"CONTENT")
        await fs.files.fsync(handle.fh)
        assert await read_all(fs, handle) == b"CONTENT"
        await close(fs, handle)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(NotFound):
            fs.get(ino)
        assert await delete_all(fs) == 1
        assert world.keys() == set()
        world.check(fs)


async def test_a_reader_of_a_replaced_and_deleted_content_reads_the_new_one(world):
    async with world.mount(cache_size=128 * KIB) as fs:
        old, new = pattern(2 * MIB, 1), pattern(2 * MIB, 2)
        ino = await new_file(fs, b"f", old)
        reader = await fs.files.open(ino, os.O_RDONLY, USER)
        gate = world.store.gate("get")
        found = []

        async def read():
            found.append(await fs.files.read(reader.fh, MIB, 100))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.to_thread.run_sync(gate.reached.wait, 10)
            await replace_file(fs, ino, new)
            await delete_all(fs)
            gate.open()
        assert found == [new[MIB : MIB + 100]]
        await close(fs, reader)
        world.check(fs)


async def test_a_reader_of_a_draft_that_is_stored_and_its_base_deleted_reads_on(small, world):
    async with world.mount(cache_size=8 * KIB) as fs:
        ino = await new_file(fs, b"f", DATA)
        handle = await fs.files.open(ino, os.O_RDWR, USER)
        await fs.files.write(handle.fh, 0, b"changed")
        gate = world.store.gate("get")
        found = []

        async def read():
            found.append(await fs.files.read(handle.fh, 60 * KIB, 100))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.to_thread.run_sync(gate.reached.wait, 10)
            await fs.files.fsync(handle.fh)  # copies what the reader asks for on the server
            await delete_all(fs)
            gate.open()
        assert found == [DATA[60 * KIB : 60 * KIB + 100]]
        await close(fs, handle)
        world.check(fs)


async def test_an_object_that_is_missing_is_an_error_not_an_empty_file(world):
    async with world.mount(cache_size=128 * KIB) as fs:
        ino = await new_file(fs, b"f", pattern(2 * MIB, 1))
        world.store.inner.delete(BUCKET, key_of(fs, ino))
        handle = await fs.files.open(ino, os.O_RDWR, USER)
        with pytest.raises(ObjectNotFound):
            await fs.files.read(handle.fh, 0, 10)
        await fs.files.write(handle.fh, 0, b"x")
        with pytest.raises(ObjectNotFound):
            await fs.files.read(handle.fh, MIB, 10)


# ---- verification


async def damaged_file(world, fs, size):
    data = bytearray(pattern(size, 6))
    ino = await new_file(fs, b"f", bytes(data))
    data[size // 2] ^= 1
    world.store.inner.put(BUCKET, key_of(fs, ino), bytes(data))
    return ino, bytes(data)


async def test_a_small_damaged_object_is_not_read(world):
    async with world.mount() as fs:
        ino, _ = await damaged_file(world, fs, 500 * KIB)
    async with world.mount() as fs:
        with pytest.raises(CorruptObject):
            await read_file(fs, ino)


async def test_the_end_of_a_large_damaged_object_is_not_read(world):
    async with world.mount() as fs:
        ino, data = await damaged_file(world, fs, 6 * MIB)
        handle = await fs.files.open(ino, os.O_RDONLY, USER)
        for start in range(0, 6 * MIB - 128 * KIB, 128 * KIB):
            found = await fs.files.read(handle.fh, start, 128 * KIB)
            assert found == data[start : start + 128 * KIB]
        with pytest.raises(CorruptObject):
            await fs.files.read(handle.fh, 6 * MIB - 128 * KIB, 128 * KIB)


async def test_a_shorter_object_is_not_read(world):
    async with world.mount(cache_size=128 * KIB) as fs:
        ino = await new_file(fs, b"f", pattern(2 * MIB, 1))
        world.store.inner.put(BUCKET, key_of(fs, ino), bytes(MIB))
        handle = await fs.files.open(ino, os.O_RDONLY, USER)
        with pytest.raises(CorruptObject):
            await fs.files.read(handle.fh, MIB + 10, 10)
        with pytest.raises(CorruptObject):
            await fs.files.read(handle.fh, MIB - 10, 20)


async def test_requests_of_one_reader_side_by_side_are_verified_in_order(small, world):
    """The kernel has several reads of one handle under way; their hashing must not mix."""
    data = pattern(600 * KIB, 4)
    async with world.mount(cache_size=2 * MIB) as fs:
        ino = await new_file(fs, b"f", data)
        handle = await fs.files.open(ino, os.O_RDONLY, USER)
        disk = fs.objects.caller.disk
        turns = iter(range(1000))

        async def uneven(call, *args):
            if call.__name__ == "update":
                await trio.sleep(0.003 * (3 - next(turns) % 4))
            return await disk(call, *args)

        fs.objects.caller.disk = uneven

        async def read(start):
            await fs.files.read(handle.fh, start, 8 * KIB)

        for start in range(0, len(data), 32 * KIB):
            async with trio.open_nursery() as nursery:
                for at in range(start, min(start + 32 * KIB, len(data)), 8 * KIB):
                    nursery.start_soon(read, at)
        await close(fs, handle)


async def test_two_batches_are_hashed_in_the_order_they_were_read(small, world):
    data = pattern(96 * KIB, 4)
    async with world.mount(cache_size=2 * MIB) as fs:
        ino = await new_file(fs, b"f", data)
        handle = await fs.files.open(ino, os.O_RDONLY, USER)
        disk = fs.objects.caller.disk
        first = trio.Event()
        hashed = []

        async def first_is_late(call, *args):
            if call.__name__ == "update":
                hashed.append(args)
                if len(hashed) == 1:
                    await first.wait()
            return await disk(call, *args)

        fs.objects.caller.disk = first_is_late
        done = []

        async def read(start):
            found = await fs.files.read(handle.fh, start, 32 * KIB)
            done.append(found == data[start : start + 32 * KIB])

        async with trio.open_nursery() as nursery:
            for start in (0, 32 * KIB, 64 * KIB):
                nursery.start_soon(read, start)
                await trio.sleep(0.05)
            first.set()
        assert done == [True] * 3
        await close(fs, handle)


async def test_a_content_replaced_between_two_reads_is_not_a_checksum_error(world):
    old, new = pattern(2 * MIB, 1), pattern(2 * MIB, 2)
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", old)
        reader = await fs.files.open(ino, os.O_RDONLY, USER)
        assert await fs.files.read(reader.fh, 0, MIB) == old[:MIB]
        await replace_file(fs, ino, new)
        assert await fs.files.read(reader.fh, MIB, MIB) == new[MIB:]
        await close(fs, reader)
        world.check(fs)


async def test_a_store_that_is_down_lets_cached_files_be_read(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", DATA)
        assert await read_file(fs, ino) == DATA
        world.store.fail_always()
        assert await read_file(fs, ino) == DATA


async def test_an_unreadable_store_is_an_error_at_once_without_patience(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", pattern(2 * MIB, 1))
        world.store.fail_always("get")
        with pytest.raises(StoreUnavailable):
            await read_file(fs, ino)


async def test_a_sequential_reader_is_read_ahead(world):
    data = pattern(12 * MIB, 2)
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", data)
        world.store.calls.clear()
        assert await read_file(fs, ino) == data
        assert world.store.calls["get"] < 20
        await trio.testing.wait_all_tasks_blocked()
        assert fs.files.cache.used <= fs.files.cache.limit


async def test_writing_ten_files_at_once(small, world):
    async with world.mount(write_buffer=64 * KIB) as fs:

        async def one(number):
            _, handle = create(fs, b"%d" % number)
            await write_all(fs, handle, pattern(150 * KIB, number), step=4 * KIB)
            await close(fs, handle)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(one, number)
        for number in range(10):
            ino = fs.lookup(ROOT_INO, b"%d" % number).ino
            assert await read_file(fs, ino) == pattern(150 * KIB, number)
        world.check(fs)


# ---- a mount that follows another


def replaced(world, fs, ino, data):
    """What a journal that is followed does: the inode has another content."""
    internal_id = new_internal_id()
    key = fs.objects.key(fs.index.get(ino).doc_id, internal_id)
    etag = world.store.inner.put(BUCKET, key, data)
    content = Content(internal_id, len(data), len(data), None, etag, None)
    fs.index.set_content(ino, content, mtime_ns=1, ctime_ns=1, now_ns=1)


async def test_a_handle_of_a_read_only_mount_goes_on_reading_what_it_was_opened_on(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"old content")
    async with world.mount(read_only=True) as fs:
        before = await fs.files.open(ino, os.O_RDONLY, USER)
        assert not fs.files.is_mixed(ino)
        replaced(world, fs, ino, b"new")
        assert fs.files.is_mixed(ino)
        assert await fs.files.read(before.fh, 0, 100) == b"old content"
        after = await fs.files.open(ino, os.O_RDONLY, USER)
        assert await fs.files.read(after.fh, 0, 100) == b"new"
        assert await fs.files.read(before.fh, 4, 100) == b"content"
        # The kernel reads no further than the size it knows, for either handle.
        assert fs.get(ino).size == len(b"old content")
        await close(fs, before)
        assert fs.get(ino).size == 3
        assert not fs.files.is_mixed(ino)
        await close(fs, after)


async def test_an_open_file_that_the_writer_removed_has_attributes_and_content(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"old content")
    async with world.mount(read_only=True) as fs:
        handle = await fs.files.open(ino, os.O_RDONLY, USER)
        fs.index.unlink(ROOT_INO, b"f", 1, keep=False)
        assert (fs.get(ino).nlink, fs.get(ino).size) == (0, 11)
        assert await fs.files.read(handle.fh, 0, 100) == b"old content"
        await close(fs, handle)
        with pytest.raises(NotFound):
            fs.get(ino)


async def test_a_mount_that_turned_read_only_takes_no_writes_on_open_files(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f", b"old")
        handle = await fs.files.open(ino, os.O_RDWR, USER)
        await fs.files.write(handle.fh, 0, b"new")
        fs.turn_read_only()
        with pytest.raises(ReadOnly):
            await fs.files.write(handle.fh, 0, b"more")
        puts = world.store.calls["put"]
        await fs.files.release(handle.fh)
        await fs.files.retry_failed()
        assert world.store.calls["put"] == puts
        assert await read_file(fs, ino) == b"new"  # kept, and shown


async def test_a_draft_kept_here_never_replaces_what_another_machine_wrote_since(world):
    async with world.mount() as fs:
        ino = await new_file(fs, b"f.txt", b"old")
        world.store.fail("put")
        handle = await fs.files.open(ino, os.O_RDWR, USER)
        await fs.files.write(handle.fh, 0, b"written here")
        with pytest.raises(UploadFailed):
            await fs.files.flush(handle.fh)
    async with world.mount() as fs:  # as the journal leads on, before drafts are taken up
        record = dict(fs.index.drafts())[ino]
        replaced(world, fs, ino, b"written elsewhere")
        fs.index.save_draft(ino, record)
    async with world.mount() as fs:
        beside = fs.lookup(ROOT_INO, b"f (2).txt").ino
        assert await read_file(fs, ino) == b"written elsewhere"
        assert await read_file(fs, beside) == b"written here"
        await fs.files.retry_failed()
        assert fs.files.pending == 0
        assert mode_of(fs, beside) == mode_of(fs, ino)
        assert list(fs.index.drafts()) == []
    async with world.mount() as fs:
        assert await read_file(fs, ino) == b"written elsewhere"
        assert await read_file(fs, fs.lookup(ROOT_INO, b"f (2).txt").ino) == b"written here"
        assert world.staged() == []
