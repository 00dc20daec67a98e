"""The tree as it was at a moment, from the bucket alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journal_world import T0, Site, make, names, running, tree

from cozyfs import moments
from cozyfs.errors import InstanceError, JournalDamaged, MomentGone, StoreUnavailable
from cozyfs.index.deletions import Deletion
from cozyfs.journal import Past

SECOND = 10**9


class Written:
    """A tree of which the state after each journal object is known, with its moment."""

    def __init__(self, site):
        self.site = site
        self.index = site.new_index()
        self.now_ns = T0
        self.trees = {}  # moment -> tree
        self.snapshots = None
        self.writer = None

    async def begin(self, site):
        make(self.index, b"before")
        self.index.forget_outbox(self.index.last_seq, self.index.position)
        self.writer, lease = await site.machine(self.index, clock_ns=lambda: self.now_ns)
        self.snapshots = site.snapshotter(self.index, lease, clock=lambda: self.now_ns / 1e9)
        await self.snapshots.ensure_first()
        self.trees[self.now_ns] = tree(self.index)

    async def step(self, *, seconds=10, snapshot=False):
        """What was changed is one journal object, made *seconds* after the last."""
        self.now_ns += seconds * SECOND
        await self.writer.flush()
        self.trees[self.now_ns] = tree(self.index)
        if snapshot:
            await self.snapshots.write()

    @property
    def target(self):
        return self.site.folder / "past.sqlite"

    async def at(self, moment_ns):
        past = await Past.look(self.site.objects())
        restored = await past.restore(moment_ns, self.target)
        index = self.site.opened(self.target)
        try:
            return restored, tree(index), names(index)
        finally:
            index.close()
            self.target.unlink()


@pytest.fixture
async def written(any_site, autojump_clock):
    """One file more every ten seconds from T0 + 10 on, a snapshot at T0 and at T0 + 30."""
    it = Written(any_site)
    await it.begin(any_site)
    async with running(it.writer.run):
        for number in range(1, 6):
            make(it.index, b"%d" % number)
            await it.step(snapshot=number == 3)
        yield it


async def test_each_moment_has_the_tree_that_was_then(written):
    for moment_ns, expected in written.trees.items():
        for later_ns in (0, 1, 9 * SECOND):
            restored, found, _ = await written.at(moment_ns + later_ns)
            assert found == expected
            assert restored.moment_ns == moment_ns


async def test_the_newest_snapshot_from_before_it_is_used(written):
    assert (await written.at(T0 + 29 * SECOND))[0].snapshot == (0, 0)
    restored, *_ = await written.at(T0 + 30 * SECOND)
    assert (restored.snapshot, restored.applied) == ((1, 3), 0)
    restored, *_ = await written.at(T0 + 45 * SECOND)
    assert (restored.snapshot, restored.applied) == ((1, 3), 1)


async def test_a_snapshot_written_late_is_of_the_moment_of_its_tree(written):
    written.now_ns += 1000 * SECOND
    await written.snapshots.write()
    restored, *_ = await written.at(T0 + 55 * SECOND)
    assert restored.snapshot == (1, 5)


async def test_a_moment_before_the_oldest_snapshot_is_refused_with_the_oldest_there_is(written):
    written.site.remove("snapshots", "00000000-000000000000")
    oldest = T0 + 30 * SECOND
    with pytest.raises(MomentGone, match=moments.to_text(oldest)):
        await written.at(oldest - 1)
    assert names_of(await written.at(oldest)) == [b"1", b"2", b"3", b"before"]
    past = await Past.look(written.site.objects())
    assert await past.oldest_ns(written.target) == oldest


async def test_contents_that_were_deleted_move_the_oldest_moment(written):
    """Let go at T0 + 20, deleted from the store at T0 + 70."""
    written.index.queue_deletion("doc", "object", T0 + 20 * SECOND)
    written.index.queue_deletion("doc", "later", T0 + 60 * SECOND)
    await written.step()
    written.index.deletions_done([Deletion("doc", "object", T0 + 20 * SECOND)])
    await written.step()
    with pytest.raises(MomentGone, match=moments.to_text(T0 + 20 * SECOND)):
        await written.at(T0 + 19 * SECOND)
    assert names_of(await written.at(T0 + 20 * SECOND)) == [b"1", b"2", b"before"]
    await written.snapshots.write()
    with pytest.raises(MomentGone):
        await written.at(T0 + 19 * SECOND)


async def test_a_refusal_leaves_nothing_behind(written):
    with pytest.raises(MomentGone):
        await written.at(T0 - 1)
    assert list(written.site.folder.glob("past*")) == []


async def test_the_named_oldest_moment_is_one_whose_snapshot_is_whole(written):
    written.site.damage("snapshots", "00000000-000000000000")
    with pytest.raises(MomentGone, match=moments.to_text(T0 + 30 * SECOND)):
        await written.at(T0 - 1)


async def test_a_damaged_snapshot_gives_way_to_an_older_one(written):
    written.site.damage("snapshots", "00000001-000000000003")
    restored, found, _ = await written.at(T0 + 45 * SECOND)
    assert found == written.trees[T0 + 40 * SECOND]
    assert (restored.snapshot, restored.applied) == ((0, 0), 4)


@pytest.mark.parametrize("harm", ["damage", "remove"])
async def test_what_is_behind_harm_is_refused_and_what_is_before_and_after_it_is_not(
    written, harm
):
    getattr(written.site, harm)("journal", "00000001-000000000002")
    for moment_ns in (T0 + 9 * SECOND, T0 + 30 * SECOND, T0 + 60 * SECOND):
        await written.at(moment_ns)
    for moment_ns in (T0 + 15 * SECOND, T0 + 25 * SECOND):
        with pytest.raises(JournalDamaged, match=r"1-2|2 is missing"):
            await written.at(moment_ns)
    assert list(written.site.folder.glob("past*")) == []


async def test_a_clock_that_went_back_counts_as_standing_still(written):
    make(written.index, b"6")
    await written.step(seconds=-1000)
    make(written.index, b"7")
    await written.step(seconds=1010)
    assert names_of(await written.at(T0 + 49 * SECOND))[-2:] == [b"4", b"before"]
    assert b"6" in names_of(await written.at(T0 + 50 * SECOND))
    assert b"7" not in names_of(await written.at(T0 + 59 * SECOND))
    assert b"7" in names_of(await written.at(T0 + 60 * SECOND))


async def test_what_an_overtaken_writer_sent_never_happened(written):
    site = written.site
    new = site.copied(written.index, "new")
    new.start_recording()
    writer, _ = await site.machine(
        new, "new", force=True, clock_ns=lambda: written.now_ns + 5 * SECOND
    )
    async with running(writer.run):
        make(new, b"new")
        await writer.flush()
        make(written.index, b"zombie")
        await written.step(seconds=1)
    assert b"zombie" not in names_of(await written.at(T0 + 54 * SECOND))
    assert names_of(await written.at(T0 + 60 * SECOND))[-1] == b"new"


async def test_pruning_keeps_every_moment_of_the_retention(written):
    """A retention of 15 s at T0 + 50: moments from T0 + 35 on. The store's clock, by which
    snapshots are old, is not that of the test, so the pruner's is set by what the store says."""
    stored = {entry.place: entry for entry in await written.site.objects().snapshots()}
    base_s = stored[1, 3].last_modified.timestamp()
    lease = written.snapshots._lease
    pruner = written.site.snapshotter(
        written.index, lease, retention_s=15.0, clock=lambda: base_s + 16.0
    )
    assert await pruner.prune() > 0
    for moment_ns in range(T0 + 35 * SECOND, T0 + 55 * SECOND, SECOND):
        _, found, _ = await written.at(moment_ns)
        assert found == written.trees[moment_ns - moment_ns % (10 * SECOND)]


