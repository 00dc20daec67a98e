"""Fixtures of the side storages: both stores, and an instance in them."""

from __future__ import annotations

import secrets

import pytest
from app_builders import World

from cozyfs import instances
from cozyfs.store.buckets import org_bucket
from cozyfs.store.keys import default_db_prefix
from cozyfs.threads import Caller
from cozyfs.values import Instance


@pytest.fixture(params=["local", "s3"])
def store(request):
    return request.getfixturevalue(f"{request.param}_store")


@pytest.fixture
async def world(store, tmp_path):
    """A store with the instance alice, and with a bucket prefix that no other test uses."""
    prefix = f"t{secrets.token_hex(6)}"
    alice = instances.create(store, prefix, "alice.example.com")
    return World(store, Caller(parallel=8, timeout_s=0.5), prefix, alice, tmp_path)


@pytest.fixture
def prefix():
    """A bucket prefix that no other test uses."""
    return f"t{secrets.token_hex(5)}"


def alice_in(store, prefix):
    """An instance without its record, which nothing here reads: a bucket and a prefix."""
    domain = "alice.example.com"
    alice = Instance(domain, "", default_db_prefix(domain), org_bucket(prefix, ""))
    store.ensure_bucket(alice.bucket)
    return alice


@pytest.fixture
def instance(store, prefix):
    return alice_in(store, prefix)


@pytest.fixture
def instance_on_local(local_store, prefix):
    """For tests that need one store alone."""
    return alice_in(local_store, prefix)
