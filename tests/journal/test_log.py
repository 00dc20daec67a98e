"""What happened to a file, told by the journal."""

from __future__ import annotations

import pytest
from journal_world import T0, make, make_directory, running

from cozyfs.errors import JournalDamaged
from cozyfs.index import Version
from cozyfs.journal.log import Logged, log_of
from cozyfs.values import TRASH_INO, AttributeChanges, Content


class Diary:
    """A tree whose changes are one journal object each."""

    def __init__(self, site, index, writer):
        self.site, self.index, self._writer = site, index, writer

    async def step(self):
        await self._writer.flush()

    async def log(self, path, ino=None):
        """As (event, path, details)."""
        found = []
        scratch = self.site.folder / "log.sqlite"

        async def tell(logged):
            if isinstance(logged, Logged):
                found.extend((e.what, e.path, dict(e.details)) for e in logged.events)

        await log_of(self.site.objects(), path, ino, scratch, tell)
        assert not scratch.exists()
        return found

    def store(self, ino, internal_id, size):
        content = Content(internal_id, size, size, b"m" * 16, "etag")
        self.index.set_content(ino, content, mtime_ns=T0, ctime_ns=T0, now_ns=T0)


@pytest.fixture
async def diary(any_site, autojump_clock):
    index = any_site.new_index()
    writer, lease = await any_site.machine(index)
    await any_site.snapshotter(index, lease).ensure_first()
    async with running(writer.run):
        yield Diary(any_site, index, writer)


async def test_the_life_of_a_file_under_all_its_names(diary):
    index = diary.index
    ino = make(index, b"a")
    await diary.step()
    diary.store(ino, "i1", 10)
    await diary.step()
    diary.store(ino, "i2", 25)
    await diary.step()
    folder = make_directory(index, b"d")
    await diary.step()
    index.rename(1, b"a", folder, b"b", T0, keep=lambda ino: False)
    await diary.step()
    index.set_attributes(ino, AttributeChanges(mode=0o600, uid=7), T0)
    index.set_xattr(ino, b"user.x", b"1", now_ns=T0)
    await diary.step()
    index.link(ino, 1, b"c", T0)
    await diary.step()
    index.rename(1, b"d", 1, b"e", T0, keep=lambda ino: False)
    await diary.step()
    index.unlink(folder, b"b", T0, keep=False)
    await diary.step()
    index.rename(1, b"c", TRASH_INO, b"c", T0, keep=lambda ino: False)
    await diary.step()
    index.rename(TRASH_INO, b"c", 1, b"c", T0, keep=lambda ino: False)
    await diary.step()
    index.set_attributes(ino, AttributeChanges(mtime_ns=5), T0)
    await diary.step()
    index.unlink(1, b"c", T0, keep=False)
    await diary.step()
    life = [
        ("created", b"/a", {"size": 0}),
        ("content", b"/a", {"old_size": 0, "size": 10}),
        ("content", b"/a", {"old_size": 10, "size": 25}),
        ("renamed", b"/d/b", {"from": "/a"}),
        (
            "attributes",
            b"/d/b",
            {"old_mode": "0644", "mode": "0600", "old_owner": "1:1", "owner": "7:1"},
        ),
        ("xattr", b"/d/b", {"name": "user.x", "how": "set"}),
        ("linked", b"/c", {}),
        ("unlinked", b"/e/b", {}),
        ("trashed", b"/.cozy_trash/c", {"from": "/c"}),
        ("restored", b"/c", {"from": "/.cozy_trash/c"}),
        ("times", b"/c", {"mtime_ns": 5}),
        ("removed", b"/c", {}),
    ]
    assert await diary.log(b"/a") == life
    assert await diary.log(b"/d/b") == life[3:]
    assert await diary.log(b"/nothing", ino) == life
    assert await diary.log(b"/nothing") == []


async def test_a_file_that_was_replaced_and_the_one_that_replaced_it(diary):
    index = diary.index
    make(index, b"a")
    await diary.step()
    make(index, b"a.new", internal_id="i")
    await diary.step()
    index.rename(1, b"a.new", 1, b"a", T0, keep=lambda ino: False)
    await diary.step()
    new = index.resolve(b"/a").ino
    assert await diary.log(b"/a", new) == [
        ("created", b"/a", {"size": 0}),
        ("created", b"/a.new", {"size": 5}),
        ("replaced", b"/a", {}),
        ("renamed", b"/a", {"from": "/a.new"}),
    ]


async def test_a_directory_tells_of_itself_and_its_entries_only(diary):
    index = diary.index
    folder = make_directory(index, b"d")
    await diary.step()
    inner = make_directory(index, b"in", folder)
    ino = make(index, b"f", folder)
    make(index, b"f")
    await diary.step()
    make(index, b"deep", inner)
    diary.store(ino, "i", 9)
    await diary.step()
    index.rename(folder, b"f", 1, b"out", T0, keep=lambda ino: False)
    await diary.step()
    diary.store(ino, "j", 8)
    index.rename(1, b"d", 1, b"e", T0, keep=lambda ino: False)
    await diary.step()
    assert await diary.log(b"/d") == [
        ("created", b"/d", {}),
        ("created", b"/d/in", {}),
        ("created", b"/d/f", {"size": 0}),
        ("content", b"/d/f", {"old_size": 0, "size": 9}),
        ("renamed", b"/out", {"from": "/d/f"}),
        ("renamed", b"/e", {"from": "/d"}),
    ]


async def test_the_root(diary):
    make(diary.index, b"f")
    await diary.step()
    assert await diary.log(b"/", 1) == [("created", b"/f", {"size": 0})]


async def test_versions_that_are_filed_and_removed(diary):
    index = diary.index
    ino = make(index, b"f", internal_id="i1")
    await diary.step()
    version = Version(
        index.get(ino).doc_id, "i1", T0, T0, 5, 5, b"m" * 16, "etag", None, None, "{}"
    )
    with index.transaction():
        index.add_version(version)
        diary.store(ino, "i2", 7)
    await diary.step()
    index.remove_version(version, T0)
    await diary.step()
    assert await diary.log(b"/f") == [
        ("created", b"/f", {"size": 5}),
        ("content", b"/f", {"old_size": 5, "size": 7}),
        ("version", b"/f", {"size": 5}),
        ("version removed", b"/f", {"size": 5}),
    ]


async def test_a_file_removed_while_open_is_removed_once(diary):
    ino = make(diary.index, b"f")
    await diary.step()
    diary.index.unlink(1, b"f", T0, keep=True)
    await diary.step()
    diary.index.drop(ino, T0)
    await diary.step()
    assert [what for what, *_ in await diary.log(b"/f")] == ["created", "removed"]


async def test_what_cannot_be_read_is_told(diary):
    for name in (b"a", b"b", b"c"):
        make(diary.index, name)
        await diary.step()
    diary.site.damage("journal", "00000001-000000000002")
    with pytest.raises(JournalDamaged, match="1-2"):
        await diary.log(b"/a")
    assert list(diary.site.folder.glob("log*")) == []
