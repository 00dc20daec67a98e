"""The images of notes: seen in `/.thumbs/notes`, made small when somebody asks, gone with it."""

from __future__ import annotations

import os
from stat import S_IMODE, S_ISDIR, S_ISREG

import pytest
from world import make_tree

from cozyfs.errors import InvalidRequest, LeaseLost, NoPicture, NotFound, ReadOnly
from cozyfs.joined.beside import Beside
from cozyfs.joined.thumbnail_requests import HANDLERS
from cozyfs.joined.thumbnail_view import ThumbnailView
from cozyfs.joined.thumbnailer import Thumbnailer
from cozyfs.side.note_images import NoteImages
from cozyfs.side.thumbnails import Outcome
from cozyfs.values import AttributeChanges
from cozyfs.vfs.deletions import delete_due
from cozyfs.vfs.paths import Paths

WIDE, LITTLE = "019d35b1-9dc3-78ec-994d-f5443367f1b6", "019d35b1-9dc3-78ec-994d-f5443367f1b7"
TREE = {"d": {"a.cozy-note": b"text", "b.cozy-note": b"", "c.jpg": b"1", "e": {}}}


@pytest.fixture
async def note(fs, images):
    """With a wide image and a little one, beside one without any."""
    await make_tree(fs, TREE)
    inode = Paths(fs).resolve("/d/a.cozy-note")
    await images.put(f"{inode.doc_id}/{WIDE}", b"wide one", "image/png")
    await images.put(f"{inode.doc_id}/{LITTLE}", b"little", "image/png")
    return inode


@pytest.fixture
def view(fs, thumbnails, images, note):
    return ThumbnailView(fs, thumbnails, images)


async def names(view, *path):
    return [name for name, _ in await view.children(path)]


async def read(view, *path):
    reader = await view.open(path)
    try:
        return await reader.read(0, 1000)
    finally:
        await reader.close()


def stored(fs, note):
    folder = f"{fs.objects.db_prefix}/thumbs/{note.doc_id}/"
    found = fs.objects.store.list(fs.objects.bucket, folder)
    return {info.key.removeprefix(folder) for info in found}


ORIGINALS = {f"{WIDE}-original", f"{LITTLE}-original"}


# ---- seen


async def test_a_note_is_a_directory_of_its_images(view):
    assert await names(view, b"notes") == [b".cozy_trash", b"d"]
    assert await names(view, b"notes", b"d") == [b"a.cozy-note", b"b.cozy-note", b"e"]
    path = (b"notes", b"d", b"a.cozy-note")
    assert await names(view, *path) == [WIDE.encode(), LITTLE.encode()]
    assert S_ISDIR((await view.look(path)).mode)
    assert await names(view, b"notes", b"d", b"b.cozy-note") == []
    assert await names(view, b"tiny", b"d") == [b"e"]


async def test_an_image_is_what_the_note_shows(view, thumbnailer, note):
    path = (b"notes", b"d", b"a.cozy-note", WIDE.encode())
    assert await read(view, *path) == b"wide one"
    await thumbnailer.build(note.ino)
    assert await read(view, *path) == b"thumb of wide one"
    assert await read(view, *path[:-1], LITTLE.encode()) == b"little"


async def test_its_size_is_that_of_what_is_read(view, thumbnailer, note):
    await thumbnailer.build(note.ino)
    shown = dict(await view.children((b"notes", b"d", b"a.cozy-note")))
    assert shown[WIDE.encode()].size == len(b"thumb of wide one")
    assert S_ISREG(shown[WIDE.encode()].mode)
    assert (await view.look((b"notes", b"d", b"a.cozy-note", LITTLE.encode()))).size == 6


async def test_who_may_read_the_note_may_read_its_images(fs, view, note):
    await fs.set_attributes(note.ino, AttributeChanges(mode=0o640, uid=7, gid=8), None, 0)
    folder = await view.look((b"notes", b"d", b"a.cozy-note"))
    assert (S_IMODE(folder.mode), folder.uid, folder.gid) == (0o550, 7, 8)
    image = await view.look((b"notes", b"d", b"a.cozy-note", WIDE.encode()))
    assert (S_IMODE(image.mode), image.uid, image.gid) == (0o440, 7, 8)


@pytest.mark.parametrize(
    "path",
    [
        "d/c.jpg",
        "d/nothing",
        "d/a.cozy-note/nothing",
        f"d/a.cozy-note/{WIDE}/x",
        "d/a.cozy-note/x/y",
    ],
)
async def test_what_there_is_not_is_not_found(view, path):
    path = (b"notes", *path.encode().split(b"/"))
    for look in (view.look, view.children, view.open):
        with pytest.raises(NotFound):
            await look(path)


