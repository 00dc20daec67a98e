"""Parts that are known beforehand become one object, or nothing of them stays."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from vfs_world import BUCKET, KIB, pattern

from cozyfs.errors import NoSpace, NotSupported, StoreError, StoreUnavailable
from cozyfs.vfs.multipart import PARTS_AT_ONCE, copied_part, upload_in_parts

KEY = "cozy1234/key"
PART = 16 * KIB


async def upload(fs, jobs):
    return await upload_in_parts(fs.objects, KEY, jobs, content_type="a/b", metadata={"a": "b"})


def sent(fs, data, *, before=None):
    async def job(upload_id, number):
        if before is not None:
            await before()
        return fs.objects.store.upload_part(BUCKET, KEY, upload_id, number, data)

    return job


def failing(error):
    async def job(upload_id, number):
        raise error

    return job


@pytest.fixture
async def fs(small, world):
    async with world.mount() as fs:
        yield fs
        assert world.uploads() == []


async def test_parts_follow_each_other_as_their_jobs_do_not_as_they_arrive(fs, world):
    data = pattern(3 * PART)
    last_is_in = trio.Event()

    async def tell():
        last_is_in.set()

    etag = await upload(
        fs,
        [
            sent(fs, data[:PART], before=last_is_in.wait),
            sent(fs, data[PART : 2 * PART]),
            sent(fs, data[2 * PART :], before=tell),
        ],
    )
    assert world.store.get(BUCKET, KEY) == data
    found = world.store.head(BUCKET, KEY)
    assert (found.etag, found.content_type, found.metadata) == (etag, "a/b", {"a": "b"})


async def test_parts_are_copied_on_the_server_too(fs, world):
    source = pattern(4 * PART)
    world.store.put(BUCKET, "source", source)
    jobs = [
        copied_part(fs.objects, KEY, "source", PART, 3 * PART),
        sent(fs, b"end"),
    ]
    await upload(fs, jobs)
    assert world.store.get(BUCKET, KEY) == source[PART : 3 * PART] + b"end"


async def test_only_some_are_under_way_at_once(fs):
    gate = trio.Event()
    begun = []

    async def wait():
        begun.append(None)
        await gate.wait()

    async with trio.open_nursery() as nursery:
        jobs = [sent(fs, bytes(PART), before=wait)] * (3 * PARTS_AT_ONCE)
        nursery.start_soon(upload, fs, jobs)
        with trio.fail_after(10):
            while len(begun) < PARTS_AT_ONCE:  # noqa: ASYNC110  the upload begins in a thread
                await trio.sleep(0.002)
        await trio.testing.wait_all_tasks_blocked()
        assert len(begun) == PARTS_AT_ONCE
        gate.set()
    assert len(begun) == 3 * PARTS_AT_ONCE


@pytest.mark.parametrize(
    "error", [StoreUnavailable("x"), NotSupported("x"), NoSpace("x"), OSError(5)]
)
async def test_after_a_failure_no_part_is_begun_and_nothing_stays(fs, world, error):
    jobs = [failing(error), *[sent(fs, bytes(PART))] * 20]
    with pytest.raises(type(error)):
        await upload(fs, jobs)
    assert world.store.calls["upload_part"] < PARTS_AT_ONCE
    assert world.keys() == set()


async def test_a_cancelled_upload_is_aborted(fs, world):
    gate = trio.Event()
    with trio.CancelScope() as scope:

        async def cancel():
            scope.cancel()
            await gate.wait()

        await upload(fs, [sent(fs, bytes(PART)), sent(fs, b"", before=cancel)])
    assert scope.cancelled_caught
    assert world.keys() == set()


async def test_an_abort_that_fails_does_not_hide_why(fs, world, caplog):
    world.store.fail("abort_multipart", error=StoreError("no abort"))
    with pytest.raises(NoSpace):
        await upload(fs, [failing(NoSpace("full"))])
    assert "could not be aborted: no abort" in caplog.text
    assert len(world.uploads()) == 1
    world.store.lose_uploads(BUCKET)
