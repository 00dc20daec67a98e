"""``cozyfs umount`` and ``cozyfs status``: the mount they speak to is a control socket here; real
mounts are in the tests of the mount."""

import contextlib
import threading

import pytest
import trio

from cozyfs.cli import mountpoints
from cozyfs.cli import umount as umount_module
from cozyfs.control import serve_control
from cozyfs.errors import CozyError
from cozyfs.state import InstanceState

from .conftest import is_one_line


@contextlib.contextmanager
def serving(path, handler):
    """*handler* behind the control socket at *path*, in a thread."""
    started = threading.Event()
    stop = []

    async def main():
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_control, path, handler)
            stop.append((trio.lowlevel.current_trio_token(), nursery.cancel_scope))
            started.set()

    server = threading.Thread(target=trio.run, args=(main,))
    server.start()
    assert started.wait(10)
    try:
        yield
    finally:
        token, scope = stop[0]
        token.run_sync_soon(scope.cancel)
        server.join(10)


@pytest.fixture
def state(tmp_path, mountpoint):
    """A mount as the state directory tells it; *mountpoint* itself is no mount."""
    state = InstanceState.open(tmp_path / "state", "cozy-default", "prefix")
    state.lock(mountpoint, instance="alice.example.com", store="local folder")
    yield state
    state.unlock()


@pytest.fixture
def kernel(monkeypatch, mountpoint, state):
    """The kernel's side, replaced: *mountpoint* is mounted; unmounting ends the mount."""
    calls = []
    mounted = [mountpoints.KernelMount(mountpoint, "fuse.cozyfs", "cozyfs")]

    def unmount(path):
        calls.append(path)
        mounted.clear()
        state.unlock()

    monkeypatch.setattr(
        umount_module.mountpoints, "kernel_mount", lambda path: mounted[0] if mounted else None
    )
    monkeypatch.setattr(umount_module.mountpoints, "unmount", unmount)
    return calls


def flush(*answers):
    async def handler(request, send):
        if request == {"op": "status"}:
            await send({"lease": "held"})
            return
        assert request == {"op": "flush"}
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
            await send(answer)

    return handler


def test_umount_flushes_with_progress_then_unmounts(cozyfs, state, kernel, mountpoint):
    progress = {"pending": 2, "dirty_bytes": 3 << 20}
    with serving(state.control_path, flush(progress, {"done": True})):
        outcome = cozyfs("umount", mountpoint)
    assert (outcome.code, outcome.err) == (0, "storing 2 files, 3.0 MiB\n")
    assert kernel == [mountpoint]


def test_umount_says_nothing_when_there_is_nothing_to_wait_for(cozyfs, state, kernel, mountpoint):
    with serving(state.control_path, flush({"pending": 0, "dirty_bytes": 0}, {"done": True})):
        outcome = cozyfs("umount", mountpoint)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert kernel == [mountpoint]


def test_what_cannot_be_stored_stays_mounted(cozyfs, state, kernel, mountpoint):
    with serving(state.control_path, flush(CozyError("the store is full"))):
        outcome = cozyfs("umount", mountpoint)
    assert (outcome.code, outcome.err) == (1, "cozyfs: the store is full\n")
    assert kernel == []


def test_a_flush_that_ends_without_an_end_is_not_trusted(cozyfs, state, kernel, mountpoint):
    with serving(state.control_path, flush({"pending": 1, "dirty_bytes": 1})):
        outcome = cozyfs("umount", mountpoint)
    assert outcome.code == 1
    assert kernel == []


def test_umount_gives_up_after_its_timeout_and_stays_mounted(cozyfs, state, kernel, mountpoint):
    async def handler(request, send):
        while True:
            await send({"pending": 1, "dirty_bytes": 10})
            await trio.sleep(0.01)

    with serving(state.control_path, handler):
        outcome = cozyfs("umount", "--timeout", "0.1", mountpoint)
    assert outcome.code == 1
    assert "stays mounted" in outcome.err
    assert kernel == []


