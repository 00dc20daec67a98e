"""A read-only mount that slept until the journal was pruned under it shows everything again by
itself; where it cannot, it says why."""

from __future__ import annotations

import signal

import pytest
from mounting import Child, eventually, run, sh
from operator_work import Bucket
from sharing_world import follow, shows
from test_following import READ_OPEN_FILES

GONE = ["cannot be followed", "journal object", "snapshot"]


@pytest.fixture
def bucket(machines):
    return Bucket(machines.fs_url)


def fill(writer):
    sh('cd "$1"; mkdir d; echo one > d/a; echo two > d/b; echo gone > c; sync .', writer.path)


def change(writer):
    script = 'cd "$1"; echo longer > d/a; mv d/b d/e; rm c; mkdir n; echo new > n/f; sync .'
    sh(script, writer.path)


SHOWN = "cat d/a d/e n/f; ls . d; cat c 2> /dev/null || echo none; stat -c %s d/a"
WANTED = "longer\ntwo\nnew\n.:\nd\nn\n\nd:\na\ne\nnone\n7\n"


def test_a_mount_that_slept_past_the_retention_shows_everything_again(machines, bucket, tmp_path):
    with machines("a").mounted() as writer:
        fill(writer)
        reader = follow(machines("b"))
        look = "cat d/a d/b c; ls n 2> /dev/null || echo none"  # the kernel remembers it all
        shows(reader, look, "one\ntwo\ngone\nnone\n")
        go = tmp_path / "go"
        old = Child("python3", "-c", READ_OPEN_FILES, go, reader / "d/a", reader / "c")
        eventually(lambda: "open" in old.output())
        reader.signal(signal.SIGSTOP)
        change(writer)
    bucket.snapshot(machines("a"), prune=True)
    reader.signal(signal.SIGCONT)
    shows(reader, SHOWN, WANTED)
    assert reader.status()["journal_failing_since"] is None
    go.touch()  # who has a file open reads what was opened
    lines = old.wait().check().out.splitlines()[1:]
    assert [line.split()[:2] for line in lines] == [["4", "o"], ["5", "g"]]
    with machines("a").mounted(create=False) as writer:
        sh('cd "$1"; echo more > m; sync .', writer.path)
        shows(reader, "cat m", "more\n")


def test_an_old_state_directory_is_brought_up_to_date_by_a_mount(machines, bucket):
    with machines("a").mounted() as writer:
        fill(writer)
        follow(machines("b")).unmount()
        with machines("c").mounted("--force-lease", create=False):
            pass
    machines("a").expected = ["the lease was taken"]
    with machines("a").mounted(create=False) as writer:
        change(writer)
    bucket.snapshot(machines("a"), prune=True)
    reader = follow(machines("b"))
    shows(reader, SHOWN, WANTED)
    reader.unmount()
    with machines("c").mounted(create=False) as writer:  # one that writes, too
        shows(writer, SHOWN, WANTED)


def test_damage_that_a_later_snapshot_makes_unnecessary_is_gone_around(machines, bucket):
    machines("b").expected = GONE
    with machines("a").mounted() as writer:
        fill(writer)
        reader = follow(machines("b"))
        shows(reader, "cat c", "gone\n")
        reader.signal(signal.SIGSTOP)
        change(writer)
    bucket.flip_byte(bucket.keys("journal")[-1])
    reader.signal(signal.SIGCONT)
    eventually(lambda: reader.status()["journal_failing_since"] is not None)
    assert "damaged" in reader.status()["journal_failure"]
    assert "no snapshot after" in reader.status()["journal_failure"]
    assert run("cat", reader / "d/a").out  # what is there is shown
    bucket.snapshot(machines("a"))
    shows(reader, SHOWN, WANTED)
    assert reader.status()["journal_failure"] is None
