"""The journal writer: what is stored when, and what happens while it cannot be."""

from __future__ import annotations

import pytest
import trio
from journal_world import make, names, running, tree

from cozyfs.errors import InvalidRequest, LeaseHeld, LeaseLost, StoreUnavailable
from cozyfs.index.journal import decode
from cozyfs.journal import JournalWriter


async def test_changes_are_stored_within_the_interval(site, autojump_clock):
    index = site.new_index()
    writer, _ = await site.machine(index)
    async with running(writer.run):
        make(index, b"a")
        await trio.sleep(1.1)
        assert site.names_of() == ["00000001-000000000001"]
        assert index.position == writer.position
        assert writer.pending == 0


async def test_without_changes_nothing_is_sent(site, autojump_clock):
    writer, _ = await site.machine(site.new_index())
    async with running(writer.run):
        await trio.sleep(100)
    assert site.names_of() == []


async def test_flush_returns_when_all_before_it_is_stored(site, autojump_clock):
    index = site.new_index()
    writer, _ = await site.machine(index)
    async with running(writer.run):
        make(index, b"a")
        began = trio.current_time()
        await writer.flush()
        assert trio.current_time() == began
        assert index.take_outbox(1) is None
        await writer.flush()
        assert len(site.names_of()) == 1


async def test_a_burst_shares_an_object_and_so_do_flushes(site, autojump_clock):
    index = site.new_index()
    writer, _ = await site.machine(index)
    for number in range(1_000):
        make(index, b"%d" % number)
    async with running(writer.run), trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(writer.flush)
    assert len(site.names_of()) == 1
    record, _ = decode(site.store.get(site.bucket, site.key("journal", site.names_of()[0])))
    assert record.transactions == 1_000


async def test_much_is_cut_into_several_objects_that_form_a_chain(site, autojump_clock):
    index = site.new_index()
    _, lease = await site.machine(index)
    writer = JournalWriter(index, site.objects(), lease, limit_bytes=1_000)
    for number in range(20):
        make(index, b"%d" % number)
    async with running(writer.run):
        await writer.flush()
    position = (0, 0, bytes(32))
    for name in site.names_of():
        record, after = decode(site.store.get(site.bucket, site.key("journal", name)))
        assert record.previous == position
        position = after
    assert len(site.names_of()) > 3
    assert position == index.position


async def test_a_failing_store_is_tried_for_ever_in_order_and_told(site, autojump_clock):
    index = site.new_index()
    writer, _ = await site.machine(index, duration_s=10_000)
    async with running(writer.run):
        site.store.fail_always("put")
        make(index, b"a")
        await trio.sleep(300)
        make(index, b"b")
        assert writer.failing_since is not None
        assert writer.pending == 2
        with pytest.raises(StoreUnavailable):
            await writer.flush(timeout_s=20)
        site.store.mend()
        await writer.flush()
        assert (writer.failing_since, writer.pending) == (None, 0)
    assert [transactions_in(site, name) for name in site.names_of()] == [1, 1]


def transactions_in(site, name):
    return decode(site.store.get(site.bucket, site.key("journal", name)))[0].transactions


async def test_a_lost_answer_is_recognised(site, autojump_clock):
    index = site.new_index()
    writer, _ = await site.machine(index)
    async with running(writer.run):
        site.store.fail("put", applied=True)
        make(index, b"a")
        await writer.flush()
        make(index, b"b")
        await writer.flush()
    assert len(site.names_of()) == 2


async def test_a_taken_number_is_never_overwritten(site, autojump_clock):
    index = site.new_index()
    writer, _ = await site.machine(index)
    key = site.key("journal", "00000001-000000000001")
    site.store.put(site.bucket, key, b"another's")
    make(index, b"a")
    async with running(writer.run):
        with pytest.raises(LeaseLost):
            await writer.flush()
    assert site.store.get(site.bucket, key) == b"another's"
    assert len(index.take_outbox(1 << 20).changesets) == 1


async def test_without_conditional_puts_it_looks_first(site, autojump_clock, monkeypatch):
    from cozyfs.errors import NotSupported

    index = site.new_index()
    writer, _ = await site.machine(index)
    plain = site.store.inner.put

    def put(*args, if_absent=False, if_match=None, **kwargs):
        if if_absent or if_match:
            raise NotSupported("no conditions")
        return plain(*args, **kwargs)

    monkeypatch.setattr(site.store.inner, "put", put)
    async with running(writer.run):
        make(index, b"a")
        await writer.flush()
        key = site.key("journal", "00000001-000000000002")
        plain(site.bucket, key, b"another's")
        make(index, b"b")
        with pytest.raises(LeaseLost):
            await writer.flush()
    assert site.store.get(site.bucket, key) == b"another's"


