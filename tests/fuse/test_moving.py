"""Moving instances beside real mounts."""

from __future__ import annotations

import contextlib

from mounting import DOMAIN, Mounts, eventually, python, run, sh
from moving_world import entries
from pictures import plain

BOB = "bob.example.com"


def test_an_export_beside_a_mount_has_what_was_written_and_an_import_is_refused(mounts, tmp_path):
    mount = mounts.start()
    sh('echo text > "$1/f"; mkdir "$1/d"; ln -s ../f "$1/d/link"', mount.path)
    archive = tmp_path / "a.tgz"
    mounts.cozyfs("instances", "export", DOMAIN, "-o", archive).check()
    assert sh('tar -xzOf "$1" Files/f', archive) == "text\n"
    sh('echo more > "$1/f"; cat "$1/f"', mount.path)

    refused = mounts.cozyfs("instances", "import", DOMAIN, archive)
    assert refused.code == 1
    assert "is mounted at" in refused.err


def test_an_imported_instance_can_be_mounted_also_as_it_was(file_mounts):
    with file_mounts.mounted() as mount:
        sh(
            'cd "$1"; mkdir -p a/b; echo one > a/b/f; chmod 640 a/b/f; touch -d @12345.678 a/b/f;'
            " ln a/b/f hard; ln -s nowhere soft",
            mount.path,
        )
    file_mounts.cozyfs("instances", "add", BOB).check()
    file_mounts.cozyfs("instances", "copy", DOMAIN, BOB).check()
    with file_mounts.mounted(domain=BOB) as mount:
        seen = sh('cd "$1"; cat hard; stat -c "%a %h %.3Y" a/b/f; readlink soft', mount.path)
        created = file_mounts.cozyfs("log", mount / "hard").check().out
    assert seen == "one\n640 2 12345.678\nnowhere\n"
    assert "created" in created
    now = sh("date +%FT%T.%NZ -u")
    with file_mounts.mounted(domain=BOB) as mount:
        sh('rm "$1/hard"; echo two > "$1/a/b/f"', mount.path)
    past = file_mounts.start("--at", now.strip(), domain=BOB, create=False)
    assert sh('cd "$1"; cat hard; stat -c %h a/b/f', past.path) == "one\n2\n"


FILL = """
import os, sys
top = sys.argv[1]

def write(path, data):
    with open(os.path.join(top, path), "wb") as file:
        file.write(data)

for folder in range(10):
    name = f"folder {folder}/\\u00e9t\\u00e9"
    os.makedirs(os.path.join(top, name))
    for number in range(20):
        write(f"{name}/f{number}.txt", os.urandom(number * 50))
for number in range(0, 20, 4):  # versions, two of some
    write(f"folder 1/\\u00e9t\\u00e9/f{number}.txt", b"second")
    if number % 8 == 0:
        write(f"folder 1/\\u00e9t\\u00e9/f{number}.txt", b"third, longer")
for number in range(20):
    at = os.path.join(top, f"folder 2/\\u00e9t\\u00e9/f{number}.txt")
    os.setxattr(at, "user.number", b"\\0%d" % number)
    os.chmod(at, 0o600 + number)
    os.utime(at, ns=(123456789, 10**18 + number))
    os.link(at, os.path.join(top, f"folder 3/\\u00e9t\\u00e9/link{number}"))
    os.symlink(f"../nowhere {number}", os.path.join(top, f"folder 4/link{number}"))
with open(os.path.join(top, "holes"), "wb") as file:
    file.truncate(64 << 20)
    file.seek(20 << 20)
    file.write(b"in the middle" * 1000)
os.mkfifo(os.path.join(top, "fifo"))
write("gone.txt", b"first")
write("gone.txt", b"with a version, in the trash")
os.unlink(os.path.join(top, "gone.txt"))
# Taken over by what is renamed over it, as editors do: its object has another document's key.
write("letter.txt", b"old")
write("letter.new", b"new")
os.rename(os.path.join(top, "letter.new"), os.path.join(top, "letter.txt"))
"""

SEEN = """
import hashlib, os, stat, sys
top = sys.argv[1]
for path, folders, files in sorted(os.walk(top)):
    for name in sorted([*folders, *files]):
        at = os.path.join(path, name)
        found = os.lstat(at)
        shown = [os.path.relpath(at, top), oct(found.st_mode), found.st_nlink, found.st_size,
                 found.st_uid, found.st_gid, found.st_mtime_ns]
        if stat.S_ISREG(found.st_mode):
            with open(at, "rb") as file:
                shown.append(hashlib.md5(file.read()).hexdigest())
            shown += [(key, os.getxattr(at, key)) for key in sorted(os.listxattr(at))]
        elif stat.S_ISLNK(found.st_mode):
            shown.append(os.readlink(at))
        print(*shown)
"""


def test_what_a_mount_made_on_s3_is_the_same_in_a_folder(s3_server, tmp_path, outside):
    with contextlib.ExitStack() as stack:
        one = Mounts(tmp_path / "one", s3_server.url())
        two = Mounts(tmp_path / "two", f"file://{tmp_path}/store")
        stack.enter_context(contextlib.closing(one))
        stack.enter_context(contextlib.closing(two))
        with one.mounted("--version-delay", "0") as mount:
            python(FILL, mount.path, timeout_s=60)
            for number in range(4):
                colour = (number * 60, 0, 0)
                (outside / "photo").write_bytes(plain((800, 600), colour, "JPEG"))
                sh('cp "$1" "$2"', outside / "photo", mount / f"photo{number}.jpg")
            for number in range(4):
                large = mount / ".thumbs" / "large" / f"photo{number}.jpg"
                eventually(lambda at=large: run("cat", at).code == 0)
            sh('rm -r "$1/folder 5" "$1/photo3.jpg"', mount.path)
            first_seen = python(SEEN, mount.path, timeout_s=60)
        one.cozyfs(
            "instances", "modify", DOMAIN, "--max-versions", "7", "--trash-age", "0"
        ).check()
        first, second = tmp_path / "first.tgz", tmp_path / "second.tgz"
        one.cozyfs("instances", "export", DOMAIN, "-o", first).check()
        two.cozyfs("instances", "add", BOB).check()
        two.cozyfs("instances", "import", BOB, first).check()
        two.cozyfs("instances", "export", BOB, "-o", second).check()
        assert entries(second) == entries(first)
        checked = two.cozyfs("fsck", "--deep", BOB)
        assert (checked.code, checked.out) == (0, "")

        names = [name for name, _ in entries(first)]
        assert sum(name.startswith("Objects/thumbs/") for name in names) == 16
        assert sum(name.startswith("io.cozy.files.versions/") for name in names) == 9
        assert sum(name.startswith("cozyfs.entries/") for name in names) == 21
        shown = two.cozyfs("instances", "show", "--json", BOB).json()
        assert (shown["max_versions"], shown["trash_age_s"]) == (7, 0)
        with two.mounted(domain=BOB, create=False) as mount:
            assert python(SEEN, mount.path, timeout_s=60) == first_seen
            sh('cd "$1/.cozy_versions/folder 1/été/f8.txt"; test "$(ls | wc -l)" = 2', mount.path)
            two.cozyfs("trash", "restore", mount / ".cozy_trash" / "folder 5").check()
            two.cozyfs("trash", "restore", mount / ".cozy_trash" / "gone.txt").check()
            restored = sh('cat "$1/gone.txt"; ls "$1/folder 5/été" | wc -l', mount.path)
            assert restored == "with a version, in the trash20\n"
