"""Thumbnails over both stores: what a Cozy server would find there, and what it would not."""

from __future__ import annotations

import hashlib

import pytest
import trio
import trio.testing
from failing_store import FailingStore
from pictures import opened, plain, source_of

from cozyfs.errors import NoPicture, NotStored, SideError, StoreUnavailable, WrongContent
from cozyfs.side.render import Renderer
from cozyfs.side.thumbnails import FORMATS, Outcome, Thumbnails
from cozyfs.threads import Caller

DOC = "abcdefghijklmnopqrstuvwxyz012345"
BASE = "thumbs/abcdefghijklmnopqrstuv/wxyz0/12345"
UUID = "019d35b1-9dc3-78ec-994d-f5443367f1b6"
IMAGE = plain((2000, 1000), kind="JPEG")
MD5 = hashlib.md5(IMAGE).digest()
OTHER = bytes(16)
JPEG = "image/jpeg"


class Stub:
    """Draws without drawing: the names of the targets, or an error."""

    def __init__(self):
        self.error = None
        self.begun = trio.Event()
        self.may_end = trio.Event()
        self.may_end.set()

    async def draw(self, kind, source, targets, *, md5=None):
        self.begun.set()
        await self.may_end.wait()
        if self.error:
            raise self.error
        return {target.name: target.name.encode() for target in targets}


@pytest.fixture
def stub():
    return Stub()


@pytest.fixture
def thumbs(store, instance, stub):
    return Thumbnails(store, Caller(), instance.bucket, instance.db_prefix, stub)


@pytest.fixture
def real(store, instance):
    renderer = Renderer(Caller())
    return Thumbnails(store, Caller(), instance.bucket, instance.db_prefix, renderer)


async def build(thumbs, doc_id=DOC, md5=MD5, mime=JPEG, size=None, data=IMAGE):
    size = len(data) if size is None else size
    return await thumbs.build(doc_id, md5, mime, size, source_of(data))


def stored(store, instance):
    """Name -> (content, type, metadata) of the thumbnails of the instance."""
    found = {}
    for info in store.list(instance.bucket, f"{instance.db_prefix}/thumbs/"):
        whole = store.head(instance.bucket, info.key)
        name = info.key.removeprefix(f"{instance.db_prefix}/")
        data = store.get(instance.bucket, info.key)
        found[name] = (data, whole.content_type, dict(whole.metadata))
    return found


# ---- what is stored


async def test_an_image_gets_four_thumbnails(real, store, instance):
    assert await build(real) is Outcome.MADE

    found = stored(store, instance)
    assert {name: opened(data).size for name, (data, *_) in found.items()} == {
        f"{BASE}-tiny": (96, 48),
        f"{BASE}-small": (640, 320),
        f"{BASE}-medium": (1280, 640),
        f"{BASE}-large": (1920, 960),
    }
    assert {(kind, meta["file-md5"]) for _, kind, meta in found.values()} == {
        ("image/jpeg", MD5.hex())
    }


async def test_a_pdf_file_gets_the_tiny_one_alone(thumbs, store, instance):
    await build(thumbs, UUID)

    assert await build(thumbs, UUID, mime="application/pdf") is Outcome.MADE

    assert stored(store, instance) == {
        f"thumbs/{UUID}-tiny": (b"tiny", "image/jpeg", {"file-md5": MD5.hex()})
    }


async def test_where_no_picture_can_be_made_markers_say_so(real, store, instance):
    assert await build(real, data=b"x", md5=hashlib.md5(b"x").digest()) is Outcome.FAILED

    marker = (b"", "application/octet-stream", {})
    assert stored(store, instance) == {f"{BASE}-{name}": marker for name in FORMATS}


@pytest.mark.parametrize(
    ("mime", "size"),
    [
        ("text/plain", 1),
        ("image/svg+xml", 1),
        (JPEG, 100 << 20),
        (JPEG, 0),
        ("image/vnd.adobe.photoshop", 5 << 20),
    ],
)
async def test_a_file_that_is_of_no_use_has_none_and_no_marker(
    thumbs, store, instance, mime, size
):
    await build(thumbs)

    assert await build(thumbs, mime=mime, size=size) is Outcome.SKIPPED

    assert stored(store, instance) == {}


