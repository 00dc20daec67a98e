"""Side storage over both stores."""

from __future__ import annotations

import secrets

import pytest
from app_builders import World

from cozyfs import instances
from cozyfs.threads import Caller


@pytest.fixture(params=["local", "s3"])
def store(request):
    return request.getfixturevalue(f"{request.param}_store")


@pytest.fixture
async def world(store, tmp_path):
    """A store with the instance alice, and with a bucket prefix that no other test uses."""
    prefix = f"t{secrets.token_hex(6)}"
    alice = instances.create(store, prefix, "alice.example.com")
    return World(store, Caller(parallel=8, timeout_s=0.5), prefix, alice, tmp_path)
