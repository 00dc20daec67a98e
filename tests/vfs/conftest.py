"""Fixtures of the vfs tests: a world for each, and small sizes where asked."""

from __future__ import annotations

import importlib

import pytest
from vfs_world import KIB, World

from cozyfs.index import Index

T0 = 1_700_000_000_000_000_000


@pytest.fixture(scope="session")
def index_template(tmp_path_factory):
    """An empty index: copying it is quicker than making one for each test."""
    path = tmp_path_factory.mktemp("index") / "index.sqlite"
    Index.create(path, uid=1000, gid=1000, now_ns=T0).close()
    return path


@pytest.fixture
def world(tmp_path, index_template):
    return World(tmp_path, index_template)


SMALL = {
    "cozyfs.vfs.draft": {"STREAM_FROM": 64 * KIB, "part_size_at": lambda offset: 16 * KIB},
    "cozyfs.vfs.upload": {"part_size_at": lambda offset: 16 * KIB},
    "cozyfs.vfs.stream": {"part_size_at": lambda offset: 16 * KIB},
    "cozyfs.vfs.parts": {
        "MIN_PART_SIZE": 8 * KIB,
        "LARGEST_SEND": 32 * KIB,
        "LARGEST_COPY": 64 * KIB,
        "WORTH_COPYING": 32 * KIB,
    },
    "cozyfs.vfs.extents": {"MIN_HOLE": 16 * KIB, "MIN_SAVED": 128 * KIB},
    "cozyfs.vfs.cache": {"BLOCK": 4 * KIB, "WHOLE": 32 * KIB},
    "cozyfs.vfs.contents": {"WHOLE": 32 * KIB, "HASH_BATCH": 32 * KIB},
    "cozyfs.vfs.readahead": {
        "FIRST_WINDOW": 16 * KIB,
        "LARGEST_WINDOW": 128 * KIB,
        "CHUNK": 32 * KIB,
        "EARLY": 32 * KIB,
        "SLACK": 8 * KIB,
    },
    "cozyfs.store.local": {"MIN_PART_SIZE": 8 * KIB},
}
"""A thousandth of the real sizes, so that streaming, copying and holes happen with little data.
The thresholds are constants of their modules, each with its reason beside it; making them
parameters of a mount would only invite wrong values."""


@pytest.fixture
def small(monkeypatch):
    for module, constants in SMALL.items():
        for name, value in constants.items():
            monkeypatch.setattr(importlib.import_module(module), name, value)
