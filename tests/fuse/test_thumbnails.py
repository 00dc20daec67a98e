"""Thumbnails and apps in a real mount: made by themselves, seen by viewers, gone with the file."""

from __future__ import annotations

import base64
import os
import struct
import time
import zlib
from pathlib import Path

import pytest
from mounting import eventually, python, run, sh
from pictures import BLUE, RED, corners, encoded, looks, opened, plain

from cozyfs import moments
from cozyfs.store import LocalStore
from cozyfs.store.keys import thumb_name

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


def test_a_mount_of_the_past_shows_no_picture_of_what_came_later(file_mounts, outside):
    with file_mounts.mounted() as mount:
        for name in ("same.jpg", "other.jpg"):
            save(mount / name, plain(kind="JPEG"), outside)
            eventually(lambda name=name: colour(thumb(mount, name)) == RED)
        file_mounts.cozyfs("flush", mount.path).check()
        at = moments.to_iso(time.time_ns() + 10**6)
        save(mount / "other.jpg", plain(colour=BLUE, kind="JPEG"), outside)
        eventually(lambda: colour(thumb(mount, "other.jpg")) == BLUE)
        before = objects(file_mounts)
        with file_mounts.mounted("--at", at, create=False) as then:
            assert colour(then / "other.jpg") == RED
            assert colour(thumb(then, "same.jpg")) == RED
            assert content(thumb(then, "other.jpg")) is None
            assert run("ls", then / ".thumbs" / "tiny").check().out.split() == ["same.jpg"]
            for command in ("build", "rm"):
                assert file_mounts.cozyfs("thumbnails", command, then / "other.jpg").code == 1
        assert objects(file_mounts) == before
        assert colour(thumb(mount, "other.jpg")) == BLUE


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


# ---- files that are made to do harm


