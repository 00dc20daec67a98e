"""The server fails: nothing is lost, nothing is wrong, what needs no server goes on."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import time

import pytest
from fault_proxy import FINE, Fault, FaultProxy
from mounting import Child, Mounts, eventually, mounted_at, run, sh

TIMEOUT_S = 2
"""What the mounts are given as --timeout."""

# What the log says of uploads that fail while there is no server.
OUTAGE = ["could not be stored", "cannot be stored", "trying again", "not stored yet"]

WRITE = 'head -c "$2" /dev/urandom > "$3"; cp "$3" "$1/f"'


@pytest.fixture
def proxy(s3_server):
    with contextlib.closing(FaultProxy(s3_server.base.host)) as proxy:
        yield proxy


@pytest.fixture
def mounts(tmp_path, s3_server, proxy):
    """Mounts that reach their server through *proxy*."""
    url = s3_server.url().replace(s3_server.base.host, proxy.host)
    mounts = Mounts(tmp_path / "m", url)
    with contextlib.closing(mounts):
        yield mounts
        proxy.play([])  # so that what is still mounted can end


def start(mounts, **named):
    return mounts.start("--timeout", TIMEOUT_S, **named)


def saved(mount, text, path="f"):
    """Write *text* and say how close() ended."""
    code = r"""
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.write(fd, sys.argv[2].encode())
try:
    os.close(fd)
except OSError as exc:
    print(exc.strerror)
else:
    print("saved")
