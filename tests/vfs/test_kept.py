"""Drafts that an earlier process kept, of files that another machine has removed since."""

from __future__ import annotations

import json
import os

import pytest
import trio
from vfs_world import BUCKET, MIB, USER, mode_of, new_file, read_file

from cozyfs.values import ROOT_INO


async def kept_then_removed_elsewhere(world, fill, name=b"f.txt", **options):
    """A draft that was kept, *fill* wrote it, of a file that another machine has removed since."""
    async with world.mount(**options) as fs:
        ino = await new_file(fs, name, b"old content")
        handle = await fs.files.open(ino, os.O_RDWR, USER)
        await fill(fs, handle, ino)
        await fs.files.keep_all()
    async with world.mount() as fs:  # as the journal leads on, before drafts are taken up
        record = dict(fs.index.drafts())[ino]
        staged = world.staging / f"{ino}.draft"
        data = staged.read_bytes() if staged.exists() else None
        fs.unlink(ROOT_INO, name)
        fs.files.dropped(ino)
        await world.settled()
        fs.index.save_draft(ino, record)
        if data is not None:
            staged.write_bytes(data)
    return ino


async def overwrite(fs, handle, ino):
    await fs.files.truncate(ino, 0, USER)
    await fs.files.write(handle.fh, 0, b"written here")


async def write_over_a_part(fs, handle, ino):
    await fs.files.write(handle.fh, 0, b"OLD")


def orphan(fs, name):
    return fs.index.resolve(b"/.cozy_orphans/" + name).ino


@pytest.mark.parametrize("write_buffer", [4, 64 * MIB])
async def test_a_draft_of_a_file_that_another_machine_removed_comes_back_as_an_orphan(
    world, caplog, write_buffer
):
    await kept_then_removed_elsewhere(world, overwrite, write_buffer=write_buffer)
    async with world.mount() as fs:
        ino = orphan(fs, b"f.txt")
        assert await read_file(fs, ino) == b"written here"
        assert (fs.get(ino).uid, mode_of(fs, ino)) == (USER, 0o644)
        await fs.files.retry_failed()
        assert fs.files.pending == 0
    async with world.mount() as fs:
        assert await read_file(fs, orphan(fs, b"f.txt")) == b"written here"
        assert (world.staged(), list(fs.index.drafts())) == ([], [])
    assert "was removed by another machine" in caplog.text


async def test_one_that_builds_on_an_object_that_is_still_there_comes_back_whole(world):
    ino = await kept_then_removed_elsewhere(world, write_over_a_part)
    gate = world.store.gate("head")
    async with world.mount() as fs:
        await trio.to_thread.run_sync(gate.reached.wait, 5)
        (base,) = fs.files.objects_in_use  # and nobody deletes it meanwhile
        assert {base} <= world.keys()
        gate.open()
        with trio.fail_after(5):
            while fs.index.drafts()[0][0] == ino:  # noqa: ASYNC110  nobody waits for this one
                await trio.sleep(0.01)
        assert await read_file(fs, orphan(fs, b"f.txt")) == b"OLD content"
        await fs.files.retry_failed()
    async with world.mount() as fs:
        assert await read_file(fs, orphan(fs, b"f.txt")) == b"OLD content"
        assert world.staged() == []


async def test_one_that_builds_on_an_object_that_is_gone_is_put_aside(world, caplog):
    ino = await kept_then_removed_elsewhere(world, write_over_a_part)
    for key in sorted(world.keys()):
        world.store.inner.delete(BUCKET, key)
    async with world.mount() as fs:
        with trio.fail_after(5):
            while fs.index.drafts():  # noqa: ASYNC110  nobody waits for this one
                await trio.sleep(0.01)
        assert not fs.files.objects_in_use
        assert f"{ino}.record.unreadable" in world.staged()
        assert f"{ino}.draft.unreadable" in world.staged()
    assert "put aside" in caplog.text


async def test_an_orphan_s_name_that_is_taken_gets_a_number(world):
    for _ in range(2):
        await kept_then_removed_elsewhere(world, overwrite)
        async with world.mount() as fs:
            await fs.files.retry_failed()
    async with world.mount() as fs:
        assert await read_file(fs, orphan(fs, b"f (2).txt")) == b"written here"


async def test_a_record_that_knows_no_name_comes_back_under_its_number(world):
    ino = await kept_then_removed_elsewhere(world, overwrite)
    async with world.mount(read_only=True) as fs:
        record = json.loads(dict(fs.index.drafts())[ino])
        del record["name"], record["owned"]
        fs.index.save_draft(ino, json.dumps(record).encode())
    async with world.mount() as fs:
        assert await read_file(fs, orphan(fs, b"inode %d" % ino)) == b"written here"
