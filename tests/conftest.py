"""Fixtures for all tests: the S3 server of the session, and stores on it or in a folder."""

from __future__ import annotations

import contextlib
import os

import pytest
import servers

from cozyfs.config import parse_fs_url
from cozyfs.store import LocalStore, open_store

# Without kept bytecode each of the hundreds of mounts would compile all of cozyfs once more:
# twice the work of a start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """The running S3 server that most tests use (tests/servers.py says which)."""
    with servers.main_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_url(s3_server):
    """An fs URL with a bucket prefix that no other test uses."""
    return s3_server.url()


@pytest.fixture
def s3_store(s3_url):
    with contextlib.closing(open_store(parse_fs_url(s3_url))) as store:
        yield store


@pytest.fixture
def local_store(tmp_path):
    """Not durable: tests outlive no crash of the machine, and syncing takes most of the time."""
    return LocalStore(tmp_path / "store", durable=False)


@pytest.fixture(scope="session")
def compat_servers(tmp_path_factory):
    """A function from a name in servers.COMPATIBLE to that server, started when first asked."""
    with contextlib.ExitStack() as stack:
        started = {}

        def get(name):
            if name not in started:
                folder = tmp_path_factory.mktemp(name)
                started[name] = stack.enter_context(servers.COMPATIBLE[name](folder))
            return started[name]

        yield get
