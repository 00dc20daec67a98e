"""The lease: one holder at a time, whatever clocks say, and who finds out how that it is over."""

from __future__ import annotations

import json

import pytest
import trio
from journal_world import DB_PREFIX, running

from cozyfs.errors import LeaseHeld, LeaseLost, NotSupported, StoreUnavailable

KEY = f"{DB_PREFIX}/.cozyfs/lease"


def record(site):
    return json.loads(site.store.inner.get(site.bucket, KEY))


async def test_a_free_lease_is_taken_at_once(site, autojump_clock):
    lease = await site.take("a", above_epoch=7)
    assert (lease.epoch, lease.state, lease.conditional) == (8, "held", True)
    assert trio.current_time() == 0
    assert record(site)["mountpoint"] == "/mnt/a"


async def test_a_second_holder_is_refused_and_told_who_has_it(site, autojump_clock):
    lease = await site.take("a")
    async with running(lease.keep):
        with pytest.raises(LeaseHeld, match=r"host-a at /mnt/a .*since .*--force-lease"):
            await site.take("b")
        assert trio.current_time() < 15
        lease.check()


async def test_a_released_lease_is_taken_at_once_with_a_higher_epoch(site, autojump_clock):
    lease = await site.take("a")
    await lease.release()
    with pytest.raises(LeaseLost):
        lease.check()
    assert (await site.take("b")).epoch == lease.epoch + 1
    assert trio.current_time() == 0


async def test_the_same_machine_need_not_wait_for_its_dead_mount(site, autojump_clock):
    first = await site.take("a")
    assert (await site.take("a")).epoch == first.epoch + 1
    assert trio.current_time() == 0


async def test_an_abandoned_lease_is_taken_after_it_was_watched(site, autojump_clock):
    await site.take("a", duration_s=30)
    waits = []
    lease = await site.take("b", on_wait=lambda *args: waits.append(args))
    assert lease.epoch == 2
    assert 35 <= trio.current_time() < 40
    assert [(who.host, seconds) for who, seconds in waits] == [("host-a", 35)]


@pytest.mark.parametrize("hours", [-5, -0.1, 0.1, 5])
async def test_clocks_that_differ_give_nobody_a_lease_that_is_held(site, autojump_clock, hours):
    lease = await site.take("a")
    async with running(lease.keep):
        with pytest.raises(LeaseHeld):
            await site.take("b", wall_clock=lambda: trio.current_time() + 1.7e9 + hours * 3600)
        lease.check()


async def test_a_lease_renewed_long_ago_is_watched_for_a_short_time(site, autojump_clock):
    await site.take("a", wall_clock=lambda: 1_000_000.0)
    await site.take("b", wall_clock=lambda: 1_100_000.0)
    assert 15 <= trio.current_time() < 20


async def test_force_takes_it_at_once_and_the_holder_finds_out(site, autojump_clock):
    lease = await site.take("a")
    async with running(lease.keep):
        other = await site.take("b", force=True)
        await lease.lost.wait()
        with pytest.raises(LeaseLost, match="host-b"):
            lease.check()
        other.check()
    assert other.epoch == 2


async def test_it_is_kept_as_long_as_it_is_renewed(site, autojump_clock):
    lease = await site.take("a")
    async with running(lease.keep):
        for _ in range(100):
            await trio.sleep(7)
            lease.check()


async def test_without_renewal_it_lapses_before_others_may_have_it(site, autojump_clock):
    lease = await site.take("a", duration_s=30)
    await trio.sleep(30)
    assert lease.state == "lapsed"
    with pytest.raises(LeaseLost, match="in time"):
        lease.check()


async def test_an_outage_that_nobody_used_is_survived(site, autojump_clock):
    lease = await site.take("a")
    async with running(lease.keep):
        site.store.fail_always("put", "get", "head")
        await trio.sleep(120)
        assert lease.state == "lapsed"
        assert lease.renewal_failing_since is not None
        site.store.mend()
        await lease.confirmed()
        assert (lease.state, lease.renewal_failing_since) == ("held", None)


