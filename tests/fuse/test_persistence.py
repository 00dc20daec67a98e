"""What was written is there later: after an unmount, after a signal, after a crash."""

from __future__ import annotations

import hashlib
import random
import signal

import pytest
from mounting import Child, eventually, mounted_at, run, sh

FILL = r"""
cd "$1"
mkdir -p a/b "c d"
for i in $(seq 12); do head -c $((i * i * 1000)) /dev/urandom > "a/f$i"; done
for size in 0 1 5242879 5242880 5242881 9000000; do head -c $size /dev/urandom > "a/b/$size"; done
ln a/f1 "c d/hard"; ln -s ../a/f2 "c d/soft"; truncate -s 100M a/sparse
setfattr -n user.note -v text a/f3; chmod 600 a/f4; touch -d 2001-01-01 a/b
"""

SUMS = 'cd "$1"; find . -type f -exec md5sum {} + | sort'
LISTING = (
    'cd "$1"; find . -mindepth 1 -not -name .cozy_trash -printf "%p %y %m %n %T@ %l\\n" | sort;'
    "getfattr -R -h -d . | sort"
)


def test_everything_is_there_after_unmount_and_remount(mounts):
    with mounts.mounted() as mount:
        sh(FILL, mount.path)
        sums, listing = sh(SUMS, mount.path), sh(LISTING, mount.path)
    with mounts.mounted(create=False) as mount:
        assert sh(LISTING, mount.path) == listing
        assert sh(SUMS, mount.path) == sums


def test_everything_is_there_after_a_mount_in_the_background(file_mounts):
    with file_mounts.mounted(background=True) as mount:
        sh(FILL, mount.path)
        sums = sh(SUMS, mount.path)
    with file_mounts.mounted(background=True) as mount:
        assert sh(SUMS, mount.path) == sums


WRITE = r"""
import hashlib, os, random, sys
# Prints a line for every close() that returned, with what the file holds from then on.
os.chdir(sys.argv[1])
dice = random.Random(sys.argv[2])
contents = {}
while True:
    name = f"f{dice.randrange(8)}"
    data = bytearray(contents.get(name, b""))
    flags = os.O_RDWR | os.O_CREAT
    if dice.random() < 0.3:
        flags |= os.O_TRUNC
        data = bytearray()
    fd = os.open(name, flags)
    for _ in range(dice.randrange(1, 5)):
        start = dice.randrange(len(data) + 1)
        piece = dice.randbytes(dice.choice((1, 100, 4096, 70000, 3000000)))
        os.pwrite(fd, piece, start)
        data[start : start + len(piece)] = piece
    os.close(fd)
    contents[name] = bytes(data)
    print(name, hashlib.md5(data).hexdigest(), flush=True)
"""


def acknowledged(text):
    """File -> its checksum when it was last acknowledged."""
    return dict(line.split() for line in text.splitlines() if len(line.split()) == 2)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_acknowledged_is_missing_after_kill_9(mounts, seed):
    mount = mounts.start()
    writer = Child("python3", "-c", WRITE, mount.path, seed)
    eventually(lambda: len(writer.output().splitlines()) > 5 + 5 * seed)
    mount.kill()
    done = writer.wait()
    written = acknowledged(done.out)

    # The same mount point is used again: what is left of the first mount is cleared away.
    with mounts.mounted(path=mount.path) as again:
        found = {
            name.removeprefix("./"): digest
            for digest, name in (line.split() for line in sh(SUMS, again.path).splitlines())
        }
        # What was being written when the mount died was not acknowledged, and may be there or
        # not: the one file that may differ.
        differing = [name for name, digest in written.items() if found.get(name) != digest]
        assert len(differing) <= 1
        next_ones = replay(seed, len(done.out.splitlines()) + 1)
        assert all(found.get(name) == next_ones[name] for name in differing)


