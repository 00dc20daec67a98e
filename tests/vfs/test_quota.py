"""The quota: what is refused, what is always possible, and what is left of a refused write."""

from __future__ import annotations

import contextlib
import errno
import os

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from vfs_world import NO_VERSIONS, USER, World, close, create, pattern, read_file, write_all
from world import STORES, check, open_fs, store_named

from cozyfs.errors import (
    FileTooLarge,
    LengthMismatch,
    NotFound,
    QuotaExceeded,
    StoreUnavailable,
    UploadFailed,
)
from cozyfs.index import NO_CHANGES
from cozyfs.values import MAX_FILE_SIZE, ROOT_INO, TRASH_INO, Content, VersionRules
from cozyfs.vfs.copying import copy_file
from cozyfs.vfs.deletions import delete_due
from cozyfs.vfs.filesystem import NO_QUOTA
from cozyfs.vfs.history import History
from cozyfs.vfs.paths import Paths
from cozyfs.vfs.quota import Quota, check_available_space, report

QUOTA = 1000
EVERY = VersionRules(20, 0)


@pytest.fixture(params=STORES)
async def fs(request, tmp_path):
    """With a quota of 1000 bytes."""
    store = store_named(request.param, request)
    with trio.fail_after(60):
        async with open_fs(store, tmp_path, version_rules=NO_VERSIONS) as fs:
            fs.quota.limit = QUOTA
            yield fs
            await check(fs)
            assert fs.quota.promised == 0
    store.close()


@pytest.fixture
async def local(world):
    """The same over the local store, which can be told to fail."""
    async with world.mount() as fs:
        fs.quota.limit = QUOTA
        yield fs


def used(fs):
    return fs.index.usage.disk_bytes


def names(fs):
    return [name for name, _ in fs.children(ROOT_INO, b"", 100) if name != b".cozy_trash"]


async def opened(fs, ino, flags=os.O_RDWR):
    return await fs.files.open(ino, flags, USER)


async def write_and_close(fs, handle, data):
    """As a program that ends when a write fails: what it has open is closed."""
    try:
        await write_all(fs, handle, data)
    finally:
        await close(fs, handle)


async def new_file(fs, name, data):
    inode, handle = create(fs, name)
    await write_and_close(fs, handle, data)
    return inode.ino


async def replace_file(fs, ino, data):
    await write_and_close(fs, await opened(fs, ino, os.O_WRONLY | os.O_TRUNC), data)


async def refused(awaitable):
    with pytest.raises(QuotaExceeded):
        await awaitable


# ---- the rule


@pytest.mark.parametrize(
    ("size", "quota", "usage", "available"),
    [
        (100, 0, 5000, (100, None, 0)),
        (None, 0, 0, (None, None, 0)),
        (100, 100, 0, (100, 100, 90)),
        (40, 100, 60, (40, 40, 30)),
        (None, 100, 60, (None, 40, 30)),
        (10, 100, 90, (10, 10, 0)),
        (5, 100, 95, (5, 5, 0)),
        (0, 100, 100, (0, 0, 0)),
        (7, 99, 0, (7, 99, 89)),
    ],
)
def test_what_is_available_is_what_the_quota_leaves(size, quota, usage, available):
    assert check_available_space(size, quota, usage) == available


def test_more_than_the_quota_leaves_is_refused():
    with pytest.raises(QuotaExceeded) as refusal:
        check_available_space(41, 100, 60)
    assert refusal.value.errno == errno.EDQUOT


@pytest.mark.parametrize("usage", [101, 5000])
def test_over_the_quota_nothing_is_left_rather_than_no_limit(usage):
    assert check_available_space(None, 100, usage).max_size == 0
    assert check_available_space(0, 100, usage).max_size == 0
    with pytest.raises(QuotaExceeded):
        check_available_space(1, 100, usage)


