"""What is installed on an instance: a JSON document per app, as objects of the instance.

``<db_prefix>/.cozyfs/apps/<slug>.json`` and ``.cozyfs/konnectors/<slug>.json`` stand for the
documents ``io.cozy.apps/<slug>`` and ``io.cozy.konnectors/<slug>`` of a Cozy server, with its
names of fields. Each is written whole; of two writers at once the last counts.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cozyfs.errors import CorruptObject, NotFound, ObjectNotFound, UsageError
from cozyfs.side.apps.layout import check_slug

if TYPE_CHECKING:
    from cozyfs.side.apps.layout import Kind
    from cozyfs.store import Store
    from cozyfs.threads import Caller
    from cozyfs.values import Instance

READY = "ready"
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class AppDocument:
    """One installed app. Times are RFC 3339, UTC."""

    slug: str
    source: str  # where it came from
    state: str  # installing, upgrading, installed, ready, errored; here always ready
    version: str
    checksum: str  # "" when the version is not named with one
    created_at: str
    updated_at: str
    error: str = ""


class Documents:
    """The documents of one kind on one instance."""

    def __init__(self, store: Store, caller: Caller, instance: Instance, kind: Kind) -> None:
        self._store = store
        self._caller = caller
        self._instance = instance
        self._kind = kind

    async def get(self, slug: str) -> AppDocument:
        """Raises NotFound when the app is not installed, CorruptObject."""
        document = await self.find(slug)
        if document is None:
            raise NotFound(
                f"the {self._kind.noun} {slug} is not installed on {self._instance.domain}"
            )
        return document

    async def find(self, slug: str) -> AppDocument | None:
        key = self._key(slug)
        try:
            body = await self._caller.store(self._store.get, self._instance.bucket, key)
        except ObjectNotFound:
            return None
        return self._parsed(slug, body)

    async def list(self) -> list[AppDocument]:
        """All, by slug."""
        folder = self._folder()
        keys = await self._caller.store(
            lambda: [info.key for info in self._store.list(self._instance.bucket, folder)]
        )
        slugs = [key[len(folder) : -len(_SUFFIX)] for key in keys if key.endswith(_SUFFIX)]
        found = [await self.find(slug) for slug in slugs if _is_slug(slug)]
        return [document for document in found if document is not None]

    async def put(self, document: AppDocument) -> None:
        record = {"_id": f"{self._kind.doctype}/{document.slug}", **asdict(document)}
        body = json.dumps(record, ensure_ascii=False, indent=2).encode() + b"\n"
        await self._caller.store(
            self._store.put,
            self._instance.bucket,
            self._key(document.slug),
            body,
            content_type="application/json",
        )

    async def remove(self, slug: str) -> AppDocument:
        """The document alone: files of apps are shared by all instances. Raises NotFound."""
        document = await self.get(slug)
        await self._caller.store(self._store.delete, self._instance.bucket, self._key(slug))
        return document

    def _folder(self) -> str:
        return f"{self._instance.db_prefix}/.cozyfs/{self._kind.name}/"

    def _key(self, slug: str) -> str:
        return f"{self._folder()}{check_slug(slug)}{_SUFFIX}"

    def _parsed(self, slug: str, body: bytes) -> AppDocument:
        try:
            record = json.loads(body)
            values = {field.name: str(record.get(field.name, "")) for field in fields(AppDocument)}
        except (ValueError, AttributeError) as exc:
            raise CorruptObject(
                f"the document of the {self._kind.noun} {slug} on {self._instance.domain} is "
                "damaged; install it again"
            ) from exc
        return AppDocument(**values | {"slug": slug})


def _is_slug(text: str) -> bool:
    try:
        check_slug(text)
    except UsageError:
        return False
    return True


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
