"""The state directory: who holds an instance on this machine, and what is told about it."""

import json
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from cozyfs.errors import CozyError, InstanceError
from cozyfs.state import (
    InstanceState,
    find_mount,
    instance_directory,
    is_live,
    mounts,
    resolve_mountpoint,
)

STORE = "S3 at s3.example.com"


@pytest.fixture
def state_dir(tmp_path):
    return tmp_path / "state"


def opened(state_dir, db_prefix="prefix"):
    return InstanceState.open(state_dir, "cozy-default", db_prefix)


def locked(state_dir, mountpoint, db_prefix="prefix"):
    state = opened(state_dir, db_prefix)
    state.lock(mountpoint, instance="alice.example.com", store=STORE)
    return state


def test_state_is_the_users_alone(state_dir):
    state = opened(state_dir)
    for path in (state.directory, state.staging_dir, state_dir):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_folder_that_others_may_read_is_closed_to_them(state_dir):
    opened(state_dir).directory.chmod(0o755)
    assert stat.S_IMODE(opened(state_dir).directory.stat().st_mode) == 0o700


def test_a_prefix_cannot_leave_the_state_directory(state_dir):
    for prefix in ("..", ".", "../../etc", "a/b", "alice.example.com/"):
        directory = instance_directory(state_dir, "cozy-default", prefix)
        assert directory.parent == state_dir / "cozy-default"
        assert directory.name not in {".", ".."}


def test_different_prefixes_have_different_folders(state_dir):
    prefixes = ["a/b", "a%2Fb", "a_b", "..", "%2E%2E", "é", "A"]
    folders = {instance_directory(state_dir, "cozy", prefix) for prefix in prefixes}
    assert len(folders) == len(prefixes)


def test_a_state_directory_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CozyError, match="cannot use the state directory"):
        InstanceState.open(tmp_path / "file" / "state", "bucket", "prefix")


def test_mounting_an_instance_twice_names_the_mount_that_has_it(state_dir, tmp_path):
    first = locked(state_dir, tmp_path / "here")
    with pytest.raises(InstanceError) as caught:
        locked(state_dir, tmp_path / "there")
    assert str(tmp_path / "here") in str(caught.value)
    assert f"pid {os.getpid()}" in str(caught.value)
    first.unlock()


def test_unlock_lets_the_next_mount_in_and_leaves_no_trace(state_dir, tmp_path):
    first = locked(state_dir, tmp_path / "here")
    first.unlock()
    assert not (first.directory / "mount.json").exists()
    locked(state_dir, tmp_path / "there").unlock()


def test_two_instances_are_locked_apart(state_dir, tmp_path):
    one = locked(state_dir, tmp_path / "one", "p1")
    two = locked(state_dir, tmp_path / "two", "p2")
    assert [record.mountpoint for record in mounts(state_dir)] == [
        str(tmp_path / "one"),
        str(tmp_path / "two"),
    ]
    one.unlock()
    two.unlock()


def test_the_lockis_held_by_the_child_after_a_fork_and_goes_with_it(state_dir, tmp_path):
    reader, writer = os.pipe()
    state = locked(state_dir, tmp_path / "here")
    pid = os.fork()
    if pid == 0:
        state.record()
        os.write(writer, b"!")
        signal.pause()
        os._exit(0)
    os.read(reader, 1)
    state.abandon()
    try:
        record = find_mount(state_dir, tmp_path / "here")
        assert record is not None
        assert record.pid == pid
        with pytest.raises(InstanceError):
            locked(state_dir, tmp_path / "there")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)
    assert find_mount(state_dir, tmp_path / "here") is None
    locked(state_dir, tmp_path / "there").unlock()


def test_a_killed_process_loses_the_lock(state_dir, tmp_path):
    code = (
        "import sys, time, pathlib; from cozyfs.state import InstanceState\n"
        "s = InstanceState.open(pathlib.Path(sys.argv[1]), 'cozy-default', 'prefix')\n"
        "s.lock(pathlib.Path('/mnt/x'), instance='a', store='s'); print('held', flush=True)\n"
        "time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(state_dir)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    (record,) = mounts(state_dir)
    assert record.pid == child.pid
    child.kill()
    child.wait(10)
    child.stdout.close()
    assert mounts(state_dir) == []
    assert not is_live(record)


def test_listing_mounts_does_not_get_in_the_way_of_one_that_starts(state_dir, tmp_path):
    locked(state_dir, tmp_path / "here").unlock()
    opened(state_dir).directory.joinpath("mount.json").write_text("{}")
    end = time.monotonic() + 1
    code = (
        "import sys, time, pathlib; from cozyfs.state import is_held\n"
        "print('go', flush=True)\n"
        "while True: is_held(pathlib.Path(sys.argv[1]))"
    )
    lock_file = opened(state_dir).directory / "lock"
    prober = subprocess.Popen(
        [sys.executable, "-c", code, str(lock_file)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert prober.stdout.readline() == "go\n"
        while time.monotonic() < end:
            locked(state_dir, tmp_path / "here").unlock()
    finally:
        prober.kill()
        prober.wait(10)
        prober.stdout.close()


def test_a_tree_is_not_shown_over_another_store(state_dir, tmp_path):
    locked(state_dir, tmp_path / "here").unlock()
    with pytest.raises(InstanceError, match=r"belongs to S3 at s3\.example\.com"):
        opened(state_dir).lock(tmp_path, instance="alice", store="S3 at other.example.com")
    locked(state_dir, tmp_path / "here").unlock()


def test_damaged_mount_json_is_not_a_mount(state_dir, tmp_path):
    state = locked(state_dir, tmp_path / "here")
    (state.directory / "mount.json").write_text("{")
    assert mounts(state_dir) == []
    state.unlock()


def test_mount_json_says_what_status_needs(state_dir, tmp_path):
    state = locked(state_dir, tmp_path / "here")
    fields = json.loads((state.directory / "mount.json").read_text())
    assert fields["pid"] == os.getpid()
    assert fields["instance"] == "alice.example.com"
    assert fields["store"] == STORE
    assert fields["mountpoint"] == str(tmp_path / "here")
    state.unlock()


def test_a_mount_is_found_through_symbolic_links_and_relative_paths(
    state_dir, tmp_path, monkeypatch
):
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to("here")
    monkeypatch.chdir(tmp_path)
    state = locked(state_dir, tmp_path / "here")
    for path in ("link", "here", "./here/", "here/../here"):
        assert find_mount(state_dir, type(tmp_path)(path)) is not None
    assert find_mount(state_dir, tmp_path) is None
    state.unlock()


def test_a_loop_of_symbolic_links_ends(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert resolve_mountpoint(tmp_path / "loop") == tmp_path / "loop"


def test_removing_the_state_is_refused_while_mounted(state_dir, tmp_path):
    state = locked(state_dir, tmp_path / "here")
    with pytest.raises(InstanceError, match="is mounted at"):
        opened(state_dir).hold("alice")
    assert state.directory.exists()
    state.unlock()


def test_removing_the_state_leaves_nothing_of_the_instance(state_dir):
    state = opened(state_dir)
    other = opened(state_dir, "other")
    state.index_path.write_bytes(b"tree")
    state.hold("alice")
    state.remove()
    assert not state.directory.exists()
    assert other.directory.exists()