async def test_a_lapsed_lease_stops_it_until_it_is_renewed(site, autojump_clock):
    index = site.new_index()
    writer, lease = await site.machine(index, duration_s=30)
    async with running(writer.run):
        await trio.sleep(31)
        make(index, b"a")
        await trio.sleep(60)
        assert site.names_of() == []
        await lease.renew()
        await writer.flush()
        assert len(site.names_of()) == 1


async def test_what_lands_after_the_lease_lapsed_is_not_acknowledged(site, autojump_clock):
    index = site.new_index()
    writer, lease = await site.machine(index, duration_s=30)
    site.store.before("put", lambda: autojump_clock.jump(100))
    async with running(writer.run):
        make(index, b"a")
        with pytest.raises(StoreUnavailable):
            await writer.flush(timeout_s=200)
        assert len(site.names_of()) == 1
        await site.take("b", force=True)
        with pytest.raises(LeaseLost):
            await lease.renew()
        with pytest.raises(LeaseLost):
            await writer.flush()
    assert len(index.take_outbox(1 << 20).changesets) == 1


async def test_a_lost_lease_ends_it_and_all_who_wait(site, autojump_clock):
    index = site.new_index()
    writer, lease = await site.machine(index)
    site.store.fail_always("put")
    make(index, b"a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        nursery.start_soon(_expect_loss, writer)
        await trio.sleep(5)
        site.store.mend()
        await site.take("b", force=True)
        with pytest.raises(LeaseLost):
            await lease.renew()
    assert names(index) == [b"a"]
    assert site.names_of() == []


async def _expect_loss(writer):
    with pytest.raises(LeaseLost):
        await writer.flush()


async def test_it_wants_a_recording_index_and_a_new_epoch(site, autojump_clock):
    index = site.new_index()
    writer, lease = await site.machine(index)
    make(index, b"a")
    async with running(writer.run):
        await writer.flush()
    with pytest.raises(InvalidRequest, match="new epoch"):
        JournalWriter(index, site.objects(), lease)
    with pytest.raises(InvalidRequest, match="records nothing"):
        JournalWriter(site.copied(index, "replica"), site.objects(), lease)


async def test_the_next_epoch_goes_on_where_the_last_ended(site, autojump_clock):
    index = site.new_index()
    for number in range(1, 4):
        writer, lease = await site.machine(index)
        async with running(writer.run):
            make(index, b"%d" % number)
            await writer.flush()
        await lease.release()
    assert site.names_of() == [f"0000000{n}-00000000000{n}" for n in (1, 2, 3)]


async def test_it_works_on_every_store(any_site):
    site, index = any_site, any_site.new_index()
    replica = site.copied(index, "replica")
    writer, lease = await site.machine(index)
    async with running(writer.run):
        for number in range(5):
            make(index, b"%d" % number, internal_id=f"i{number}")
            await writer.flush()
    await site.follower(replica).refresh()
    assert tree(replica) == tree(index)
    await lease.release()


async def test_the_highest_epoch_counts_journal_and_snapshots(site, autojump_clock):
    assert await site.objects().highest_epoch() == 0
    site.store.put(site.bucket, site.key("journal", "00000003-000000000001"), b"")
    site.store.put(site.bucket, site.key("snapshots", "00000005-000000000001"), b"")
    site.store.put(site.bucket, site.key("journal", "another name"), b"")
    assert await site.objects().highest_epoch() == 5


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_two_writers_whose_clocks_differ_are_never_both_heard(site, autojump_clock, minutes):
    def wall(shift_s):
        return lambda: 1.7e9 + trio.current_time() + shift_s

    one, other = site.new_index(), site.new_index("other")
    first, lease = await site.machine(one, "one", wall_clock=wall(minutes * 60))
    async with running(first.run):
        async with running(lease.keep):
            make(one, b"one")
            await first.flush()
            with pytest.raises(LeaseHeld):
                await site.machine(other, "other", wall_clock=wall(0))
        # It does not renew any more: the other waits by its own clock, then goes on from there.
        taken = await site.take("other", above_epoch=lease.epoch, wall_clock=wall(0))
        await site.follower(other).refresh()
        make(one, b"late")
        stored = site.names_of()
        with pytest.raises(StoreUnavailable):
            await first.flush(5)
        assert site.names_of() == stored
    second = JournalWriter(other, site.objects(), taken)
    async with running(second.run):
        make(other, b"other")
        await second.flush()
    replica = site.copied(site.new_index("fresh"), "replica")
    await site.follower(replica).refresh()
    assert names(replica) == names(other) == [b"one", b"other"]
