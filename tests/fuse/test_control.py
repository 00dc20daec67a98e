"""``cozyfs status`` and ``cozyfs umount`` on a real mount."""

from __future__ import annotations

import time

from mounting import Child, eventually, mounted_at, run, sh

HOLD_OPEN = r"""
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(fd, bytes(1000000)); print("written", flush=True); time.sleep(float(sys.argv[2]))
os.close(fd)
"""


def holding(mount, seconds=60.0):
    """A program that has 1,000,000 bytes in a file that it has not closed."""
    child = Child("python3", "-c", HOLD_OPEN, mount / "held", seconds)
    eventually(lambda: "written" in child.output())
    return child


def test_status_tells_of_process_instance_store_and_content(mounts, store):
    mount = mounts.start()
    sh('echo text > "$1/f"; cat "$1/f"', mount.path)
    status = mount.status()
    assert status["pid"] == mount.pid
    assert status["instance"] == "alice.example.com"
    assert status["mountpoint"] == str(mount.path)
    assert ("local" in status["store"]) == (store == "file")
    assert "secret" not in status["store"]
    assert status["read_only"] is False
    assert status["used_bytes"] == 5
    assert status["inodes"] >= 2
    assert status["open_files"] == status["pending_files"] == status["failed_files"] == 0
    assert status["dirty_bytes"] == status["uploads"] == status["errors"] == 0
    assert 0 <= status["uptime_s"] < 60
    assert status["write_buffer"] == {"used": 0, "limit": 64 << 20}
    assert status["cache"]["limit"] == 96 << 20
    assert set(status["cache"]) == {"used", "limit", "hits", "misses"}
    assert {"objects_to_delete", "requests_retried", "started_at"} <= set(status)


def test_status_counts_what_is_written_and_not_stored(file_mounts):
    mount = file_mounts.start()
    program = holding(mount)
    status = mount.status()
    assert (status["open_files"], status["pending_files"]) == (1, 1)
    assert status["dirty_bytes"] == 1000000
    program.kill()
    eventually(lambda: mount.status()["pending_files"] == 0)
    assert mount.status()["dirty_bytes"] == 0


def test_status_without_a_mount_point_lists_the_mounts(file_mounts):
    mount = file_mounts.start()
    (row,) = file_mounts.cozyfs("status", "--json").check().json()
    assert (row["mountpoint"], row["pid"]) == (str(mount.path), mount.pid)
    mount.unmount()
    assert file_mounts.cozyfs("status", "--json").check().json() == []


def test_status_of_what_is_not_mounted_fails_in_one_line(file_mounts):
    done = file_mounts.cozyfs("status", file_mounts.new_path())
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "not mounted" in done.err


def test_status_of_a_mount_that_died_says_so(file_mounts):
    mount = file_mounts.start()
    mount.kill()
    done = file_mounts.cozyfs("status", mount.path)
    assert done.code == 1
    assert "has ended" in done.err


def test_status_answers_while_the_mount_is_busy(mounts):
    mount = mounts.start()
    writer = Child("dd", "if=/dev/zero", f"of={mount / 'f'}", "bs=1M", "count=60", "status=none")
    began = time.monotonic()
    mount.status()
    assert time.monotonic() - began < 5
    writer.wait().check()


def test_umount_returns_when_all_is_stored_and_the_process_has_ended(mounts):
    mount = mounts.start()
    sh(
        'head -c 20000000 /dev/urandom | tee "$1/f" | md5sum > "$2"',
        mount.path,
        mounts.folder / "sum",
    )
    mounts.cozyfs("umount", mount.path).check()
    assert not mounted_at(mount.path)
    assert mount.wait(0.1) == 0
    with mounts.mounted() as again:
        assert sh('md5sum < "$1/f"', again.path) == (mounts.folder / "sum").read_text()


def test_umount_stores_what_is_open_and_then_refuses_as_it_is_in_use(file_mounts):
    mount = file_mounts.start()
    program = holding(mount)
    done = file_mounts.cozyfs("umount", mount.path)
    assert done.code == 1
    assert "busy" in done.err
    assert mount.status()["pending_files"] == 0
    program.kill()
    eventually(lambda: mount.status()["open_files"] == 0)
    mount.unmount()


def test_umount_a_second_time_says_that_nothing_is_mounted(file_mounts):
    mount = file_mounts.start()
    mount.unmount()
    done = file_mounts.cozyfs("umount", mount.path)
    assert done.code == 1
    assert "is not mounted" in done.err


def test_the_state_directory_is_for_its_user_alone(file_mounts):
    file_mounts.start()
    state = file_mounts.folder / "state"
    assert run("find", state, "-perm", "/077").check().out == ""