async def test_a_stopped_process_finds_its_lease_taken(site, autojump_clock):
    lease = await site.take("a", duration_s=30)
    autojump_clock.jump(3600)
    with pytest.raises(LeaseLost):
        lease.check()  # by the clock alone, before anything is asked
    other = await site.take("b", force=True)
    async with running(lease.keep):
        await lease.lost.wait()
    other.check()
    assert record(site)["owner"] == "id-b"


async def test_a_renewal_whose_answer_was_lost_is_no_loss(site, autojump_clock):
    lease = await site.take("a")
    site.store.fail("put", applied=True)
    with pytest.raises(StoreUnavailable):
        await lease.renew()
    await lease.renew()
    lease.check()


async def test_a_lease_that_was_removed_is_lost(site, autojump_clock):
    lease = await site.take("a")
    site.store.inner.delete(site.bucket, KEY)
    with pytest.raises(LeaseLost, match="removed"):
        await lease.renew()
    assert lease.state == "lost"


async def test_garbage_has_to_expire_like_a_lease(site, autojump_clock):
    site.store.put(site.bucket, KEY, b"garbage")
    await site.take("b")
    assert trio.current_time() >= 35


async def test_of_two_at_the_same_time_one_has_it(site, autojump_clock):
    held = []

    async def attempt(name):
        try:
            lease = await site.take(name)
        except LeaseHeld:
            return
        held.append(lease)
        await lease.keep()

    async with trio.open_nursery() as nursery:
        for name in "abcd":
            nursery.start_soon(attempt, name)
        await trio.sleep(200)
        nursery.cancel_scope.cancel()
    assert [lease.state for lease in held] == ["held"]


@pytest.fixture
def no_conditions(site, monkeypatch):
    plain = site.store.inner.put

    def put(*args, if_absent=False, if_match=None, **kwargs):
        if if_absent or if_match:
            raise NotSupported("no conditions")
        return plain(*args, **kwargs)

    monkeypatch.setattr(site.store.inner, "put", put)


@pytest.mark.usefixtures("no_conditions")
class TestWithoutConditionalPuts:
    async def test_it_is_taken_after_reading_back(self, site, autojump_clock):
        lease = await site.take("a")
        assert not lease.conditional
        assert trio.current_time() == 2
        async with running(lease.keep):
            await trio.sleep(100)
            lease.check()

    async def test_the_one_who_was_overwritten_finds_out(self, site, autojump_clock):
        lease = await site.take("a")
        await site.take("b", force=True)
        with pytest.raises(LeaseLost):
            await lease.renew()

    async def test_of_two_at_the_same_time_at_most_one_has_it(self, site, autojump_clock):
        held = []

        async def attempt(name):
            try:
                held.append(await site.take(name))
            except LeaseHeld:
                return
            await held[-1].keep()

        async with trio.open_nursery() as nursery:
            for name in "ab":
                nursery.start_soon(attempt, name)
            await trio.sleep(200)
            nursery.cancel_scope.cancel()
        assert [lease.state for lease in held].count("held") == 1

    async def test_a_late_renewal_of_a_former_holder_does_no_harm(self, site, autojump_clock):
        await site.take("a")
        late = site.store.inner.get(site.bucket, KEY)
        lease = await site.take("b", force=True)
        site.store.put(site.bucket, KEY, late)
        await lease.renew()
        lease.check()
        assert record(site)["owner"] == "id-b"


async def test_it_works_on_every_store(any_site):
    lease = await any_site.take("a", duration_s=30)
    await lease.renew()
    other = await any_site.take("b", force=True)
    if lease.conditional:
        with pytest.raises(LeaseLost):
            await lease.renew()
    await other.release()
    await (await any_site.take("a")).release()
