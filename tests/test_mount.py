"""Parts of a mount that need no kernel: how a refusal leaves it."""

import contextlib
import logging

import pyfuse3
import pytest

from cozyfs.config import parse_fs_url
from cozyfs.errors import CozyError, InstanceError
from cozyfs.instances import create
from cozyfs.mount import MountOptions, run_mount
from cozyfs.state import InstanceState
from cozyfs.store import LocalStore, open_store

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
