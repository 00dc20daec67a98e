"""A full instance, as programs see it."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from mounting import DOMAIN, Child, Mounts, eventually, run, sh

MB = 1_000_000
FULL = "Disk quota exceeded"


def full_at_5_mb(mounts, *options):
    mounts.cozyfs("instances", "add", DOMAIN, "--disk-quota", "5MB").check()
    return mounts.start(*options, create=False)


@pytest.fixture
def any_mount(mounts):
    return full_at_5_mb(mounts)


@pytest.fixture
def mount(file_mounts):
    """Where the kind of store makes no difference."""
    return full_at_5_mb(file_mounts)


def make(path, size):
    sh('head -c "$2" /dev/urandom > "$1"', path, size)
    return path


def names(mount):
    return sh('ls "$1"', mount.path).split()


def df(mount):
    """(total, used, free), bytes."""
    out = sh('df -B1 --output=size,used,avail "$1" | tail -1', mount.path)
    return tuple(map(int, out.split()))


def usage(mount):
    return mount.mounts.cozyfs("usage", "--json", mount.path).check().json()


def set_quota(mount, size):
    done = mount.mounts.cozyfs("instances", "set-disk-quota", DOMAIN, size).check()
    assert (done.out, done.err) == ("", "")


def test_cp_into_a_full_instance_says_so_and_leaves_nothing(any_mount, outside):
    mount = any_mount
    fits, too_big = make(outside / "fits", 3 * MB), make(outside / "too_big", 3 * MB)
    sh('cp "$1" "$2"', fits, mount.path)

    done = run("cp", too_big, mount.path)

    assert done.code == 1
    assert FULL in done.err
    eventually(lambda: names(mount) == ["fits"])
    assert run("stat", mount / "too_big").code == 1
    sh('cmp "$1" "$2/fits"', fits, mount.path)
    assert usage(mount)["used_bytes"] == 3 * MB


def test_dd_over_an_older_file_leaves_the_older_content(any_mount, outside):
    mount = any_mount
    old = make(outside / "old", 1 * MB)
    sh('cp "$1" "$2/f"', old, mount.path)

    done = run("dd", "if=/dev/zero", f"of={mount / 'f'}", "bs=1M", "count=10")

    assert done.code == 1
    assert FULL in done.err
    eventually(lambda: run("cmp", old, mount / "f").code == 0)
    assert sh('stat -c %s "$1/f"', mount.path).strip() == str(MB)


def test_close_fails_too_where_a_program_ignored_the_write(mount):
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
for call in (lambda: os.pwrite(fd, bytes(100), 6_000_000), lambda: os.fsync(fd),
             lambda: os.close(fd)):
    try:
        call()
        print("ok")
    except OSError as exc:
        print(exc.strerror)
"""
    done = run("python3", "-c", script, mount / "f").check()
    assert done.out.splitlines() == [FULL] * 3
    eventually(lambda: names(mount) == [])


def test_a_program_that_makes_room_and_tries_again_loses_nothing(file_mounts, outside):
    mount = full_at_5_mb(file_mounts, "--max-versions", "0")  # a version would keep its room
    make(mount / "old", 4 * MB)
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
data, at = open(sys.argv[2], "rb").read(), 0
while at < len(data):
    try:
        at += os.pwrite(fd, data[at:at + 300_000], at)
    except OSError as exc:
        print(exc.strerror)
        os.truncate(sys.argv[3], 0)