def test_no_quota_lifts_the_limit_of_the_store():
    with pytest.raises(FileTooLarge):
        check_available_space(MAX_FILE_SIZE + 1, 0, 0)


def test_what_is_promised_to_one_is_not_promised_to_another():
    quota = Quota(100, lambda: 30)
    quota.extend("a", 50)
    with pytest.raises(QuotaExceeded):
        quota.extend("b", 21)
    quota.extend("b", 20)
    with pytest.raises(QuotaExceeded):
        quota.extend("a", 51)
    quota.extend("a", 50)
    quota.release("a")
    quota.extend("b", 70)
    assert quota.promised == 70


def test_two_that_are_stored_at_once_do_not_both_take_the_last_room():
    quota = Quota(0, lambda: 0)
    quota.extend("a", 60)
    quota.extend("b", 60)
    quota.limit = 100
    with quota.storing("a", 60), pytest.raises(QuotaExceeded), quota.storing("b", 60):
        pass
    with quota.storing("b", 60):
        pass


# ---- writing


async def test_a_file_may_fill_the_quota_and_not_one_byte_more(fs):
    await new_file(fs, b"f", bytes(QUOTA))
    assert used(fs) == QUOTA
    _, handle = create(fs, b"g")
    await refused(fs.files.write(handle.fh, 0, b"x"))
    await refused(close(fs, handle))
    assert names(fs) == [b"f"]


async def test_a_file_that_grows_too_large_is_not_there_after_close(fs):
    inode, handle = create(fs, b"f")
    await fs.files.write(handle.fh, 0, bytes(600))
    await refused(fs.files.write(handle.fh, 600, bytes(600)))
    for call in (fs.files.flush, fs.files.fsync):
        await refused(call(handle.fh))
    changes = await fs.files.release(handle.fh)
    fs.released(inode.ino)
    assert names(fs) == []
    assert changes.entries == {(ROOT_INO, b"f")}
    assert changes.inodes == {inode.ino, ROOT_INO}
    assert used(fs) == 0


async def test_a_refused_write_changes_nothing_that_can_be_read(fs):
    ino = await new_file(fs, b"f", b"old" * 100)
    handle = await opened(fs, ino)
    await refused(fs.files.write(handle.fh, 300, bytes(701)))
    assert fs.get(ino).size == 300
    assert await fs.files.read(handle.fh, 0, 1000) == b"old" * 100
    await refused(fs.files.flush(handle.fh))
    await fs.files.release(handle.fh)


async def test_an_overwritten_file_keeps_its_old_content_when_the_new_one_does_not_fit(fs):
    ino = await new_file(fs, b"f", b"old" * 100)
    handle = await opened(fs, ino, os.O_WRONLY | os.O_TRUNC)
    await fs.files.write(handle.fh, 0, bytes(700))
    await refused(fs.files.write(handle.fh, 700, b"x"))
    await refused(fs.files.flush(handle.fh))
    changes = await fs.files.release(handle.fh)
    assert (changes.inodes, changes.entries) == ({ino}, frozenset())
    assert await read_file(fs, ino) == b"old" * 100
    assert fs.get(ino).size == 300


async def test_the_content_that_is_replaced_is_not_deducted(fs):
    ino = await new_file(fs, b"f", bytes(600))
    await refused(replace_file(fs, ino, b"x" * 401))
    assert await read_file(fs, ino) == bytes(600)
    await replace_file(fs, ino, b"x" * 400)
    assert await read_file(fs, ino) == b"x" * 400


async def test_a_draft_that_was_begun_is_not_refused_again_for_writes_inside_of_it(fs):
    ino = await new_file(fs, b"f", bytes(500))
    handle = await opened(fs, ino)
    await fs.files.write(handle.fh, 0, b"a")
    fs.quota.limit = 600
    for offset in range(0, 500, 100):
        await fs.files.write(handle.fh, offset, b"b" * 100)
    await refused(fs.files.write(handle.fh, 500, b"c"))
    fs.quota.limit = 1000
    await refused(fs.files.write(handle.fh, 500, b"c"))
    await fs.files.truncate(ino, 500, USER)
    await close(fs, handle)
    assert await read_file(fs, ino) == b"b" * 500


