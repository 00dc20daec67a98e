"""Restoring: the bucket alone gives the tree back, as much of it as is there."""

from __future__ import annotations

import pytest
from journal_world import make, names, running, tree

from cozyfs.errors import InstanceError, JournalDamaged, StoreUnavailable
from cozyfs.index import Index
from cozyfs.journal import restore


class Written:
    """A tree with snapshots at 0 and *snapshot_at*, and one journal object for each file."""

    def __init__(self, site, index, lease):
        self.site, self.index, self.lease = site, index, lease
        self.target = site.folder / "restored.sqlite"

    async def restore(self):
        restored = await restore(self.site.objects(), self.target)
        return restored, self.site.opened(self.target)


@pytest.fixture
async def written(site, autojump_clock):
    index = site.new_index()
    make(index, b"before")
    writer, lease = await site.machine(index)
    snapshots = site.snapshotter(index, lease)
    await snapshots.ensure_first()
    async with running(writer.run):
        for number in range(6):
            make(index, b"%d" % number, internal_id=f"i{number}")
            await writer.flush()
            if number == 3:
                await snapshots.write()
    return Written(site, index, lease)


ALL = [b"0", b"1", b"2", b"3", b"4", b"5", b"before"]


async def test_the_newest_snapshot_and_the_journal_after_it_give_the_tree(written):
    restored, index = await written.restore()
    assert tree(index) == tree(written.index)
    assert index.position == written.index.position == restored.position
    assert (restored.snapshot, restored.applied) == ((1, 4), 2)
    assert (restored.problems, restored.is_complete) == ((), True)
    assert index.take_outbox(1) is None
    assert not index.is_recording


async def test_it_has_the_indexes_of_a_new_file(written):
    _, index = await written.restore()
    sql = "SELECT name, sql FROM sqlite_schema ORDER BY name"
    schemas = [list(each.connection.execute(sql)) for each in (index, written.index)]
    assert schemas[0] == schemas[1]


async def test_a_damaged_snapshot_gives_way_to_an_older_one(written):
    written.site.damage("snapshots", "00000001-000000000004")
    restored, index = await written.restore()
    assert tree(index) == tree(written.index)
    assert (restored.snapshot, restored.applied) == ((0, 0), 6)
    assert "snapshot 1-4" in restored.problems[0]
    assert restored.is_complete


@pytest.mark.parametrize("place", [0, 4, 20, 60, 100, -33, -1])
async def test_damage_anywhere_in_a_snapshot_is_seen(written, place):
    written.site.damage("snapshots", "00000001-000000000004", place)
    restored, _ = await written.restore()
    assert restored.snapshot == (0, 0)


@pytest.mark.parametrize("harm", ["damage", "remove"])
async def test_journal_is_applied_up_to_the_harm_and_the_rest_is_told(written, harm):
    getattr(written.site, harm)("journal", "00000001-000000000005")
    restored, index = await written.restore()
    assert names(index) == [b"0", b"1", b"2", b"3", b"before"]
    assert restored.position.place == (1, 4)
    assert restored.loss.objects == 2  # the last is good and of no use
    assert not restored.is_complete
    assert restored.problems


async def test_harm_before_the_snapshot_does_not_matter(written):
    written.site.damage("journal", "00000001-000000000002")
    restored, index = await written.restore()
    assert names(index) == ALL
    assert restored.is_complete


async def test_without_a_good_snapshot_nothing_is_made(written):
    for name in ("00000000-000000000000", "00000001-000000000004"):
        written.site.damage("snapshots", name)
    with pytest.raises(JournalDamaged, match="0-0"):
        await restore(written.site.objects(), written.target)
    assert [path.name for path in written.site.folder.glob("restored*")] == []


async def test_nothing_in_the_bucket_is_touched(written):
    written.site.damage("journal", "00000001-000000000005")
    written.site.store.fail_always("put", "delete", "delete_many", "delete_prefix")
    await written.restore()


async def test_a_store_that_fails_leaves_nothing_half_made(written):
    written.site.store.fail("get", nth=3, times=1_000)
    with pytest.raises(StoreUnavailable):
        await restore(written.site.objects(), written.target)
    assert [path.name for path in written.site.folder.glob("restored*")] == []


async def test_an_empty_bucket_has_nothing_to_restore(site, autojump_clock):
    assert await restore(site.objects(), site.folder / "restored.sqlite") is None


async def test_an_existing_index_is_never_replaced(written):
    written.target.write_bytes(b"precious")
    with pytest.raises(InstanceError, match="exists already"):
        await restore(written.site.objects(), written.target)


async def test_progress_ends_at_the_whole(written):
    seen = []
    await restore(written.site.objects(), written.target, lambda *at: seen.append(at))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0


async def test_what_an_overtaken_writer_sent_is_not_restored(written):
    site = written.site
    new = site.copied(written.index, "new")
    new.start_recording()
    zombie, old_lease = await site.machine(written.index, "old", force=True)
    writer, _ = await site.machine(new, "new", force=True)
    async with running(writer.run, zombie.run):
        make(new, b"new")
        await writer.flush()
        make(written.index, b"zombie")
        await zombie.flush()
        await site.snapshotter(written.index, old_lease).write()
    restored, index = await written.restore()
    assert tree(index) == tree(new)
    assert restored.is_complete
    assert restored.snapshot == (1, 4)


async def test_a_restored_tree_can_be_written_and_followed(written):
    _, index = await written.restore()
    index.start_recording()
    writer, _ = await written.site.machine(index, "b", force=True)
    async with running(writer.run):
        make(index, b"more")
        await writer.flush()
    replica = written.site.copied(written.index, "replica")
    await written.site.follower(replica).refresh()
    assert tree(replica) == tree(index)
    assert isinstance(replica, Index)
