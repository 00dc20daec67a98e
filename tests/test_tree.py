"""Where the tree of a mount comes from, and who may change it."""

import contextlib
import re
import stat

import pytest
import trio
from failing_store import FailingStore

from cozyfs import tree
from cozyfs.errors import InstanceError, JournalDamaged, LeaseHeld, LeaseLost
from cozyfs.instances import create
from cozyfs.state import InstanceState
from cozyfs.store import BytesBody, LocalStore, md5_of
from cozyfs.store.keys import new_doc_id, new_internal_id, object_key
from cozyfs.values import ROOT_INO

DOMAIN = "alice.example.com"


@pytest.fixture
def store(tmp_path):
    with contextlib.closing(LocalStore(tmp_path / "store", durable=False)) as store:
        yield store


@pytest.fixture
def instance(store):
    return create(store, "cozy", DOMAIN)


@pytest.fixture
def machine(tmp_path, instance):
    """State directories of machines, by name; each stays locked by the test."""
    states = {}

    def get(name):
        if name not in states:
            folder = tmp_path / name
            states[name] = InstanceState.open(folder, instance.bucket, instance.db_prefix)
            states[name].lock(tmp_path / "mnt", instance=DOMAIN, store="a folder")
        return states[name]

    yield get
    for state in states.values():
        state.unlock()


@contextlib.asynccontextmanager
async def writing(instance, store, state, *, clean=True, **options):
    """A writer with its tasks; *clean* says whether it ends as an unmount or as a crash."""
    async with trio.open_nursery() as nursery:
        opened = await open_writer(instance, store, state, nursery, **options)
        try:
            nursery.start_soon(opened.writer.run)
            yield opened
            if clean:
                await opened.flush(10)
                await opened.close()
            nursery.cancel_scope.cancel()
        finally:
            opened.index.close()


async def open_writer(instance, store, state, nursery, *, force=False, **options):
    return await tree.open_for_writing(
        instance,
        store,
        state,
        state.directory / "mnt",
        nursery,
        journal_interval_s=0.05,
        retention_s=86400.0,
        force_lease=force,
        **options,
    )


def refused(error, match=None):
    """What leaves a nursery is in a group."""
    return pytest.RaisesGroup(pytest.RaisesExc(error, match=match), flatten_subgroups=True)


def mkdir(index, name):
    mode = stat.S_IFDIR | 0o755
    return index.make(ROOT_INO, name, mode, uid=0, gid=0, doc_id=new_doc_id(1), now_ns=1)


def names(index):
    return [name for name, _ in index.children(ROOT_INO, b"", 100) if name != b".cozy_trash"]


def put(store, instance, name):
    key = f"{instance.db_prefix}/{name}"
    store.put(instance.bucket, key, BytesBody(b"content"), md5=md5_of(b"content"))


async def test_a_new_instance_gets_an_empty_tree_and_a_journal(instance, store, machine):
    with trio.fail_after(20):
        async with writing(instance, store, machine("one")) as opened:
            assert names(opened.index) == []
            assert opened.status()["epoch"] == 1
    prefix = f"{instance.db_prefix}/.cozyfs/snapshots/"
    assert len(list(store.list(instance.bucket, prefix))) == 1


async def test_the_tree_of_this_machine_is_opened_again_under_a_new_epoch(
    instance, store, machine
):
    with trio.fail_after(20):
        async with writing(instance, store, machine("one")) as opened:
            mkdir(opened.index, b"a")
        async with writing(instance, store, machine("one")) as opened:
            assert names(opened.index) == [b"a"]
            assert opened.status()["epoch"] == 2


async def test_another_machine_goes_on_where_the_first_ended(instance, store, machine):
    with trio.fail_after(20):
        async with writing(instance, store, machine("one")) as opened:
            mkdir(opened.index, b"a")
        async with writing(instance, store, machine("two")) as opened:
            assert names(opened.index) == [b"a"]
            mkdir(opened.index, b"b")
        async with writing(instance, store, machine("one")) as opened:
            assert names(opened.index) == [b"a", b"b"]


async def test_what_a_lost_machine_had_flushed_is_there_after_a_takeover(instance, store, machine):
    with trio.fail_after(20):
        async with writing(instance, store, machine("one"), clean=False) as opened:
            mkdir(opened.index, b"a")
            await opened.flush(10)
        async with writing(instance, store, machine("two"), force=True) as opened:
            assert names(opened.index) == [b"a"]


async def test_what_a_killed_upload_left_is_attached_by_the_next_mount_of_this_machine(
    instance, store, machine
):
    doc_id, data = new_doc_id(1), b"content"
    described = {"cozyfs-id": doc_id, "cozyfs-name": "f", "cozyfs-mode": "100644"}
    with trio.fail_after(20):
        async with writing(instance, store, machine("one"), clean=False) as opened:
            described["cozyfs-parent"] = opened.index.get(ROOT_INO).doc_id
        key = object_key(instance.db_prefix, doc_id, new_internal_id())
        store.put(
            instance.bucket, key, BytesBody(data), md5=md5_of(BytesBody(data)), metadata=described
        )
        async with writing(instance, store, machine("one")) as opened:
            assert names(opened.index) == [b"f"]


