"""A journal that the tree could not be rebuilt from is found, and a fresh snapshot repairs it."""

from __future__ import annotations

import contextlib
from stat import S_IFDIR

import pytest
import trio
from fsck_world import types

from cozyfs import tree
from cozyfs.checking import check_tree
from cozyfs.errors import LeaseHeld
from cozyfs.instances import create
from cozyfs.journal import JournalObjects, restore
from cozyfs.state import InstanceState
from cozyfs.store import LocalStore
from cozyfs.store.keys import new_doc_id, object_key
from cozyfs.values import ROOT_INO
from cozyfs.vfs.fsck import Options, Progress


@pytest.fixture
def store(tmp_path):
    with contextlib.closing(LocalStore(tmp_path / "store", durable=False)) as store:
        yield store


@pytest.fixture
def instance(store):
    return create(store, "cozy", "alice.example.com")


@pytest.fixture
def state(tmp_path, instance):
    state = InstanceState.open(tmp_path / "state", instance.bucket, instance.db_prefix)
    state.hold(instance.domain)
    yield state
    state.unlock()


@contextlib.asynccontextmanager
async def writing(instance, store, state):
    async with trio.open_nursery() as nursery:
        opened = await tree.open_for_writing(
            instance,
            store,
            state,
            state.directory,
            nursery,
            journal_interval_s=0.05,
            retention_s=86_400.0,
            force_lease=False,
        )
        nursery.start_soon(opened.writer.run)
        yield opened
        await opened.flush(10)
        nursery.cancel_scope.cancel()
    await opened.close()
    opened.index.close()


async def history(instance, store, state, count=4):
    """A tree of *count* directories, one journal object for each; returns their keys."""
    async with writing(instance, store, state) as opened:
        for number in range(count):
            name, mode = b"d%d" % number, S_IFDIR | 0o755
            doc_id = new_doc_id(number)
            opened.index.make(ROOT_INO, name, mode, uid=0, gid=0, doc_id=doc_id, now_ns=number)
            await opened.flush(10)
    return keys(instance, store, "journal")


def keys(instance, store, part):
    prefix = f"{instance.db_prefix}/.cozyfs/{part}/"
    return [info.key for info in store.list(instance.bucket, prefix)]


async def checked(instance, store, state, **options):
    found = []

    async def tell(finding):
        found.append(finding.to_json())

    with trio.fail_after(30):
        await check_tree(instance, store, state, Options(**options), tell, Progress())
    return found


async def is_repaired(instance, store, state, expected, **options):
    found = await checked(instance, store, state, **options)
    assert types(found) == [expected]
    assert "repaired" not in found[0]
    found = await checked(instance, store, state, repair=True, **options)
    assert [(each["type"], each["repaired"]) for each in found] == [(expected, True)]
    assert await checked(instance, store, state, **options) == []


async def rebuilt(instance, store, tmp_path):
    """What another machine gets."""
    objects = JournalObjects(store, instance.bucket, instance.db_prefix)
    result = await restore(objects, tmp_path / "elsewhere.db")
    return result, tmp_path / "elsewhere.db"


def key_of_unknown(instance):
    return object_key(instance.db_prefix, "d" * 32, "i" * 16)


