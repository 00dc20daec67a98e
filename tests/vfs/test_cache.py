"""The block cache: one GET for many readers, nothing that hangs, nothing above the limit."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from vfs_world import BUCKET, MIB, PREFIX, pattern

from cozyfs.errors import CorruptObject, ObjectNotFound, StoreUnavailable
from cozyfs.threads import Caller
from cozyfs.vfs.cache import BLOCK, WHOLE, BlockCache
from cozyfs.vfs.objects import ObjectRef, Objects

LARGE = 3 * MIB + 5
DATA = pattern(LARGE)


@pytest.fixture
def objects(world):
    world.store.put(BUCKET, "k", DATA)
    return Objects(world.store, Caller(timeout_s=0.0), BUCKET, PREFIX)


@pytest.fixture
def ref():
    return ObjectRef("k", LARGE, None)


@asynccontextmanager
async def bounded_nursery():
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            yield nursery


async def reached(gate):
    assert await trio.to_thread.run_sync(gate.reached.wait, 10)


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, 1),
        (0, BLOCK),
        (BLOCK - 1, BLOCK + 1),
        (BLOCK, 2 * BLOCK),
        (5, 3 * BLOCK + 7),
        (LARGE - 1, LARGE),
        (LARGE - 10, LARGE + 100),
        (LARGE, LARGE + 1),
        (0, LARGE),
        (7, 7),
    ],
)
async def test_a_read_gives_the_bytes_of_its_range_cut_at_the_end(objects, ref, start, stop):
    cache = BlockCache(objects, 8 * MIB)
    assert await cache.read(ref, start, stop) == DATA[start:stop]
    assert await cache.read(ref, start, stop) == DATA[start:stop]  # from memory, too


async def test_a_block_at_hand_costs_no_request(world, objects, ref):
    cache = BlockCache(objects, 8 * MIB)
    await cache.read(ref, 10, 20)
    await cache.read(ref, 100, 200)
    assert world.store.calls["get"] == 1
    assert (cache.hits, cache.misses) == (1, 1)


async def test_concurrent_readers_of_one_block_cost_one_get(world, objects, ref):
    cache = BlockCache(objects, 8 * MIB)
    gate = world.store.gate("get")
    found = []

    async def read(start):
        found.append(await cache.read(ref, start, start + 10) == DATA[start : start + 10])

    async with bounded_nursery() as nursery:
        for start in range(0, 1000, 100):
            nursery.start_soon(read, start)
        await reached(gate)
        gate.open()
    assert found == [True] * 10
    assert world.store.calls["get"] == 1


async def test_waiters_of_a_failed_get_get_its_error(world, objects, ref):
    cache = BlockCache(objects, 8 * MIB)
    gate = world.store.gate("get")
    world.store.inner.delete(BUCKET, "k")
    errors = []

    async def read():
        with pytest.raises(ObjectNotFound):
            await cache.read(ref, 0, 10)
        errors.append(1)

    async with bounded_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read)
        await reached(gate)
        gate.open()
    assert len(errors) == 3


async def test_a_waiter_fetches_itself_what_a_cancelled_reader_did_not_bring(world, objects, ref):
    """The pause between attempts is where a flight can be cancelled."""
    objects.caller.timeout_s = 60.0
    world.store.fail("get", error=StoreUnavailable("later"))
    cache = BlockCache(objects, 8 * MIB)
    found = []

    async def cancelled(scope):
        with scope:
            await cache.read(ref, 0, 10)

    async def patient():
        found.append(await cache.read(ref, 0, 10))

    scope = trio.CancelScope()
    async with bounded_nursery() as nursery:
        nursery.start_soon(cancelled, scope)
        while not objects.caller.retries:  # noqa: ASYNC110  a counter has no event
            await trio.sleep(0.001)
        nursery.start_soon(patient)
        await wait_all_tasks_blocked()
        scope.cancel()
    assert found == [DATA[:10]]


async def test_the_cache_stays_within_its_limit(objects, ref):
    cache = BlockCache(objects, 5 * BLOCK)
    for start in range(0, LARGE, 3 * BLOCK):
        await cache.read(ref, start, start + 3 * BLOCK)
        assert cache.used <= cache.limit == 5 * BLOCK


async def test_a_range_larger_than_the_cache_is_read_whole(objects, ref):
    cache = BlockCache(objects, 2 * BLOCK)
    assert await cache.read(ref, 0, LARGE) == DATA


async def test_a_small_object_comes_by_one_get_and_its_md5_is_verified(world, objects):
    data = DATA[: 3 * BLOCK]
    world.store.put(BUCKET, "s", data)
    ref = ObjectRef("s", len(data), hashlib.md5(data).digest())
    cache = BlockCache(objects, 8 * MIB)
    assert await cache.read(ref, BLOCK + 1, BLOCK + 3) == data[BLOCK + 1 : BLOCK + 3]
    assert await cache.read(ref, 0, 5) == data[:5]
    assert world.store.calls["get"] == 1


async def test_a_small_object_of_other_bytes_is_corrupt(world, objects):
    world.store.put(BUCKET, "s", b"x" * 100)
    ref = ObjectRef("s", 100, hashlib.md5(b"y" * 100).digest())
    with pytest.raises(CorruptObject):
        await BlockCache(objects, 8 * MIB).read(ref, 0, 10)
    assert world.store.calls["get"] == 2  # bytes can be damaged on their way: asked twice


async def test_damage_on_the_way_is_mended_by_asking_again(world, objects):
    world.store.put(BUCKET, "s", b"x" * 100)
    world.store.cut("get", 99)
    ref = ObjectRef("s", 100, hashlib.md5(b"x" * 100).digest())
    assert await BlockCache(objects, 8 * MIB).read(ref, 0, 10) == b"x" * 10


async def test_an_object_shorter_than_the_index_says_is_corrupt(objects):
    ref = ObjectRef("k", LARGE + 1, None)
    with pytest.raises(CorruptObject):
        await BlockCache(objects, 8 * MIB).read(ref, LARGE - 5, LARGE + 1)


async def test_what_was_put_is_read_without_a_request(world, objects):
    cache = BlockCache(objects, 8 * MIB)
    data = DATA[: WHOLE - 3]
    cache.put("new", data)
    assert await cache.read(ObjectRef("new", len(data), None), 5, len(data)) == data[5:]
    assert world.store.calls["get"] == 0


# ---- reading ahead


async def test_what_was_fetched_ahead_is_read_without_a_request(world, objects, ref):
    cache = BlockCache(objects, 8 * MIB)
    await cache.fetch_ahead(ref, 0, LARGE)
    assert world.store.calls["get"] == 1
    assert await cache.read(ref, 0, LARGE) == DATA
    assert world.store.calls["get"] == 1


async def test_fetching_ahead_leaves_out_what_is_there_or_on_its_way(world, objects, ref):
    cache = BlockCache(objects, 8 * MIB)
    await cache.read(ref, 2 * BLOCK, 3 * BLOCK)
    await cache.fetch_ahead(ref, 0, 5 * BLOCK)
    ranges = [args[2:] for name, args in world.store.log if name == "get"]
    assert ranges == [(2 * BLOCK, 3 * BLOCK), (0, 2 * BLOCK), (3 * BLOCK, 5 * BLOCK)]


async def test_a_reader_may_ask_for_a_block_that_read_ahead_comes_to_later(world, objects, ref):
    """Read-ahead has two runs to fetch; while the first is under way a reader fetches the
    second, which must be in one flight only."""
    cache = BlockCache(objects, 8 * MIB)
    await cache.read(ref, 2 * BLOCK, 3 * BLOCK)
    first = world.store.gate("get", nth=1)
    second = world.store.gate("get", nth=2)
    async with bounded_nursery() as nursery:
        assert cache.start_ahead(nursery, ref, 0, 5 * BLOCK)
        await reached(first)
        nursery.start_soon(cache.read, ref, 3 * BLOCK, 5 * BLOCK)
        await reached(second)
        first.open()
        while world.store.calls["get"] < 3 and cache._ahead:  # noqa: ASYNC110
            await trio.sleep(0.001)
        second.open()
    assert world.store.calls["get"] == 3
    assert await cache.read(ref, 0, 5 * BLOCK) == DATA[: 5 * BLOCK]
    assert not cache._flights
    assert cache.may_fetch_ahead(cache.limit // 2)


async def test_failed_read_ahead_raises_nothing_and_gives_its_share_back(world, objects, ref):
    cache = BlockCache(objects, 8 * MIB)
    world.store.fail("get")
    await cache.fetch_ahead(ref, 0, MIB)
    assert cache.may_fetch_ahead(4 * MIB)
    assert await cache.read(ref, 0, MIB) == DATA[:MIB]


async def test_read_ahead_under_way_takes_at_most_half_of_the_cache(world, objects, ref):
    cache = BlockCache(objects, 2 * MIB)
    gate = world.store.gate("get")
    async with bounded_nursery() as nursery:
        assert cache.start_ahead(nursery, ref, 0, MIB)
        assert not cache.start_ahead(nursery, ref, MIB, MIB + BLOCK)
        await reached(gate)
        gate.open()
    assert cache.may_fetch_ahead(MIB)
