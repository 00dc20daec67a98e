"""Items from the parts of a Cozy server's export: zips, one after the other.

A part has documents under ``My Cozy/Data/`` and contents under ``My Cozy/Files/``; directories are
in the first. Documents of other types are counted, for people to be told: nothing here has a place
for them. A content is found by its name, which follows from its document: the server skips
contents that it cannot read, so what comes next may be another file's.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from cozyfs.errors import ArchiveError
from cozyfs.moving.contents import content_of, damage_told
from cozyfs.moving.items import Item, Kind
from cozyfs.moving.tar_reader import LONGEST_DOCUMENT, parse_document
from cozyfs.values import ROOT_DOC_ID, TRASH_DOC_ID

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from cozyfs.moving.items import Content
    from cozyfs.threads import Caller

_DATA = "Data/"
_DOCUMENTS = "Data/io.cozy.files/"
_VERSIONS = "Data/io.cozy.files.versions/"
_CONTENTS = "Files/"


class ZipReader:
    """*paths* are all parts, the first one first."""

    certified = False
    """As on a Cozy: what vouched for a file does not go along."""

    def __init__(self, paths: Sequence[Path], caller: Caller) -> None:
        self._paths = paths
        self._caller = caller
        self._directories = {ROOT_DOC_ID: "", TRASH_DOC_ID: "/.cozy_trash"}

    async def items(self) -> AsyncGenerator[Item, None]:
        """Raises ArchiveError, OSError."""
        yield Item(Kind.INSTANCE, await self._caller.disk(self._survey))
        for path in self._paths:
            part = await self._caller.disk(_Part, path)
            try:
                for number, name in enumerate(part.names):
                    item = await self._caller.disk(self._item, part, number, name)
                    if item is not None:
                        yield item
            finally:
                part.zip.close()

    # ---- inside, in a thread

    def _survey(self) -> dict[str, Any]:
        """What there is in all parts, and which export they are of."""
        totals = {"files": 0, "versions": 0, "bytes": 0}
        others: Counter[str] = Counter()
        identity = hashlib.sha256()
        for number, path in enumerate(self._paths):
            part = _Part(path)
            with part.zip:
                for info in part.zip.infolist():
                    inner = info.filename.removeprefix(part.top)
                    if inner.startswith(_CONTENTS):
                        totals["bytes"] += info.file_size
                    elif inner.startswith(_VERSIONS):
                        totals["versions"] += 1
                    elif (doctype := _other_doctype(inner)) is not None:
                        others[doctype] += 1
                if number == 0:
                    if f"{part.top}Data/instance.json" not in part.names:
                        raise ArchiveError(f"{path} is not the first part of a Cozy's export")
                    identity.update(part.read(f"{part.top}Data/instance.json"))
        return {
            "format": 0,
            "id": identity.hexdigest()[:32],
            "domain": "",
            "totals": totals,
            "left_out": dict(sorted(others.items())),
        }

    def _item(self, part: _Part, number: int, name: str) -> Item | None:
        inner = name.removeprefix(part.top)
        if not inner.endswith(".json"):
            return None
        if inner.startswith(_VERSIONS):
            document = parse_document(part.read(name), name)
            label = str(document.get("_id"))
            return Item(
                Kind.VERSION,
                document,
                part.content(number, f"{part.top}{_CONTENTS}{label}", self._caller),
                label,
            )
        if not inner.startswith(_DOCUMENTS):
            return None  # of an app: a tree has no place for it
        document = parse_document(part.read(name), name)
        if document.get("type") == "directory":
            path = str(document.get("path"))
            self._directories[str(document.get("_id"))] = path.rstrip("/")
            return Item(Kind.DIRECTORY, document, path=path)
        above = self._directories.get(str(document.get("dir_id")))
        if above is None:
            return Item(Kind.FILE, document, path=str(document.get("name")))
        path = f"{above}/{document.get('name')}"
        wanted = f"{part.top}{_CONTENTS}{path[1:]}"
        return Item(Kind.FILE, document, part.content(number, wanted, self._caller), path)


def _other_doctype(inner: str) -> str | None:
    """Of a document that is not of the files, or None."""
    if not (inner.startswith(_DATA) and inner.endswith(".json")):
        return None
    doctype, slash, _ = inner.removeprefix(_DATA).partition("/")
    if not slash or f"{_DATA}{doctype}/" in (_DOCUMENTS, _VERSIONS):
        return None
    return unquote(doctype)


class _Part:
    """One zip, open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with damage_told(str(path)):
            self.zip = zipfile.ZipFile(path)
        self.names = self.zip.namelist()
        tops = {name.partition("/")[0] for name in self.names}
        if len(tops) != 1:
            self.zip.close()
            raise ArchiveError(f"{path} is no part of a Cozy's export")
        self.top = f"{tops.pop()}/"
        for name in self.names:
            if not {".", ".."}.isdisjoint(name.split("/")):
                self.zip.close()
                raise ArchiveError(f"the archive has an entry {name[:200]!r}: it is not safe")

    def read(self, name: str) -> bytes:
        """A document."""
        if self.zip.getinfo(name).file_size > LONGEST_DOCUMENT:
            raise ArchiveError(f"{self.path} has a document that is too long")
        with damage_told(name):
            return self.zip.read(name)

    def content(self, number: int, name: str, caller: Caller) -> Content | None:
        """The content called *name*, best the one right after entry *number*: a name may come
        twice. None: it is missing."""
        infos = self.zip.infolist()
        info = infos[number + 1] if number + 1 < len(infos) else None
        if info is None or info.filename != name:
            try:
                info = self.zip.getinfo(name)
            except KeyError:
                return None
        try:
            with damage_told(name):
                file = self.zip.open(info)
            return content_of(file, info.file_size, caller, name)
        except ArchiveError:
            return None
