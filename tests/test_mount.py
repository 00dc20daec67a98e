"""Parts of a mount that need no kernel: which index it takes, and how a refusal leaves it."""

import contextlib
import logging

import pyfuse3
import pytest

from cozyfs.config import parse_fs_url
from cozyfs.errors import CozyError, InstanceError
from cozyfs.instances import create
from cozyfs.mount import MountOptions, open_index, run_mount
from cozyfs.state import InstanceState
from cozyfs.store import BytesBody, LocalStore, md5_of, open_store
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
def state(tmp_path, instance):
    state = InstanceState.open(tmp_path / "state", instance.bucket, instance.db_prefix)
    state.lock(tmp_path / "mnt", instance=DOMAIN, store="a folder")
    yield state
    state.unlock()


@pytest.fixture
def options(tmp_path, instance, state):
    def make(**changes):
        settings = parse_fs_url(f"file://{tmp_path}/store")
        return MountOptions(
            mountpoint=tmp_path / "mnt",
            instance=instance,
            store=lambda: open_store(settings),
            store_description="a folder",
            state=state,
            **changes,
        )

    return make


def put(store, instance, name):
    key = f"{instance.db_prefix}/{name}"
    store.put(instance.bucket, key, BytesBody(b"content"), md5=md5_of(b"content"))


def test_a_new_instance_gets_an_empty_tree(options, store):
    with contextlib.closing(open_index(options(), store)) as index:
        assert index.get(ROOT_INO).nlink >= 2


def test_the_index_of_this_machine_is_opened_again(options, store):
    open_index(options(), store).close()
    with contextlib.closing(open_index(options(), store)) as index:
        assert index.get(ROOT_INO)


def test_contents_without_their_tree_are_refused_with_where_it_was_looked_for(
    options, store, instance, state
):
    put(store, instance, "1234567890123456789012/12345/12345/1234567890123456")
    with pytest.raises(InstanceError) as refused:
        open_index(options(), store)
    assert str(state.directory) in str(refused.value)
    assert "--state-dir" in str(refused.value)
    assert not state.index_path.exists()


def test_our_own_records_are_no_contents(options, store, instance):
    put(store, instance, ".cozyfs/anything")
    open_index(options(), store).close()


def test_a_read_only_mount_makes_no_tree(options, store, state):
    with pytest.raises(InstanceError, match="never mounted for writing on this machine"):
        open_index(options(read_only=True), store)
    assert not state.index_path.exists()


def test_a_refusal_of_fuse_is_one_error_and_frees_the_index(options, monkeypatch, state):
    def refuse(*_):
        raise RuntimeError("fuse_session_mount failed")

    monkeypatch.setattr(pyfuse3, "init", refuse)
    ready = []
    for _ in range(2):
        with pytest.raises(CozyError, match="FUSE refused") as refused:
            run_mount(options(), lambda: ready.append(True))
        assert not isinstance(refused.value, BaseExceptionGroup)
    assert ready == []
    assert not state.control_path.exists()


def test_an_error_that_is_no_refusal_is_not_taken_for_one(options, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(pyfuse3, "init", fail)
    with pytest.raises(BaseExceptionGroup) as raised:
        run_mount(options(), lambda: None)
    assert raised.group_contains(ZeroDivisionError)


def test_the_first_refusal_of_several_is_told(options, monkeypatch, caplog):
    def fail(*_):
        raise ExceptionGroup("several", [InstanceError("the first"), CozyError("the second")])

    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(pyfuse3, "init", fail)
    with pytest.raises(InstanceError, match="the first"):
        run_mount(options(), lambda: None)
