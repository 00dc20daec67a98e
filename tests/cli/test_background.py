"""Going to the background: the parent tells what the child found."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

SCRIPT = """
import os, sys, time
from cozyfs.cli import background
from cozyfs.errors import CozyError, UsageError
def work(ready):
    {body}
try:
    background.{how}(work)
    print("parent goes on", flush=True)
except CozyError as exc:
    print(type(exc).__name__, exc, flush=True)
"""


def run(body, how="run_in_background", **keywords):
    """Run *body* as the child's work; (what the parent printed, its exit code)."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body, how=how)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=20,
        check=False,
        **keywords,
    )
    return done.stdout.strip(), done.returncode


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_the_parent_returns_once_the_child_is_ready_and_the_child_lives_on(tmp_path):
    done = tmp_path / "done"
    body = f"ready(); time.sleep(0.5); open({str(done)!r}, 'w').close()"
    assert run(body) == ("parent goes on", 0)
    assert not done.exists()
    wait_for(done.exists)


def test_an_error_before_that_is_the_parents_error():
    assert run("raise CozyError('no such store')") == ("CozyError no such store", 0)


def test_bad_input_found_by_the_child_is_still_bad_input():
    assert run("raise UsageError('bad prefix')") == ("UsageError bad prefix", 0)


def test_an_unexpected_exception_is_reported_in_one_line():
    assert run("raise KeyError('x')")[0] == "CozyError internal error: KeyError: 'x'"


def test_a_child_that_is_killed_is_reported():
    body = "os.kill(os.getpid(), 9); time.sleep(20)"
    assert run(body)[0].endswith("ended before it was ready (signal SIGKILL)")


def test_the_child_holds_neither_terminal_nor_folder(tmp_path):
    found = tmp_path / "found"
    body = (
        "ready(); import pathlib; "
        f"pathlib.Path({str(found)!r}).write_text(' '.join([os.getcwd(), "
        "os.readlink('/proc/self/fd/1'), str(os.getsid(0) == os.getpid())]))"
    )
    assert run(body, cwd=tmp_path) == ("parent goes on", 0)
    wait_for(lambda: found.exists() and found.read_text())
    assert found.read_text() == "/ /dev/null True"


def test_ctrl_c_while_waiting_ends_the_child(tmp_path):
    pid_file = tmp_path / "pid"
    body = (
        f"open({str(pid_file)!r}, 'w').write(str(os.getpid())); "
        f"os.rename({str(pid_file)!r}, {str(pid_file)!r} + '.ready'); time.sleep(30)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(body=body, how="run_in_background")],
        stderr=subprocess.DEVNULL,
    )
    ready = tmp_path / "pid.ready"
    wait_for(ready.exists)
    child = int(ready.read_text())
    parent.send_signal(signal.SIGINT)
    assert parent.wait(10) != 0
    wait_for(lambda: not alive(child))


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", ["run_in_background", "run_in_foreground"])
def test_a_service_manager_is_told(tmp_path, how):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        run("ready()", how, env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(100).startswith(b"READY=1\n")
