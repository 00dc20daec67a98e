"""Nothing acknowledged is lost by kill -9, with the state directory or with the bucket alone.

A few rounds of `tests.crash.run`; COZYFS_CRASH_ROUNDS and COZYFS_CRASH_SEED ask for others.
"""

from __future__ import annotations

import os
import secrets

import pytest

from tests.crash.rounds import MODES, Rounds
from tests.fuse.mounting import require_fuse

pytestmark = pytest.mark.mount


@pytest.mark.parametrize("store", ["file", "s3"])
def test_what_was_acknowledged_is_there_after_kill_9(store, request, tmp_path):
    require_fuse()
    if store == "s3":
        url = request.getfixturevalue("s3_server").url()
    else:
        url = f"file://{tmp_path}/store"
    seed = os.environ.get("COZYFS_CRASH_SEED") or secrets.token_hex(4)
    print(f"seed {seed}")  # shown when it fails
    rounds = Rounds(tmp_path, url, seed, work_s=0.6)
    try:
        for number in range(int(os.environ.get("COZYFS_CRASH_ROUNDS", "3"))):
            print(rounds.round(MODES[(number + (store == "file")) % len(MODES)]))
        rounds.check()
    finally:
        rounds.end()
