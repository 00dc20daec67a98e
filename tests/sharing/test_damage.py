"""A damaged bucket: writing is refused with what is wrong, and goes on where an operator accepts
the loss, with all contents, under a new epoch, and with nothing overwritten or deleted."""

from __future__ import annotations

import re

import pytest
from mounting import DOMAIN, run, sh
from operator_work import Bucket
from sharing_world import follow, refused, shows

CAUSED = ["snapshot", "journal object", "cannot be followed", "lost: ", "restoring"]

TREE = 'cd "$1"; find . -not -name .cozy_trash -printf "%p %i %y\\n" | sort'
LOOK = 'cd "$1"; find . -type f -print0 | sort -z | xargs -0 grep -H ""'


@pytest.fixture
def bucket(machines):
    return Bucket(machines.fs_url)


@pytest.fixture
def written(machines, bucket):
    """Snapshots at 0 and 2, journal objects 1 to 5, each with a folder and a file."""
    for name in "abcd":
        machines(name).expected = CAUSED
    with machines("a").mounted() as mount:
        for number in (1, 2):
            sh(WRITE, mount.path, number)
    bucket.snapshot(machines("a"))
    with machines("a").mounted(create=False) as mount:
        for number in (3, 4, 5):
            sh(WRITE, mount.path, number)
        whole = sh(TREE, mount.path)
    journal = bucket.keys("journal")
    assert (len(journal), len(bucket.keys("snapshots"))) == (5, 2)
    return journal, whole


# One journal object: the sync is what stores it, and the interval is long.
WRITE = 'cd "$1"; mkdir d$2; echo $2 > d$2/f; sync d$2'


def accepted(machines, name):
    """A mount that accepts, and the line that says what is lost."""
    mount = machines(name).start("--accept-loss", create=False)
    (line,) = (line for line in mount.log.splitlines() if line.startswith("cozyfs: lost: "))
    return mount, line


def check_epoch_and_others(machines, bucket, mount, before):
    """What must hold after any acceptance."""
    after = bucket.everything()
    assert before.items() <= after.items()
    added = {key.rsplit("/.cozyfs/")[-1].split("/")[0] for key in after.keys() - before.keys()}
    assert added == {"journal", "snapshots"}
    assert (
        bucket.keys("snapshots")[-1].rsplit("/")[-1].startswith(f"{mount.status()['epoch']:08x}")
    )
    sh('echo after > "$1/after"; sync "$1"', mount.path)
    shown = sh(TREE, mount.path), sh(LOOK, mount.path)
    mount.unmount()
    for options in (["--read-only"], []):
        with machines("d").mounted(*options, create=False) as other:
            assert (sh(TREE, other.path), sh(LOOK, other.path)) == shown
    return shown[1]


@pytest.mark.parametrize("harm", ["flip_byte", "truncate", "delete"])
def test_a_journal_object_in_the_middle(machines, bucket, written, harm):
    journal, _ = written
    getattr(bucket, harm)(journal[3])
    before = bucket.everything()
    line = refused(machines("b"))
    lost = r"2 journal objects, the changes from \d{4}-\d\d-\d\dT[\d:]{8}Z to \d{4}-\d\d-\d\dT"
    assert re.search(lost, line)
    assert "--accept-loss" in line
    assert "read-only" in line
    assert bucket.everything() == before
    with machines("c").mounted("--read-only", create=False) as mount:
        assert sh(LOOK, mount.path) == "./d1/f:1\n./d2/f:2\n./d3/f:3\n"
    mount, line = accepted(machines, "b")
    assert re.search(lost, line)
    assert "2 files that were stored then were put back" in line
    shown = check_epoch_and_others(machines, bucket, mount, before)
    orphans = "./.cozy_orphans/f:4\n./.cozy_orphans/f"
    assert shown.startswith(orphans)
    assert sorted(re.findall(r":(\w+)", shown)) == ["1", "2", "3", "4", "5", "after"]


def test_the_newest_snapshot_is_gone(machines, bucket, written):
    _, whole = written
    bucket.delete(bucket.keys("snapshots")[1])
    with machines("b").mounted("--accept-loss", create=False) as mount:
        assert sh(TREE, mount.path) == whole
        assert "lost" not in mount.log


def test_all_snapshots_are_damaged(machines, bucket, written):
    for key in bucket.keys("snapshots"):
        bucket.flip_byte(key)
    before = bucket.everything()
    line = refused(machines("b"))
    assert "the whole tree and 5 journal objects" in line
    assert "--accept-loss" in line
    done = machines("c").cozyfs("mount", "-f", "--read-only", DOMAIN, machines("c").new_path())
    assert done.code == 1
    assert "cannot be restored" in done.err
    assert bucket.everything() == before
    mount, line = accepted(machines, "b")
    assert "5 files that were stored then were put back" in line
    shown = check_epoch_and_others(machines, bucket, mount, before)
    assert sorted(re.findall(r":(\w+)", shown)) == ["1", "2", "3", "4", "5", "after"]
    assert shown.count("/.cozy_orphans/") == 5


def test_a_follower_goes_on_from_before_and_from_after_the_damage(machines, bucket, written):
    journal, whole = written
    reader = follow(machines("c"))
    assert sh(TREE, reader.path) == whole
    bucket.flip_byte(journal[3])
    mount, _ = accepted(machines, "b")
    shows(reader, "ls -d d*; cat .cozy_orphans/f", "d1\nd2\nd3\n4\n")
    mount.unmount()


def test_the_machine_that_wrote_it_loses_nothing(machines, bucket, written):
    journal, whole = written
    bucket.flip_byte(journal[3])
    with machines("a").mounted("--accept-loss", create=False) as mount:
        assert sh(TREE, mount.path) == whole
        assert "lost" not in mount.log


def test_changes_that_were_never_stored_are_kept_where_the_store_leads_no_further(
    machines, bucket, written
):
    mount = machines("a").start("--journal-interval", "60", create=False)
    sh('cd "$1"; mkdir unsent', mount.path)
    mount.kill()
    with machines("b").mounted("--force-lease", create=False) as mount:
        sh('cd "$1"; echo other > other; sync .', mount.path)
    assert "never stored" in refused(machines("a"))
    bucket.flip_byte(bucket.keys("journal")[-1])
    assert "--accept-loss" in refused(machines("a"))
    mount, line = accepted(machines, "a")
    assert "1 journal object," in line
    assert run("test", "-d", mount / "unsent").code == 0
    assert sh('cat "$1"', mount / "other") == "other\n"
    mount.unmount()


def test_it_is_for_writing(machines):
    done = machines("a").cozyfs(
        "mount", "--accept-loss", "--read-only", DOMAIN, machines("a").new_path()
    )
    assert done.code == 2
    assert "--accept-loss" in done.err