async def test_a_change_inside_of_a_file_needs_room_for_all_of_it(fs):
    ino = await new_file(fs, b"f", bytes(501))
    handle = await opened(fs, ino)
    await refused(fs.files.write(handle.fh, 0, b"a"))
    await refused(close(fs, handle))
    assert await read_file(fs, ino) == bytes(501)


async def test_writers_of_different_files_do_not_fill_the_same_room(fs):
    _, one = create(fs, b"one")
    _, two = create(fs, b"two")
    await fs.files.write(one.fh, 0, bytes(600))
    await refused(fs.files.write(two.fh, 0, bytes(600)))
    await fs.files.write(two.fh, 0, bytes(400))
    await close(fs, one)
    await close(fs, two)
    assert used(fs) == QUOTA


async def test_files_without_a_name_take_no_room_from_others(fs):
    _, temporary = create(fs, b"temporary")
    await fs.files.write(temporary.fh, 0, bytes(900))
    fs.files.remove_names(temporary.node.ino)
    await new_file(fs, b"f", bytes(1000))
    await fs.files.release(temporary.fh)
    fs.released(temporary.node.ino)
    assert used(fs) == 1000


async def test_a_hole_counts_as_what_it_is_long(fs):
    inode, handle = create(fs, b"f")
    await refused(fs.files.truncate(inode.ino, 1001, USER))
    await fs.files.truncate(inode.ino, 1000, USER)
    await close(fs, handle)
    assert used(fs) == 1000


async def test_a_shells_redirection_into_an_older_file_leaves_what_it_had(fs):
    """Which closes one of two descriptors before it writes: that stores an empty content."""
    ino = await new_file(fs, b"f", b"old" * 100)
    handle = await opened(fs, ino, os.O_WRONLY | os.O_TRUNC)
    await fs.files.flush(handle.fh)
    assert used(fs) == 0
    await fs.files.write(handle.fh, 0, bytes(600))
    await refused(new_file(fs, b"g", bytes(101)))  # the old content keeps its room
    await refused(fs.files.write(handle.fh, 600, bytes(200)))
    await refused(close(fs, handle))
    assert await read_file(fs, ino) == b"old" * 100
    assert used(fs) == 300


async def test_what_a_file_goes_back_to_is_no_version_of_it(world):
    async with world.mount(version_rules=VersionRules()) as fs:
        fs.quota.limit = QUOTA
        ino = await new_file(fs, b"f", b"old" * 100)
        handle = await opened(fs, ino, os.O_WRONLY | os.O_TRUNC)
        await fs.files.flush(handle.fh)
        assert fs.index.usage.versions == 1
        await refused(fs.files.write(handle.fh, 0, bytes(701)))
        await refused(close(fs, handle))
        assert await read_file(fs, ino) == b"old" * 100
        assert (fs.index.usage.versions, used(fs)) == (0, 300)


async def emptied(fs, ino):
    """A handle as a shell's ``>`` leaves it to the program: what was there is a version."""
    handle = await opened(fs, ino, os.O_WRONLY | os.O_TRUNC)
    await fs.files.flush(handle.fh)
    assert fs.index.usage.versions == 1
    return handle


async def only_version(fs, ino):
    history = History(fs)
    ((_, version),) = history.of(ino)
    return b"".join([piece async for piece in history.read(version)])


async def test_a_file_removed_while_it_is_written_keeps_its_version_when_a_write_is_refused(world):
    async with world.mount(version_rules=EVERY, use_trash=True) as fs:
        fs.quota.limit = QUOTA
        handle = await emptied(fs, await new_file(fs, b"f", b"old" * 100))
        fs.unlink(ROOT_INO, b"f")
        await refused(fs.files.write(handle.fh, 0, bytes(1001)))
        await refused(close(fs, handle))
        assert await only_version(fs, fs.lookup(TRASH_INO, b"f").ino) == b"old" * 100
        world.check(fs)


