"""Documents of installed apps on the move. Their files are shared by all instances of a store."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from cozyfs.errors import AppRefused, ArchiveError, UsageError
from cozyfs.side.apps import KINDS, AppDocument, Copier, Documents
from cozyfs.side.apps.layout import check_slug, folder

if TYPE_CHECKING:
    from cozyfs.side.apps import Kind
    from cozyfs.store.base import Store
    from cozyfs.threads import Caller
    from cozyfs.values import Instance


class Apps:
    """What is installed on one instance."""

    def __init__(self, store: Store, caller: Caller, instance: Instance) -> None:
        self._store = store
        self._caller = caller
        self._instance = instance

    async def documents(self) -> list[dict[str, Any]]:
        """Raises StoreError, CorruptObject."""
        return [
            {"_id": f"{kind.doctype}/{app.slug}", **asdict(app)}
            for kind in KINDS
            for app in await self._of(kind).list()
        ]

    async def put(self, document: dict[str, Any]) -> None:
        """Raises ArchiveError for what is no document of an app, StoreError."""
        kind, app = parse(document)
        await self._of(kind).put(app)

    async def missing(self, bucket_prefix: str) -> list[tuple[Kind, AppDocument]]:
        """Those whose files are not in the store. Raises StoreError."""
        found = []
        for kind in KINDS:
            for app in await self._of(kind).list():
                version = (app.slug, app.version, app.checksum)
                copier = Copier(self._store, self._caller, bucket_prefix, kind, *version)
                if not await copier.exist():
                    found.append((kind, app))
        return found

    def _of(self, kind: Kind) -> Documents:
        return Documents(self._store, self._caller, self._instance, kind)


def parse(document: dict[str, Any]) -> tuple[Kind, AppDocument]:
    """Raises ArchiveError."""
    name = str(document.get("_id"))
    doctype, _, slug = name.partition("/")
    try:
        (kind,) = (kind for kind in KINDS if kind.doctype == doctype)
        values = {each.name: str(document.get(each.name, "")) for each in fields(AppDocument)}
        app = AppDocument(**values | {"slug": check_slug(slug)})
        folder(app.version, app.checksum)
    except (ValueError, UsageError, AppRefused) as exc:
        raise ArchiveError(f"{name[:200]!r} in the archive is no app") from exc
    return kind, app
