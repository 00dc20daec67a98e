"""Icons and previews, by the MD5 of a file, for all instances of a store."""

from __future__ import annotations

import hashlib

import pytest
from failing_store import FailingStore
from pictures import corners, encoded, opened, plain, source_of

from cozyfs.errors import NoPicture, NotStored, StoreUnavailable, TooLarge, WrongContent
from cozyfs.side.previews import Previews
from cozyfs.side.render import Renderer
from cozyfs.store import FileBody
from cozyfs.threads import Caller

PDF = encoded(corners((400, 200)), "PDF")
MD5 = hashlib.md5(PDF).digest()


@pytest.fixture
def previews(store, prefix):
    return Previews(store, Caller(), prefix, Renderer(Caller()))


async def make(previews, name="icon", md5=MD5, mime="application/pdf", data=PDF):
    return await previews.make(name, md5, mime, len(data), source_of(data))


async def test_what_was_set_is_got_by_its_name(previews):
    await previews.set("icon", MD5, b"icon")
    await previews.set("preview", MD5, b"preview")

    assert await previews.get("icon", MD5) == b"icon"
    assert await previews.get("preview", MD5) == b"preview"


async def test_they_are_the_objects_that_a_cozy_server_reads(previews, store, prefix):
    await previews.set("icon", MD5, b"icon")
    await previews.set("preview", MD5, b"preview")

    found = {
        info.key: store.head(f"{prefix}-previews", info.key)
        for info in store.list(f"{prefix}-previews")
    }
    assert set(found) == {f"icon-{MD5.hex()}.jpg", f"{MD5.hex()}.jpg"}
    assert {info.content_type for info in found.values()} == {"image/jpg"}
    assert not any(info.metadata for info in found.values())


@pytest.mark.parametrize("name", ["icon", "preview"])
async def test_there_is_none_without_a_bucket_and_with_one(previews, store, prefix, name):
    for _ in range(2):
        with pytest.raises(NotStored) as caught:
            await previews.get(name, MD5)
        assert str(caught.value) == f"there is no {name} of the file"
        store.ensure_bucket(f"{prefix}-previews")


async def test_the_first_page_of_a_pdf_file_is_drawn_once(previews):
    icon = await make(previews)

    assert opened(icon).size == (96, 48)
    assert opened(await previews.get("preview", MD5)).size == (1080, 540)
    assert await previews.make("icon", MD5, "application/pdf", len(PDF), gone) == icon


async def gone():
    raise AssertionError("the file is read again")
    yield b""


async def test_an_image_has_them_too_and_is_not_enlarged_for_a_preview(previews):
    data = plain((50, 50))
    md5 = hashlib.md5(data).digest()

    assert opened(await make(previews, "preview", md5, "image/png", data)).size == (50, 50)
    assert opened(await previews.get("icon", md5)).size == (96, 96)


@pytest.mark.parametrize("mime", ["application/pdf", "image/png", "text/plain"])
async def test_of_garbage_there_is_none(previews, mime):
    with pytest.raises(NoPicture):
        await make(previews, md5=hashlib.md5(b"garbage").digest(), mime=mime, data=b"garbage")


async def test_a_picture_of_another_content_is_not_kept(previews):
    with pytest.raises(WrongContent):
        await make(previews, md5=bytes(16))

    with pytest.raises(NotStored):
        await previews.get("icon", bytes(16))


async def test_a_picture_larger_than_any_is_not_read(previews, store, prefix, tmp_path):
    with (tmp_path / "big").open("wb") as file:
        file.truncate((16 << 20) + 1)
    store.ensure_bucket(f"{prefix}-previews")
    store.put(f"{prefix}-previews", f"{MD5.hex()}.jpg", FileBody(tmp_path / "big"))

    with pytest.raises(TooLarge):
        await previews.get("preview", MD5)


async def test_a_picture_that_cannot_be_kept_is_given_all_the_same(local_store, prefix):
    store = FailingStore(local_store)
    store.fail_always("put")
    previews = Previews(store, Caller(timeout_s=0), prefix, Renderer(Caller()))

    assert opened(await make(previews)).size == (96, 48)


async def test_a_store_that_is_down_is_not_a_missing_picture(local_store, prefix):
    store = FailingStore(local_store)
    store.fail_always("head")
    previews = Previews(store, Caller(timeout_s=0), prefix, Renderer(Caller()))

    with pytest.raises(StoreUnavailable):
        await previews.get("icon", MD5)


async def test_an_md5_has_16_bytes(previews):
    with pytest.raises(ValueError):
        await previews.get("icon", b"../../x")
