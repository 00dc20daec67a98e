"""Dynamic assets: files that replace or add to those which a Cozy server serves, per context.

Blocking functions, one attempt each; an :class:`Assets` may be used by several threads. Where an
asset comes from is `cozyfs.side.asset_source`.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import brotli
import cachetools

from cozyfs.errors import NotStored, UsageError, WrongContent
from cozyfs.side.asset_names import (
    SUM_LENGTH,
    asset_key,
    check_context,
    media_type,
    name_with_sum,
    normalised,
    parse_asset_key,
)
from cozyfs.side.asset_source import MAX_ASSET_SIZE
from cozyfs.side.objects import put_making_bucket, read_whole
from cozyfs.store.buckets import side_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from cozyfs.store import Store

log = logging.getLogger(__name__)

DEFAULT_CONTEXT = "default"
"""Whose assets every other context has too."""

CACHE_SIZE = 64 << 20
CACHE_TTL_S = 3600.0
"""How long another machine's change may stay unseen; as on the Cozy server."""

_BROTLI_QUALITY = 6  # of 11, which takes two seconds for each MiB


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset with its content; *shasum* is the SHA-256 in hexadecimal."""

    name: str
    context: str
    data: bytes = field(repr=False)
    shasum: str
    mime: str
    url: str = ""  # where it was taken from; known only when it was added just now
    is_custom: bool = True

    @property
    def etag(self) -> str:
        """With its quotes."""
        return f'"{self.shasum[:SUM_LENGTH]}"'

    @property
    def name_with_sum(self) -> str:
        return name_with_sum(self.name, self.shasum)

    def compressed(self) -> bytes:
        """The content in brotli."""
        packed: bytes = brotli.compress(  # type: ignore[no-untyped-call]  # of brotli
            self.data, quality=_BROTLI_QUALITY
        )
        return packed


@dataclass(frozen=True, slots=True)
class Listed:
    """What a listing tells of an asset."""

    name: str
    context: str
    size: int
    modified: datetime | None


class Assets:
    """The assets in *store*. What is read is kept in memory for an hour, up to ``CACHE_SIZE``;
    what is not there is asked for again each time."""

    def __init__(self, store: Store, bucket_prefix: str) -> None:
        self._store = store
        self._bucket = side_bucket(bucket_prefix, "assets")
        self._lock = threading.Lock()
        self._changes = 0
        self._cache: cachetools.TTLCache[str, Asset] = cachetools.TTLCache(
            CACHE_SIZE, CACHE_TTL_S, getsizeof=lambda asset: len(asset.data) + 1024
        )

    def add(
        self, context: str, name: str, data: bytes, *, url: str = "", shasum: str = ""
    ) -> Asset:
        """Stores an asset, in place of one of that name. Raises WrongContent when *shasum* is
        given and is not that of *data*, UsageError for a name that cannot be."""
        key = asset_key(context, name)
        asset = _asset(context, normalised(name), data, url)
        if not shasum:
            log.warning("the asset %s is added without a checksum to compare", asset.name)
        elif not re.fullmatch(r"[0-9a-fA-F]{64}", shasum):
            raise UsageError("a SHA-256 has 64 hexadecimal digits")
        elif shasum.lower() != asset.shasum:
            raise WrongContent(f"the SHA-256 of {asset.name} is {asset.shasum}, not {shasum}")
        try:
            put_making_bucket(self._store, self._bucket, key, data)
        finally:
            self._forget(key)  # also where the answer was lost
        return asset

    def get(self, context: str, name: str) -> Asset:
        """Raises NotStored, TooLarge, UsageError."""
        key = asset_key(context, name)
        with self._lock:
            if (kept := self._cache.get(key)) is not None:
                return kept
            changes = self._changes
        clean = normalised(name)
        what = f"asset {clean} in the context {context}"
        _, data = read_whole(self._store, self._bucket, key, MAX_ASSET_SIZE, what)
        asset = _asset(context, clean, data)
        with self._lock, suppress(ValueError):  # larger than the cache
            if changes == self._changes:
                self._cache[key] = asset
        return asset

    def find(self, context: str, name: str) -> Asset:
        """The asset of *context*, else that of all contexts. Raises NotStored."""
        if context and context != DEFAULT_CONTEXT:
            with suppress(NotStored):
                return self.get(context, name)
        return self.get(DEFAULT_CONTEXT, name)

    def remove(self, context: str, name: str) -> None:
        """Absent is not an error."""
        key = asset_key(context, name)
        try:
            self._store.delete(self._bucket, key)
        finally:
            self._forget(key)

    def list(self, context: str | None = None) -> Iterator[Listed]:
        """All assets, or those of *context*, by context and name."""
        prefix = "" if context is None else f"{check_context(context)}/"
        for info in self._store.list(self._bucket, prefix):
            parsed = parse_asset_key(info.key)
            if parsed is not None:
                yield Listed(parsed[1], parsed[0], info.size, info.last_modified)

    def status(self) -> float:
        """Seconds that the store takes to answer. Raises StoreError when it does not."""
        began = time.monotonic()
        self._store.check()
        return time.monotonic() - began

    def _forget(self, key: str) -> None:
        """What others read meanwhile is not to be kept either."""
        with self._lock:
            self._changes += 1
            self._cache.pop(key, None)


def _asset(context: str, name: str, data: bytes, url: str = "") -> Asset:
    shasum = hashlib.sha256(data).hexdigest()
    return Asset(name, context, data, shasum, media_type(name, data), url)
