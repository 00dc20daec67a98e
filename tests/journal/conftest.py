"""A bucket, and machines that share it: each has an index, a lease and a journal writer."""

from __future__ import annotations

import pytest
from journal_world import T0, Site

from cozyfs.index import Index


@pytest.fixture(scope="session")
def index_template(tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "index.sqlite"
    with Index.create(path, uid=1000, gid=1000, now_ns=T0) as index:
        index.start_recording()
    path.rename(path.with_suffix(".template"))
    return path.with_suffix(".template")


@pytest.fixture(params=["local", "s3"])
def any_store(request):
    return request.getfixturevalue(f"{request.param}_store")


@pytest.fixture
def site(tmp_path, local_store, index_template):
    with Site(tmp_path, local_store, index_template) as site:
        yield site


@pytest.fixture
def any_site(tmp_path, any_store, index_template):
    with Site(tmp_path, any_store, index_template) as site:
        yield site