async def test_a_new_content_replaces_the_thumbnails_of_the_old(thumbs, store, instance):
    await build(thumbs, md5=OTHER)
    await build(thumbs)

    assert {meta["file-md5"] for *_, meta in stored(store, instance).values()} == {MD5.hex()}


async def test_markers_give_way_to_thumbnails(thumbs, stub):
    stub.error = NoPicture("damaged")
    await build(thumbs, md5=OTHER)
    stub.error = None
    await build(thumbs)

    assert await (await thumbs.open(DOC, "tiny", MD5)).read() == b"tiny"


@pytest.mark.parametrize("error", [WrongContent("changed"), SideError("no memory"), OSError(5)])
async def test_what_may_work_later_changes_nothing(thumbs, stub, store, instance, error):
    await build(thumbs, md5=OTHER)
    before = stored(store, instance)
    stub.error = error

    with pytest.raises(type(error)):
        await build(thumbs)

    assert stored(store, instance) == before


async def test_a_file_that_changes_while_it_is_read_gets_no_thumbnails(real, store, instance):
    with pytest.raises(WrongContent):
        await build(real, md5=OTHER)

    assert stored(store, instance) == {}


# ---- whether they are there


async def test_thumbnails_exist_for_their_content_alone(thumbs):
    await build(thumbs)

    assert [await thumbs.exists(DOC, name, MD5) for name in FORMATS] == [True] * 4
    assert [await thumbs.exists(DOC, name, OTHER) for name in FORMATS] == [False] * 4
    assert not await thumbs.exists(UUID, "tiny", MD5)


async def test_a_marker_exists_for_every_content(thumbs, stub):
    stub.error = NoPicture("damaged")
    await build(thumbs)

    assert await thumbs.exists(DOC, "large", OTHER)
    assert await thumbs.missing(DOC, MD5, JPEG, 1) == []


@pytest.mark.parametrize("md5", ["", "zz", "abcd"])
async def test_a_thumbnail_that_does_not_tell_its_content_exists(thumbs, store, instance, md5):
    key = thumbs.key(DOC, "tiny")
    store.put(instance.bucket, key, b"x", content_type=JPEG, metadata={"file-md5": md5})

    assert await thumbs.exists(DOC, "tiny", MD5)
    assert await (await thumbs.open(DOC, "tiny", MD5)).read() == b"x"


async def test_formats_that_are_missing_are_named(thumbs, store, instance):
    assert await thumbs.missing(DOC, MD5, "application/pdf", 1) == ["tiny"]
    await build(thumbs)
    store.delete(instance.bucket, thumbs.key(DOC, "medium"))

    assert await thumbs.missing(DOC, MD5, JPEG, 1) == ["medium"]
    assert await thumbs.missing(DOC, MD5, "text/plain", 1) == []


def test_there_is_no_other_format(thumbs):
    with pytest.raises(ValueError):
        thumbs.key(DOC, "../huge")


# ---- serving


async def test_a_thumbnail_is_served_with_type_and_quoted_etag_and_in_ranges(thumbs):
    await build(thumbs)

    served = await thumbs.open(DOC, "medium")

    assert (served.content_type, served.size) == ("image/jpeg", 6)
    assert served.etag == f'"{hashlib.md5(b"medium").hexdigest()}"'
    assert await served.read() == b"medium"
    assert await served.read(2, 4) == b"di"
    assert await served.read(4, 100) == b"um"
    assert await served.read(100) == b""


async def test_a_thumbnail_that_is_not_there_is_not_found(thumbs):
    with pytest.raises(NotStored) as caught:
        await thumbs.open(DOC, "tiny")

    assert str(caught.value) == "there is no tiny thumbnail of the file"