def replay(seed, count):
    """File -> checksum after *count* steps of WRITE."""
    dice = random.Random(str(seed))
    contents: dict[str, bytes] = {}
    for _ in range(count):
        name = f"f{dice.randrange(8)}"
        data = bytearray(contents.get(name, b""))
        if dice.random() < 0.3:
            data = bytearray()
        for _ in range(dice.randrange(1, 5)):
            start = dice.randrange(len(data) + 1)
            piece = dice.randbytes(dice.choice((1, 100, 4096, 70000, 3000000)))
            data[start : start + len(piece)] = piece
        contents[name] = bytes(data)
    return {name: hashlib.md5(data).hexdigest() for name, data in contents.items()}


def test_a_file_is_in_the_store_when_close_returns(mounts):
    mount = mounts.start()
    sh(
        'head -c 7000000 /dev/urandom > "$1/f"; md5sum < "$1/f" > "$2"',
        mount.path,
        mounts.folder / "sum",
    )
    mount.kill()
    with mounts.mounted(path=mount.path) as again:
        assert sh('md5sum < "$1/f"', again.path) == (mounts.folder / "sum").read_text()


def test_an_fsync_stores_a_file_that_is_still_open(mounts):
    code = r"""
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.write(fd, b"safe"); os.fsync(fd); print("synced", flush=True); time.sleep(60)
"""
    mount = mounts.start()
    writer = Child("python3", "-c", code, mount / "f")
    eventually(lambda: "synced" in writer.output())
    mount.kill()
    writer.kill()
    with mounts.mounted(path=mount.path) as again:
        assert sh('cat "$1/f"', again.path) == "safe"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stores_what_is_open_and_unmounts(mounts, number):
    code = r"""
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.write(fd, b"x" * 3000000); print("written", flush=True); time.sleep(60)
"""
    mount = mounts.start()
    writer = Child("python3", "-c", code, mount / "f")
    eventually(lambda: "written" in writer.output())
    mount.signal(number)
    assert mount.wait() == 0
    assert not mounted_at(mount.path)
    writer.kill()
    with mounts.mounted() as again:
        assert sh('head -c 9 "$1/f"; wc -c < "$1/f"', again.path) == "xxxxxxxxx3000000\n"


def test_fusermount_ends_the_mount_after_all_is_stored(mounts):
    mount = mounts.start()
    script = r"""
    head -c 30000000 /dev/urandom > "$1/f" & head -c 100 /dev/urandom > "$1/g"; wait
    md5sum < "$1/f" > "$2"; fusermount3 -u "$1"
    """
    sh(script, mount.path, mounts.folder / "sum")
    assert mount.wait() == 0
    with mounts.mounted() as again:
        assert sh('md5sum < "$1/f"', again.path) == (mounts.folder / "sum").read_text()


def test_a_lazy_unmount_lets_a_writer_finish(file_mounts):
    code = r"""
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.write(fd, b"a"); print("written", flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.05)
os.write(fd, b"b"); os.close(fd)
"""
    mount = file_mounts.start()
    go = file_mounts.folder / "go"
    writer = Child("python3", "-c", code, mount / "f", go)
    eventually(lambda: "written" in writer.output())
    sh('fusermount3 -u -z "$1"', mount.path)
    assert not mounted_at(mount.path)
    go.touch()
    writer.wait().check()
    assert mount.wait() == 0
    with file_mounts.mounted() as again:
        assert sh('cat "$1/f"', again.path) == "ab"


def test_a_busy_mount_is_not_unmounted(file_mounts):
    mount = file_mounts.start()
    user = Child("bash", "-c", 'cd "$1" && echo there && sleep 60', "sh", mount.path)
    eventually(lambda: "there" in user.output())
    done = file_mounts.cozyfs("umount", mount.path)
    assert done.code == 1
    assert done.err.startswith(f"cozyfs: {mount.path} is busy")
    assert mounted_at(mount.path)
    assert mount.status()["pending_files"] == 0
    user.kill()
    mount.unmount()


def test_an_instance_is_mounted_once_and_the_refusal_says_where(file_mounts):
    mount = file_mounts.start()
    other = file_mounts.new_path()
    done = file_mounts.cozyfs("mount", "--foreground", "alice.example.com", other)
    assert done.code == 1
    assert str(mount.path) in done.err
    assert str(mount.pid) in done.err
    assert done.err.count("\n") == 1
    done = file_mounts.cozyfs("mount", "--foreground", "alice.example.com", mount.path)
    assert done.code == 1
    assert "mounted at" in done.err


