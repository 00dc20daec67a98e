"""The picture of a person: one object per instance, ``<db_prefix>/avatar``.

Blocking functions, one attempt each. A body has a known size, so that an avatar is one PUT; the
Cozy server sends a stream of unknown size, for which its library takes 528 MiB.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cozyfs.errors import TooLarge
from cozyfs.side.objects import OCTET_STREAM, read_whole
from cozyfs.store.keys import check_db_prefix

if TYPE_CHECKING:
    from cozyfs.store import Body, ObjectInfo, Store
    from cozyfs.values import Instance

MAX_SIZE = 20_000_000
"""Bytes; what the Cozy server takes (PUT /settings/avatar)."""


@dataclass(frozen=True, slots=True)
class Avatar:
    """*data* and what it is served with; *etag* has its quotes, *created_at* is the date to give
    as Last-Modified, None where the object says none."""

    data: bytes
    content_type: str
    etag: str
    created_at: datetime | None


def key(instance: Instance) -> str:
    return f"{check_db_prefix(instance.db_prefix)}/avatar"


def check_size(size: int) -> None:
    """Raises TooLarge."""
    if size > MAX_SIZE:
        raise TooLarge(f"an avatar can have at most {MAX_SIZE} bytes, not {size}")


def put(
    store: Store,
    instance: Instance,
    body: Body | bytes,
    content_type: str,
    *,
    now: datetime | None = None,
) -> None:
    """Replaces the avatar. Raises TooLarge."""
    check_size(len(body) if isinstance(body, bytes) else body.size)
    created = (now or datetime.now(UTC)).astimezone(UTC)
    store.put(
        instance.bucket,
        key(instance),
        body,
        content_type=content_type or OCTET_STREAM,
        metadata={"created-at": created.strftime("%Y-%m-%dT%H:%M:%SZ")},
    )


def get(store: Store, instance: Instance) -> Avatar:
    """Raises NotStored, and TooLarge for what no Cozy server would have taken."""
    what = f"avatar of {instance.domain}"
    info, data = read_whole(store, instance.bucket, key(instance), MAX_SIZE, what)
    return Avatar(data, info.content_type or OCTET_STREAM, f'"{info.etag}"', _created(info))


def _created(info: ObjectInfo) -> datetime | None:
    try:
        created = datetime.fromisoformat(info.metadata["created-at"])
    except (KeyError, ValueError):
        return None
    return created if created.tzinfo else None


def delete(store: Store, instance: Instance) -> None:
    """Absent is not an error."""
    store.delete(instance.bucket, key(instance))
