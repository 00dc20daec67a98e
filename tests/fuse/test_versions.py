"""Versions in a real mount: how programs save, what `/.cozy_versions` shows, `cozyfs versions`."""

from __future__ import annotations

import contextlib
import itertools
import sys

import pytest
from mounting import Mounts, python, root_only, run, sh

_names = itertools.count()


@pytest.fixture(scope="module")
def versioned(store, request, tmp_path_factory):
    """One mount for all tests, in which whatever is replaced becomes a version."""
    folder = tmp_path_factory.mktemp("versioned")
    local = f"file://{folder}/store"
    fs_url = local if store == "file" else request.getfixturevalue("s3_server").url()
    mounts = Mounts(folder, fs_url)
    with contextlib.closing(mounts):
        yield mounts.start("--version-delay", "0")


@pytest.fixture
def place(versioned):
    """A folder of the test's own."""
    path = versioned / f"place{next(_names)}"
    run("mkdir", path).check()
    return path


@pytest.fixture
def view(versioned, place):
    """Where the versions of files in *place* are seen."""
    return versioned / ".cozy_versions" / place.name


@pytest.fixture
def versions(versioned):
    """Run ``cozyfs versions``."""

    def call(*args):
        return versioned.mounts.cozyfs("versions", *args)

    return call


def contents(view, name):
    """What the versions of a file hold, in the order of the listing."""
    return sh('cd "$1"; for v in $(ls -U); do cat "$v"; echo; done', view / name).splitlines()


def doc_id(path):
    return python("import os, sys; print(os.getxattr(sys.argv[1], 'user.cozy.id').decode())", path)


# ---- how programs save


def test_a_shell_that_overwrites_in_place_leaves_versions(place, view):
    sh('for i in 1 2 3; do echo -n "content $i" > "$1/f"; done', place)
    assert contents(view, "f") == ["content 1", "content 2"]


def test_an_editor_that_writes_in_place_and_syncs_leaves_one(place, view):
    save = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
for piece in sys.argv[2:]:
    os.write(fd, piece.encode())
    os.fsync(fd)
