"""``cozyfs cp``: what it refuses, and real copies in a real mount."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from cozyfs.cli import cp

TIMEOUT_S = 60


@pytest.fixture
def here(tmp_path):
    """A folder that is no mount."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "file").write_text("1")
    return folder


def test_a_file_outside_of_mounts_is_bad_input(cozyfs, here):
    outcome = cozyfs("cp", here / "file", here / "copy")

    assert outcome.code == 2
    assert "is not in a mount of cozyfs" in outcome.err
    assert not (here / "copy").exists()


def test_a_copy_replaces_nothing(cozyfs, here):
    (here / "copy").write_text("2")

    outcome = cozyfs("cp", here / "file", here / "copy")

    assert (outcome.code, outcome.err) == (1, f"cozyfs: {here}/copy exists already\n")


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["absent", "copy"], 1),
        (["file", "absent/copy"], 1),
        (["file", "absent/"], 2),
        (["file", "file", "file"], 2),
        ([".", "copy"], 2),
        (["file"], 2),
        (["file", "/dev/shm/copy"], 2),
    ],
)
def test_what_makes_no_sense_is_one_line(cozyfs, here, monkeypatch, args, code):
    monkeypatch.chdir(here)

    outcome = cozyfs("cp", *args)

    assert outcome.code == code
    assert outcome.err.startswith("cozyfs: ")
    assert outcome.err.count("\n") == 1


def test_into_a_directory_a_copy_keeps_its_name(here):
    (here / "d").mkdir()

    assert cp.plan(str(here / "file"), str(here / "d")).name == "file"
    assert cp.plan(str(here / "file"), str(here / "d" / "other")).name == "other"


# ---- in a mount


def run(*args):
    return subprocess.run(
        [sys.executable, "-m", "cozyfs", *map(str, args)],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


@pytest.fixture
def mount(tmp_path):
    folder = tmp_path / "alice"
    folder.mkdir()
    mounted = run("mount", "--create", "alice.example.com", folder)
    assert mounted.returncode == 0, mounted.stderr
    yield folder
    unmounted = run("umount", folder)
    assert unmounted.returncode == 0, unmounted.stderr


@pytest.mark.mount
def test_a_copy_is_seen_at_once_and_has_the_content(mount):
    (mount / "file").write_bytes(b"content" * 100_000)
    (mount / "d").mkdir()
    # The kernel now remembers that neither is there, and what the directories hold.
    assert not (mount / "copy").exists()
    assert os.listdir(mount / "d") == []
    changed = os.stat(mount / "d").st_mtime_ns

    for target in ("copy", "d"):
        done = run("cp", mount / "file", mount / target)
        assert (done.returncode, done.stderr) == (0, "")

    assert (mount / "copy").read_bytes() == b"content" * 100_000
    assert os.listdir(mount / "d") == ["file"]
    assert (mount / "d" / "file").read_bytes() == b"content" * 100_000
    assert os.stat(mount / "d").st_mtime_ns > changed
    assert os.stat(mount / "copy").st_ino != os.stat(mount / "file").st_ino


@pytest.mark.mount
def test_what_is_being_written_is_copied_as_it_is(mount):
    with (mount / "file").open("wb", buffering=0) as file:
        file.write(b"written, not closed")
        assert run("cp", mount / "file", mount / "copy").returncode == 0

    assert (mount / "copy").read_bytes() == b"written, not closed"


@pytest.mark.mount
def test_several_files_go_into_a_directory(mount):
    (mount / "d").mkdir()
    names = ["a", "b", "été (1)"]
    for name in names:
        (mount / name).write_text(name)

    assert run("cp", *(mount / name for name in names), mount / "d").returncode == 0

    assert {path.name: path.read_text() for path in (mount / "d").iterdir()} == {
        name: name for name in names
    }


@pytest.mark.mount
def test_a_copy_that_is_refused_says_why(mount):
    (mount / "file").write_text("1")
    (mount / "copy").write_text("2")

    done = run("cp", mount / "file", mount / "copy")

    assert done.returncode == 1
    assert "exists already" in done.stderr
    assert (mount / "copy").read_text() == "2"


def test_a_mount_that_ends_meanwhile_is_an_error():
    client = SimpleNamespace(stream=lambda *_, **__: iter([{"copying": True}]))
    found = os.stat("/")

    with pytest.raises(cp.CozyError, match="ended"):
        cp.ask(client, cp.Copy(found, found, "name"))


def test_a_long_copy_is_waited_for():
    seen = []

    def stream(*_, **fields):
        for _ in range(3):
            seen.append(1)
            yield {"copying": True}
        yield {"ino": 7}

    cp.ask(SimpleNamespace(stream=stream), cp.Copy(os.stat("/"), os.stat("/"), "name"))

    assert len(seen) == 3
