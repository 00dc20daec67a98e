"""Installs an app on an instance: from a source to files in the store to a document.

The order makes it safe to die anywhere: the source is looked through and compared with its
checksum first, then the files are stored, then the marker of the version, then the document.
The document is the only thing that says what an instance has, so an upgrade that fails leaves
the app as it was.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from cozyfs.errors import AppRefused, CorruptObject
from cozyfs.side.apps.copier import Copier
from cozyfs.side.apps.documents import READY, AppDocument, Documents, now
from cozyfs.side.apps.layout import check_slug
from cozyfs.side.apps.sources import open_source

if TYPE_CHECKING:
    from cozyfs.side.apps.contents import Source
    from cozyfs.side.apps.layout import Kind
    from cozyfs.store import Store
    from cozyfs.threads import Caller
    from cozyfs.values import Instance


@dataclass(frozen=True, slots=True)
class Installed:
    """What an install did."""

    document: AppDocument
    copied: bool  # False: the version was in the store already, of this or another instance
    files: int
    size: int  # bytes of all files, not compressed


async def install(
    store: Store,
    caller: Caller,
    bucket_prefix: str,
    instance: Instance,
    kind: Kind,
    slug: str,
    source: str,
) -> Installed:
    """Install, or upgrade to, what *source* is (:func:`cozyfs.side.apps.sources.open_source`).

    A version that is in the store is not stored again, even if *source* has other files: as on
    the Cozy server, the version names the content. Raises UsageError, AppRefused, StoreError,
    CozyError for a download that fails, OSError for local files that cannot be read.
    """
    check_slug(slug)
    documents = Documents(store, caller, instance, kind)
    with ExitStack() as stack:
        # Not through the caller: who cancels does not wait for a download of a minute, whose
        # thread then ends by itself.
        opened = await trio.to_thread.run_sync(
            lambda: stack.enter_context(open_source(source, kind.manifest)),
            abandon_on_cancel=True,
        )
        version, shasum = _version(opened, kind)
        copier = Copier(store, caller, bucket_prefix, kind, slug, version, shasum)
        copied = await _store_files(copier, opened)
        at = now()
        document = AppDocument(
            slug=slug,
            source=opened.location,
            state=READY,
            version=version,
            checksum=shasum,
            created_at=at,
            updated_at=at,
        )
        document = await _remember(documents, document)
        sizes = opened.files.sizes
        return Installed(document, copied, len(sizes), sum(sizes.values()))


async def _store_files(copier: Copier, source: Source) -> bool:
    """Whether there was anything to store."""
    if await copier.start():
        return False
    try:
        await copier.copy_all(source.files.read())
        await copier.commit()
    except BaseException:
        await copier.abort()
        raise
    return True


async def _remember(documents: Documents, document: AppDocument) -> AppDocument:
    try:
        before = await documents.find(document.slug)
    except CorruptObject:  # to install again is how it is mended
        before = None
    if before is not None:
        document = replace(document, created_at=before.created_at)
    await documents.put(document)
    return document


def _version(source: Source, kind: Kind) -> tuple[str, str]:
    """Version and checksum by the manifest. Raises AppRefused."""
    try:
        manifest = json.loads(source.manifest)
    except (ValueError, RecursionError) as exc:
        raise AppRefused(f"{kind.manifest} is not valid JSON") from exc
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if not isinstance(version, str) or not version:
        raise AppRefused(f"{kind.manifest} has no version")
    checksum = manifest.get("checksum") or ""
    if not isinstance(checksum, str):
        raise AppRefused(f"{kind.manifest} has a checksum that is no text")
    return version + source.version_suffix, checksum