os.close(fd)
"""
    python(save, place / "f", "first", " one")
    python(save, place / "f", "second", " one")
    python(save, place / "f", "third", " one")
    assert contents(view, "f") == ["first one", "second one"]


def test_an_editor_that_renames_a_new_file_over_keeps_the_document(place, view):
    sh('echo -n 1 > "$1/f"', place)
    first = doc_id(place / "f")
    for number in (2, 3):
        sh('echo -n "$2" > "$1/.f.tmp"; sync "$1/.f.tmp"; mv "$1/.f.tmp" "$1/f"', place, number)
    assert doc_id(place / "f") == first
    assert contents(view, "f") == ["1", "2"]
    assert sh('cat "$1/f"', place) == "3"


def test_an_editor_that_keeps_a_backup_gives_it_the_document(place, view):
    sh('echo -n 1 > "$1/f"', place)
    first = doc_id(place / "f")
    sh('mv "$1/f" "$1/f~"; echo -n 2 > "$1/f"', place)
    assert doc_id(place / "f~") == first
    assert doc_id(place / "f") != first
    assert contents(view, "f") == []
    # As vim does with backupcopy=yes: the backup is the copy, so the file stays what it is.
    sh('cp "$1/f" "$1/f.bak"; echo -n 3 > "$1/f"', place)
    assert contents(view, "f") == ["2"]


def test_rsync_keeps_the_document_and_the_former_content(place, view, outside):
    sh('echo -n before > "$1/f"; rsync -a "$1/" "$2/"', outside, place)
    first = doc_id(place / "f")
    sh('echo -n "after it" > "$1/f"; rsync -a "$1/" "$2/"', outside, place)
    assert doc_id(place / "f") == first
    assert contents(view, "f") == ["before"]
    sh('rsync -a --delete --inplace "$1/" "$2/"', outside, place)
    assert contents(view, "f") == ["before"]


# ---- the view


def test_the_view_is_found_by_name_and_never_listed(versioned, place):
    listed = sh('ls -A "$1"', versioned.path)
    assert ".cozy_versions" not in listed
    assert place.name in sh('ls "$1/.cozy_versions"', versioned.path).splitlines()
    assert ".cozy_versions" not in sh('find "$1" -maxdepth 1', versioned.path)


def test_a_directory_of_the_view_lists_directories_and_files_that_have_versions(place, view):
    sh('cd "$1"; mkdir d; echo 1 > f; echo 2 > f; echo 1 > new; ln -s f link', place)
    assert sh('ls "$1"', view).split() == ["d", "f"]
    assert sh('ls "$1/d"; ls "$1/new"', view) == ""
    for name in ("absent", "link", "f/2026", "d/absent"):
        assert run("ls", view / name).code != 0


def test_versions_can_be_compared_copied_and_searched(place, view, outside):
    big = outside / "big"
    sh('head -c 9000000 /dev/urandom > "$1"; cp "$1" "$2/f"; echo 2 > "$2/f"', big, place)
    (name,) = sh('ls "$1/f"', view).split()
    sh('cmp "$1" "$2"; cp -p "$1" "$3/copy"; cmp "$1" "$3/copy"', view / "f" / name, big, outside)
    sh('tail -c 1000 "$1" | cmp - <(tail -c 1000 "$2")', view / "f" / name, big)
    assert run("diff", "-q", view / "f" / name, place / "f").code == 1
    assert sh('find "$1" -type f', view) == f"{view}/f/{name}\n"
    assert sh('stat -c "%s %F" "$1"', view / "f" / name) == "9000000 regular file\n"


def test_the_time_of_a_version_is_that_of_its_content(place, view):
    sh('cd "$1"; echo 1 > f; touch -d 2026-01-31T09:00:00Z f; echo 22 > f', place)
    sh('cd "$1"; touch -d 2026-01-31T09:00:00.5Z f; echo 333 > f', place)
    assert sh('ls -U "$1/f"', view).split() == ["2026-01-31T09:00:00Z", "2026-01-31T09:00:00Z~2"]
    assert sh('TZ=UTC date -Is -r "$1"', view / "f/2026-01-31T09:00:00Z") == (
        "2026-01-31T09:00:00+00:00\n"
    )


def test_the_view_follows_the_tree_at_once(place, view):
    sh('cd "$1"; echo -n 1 > f; echo -n 2 > f', place)
    assert contents(view, "f") == ["1"]
    sh('cd "$1"; mkdir d; mv f d/g', place)
    assert contents(view, "d/g") == ["1"]
    assert run("ls", view / "f").code != 0
    sh('cd "$1"; rm -r d; mkdir f', place)
    assert sh('stat -c %F "$1/f"; ls "$1/f"', view) == "directory\n"


@pytest.mark.parametrize(
    "change",
    [
        'echo 1 > "$1/f/new"',
        'mkdir "$1/new"',
        'rm "$1"/f/*',
        'rmdir "$1/d"',
        'echo 1 >> "$1"/f/2*',
        'chmod 777 "$1"/f/2*',
        'touch "$1"/f/2*',
        'mv "$1"/f "$1"/g',
        'mv "$1"/f/2* "$1/../../"',
        'ln "$1"/f/2* "$1/../../new"',
        'ln -s x "$1/new"',
        'mkfifo "$1/new"',
        'setfattr -n user.x -v 1 "$1/f" || python3 -c "import os,sys; '
        "os.setxattr(sys.argv[1], 'user.x', b'1')\" \"$1/f\"",
        'mv "$1/../../$(basename "$1")/f" "$1/new"',
        'rmdir "$(dirname "$1")"',
        'mv "$(dirname "$1")" "$1/../../other"',
        'truncate -s 0 "$1"/f/2*',
    ],
)
def test_nothing_can_be_changed_in_the_view_whoever_asks(place, view, change):
    sh('cd "$1"; mkdir d; echo -n 1 > f; echo -n 2 > f', place)
    done = run("bash", "-c", change, "sh", view, env={"LC_ALL": "C"})
    assert done.code != 0
    assert "Read-only file system" in done.err or "Permission denied" in done.err, done.err
    assert contents(view, "f") == ["1"]


def test_the_name_of_the_view_cannot_be_taken(versioned, place):
    for command in ("mkdir", "touch"):
        run(command, versioned / ".cozy_versions")
    assert run("mv", "-T", place, versioned / ".cozy_versions").code != 0
    assert sh('stat -c %A "$1/.cozy_versions"', versioned.path).startswith("dr-x")
    assert run("stat", place).code == 0


@root_only
def test_who_may_not_read_a_file_may_not_read_its_versions(file_mounts):
    mount = file_mounts.start("--version-delay", "0", "-o", "allow_other")
    sh(
        'cd "$1"; chmod 755 .; umask 077; mkdir d;'
        "for i in 1 2; do echo $i > f; echo $i > d/f; done",
        mount.path,
    )
    view = mount / ".cozy_versions"
    for path in ("f/$(ls f)", "d/f", "f"):
        look = f'cd "$1"; ls -l "{path}" && cat "{path}"'
        done = run("setpriv", "--reuid=1000", "--clear-groups", "bash", "-c", look, "sh", view)
        assert done.code != 0
    sh('chmod 644 "$1/f"', mount.path)
    assert sh('cd "$1"; setpriv --reuid=1000 --clear-groups bash -c "cat f/*"', view) == "1\n"


def test_a_mount_that_follows_shows_versions_too(mounts, tmp_path, request, store):
    writer = mounts.start("--version-delay", "0")
    sh('cd "$1"; echo 1 > f; echo 2 > f', writer.path)
    mounts.cozyfs("flush", writer.path).check()
    reader_env = Mounts(tmp_path / "other", mounts.env["COZYFS_FS_URL"])
    with contextlib.closing(reader_env):
        reader = reader_env.start("--read-only", create=False)
        assert sh('cat "$1"/.cozy_versions/f/*', reader.path) == "1\n"
        assert reader_env.cozyfs("versions", "cat", reader / "f").check().out == "1\n"
        refused = reader_env.cozyfs("versions", "restore", reader / "f")
        assert refused.code == 1
        assert refused.err.count("\n") == 1


def test_versions_are_there_after_mounting_again(mounts):
    with mounts.mounted("--version-delay", "0") as mount:
        sh('cd "$1"; echo -n 1 > f; echo -n 2 > f.tmp; mv f.tmp f; echo -n 3 > f', mount.path)
    with mounts.mounted() as mount:
        assert contents(mount / ".cozy_versions", "f") == ["1", "2"]
        assert sh('cat "$1/f"', mount.path) == "3"


def test_by_default_quick_changes_leave_one_version(file_mounts):
    with file_mounts.mounted() as mount:
        sh('cd "$1"; for i in 1 2 3 4; do echo -n $i > f; done', mount.path)
        assert contents(mount / ".cozy_versions", "f") == ["1"]


def test_the_instance_says_how_many_unless_the_mount_does(file_mounts):
    with file_mounts.mounted() as mount:
        sh('echo -n 1 > "$1/f"', mount.path)
    modify = ("instances", "modify", "alice.example.com", "--max-versions", "0")
    file_mounts.cozyfs(*modify).check()
    with file_mounts.mounted() as mount:
        sh('echo -n 2 > "$1/f"', mount.path)
        assert contents(mount / ".cozy_versions", "f") == []
    with file_mounts.mounted("--max-versions", "5") as mount:
        sh('echo -n 3 > "$1/f"', mount.path)
        assert contents(mount / ".cozy_versions", "f") == ["2"]


# ---- the command


def test_versions_are_listed_for_people_and_programs(place, versions):
    sh('cd "$1"; echo 1 > f; touch -d 2026-01-31T09:00:00Z f; echo 22 > f', place)
    lines = versions("ls", place / "f").check().out.splitlines()
    assert lines[0].split() == ["VERSION", "SIZE", "REPLACED", "TAGS"]
    assert lines[1].split()[:3] == ["2026-01-31T09:00:00Z", "2", "B"]
    (listed,) = versions("ls", "--json", place / "f").check().json()
    assert listed["path"] == str(place / "f")
    assert listed["versions"][0]["version"] == "2026-01-31T09:00:00Z"
    assert listed["versions"][0]["size"] == "2"
    sh('echo 1 > "$1/g"; echo 2 > "$1/g"', place)
    several = versions("ls", place / "f", place / "g").check().out.splitlines()
    assert [line.split()[0] for line in several] == ["FILE", str(place / "f"), str(place / "g")]


def test_a_version_is_printed(place, versions):
    sh('cd "$1"; for i in 1 2 3; do echo -n $i > f; touch -d 2026-01-0${i}Z f; done', place)
    assert versions("cat", place / "f").check().out == "2"
    assert versions("cat", place / "f", "2026-01-01T00:00:00Z").check().out == "1"


def test_a_restored_content_is_seen_at_once_also_by_who_has_the_file_open(
    versioned, place, versions
):
    sh('echo -n first > "$1/f"; echo -n "second one" > "$1/f"', place)
    script = """
