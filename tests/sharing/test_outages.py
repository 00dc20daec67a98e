"""The server goes away under a writer: what was acknowledged is in the bucket all the same."""

from __future__ import annotations

import contextlib
import shutil
import time

import pytest
from fault_proxy import FaultProxy
from mounting import Child, eventually, sh
from sharing_world import follow, shows

OUTAGE_S = 30.0
"""Within --timeout, as long as the lease and longer than any pause between attempts."""

QUIET = ["cannot be stored", "cannot be renewed"]

WORK = r"""
import hashlib, os, random, sys, time
# Works for so many seconds on files of its own; says what was acknowledged, and any error.
os.chdir(sys.argv[1])
dice = random.Random(sys.argv[3])
until = time.monotonic() + float(sys.argv[2])
known = {}
while time.monotonic() < until:
    name = f"f{sys.argv[3]}-{dice.randrange(6)}"
    data = dice.randbytes(dice.choice((10, 3000, 400_000)))
    md5 = hashlib.md5(data).hexdigest()
    print("begun", name, md5, flush=True)
    temporary = name + ".new"
    with open(temporary, "wb") as file:
        file.write(data)
    if dice.random() < 0.7:
        os.rename(temporary, name)
    else:
        with open(name, "wb") as file:
            file.write(data)
        os.unlink(temporary)
    print("stored", name, md5, flush=True)
    time.sleep(0.01)
"""

SYNC = """
import os, sys
os.mkdir(sys.argv[1])
print("made", flush=True)
os.fsync(os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY))
print("synced", flush=True)
"""


@pytest.fixture
def proxy(s3_server):
    with contextlib.closing(FaultProxy(s3_server.base.host)) as proxy:
        yield proxy


@pytest.fixture
def through_proxy(s3_machines, s3_server, proxy):
    """A machine that reaches the server through *proxy*, with a lease as in real life."""
    machine = s3_machines("a", s3_machines.fs_url.replace(s3_server.base.host, proxy.host))
    del machine.env["COZYFS_LEASE_SECONDS"]
    machine.expected = QUIET
    yield machine
    proxy.play([])


def sums(path):
    """Name and MD5 of the files of WORK."""
    find = 'find . -path ./.cozy_trash -prune -o -name "f*-*" -not -name "*.new"'
    text = sh(f'cd "$1"; {find} -exec md5sum {{}} +', path)
    return {line.split()[1][2:]: line.split()[0] for line in text.splitlines()}


def acknowledged(children):
    """Name -> the MD5 that was said last."""
    lines = [line.split() for child in children for line in child.output().splitlines()]
    return {name: md5 for kind, name, md5 in lines if kind == "stored"}


# Asks the mount itself, not the kernel's pages.
READ = 'cd "$1"; dd if=cached iflag=direct bs=64k status=none | md5sum; ls here; stat -c %s cached'


def test_an_outage_within_the_timeout_makes_no_error_and_no_damage(through_proxy, proxy):
    mount = through_proxy.start()
    sh('cd "$1"; head -c 500000 /dev/urandom > cached; mkdir -p here/is', mount.path)
    seen = sh(READ, mount.path)
    workers = [Child("python3", "-c", WORK, mount.path, OUTAGE_S + 6, n) for n in range(4)]
    eventually(lambda: all("stored" in worker.output() for worker in workers))
    proxy.refuse()
    refused_at = time.time()
    sync = Child("python3", "-c", SYNC, mount / "d")
    eventually(lambda: mount.status()["journal_failing_since"] is not None)
    since = mount.status()["journal_failing_since"]
    assert refused_at - 1 <= since <= time.time()
    assert mount.status()["journal_pending"] > 0
    while time.time() < refused_at + OUTAGE_S:
        assert sh(READ, mount.path) == seen  # none of it waits for the store, which is not there
        time.sleep(1)
    assert sync.output() == "made\n"
    assert all(worker.running for worker in workers)
    proxy.restore()
    assert sync.wait().check().out == "made\nsynced\n"
    for worker in workers:
        worker.wait(60).check()
    wanted = acknowledged(workers)
    assert sums(mount.path) == wanted
    through_proxy.cozyfs("flush", mount.path).check()
    status = mount.status()
    assert (status["errors"], status["journal_failing_since"]) == (0, None)
    assert (status["journal_pending"], status["lease"]) == (0, "held")
    mount.unmount()
    with through_proxy.mounted(create=False) as mount:
        assert sums(mount.path) == wanted


@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_what_close_acknowledged_is_in_the_bucket_whenever_the_machine_is_lost(
    through_proxy, proxy, s3_machines, seconds
):
    mount = through_proxy.start("--journal-interval", "5")
    workers = [Child("python3", "-c", WORK, mount.path, 60, n) for n in range(3)]
    eventually(lambda: all("stored" in worker.output() for worker in workers))
    time.sleep(seconds)
    proxy.refuse()
    time.sleep(1)  # nothing is acknowledged in an outage
    mount.kill()
    for worker in workers:
        worker.process.wait(10)
    shutil.rmtree(through_proxy.folder / "state")
    with s3_machines("b").mounted("--force-lease", create=False) as again:
        # Under whatever name: the last renames need not be in the journal.
        text = sh('cd "$1"; find . -type f -exec md5sum {} +', again.path)
        there = {line.split()[0] for line in text.splitlines()}
        for worker in workers:
            lines = [line.split() for line in worker.output().splitlines()]
            last = max(n for n, line in enumerate(lines) if line[0] == "stored")
            # What was under way may have replaced it already.
            assert {md5 for _, _, md5 in lines[last:]} & there, lines[-3:]


def test_a_follower_goes_on_through_an_outage_of_its_own(s3_machines, proxy, s3_server):
    writer = s3_machines("w").start()
    away = s3_machines("r", s3_machines.fs_url.replace(s3_server.base.host, proxy.host))
    away.expected = ["cannot be followed"]
    reader = follow(away)
    sh('echo one > "$1/f"', writer.path)
    shows(reader, "cat f", "one\n")
    proxy.refuse()
    sh('echo two > "$1/f"; mkdir "$1/d"', writer.path)
    time.sleep(1.5)
    assert sh('cat "$1/f"; ls "$1"', reader.path) == "one\nf\n"
    proxy.restore()
    eventually(lambda: sh('ls "$1"', reader.path) == "d\nf\n", timeout_s=30)
    shows(reader, "cat f", "two\n")
    assert reader.status()["journal_failing_since"] is None
