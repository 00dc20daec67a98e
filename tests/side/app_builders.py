"""Apps to install, and the store they go to."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cozyfs.side.apps import WEBAPPS, AppFiles, Copier, Documents, Kind, SourceFile, install

if TYPE_CHECKING:
    from pathlib import Path

    from cozyfs.store import Store
    from cozyfs.threads import Caller
    from cozyfs.values import Instance

MANIFEST = b'{"version": "1.2.3"}'
DRIVE = {
    "manifest.webapp": MANIFEST,
    "index.html": b"<html>" * 1000,
    "assets/a..b.js": b"let a = 1\n" * 500,
    "assets/empty": b"",
    "icon": b"\x89PNG\r\n\x1a\n....",
}


@dataclass
class World:
    store: Store
    caller: Caller
    prefix: str
    alice: Instance
    folder: Path
    kind: Kind = WEBAPPS

    @property
    def bucket(self):
        return f"{self.prefix}-{self.kind.bucket}"

    @property
    def files(self):
        return AppFiles(self.store, self.caller, self.prefix, self.kind)

    @property
    def documents(self):
        return Documents(self.store, self.caller, self.alice, self.kind)

    def with_store(self, store):
        return dataclasses.replace(self, store=store)

    def copier(self, slug="drive", version="1.2.3", shasum=""):
        return Copier(self.store, self.caller, self.prefix, self.kind, slug, version, shasum)

    def tar(self, files=None, name="app.tar.gz", **kwargs):
        path = self.folder / name
        path.write_bytes(tar_bytes(DRIVE if files is None else files, **kwargs))
        return path

    async def install(self, source, slug="drive", instance=None):
        return await install(
            self.store,
            self.caller,
            self.prefix,
            instance or self.alice,
            self.kind,
            slug,
            str(source),
        )

    def stored_keys(self, prefix=""):
        return [info.key for info in self.store.list(self.bucket, prefix)]

    async def content(self, name, version="1.2.3", slug="drive"):
        return await all_of((await self.files.open(slug, version, name)).chunks())


def manifest(version="1.2.3", **fields):
    return json.dumps({"version": version, **fields}).encode()


def tar_bytes(files, *, prefix="", mode="w:gz", entries=()):
    """*files* by name; *entries* are TarInfos to add after them, without content."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for entry in entries:
            tar.addfile(entry)
    return sink.getvalue()


def entry(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def file_of(name, content):
    return SourceFile(name, len(content), io.BytesIO(content))


async def all_of(chunks):
    async with contextlib.aclosing(chunks) as stream:
        return b"".join([chunk async for chunk in stream])