async def test_a_file_renamed_over_one_keeps_its_version_when_a_write_to_that_is_refused(world):
    async with world.mount(version_rules=EVERY) as fs:
        fs.quota.limit = QUOTA
        handle = await emptied(fs, await new_file(fs, b"f", b"old" * 100))
        ino = await new_file(fs, b"g", b"new")
        fs.rename(ROOT_INO, b"g", ROOT_INO, b"f", 0)
        await refused(fs.files.write(handle.fh, 0, bytes(1001)))
        await refused(close(fs, handle))
        assert await read_file(fs, ino) == b"new"
        assert await only_version(fs, ino) == b"old" * 100
        world.check(fs)


async def test_a_new_file_that_was_refused_keeps_the_version_of_the_one_it_replaced(world):
    async with world.mount(version_rules=EVERY) as fs:
        fs.quota.limit = QUOTA
        await new_file(fs, b"f", b"old" * 100)
        inode, handle = create(fs, b"g")
        await refused(fs.files.write(handle.fh, 0, bytes(1001)))
        fs.rename(ROOT_INO, b"g", ROOT_INO, b"f", 0)
        await refused(close(fs, handle))
        assert fs.lookup(ROOT_INO, b"f").ino == inode.ino
        assert await only_version(fs, inode.ino) == b"old" * 100
        world.check(fs)


async def test_what_was_restored_while_a_file_is_written_is_what_it_goes_back_to(world):
    async with world.mount(version_rules=EVERY) as fs:
        fs.quota.limit = QUOTA
        ino = await new_file(fs, b"f", b"first")
        await replace_file(fs, ino, b"second")
        handle = await opened(fs, ino, os.O_WRONLY | os.O_TRUNC)
        await fs.files.flush(handle.fh)
        await History(fs).restore(ino, History(fs).of(ino)[0].version)
        await refused(fs.files.write(handle.fh, 0, bytes(1001)))
        await refused(close(fs, handle))
        assert await read_file(fs, ino) == b"first"
        assert await only_version(fs, ino) == b"second"
        world.check(fs)


async def test_a_shells_redirection_into_a_new_file_leaves_none(fs):
    _, handle = create(fs, b"f")
    await fs.files.flush(handle.fh)
    await fs.files.write(handle.fh, 0, bytes(600))
    await refused(fs.files.write(handle.fh, 600, bytes(600)))
    await refused(close(fs, handle))
    assert names(fs) == []


async def test_what_somebody_else_left_is_what_a_file_goes_back_to(fs):
    ino = await new_file(fs, b"f", b"old" * 100)
    other = await opened(fs, ino)
    emptied = await opened(fs, ino, os.O_WRONLY | os.O_TRUNC)
    await close(fs, emptied)
    await refused(fs.files.write(other.fh, 0, bytes(1001)))
    await refused(close(fs, other))
    assert await read_file(fs, ino) == b""


async def test_an_empty_content_that_fsync_acknowledged_stays(fs):
    ino = await new_file(fs, b"f", b"old" * 100)
    handle = await opened(fs, ino, os.O_WRONLY | os.O_TRUNC)
    await fs.files.fsync(handle.fh)
    await refused(fs.files.write(handle.fh, 0, bytes(1001)))
    await refused(close(fs, handle))
    assert await read_file(fs, ino) == b""


async def test_what_a_file_may_go_back_to_is_not_deleted(local):
    ino = await new_file(local, b"f", b"old" * 100)
    handle = await opened(local, ino, os.O_WRONLY | os.O_TRUNC)
    await local.files.flush(handle.fh)
    await delete_due(local.index, local.objects, 0, lambda: local.files.objects_in_use)
    await refused(local.files.write(handle.fh, 0, bytes(1001)))
    await refused(close(local, handle))
    assert await read_file(local, ino) == b"old" * 100


