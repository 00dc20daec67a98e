"""An index on disk for each test; at the end it is checked as a whole."""

from __future__ import annotations

import shutil

import pytest
from index_builders import T0, check

from cozyfs.index import Index


@pytest.fixture
def path(tmp_path):
    return tmp_path / "index.sqlite"


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """An index as it is made: a copy of the file does not wait for the disk as making one does."""
    path = tmp_path_factory.mktemp("template") / "index.sqlite"
    Index.create(path, uid=1000, gid=100, now_ns=T0).close()
    return path


@pytest.fixture(params=[0, 100_000], ids=["uncached", "cached"])
def index(request, template, path):
    shutil.copyfile(template, path)
    with Index.open(path, cache_size=request.param) as index:
        index.connection.execute("PRAGMA synchronous = OFF")
        yield index
        check(index)
