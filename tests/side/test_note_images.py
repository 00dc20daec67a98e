"""The images of notes: the original, and the thumb that a note shows."""

from __future__ import annotations

import pytest
from failing_store import FailingStore
from pictures import corners, encoded, opened, plain
from PIL import Image

from cozyfs.errors import NoPicture, NotStored, UsageError
from cozyfs.side.note_images import NoteImages
from cozyfs.side.render import Renderer
from cozyfs.threads import Caller

IMAGE = "abcdefghijklmnopqrstuvwxyz012345/019d35b1-9dc3-78ec-994d-f5443367f1b6"
WIDE = plain((1000, 2000))


@pytest.fixture
def images(store, instance):
    return NoteImages(store, Caller(), instance.bucket, instance.db_prefix, Renderer(Caller()))


def stored(store, instance):
    found = {}
    for info in store.list(instance.bucket, f"{instance.db_prefix}/thumbs/"):
        found[info.key.rpartition("-")[2]] = store.head(instance.bucket, info.key).content_type
        assert info.key.startswith(f"{instance.db_prefix}/thumbs/{IMAGE}-")
    return found


async def test_the_original_is_served_until_there_is_a_thumb(images, store, instance):
    await images.put(IMAGE, WIDE, "image/png")
    assert await (await images.open(IMAGE)).read() == WIDE

    await images.resize(IMAGE)

    served = await images.open(IMAGE)
    assert (served.content_type, opened(await served.read()).size) == ("image/jpeg", (768, 1536))
    assert stored(store, instance) == {"original": "image/png", "thumb": "image/jpeg"}


async def test_removing_takes_both_and_may_be_repeated(images, store, instance):
    await images.put(IMAGE, WIDE, "image/png")
    await images.resize(IMAGE)

    await images.remove(IMAGE)
    await images.remove(IMAGE)

    assert stored(store, instance) == {}
    with pytest.raises(NotStored) as caught:
        await images.open(IMAGE)
    assert str(caught.value) == "there is no image of the note"


async def test_an_image_that_was_never_stored_cannot_be_resized(images):
    with pytest.raises(NotStored):
        await images.resize(IMAGE)


@pytest.mark.parametrize(("data", "mime"), [(b"garbage", "image/png"), (b"<svg/>", "image/svg")])
async def test_an_image_that_cannot_be_drawn_is_served_as_it_is(images, data, mime):
    await images.put(IMAGE, data, mime)

    with pytest.raises(NoPicture):
        await images.resize(IMAGE)

    assert await (await images.open(IMAGE)).read() == data


async def test_a_marker_of_a_cozy_server_is_passed_over(images, store, instance):
    await images.put(IMAGE, WIDE, "image/png")
    store.put(instance.bucket, images.key(IMAGE, "thumb"), b"")

    assert (await images.open(IMAGE)).content_type == "image/png"


@pytest.mark.parametrize("image_id", ["", "note", "/uuid", "note/", "a/b/c"])
async def test_another_id_is_refused(images, image_id):
    with pytest.raises(UsageError):
        await images.open(image_id)


async def test_an_image_that_is_removed_while_it_is_drawn_leaves_nothing(
    local_store, instance_on_local
):
    store = FailingStore(local_store)
    alice = instance_on_local
    images = NoteImages(store, Caller(), alice.bucket, alice.db_prefix, Renderer(Caller()))
    await images.put(IMAGE, WIDE, "image/png")
    original = images.key(IMAGE, "original")
    store.before("put", lambda: local_store.delete(alice.bucket, original))

    with pytest.raises(NotStored):
        await images.resize(IMAGE)

    assert stored(local_store, alice) == {}


# ---- how wide


@pytest.mark.parametrize(
    ("size", "thumb"),
    [((767, 9), None), ((768, 2000), None), ((769, 4), (768, 4)), ((5000, 100), (768, 15))],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
async def test_only_what_is_wider_than_a_note_gets_a_thumb(
    images, store, instance, size, thumb, kind
):
    await images.put(IMAGE, plain(size, kind=kind), f"image/{kind.lower()}")

    assert await images.resize(IMAGE) == (thumb is not None)

    assert ("thumb" in stored(store, instance)) == (thumb is not None)
    served = await (await images.open(IMAGE)).read()
    assert opened(served).size == (thumb or size)


async def test_the_width_counts_as_the_image_is_seen(images):
    upright = encoded(corners((400, 900)), "JPEG", exif=turned(6))
    await images.put(IMAGE, upright, "image/jpeg")

    assert await images.resize(IMAGE)

    assert opened(await (await images.open(IMAGE)).read()).size == (768, 341)


async def test_the_images_of_a_note_are_listed(images):
    note, other = IMAGE.partition("/")[0], "another/0"
    for image in (IMAGE, f"{note}/2", other):
        await images.put(image, WIDE, "image/png")
    await images.resize(IMAGE)

    found = await images.of(note)

    assert list(found) == [IMAGE, f"{note}/2"]
    assert found[f"{note}/2"] == (len(WIDE), None)
    assert found[IMAGE].size == (await images.open(IMAGE)).size != len(WIDE)
    assert set(await images.keys(note)) == {
        images.key(image, name) for image in found for name in ("original", "thumb")
    }


async def test_removing_the_thumbs_keeps_the_originals(images, store, instance):
    await images.put(IMAGE, WIDE, "image/png")
    await images.resize(IMAGE)

    await images.remove_thumbs(IMAGE.partition("/")[0])

    assert stored(store, instance) == {"original": "image/png"}


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif
