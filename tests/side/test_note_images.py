"""The images of notes: the original, and the thumb that a note shows."""

from __future__ import annotations

import pytest
from failing_store import FailingStore
from pictures import opened, plain

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