def png(width, height, rows, *, depth=8, colour_type=0):
    """A PNG of that size whose lines are *rows*, compressed already or not at all."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def empty_lines(width_in_bytes, height):
    """Zeros, compressed a thousand times smaller; made without having them in memory."""
    packer = zlib.compressobj(1)
    line = bytes(1 + width_in_bytes)
    return b"".join([*(packer.compress(line) for _ in range(height)), packer.flush()])


def marked(mounts, mount, name):
    """Whether the store says that no thumbnail can be made of a file."""
    doc_id = sh('getfattr --only-values -n user.cozy.id "$1"', mount / name)
    store = LocalStore(mounts.folder.parent / "store")
    for info in store.list("cozy-default"):
        if f"/thumbs/{thumb_name(doc_id)}-tiny" in info.key:
            head = store.head("cozy-default", info.key)
            return (head.size, head.content_type) == (0, "application/octet-stream")
    return False


def test_an_image_that_would_fill_all_memory_harms_nothing(file_mounts, outside):
    bombs = {
        "huge.png": png(20_000, 20_000, empty_lines(2_500, 20_000), depth=1),
        "huge-colours.png": png(20_000, 20_000, empty_lines(60_000, 500), colour_type=2),
        "absurd.png": png(2**31 - 1, 2**31 - 1, b"", colour_type=6),
        "no-image.jpg": os.urandom(100_000),
    }
    with file_mounts.mounted() as mount:
        for name, data in bombs.items():
            save(mount / name, data, outside)
        # Not too many pixels, in 620 MB: whether that is a picture, the child's memory decides.
        lines = empty_lines(72_000, 500)
        save(mount / "large.png", png(9_000, 9_000, lines, depth=16, colour_type=6), outside)
        save(mount / "good.png", plain(), outside)
        eventually(lambda: colour(thumb(mount, "good.png")) == RED)
        eventually(lambda: mount.status()["thumbnails_to_make"] == 0)
        assert [name for name in bombs if not marked(file_mounts, mount, name)] == []
        assert mount.peak_memory() < 250 << 20
        assert content(thumb(mount, "huge.png")) is None
        assert mount.running


# ---- the end of a mount


def children(mount):
    text = [path.read_text() for path in Path(f"/proc/{mount.pid}/task").glob("*/children")]
    return {int(number) for number in " ".join(text).split()}


def test_unmounting_ends_the_process_that_draws(file_mounts, outside):
    drawers = set()
    with file_mounts.mounted() as mount:
        slow = png(9_990, 9_990, empty_lines(59_940, 9_990), depth=16, colour_type=2)
        save(mount / "slow.png", slow, outside)
        eventually(lambda: drawers.update(children(mount)) or drawers)
    assert [number for number in drawers if Path(f"/proc/{number}").exists()] == []
    assert objects(file_mounts) == []
    with file_mounts.mounted("-o", "nothumbs", create=False) as mount:
        assert run("cmp", mount / "slow.png", outside / "source").check().out == ""


# ---- notes


def test_the_images_of_a_note_are_seen_made_small_and_gone_with_it(file_mounts, outside):
    command, uuid = file_mounts.cozyfs, "019d35b1-9dc3-78ec-994d-f5443367f1b6"
    with file_mounts.mounted("--retention", "0") as mount:
        note, bare = mount / "Plans.cozy-note", mount / "bare.cozy-note"
        for path in (note, bare):
            sh('echo "# Plans" > "$1"', path)
        doc_id = sh('getfattr --only-values -n user.cozy.id "$1"', note)
        store = LocalStore(file_mounts.folder.parent / "store")
        prefix = next(info.key for info in store.list("cozy-default")).partition("/")[0]
        image = f"{prefix}/thumbs/{doc_id}/{uuid}"
        store.put(
            "cozy-default", f"{image}-original", plain((1000, 100)), content_type="image/png"
        )
        seen = mount / ".thumbs" / "notes" / "Plans.cozy-note" / uuid
        assert opened(content(seen)).size == (1000, 100)
        assert run("ls", mount / ".thumbs" / "notes").check().out.split() == [
            "Plans.cozy-note",
            "bare.cozy-note",
        ]
        assert (
            command("thumbnails", "build", note).check().out == "made the thumbnails of 1 file\n"
        )
        eventually(lambda: opened(content(seen)).size == (768, 77))
        asked = command("thumbnails", "show", note, "-o", outside / "t.jpg")
        assert (asked.code, asked.err.count("\n"), uuid in asked.err) == (2, 1, True)
        command("thumbnails", "show", note, "--image", uuid, "-o", outside / "t.jpg").check()
        assert opened((outside / "t.jpg").read_bytes()).size == (768, 77)
        none = command("thumbnails", "show", bare, "-o", outside / "t.jpg")
        assert (none.code, "the note has no images" in none.err) == (1, True)
        wrong = command("thumbnails", "show", note, "--image", "x", "-o", outside / "t.jpg")
        assert (wrong.code, "no such image" in wrong.err) == (1, True)
        command("thumbnails", "rm", note).check()
        assert objects(file_mounts) == [f"{image}-original"]
        sh('sed -i s/Plans/Ideas/ "$1"', note)
        run("rm", note).check()
        assert objects(file_mounts) == [f"{image}-original"]
        file_mounts.cozyfs("trash", "empty", "--yes", mount.path).check()
        eventually(lambda: objects(file_mounts) == [])


def test_an_image_that_changes_is_read_as_it_was_or_as_it_is(file_mounts):
    with file_mounts.mounted() as mount:
        sh('echo "# Plans" > "$1"', mount / "Plans.cozy-note")
        doc_id = sh('getfattr --only-values -n user.cozy.id "$1"', mount / "Plans.cozy-note")
        store = LocalStore(file_mounts.folder.parent / "store")
        prefix = next(info.key for info in store.list("cozy-default")).partition("/")[0]
        seen = mount / ".thumbs" / "notes" / "Plans.cozy-note" / "image"
        known = [None]
        for size in (1000, 20_000, 300, 100_000, 10, 400_000):
            image = os.urandom(size)
            store.put("cozy-default", f"{prefix}/thumbs/{doc_id}/image-original", image)
            known.append(image)
            assert content(seen) in known
        eventually(lambda: content(seen) == image)


# ---- all views together


VIEWS = (".cozy_apps", ".cozy_konnectors", ".cozy_versions", ".thumbs")


def test_views_are_trees_like_others_to_all_who_only_look(file_mounts, outside):
    with file_mounts.mounted("--version-delay", "0") as mount:
        sh('mkdir -p "$1/d/e" && echo 1 > "$1/d/t.txt" && echo 2 > "$1/d/t.txt"', mount.path)
        save(mount / "d" / "a.jpg", plain(kind="JPEG"), outside)
        eventually(lambda: content(thumb(mount, "d/a.jpg")) is not None)
        for view in VIEWS:
            top = mount / view
            assert run("ls", "-lR", top).check().err == ""
            files = sh('find "$1" -type f -printf "%P\\n"', top).split()
            sh('cp -r "$1" "$2"', top, outside / "copy")
            copied = sh('cd "$1" && find . -type f -printf "%P\\n"', outside / "copy").split()
            assert sorted(copied) == sorted(files)
            sh('rm -r "$1"', outside / "copy")
            assert sh('df --output=target "$1" | tail -1', top).strip() == str(mount.path)
            assert sh('df "$1"', top).splitlines()[1] == sh('df "$1"', mount.path).splitlines()[1]
            assert sh('du -s "$1" | cut -f1', top).strip().isdigit()
        assert "d/a.jpg" in sh('cd "$1/.thumbs/tiny" && find . -printf "%P\\n"', mount.path)
        assert "t.txt" in sh('ls -R "$1/.cozy_versions"', mount.path)


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_can_be_changed_or_replaced(file_mounts, view):
    with file_mounts.mounted() as mount:
        sh('mkdir "$1/d" && touch "$1/f"', mount.path)
        for script in (
            'touch "$1/x"',
            'mkdir "$1/x"',
            'ln -s x "$1/x"',
            'ln "$2/f" "$1/x"',
            'mkfifo "$1/x"',
            'mv "$2/f" "$1/x"',
            'mv -T "$1" "$2/x"',
            'rmdir "$1"',
            'chmod 777 "$1"',
            'touch "$1"',
            'setfattr -n user.a -v b "$1"',
            'mv -T "$2/d" "$1"',
        ):
            done = run("bash", "-c", script, "sh", mount / view, mount.path)
            assert "Read-only file system" in done.err, (script, done.err)
        for script in ('mkdir "$1"', 'ln -sT x "$1"'):
            assert "File exists" in run("bash", "-c", script, "sh", mount / view).err
        assert sh('ls -A "$1"', mount.path).split() == [".cozy_trash", "d", "f"]


def test_a_copy_of_the_whole_mount_has_no_views(file_mounts, outside):
    with file_mounts.mounted() as mount:
        save(mount / "a.jpg", plain(kind="JPEG"), outside)
        eventually(lambda: content(thumb(mount, "a.jpg")) is not None)
        for command in (["rsync", "-a"], ["cp", "-a"]):
            run(*command, f"{mount.path}/", outside / "copy").check()
            assert sh('find "$1" -name ".cozy_v*" -o -name ".thumbs"', outside / "copy") == ""
            assert "a.jpg" in sh('find "$1" -type f -printf "%f\\n"', outside / "copy").split()
            sh('rm -r "$1"', outside / "copy")
        tar = sh('tar -C "$1" -cf - . | tar -t', mount.path).split()
        assert sorted(tar) == ["./", "./.cozy_trash/", "./a.jpg"]
