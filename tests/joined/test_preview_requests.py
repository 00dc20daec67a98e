"""Icons and previews that a mount is asked for, over both stores."""

from __future__ import annotations

import base64
import hashlib
import secrets

import pytest
import trio
from failing_store import FailingStore
from pictures import BLUE, corners, encoded, looks, opened, plain
from world import open_fs

from cozyfs.errors import (
    InvalidRequest,
    NoPicture,
    NotFound,
    StoreUnavailable,
    WrongContent,
)
from cozyfs.joined.preview_requests import answer_preview
from cozyfs.side.previews import Previews
from cozyfs.side.render import Renderer
from cozyfs.threads import Caller
from cozyfs.vfs.paths import Paths

LETTER = encoded(corners((400, 200)), "PDF")
CAT = plain((50, 50), BLUE)


class Client:
    """Whoever asks: what was sent to it, put together again."""

    def __init__(self):
        self.picture = b""
        self.lines = []

    async def send(self, answer):
        self.lines.append(answer)
        self.picture += base64.b64decode(answer.get("data", ""))


class Counting:
    """A renderer that counts what it draws."""

    def __init__(self):
        self.count = 0
        self._renderer = Renderer(Caller())

    async def draw(self, *args, **kwargs):
        self.count += 1
        return await self._renderer.draw(*args, **kwargs)


@pytest.fixture
def renderer():
    return Counting()


@pytest.fixture
def prefix():
    return f"t{secrets.token_hex(5)}"


@pytest.fixture
def previews(fs, prefix, renderer):
    return Previews(fs.objects.store, fs.objects.caller, prefix, renderer)


@pytest.fixture
def ask(fs, previews):
    async def call(name, path):
        client = Client()
        await answer_preview(fs, previews, {"name": name, "path": path}, client.send)
        assert client.lines[-1] == {"size": len(client.picture)}
        return client.picture

    return call


def kept(fs, prefix):
    return {info.key for info in fs.objects.store.list(f"{prefix}-previews")}


async def test_the_first_page_of_a_pdf_file_is_seen(fs, ask, prefix):
    await Paths(fs).write_file("/letter.pdf", LETTER)

    assert opened(await ask("icon", "/letter.pdf")).size == (96, 48)
    assert opened(await ask("preview", "/letter.pdf")).size == (1080, 540)
    md5 = hashlib.md5(LETTER).hexdigest()
    assert kept(fs, prefix) == {f"{md5}.jpg", f"icon-{md5}.jpg"}


async def test_the_same_content_is_drawn_once_wherever_it_is(fs, ask, renderer):
    for path in ("/a.pdf", "/b.pdf"):
        await Paths(fs).write_file(path, LETTER)

    pictures = [await ask("icon", "/a.pdf"), await ask("icon", "/b.pdf")]
    await ask("preview", "/b.pdf")

    assert pictures[0] == pictures[1]
    assert renderer.count == 1


async def test_another_content_has_another_picture(fs, ask):
    await Paths(fs).write_file("/cat.png", plain((50, 50)))
    await ask("preview", "/cat.png")
    await Paths(fs).write_file("/cat.png", CAT)

    assert set(looks(await ask("preview", "/cat.png"))) == {BLUE}


async def test_a_large_picture_comes_in_lines_that_a_socket_takes(fs, previews):
    noise = plain((1200, 1200), mode="L", colour=0)
    picture = secrets.token_bytes(200_000)
    await Paths(fs).write_file("/noise.png", noise)
    await previews.set("preview", hashlib.md5(noise).digest(), picture)
    client = Client()

    request = {"name": "preview", "path": "/noise.png"}
    await answer_preview(fs, previews, request, client.send)

    assert client.picture == picture
    assert max(len(line.get("data", "")) for line in client.lines) < 60_000


async def test_a_content_without_a_known_checksum_is_hashed_first(fs, ask, prefix):
    inode = await Paths(fs).write_file("/cat.png", CAT)
    fs.index.connection.execute("UPDATE inodes SET md5 = NULL WHERE ino = ?", (inode.ino,))
    fs.index.reload()

    assert opened(await ask("icon", "/cat.png")).size == (96, 96)
    assert f"icon-{hashlib.md5(CAT).hexdigest()}.jpg" in kept(fs, prefix)