# ---- making up for a refused write


async def test_a_later_write_at_the_same_place_makes_up_for_a_refused_one(fs):
    _, handle = create(fs, b"f")
    await fs.files.write(handle.fh, 0, bytes(600))
    await refused(fs.files.write(handle.fh, 600, b"x" * 600))
    await fs.files.write(handle.fh, 600, b"x" * 100)
    await close(fs, handle)
    assert used(fs) == 700


async def test_a_write_elsewhere_does_not(fs):
    _, handle = create(fs, b"f")
    await refused(fs.files.write(handle.fh, 600, b"x" * 600))
    await fs.files.write(handle.fh, 0, b"x" * 100)
    await refused(close(fs, handle))
    assert names(fs) == []


async def test_raising_the_quota_lets_the_same_write_succeed(fs):
    _, handle = create(fs, b"f")
    await refused(fs.files.write(handle.fh, 0, bytes(1001)))
    fs.quota.limit = 1001
    await fs.files.write(handle.fh, 0, bytes(1001))
    await close(fs, handle)
    assert used(fs) == 1001


async def test_truncating_makes_up_for_refused_writes(fs):
    inode, handle = create(fs, b"f")
    await fs.files.write(handle.fh, 0, b"good")
    await refused(fs.files.write(handle.fh, 4, bytes(1000)))
    await fs.files.truncate(inode.ino, 4, USER)
    await close(fs, handle)
    assert await read_file(fs, inode.ino) == b"good"


async def test_as_long_as_another_writer_is_there_nothing_is_given_up(fs):
    inode, one = create(fs, b"f")
    two = await opened(fs, inode.ino)
    await refused(fs.files.write(one.fh, 0, bytes(1001)))
    await refused(fs.files.flush(one.fh))
    assert await fs.files.release(one.fh) == NO_CHANGES
    await fs.files.write(two.fh, 0, b"better")
    await close(fs, two)
    assert await read_file(fs, inode.ino) == b"better"


async def test_the_end_of_the_mount_gives_up_what_nobody_made_up_for(fs):
    inode, handle = create(fs, b"f")
    await refused(fs.files.write(handle.fh, 0, bytes(1001)))
    assert fs.files.pending == 0
    await fs.files.flush_all()
    await fs.files.give_up_refused()
    assert names(fs) == []
    await fs.files.release(handle.fh)
    fs.released(inode.ino)


# ---- what is always possible


async def over_the_quota(fs):
    """A file of 800 bytes in an instance that may hold 500."""
    ino = await new_file(fs, b"f", bytes(800))
    fs.quota.limit = 500
    return ino


async def test_over_the_quota_empty_files_and_directories_can_be_made(fs):
    ino = await over_the_quota(fs)
    await new_file(fs, b"empty", b"")
    await fs.make(ROOT_INO, b"node", 0o100644, USER, USER)
    await fs.make(ROOT_INO, b"d", 0o040755, USER, USER)
    fs.symlink(ROOT_INO, b"s", b"f", USER, USER)
    fs.link(ino, ROOT_INO, b"l")
    await Paths(fs).write_file("/declared", b"", size=0)
    assert names(fs) == [b"d", b"declared", b"empty", b"f", b"l", b"node", b"s"]


@pytest.mark.parametrize("size", [799, 600, 0])
async def test_over_the_quota_a_file_can_be_made_shorter(fs, size):
    ino = await over_the_quota(fs)
    await fs.files.truncate(ino, size, USER)
    assert await read_file(fs, ino) == bytes(size)


async def test_over_the_quota_a_file_can_be_emptied_by_opening_it(fs):
    ino = await over_the_quota(fs)
    handle = await opened(fs, ino, os.O_WRONLY | os.O_TRUNC)
    await close(fs, handle)
    assert used(fs) == 0


