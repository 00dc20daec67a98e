"""The view `/.thumbs`, over both stores."""

from __future__ import annotations

from stat import S_IMODE, S_ISDIR

import pytest
from failing_store import FailingStore
from world import make_tree

from cozyfs.errors import NoPicture, NotFound, ObjectNotFound, StoreUnavailable
from cozyfs.joined.thumbnail_view import REMEMBERED_S, ThumbnailView
from cozyfs.values import AttributeChanges
from cozyfs.vfs.paths import Paths

TREE = {"d": {"a.jpg": b"1", "b.jpg": b"2", "c.txt": b"3", "e": {}, "doc.pdf": b"4"}}


@pytest.fixture
async def view(fs, thumbnails, images, thumbnailer):
    """Of a tree in which one image, and a PDF, have thumbnails."""
    await make_tree(fs, TREE)
    for name in ("a.jpg", "doc.pdf"):
        await thumbnailer.build(Paths(fs).resolve(f"/d/{name}").ino)
    return ThumbnailView(fs, thumbnails, images)


async def read(view, *path):
    reader = await view.open(path)
    try:
        return await reader.read(0, 1000)
    finally:
        await reader.close()


async def names(view, *path):
    return [name for name, _ in await view.children(path)]


async def test_a_thumbnail_has_the_name_of_its_file(view):
    inode = await view.look((b"small", b"d", b"a.jpg"))
    assert inode.size == len(b"small of 1")
    assert await read(view, b"small", b"d", b"a.jpg") == b"small of 1"
    assert await read(view, b"tiny", b"d", b"doc.pdf") == b"tiny of 4"


async def test_directories_list_directories_and_images_with_thumbnails(view):
    assert await names(view) == [b"tiny", b"small", b"medium", b"large", b"notes"]
    assert await names(view, b"tiny", b"d") == [b"a.jpg", b"doc.pdf", b"e"]
    assert await names(view, b"large", b"d") == [b"a.jpg", b"e"]
    assert S_ISDIR((await view.look((b"tiny", b"d", b"e"))).mode)


@pytest.mark.parametrize(
    "path",
    [
        "huge",
        "tiny/d/b.jpg",
        "tiny/d/c.txt",
        "tiny/d/nothing.jpg",
        "large/d/doc.pdf",
        "tiny/d/a.jpg/x",
    ],
)
async def test_what_there_is_not_is_not_found(view, path):
    with pytest.raises(NotFound):
        await view.look(tuple(path.encode().split(b"/")))


async def test_who_may_read_the_file_may_read_the_thumbnail(fs, view):
    ino = Paths(fs).resolve("/d/a.jpg").ino
    changes = AttributeChanges(mode=0o750, uid=7, gid=8)
    await fs.set_attributes(ino, changes, None, 0)
    inode = await view.look((b"tiny", b"d", b"a.jpg"))
    assert (S_IMODE(inode.mode), inode.uid, inode.gid) == (0o440, 7, 8)


async def test_one_of_a_former_content_is_none(fs, view):
    await read(view, b"tiny", b"d", b"a.jpg")
    await Paths(fs).write_file("/d/a.jpg", b"other")
    with pytest.raises(NotFound):
        await view.look((b"tiny", b"d", b"a.jpg"))


async def test_a_marker_is_none(fs, view, thumbnailer, drawer):
    drawer.error = NoPicture("bad")
    await thumbnailer.build(Paths(fs).resolve("/d/b.jpg").ino)
    with pytest.raises(NotFound):
        await view.look((b"tiny", b"d", b"b.jpg"))


async def test_a_damaged_one_is_none_and_stays(fs, view, thumbnails):
    doc_id = Paths(fs).resolve("/d/b.jpg").doc_id
    key = thumbnails.key(doc_id, "tiny")
    fs.objects.store.put(fs.objects.bucket, key, b"what is this")
    with pytest.raises(NotFound):
        await view.look((b"tiny", b"d", b"b.jpg"))
    assert fs.objects.store.head(fs.objects.bucket, key).size == 12


async def test_one_that_is_replaced_while_it_is_read_is_an_error(fs, view, thumbnails):
    doc_id = Paths(fs).resolve("/d/a.jpg").doc_id
    reader = await view.open((b"tiny", b"d", b"a.jpg"))
    fs.objects.store.put(fs.objects.bucket, thumbnails.key(doc_id, "tiny"), b"tiny of X")
    with pytest.raises(ObjectNotFound, match="replaced"):
        await reader.read(0, 100)


async def test_the_store_is_asked_once_for_a_file_that_is_opened(fs, thumbnails, view):
    failing = FailingStore(fs.objects.store)
    thumbnails._store = failing
    path = (b"tiny", b"d", b"a.jpg")
    await view.look(path)
    await view.look(path)
    assert await read(view, *path) == b"tiny of 1"
    assert failing.calls["head"] == 1
    assert REMEMBERED_S <= 2


async def test_other_files_ask_the_store_nothing(fs, thumbnails, view):
    failing = FailingStore(fs.objects.store)
    thumbnails._store = failing
    with pytest.raises(NotFound):
        await view.look((b"tiny", b"d", b"c.txt"))
    assert not failing.calls["head"]


async def test_a_store_that_does_not_answer_is_an_error(fs, thumbnails, view):
    failing = FailingStore(fs.objects.store)
    thumbnails._store = failing
    fs.objects.caller.timeout_s = 0.0
    failing.fail("head")
    with pytest.raises(StoreUnavailable):
        await view.children((b"tiny", b"d"))
    assert await names(view, b"tiny", b"d") == [b"a.jpg", b"doc.pdf", b"e"]
