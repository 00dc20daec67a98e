"""What an instance has beside its tree: apps that are installed, thumbnails, images of notes, the
avatar.

It is listed once, into a file of one JSON line each, so that an export which goes on has the same
list. Unlike contents, these objects are replaced and deleted while somebody uses the instance: one
that is not as it was listed any more, is not of the moment of the tree either, and is left out.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

import trio

from cozyfs.errors import ObjectNotFound
from cozyfs.moving import archive
from cozyfs.moving.contents import BytesContent
from cozyfs.moving.items import Item, Kind, StoredContent
from cozyfs.vfs.fsck_listing import THUMBNAIL, THUMBNAIL_FORMATS, classify

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from cozyfs.index import Index
    from cozyfs.moving.apps import Apps
    from cozyfs.vfs.objects import Objects

PREFIXES = ("avatar", "thumbs/")
"""Names in an instance's part of its bucket that hold what is not in the tree."""

PAGE = 500
HEADS_AT_ONCE = 16

WHOLE = 4 << 20
"""Bytes up to which an object is fetched before the archive says that it comes."""

AHEAD = 32
AHEAD_BYTES = 8 << 20


class SideContent(StoredContent):
    """Raises ObjectNotFound where the object is another one by now, if its size tells."""

    async def read(self, start: int, stop: int) -> bytes:
        objects = self.objects
        more = int(stop == self.size)
        data = await objects.caller.store(
            objects.store.get, objects.bucket, self.key, start, stop + more
        )
        if len(data) != stop - start:
            raise ObjectNotFound(f"{self.path} was replaced meanwhile")
        return data


async def write_list(index: Index, objects: Objects, apps: Apps, path: Path) -> None:
    """List what there is, of files that are in the tree *index*, into the file *path*; it is
    there when it is whole. Raises StoreError, CorruptObject for a damaged document of an app."""
    names, scratch = (path.with_name(f"{path.name}.{end}") for end in ("names", "new"))
    await objects.caller.store(_write_names, objects, names)
    installed = await apps.documents()
    with (
        open(names, encoding="utf-8") as file,  # noqa: ASYNC230 - a page at a time
        open(scratch, "w", encoding="utf-8") as out,  # noqa: ASYNC230
    ):
        out.writelines(_line(Kind.APP, each) for each in installed)
        found = map(json.loads, file)
        while page := list(islice(found, PAGE)):
            documents = await _look(objects, _of_tree(index, page))
            out.writelines(_line(Kind.OBJECT, each) for each in documents)
        _sync(out)  # what is written of the archive counts on it
    names.unlink()
    scratch.replace(path)


async def items(
    objects: Objects, path: Path, *, at: int = 0, safe: int = 0
) -> AsyncGenerator[Item, None]:
    """What the list *path* has, in its order. Small contents are fetched before their item
    comes: what is gone does not come, and is not asked for when the list is read again.

    *at* is how many bytes of an archive came before, *safe* how many of it are written: what is
    within is not fetched. Raises StoreError; ObjectNotFound for what is gone and written in
    part."""
    gone = path.with_name(f"{path.name}.gone")
    left_out = set(_lines(gone))
    wanted = (item for item in listed(objects, path) if item.path not in left_out)
    while chunk := _chunk(wanted):
        starts = []
        for item in chunk:
            starts.append(at)
            at += archive.length(item)
        places = list(zip(chunk, starts, strict=True))
        fetched = await _fetched(
            [item for item, start in places if start + archive.length(item) > safe]
        )
        for item, start in places:
            found = fetched.get(item.path, item)
            if found is not None:
                yield found
                continue
            if start < safe:
                raise ObjectNotFound(f"{item.path} went while it was exported")
            with open(gone, "a", encoding="utf-8") as file:  # noqa: ASYNC230 - one write
                file.write(json.dumps(item.path) + "\n")
                _sync(file)
            at -= archive.length(item)


# ---- the list


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _sync(file: TextIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _line(kind: Kind, document: dict[str, Any]) -> str:
    return json.dumps([kind.value, document], separators=(",", ":")) + "\n"


def _write_names(objects: Objects, path: Path) -> None:
    """What the bucket has of the instance beside contents, a name a line. Blocks."""
    prefix = f"{objects.db_prefix}/"
    with open(path, "w", encoding="utf-8") as file:
        for start in PREFIXES:
            for info in objects.store.list(objects.bucket, prefix + start):
                name = info.key.removeprefix(prefix)
                # Some servers list a folder as an empty object.
                if (start.endswith("/") or name == start) and not name.endswith("/"):
                    file.write(json.dumps(name) + "\n")


def _of_tree(index: Index, names: list[str]) -> list[str]:
    """Without the thumbnails that wait for the deletion of their file. Images of notes stay:
    they are nowhere else."""
    files = {
        name: doc_id
        for name in names
        for kind, doc_id, form in [classify(name)]
        if kind == THUMBNAIL and form in THUMBNAIL_FORMATS
    }
    known = index.with_doc_ids(set(files.values()))
    return [name for name in names if name not in files or files[name] in known]


async def _look(objects: Objects, names: list[str]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    limit = trio.CapacityLimiter(HEADS_AT_ONCE)

    async def look(name: str) -> None:
        async with limit:
            key = f"{objects.db_prefix}/{name}"
            try:
                info = await objects.caller.store(objects.store.head, objects.bucket, key)
            except ObjectNotFound:
                return  # it went meanwhile
        found[name] = {
            "name": name,
            "size": str(info.size),
            "content_type": info.content_type or "application/octet-stream",
            "metadata": dict(info.metadata),
        }

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(look, name)
    return [found[name] for name in names if name in found]


# ---- what it lists


def listed(objects: Objects, path: Path) -> Iterator[Item]:
    """What the list *path* has, its contents not fetched."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            kind, document = json.loads(line)
            if kind == Kind.APP.value:
                yield Item(Kind.APP, document, path=document["_id"])
                continue
            name, size = document["name"], int(document["size"])
            content = SideContent(objects, f"{objects.db_prefix}/{name}", size, size, name)
            yield Item(Kind.OBJECT, document, content, name)


def _chunk(wanted: Iterator[Item]) -> list[Item]:
    chunk: list[Item] = []
    size = 0
    for item in islice(wanted, AHEAD):
        chunk.append(item)
        size += item.content.size if item.content is not None else 0
        if size > AHEAD_BYTES:
            break
    return chunk


async def _fetched(wanted: list[Item]) -> dict[str, Item | None]:
    """With their contents, where these are small; None: it is gone."""
    found: dict[str, Item | None] = {}

    async def fetch(item: Item, content: SideContent) -> None:
        try:
            data = await content.read(0, content.size)
        except ObjectNotFound:
            found[item.path] = None
        else:
            found[item.path] = replace(item, content=BytesContent(data))

    async with trio.open_nursery() as nursery:
        for item in wanted:
            if isinstance(item.content, SideContent) and item.content.size <= WHOLE:
                nursery.start_soon(fetch, item, item.content)
    return found