def test_a_mount_that_does_not_answer_stays_mounted(cozyfs, state, kernel, mountpoint):
    outcome = cozyfs("umount", mountpoint)
    assert outcome.code == 1
    assert is_one_line(outcome.err)
    assert kernel == []


def test_a_busy_mount_is_one_line(cozyfs, state, kernel, mountpoint, monkeypatch):
    def busy(path):
        raise mountpoints.MountBusy(f"{path} is busy")

    monkeypatch.setattr(umount_module.mountpoints, "unmount", busy)
    with serving(state.control_path, flush({"done": True})):
        outcome = cozyfs("umount", mountpoint)
    assert (outcome.code, outcome.err) == (1, f"cozyfs: {mountpoint} is busy\n")


def test_umount_waits_until_the_process_has_let_go(cozyfs, state, kernel, mountpoint, monkeypatch):
    monkeypatch.setattr(umount_module.mountpoints, "unmount", lambda path: None)
    with serving(state.control_path, flush({"done": True})):
        outcome = cozyfs("umount", "--timeout", "0.2", mountpoint)
    assert outcome.code == 1
    assert "still runs" in outcome.err


@pytest.mark.parametrize("command", ["umount", "status"])
def test_what_is_not_mounted_is_one_line(cozyfs, mountpoint, command):
    outcome = cozyfs(command, mountpoint)
    assert (outcome.code, outcome.err) == (1, f"cozyfs: {mountpoint} is not mounted\n")


@pytest.mark.parametrize("command", ["umount", "status"])
def test_what_is_another_mount_is_left_alone(cozyfs, command):
    outcome = cozyfs(command, "/proc")
    assert (outcome.code, outcome.err) == (1, "cozyfs: /proc is a mount of proc, not of cozyfs\n")


def test_status_shows_what_the_mount_answers(cozyfs, state, mountpoint):
    async def handler(request, send):
        await send({"dirty_bytes": 3 << 20, "cache": {"used": 1024, "hits": 5}, "errors": 0})

    with serving(state.control_path, handler):
        shown = cozyfs("status", mountpoint)
        data = cozyfs("status", "--json", mountpoint).json()
    assert shown.code == 0
    assert "dirty:              3.0 MiB\n" in shown.out
    assert "cache:              used 1.0 KiB, hits 5\n" in shown.out
    assert data["instance"] == "alice.example.com"
    assert data["mountpoint"] == str(mountpoint)
    assert data["dirty_bytes"] == 3 << 20


def test_a_mount_that_hangs_is_said_to(cozyfs, state, mountpoint, monkeypatch):
    async def handler(request, send):
        await trio.sleep_forever()

    monkeypatch.setattr("cozyfs.cli.status.ANSWER_TIMEOUT_S", 0.2)
    with serving(state.control_path, handler):
        outcome = cozyfs("status", mountpoint)
    assert outcome.code == 1
    assert is_one_line(outcome.err)
    assert "does not answer within 0.2 s" in outcome.err


def test_status_alone_lists_the_mounts(cozyfs, state, mountpoint):
    assert [row["mountpoint"] for row in cozyfs("status", "--json").json()] == [str(mountpoint)]
    assert str(mountpoint) in cozyfs("status").out
    state.unlock()
    assert cozyfs("status", "--json").json() == []


def test_a_mount_that_was_overtaken_has_nothing_to_wait_for(cozyfs, state, kernel, mountpoint):
    async def handler(request, send):
        assert request == {"op": "status"}
        await send({"lease": "lost", "pending_files": 2, "journal_pending": 3})

    with serving(state.control_path, handler):
        outcome = cozyfs("umount", mountpoint)
    assert outcome.code == 0
    assert "2 files and 3 changes of the tree stay in" in outcome.err
    assert "unmount" in str(kernel)