os.close(fd)
"""
    new = make(outside / "new", 2 * MB)
    done = run("python3", "-c", script, mount / "new", new, mount / "old").check()
    assert done.out.splitlines() == [FULL]
    sh('cmp "$1" "$2/new"', new, mount.path)


def test_df_shows_quota_and_use(mount):
    total, used, free = df(mount)
    assert abs(total - 5 * MB) < 4096
    assert used < 8192
    assert abs(free - 5 * MB) < 8192
    make(mount / "f", 2 * MB)
    total, used, free = df(mount)
    assert abs(used - 2 * MB) < 8192
    assert abs(free - 3 * MB) < 8192


def test_raising_the_quota_helps_at_once(mount, outside):
    big = make(outside / "big", 6 * MB)
    assert FULL in run("cp", big, mount.path).err
    set_quota(mount, "10MB")
    sh('cp "$1" "$2"', big, mount.path)
    sh('cmp "$1" "$2/big"', big, mount.path)
    assert usage(mount)["quota_bytes"] == 10 * MB
    assert mount.status()["quota_bytes"] == 10 * MB


def test_under_a_lowered_quota_there_is_no_room_and_nothing_negative(mount):
    make(mount / "f", 4 * MB)
    set_quota(mount, "3MB")
    assert df(mount)[2] == 0
    assert usage(mount)["free_bytes"] == 0
    assert usage(mount)["quota_alert"] is True
    assert mount.status()["quota_alert"] is True
    assert FULL in run("cp", mount / "f", mount / "g").err
    sh('touch "$1/empty"; mkdir "$1/d"; ln -s f "$1/s"; truncate -s 0 "$1/f"', mount.path)
    set_quota(mount, 0)
    assert usage(mount)["quota_bytes"] is None
    make(mount / "f", 6 * MB)


def test_a_server_side_copy_that_does_not_fit_is_refused(mount):
    make(mount / "f", 3 * MB)
    done = mount.mounts.cozyfs("cp", mount / "f", mount / "g")
    assert done.code == 1
    assert "do not fit" in done.err
    assert names(mount) == ["f"]


def test_usage_of_an_instance_is_the_same_mounted_or_not_and_elsewhere(mount, file_mounts):
    make(mount / "f", 2 * MB)
    mounted = usage(mount)
    by_name = file_mounts.cozyfs("usage", "--json", DOMAIN)
    assert by_name.check().json() == mounted
    mount.unmount()
    assert file_mounts.cozyfs("usage", "--json", DOMAIN).check().json() == mounted
    elsewhere = file_mounts.folder / "elsewhere"
    done = file_mounts.cozyfs("usage", "--json", DOMAIN, "--state-dir", elsewhere)
    assert done.check().json() == mounted
    assert list(elsewhere.iterdir()) == []


def test_usage_where_another_machine_went_on_is_what_it_wrote(mount, file_mounts):
    make(mount / "f", 1 * MB)
    mount.unmount()
    machine = Mounts(file_mounts.folder / "elsewhere", file_mounts.env["COZYFS_FS_URL"])
    with contextlib.closing(machine), machine.mounted(create=False) as other:
        make(other / "g", 1 * MB)
    assert file_mounts.cozyfs("usage", "--json", DOMAIN).check().json()["files"] == 2


def test_writers_at_once_stay_below_the_quota_together(any_mount):
    mount = any_mount
    numbers = itertools.count()
    writers = [
        Child("dd", "if=/dev/zero", f"of={mount / f'f{next(numbers)}'}", "bs=100K", "count=30")
        for _ in range(4)
    ]
    ended = [writer.wait() for writer in writers]
    assert {done.code for done in ended} <= {0, 1}
    assert all(done.code == 0 or FULL in done.err for done in ended)
    good = sum(done.code == 0 for done in ended)
    eventually(lambda: len(names(mount)) == good)
    assert usage(mount)["used_bytes"] == good * 30 * 102400
    assert good <= 1


def test_a_shells_redirection_that_does_not_fit_leaves_what_was_there(mount, outside):
    old = make(outside / "old", 1 * MB)
    sh('cp "$1" "$2/old"', old, mount.path)

    for name in ("old", "new"):
        done = run("bash", "-c", 'head -c 6000000 /dev/zero > "$1"', "sh", mount / name)
        assert FULL in done.err

    eventually(lambda: names(mount) == ["old"])
    eventually(lambda: run("cmp", old, mount / "old").code == 0)


def test_moving_into_the_trash_frees_nothing_and_emptying_it_does(mount, outside):
    big = make(outside / "big", 3 * MB)
    make(mount / "f", 3 * MB)
    sh('mv "$1/f" "$1/.cozy_trash/"', mount.path)
    assert usage(mount)["trash_bytes"] == usage(mount)["used_bytes"] == 3 * MB
    assert FULL in run("cp", big, mount.path).err
    sh('rm "$1/.cozy_trash/f"', mount.path)
    assert usage(mount)["used_bytes"] == 0
    sh('cp "$1" "$2"', big, mount.path)
