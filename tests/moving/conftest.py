"""Instances over both stores."""

from __future__ import annotations

import pytest

from cozyfs import instances
from cozyfs.store import LocalStore

PREFIX = "test"


@pytest.fixture(params=["local", "s3"])
def store(request):
    return request.getfixturevalue(f"{request.param}_store")


@pytest.fixture
def other_store(tmp_path):
    return LocalStore(tmp_path / "other-store", durable=False)


@pytest.fixture
def prefix(request):
    """A bucket prefix that no other test uses."""
    import secrets

    return f"t{secrets.token_hex(6)}"


@pytest.fixture
def alice(store, prefix):
    return instances.create(store, prefix, "alice.example.com")


@pytest.fixture
def bob(store, prefix):
    return instances.create(store, prefix, "bob.example.com", org="acme")


@pytest.fixture
def carol(other_store, prefix):
    return instances.create(other_store, prefix, "carol.example.com")
