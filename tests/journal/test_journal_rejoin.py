"""A tree that cannot follow from where it is goes around by a snapshot, in one step."""

from __future__ import annotations

import time
from pathlib import Path
from stat import S_ISDIR

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_world import T0, make, make_directory, names, running, tree

from cozyfs.errors import JournalDamaged, JournalDiverged, StoreUnavailable
from cozyfs.index import NO_CHANGES, Index, difference
from cozyfs.journal import Rejoiner
from cozyfs.values import ROOT_INO


def rejoiner(site, index):
    return Rejoiner(index, Path(index.connection.filename), site.objects())


class Story:
    """A writer and a replica of its tree after the first of some changes."""

    def __init__(self, site, index, writer, snapshots):
        self.site, self.index, self.writer, self.snapshots = site, index, writer, snapshots
        self.replica = site.copied(index, "replica")

    async def go_on(self, *, snapshot=True, last=True):
        make(self.index, b"later", internal_id="i1")
        await self.writer.flush()
        self.index.unlink(ROOT_INO, b"first", T0 + 9, keep=False)
        await self.writer.flush()
        if snapshot:
            await self.snapshots.write()
        if last:
            make(self.index, b"last")
            await self.writer.flush()


@pytest.fixture
async def story(site, autojump_clock):
    index = site.new_index()
    writer, lease = await site.machine(index, duration_s=1e9)
    snapshots = site.snapshotter(index, lease, clock=lambda: time.time() + 10 * 86400)
    await snapshots.ensure_first()
    async with running(writer.run):
        make(index, b"first")
        await writer.flush()
        yield Story(site, index, writer, snapshots)


async def test_a_follower_whose_journal_was_pruned_has_all_that_is_new(story):
    await story.go_on()
    assert await story.snapshots.prune() > 0
    with pytest.raises(JournalDamaged):
        await story.site.follower(story.replica).refresh()
    restored, changes = await rejoiner(story.site, story.replica).rejoin()
    assert tree(story.replica) == tree(story.index)
    assert story.replica.position == story.index.position == restored.position
    assert story.replica.usage == story.index.usage
    wanted = {(ROOT_INO, name) for name in (b"first", b"later", b"last")}
    assert changes.entries == wanted
    assert len(changes.inodes) == 3
    make(story.index, b"more")
    await story.writer.flush()
    await story.site.follower(story.replica).refresh()
    assert tree(story.replica) == tree(story.index)


async def test_it_notices_also_when_nothing_was_written_since_the_snapshot(story):
    await story.go_on(last=False)
    await story.snapshots.prune()
    with pytest.raises(JournalDamaged):
        await story.site.follower(story.replica).refresh()
    await rejoiner(story.site, story.replica).rejoin()
    assert tree(story.replica) == tree(story.index)
    assert await story.site.follower(story.replica).refresh() == NO_CHANGES


@pytest.mark.parametrize("harm", ["damage", "remove"])
async def test_harm_that_a_later_snapshot_makes_unnecessary_is_gone_around(story, harm):
    await story.go_on()
    getattr(story.site, harm)("journal", "00000001-000000000002")
    await rejoiner(story.site, story.replica).rejoin()
    assert tree(story.replica) == tree(story.index)


async def test_nothing_is_left_beside_the_index(story):
    await story.go_on()
    await rejoiner(story.site, story.replica).rejoin()
    assert [path.name for path in story.site.folder.glob("*rejoin*")] == []


async def test_without_a_later_snapshot_it_says_so_and_changes_nothing(story):
    await story.go_on(snapshot=False)
    story.site.remove("journal", "00000001-000000000002")
    before = tree(story.replica)
    with pytest.raises(JournalDamaged, match="no snapshot after 1-1"):
        await rejoiner(story.site, story.replica).rejoin()
    assert tree(story.replica) == before


async def test_a_snapshot_that_is_damaged_is_read_once_until_there_is_another(story):
    await story.go_on()
    story.site.remove("journal", "00000001-000000000002")
    story.site.damage("snapshots", "00000001-000000000003")
    rejoin = rejoiner(story.site, story.replica)
    with pytest.raises(JournalDamaged, match="leads further"):
        await rejoin.rejoin()
    story.site.store.fail_always("get")
    with pytest.raises(JournalDamaged, match="leads further"):
        await rejoin.rejoin()
    story.site.store.mend()
    make(story.index, b"more")
    await story.writer.flush()
    await story.snapshots.write()
    await rejoin.rejoin()
    assert tree(story.replica) == tree(story.index)


async def test_a_store_that_fails_meanwhile_is_asked_again(story):
    await story.go_on()
    await story.snapshots.prune()
    rejoin = rejoiner(story.site, story.replica)
    story.site.store.fail_always("get")
    with pytest.raises(StoreUnavailable):
        await rejoin.rejoin()
    story.site.store.mend()
    await rejoin.rejoin()
    assert tree(story.replica) == tree(story.index)


async def test_changes_of_its_own_that_were_never_stored_are_not_dropped(story):
    story.replica.connection.execute("DELETE FROM settings WHERE name = 'journal.origin'")
    story.replica.start_recording()
    make(story.replica, b"own")
    before = tree(story.replica)
    await story.go_on()
    await story.snapshots.prune()
    with pytest.raises(JournalDiverged, match="1 changes"):
        await rejoiner(story.site, story.replica).rejoin()
    assert tree(story.replica) == before


async def test_what_was_applied_before_the_damage_is_told_too(story):
    await story.go_on(snapshot=False)
    story.site.damage("journal", "00000001-000000000003")
    follower = story.site.follower(story.replica)
    with pytest.raises(JournalDamaged):
        await follower.advance()
    assert (ROOT_INO, b"later") in follower.take_changes().entries
    assert follower.take_changes() == NO_CHANGES


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 30), max_size=25),
    st.lists(st.integers(0, 30), max_size=25),
    st.lists(st.integers(0, 30), max_size=25),
)
def test_a_difference_applied_makes_any_tree_the_other(
    index_template, tmp_path_factory, common, one, other
):
    folder = tmp_path_factory.mktemp("difference")

    def grown(name, numbers, source):
        path = folder / name
        path.write_bytes(source.read_bytes())
        index = Index.open(path)
        for number in numbers:
            change(index, number)
        index.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return index

    with grown("base", common, index_template):
        pass
    with (
        grown("one", one, folder / "base") as old,
        grown("other", other, folder / "base") as new,
    ):
        changeset = difference(folder / "one", folder / "other")
        old.apply(changeset, new.position)
        assert tree(old) == tree(new)
        assert names(old) == names(new)
        assert old.usage == new.usage


def change(index, number):
    """Some change: makes, fills, tags, or removes."""
    name, now = b"%d" % (number % 10), T0 + number
    if name not in names(index):
        make_directory(index, name) if number < 5 else make(index, name, internal_id=f"i{number}")
        return
    inode = index.lookup(ROOT_INO, name)
    if number < 15:
        value = b"%d" % number
        index.set_xattr(inode.ino, b"user.x", value, create=False, replace=False, now_ns=now)
    elif S_ISDIR(inode.mode):
        index.rmdir(ROOT_INO, name, now, keep=False)
    else:
        index.unlink(ROOT_INO, name, now, keep=False)
