"""``cozyfs cp``: what it refuses, and real copies in a real mount."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cozyfs.cli import cp

TIMEOUT_S = 60

FOUND = os.stat("/")
COPY = cp.Copy(Path("/file"), FOUND, FOUND, Path("/name"))


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

    assert cp.plan(str(here / "file"), str(here / "d")).target.name == "file"
    assert cp.plan(str(here / "file"), str(here / "d" / "other")).target.name == "other"


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

    with pytest.raises(cp.CozyError, match="ended"):
        cp.ask({FOUND.st_dev: client}, COPY)


def test_a_long_copy_is_waited_for():
    seen = []

    def stream(*_, **fields):
        for _ in range(3):
            seen.append(1)
            yield {"copying": True}
        yield {"ino": 7}

    cp.ask({FOUND.st_dev: SimpleNamespace(stream=stream)}, COPY)

    assert len(seen) == 3


# ---- directories


def test_a_directory_needs_to_be_asked_for(here):
    (here / "d").mkdir()

    with pytest.raises(cp.UsageError, match="-r copies it"):
        cp.plan(str(here / "d"), str(here / "copy"))
    assert cp.plan(f"{here}/d/", f"{here}/copy", recursive=True).target == here / "copy"


def test_a_directory_is_not_copied_into_itself(here):
    (here / "d" / "below").mkdir(parents=True)

    with pytest.raises(cp.UsageError, match="into itself"):
        cp.plan(str(here / "d"), str(here / "d" / "below"), recursive=True)


@pytest.mark.mount
def test_a_tree_is_copied_with_links_and_attributes(mount):
    tree = mount / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").write_bytes(b"content")
    (tree / "a" / "file").chmod(0o640)
    (tree / "a" / "b").chmod(0o750)
    os.setxattr(tree / "a" / "b", "user.colour", b"red")
    os.setxattr(tree / "a" / "file", "user.colour", b"blue")
    (tree / "link").symlink_to("a/file")
    os.mkfifo(tree / "fifo")

    done = run("cp", "-r", tree, mount / "copy")

    assert done.returncode == 1
    assert f"{tree}/fifo is neither a file, a directory nor a link" in done.stderr
    copy = mount / "copy"
    assert sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*")) == [
        *("a", "a/b", "a/file", "link"),
    ]
    assert (copy / "link").read_bytes() == b"content"
    assert (copy / "a" / "b").stat().st_mode & 0o777 == 0o750
    assert (copy / "a" / "file").stat().st_mode & 0o777 == 0o640
    assert os.getxattr(copy / "a" / "b", "user.colour") == b"red"
    assert os.getxattr(copy / "a" / "file", "user.colour") == b"blue"


# ---- between instances


@pytest.fixture
def bob(mount, tmp_path):
    """Another instance of the same store; its bucket is another one too."""
    folder = tmp_path / "bob"
    folder.mkdir()
    mounted = run("mount", "--create", "--org", "acme", "bob.example.com", folder)
    assert mounted.returncode == 0, mounted.stderr
    yield folder
    unmounted = run("umount", folder)
    assert unmounted.returncode == 0, unmounted.stderr


@pytest.mark.mount
def test_a_copy_into_another_instance_has_all_that_the_file_has(mount, bob):
    content = os.urandom(300_000)
    (mount / "file").write_bytes(content)
    os.setxattr(mount / "file", "user.colour", b"blue")
    with (mount / "sparse").open("wb") as sparse:
        sparse.seek(1 << 20)
        sparse.write(b"end")
    (mount / "empty").touch()
    (mount / "d").mkdir()
    (mount / "d" / "inside").write_text("inside")

    done = run("cp", "-r", *(mount / name for name in ("file", "sparse", "empty", "d")), bob)

    assert (done.returncode, done.stderr) == (0, "")
    assert (bob / "file").read_bytes() == content
    assert os.getxattr(bob / "file", "user.colour") == b"blue"
    assert (bob / "sparse").read_bytes() == bytes(1 << 20) + b"end"
    assert (bob / "empty").read_bytes() == b""
    assert (bob / "d" / "inside").read_text() == "inside"
    (mount / "file").unlink()
    assert (bob / "file").read_bytes() == content


@pytest.mark.mount
def test_the_quota_of_the_other_instance_holds(mount, bob):
    (mount / "file").write_bytes(b"x" * 2000)
    assert run("instances", "set-disk-quota", "bob.example.com", "1000").returncode == 0

    done = run("cp", mount / "file", bob / "file")

    assert done.returncode == 1
    assert "quota" in done.stderr
    assert os.listdir(bob) == [".cozy_trash"]


@pytest.mark.mount
def test_mounts_of_two_stores_have_to_be_copied_between_by_cp(mount, tmp_path):
    folder, url = tmp_path / "other", f"file://{tmp_path}/other-store"
    folder.mkdir()
    (mount / "file").write_text("1")
    assert run("mount", "--create", "--fs-url", url, "carol.example.com", folder).returncode == 0
    try:
        done = run("cp", mount / "file", folder)
    finally:
        unmounted = run("umount", folder)

    assert unmounted.returncode == 0, unmounted.stderr
    assert done.returncode == 1
    assert "not of one store" in done.stderr
