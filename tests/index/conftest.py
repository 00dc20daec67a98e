"""An index on disk for each test; at the end it is checked as a whole."""

from __future__ import annotations

import pytest
from index_builders import T0, check

from cozyfs.index import Index


@pytest.fixture
def path(tmp_path):
    return tmp_path / "index.sqlite"


@pytest.fixture(params=[0, 64, 100_000], ids=["uncached", "small-cache", "cached"])
def index(request, path):
    with Index.create(path, uid=1000, gid=100, now_ns=T0, cache_size=request.param) as index:
        yield index
        check(index)