def flip(store, instance, key):
    data = bytearray(store.get(instance.bucket, key))
    data[len(data) // 2] ^= 1
    store.put(instance.bucket, key, bytes(data))


async def test_a_whole_journal_is_no_finding(instance, store, state):
    await history(instance, store, state)
    assert await checked(instance, store, state, deep=True) == []


async def test_a_gap_is_found_and_a_snapshot_closes_it(instance, store, state, tmp_path):
    journal = await history(instance, store, state)
    store.delete(instance.bucket, journal[1])
    await is_repaired(instance, store, state, "journal_gap")
    result, path = await rebuilt(instance, store, tmp_path)
    assert result.is_complete
    with contextlib.closing(tree.Index.open(path)) as index:
        names = [name for name, _ in index.children(ROOT_INO, b"", 9)]
    assert names == [b".cozy_trash", b"d0", b"d1", b"d2", b"d3"]


async def test_a_missing_end_is_found_by_the_machine_that_wrote_it(instance, store, state):
    journal = await history(instance, store, state)
    store.delete(instance.bucket, journal[-1])
    await is_repaired(instance, store, state, "journal_gap")


async def test_a_journal_without_a_snapshot_gets_one(instance, store, state):
    await history(instance, store, state)
    for key in keys(instance, store, "snapshots"):
        store.delete(instance.bucket, key)
    found = await checked(instance, store, state)
    assert types(found) == ["snapshot_missing"]
    # Whoever opens it for writing sees to it that there is one.
    assert await checked(instance, store, state, repair=True) == []
    assert await checked(instance, store, state) == []


async def test_a_damaged_journal_object_is_found_by_reading(instance, store, state):
    journal = await history(instance, store, state)
    flip(store, instance, journal[2])
    assert await checked(instance, store, state) == []
    await is_repaired(instance, store, state, "journal_damaged", deep=True)


async def test_a_damaged_snapshot_is_found_by_reading(instance, store, state):
    await history(instance, store, state)
    flip(store, instance, keys(instance, store, "snapshots")[-1])
    assert await checked(instance, store, state) == []
    await is_repaired(instance, store, state, "snapshot_damaged", deep=True)


async def test_void_objects_of_a_writer_that_was_overtaken_are_no_gap(instance, store, state):
    await history(instance, store, state, count=1)
    (last,) = keys(instance, store, "journal")
    async with writing(instance, store, state) as opened:
        opened.index.make(
            ROOT_INO, b"e", S_IFDIR | 0o755, uid=0, gid=0, doc_id=new_doc_id(9), now_ns=9
        )
    stem, _, sequence = last.rpartition("-")
    late = int(sequence, 16) + 5
    store.put(instance.bucket, f"{stem}-{late:012x}", b"what an old writer still sent")
    assert await checked(instance, store, state, deep=True) == []


async def test_a_repair_is_in_the_store_when_it_is_done(instance, store, state, tmp_path):
    await history(instance, store, state)
    key = key_of_unknown(instance)
    store.put(instance.bucket, key, b"unknown")
    found = await checked(instance, store, state, repair=True)
    assert [each["repaired"] for each in found] == [True]
    _, path = await rebuilt(instance, store, tmp_path)
    with contextlib.closing(tree.Index.open(path)) as index:
        assert index.resolve(b"/.cozy_orphans").nlink == 2


async def test_a_repair_waits_for_no_other_writer(instance, store, state, tmp_path):
    await history(instance, store, state)
    other = InstanceState.open(tmp_path / "other", instance.bucket, instance.db_prefix)
    async with writing(instance, store, other):
        assert await checked(instance, store, state) == []
        with pytest.raises(LeaseHeld):
            await checked(instance, store, state, repair=True)


async def test_beside_another_writer_young_objects_are_no_finding(
    instance, store, state, tmp_path
):
    await history(instance, store, state)
    key = key_of_unknown(instance)
    other = InstanceState.open(tmp_path / "other", instance.bucket, instance.db_prefix)
    async with writing(instance, store, other):
        store.put(instance.bucket, key, b"about to be committed there")
        assert await checked(instance, store, state) == []
    assert types(await checked(instance, store, state)) == ["index_missing"]


async def test_content_that_waits_on_this_machine_keeps_what_it_may_go_on_from(
    instance, store, state
):
    async with writing(instance, store, state) as opened:
        opened.index.queue_deletion("d" * 32, "i" * 16, 1)
        opened.index.save_draft(ROOT_INO, b"{}")
    key = key_of_unknown(instance)
    store.put(instance.bucket, key, b"base of a draft, perhaps")
    (found,) = await checked(instance, store, state, repair=True)
    assert (found["type"], found["repaired"]) == ("deletion_leftover", False)
    assert "mount first" in found["problem"]
    assert store.head(instance.bucket, key)
