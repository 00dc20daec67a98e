"""Fixtures of what joins the tree with the side storages: a file system, and one who draws."""

from __future__ import annotations

import pytest
import trio
from world import open_fs

from cozyfs.joined.thumbnailer import Thumbnailer
from cozyfs.side.note_images import NoteImages
from cozyfs.side.thumbnails import Thumbnails


class Drawer:
    """Draws without drawing: the name of the format and what the file holds, or an error. What
    holds "little" is as small as a picture of it."""

    def __init__(self):
        self.error = None
        self.drawn = []
        self.begun = trio.Event()
        self.may_end = trio.Event()
        self.may_end.set()

    async def draw(self, kind, source, targets, *, md5=None):
        data = b"".join([piece async for piece in source()])
        self.begun.set()
        await self.may_end.wait()
        self.drawn.append(data)
        if self.error:
            raise self.error
        if data == b"little" and not targets[0].always:
            return {}
        return {target.name: target.name.encode() + b" of " + data for target in targets}


@pytest.fixture(params=["local", "s3"])
def store(request):
    return request.getfixturevalue(f"{request.param}_store")


@pytest.fixture
def drawer():
    return Drawer()


@pytest.fixture
async def fs(store, tmp_path):
    async with open_fs(store, tmp_path, use_trash=True) as fs:
        yield fs


@pytest.fixture
def thumbnails(fs, drawer):
    objects = fs.objects
    return Thumbnails(objects.store, objects.caller, objects.bucket, objects.db_prefix, drawer)


@pytest.fixture
def images(fs, drawer):
    objects = fs.objects
    return NoteImages(objects.store, objects.caller, objects.bucket, objects.db_prefix, drawer)


@pytest.fixture
def confirmed():
    """How often the lease was asked for; an error in ``refusal`` is raised."""

    class Confirm:
        count = 0
        refusal = None

        async def __call__(self):
            self.count += 1
            if self.refusal:
                raise self.refusal

    return Confirm()


@pytest.fixture
def thumbnailer(fs, thumbnails, images, confirmed):
    return Thumbnailer(fs, thumbnails, images, confirmed)