async def test_who_ends_an_instance_is_refused_while_a_writer_renews_unless_it_insists(
    instance, store, machine, monkeypatch
):
    monkeypatch.setattr("cozyfs.journal.lease.GRACE_S", 0.5)
    monkeypatch.setenv("COZYFS_LEASE_SECONDS", "2")
    with trio.fail_after(30):
        async with writing(instance, store, machine("one"), clean=False) as opened:
            with pytest.raises(LeaseHeld):
                await tree.seize(instance, store, machine("two"), force_lease=False)
            opened.lease.check()  # it has it still
            await tree.seize(instance, store, machine("two"), force_lease=True)
            await opened.lease.lost.wait()


async def test_a_second_writer_is_refused_while_the_first_renews(
    instance, store, machine, monkeypatch
):
    monkeypatch.setattr("cozyfs.journal.lease.GRACE_S", 0.5)
    monkeypatch.setenv("COZYFS_LEASE_SECONDS", "2")
    with trio.fail_after(20):
        async with writing(instance, store, machine("one")):
            with refused(LeaseHeld, "--force-lease"):
                async with writing(instance, store, machine("two")):
                    pass


async def test_a_start_that_takes_longer_than_the_lease_keeps_it(
    instance, store, machine, monkeypatch
):
    monkeypatch.setattr("cozyfs.journal.lease.GRACE_S", 0.5)
    monkeypatch.setenv("COZYFS_LEASE_SECONDS", "2")
    async with writing(instance, store, machine("one"), clean=False):
        pass  # so that the next start looks for what it left
    slow = FailingStore(store)
    with trio.fail_after(30):
        gate = slow.gate("list", nth=6)  # the one of the roll-forward
        async with trio.open_nursery() as nursery:
            opened = []

            async def start():
                opened.append(await open_writer(instance, slow, machine("one"), nursery))

            nursery.start_soon(start)
            await trio.to_thread.run_sync(gate.reached.wait, 10)
            assert slow.log[-1][1][1] == f"{instance.db_prefix}/"
            await trio.sleep(3)
            with refused(LeaseHeld):
                async with writing(instance, store, machine("two")):
                    pass
            gate.open()
            while not opened:  # noqa: ASYNC110  nobody tells
                await trio.sleep(0.01)
            assert (opened[0].lease.state, opened[0].lease.epoch) == ("held", 2)
            await opened[0].close()
            opened[0].index.close()
            nursery.cancel_scope.cancel()


async def test_a_writer_whose_lease_was_taken_is_told_so(instance, store, machine):
    with trio.fail_after(20):
        async with (
            writing(instance, store, machine("one"), clean=False) as first,
            writing(instance, store, machine("two"), force=True) as second,
        ):
            mkdir(second.index, b"b")
            await second.flush(10)
            with pytest.raises(LeaseLost):
                await first.lease.renew()
            mkdir(first.index, b"a")
            with pytest.raises(LeaseLost):
                await first.flush(10)


async def test_a_reader_follows(instance, store, machine):
    with trio.fail_after(20):
        async with writing(instance, store, machine("one")) as opened:
            await opened.flush(10)
            reader = await tree.open_for_reading(instance, store, machine("two"))
            made = mkdir(opened.index, b"a")
            await opened.flush(10)
            changes = await reader.refresh()
            assert made.ino in changes.inodes
            assert (ROOT_INO, b"a") in changes.entries
            assert names(reader.index) == [b"a"]
            reader.index.close()


async def test_contents_without_any_tree_are_refused_with_where_it_was_looked_for(
    instance, store, machine
):
    put(store, instance, "1234567890123456789012/12345/12345/1234567890123456")
    state = machine("one")
    with refused(InstanceError, rf"{re.escape(str(state.directory))}.*--state-dir"):
        async with writing(instance, store, state):
            pass
    assert not state.index_path.exists()


async def test_a_read_only_mount_makes_no_tree(instance, store, machine):
    with pytest.raises(InstanceError, match="mount it for writing once"):
        await tree.open_for_reading(instance, store, machine("one"))
    assert not machine("one").index_path.exists()


async def test_a_damaged_journal_is_not_written_over_and_can_be_looked_at(
    instance, store, machine
):
    with trio.fail_after(30):
        async with writing(instance, store, machine("one")) as opened:
            for name in (b"a", b"b", b"c"):
                mkdir(opened.index, name)
                await opened.flush(10)
        prefix = f"{instance.db_prefix}/.cozyfs/journal/"
        objects = [info.key for info in store.list(instance.bucket, prefix)]
        store.delete(instance.bucket, objects[1])
        before = {info.key: info.etag for info in store.list(instance.bucket, "")}
        for _ in range(2):
            with refused(JournalDamaged, "mount it read-only"):
                async with writing(instance, store, machine("two")):
                    pass
        assert {info.key: info.etag for info in store.list(instance.bucket, "")} == before
        reader = await tree.open_for_reading(instance, store, machine("three"))
        assert names(reader.index) == [b"a"]
        reader.index.close()