@pytest.mark.parametrize("md5", [True, False])
async def test_what_can_have_none_is_not_even_read(fs, previews, md5):
    inode = await Paths(fs).write_file("/notes.txt", b"text")
    if not md5:
        fs.index.connection.execute("UPDATE inodes SET md5 = NULL WHERE ino = ?", (inode.ino,))
        fs.index.reload()

    with pytest.raises(NoPicture, match="there is no icon of files of this type or size"):
        await answer_preview(fs, previews, {"name": "icon", "path": "/notes.txt"}, None)


async def test_of_a_damaged_file_there_is_none(fs, ask, prefix):
    await Paths(fs).write_file("/bad.pdf", b"garbage")

    with pytest.raises(NoPicture, match="damaged"):
        await ask("preview", "/bad.pdf")
    assert kept(fs, prefix) == set()


@pytest.mark.parametrize(
    ("name", "path", "error"),
    [
        ("icon", "/nothing.pdf", NotFound),
        ("icon", "/", InvalidRequest),
        ("icon", "letter.pdf", InvalidRequest),
        ("tiny", "/letter.pdf", InvalidRequest),
        (None, "/letter.pdf", InvalidRequest),
        ("icon", None, InvalidRequest),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(fs, ask, name, path, error):
    await Paths(fs).write_file("/letter.pdf", LETTER)

    with pytest.raises(error):
        await ask(name, path)


async def test_what_is_written_and_not_stored_yet_is_seen(fs, ask):
    inode = await Paths(fs).write_file("/cat.png", b"")
    handle = await fs.files.open(inode.ino, 1, 0)
    await fs.files.write(handle.fh, 0, CAT)

    assert set(looks(await ask("preview", "/cat.png"))) == {BLUE}
    await fs.files.release(handle.fh)


async def test_a_mount_that_only_reads_shows_them_and_keeps_none(store, tmp_path, prefix):
    async with open_fs(store, tmp_path) as fs:
        await Paths(fs).write_file("/cat.png", CAT)
        fs.turn_read_only()
        previews = Previews(store, Caller(), prefix, Renderer(Caller()))
        client = Client()

        request = {"name": "icon", "path": "/cat.png"}
        await answer_preview(fs, previews, request, client.send)

        assert opened(client.picture).size == (96, 96)
        assert kept(fs, prefix) == set()


async def test_a_store_that_is_down_is_an_error_and_no_drawing(fs, prefix, renderer):
    await Paths(fs).write_file("/cat.png", CAT)
    failing = FailingStore(fs.objects.store)
    failing.fail_always("head")
    previews = Previews(failing, Caller(timeout_s=0), prefix, renderer)

    with pytest.raises(StoreUnavailable):
        await answer_preview(fs, previews, {"name": "icon", "path": "/cat.png"}, None)
    assert renderer.count == 0


async def test_a_file_that_changes_while_it_is_drawn_has_no_picture_of_a_mixture(fs, prefix):
    inode = await Paths(fs).write_file("/cat.png", CAT)

    class Changing(Counting):
        async def draw(self, *args, **kwargs):
            await Paths(fs).write_file("/cat.png", plain((60, 60)))
            return await super().draw(*args, **kwargs)

    previews = Previews(fs.objects.store, fs.objects.caller, prefix, Changing())
    with pytest.raises(WrongContent, match="changed"):
        await answer_preview(fs, previews, {"name": "icon", "path": "/cat.png"}, None)
    assert kept(fs, prefix) == set()
    assert fs.files.open_files == 0
    assert fs.index.get(inode.ino).size > 0


async def test_a_client_that_goes_away_ends_the_drawing(fs, prefix, autojump_clock):
    await Paths(fs).write_file("/cat.png", CAT)

    class Endless:
        ended = False

        async def draw(self, *args, **kwargs):
            try:
                await trio.sleep_forever()
            finally:
                self.ended = True

    async def gone(answer):
        raise trio.BrokenResourceError

    drawer = Endless()
    previews = Previews(fs.objects.store, fs.objects.caller, prefix, drawer)
    await answer_preview(fs, previews, {"name": "icon", "path": "/cat.png"}, gone)

    assert drawer.ended
    assert fs.files.open_files == 0