async def test_an_empty_bucket_has_no_past(site, autojump_clock):
    with pytest.raises(InstanceError, match="no tree"):
        await Past.look(site.objects())


async def test_a_store_that_fails_leaves_nothing_half_made(written):
    past = await Past.look(written.site.objects())
    written.site.store.fail("get", nth=3, times=1_000)
    with pytest.raises(StoreUnavailable):
        await past.restore(T0 + 20 * SECOND, written.target)
    assert list(written.site.folder.glob("past*")) == []


async def test_nothing_in_the_bucket_is_touched(written):
    written.site.store.fail_always("put", "delete", "delete_many", "delete_prefix")
    await written.at(T0 + 25 * SECOND)


def names_of(found):
    return found[2]


NAMES = st.sampled_from([b"a", b"b", b"c"])


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(st.integers(0, 3), NAMES, NAMES, st.booleans()), max_size=8))
def test_any_history_gives_each_of_its_trees(tmp_path, local_store, index_template, steps):
    async def scenario(folder):
        with Site(folder, local_store, index_template) as site:
            it = Written(site)
            await it.begin(site)
            async with running(it.writer.run):
                for kind, name, other, snapshot in steps:
                    change(it.index, kind, name, other)
                    await it.step(snapshot=snapshot)
                for moment_ns, expected in it.trees.items():
                    _, found, _ = await it.at(moment_ns)
                    assert found == expected

    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        trio.run(
            scenario,
            Path(folder),
            clock=trio.testing.MockClock(autojump_threshold=0),
        )


def change(index, kind, name, other):
    there = name in names(index)
    if kind == 0 and not there:
        make(index, name)
    elif kind == 1 and there:
        index.unlink(1, name, T0 + 7, keep=False)
    elif kind == 2 and there:
        index.rename(1, name, 1, other, T0 + 8, keep=lambda ino: False)
    elif kind == 3 and there:
        index.set_xattr(index.lookup(1, name).ino, b"user." + other, b"x", now_ns=T0 + 9)