# ---- made and removed


async def test_only_what_is_wider_than_a_note_gets_a_thumb(fs, thumbnailer, note):
    assert await thumbnailer.build(note.ino) is Outcome.MADE
    assert stored(fs, note) == {*ORIGINALS, f"{WIDE}-thumb"}
    assert await thumbnailer.build(note.ino) is None


async def test_removing_thumbs_removes_no_image(fs, thumbnailer, note):
    await thumbnailer.build(note.ino)
    await thumbnailer.remove(note.ino)
    assert stored(fs, note) == ORIGINALS


async def test_an_image_that_cannot_be_drawn_is_no_error(fs, thumbnailer, drawer, note):
    drawer.error = NoPicture("bad")
    assert await thumbnailer.build(note.ino) is Outcome.FAILED
    assert stored(fs, note) == ORIGINALS


async def test_who_may_not_write_changes_nothing(fs, thumbnailer, confirmed, note):
    confirmed.refusal = LeaseLost("another mount writes")
    for work in (thumbnailer.build, thumbnailer.remove):
        with pytest.raises(LeaseLost):
            await work(note.ino)
    fs.turn_read_only()
    for work in (thumbnailer.build, thumbnailer.remove):
        with pytest.raises(ReadOnly):
            await work(note.ino)
    assert stored(fs, note) == ORIGINALS


async def test_a_note_in_the_trash_gets_none(fs, thumbnailer, note):
    Paths(fs).rename("/d/a.cozy-note", "/.cozy_trash/a.cozy-note")
    with pytest.raises(InvalidRequest, match="trash"):
        await thumbnailer.build(note.ino)


async def test_a_directory_means_its_notes_too(fs, thumbnailer, note):
    answers = []

    async def send(answer):
        answers.append(answer)

    await HANDLERS["thumbnails-build"](thumbnailer, {"path": "/"}, send)
    assert (answers[-1]["files"], answers[-1]["made"]) == (3, 2)
    assert f"{WIDE}-thumb" in stored(fs, note)
    await HANDLERS["thumbnails-remove"](thumbnailer, {"path": "/"}, send)
    assert stored(fs, note) == ORIGINALS


# ---- gone


async def delete_all(fs, thumbnails, images):
    await delete_due(fs.index, fs.objects, -1.0, set, Beside(thumbnails, images))


async def test_a_note_that_is_removed_for_good_loses_its_images(
    fs, thumbnails, images, thumbnailer, note
):
    await thumbnailer.build(note.ino)
    paths = Paths(fs)
    await paths.write_file("/other.cozy-note", b"x")
    other = paths.resolve("/other.cozy-note")
    await images.put(f"{other.doc_id}/{WIDE}", b"stays", "image/png")
    paths.rename("/d/a.cozy-note", "/.cozy_trash/a.cozy-note")
    await delete_all(fs, thumbnails, images)
    assert stored(fs, note) > ORIGINALS
    paths.remove("/.cozy_trash/a.cozy-note")
    await delete_all(fs, thumbnails, images)
    assert stored(fs, note) == set()
    assert stored(fs, other) == {f"{WIDE}-original"}


async def test_a_note_that_goes_while_its_images_are_drawn_leaves_no_thumb(
    fs, thumbnails, confirmed, drawer, note
):
    """Listed for its deletion before the thumb is stored, removed after."""

    class Going(NoteImages):
        async def resize(self, image_id):
            made = await super().resize(image_id)
            fs.trash.enabled = False
            Paths(fs).remove("/d/a.cozy-note")
            originals = [self.key(f"{note.doc_id}/{uuid}", "original") for uuid in (WIDE, LITTLE)]
            fs.objects.store.delete_many(fs.objects.bucket, originals)
            fs.index.forget_deletions(fs.index.due_deletions(1 << 62, 100))
            return made

    objects = fs.objects
    images = Going(objects.store, objects.caller, objects.bucket, objects.db_prefix, drawer)
    assert await Thumbnailer(fs, thumbnails, images, confirmed).build(note.ino) is Outcome.MADE
    assert stored(fs, note) == set()


async def test_an_id_that_begins_another_one_takes_nothing_of_that(fs, thumbnails, images):
    """Split ids of thumbnails look like folders of images."""
    key = thumbnails.key("n" * 22 + "o" * 10, "tiny")
    fs.objects.store.put(fs.objects.bucket, key, b"picture")
    assert await images.keys("n" * 22) == []
    assert os.path.dirname(key).endswith("n" * 22 + "/" + "o" * 5)
