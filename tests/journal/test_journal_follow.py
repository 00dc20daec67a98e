"""Followers: a tree elsewhere becomes and stays equal to the writer's, or says why it cannot."""

from __future__ import annotations

import pytest
from journal_world import make, make_directory, names, running, tree

from cozyfs.errors import JournalDamaged, JournalDiverged, StoreUnavailable
from cozyfs.index import NO_CHANGES
from cozyfs.values import ROOT_INO


async def write(site, index, *new, name="a", **options):
    """Make files under a lease of its own, an object for each; returns the last position."""
    writer, _ = await site.machine(index, name, force=True, **options)
    async with running(writer.run):
        for each in new:
            make(index, each)
            await writer.flush()
    return writer.position


async def test_a_follower_has_what_was_stored_and_says_what_changed(site, autojump_clock):
    index = site.new_index()
    replica = site.copied(index, "replica")
    follower = site.follower(replica)
    await write(site, index, b"a", b"b")
    changes = await follower.refresh()
    assert tree(replica) == tree(index)
    assert changes.entries == {(ROOT_INO, b"a"), (ROOT_INO, b"b")}
    assert ROOT_INO in changes.inodes
    assert follower.applied == 2
    assert await follower.refresh() == NO_CHANGES


async def test_it_goes_on_across_epochs(site, autojump_clock):
    index = site.new_index()
    replica = site.copied(index, "replica")
    follower = site.follower(replica)
    for number in range(4):
        await write(site, index, b"%d" % number)
        if number % 2:
            await follower.refresh()
            assert tree(replica) == tree(index)


async def test_it_starts_again_where_it_stopped(site, autojump_clock):
    index = site.new_index()
    replica = site.copied(index, "replica")
    await write(site, index, b"a", b"b", b"c")
    site.store.fail("get", nth=3, times=100)
    with pytest.raises(StoreUnavailable):
        await site.follower(replica).refresh()
    assert names(replica) in ([], [b"a"], [b"a", b"b"])  # which one failed is chance
    site.store.mend()
    await site.follower(replica).refresh()
    assert tree(replica) == tree(index)


@pytest.mark.parametrize("harm", ["damage", "remove"])
async def test_a_harmed_object_stops_it_there(site, autojump_clock, harm):
    index = site.new_index()
    replica = site.copied(index, "replica")
    await write(site, index, b"a", b"b", b"c")
    getattr(site, harm)("journal", "00000001-000000000002")
    with pytest.raises(JournalDamaged):
        await site.follower(replica).refresh()
    assert names(replica) == [b"a"]


async def test_what_an_overtaken_writer_still_sends_is_ignored(site, autojump_clock):
    old = site.new_index()
    await write(site, old, b"a")
    new, replica = site.copied(old, "new"), site.copied(old, "replica")
    new.start_recording()
    zombie, _ = await site.machine(old, "old", force=True)
    await write(site, new, b"new", name="new", above_epoch=5)
    async with running(zombie.run):
        for name in (b"zombie", b"zombie 2"):
            make(old, name)
            await zombie.flush()
    await site.follower(replica).refresh()
    assert tree(replica) == tree(new)


async def test_what_was_applied_of_an_overtaken_writer_is_taken_back(site, autojump_clock):
    old = site.new_index()
    await write(site, old, b"a")
    new, replica = site.copied(old, "new"), site.copied(old, "replica")
    new.start_recording()
    await write(site, old, b"zombie", b"zombie 2")
    follower = site.follower(replica)
    await follower.refresh()
    assert names(replica) == [b"a", b"zombie", b"zombie 2"]
    await write(site, new, b"new", name="new", above_epoch=5)
    changes = await follower.refresh()
    assert tree(replica) == tree(new)
    assert {(ROOT_INO, b"zombie"), (ROOT_INO, b"new")} <= changes.entries


class TestOfAWriter:
    """Before its first change, a writer catches up with what is in the bucket."""

    async def test_an_object_whose_success_was_not_noted_is_not_applied_twice(
        self, site, autojump_clock
    ):
        index = site.new_index()
        make(index, b"a")
        writer, _ = await site.machine(index)
        batch = index.take_outbox(1 << 20)
        key, data = writer._encode(batch)
        site.store.put(site.bucket, key, data)
        make(index, b"b")
        await site.follower(index).refresh()
        assert names(index) == [b"a", b"b"]
        assert len(index.take_outbox(1 << 20).changesets) == 1
        assert index.position.sequence == 1

    async def test_after_a_power_cut_the_journal_gives_back_what_was_lost(
        self, site, autojump_clock
    ):
        index = site.new_index()
        make(index, b"a")
        after = site.twin(index, "cut")
        make(index, b"b")
        await write(site, index, b"c")
        assert names(after) == [b"a"]
        await site.follower(after).refresh()
        assert tree(after) == tree(index)
        assert after.take_outbox(1) is None

    async def test_unsent_changes_under_another_writers_are_divergence(self, site, autojump_clock):
        index = site.new_index()
        other = site.copied(index, "other")
        other.start_recording()
        make(index, b"unsent")
        await write(site, other, b"other", name="b")
        with pytest.raises(JournalDiverged):
            await site.follower(index).refresh()
        assert names(index) == [b"unsent"]

    async def test_unsent_changes_over_an_overtaken_object_are_divergence(
        self, site, autojump_clock
    ):
        index = site.new_index()
        other = site.copied(index, "other")
        other.start_recording()
        await write(site, index, b"zombie")
        make(index, b"unsent")
        await write(site, other, b"other", name="b", above_epoch=5)
        with pytest.raises(JournalDiverged):
            await site.follower(index).refresh()

    async def test_a_copied_state_is_noticed(self, site, autojump_clock):
        index = site.new_index()
        twin = site.twin(index, "twin")
        make(index, b"one")
        await write(site, twin, b"two", name="b")
        with pytest.raises(JournalDiverged):
            await site.follower(index).refresh()


async def test_directories_and_removals_follow_too(site, autojump_clock):
    index = site.new_index()
    replica = site.copied(index, "replica")
    writer, _ = await site.machine(index)
    async with running(writer.run):
        directory = make_directory(index, b"d")
        for number in range(50):
            make(index, b"%d" % number, directory, internal_id=f"i{number}")
        await writer.flush()
        await site.follower(replica).refresh()
        for number in range(50):
            index.unlink(directory, b"%d" % number, 10, keep=False)
        index.rmdir(ROOT_INO, b"d", 11, keep=False)
        await writer.flush()
    await site.follower(replica).refresh()
    assert tree(replica) == tree(index)
    assert replica.usage == index.usage