async def test_what_was_made_shorter_needs_room_again_when_it_is_written(fs):
    ino = await over_the_quota(fs)
    handle = await opened(fs, ino)
    await fs.files.truncate(ino, 400, USER)
    await refused(fs.files.write(handle.fh, 0, b"x"))
    await refused(fs.files.truncate(ino, 401, USER))
    await refused(close(fs, handle))
    assert await read_file(fs, ino) == bytes(800)


# ---- when the draft is stored


async def test_a_quota_that_was_lowered_is_seen_when_a_file_is_closed(local, world):
    inode, handle = create(local, b"f")
    await local.files.write(handle.fh, 0, b"x" * 600)
    local.quota.limit = 500
    await refused(close(local, handle))
    assert local.files.state(inode.ino) == "failed"
    assert local.files.storing.upload_errors == 0
    assert world.keys() == set()

    await local.files.retry_failed()
    assert local.files.failed == 1
    local.quota.limit = 600
    await local.files.retry_failed()
    assert local.files.failed == 0
    assert await read_file(local, inode.ino) == b"x" * 600
    world.check(local)


async def test_a_draft_that_an_earlier_process_kept_counts(world):
    async with world.mount() as fs:
        world.store.fail_always("put")
        with pytest.raises(UploadFailed):
            await new_file(fs, b"f", bytes(600))
        world.store.mend()
    async with world.mount() as fs:
        fs.quota.limit = QUOTA
        assert fs.quota.promised == 600
        await refused(new_file(fs, b"g", bytes(401)))
        await fs.files.retry_failed()
        assert used(fs) == 600
        world.check(fs)


async def test_what_was_kept_after_a_failed_upload_is_never_given_up(local, world):
    ino = await new_file(local, b"f", b"old")
    world.store.fail_always("put")
    with pytest.raises(UploadFailed):
        await replace_file(local, ino, b"kept")
    handle = await opened(local, ino)
    await refused(local.files.write(handle.fh, 4, bytes(1000)))
    await refused(local.files.flush(handle.fh))
    await local.files.release(handle.fh)
    world.store.mend()
    await local.files.retry_failed()
    assert await read_file(local, ino) == b"kept"
    world.check(local)


async def test_an_upload_that_fails_keeps_its_promise_until_it_is_stored(local, world):
    world.store.fail_always("put")
    with pytest.raises(UploadFailed):
        await new_file(local, b"f", bytes(600))
    assert local.quota.promised == 600
    world.store.mend()
    await local.files.retry_failed()
    assert (local.quota.promised, used(local)) == (0, 600)


async def test_a_stream_that_was_refused_leaves_nothing_in_the_store(small, local, world):
    local.quota.limit = 200_000
    _, handle = create(local, b"f")
    with pytest.raises(QuotaExceeded):
        await write_all(local, handle, pattern(300_000), step=20_000)
    assert handle.node.draft.stream is not None
    await refused(close(local, handle))
    await world.settled()
    assert names(local) == []
    assert world.uploads() == []
    world.check(local)


# ---- whole contents, copies


@pytest.mark.parametrize("content", [b"x" * 600, b"x" * 400])
async def test_a_content_of_another_length_than_declared_is_not_there(fs, content):
    with pytest.raises(LengthMismatch):
        await Paths(fs).write_file("/f", content, size=500)
    assert names(fs) == []
    await Paths(fs).write_file("/f", b"old")
    with pytest.raises(LengthMismatch):
        await Paths(fs).write_file("/f", content, size=500)
    assert await Paths(fs).read_file("/f") == b"old"


async def test_a_declared_size_is_reserved_while_the_content_comes(fs):
    async def content():
        await refused(new_file(fs, b"g", bytes(401)))
        yield bytes(600)

    await Paths(fs).write_file("/f", content(), size=600)
    assert names(fs) == [b"f"]


