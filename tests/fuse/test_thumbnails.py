"""Thumbnails and apps in a real mount: made by themselves, seen by viewers, gone with the file."""

from __future__ import annotations

import base64
import os

import pytest
from mounting import eventually, python, run, sh
from pictures import BLUE, RED, corners, encoded, looks, opened, plain

from cozyfs.store import LocalStore

MANIFEST = '{"version": "1.2.3"}'


def save(path, data, outside):
    """As ``cp`` does, from a file that is not in the mount."""
    source = outside / "source"
    source.write_bytes(data)
    sh('cp "$1" "$2"', source, path)


def content(path):
    """Bytes of a file in a mount, read by a child; None where there is none."""
    done = run("base64", "-w0", path)
    if done.code:
        assert "No such file" in done.err, done.err
        return None
    return base64.b64decode(done.out)


def colour(path):
    picture = content(path)
    return None if picture is None else looks(picture)[0]


def thumb(mount, name, form="tiny"):
    return mount / ".thumbs" / form / name


def objects(mounts):
    """Keys of thumbnails in the store, which is a folder."""
    store = LocalStore(mounts.folder.parent / "store")
    return [key for info in store.list("cozy-default") if "/thumbs/" in (key := info.key)]


def test_a_saved_image_gets_thumbnails_that_follow_its_content(mounts, outside):
    with mounts.mounted() as mount:
        run("mkdir", mount / "Photos").check()
        photo = mount / "Photos" / "a cat.jpg"
        save(photo, encoded(corners((2000, 1000)), "JPEG"), outside)
        eventually(lambda: content(thumb(mount, "Photos/a cat.jpg")) is not None)
        tiny = content(thumb(mount, "Photos/a cat.jpg"))
        assert opened(tiny).size == (96, 48)
        large = content(thumb(mount, "Photos/a cat.jpg", "large"))
        assert opened(large).size == (1920, 960)
        assert sh('stat -c %s "$1"', thumb(mount, "Photos/a cat.jpg")).strip() == str(len(tiny))
        save(photo, plain((300, 300), BLUE, "JPEG"), outside)
        eventually(lambda: colour(thumb(mount, "Photos/a cat.jpg")) == BLUE)


def test_the_views_are_found_by_name_alone_and_cannot_be_changed(file_mounts, outside):
    with file_mounts.mounted() as mount:
        save(mount / "a.png", plain(), outside)
        eventually(lambda: content(thumb(mount, "a.png")) is not None)
        assert sh('ls -A "$1"', mount.path).split() == [".cozy_trash", "a.png"]
        assert sh('ls "$1/.thumbs" "$1/.thumbs/small"', mount.path).count("a.png") == 1
        for script in ('rm "$1"', 'echo x > "$1"', 'mv "$1" "$2/x"'):
            done = run("bash", "-c", script, "sh", thumb(mount, "a.png"), mount.path)
            assert "Read-only file system" in done.err
        assert "Read-only file system" in run("mkdir", mount / ".thumbs" / "x").err
        sh('cp -r "$1" "$2"', mount.path, outside / "copy")
        assert sorted(os.listdir(outside / "copy")) == [".cozy_trash", "a.png"]


def test_a_file_that_is_renamed_into_place_gets_thumbnails(file_mounts, outside):
    with file_mounts.mounted() as mount:
        save(mount / ".a.jpg.Xy12Z", plain(kind="JPEG"), outside)
        sh('mv "$1/.a.jpg.Xy12Z" "$1/a.jpg"', mount.path)
        eventually(lambda: colour(thumb(mount, "a.jpg")) == RED)
        save(mount / ".a.jpg.Xy12Z", plain(colour=BLUE, kind="JPEG"), outside)
        sh('mv "$1/.a.jpg.Xy12Z" "$1/a.jpg"', mount.path)
        eventually(lambda: colour(thumb(mount, "a.jpg")) == BLUE)


def test_thumbnails_stay_in_the_trash_and_go_when_it_is_emptied(file_mounts, outside):
    with file_mounts.mounted("--retention", "0", "--max-versions", "0") as mount:
        for name in ("stays.jpg", "goes.jpg", "replaced.jpg"):
            save(mount / name, plain(kind="JPEG"), outside)
        save(mount / "other", plain(colour=BLUE, kind="JPEG"), outside)
        sh('mv "$1/other" "$1/replaced.jpg"', mount.path)
        eventually(lambda: colour(thumb(mount, "replaced.jpg")) == BLUE)
        eventually(lambda: len(objects(file_mounts)) == 12)
        run("rm", mount / "goes.jpg", mount / "replaced.jpg").check()
        assert len(objects(file_mounts)) == 12
        file_mounts.cozyfs("trash", "empty", "--yes", mount.path).check()
        eventually(lambda: len(objects(file_mounts)) == 4)
        assert content(thumb(mount, "stays.jpg")) is not None


