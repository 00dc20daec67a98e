"""One writer at a time: a second one is refused, the next one sees everything, and a writer that
was overtaken changes nothing any more."""

from __future__ import annotations

import datetime
import json
import re
import shutil
import signal
import socket
import time

import pytest
from mounting import Child, eventually, run, sh
from operator_work import Bucket
from sharing_world import LEASE_S, OVERTAKEN, follow, refused, shows

from cozyfs.journal.lease import GRACE_S

WAITING = "waiting up to"
"""What a mount says that does not get the lease at once: whatever the machine is busy with."""

FILL = 'cd "$1"; mkdir -p d/e; for i in 1 2 3; do echo $i > d/e/f$i; done; mv d/e/f3 d/moved'
LOOK = 'cd "$1"; find . -name .cozy_trash -prune -o -type f -print | sort | xargs grep -H ""'
FILLED = "./d/e/f1:1\n./d/e/f2:2\n./d/moved:3\n"


def lease_of(url):
    with Bucket(url).open() as (store, instance):
        return store.get(instance.bucket, f"{instance.db_prefix}/.cozyfs/lease")


def test_a_second_writer_is_refused_and_told_who_writes_and_what_to_do(machines):
    writer = machines("a").start()
    line = refused(machines("b"))
    assert socket.gethostname() in line
    assert str(writer.path) in line
    assert re.search(r"since \d{4}-\d\d-\d\dT\d\d:\d\d", line)
    assert "--force-lease" in line
    assert "read-only" in line
    sh(FILL, writer.path)  # and the first one is none the worse
    assert writer.status()["lease"] == "held"


def test_after_an_unmount_the_next_machine_mounts_at_once_and_sees_everything(machines):
    with machines("a").mounted() as mount:
        sh(FILL, mount.path)
    with machines("b").mounted(create=False) as mount:
        assert WAITING not in mount.log
        assert sh(LOOK, mount.path) == FILLED
        sh('cd "$1"; echo b > d/b; rm d/e/f1', mount.path)
    with machines("a").mounted(create=False) as mount:
        assert sh(LOOK, mount.path) == "./d/b:b\n./d/e/f2:2\n./d/moved:3\n"


def test_a_machine_that_is_lost_is_taken_over_with_all_that_was_acknowledged(machines):
    first = machines("a")
    # The journal is late: what close() acknowledged has to be found without it.
    mount = first.start("--journal-interval", "60")
    sh('cd "$1"; mkdir d; echo old > d/f; echo kept > d/g; sync d', mount.path)
    sh('cd "$1"; echo new > d/f; echo more > d/h', mount.path)
    mount.kill()
    shutil.rmtree(first.folder / "state")
    with machines("b").mounted("--force-lease", create=False) as mount:
        assert WAITING not in mount.log
        assert sh(LOOK, mount.path) == "./d/f:new\n./d/g:kept\n./d/h:more\n"


def test_without_force_a_lease_that_is_not_renewed_is_waited_for(machines):
    first = machines("a")
    mount = first.start()
    sh(FILL + "; sync .", mount.path)
    mount.kill()
    began = time.monotonic()
    with machines("b").mounted(create=False) as mount:
        assert time.monotonic() - began > GRACE_S
        assert f"{WAITING} {LEASE_S + GRACE_S:.0f} s" in mount.log
        assert sh(LOOK, mount.path) == FILLED


def test_the_same_state_directory_does_not_wait_for_its_own_lease(machines):
    mount = machines("a").start()
    sh(FILL, mount.path)
    mount.kill()
    with machines("a").mounted(create=False) as mount:
        assert WAITING not in mount.log
        assert sh(LOOK, mount.path) == FILLED


CLOCK = """
import time
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + {0}
time.time_ns = lambda: real_ns() + {0} * 10**9
"""


@pytest.mark.parametrize("minutes", [-7, 7])
def test_machines_whose_clocks_differ_by_minutes(machines, tmp_path, minutes):
    other = machines("a")
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(CLOCK.format(minutes * 60))
    other.env["PYTHONPATH"] = f"{tmp_path / 'clock'}:{other.env['PYTHONPATH']}"
    first = other.start("--journal-interval", "60")
    sh(FILL + "; sync .", first.path)
    shift = json.loads(lease_of(machines.fs_url))["renewed_at"]
    ahead = datetime.datetime.fromisoformat(shift) - datetime.datetime.now(datetime.UTC)
    assert abs(ahead.total_seconds() - minutes * 60) < 30
    # Who writes keeps it, whoever's clock is late.
    assert "is mounted for writing" in refused(machines("b"))
    assert first.status()["lease"] == "held"
    sh('cd "$1"; echo new > d/e/f1; echo 4 > d/e/f4', first.path)  # not in the journal
    first.kill()
    shutil.rmtree(other.folder / "state")
    began = time.monotonic()
    with machines("b").mounted(create=False) as second:
        assert time.monotonic() - began > GRACE_S
        assert f"{WAITING} {LEASE_S + GRACE_S:.0f} s" in second.log
        wanted = "./d/e/f1:new\n./d/e/f2:2\n./d/e/f4:4\n./d/moved:3\n"
        assert sh(LOOK, second.path) == wanted
        reader = follow(other)
        sh('cd "$1"; echo 5 > d/e/f5', second.path)
        shows(reader, "cat d/e/f5", "5\n")
        reader.unmount()
    with other.mounted(create=False) as third:
        assert WAITING not in third.log
        assert sh(LOOK, third.path) == wanted.replace("./d/moved", "./d/e/f5:5\n./d/moved")