async def test_one_of_another_content_is_not_found_by_who_knows_it(thumbs):
    await build(thumbs)

    with pytest.raises(NotStored) as caught:
        await thumbs.open(DOC, "tiny", OTHER)

    assert str(caught.value) == "there is no tiny thumbnail of the file as it is now"


async def test_a_marker_is_served_as_no_picture(thumbs, stub):
    stub.error = NoPicture("damaged")
    await build(thumbs)

    with pytest.raises(NoPicture) as caught:
        await thumbs.open(DOC, "tiny", MD5)

    assert str(caught.value) == "no thumbnail can be made of the file"


async def test_what_is_of_the_wrong_type_is_not_found_and_all_are_removed(thumbs, store, instance):
    await build(thumbs)
    store.put(instance.bucket, thumbs.key(DOC, "small"), b"an upload that was cut")

    with pytest.raises(NotStored):
        await thumbs.open(DOC, "small")

    assert stored(store, instance) == {}


async def test_a_thumbnail_that_is_replaced_while_it_is_served_is_not_mixed(
    thumbs, store, instance
):
    await build(thumbs)
    served = await thumbs.open(DOC, "tiny")
    store.put(instance.bucket, thumbs.key(DOC, "tiny"), b"TINY", content_type=JPEG)

    with pytest.raises(WrongContent):
        await served.read()


async def test_what_cannot_be_removed_is_not_found_all_the_same(on_failing, failing):
    failing.fail_always("delete_many")
    failing.put("b-default", on_failing.key(DOC, "small"), b"an upload that was cut")

    with pytest.raises(NotStored):
        await on_failing.open(DOC, "small")


# ---- removing


async def test_removing_takes_all_formats_of_one_file(thumbs, store, instance):
    await build(thumbs)
    await build(thumbs, UUID)

    await thumbs.remove(DOC)
    await thumbs.remove(DOC)

    assert set(stored(store, instance)) == {f"thumbs/{UUID}-{name}" for name in FORMATS}


async def test_what_is_being_drawn_when_its_file_is_removed_is_removed_too(
    thumbs, stub, store, instance
):
    stub.may_end = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(build, thumbs)
        await stub.begun.wait()
        nursery.start_soon(thumbs.remove, DOC)
        await trio.testing.wait_all_tasks_blocked()
        stub.may_end.set()

    assert stored(store, instance) == {}


async def test_another_file_does_not_wait(thumbs, stub):
    stub.may_end = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(build, thumbs)
        await stub.begun.wait()
        with trio.fail_after(10):
            await thumbs.remove(UUID)
        nursery.cancel_scope.cancel()


# ---- a store that fails


@pytest.fixture
def failing(local_store):
    return FailingStore(local_store)


@pytest.fixture
def on_failing(failing, local_store, prefix, stub):
    local_store.ensure_bucket("b-default")
    return Thumbnails(failing, Caller(timeout_s=0), "b-default", "alice", stub)


async def test_what_a_failure_has_left_out_is_made_by_the_next_attempt(on_failing, failing):
    failing.fail("put", nth=3)
    with pytest.raises(StoreUnavailable):
        await build(on_failing)
    assert await on_failing.missing(DOC, MD5, JPEG, 1) == ["small", "tiny"]

    assert await build(on_failing) is Outcome.MADE

    assert await on_failing.missing(DOC, MD5, JPEG, 1) == []


async def test_a_store_that_is_down_is_not_a_missing_thumbnail(on_failing, failing):
    failing.fail_always("head")

    with pytest.raises(StoreUnavailable):
        await on_failing.exists(DOC, "tiny", MD5)
    with pytest.raises(StoreUnavailable):
        await on_failing.open(DOC, "tiny")


async def test_a_short_outage_is_waited_for(failing, local_store, stub, autojump_clock):
    local_store.ensure_bucket("b-default")
    failing.fail("put", times=3)

    assert await build(Thumbnails(failing, Caller(), "b-default", "alice", stub)) is Outcome.MADE
