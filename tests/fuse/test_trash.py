"""The trash of a real mount: what tools remove comes back exactly, and is seen at once."""

from __future__ import annotations

import json

import pytest
from mounting import eventually, python, run, sh

LOOK = (
    'cd "$1"; find . -printf "%p %y %m %U %G %s %T@ %l\\n" | sort;'
    " find . -type f | sort | xargs -r md5sum;"
    ' for f in 2024/2.jpg; do getfattr -d "$f"; done'
)


@pytest.fixture
def mount(mounts):
    with mounts.mounted() as mount:
        yield mount


def cozyfs(mount, *args):
    return mount.mounts.cozyfs("trash", *args).check()


def listed(mount):
    return json.loads(cozyfs(mount, "ls", "--json", mount.path).out)


def make_photos(mount):
    sh(
        """cd "$1"; mkdir -p photos/2024/empty photos/none
        for n in $(seq 30); do echo "content $n" > photos/2024/$n.jpg; done
        touch photos/__init__.py; echo x > photos/notes~; ln -s 2024/1.jpg photos/link
        mkfifo photos/pipe
        chmod 600 photos/2024/1.jpg; chmod 2750 photos/none
        python3 -c 'import os,sys; os.setxattr("photos/2024/2.jpg", "user.note", b"hello")'
        touch -d 2001-02-03T04:05:06.789 photos/2024/3.jpg photos/2024/empty photos/2024
        touch -d 2002-02-03T04:05:06.789 photos photos/none""",
        mount.path,
    )


def test_rm_r_of_a_tree_and_restore_give_exactly_the_tree(mount):
    make_photos(mount)
    before = sh(LOOK, mount / "photos")

    sh('rm -r "$1/photos"; test ! -e "$1/photos"', mount.path)
    assert sh('ls "$1/.cozy_trash"', mount.path) == "photos\n"
    (item,) = listed(mount)
    assert (item["name"], item["path"], item["kind"]) == ("photos", "/photos", "directory")
    done = cozyfs(mount, "restore", mount / ".cozy_trash/photos")

    assert done.out == f"{mount.path}/photos\n"
    assert sh(LOOK, mount / "photos") == before
    assert sh('ls -A "$1/.cozy_trash"', mount.path) == ""
    assert listed(mount) == []


def test_mv_restores_and_rm_in_the_trash_destroys(mount):
    sh('cd "$1"; mkdir d; echo 1 > d/a; echo 2 > d/b; rm d/a d/b', mount.path)
    assert sh('cd "$1"; mv .cozy_trash/a d/; cat d/a; ls .cozy_trash', mount.path) == "1\nb\n"
    sh('rm "$1/.cozy_trash/b"; rmdir "$1/d" && exit 1; test -e "$1/d/a"', mount.path)
    assert listed(mount) == []


def test_the_kernel_forgets_that_a_name_was_not_in_the_trash(mount):
    for name in ("a", "b", "c"):
        sh('cd "$1"; echo "$2" > "$2"; test ! -e ".cozy_trash/$2"; ls -la .cozy_trash; rm "$2"',
           mount.path, name)  # fmt: skip
        trashed = mount / ".cozy_trash" / name
        eventually(lambda path=trashed: run("cat", path).out == path.name + "\n")
    sh('cd "$1"; test ! -e a; test ! -e b; ls .cozy_trash/c', mount.path)
    sh('touch -r "$1/.cozy_trash" "$1/../before"', mount.path)
    cozyfs(mount, "restore", mount / ".cozy_trash/a", mount / ".cozy_trash/b")
    shown = sh('cd "$1"; cat a b; ls .cozy_trash; test ! -e .cozy_trash/a; ls', mount.path)
    assert shown == "a\nb\nc\na\nb\n"
    cozyfs(mount, "rm", "--yes", mount / ".cozy_trash/c")
    sh('test ! -e "$1/.cozy_trash/c"', mount.path)


def test_an_open_file_has_no_link_left_and_its_last_stored_content_is_in_the_trash(mount):
    shown = python(
        """
import os, sys
os.chdir(sys.argv[1])
fd = os.open("f", os.O_RDWR | os.O_CREAT)
os.write(fd, b"stored")
os.fsync(fd)
parent = os.stat(".").st_mtime_ns
os.unlink("f")
assert os.stat(".").st_mtime_ns > parent
assert os.fstat(fd).st_nlink == 0
os.pwrite(fd, b"later!", 0)
assert os.pread(fd, 10, 0) == b"later!"
os.close(fd)
print(open(".cozy_trash/f").read(), os.stat(".cozy_trash/f").st_nlink)
""",
        mount.path,
    )
    assert shown == "stored 1\n"