async def test_a_copy_that_does_not_fit_is_not_made(fs):
    ino = await new_file(fs, b"f", bytes(501))
    await refused(copy_file(fs, ino, ROOT_INO, b"g"))
    assert names(fs) == [b"f"]
    fs.quota.limit = 1002
    await copy_file(fs, ino, ROOT_INO, b"g")
    assert used(fs) == 1002


# ---- what is told


async def test_statfs_tells_quota_and_use(fs):
    await new_file(fs, b"f", bytes(300))
    assert fs.space()[:2] == (QUOTA, 300)
    fs.quota.limit = 0
    assert fs.space()[:2] == (300 + NO_QUOTA, 300)
    assert fs.space().files == fs.index.usage.inodes


async def test_versions_count(fs):
    ino = await new_file(fs, b"f", bytes(300))
    inode = fs.get(ino)
    with fs.index.transaction():
        fs.index.set_content(
            ino, Content(None, 0, 0, None, None), mtime_ns=1, ctime_ns=1, now_ns=1
        )
        fs.index.set_content(
            ino,
            Content(inode.internal_id, 300, 300, inode.md5, inode.etag),
            mtime_ns=1,
            ctime_ns=1,
            now_ns=1,
        )
        fs.index.keep_object(inode.doc_id, inode.internal_id)
    assert fs.space().used == fs.index.disk_bytes == fs.index.usage.disk_bytes == 300


async def test_ninety_percent_are_told_once_and_so_is_the_way_back(fs, caplog):
    caplog.set_level("INFO", "cozyfs.vfs.quota")
    await new_file(fs, b"a", bytes(899))
    assert not fs.quota.alert
    await new_file(fs, b"b", bytes(1))
    assert fs.quota.alert
    await new_file(fs, b"c", bytes(1))
    await fs.files.truncate(fs.lookup(ROOT_INO, b"a").ino, 0, USER)
    assert not fs.quota.alert
    told = [record.levelname for record in caplog.records]
    assert told == ["WARNING", "INFO"]


async def test_the_report_has_all_numbers(fs):
    await new_file(fs, b"f", bytes(950))
    assert report(fs.index.usage, QUOTA) == {
        "quota_bytes": 1000,
        "used_bytes": 950,
        "free_bytes": 50,
        "quota_alert": True,
        "files": 1,
        "file_bytes": 950,
        "versions": 0,
        "version_bytes": 0,
        "trash_bytes": 0,
        "stored_bytes": 950,
    }
    assert report(fs.index.usage, 0)["quota_bytes"] is None
    assert report(fs.index.usage, 100)["free_bytes"] == 0


# ---- random programs

operations = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.sampled_from("abc")),
        st.tuples(st.just("open"), st.sampled_from("abc"), st.sampled_from([0, os.O_TRUNC])),
        st.tuples(st.just("write"), st.integers(0, 3), st.integers(0, 800), st.integers(1, 700)),
        st.tuples(st.just("append"), st.integers(0, 3), st.integers(1, 700)),
        st.tuples(st.just("truncate"), st.sampled_from("abc"), st.integers(0, 1200)),
        st.tuples(st.just("close"), st.integers(0, 3)),
        st.tuples(st.just("remove"), st.sampled_from("abc")),
        st.tuples(st.just("copy"), st.sampled_from("abc"), st.sampled_from("abc")),
        st.tuples(st.just("outage"), st.booleans()),
    ),
    max_size=30,
)