"""
    done = run("python3", "-c", code, mount / path, text).check()
    return done.out.strip()


def content(mount, path="f"):
    return sh('cat "$1"', mount / path)


def with_an_unstored_file(mounts, proxy):
    """A mount whose server is gone: the content of ``f``, new, is on this machine only."""
    mounts.expected = OUTAGE
    mount = start(mounts)
    proxy.refuse()
    assert saved(mount, "new") == "Input/output error"
    return mount


def until_stored(mount):
    eventually(lambda: mount.status()["failed_files"] == 0)


def test_a_file_that_cannot_be_stored_is_kept_and_stored_when_the_server_is_back(mounts, proxy):
    mounts.expected = OUTAGE
    mount = start(mounts)
    assert saved(mount, "old content") == "saved"

    proxy.refuse()
    began = time.monotonic()
    assert saved(mount, "new") == "Input/output error"
    assert time.monotonic() - began < TIMEOUT_S + 5
    assert content(mount) == "new"  # on this mount
    status = mount.status()
    assert (status["failed_files"], status["pending_files"], status["dirty_bytes"]) == (1, 1, 3)
    assert sh('getfattr --only-values -n user.cozy.state "$1/f"', mount.path) == "failed"

    proxy.restore()
    until_stored(mount)
    assert mount.status()["pending_files"] == 0
    mount.kill()
    with mounts.mounted() as again:
        assert content(again) == "new"


def test_the_old_content_stays_in_the_store_until_the_new_one_is_there(mounts, proxy, tmp_path):
    mounts.expected = OUTAGE
    mount = start(mounts)
    assert saved(mount, "old content") == "saved"
    proxy.refuse()
    assert saved(mount, "new") == "Input/output error"
    mount.kill()
    proxy.restore()
    # A read-only mount stores nothing: it shows what is in the store.
    with mounts.mounted("--read-only", create=False) as again:
        assert content(again) == "old content"
    with mounts.mounted() as again:
        until_stored(again)
        assert content(again) == "new"


@pytest.mark.parametrize("size", [1000, 30_000_000])
def test_what_was_kept_survives_kill_9_and_is_stored_by_the_next_mount(mounts, proxy, size):
    mounts.expected = [*OUTAGE, "part of an upload failed"]
    mount = start(mounts)
    local = mounts.folder / "local"
    proxy.refuse()
    done = run("bash", "-c", WRITE, "sh", mount.path, size, local)
    assert "Input/output error" in done.err
    mount.kill()

    proxy.restore()
    again = start(mounts, path=mount.path)
    sh('cmp "$1/f" "$2"', again.path, local)
    until_stored(again)
    again.kill()
    with mounts.mounted(path=mount.path) as third:
        sh('cmp "$1/f" "$2"', third.path, local)


def test_reads_of_what_is_cached_and_the_tree_go_on_without_a_server(mounts, proxy):
    mount = start(mounts)
    sh('mkdir "$1/d"; echo cached > "$1/f"; cat "$1/f"; touch "$1/d/a" "$1/d/b"', mount.path)
    proxy.refuse()
    began = time.monotonic()
    script = 'cd "$1"; cat f; ls d; stat -c %s f; mv f g; mkdir e; rmdir e; chmod 600 g; cat g'
    assert sh(script, mount.path) == "cached\na\nb\n7\ncached\n"
    sh('df "$1"', mount.path)
    assert mount.status()["failed_files"] == 0
    assert time.monotonic() - began < 5
    proxy.restore()


def test_a_read_that_needs_the_server_fails_in_time_and_works_again_later(mounts, proxy):
    with mounts.mounted() as mount:
        saved(mount, "text")
    mount = start(mounts)
    proxy.refuse()
    began = time.monotonic()
    done = run("cat", mount / "f")
    assert "Input/output error" in done.err
    assert time.monotonic() - began < TIMEOUT_S + 5
    proxy.restore()
    assert content(mount) == "text"


def test_a_server_that_is_silent_is_given_up_like_one_that_is_gone(mounts, proxy):
    mounts.expected = OUTAGE
    mount = start(mounts)
    proxy.play(itertools.repeat(Fault(delay_s=60)))
    began = time.monotonic()
    assert saved(mount, "new") == "Input/output error"
    assert time.monotonic() - began < 20  # an answer may take 5 seconds, whatever the timeout
    assert content(mount) == "new"
    proxy.refuse()  # ends what is silent
    proxy.play([])
    proxy.restore()
    until_stored(mount)


def test_an_outage_shorter_than_the_timeout_is_not_noticed(mounts, proxy):
    mount = mounts.start("--timeout", 20)
    proxy.refuse()
    writer = Child("bash", "-c", 'echo text > "$1"', "sh", mount / "f")
    time.sleep(1.5)
    assert writer.running
    proxy.restore()
    writer.wait().check()
    assert mount.status()["errors"] == 0
    mount.unmount()


BURST = {
    "busy": [Fault(status=503)] * 3 + [Fault(status=429)],
    "resets of uploads": [Fault(reset_upload_after=100_000)] * 3,
    "answers that are lost": [Fault(lose_answer=True)] * 2,
    "slow and cut answers": [Fault(cut_answer_after=1000), Fault(delay_s=0.3), FINE] * 2,
}


@pytest.mark.parametrize("kind", BURST)
def test_bursts_of_failures_are_not_noticed(mounts, proxy, kind, outside):
    with mounts.mounted("--timeout", 30) as mount:
        sh('head -c 20000000 /dev/urandom > "$1/big"; seq 20000 > "$1/small"', outside)
        proxy.play(BURST[kind])
        sh('cp "$1/big" "$1/small" "$2"', outside, mount.path)
        assert mount.status()["errors"] == 0
        proxy.play([])
    with mounts.mounted("--timeout", 30) as mount:
        before = proxy.faults
        proxy.play(BURST[kind])
        sh('cmp "$1/big" "$2/big"; cmp "$1/small" "$2/small"', outside, mount.path)
        assert mount.status()["errors"] == 0
        assert proxy.faults > before
        proxy.play([])


def test_with_a_failure_now_and_then_no_byte_is_wrong(mounts, proxy, outside):
    dice = random.Random(7)
    faults = [fault for burst in BURST.values() for fault in burst]
    now_and_then = (
        dice.choice(faults) if dice.random() < 0.15 else FINE for _ in itertools.count()
    )
    script = r"""
    cd "$1"; for i in $(seq 25); do head -c $((i * i * 7000)) /dev/urandom > "f$i"; done
    cp -a "$1/." "$2/"; for i in 3 7 20; do echo more | tee -a "$1/f$i" >> "$2/f$i"; done
    rm "$1/f9" "$2/f9"; mv "$1/f4" "$1/f5"; mv "$2/f4" "$2/f5"
    """
    mount = mounts.start("--timeout", 60)
    proxy.play(now_and_then)
    sh(script, outside, mount.path, timeout_s=60)
    mount.unmount()
    mount = mounts.start("--timeout", 60)
    sh('diff -r "$1" "$2" -x .cozy_trash', outside, mount.path, timeout_s=60)
    assert mount.status()["errors"] == 0
    assert proxy.faults > 5
    proxy.play([])
    mount.unmount()


def test_an_unmount_waits_for_the_server(mounts, proxy):
    mount = with_an_unstored_file(mounts, proxy)
    mount.signal(signal.SIGTERM)
    eventually(lambda: "a signal gives up" in mount.log)
    assert mount.running
    assert content(mount) == "new"  # still answers
    proxy.restore()
    assert mount.wait() == 0
    assert not mounted_at(mount.path)
    with mounts.mounted() as again:
        assert content(again) == "new"


def test_a_second_signal_gives_up_waiting_and_the_next_mount_stores_the_rest(mounts, proxy):
    mount = with_an_unstored_file(mounts, proxy)
    mount.signal(signal.SIGTERM)
    eventually(lambda: "a signal gives up" in mount.log)
    mount.signal(signal.SIGTERM)
    mount.wait(10)
    assert not mounted_at(mount.path)
    assert "next mount stores" in mount.log

    proxy.restore()
    again = start(mounts)
    until_stored(again)
    again.kill()
    with mounts.mounted(path=again.path) as third:
        assert content(third) == "new"


def test_after_fusermount_one_signal_gives_up_waiting(mounts, proxy):
    mount = with_an_unstored_file(mounts, proxy)
    sh('fusermount3 -u "$1"', mount.path)
    eventually(lambda: "a signal gives up" in mount.log)
    assert mount.running
    mount.signal(signal.SIGTERM)
    mount.wait(10)
    proxy.restore()
    again = start(mounts)
    until_stored(again)
    assert content(again) == "new"


def test_umount_says_that_content_is_not_stored_and_stays_mounted(mounts, proxy):
    mount = with_an_unstored_file(mounts, proxy)
    done = mounts.cozyfs("umount", mount.path)
    assert done.code == 1
    assert "could not be stored" in done.err
    assert mounted_at(mount.path)
    proxy.restore()
    mount.unmount()


def test_a_file_whose_upload_failed_is_given_up_when_it_is_removed_from_the_trash(mounts, proxy):
    mount = with_an_unstored_file(mounts, proxy)
    sh('rm "$1/f"', mount.path)
    assert mount.status()["pending_files"] == 1
    sh('rm "$1/.cozy_trash/f"', mount.path)
    eventually(lambda: mount.status()["pending_files"] == 0)
    proxy.restore()
    mount.unmount()