def test_two_instances_are_mounted_side_by_side(file_mounts):
    one, two = file_mounts.start(), file_mounts.start(domain="bob.example.com")
    sh('echo one > "$1/f"; echo two > "$2/f"; cat "$1/f" "$2/f"', one.path, two.path)
    assert sh('cat "$1/f" "$2/f"', one.path, two.path) == "one\ntwo\n"
    listed = file_mounts.cozyfs("status", "--json").check().json()
    assert {row["instance"] for row in listed} == {"alice.example.com", "bob.example.com"}


def test_a_read_only_mount_refuses_every_change(file_mounts):
    with file_mounts.mounted() as mount:
        sh('echo text > "$1/f"; mkdir "$1/d"', mount.path)
    mount = file_mounts.start("--read-only", create=False)
    assert sh('cat "$1/f"; ls "$1"', mount.path) == "text\nd\nf\n"
    changes = (
        'echo x > "$1/f"',
        'echo x > "$1/new"',
        'mkdir "$1/e"',
        'rm "$1/f"',
        'mv "$1/f" "$1/g"',
    )
    changes += ('chmod 600 "$1/f"', 'touch "$1/f"', 'truncate -s 0 "$1/f"', 'rmdir "$1/d"')
    changes += ('setfattr -n user.a -v b "$1/f"', 'ln "$1/f" "$1/g"', 'ln -s f "$1/g"')
    for change in changes:
        done = run("bash", "-c", change, "sh", mount.path)
        assert done.code != 0, change
        assert "Read-only file system" in done.err, change
    assert mount.status()["read_only"] is True
    mount.unmount()


def test_minus_o_ro_is_the_same_as_read_only(file_mounts):
    file_mounts.start().unmount()
    mount = file_mounts.start("-o", "ro", create=False)
    assert "Read-only" in run("touch", mount / "f").err


def refused(done, text):
    assert done.code == 1
    assert done.err.startswith("cozyfs: ")
    assert done.err.count("\n") == 1, done.err
    assert text in done.err
    assert done.out == ""


@pytest.mark.parametrize("form", [["--foreground"], []])
def test_an_unknown_instance_is_refused_in_one_line(mounts, form):
    done = mounts.cozyfs("mount", *form, "nobody.example.com", mounts.new_path())
    refused(done, "nobody.example.com")


@pytest.mark.parametrize("form", [["--foreground"], []])
def test_a_server_that_is_not_there_is_refused_in_one_line(file_mounts, form):
    url = "s3://127.0.0.1:9?access_key=a1b2c3d4&secret_key=b1b2c3d4&use_ssl=false"
    done = file_mounts.cozyfs(
        "mount",
        *form,
        "--timeout",
        "2",
        "a.example.com",
        file_mounts.new_path(),
        COZYFS_FS_URL=url,
    )
    refused(done, "127.0.0.1:9")
    assert "b1b2c3d4" not in done.err


def test_wrong_keys_are_refused_in_one_line(file_mounts, compat_servers):
    right = compat_servers("juicefs").url()
    wrong = right.replace("access_key=cozyfs-test", "access_key=somebody-else")
    assert wrong != right
    path = file_mounts.new_path()
    done = file_mounts.cozyfs(
        "mount", "-f", "--create", "a.example.com", path, COZYFS_FS_URL=wrong
    )
    refused(done, "key")
    assert not mounted_at(path)


def test_a_mount_point_that_is_missing_is_refused_in_one_line(file_mounts):
    done = file_mounts.cozyfs("mount", "--create", "a.example.com", file_mounts.folder / "missing")
    refused(done, "does not exist")


def test_what_a_dead_mount_left_is_cleared_away_by_umount(file_mounts):
    mount = file_mounts.start()
    mount.kill()
    done = file_mounts.cozyfs("umount", mount.path).check()
    assert "cleared away" in done.err
    assert not mounted_at(mount.path)
