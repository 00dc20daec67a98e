"""``cozyfs mount --at``: the tree as it was, beside the mount that goes on writing."""

from __future__ import annotations

import json
import time

from mounting import DOMAIN, eventually, python, run, sh
from past_work import LOOK, WORK

from cozyfs import moments


def moment_of(mount):
    """Everything until now is in the journal; as an argument of --at."""
    mount.mounts.cozyfs("flush", mount.path).check()
    # The next change is a moment later by any clock.
    return moments.to_iso(time.time_ns() + 10**6)


def past(mount, at, **named):
    return mount.mounts.start("--at", at, create=False, **named)


def look(path):
    return python(LOOK, path)


def refused(machine, *options):
    done = machine.cozyfs("mount", "-f", *options, DOMAIN, machine.new_path())
    return done.code, done.err.strip().splitlines()[-1]


def test_each_moment_of_a_random_workload_equals_the_copy_made_then(machines, tmp_path):
    machine = machines("a")
    writer = machine.start("--journal-interval", "0.2")
    copies = []
    for number in range(4):
        python(WORK, writer.path, 40, f"seed{number}", timeout_s=60)
        at = moment_of(writer)
        sh('cp -a "$1" "$2"', writer.path, tmp_path / f"copy{number}")
        copies.append((at, look(tmp_path / f"copy{number}")))
    python(WORK, writer.path, 40, "after", timeout_s=60)
    sh('cd "$1"; rm -rf n*', writer.path)
    for at, expected in copies:
        then = past(writer, at)
        assert look(then.path) == expected
        then.unmount()
    writer.unmount()
    # Also from a machine that knows only the store.
    assert look(past_on(machines("b"), copies[1][0]).path) == copies[1][1]


def past_on(machine, at):
    return machine.start("--at", at, create=False)


def test_two_moments_and_the_writer_live_beside_each_other(machines):
    machine = machines("a")
    writer = machine.start()
    sh('echo one > "$1/f"; mkdir "$1/gone"', writer.path)
    first = moment_of(writer)
    sh('echo two, longer > "$1/f"; rmdir "$1/gone"', writer.path)
    second = moment_of(writer)
    sh('rm "$1/f"', writer.path)
    one, two = past(writer, first), past(writer, second, background=True)
    assert sh('cat "$1/f"; ls "$1"', one.path) == "one\nf\ngone\n"
    assert sh('cat "$1/f"; ls "$1"', two.path) == "two, longer\nf\n"
    sh('echo three > "$1/g"', writer.path)
    assert run("cat", one / "g").code == 1
    assert "Read-only file system" in run("touch", one / "f").err
    listed = {row["mountpoint"]: row["at"] for row in machine.cozyfs("status", "--json").json()}
    assert listed[str(writer.path)] == ""
    assert listed[str(one.path)] == one.status()["at"] != two.status()["at"]
    assert one.status()["read_only"]
    refusal = machine.cozyfs("instances", "destroy", "--yes", DOMAIN)
    assert "mounted at" in refusal.err
    one.unmount()
    assert sh('cat "$1/g"', writer.path) == "three\n"
    two.unmount()
    writer.unmount()
    assert list((machine.folder / "state").glob("*/*/past/*")) == []


def test_a_moment_outside_the_window_is_refused_with_the_oldest_one(machines):
    machine = machines("a")
    writer = machine.start()
    code, line = refused(machine, "--at", "2020-01-01 10:00")
    oldest = line.rpartition(" can be mounted is ")[2]
    assert code == 1
    assert 0 <= time.time_ns() - moments.parse(oldest) + 10**9 < 60 * 10**9
    eventually(lambda: time.time_ns() > moments.parse(oldest))
    past(writer, oldest).unmount()
    assert refused(machine, "--at", "2999-01-01 10:00")[0] == 2


def test_destroying_is_refused_while_only_the_past_is_mounted(machines):
    machine = machines("a")
    writer = machine.start()
    then = past(writer, moment_of_after(writer))
    writer.unmount()
    done = machine.cozyfs("instances", "destroy", "--yes", DOMAIN)
    assert (done.code, str(then.path) in done.err) == (1, True)


def moment_of_after(mount):
    at = moment_of(mount)
    eventually(lambda: time.time_ns() > moments.parse(at))
    return at


def test_what_a_killed_mount_left_is_cleared_away_by_the_next(machines):
    machine = machines("a")
    writer = machine.start()
    at = moment_of_after(writer)
    past(writer, at).kill()
    past(writer, at).unmount()
    assert list((machine.folder / "state").glob("*/*/past/*")) == []


def test_content_that_goes_while_the_past_is_mounted_gives_eio_and_a_clear_line(machines):
    machine = machines("a")
    writer = machine.start(
        *("--retention", "0s", "--journal-interval", "0.2", "--max-versions", "0")
    )
    sh('echo precious > "$1/f"; echo kept > "$1/k"', writer.path)
    at = moment_of_after(writer)
    then = past(writer, at)
    sh('echo other > "$1/f"', writer.path)
    eventually(lambda: writer.status()["objects_to_delete"] == 0)
    assert "Input/output error" in run("cat", then / "f").err
    assert sh('cat "$1/k"', then.path) == "kept\n"
    assert "/f: the content that it had then is gone from the store" in then.log
    # From now on such a moment is refused.
    writer.mounts.cozyfs("flush", writer.path).check()
    assert "the oldest moment that can be mounted" in refused(machine, "--at", at)[1]


def test_the_log_tells_of_a_file_that_is_there_and_of_one_that_is_gone(machines):
    machine = machines("a")
    writer = machine.start("--journal-interval", "100s")

    def log(name, *options):
        return machine.cozyfs("log", "--json", *options, writer / name).check().out.splitlines()

    def events(name, *options):
        found = [json.loads(line) for line in log(name, *options)]
        return [(event["event"], event["path"]) for event in found]

    for step in (
        "mkdir d; echo one > d/f",
        "echo longer > d/f",
        "mv d/f d/g; chmod 751 d/g",
        "mv d e",
        "cp e/g e/h; rm e/g",
    ):
        sh(f'cd "$1"; {step}', writer.path)
        machine.cozyfs("flush", writer.path).check()
    sh('setfattr -n user.a -v 1 "$1/e/h"', writer.path)  # told although it was not flushed
    assert events("e/h") == [("created", "/e/h"), ("xattr", "/e/h")]
    assert events("e/h", "--limit", "1") == [("xattr", "/e/h")]
    life = [
        *(("created", "/d/f"), ("content", "/d/f"), ("version", "/d/f")),
        *(("renamed", "/d/g"), ("attributes", "/d/g")),
    ]
    assert events("d/f")[:5] == life
    assert events("d/f")[5][0] == "trashed"
    text = machine.cozyfs("log", writer / "d/f").check().out
    assert "4 B -> 7 B" in text
    assert "renamed     /d/g  from /d/f" in text
    done = machine.cozyfs("log", writer / "never").check()
    assert (done.out, "nothing happened" in done.err) == ("", True)
