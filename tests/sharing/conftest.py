"""Fixtures of the tests of several machines; see sharing_world.py."""

from __future__ import annotations

import contextlib

import pytest
from mounting import require_fuse
from sharing_world import Machines, fs_url_of

STORES = ("file", "s3")


@pytest.fixture(scope="session", autouse=True)
def _fuse():
    require_fuse()


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "sharing":
            item.add_marker("mount")


@pytest.fixture(scope="module", params=STORES)
def store(request):
    return request.param


@pytest.fixture
def machines(store, request, tmp_path):
    with contextlib.ExitStack() as stack:
        yield Machines(tmp_path, fs_url_of(store, tmp_path, request), stack)


@pytest.fixture
def s3_machines(s3_server, tmp_path):
    """Where only the S3 server matters."""
    with contextlib.ExitStack() as stack:
        yield Machines(tmp_path, s3_server.url(), stack)
