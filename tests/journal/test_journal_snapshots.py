"""Snapshots: when they are written, what is in them, and what they allow to remove."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio
from journal_world import make, names, running, tree

from cozyfs.errors import LeaseLost
from cozyfs.index.snapshot import read_snapshot, write_snapshot
from cozyfs.journal import JournalWriter, restore

DAY = 86_400.0


def opened_snapshot(site, index, name="snap"):
    target = site.folder / name
    info = write_snapshot(Path(index.connection.filename), target, created_ns=5)
    data = target.read_bytes()
    path = site.folder / f"{name}.sqlite"
    chunks = [data[start : start + 7] for start in range(0, len(data), 7)]
    assert read_snapshot(chunks, path) == info
    return info, site.opened(path)


class TestOneFile:
    def test_it_holds_the_tree_at_the_position_without_what_waits(self, site):
        index = site.new_index()
        make(index, b"a")
        before = tree(index)
        index.forget_outbox(index.last_seq, index.position)
        make(index, b"b", internal_id="i")
        index.unlink(1, b"a", 9, keep=False)
        info, snapshot = opened_snapshot(site, index)
        assert tree(snapshot) == before
        assert snapshot.position == index.position == info.position

    def test_it_says_nothing_of_this_machine(self, site):
        index = site.new_index()
        index.set_setting("secret", "x")
        index.save_draft(make(index, b"a"), b"draft")
        _, snapshot = opened_snapshot(site, index)
        assert snapshot.drafts() == []
        assert snapshot.setting("secret") is None
        assert not snapshot.is_recording

    def test_nothing_is_left_beside_it(self, site):
        write_snapshot(
            Path(site.new_index().connection.filename), site.folder / "snap", created_ns=5
        )
        assert [path.name for path in site.folder.glob("snap*")] == ["snap"]


async def test_the_first_is_written_before_any_journal(site, autojump_clock):
    index = site.new_index()
    make(index, b"a")
    _, lease = await site.machine(index)
    await site.snapshotter(index, lease).ensure_first()
    await site.snapshotter(index, lease).ensure_first()
    assert site.names_of("snapshots") == ["00000000-000000000000"]


@pytest.mark.parametrize("limit", [{"max_objects": 3}, {"max_bytes": 700}])
async def test_one_is_written_when_much_journal_has_come_since_the_last(
    site, autojump_clock, limit
):
    index = site.new_index()
    _, lease = await site.machine(index)
    snapshots = site.snapshotter(index, lease, **limit)
    await snapshots.ensure_first()
    writer = JournalWriter(index, site.objects(), lease, on_stored=snapshots.journal_grew)
    async with running(writer.run, snapshots.run, lease.keep):
        for number in range(7):
            make(index, b"%d" % number)
            await writer.flush()
            await trio.sleep(1)
    assert len(site.names_of("snapshots")) >= 3
    restored = await restore(site.objects(), site.folder / "restored.sqlite")
    assert restored.applied < 3


async def test_journal_left_by_an_earlier_mount_counts(site, autojump_clock):
    index = site.new_index()
    writer, lease = await site.machine(index)
    await site.snapshotter(index, lease).ensure_first()
    async with running(writer.run):
        for number in range(5):
            make(index, b"%d" % number)
            await writer.flush()
    snapshots = site.snapshotter(index, lease, max_objects=5)
    await snapshots.ensure_first()
    async with running(snapshots.run, lease.keep):
        await trio.sleep(1)
    assert len(site.names_of("snapshots")) == 2


async def test_one_that_fails_is_tried_again(site, autojump_clock):
    index = site.new_index()
    writer, lease = await site.machine(index)
    snapshots = site.snapshotter(index, lease, max_objects=1)
    await snapshots.ensure_first()
    async with running(writer.run, lease.keep):
        make(index, b"a")
        await writer.flush()
        snapshots.journal_grew(1)
        site.store.fail("put", times=12)
        async with running(snapshots.run):
            await trio.sleep(20)
            site.store.fail("put", times=12)
            await trio.sleep(300)
    assert len(site.names_of("snapshots")) == 2
    assert snapshots.failing_since is None


class TestPruning:
    @pytest.fixture
    async def written(self, site, autojump_clock):
        """Snapshots at 0, 3 and 6 of a journal of eight objects."""
        index = site.new_index()
        writer, lease = await site.machine(index, duration_s=1e9)
        index.lease_of_test = lease
        snapshots = site.snapshotter(index, lease)
        await snapshots.ensure_first()
        async with running(writer.run):
            for number in range(1, 9):
                make(index, b"%d" % number)
                await writer.flush()
                if number in (3, 6):
                    await snapshots.write()
        return index

    def snapshotter(self, site, index, later_s=2 * DAY):
        return site.snapshotter(index, index.lease_of_test, clock=lambda: time.time() + later_s)

    async def test_what_an_old_snapshot_covers_is_removed(self, site, written):
        assert await self.snapshotter(site, written).prune() == 7
        assert site.names_of("snapshots") == ["00000001-000000000006"]
        assert site.names_of() == [f"00000001-00000000000{number}" for number in (6, 7, 8)]
        await restore(site.objects(), site.folder / "restored.sqlite")
        assert tree(site.opened(site.folder / "restored.sqlite")) == tree(written)

    async def test_a_mount_that_lives_for_a_minute_prunes_too(self, site, written, autojump_clock):
        async with running(self.snapshotter(site, written).run):
            await trio.sleep(60)
            assert site.names_of("snapshots") == ["00000001-000000000006"]

    async def test_nothing_is_removed_within_the_retention(self, site, written):
        assert await self.snapshotter(site, written, later_s=0.9 * DAY).prune() == 0

    async def test_a_damaged_snapshot_covers_nothing(self, site, written):
        site.damage("snapshots", "00000001-000000000006")
        await self.snapshotter(site, written).prune()
        assert site.names_of("snapshots") == ["00000001-000000000003", "00000001-000000000006"]
        assert len(site.names_of()) == 6

    async def test_nothing_more_is_read_when_there_is_nothing_to_remove(self, site, written):
        await self.snapshotter(site, written).prune()
        site.store.fail_always("get", "delete_many")
        assert await self.snapshotter(site, written).prune() == 0

    async def test_without_the_lease_nothing_is_removed(self, site, written):
        await site.take("b", force=True)
        with pytest.raises(LeaseLost):
            await written.lease_of_test.renew()
        with pytest.raises(LeaseLost):
            await self.snapshotter(site, written).prune()
        assert len(site.names_of()) == 8
        assert names(written)