def test_a_directory_that_is_somebodys_working_directory_goes_as_on_a_disk(mount):
    shown = python(
        """
import os, sys
os.chdir(sys.argv[1])
os.mkdir("d")
os.chdir("d")
os.rmdir("../d")
print(os.stat(".").st_nlink, os.listdir("."))
try:
    open("f", "w")
except OSError as exc:
    print(exc.strerror)
""",
        mount.path,
    )
    assert shown == "0 []\nNo such file or directory\n"
    assert [item["name"] for item in listed(mount)] == ["d"]


def test_what_editors_make_in_passing_is_not_kept(mount):
    sh(
        """cd "$1"; echo 1 > doc
        echo 2 > .doc.swp; rm .doc.swp
        echo 2 > doc~; mv -f doc doc~; echo 3 > doc; rm doc~
        echo 4 > .doc.tmp; mv .doc.tmp doc
        touch 4913; rm 4913
        ln -s me@host .#doc; rm .#doc; ls -A .cozy_trash""",
        mount.path,
    )
    assert listed(mount) == []


def test_nothing_new_can_be_made_in_the_trash(mount):
    done = run("touch", mount / ".cozy_trash/new")
    assert "Operation not permitted" in done.err
    assert "Operation not permitted" in run("mkdir", mount / ".cozy_trash/new").err
    assert "busy" in run("rmdir", mount / ".cozy_trash").err


def test_emptying_asks_and_goes_by_age(mount):
    sh('cd "$1"; for n in 1 2 3; do echo $n > f$n; rm f$n; done', mount.path)

    refused = mount.mounts.cozyfs("trash", "empty", mount.path)
    assert refused.code != 0
    assert len(listed(mount)) == 3
    assert cozyfs(mount, "empty", "--yes", "--older-than", "1h", mount.path).out == (
        "removed 0 items\n"
    )
    assert cozyfs(mount, "empty", "--yes", mount.path).out == "removed 3 items\n"
    assert listed(mount) == []
    assert sh('ls -A "$1/.cozy_trash"', mount.path) == ""


def test_what_is_not_in_the_trash_is_refused_in_one_line(mount):
    sh('echo 1 > "$1/f"', mount.path)
    for command in (["restore"], ["rm", "--yes"]):
        for path in ("f", ".cozy_trash/absent"):
            done = mount.mounts.cozyfs("trash", *command, mount / path)
            assert (done.code, done.err.count("\n")) == (1, 1)
            assert done.err.startswith(f"cozyfs: {mount.path}/{path}: ")
    assert sh('cat "$1/f"', mount.path) == "1\n"


def test_without_the_trash_what_is_removed_is_gone(file_mounts):
    with file_mounts.mounted("-o", "notrash") as mount:
        make_photos(mount)
        sh('rm -r "$1/photos"', mount.path)
        assert listed(mount) == []
        assert mount.status()["objects_to_delete"] > 30


def test_the_trash_survives_a_kill_and_is_cleaned_after_its_age(file_mounts):
    first = file_mounts.start()
    make_photos(first)
    sh('rm -r "$1/photos"', first.path)
    first.kill()
    run("umount", "-l", first.path)

    with file_mounts.mounted() as second:
        assert [item["name"] for item in listed(second)] == ["photos"]
    with file_mounts.mounted("--trash-age", "1") as third:
        sh('stat "$1/.cozy_trash/photos" >/dev/null 2>&1 || true', third.path)
        eventually(lambda: listed(third) == [])
        eventually(lambda: run("ls", "-A", third / ".cozy_trash").out == "")
        assert run("stat", third / ".cozy_trash/photos").code == 1


def test_large_trees_are_gathered_whole(file_mounts):
    with file_mounts.mounted() as mount:
        sh('mkdir "$1/many"; cd "$1/many"; for n in $(seq 1500); do ln -s t $n; done', mount.path)
        sh('rm -r "$1/many"', mount.path)
        eventually(lambda: len(listed(mount)) == 1)
        assert sh('ls "$1/.cozy_trash/many" | wc -l', mount.path) == "1500\n"
        cozyfs(mount, "rm", "-y", mount / ".cozy_trash/many")
        assert listed(mount) == []