def test_without_thumbs_none_are_made_until_somebody_asks(file_mounts, outside):
    with file_mounts.mounted("-o", "nothumbs") as mount:
        run("mkdir", "-p", mount / "d" / "e").check()
        for name in ("d/a.jpg", "d/e/b.png"):
            save(mount / name, plain(kind="PNG"), outside)
        save(mount / "d" / "bad.jpg", b"no image", outside)
        sh('echo text > "$1/d/text.txt"', mount.path)
        command = file_mounts.cozyfs
        missing = command("thumbnails", "show", mount / "d" / "a.jpg", "-o", outside / "t.jpg")
        assert (missing.code, missing.err.count("\n")) == (1, 1)
        assert "there is no small thumbnail" in missing.err
        done = command("thumbnails", "build", mount / "d").check()
        assert done.out == "made the thumbnails of 2 files\n"
        assert "no picture can be made of 1 file" in done.err
        command("thumbnails", "show", mount / "d" / "a.jpg", "-o", outside / "t.jpg").check()
        assert opened((outside / "t.jpg").read_bytes()).size == (200, 100)
        again = command("thumbnails", "build", mount / "d" / "a.jpg").check()
        assert again.out == "made the thumbnails of 0 files\n"
        refused = command("thumbnails", "build", mount / "d" / "text.txt")
        assert (refused.code, "can have no thumbnail" in refused.err) == (1, True)
        command("thumbnails", "rm", mount / "d").check()
        assert objects(file_mounts) == []


def test_each_command_works_over_each_store(mounts, outside):
    with mounts.mounted("-o", "nothumbs") as mount:
        photo = mount / "a.jpg"
        save(photo, plain(kind="JPEG"), outside)
        built = mounts.cozyfs("thumbnails", "build", photo).check()
        assert built.out == "made the thumbnails of 1 file\n"
        target = outside / "t.jpg"
        mounts.cozyfs("thumbnails", "show", photo, "--format", "tiny", "-o", target).check()
        assert opened(target.read_bytes()).size == (96, 48)
        save(photo, plain(colour=BLUE, kind="JPEG"), outside)
        stale = mounts.cozyfs("thumbnails", "show", photo, "--format", "tiny", "-o", target)
        assert (stale.code, stale.err) == (
            1,
            f"cozyfs: {photo}: there is no tiny thumbnail ('cozyfs thumbnails build' makes those"
            " that can be made)\n",
        )
        mounts.cozyfs("thumbnails", "build", photo).check()
        mounts.cozyfs("thumbnails", "rm", photo).check()
        eventually(lambda: content(thumb(mount, "a.jpg")) is None)


def test_a_mount_that_only_reads_shows_them_and_makes_none(file_mounts, outside):
    with file_mounts.mounted() as mount:
        save(mount / "a.jpg", plain(kind="JPEG"), outside)
        eventually(lambda: content(thumb(mount, "a.jpg")) is not None)
    with file_mounts.mounted("--read-only", create=False) as mount:
        assert colour(thumb(mount, "a.jpg")) == RED
        done = file_mounts.cozyfs("thumbnails", "rm", mount / "a.jpg")
        assert done.code == 1
        assert len(objects(file_mounts)) == 4


def test_a_viewer_that_maps_and_seeks_sees_the_picture(file_mounts, outside):
    look = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as map:
        whole = map[:]
    file.seek(-2, 2)
    end = file.read()
    file.seek(0)
    print(whole == file.read(), end == b"\\xff\\xd9", whole[:2] == b"\\xff\\xd8")
"""
    with file_mounts.mounted() as mount:
        save(mount / "a.jpg", encoded(corners((2500, 2500)), "JPEG"), outside)
        eventually(lambda: content(thumb(mount, "a.jpg", "tiny")) is not None)
        assert python(look, thumb(mount, "a.jpg", "large")) == "True True True\n"


@pytest.mark.parametrize(
    ("kind", "view"), [("apps", ".cozy_apps"), ("konnectors", ".cozy_konnectors")]
)
def test_apps_of_the_store_can_be_read(mounts, outside, kind, view):
    folder = outside / "app"
    (folder / "assets").mkdir(parents=True)
    manifest = "manifest.webapp" if kind == "apps" else "manifest.konnector"
    (folder / manifest).write_text(MANIFEST)
    script = os.urandom(100) + b"let a = 1\n" * 300_000
    (folder / "assets" / "app.js").write_bytes(script)
    (folder / "empty").write_bytes(b"")
    tar = outside / "app.tar"
    sh('tar -C "$1" -cf "$2" .', folder, tar)
    with mounts.mounted() as mount:
        assert run("ls", mount / view).check().out == ""
        mounts.cozyfs(kind, "install", "alice.example.com", "drive", tar).check()
        assert sh('ls "$1/drive"', mount / view).split() == ["1.2.3"]
        top = mount / view / "drive" / "1.2.3"
        assert sh('ls "$1"', top).split() == ["assets", "empty", manifest]
        assert content(top / "assets" / "app.js") == script
        assert content(top / "empty") == b""
        assert sh('stat -c "%s %a" "$1"', top / "assets" / "app.js").split() == [
            str(len(script)),
            "400",
        ]
        assert sh('tail -c 11 "$1"', top / "assets" / "app.js") == "\nlet a = 1\n"
        assert "No such file" in run("ls", mount / view / "nothing").err
        assert "Read-only" in run("touch", top / "empty").err