WRITE_ON = r"""
import errno, os, sys
# Has a file open for writing; when told, says what a write, its close and others come to.
os.chdir(sys.argv[1])
fd = os.open("open", os.O_RDWR | os.O_CREAT)
os.write(fd, b"before")
os.fsync(fd)
print("open", flush=True)
while not os.path.exists(sys.argv[2]):
    __import__("time").sleep(0.05)

def name(call):
    try:
        call()
    except OSError as exc:
        return errno.errorcode[exc.errno]
    return "fine"

# The first may still go into a draft: then it is the fsync that has to say so.
first = name(lambda: os.write(fd, b"after"))
if first == "fine":
    first = name(lambda: os.fsync(fd))
print(first, name(lambda: os.mkdir("late") or os.fsync(os.open(".", 0))))
print(name(lambda: os.write(fd, b"after")))
"""


def test_a_writer_that_was_stopped_past_its_lease_changes_nothing_any_more(machines, tmp_path):
    first = machines("a")
    first.expected = [*OVERTAKEN, "not stored yet"]
    old = first.start()
    sh(FILL, old.path)
    go = tmp_path / "go"
    program = Child("python3", "-c", WRITE_ON, old.path, go)
    eventually(lambda: "open" in program.output())
    reader = follow(machines("c"))

    old.signal(signal.SIGSTOP)
    new = machines("b").start(create=False)  # waits until the lease has expired
    sh('cd "$1"; echo b > d/b; rm d/e/f1; echo other > open; sync d', new.path)
    shows(reader, "cat d/b open; ls d/e", "b\nother\nf2\n")
    before = Bucket(machines.fs_url).everything()

    go.touch()
    old.signal(signal.SIGCONT)
    lines = program.wait().check().out.splitlines()[1:]
    assert lines == ["EROFS EROFS", "EROFS"]
    eventually(lambda: old.status()["lease"] == "lost")
    done = run("touch", old / "d/late")
    assert "Read-only file system" in done.err
    time.sleep(6)  # for a retry
    assert Bucket(machines.fs_url).everything() == before
    wanted = "./d/b:b\n./d/e/f2:2\n./d/moved:3\n./open:other\n"
    assert sh(LOOK, new.path) == wanted

    # Readers follow the new one, whatever the old one does.
    sh('cd "$1"; echo more > d/more', new.path)
    shows(reader, "cat d/more", "more\n")
    assert reader.status()["journal_failing_since"] is None
    # It ends in order, and does not wait for what can never be stored.
    old.signal(signal.SIGTERM)
    assert old.wait(20) == 0
    assert Bucket(machines.fs_url).everything().keys() >= before.keys()
    new.unmount()
    with machines("d").mounted("--read-only", create=False) as mount:
        assert sh(LOOK, mount.path) == wanted.replace("./d/moved", "./d/more:more\n./d/moved")


def test_a_writer_that_was_stopped_and_that_nobody_overtook_goes_on(machines):
    mount = machines("a").start()
    mount.signal(signal.SIGSTOP)
    time.sleep(3)
    mount.signal(signal.SIGCONT)
    sh(FILL + "; sync d", mount.path)
    assert mount.status()["lease"] == "held"
    mount.unmount()


def test_an_operator_who_takes_over_from_a_live_writer_wins(machines):
    first = machines("a")
    first.expected = OVERTAKEN
    old = first.start()
    sh(FILL + "; sync .", old.path)
    new = machines("b").start("--force-lease", create=False)
    assert sh(LOOK, new.path) == FILLED
    eventually(lambda: old.status()["lease"] == "lost")
    done = run("bash", "-c", 'echo late > "$1"', "sh", old / "late")
    assert "Read-only file system" in done.err
    sh('echo b > "$1/b"', new.path)
    old.unmount()
    new.unmount()
    with machines("a").mounted(create=False) as again:
        assert sh(LOOK, again.path) == "./b:b\n" + FILLED


def test_what_an_overtaken_writer_had_not_stored_stays_on_its_machine(machines, tmp_path):
    first = machines("a")
    first.expected = OVERTAKEN
    old = first.start("--journal-interval", "60")
    sh(FILL + "; sync .; mkdir unsent", old.path)
    new = machines("b").start("--force-lease", create=False)
    sh('echo b > "$1/b"; sync "$1"', new.path)
    eventually(lambda: old.status()["lease"] == "lost")
    done = first.cozyfs("umount", old.path).check()
    assert "1 changes of the tree stay in" in done.err
    old.wait()
    new.unmount()
    assert "--state-dir" in refused(first)
    # And that refusal is in nobody's way.
    first.env["COZYFS_STATE_DIR"] = str(tmp_path / "another")
    with first.mounted(create=False) as again:
        assert WAITING not in again.log
        assert sh(LOOK, again.path) == "./b:b\n" + FILLED
