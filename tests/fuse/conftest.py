"""Fixtures of the tests that mount for real; see mounting.py for the rules they keep."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from mounting import Mounts, require_fuse, run

STORES = ("file", "s3")

_names = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def _fuse():
    require_fuse()


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "fuse":
            item.add_marker("mount")


def _fs_url(store: str, folder, request) -> str:
    if store == "file":
        return f"file://{folder}/store"
    return request.getfixturevalue("s3_server").url()


@pytest.fixture(scope="module", params=STORES)
def store(request):
    return request.param


@pytest.fixture(scope="module")
def shared(store, request, tmp_path_factory):
    """One mount for all tests of a module that only work with files."""
    folder = tmp_path_factory.mktemp("shared")
    mounts = Mounts(folder, _fs_url(store, folder, request))
    with contextlib.closing(mounts):
        yield mounts.start()


@pytest.fixture
def place(shared):
    """A folder of the test's own in the shared mount."""
    path = shared / f"place{next(_names)}"
    run("mkdir", path).check()
    return path


@pytest.fixture
def mounts(store, request, tmp_path):
    """A store and a machine of the test's own."""
    with contextlib.closing(Mounts(tmp_path / "m", _fs_url(store, tmp_path, request))) as mounts:
        yield mounts


@pytest.fixture
def file_mounts(request, tmp_path):
    """The same, where the kind of store makes no difference."""
    with contextlib.closing(Mounts(tmp_path / "m", _fs_url("file", tmp_path, request))) as mounts:
        yield mounts


@pytest.fixture
def outside(tmp_path):
    """A folder that is not on a mount of ours."""
    path = tmp_path / "outside"
    path.mkdir()
    return path