import os, subprocess, sys
with open(sys.argv[1], 'rb') as f:
    assert f.read() == b'second one'
    subprocess.run(sys.argv[2:], check=True)
    f.seek(0)
    print(f.read().decode(), os.fstat(f.fileno()).st_size)
"""
    restore = ("versions", "restore", place / "f")
    command = [sys.executable, "-m", "cozyfs", *restore]
    out = run("python3", "-c", script, place / "f", *command, env=versioned.mounts.env).check().out
    assert out == "first 5\n"
    assert sh('cat "$1/f"; stat -c " %s" "$1/f"', place) == "first 5\n"
    versions("restore", place / "f").check()
    assert sh('cat "$1/f"', place) == "second one"


def test_versions_are_removed_one_by_one_or_all(place, view, versions):
    sh('cd "$1"; for i in 1 2 3 4; do echo -n $i > f; touch -d 2026-01-01Z f; done', place)
    assert contents(view, "f") == ["1", "2", "3"]
    day = "2026-01-01T00:00:00Z"
    versions("rm", place / "f", day, f"{day}~2").check()
    assert contents(view, "f") == ["3"]
    versions("clear", place / "f").check()
    assert contents(view, "f") == []
    assert sh('cat "$1/f"', place) == "4"


def test_a_file_of_this_machine_becomes_a_version(place, view, versions, outside):
    sh('echo -n now > "$1/f"; echo -n "long ago" > "$2/old"', place, outside)
    day = "2020-02-29T12:00:00Z"
    done = versions("import", "--date", day, "--tag", "paper", place / "f", outside / "old")
    assert done.check().out == f"{day}\n"
    assert contents(view, "f") == ["long ago"]
    (listed,) = versions("ls", "--json", place / "f").check().json()
    assert listed["versions"][0]["tags"] == ["paper"]
    versions("tag", place / "f", day).check()
    (listed,) = versions("ls", "--json", place / "f").check().json()
    assert listed["versions"][0]["tags"] == []
    versions("restore", place / "f", day).check()
    assert sh('cat "$1/f"', place) == "long ago"


@pytest.mark.parametrize("store", ["file"], indirect=True)  # none of them gets as far as that
@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["ls", "absent"], 1),
        (["ls", "."], 2),
        (["cat", "f"], 1),
        (["cat", "f", "2026"], 1),
        (["restore", "f"], 1),
        (["restore", "f", "2026"], 1),
        (["rm", "f", "2026"], 1),
        (["rm", "f"], 2),
        (["import", "f", "absent"], 1),
        (["import", "f", "."], 2),
        (["import", "--date", "today", "f", "f"], 2),
        (["tag", "f", "2026", "x"], 1),
    ],
)
def test_what_cannot_be_is_one_line(place, versions, args, code):
    sh('echo 1 > "$1/f"', place)
    words = [place / w if w in ("f", "absent", ".") else w for w in args]
    done = versions(*words)
    assert (done.code, done.err.count("\n")) == (code, 1), done.err
    assert done.err.startswith("cozyfs: ")


def test_a_file_outside_of_mounts_has_no_versions(versions, outside):
    sh('echo 1 > "$1/f"', outside)
    done = versions("ls", outside / "f")
    assert done.code == 2
    assert "is not in a mount of cozyfs" in done.err
