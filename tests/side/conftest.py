"""Fixtures of the side storages: both stores, and an instance in them."""

from __future__ import annotations

import secrets

import pytest

from cozyfs import instances


@pytest.fixture(params=["local", "s3"])
def store(request):
    return request.getfixturevalue(f"{request.param}_store")


@pytest.fixture
def prefix():
    """A bucket prefix that no other test uses."""
    return f"t{secrets.token_hex(5)}"


@pytest.fixture
def instance(store, prefix):
    return instances.create(store, prefix, "alice.example.com")


@pytest.fixture
def instance_on_local(local_store, prefix):
    """For tests that need one store alone."""
    return instances.create(local_store, prefix, "alice.example.com")