class Program:
    """Runs operations, and knows each file's last stored content and what is being written."""

    def __init__(self, world, fs):
        self.world, self.fs = world, fs
        self.handles = []

    async def run(self, kind, *arguments):
        with contextlib.suppress(QuotaExceeded, NotFound, UploadFailed, StoreUnavailable):
            await getattr(self, kind)(*arguments)
        self.look()

    def look(self):
        """The quota holds for what is stored, and for what is promised as well."""
        fs = self.fs
        assert fs.index.disk_bytes <= QUOTA
        drafts = [n.draft.size for n in fs.files._nodes.values() if n.draft and n.draft.dirty]
        assert fs.quota.promised >= sum(drafts) - sum(
            n.draft.size
            for n in fs.files._nodes.values()
            if n.draft and n.draft.dirty and fs.index.get(n.ino).nlink == 0
        )

    def ino(self, name):
        return self.fs.lookup(ROOT_INO, name.encode()).ino

    async def create(self, name):
        if name.encode() not in names(self.fs):
            self.handles.append(create(self.fs, name.encode())[1])

    async def open(self, name, flags):
        self.handles.append(await opened(self.fs, self.ino(name), os.O_RDWR | flags))

    async def write(self, number, offset, length):
        if self.handles:
            handle = self.handles[number % len(self.handles)]
            await self.write_at(handle, offset, length)

    async def append(self, number, length):
        if self.handles:
            handle = self.handles[number % len(self.handles)]
            await self.write_at(handle, self.fs.get(handle.node.ino).size, length)

    async def write_at(self, handle, offset, length):
        ino = handle.node.ino
        before = await read_file_now(self.fs, handle)
        try:
            await self.fs.files.write(handle.fh, offset, b"x" * length)
        except QuotaExceeded:
            assert await read_file_now(self.fs, handle) == before
            assert handle.node.refused
            raise
        assert self.fs.get(ino).size == max(len(before), offset + length)

    async def truncate(self, name, size):
        ino = self.ino(name)
        before = self.fs.get(ino).size
        try:
            await self.fs.files.truncate(ino, size, USER)
        except QuotaExceeded:
            # Growing was refused, or storing what others have written to it.
            assert size > before or self.fs.files.state(ino) != "clean"
            raise

    async def close(self, number):
        if not self.handles:
            return
        handle = self.handles.pop(number % len(self.handles))
        node = handle.node
        last = node.writers == 1
        marked = bool(node.refused)
        kept = node.failures > 0
        stored = self.fs.index.get(node.ino)
        new = node.is_new
        try:
            await close(self.fs, handle)
        except QuotaExceeded:
            assert marked
        else:
            assert not marked or not handle.wrote
        if marked and last and not kept:
            if new:
                assert node.ino not in [i.ino for _, i in self.fs.children(ROOT_INO, b"", 99)]
            elif stored.nlink:
                assert self.fs.get(node.ino).internal_id == stored.internal_id
                assert self.fs.get(node.ino).size == stored.size

    async def remove(self, name):
        self.fs.unlink(ROOT_INO, name.encode())

    async def copy(self, name, to):
        if to.encode() not in names(self.fs):
            await copy_file(self.fs, self.ino(name), ROOT_INO, to.encode())

    async def outage(self, begins):
        if begins:
            self.world.store.fail_always("put")
        else:
            self.world.store.mend()
            await self.fs.files.retry_failed()


async def read_file_now(fs, handle):
    return await fs.files.read(handle.fh, 0, 5000)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example([("create", "a"), ("append", 0, 600), ("append", 0, 600), ("close", 0)])
@example(
    [
        ("create", "a"),
        ("append", 0, 400),
        ("outage", True),
        ("close", 0),
        ("open", "a", 0),
        ("append", 0, 700),
        ("close", 0),
        ("outage", False),
    ]
)
@given(operations)
def test_no_program_gets_beyond_the_quota_and_contents_are_old_or_new(
    index_template, tmp_path_factory, program
):
    async def scenario():
        world = World(tmp_path_factory.mktemp("quota"), index_template)
        async with world.mount() as fs:
            fs.quota.limit = QUOTA
            running = Program(world, fs)
            for kind, *arguments in program:
                await running.run(kind, *arguments)
            world.store.mend()
            while running.handles:
                await running.run("close", 0)
            await fs.files.retry_failed()
            await world.settled()
            assert fs.quota.promised == 0
            world.check(fs)

    trio.run(scenario)
